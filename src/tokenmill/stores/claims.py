"""Which files of an output folder are tokenmill's own: told by hard links, never by names.

Each file that a run makes is first made in a folder of the run's own, ``.tokenmill/claims-ID``
(ID is random: nobody else has such a folder), and gets its name by a hard link, which fails where
that name is taken. As long as the run lasts, a file is ours if it and its claim are one and the
same. So no kill between two steps can make a foreign file look like ours, or ours like a foreign
one: a note of names, before or after a file is made, leaves such a moment.

In a folder that was copied the two are two files, and ours is what has the very content of its
claim. File systems without hard links (FAT, exFAT, some shares) or without those between folders
(AFS) get a mark in the claim's place: there the name counts from the moment at which the mark is
written, and a file that another program puts under that name meanwhile is taken for ours.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"
STATE_FOLDER = ".tokenmill"
_FOLDER = re.compile(r"claims-[0-9a-f]{32}")
_MARK = b"this name is claimed by tokenmill"
_STEP = 1024 * 1024
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, 524}
"""What a file system answers to what it does not have; 524 is the kernel's own ENOTSUPP, which some
network file systems let out."""
_NO_SYNC = UNSUPPORTED | {errno.EBADF, errno.EISDIR, errno.EACCES}
"""Of ``fsync``, on folders most of all; any other failure is one of the disk."""


class Claims:
    """The claims of one output folder: each has the name of its file, without ``.partial``."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._state = place.parent
        self._folder = place.parent.parent

    @classmethod
    def of(cls, folder: Path) -> Claims | None:
        """Those of an output folder, or of the state folder in it; None where no run made any."""
        state = folder if folder.name == STATE_FOLDER else folder / STATE_FOLDER
        try:
            names = sorted(name for name in os.listdir(state) if _FOLDER.fullmatch(name))
            found = [name for name in names if stat.S_ISDIR((state / name).lstat().st_mode)]
        except OSError:
            return None
        return cls(state / found[0]) if found and not state.is_symlink() else None

    @classmethod
    def begun(cls, folder: Path) -> Claims:
        """Those of an output folder, with a place for new ones. Raises OSError."""
        found = cls.of(folder)
        if found is None:
            found = cls(folder / STATE_FOLDER / f"claims-{uuid.uuid4().hex}")
            found._place.mkdir()
        return found

    def create(self, path: Path) -> None:
        """Make an empty file, in the place of one that is ours. Raises FileExistsError where
        another one has its name, and OSError."""
        self.remove(path)
        claim = self._claim(path)
        claim.unlink(missing_ok=True)  # of a file that is gone
        os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        sync_folder(self._place)
        try:
            self._link(claim, path)
        except FileExistsError:
            claim.unlink()
            raise

    def can_link(self) -> bool:
        """Has this file system hard links from one folder to another?"""
        probe = self._place / f"lock-{uuid.uuid4().hex}"
        try:
            os.link(self._state / "lock", probe)
        except OSError:
            return False
        probe.unlink()
        return True

    def _link(self, claim: Path, path: Path) -> None:
        try:
            os.link(claim, path)
        except FileExistsError:
            raise
        except OSError as error:  # whatever it says: what is made instead fails where this must
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
            claim.write_bytes(_MARK)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))

    def adopt(self, path: Path) -> None:
        """Claim a file that is known to be ours by what is in it. Raises OSError."""
        claim = self._claim(path)
        if _is_same(claim, path):
            return
        claim.unlink(missing_ok=True)
        try:
            os.link(path, claim, follow_symlinks=False)
        except OSError:
            claim.write_bytes(_MARK + _identity(path))
        sync_folder(self._place)

    def owns(self, path: Path) -> bool:
        """Is the file under that name ours? No, where there is none. Raises OSError."""
        claim = self._claim(path)
        try:
            mine, there = claim.lstat(), path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not (stat.S_ISREG(mine.st_mode) and stat.S_ISREG(there.st_mode)):
            return False
        if os.path.samestat(mine, there):
            return True
        if (mark := _mark_in(claim)) is not None:
            return mark in (_MARK, _MARK + _identity(path))
        return 0 < mine.st_size == there.st_size and _are_equal(claim, path)

    def remove(self, path: Path) -> bool:
        """Remove a file if it is ours, and its claim. Was it?"""
        is_ours = self.owns(path)
        if is_ours:
            path.unlink()
            self._claim(path).unlink(missing_ok=True)
        return is_ours

    def paths(self) -> Iterator[Path]:
        """Every file that is ours now, sorted by name."""
        for name in self._names():
            for path in (self._folder / name, self._folder / (name + PARTIAL), self._state / name,
                         self._state / (name + PARTIAL)):  # fmt: skip
                if self.owns(path):
                    yield path

    def renew(self) -> None:
        """In a copied folder: make each claim and its file one file again."""
        for path in list(self.paths()):
            if _mark_in(self._claim(path)) is None:
                self.adopt(path)

    def end(self) -> None:
        """Give up all claims, and leave the files as they are."""
        for name in self._names():
            (self._place / name).unlink(missing_ok=True)
        os.rmdir(self._place)

    def _names(self) -> list[str]:
        return sorted(os.listdir(self._place))

    def _claim(self, path: Path) -> Path:
        return self._place / path.name.removesuffix(PARTIAL)


def create_own(path: Path) -> None:
    """Make an empty file under a name that nothing has, or that has a file of this run's. Raises
    FileExistsError where a foreign one has it, and OSError."""
    claims = Claims.of(path.parent)
    if claims is not None:
        claims.create(path)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))


def is_own(path: Path) -> bool:
    """Is the file under that name one that a run here made, and still has under its claims?"""
    claims = Claims.of(path.parent)
    return claims is not None and claims.owns(path)


def shares_a_stretch(one: Path, other: Path, skip: int = 0) -> bool:
    """Have two files the same 512 bytes at the same place behind the first ``skip``? Damage leaves
    such places, and what another program wrote has none; what is shorter is compared as a whole.
    Only bytes that are not all zero count."""
    if not (_is_regular(one) and _is_regular(other)):
        return False
    with one.open("rb") as first, other.open("rb") as second:
        first.seek(skip)
        second.seek(skip)
        while True:
            mine, theirs = first.read(_STEP), second.read(_STEP)
            for start in range(0, min(len(mine), len(theirs)), 512):
                part = mine[start : start + 512]
                stretch = theirs[start : start + len(part)]
                if part[: len(stretch)] == stretch and stretch.strip(b"\0"):
                    return True
            if not mine or not theirs:
                return False


def _mark_in(claim: Path) -> bytes | None:
    """The mark that stands for a claim where there are no hard links, if it is one."""
    with claim.open("rb") as file:
        head = file.read(2 * len(_MARK) + 64)
    return head if head.startswith(_MARK) else None


def _identity(path: Path) -> bytes:
    status = path.lstat()
    return f" {status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except FileNotFoundError:
        return False


def _are_equal(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            mine, theirs = first.read(_STEP), second.read(_STEP)
            if mine != theirs:
                return False
            if not mine:
                return True


def sync(fd: int, only_data: bool = False) -> bool:
    """Make durable what is open; False where its file system cannot. Raises OSError where the disk
    failed."""
    try:
        (getattr(os, "fdatasync", os.fsync) if only_data else os.fsync)(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        return False
    return True


def sync_folder(folder: Path) -> bool:
    """The same for the names in a folder."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        return sync(fd)
    finally:
        os.close(fd)
