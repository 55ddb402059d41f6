"""The only code that makes bytes durable, and the only one that renames.

A file under its final name is complete and on disk: bytes go to ``NAME.partial``, are synced,
renamed, and the folder is synced. Nothing else in the package calls ``os.replace``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenmill.errors import NoSpace, TokenmillError, too_many_files
from tokenmill.stores import claims as ownership
from tokenmill.stores.claims import PARTIAL, STATE_FOLDER, Claims, create_own, is_own, sync
from tokenmill.stores.digest import Digest, HasherDied
from tokenmill.units import format_bytes

__all__ = ["PARTIAL", "STATE_FOLDER"]
FOUND_FOLDER = ".tokenmill-found"
_WRITE_BACK = 16 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}


class StagedFile:
    """A file being written under ``NAME.partial``; ``sha256`` covers all that was written."""

    def __init__(
        self, final: Path, header: bytes = b"", new_digest: Callable[[], Digest] = hashlib.sha256
    ) -> None:
        self._begin(final, header, new_digest, is_new=True)
        self._hash_thread: threading.Thread | None = None
        if header:
            try:
                self.write(memoryview(header))
            except BaseException:
                self.discard()
                raise

    def _begin(
        self, final: Path, header: bytes, new_digest: Callable[[], Digest], is_new: bool
    ) -> None:
        self.final = final
        self.path = final.with_name(final.name + PARTIAL)
        self.size = 0
        self._header = self._last_header = header
        self._hash: Digest | None = new_digest()
        """None where the process that hashed ended: then the file is read once more at its end."""
        self._hash_lock = threading.Lock()
        self._hash_problem: Exception | None = None
        self._is_closing = False
        self._flushed = 0
        with explained(self.path):
            if is_new:
                create_own(self.path)
            self._fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)

    @classmethod
    def reopen(
        cls,
        final: Path,
        size: int,
        sha256: str | None,
        header: bytes = b"",
        new_digest: Callable[[], Digest] = hashlib.sha256,
    ) -> StagedFile:
        """Go on with a partial file of an earlier run, cut back to its first ``size`` bytes.

        Those are read again behind the back of the writing, for the hash, and must have the hash
        ``sha256`` (None: it is not known). Raises TokenmillError when they are not there.
        """
        check_partial(final, size, exact=False)
        staged = cls.__new__(cls)
        partial = final.with_name(final.name + PARTIAL)
        if not partial.exists():
            raise _changed(partial, "it is not there any more")
        if not is_own(partial):
            raise foreign(partial)
        staged._begin(final, header, new_digest, is_new=False)
        with explained(staged.path):
            os.ftruncate(staged._fd, size)
            os.pwrite(staged._fd, header, 0)
            os.lseek(staged._fd, size, os.SEEK_SET)
        staged.size = staged._flushed = size
        staged._hash_thread = threading.Thread(
            target=staged._catch_up, args=(size, sha256), name="tokenmill-hash", daemon=True
        )
        staged._hash_thread.start()
        return staged

    def _catch_up(self, size: int, sha256: str | None) -> None:
        """Hash what an earlier run wrote, then what was written meanwhile, until all of it is."""
        position = 0
        try:
            while True:
                with self._hash_lock:
                    end = size if position < size else self.size
                    if position == end or self._is_closing:
                        self._hash_thread = None
                        return
                chunk = os.pread(self._fd, min(1024 * 1024, end - position), position)
                self._add(chunk)
                position += len(chunk)
                wrong = position == size and sha256 not in (None, self._hexdigest() or sha256)
                if wrong or not chunk:
                    raise _changed(self.path, "its hash is not the one noted when it was written")
        except Exception as error:  # noqa: BLE001  raised again where the hash is wanted
            self._hash_problem = error

    def write(self, data: memoryview) -> None:
        """Append all of ``data`` (bytes), however short the single writes are."""
        with explained(self.path):
            done = 0
            while done < len(data):
                done += os.write(self._fd, data[done:])
        with self._hash_lock:
            if self._hash_thread is None:
                self._add(data)
            self.size += len(data)
        if self.size - self._flushed >= _WRITE_BACK:
            self._start_write_back()

    def _add(self, data: memoryview | bytes) -> None:
        try:
            if self._hash is not None:
                self._hash.update(data)
        except HasherDied:
            self._hash = None

    def _hexdigest(self) -> str | None:
        try:
            return None if self._hash is None else self._hash.hexdigest()
        except HasherDied:
            self._hash = None
            return None

    def _start_write_back(self) -> None:
        # Begins the disk's work now and lets clean pages go, so that the sync at the end is short
        # and the page cache is not filled with what nobody will read soon.
        with contextlib.suppress(AttributeError, OSError):  # a system or a file system without it
            os.posix_fadvise(self._fd, 0, self.size, os.POSIX_FADV_DONTNEED)
        self._flushed = self.size

    def read(self, start: int, stop: int) -> bytes:
        """What was written from byte ``start`` to before ``stop``. Raises TokenmillError when it is
        not there any more."""
        pieces = []
        with explained(self.path):
            while start < stop:
                piece = os.pread(self._fd, stop - start, start)
                if not piece:
                    raise _changed(self.path, f"it ends before byte {stop}")
                pieces.append(piece)
                start += len(piece)
        return b"".join(pieces)

    @property
    def head_bytes(self) -> int:
        """Length of the header given first."""
        return len(self._header)

    def set_head(self, head: bytes) -> None:
        """Begin with ``head``, of the length of the header given first, when it is finished."""
        assert len(head) == len(self._header), "another length: all behind it would move"
        self._last_header = head

    def hash_so_far(self) -> str | None:
        """The SHA-256 of all that was written; None while an earlier run's part is being read, or
        where what hashed it is gone."""
        with self._hash_lock:
            return self._hexdigest() if self._hash_thread is None else None

    def sync(self) -> None:
        """Make what was written durable."""
        with explained(self.path):
            sync(self._fd, only_data=True)

    def finish(self) -> str:
        """Sync and close, still as ``.partial``; returns the sha256 of the content."""
        thread = self._hash_thread
        if thread is not None:
            thread.join()
        if self._hash_problem is not None:
            raise self._hash_problem
        with explained(self.path):
            if self._last_header != self._header:
                os.pwrite(self._fd, self._last_header, 0)
                self._hash = None
            sha256 = self._hexdigest() or self._read_again()
            sync(self._fd)
            os.close(self._fd)
        self._fd = -1
        return sha256

    def _read_again(self) -> str:
        digest = hashlib.sha256()
        os.lseek(self._fd, 0, os.SEEK_SET)
        while chunk := os.read(self._fd, 1024 * 1024):
            digest.update(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Close it as it is, to go on with later."""
        with self._hash_lock:
            thread, self._is_closing = self._hash_thread, True
        if thread is not None:
            thread.join()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Close and remove the partial file."""
        self.close()
        if Claims.of(self.path.parent) is None:  # made under no claims, where nothing was
            remove_file(self.path)
        else:
            remove_own(self.path)


class AppendedFile:
    """A file to which whole lines are added, each durable when ``append`` returns."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """Open ``path``, cut back to its first ``size`` bytes; with none, it is made anew."""
        self._path = path
        with explained(path):
            if size == 0:
                create_own(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            os.ftruncate(self._fd, size)
            sync(self._fd)
            sync_folder(path.parent)

    def append(self, line: bytes | bytearray) -> None:
        """Add one line, durably."""
        with explained(self._path):
            done, whole = 0, memoryview(line)
            while done < len(line):
                done += os.write(self._fd, whole[done:])
            sync(self._fd, only_data=True)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def check_partial(final: Path, size: int, exact: bool = True) -> None:
    """Raise TokenmillError unless the unfinished file has ``size`` bytes (or more: not exact)."""
    path = final.with_name(final.name + PARTIAL)
    try:
        found = path.lstat().st_size
    except FileNotFoundError:
        raise _changed(path, "it is gone") from None
    if found < size or (exact and found != size):
        raise _changed(path, f"it has {found} bytes, of which {size} were written")


def _changed(path: Path, why: str) -> TokenmillError:
    return TokenmillError(
        "an unfinished file is not what the interrupted run left",
        str(path),
        why,
        "run the same command with --overwrite, which starts anew",
    )


def publish(folder: Path, names: list[str], replaces: bool = False) -> None:
    """Give finished ``.partial`` files their final names, in order, durably.

    What an interrupted call has renamed already stays as it is. Raises TokenmillError, before
    anything is renamed, where a foreign file has one of the names (unless ``replaces``).
    """
    with explained(folder):
        for name in names if not replaces else []:
            final = folder / name
            if os.path.lexists(final) and not is_own(final):
                raise foreign(final)
        for name in names:
            partial = folder / (name + PARTIAL)
            if partial.exists() or not (folder / name).exists():
                os.replace(partial, folder / name)
        sync_folder(folder)


def set_aside(path: Path) -> Path:
    """Move a file that may be somebody's out of the way; where to. Nothing is lost.

    Into a folder of its own: build-nanogpt's loader takes every name that has ``train`` in it.
    """
    folder, number = path.parent / FOUND_FOLDER, 1
    with explained(path):
        if folder.is_symlink():  # it may lead to another disk
            raise foreign(folder)
        folder.mkdir(exist_ok=True)
        while os.path.lexists(aside := folder / f"{path.name}.{number}"):
            number += 1
        os.rename(path, aside)
        sync_folder(folder)
        sync_folder(path.parent)
    return aside


def write_durably(path: Path, content: bytes, replaces: bool = False) -> None:
    """Write a small file so that it either exists whole or not at all.

    One of this content stays as it is. Raises TokenmillError where another one has its name, which
    is not this run's (unless it ``replaces`` that).
    """
    with explained(path):
        if _has_content(path, content):
            sync_folder(path.parent)
            return
        if not replaces:
            remove_own(path)
    staged = StagedFile(path)
    try:
        staged.write(memoryview(content))
        staged.finish()
        publish(path.parent, [path.name], replaces)
    except BaseException:
        staged.discard()
        raise


def _has_content(path: Path, content: bytes) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    is_alike = stat.S_ISREG(status.st_mode) and status.st_size == len(content)
    return is_alike and path.read_bytes() == content


def foreign(path: Path) -> TokenmillError:
    """The error where a file that this run did not write has a name that it needs."""
    return TokenmillError(
        "a file that tokenmill did not write is in the way",
        str(path),
        "it is not touched",
        "move it away, or choose another --out, then run this again",
    )


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` durable, where its file system can do that."""
    with explained(folder):
        ownership.sync_folder(folder)


def free_bytes(folder: Path) -> int:
    """Free bytes for an ordinary user on the file system of ``folder`` (or its nearest parent)."""
    existing = next(place for place in [folder, *folder.parents] if os.path.exists(place))
    with explained(folder):
        return shutil.disk_usage(existing).free


def remove_own(path: Path) -> bool:
    """Remove a file if a run here made it; any other stays. Was it one?"""
    with explained(path):
        claims = Claims.of(path.parent)
        return claims is not None and claims.remove(path)


def remove_file(path: Path) -> None:
    """Remove a file that is known to be ours, if it is there; a folder in its place is an error."""
    with explained(path):
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make the output folder and its parents."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError on ``path`` into an error that says what to do."""
    try:
        yield
    except FileExistsError as error:
        raise foreign(Path(error.filename2 or error.filename or path)) from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise too_many_files(str(path), error) from error
        if error.errno in _FULL:
            folder = path if path.is_dir() else path.parent
            raise NoSpace(
                "the disk is full",
                where=str(path),
                why=f"{error.strerror}; {format_bytes(free_bytes(folder))} are free",
                fix="free some space, or choose an --out on another disk, then run it again",
            ) from error
        if error.errno == errno.EFBIG:
            raise TokenmillError(
                "a file of the output may not grow any further",
                str(path),
                f"{error.strerror}: a limit of the shell (ulimit -f) or of the file system",
                "raise that limit (ulimit -f unlimited), then run it again",
            ) from error
        raise TokenmillError(
            "cannot write the output",
            str(path),
            error.strerror,
            "mend that and run it again, or choose another --out",
        ) from error
