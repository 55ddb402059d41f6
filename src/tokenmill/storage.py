"""The only code that makes bytes durable, and the only one that renames.

A file under its final name is complete and on disk: bytes go to ``NAME.partial``, are synced,
renamed, and the folder is synced. Nothing else in the package calls ``os.replace``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tokenmill.errors import NoSpace, OutputInUse, TokenmillError
from tokenmill.quantities import format_bytes

PARTIAL = ".partial"
STATE_FOLDER = ".tokenmill"
_WRITE_BACK = 16 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}


class StagedFile:
    """A file being written under ``NAME.partial``; ``sha256`` covers all that was written."""

    def __init__(self, final: Path, header: bytes = b"") -> None:
        self.final = final
        self.path = final.with_name(final.name + PARTIAL)
        self.size = 0
        self._header = header
        self._hash = hashlib.sha256()
        self._flushed = 0
        with _explained(self.path):
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        if header:
            try:
                self.write(memoryview(header))
            except BaseException:
                self.discard()
                raise

    def write(self, data: memoryview) -> None:
        """Append all of ``data`` (bytes), however short the single writes are."""
        self._hash.update(data)
        with _explained(self.path):
            done = 0
            while done < len(data):
                done += os.write(self._fd, data[done:])
        self.size += len(data)
        if self.size - self._flushed >= _WRITE_BACK:
            self._start_write_back()

    def _start_write_back(self) -> None:
        # Begins the disk's work now and lets clean pages go, so that the sync at the end is short
        # and the page cache is not filled with what nobody will read soon.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, self.size, os.POSIX_FADV_DONTNEED)
        self._flushed = self.size

    def finish(self, header: bytes = b"") -> str:
        """Sync and close, still as ``.partial``; returns the sha256 of the content.

        ``header``, of the length of the one given first, replaces it when it differs.
        """
        with _explained(self.path):
            if header != self._header:
                os.pwrite(self._fd, header, 0)
                self._hash = hashlib.sha256()
                os.lseek(self._fd, 0, os.SEEK_SET)
                while chunk := os.read(self._fd, 1024 * 1024):
                    self._hash.update(chunk)
            os.fsync(self._fd)
            os.close(self._fd)
        self._fd = -1
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Close and remove the partial file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.path.unlink(missing_ok=True)


def publish(folder: Path, names: list[str]) -> None:
    """Give finished ``.partial`` files their final names, in order, durably."""
    with _explained(folder):
        for name in names:
            os.replace(folder / (name + PARTIAL), folder / name)
        sync_folder(folder)


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file so that it either exists whole or not at all."""
    staged = StagedFile(path)
    try:
        staged.write(memoryview(content))
        staged.finish()
        publish(path.parent, [path.name])
    except BaseException:
        staged.discard()
        raise


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(folder: Path) -> int:
    """Free bytes for an ordinary user on the file system of ``folder`` (or its nearest parent)."""
    existing = next(place for place in [folder, *folder.parents] if place.exists())
    return shutil.disk_usage(existing).free


def make_folder(folder: Path) -> None:
    """Make the output folder and its parents."""
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the output folder for one run; the lock vanishes with its holder.

    Raises OutputInUse, naming the holder, when another run has it.
    """
    fd = _open_lock(folder)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            while not _is_current(fd, folder):  # a run that ended removed it after we opened it
                os.close(fd)
                fd = _open_lock(folder)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(fd, 64).decode("ascii", "replace").strip() or "unknown"
            raise OutputInUse(
                "the output folder is in use by another run",
                where=str(folder),
                why=f"process {holder} holds its lock",
                fix="wait for that run, stop it, or choose another --out",
            ) from error
        with _explained(folder):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _open_lock(folder: Path) -> int:
    with _explained(folder):
        (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
        return os.open(folder / STATE_FOLDER / "lock", os.O_RDWR | os.O_CREAT, 0o666)


def _is_current(fd: int, folder: Path) -> bool:
    """Is the locked file still the one that others find under its name?"""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(folder / STATE_FOLDER / "lock"))
    except FileNotFoundError:
        return False


def remove_state(folder: Path) -> None:
    """Remove the state folder of a finished or abandoned run."""
    shutil.rmtree(folder / STATE_FOLDER, ignore_errors=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError on ``path`` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            folder = path if path.is_dir() else path.parent
            raise NoSpace(
                "the disk is full",
                where=str(path),
                why=f"{error.strerror}; {format_bytes(free_bytes(folder))} are free",
                fix="free some space, or choose an --out on another disk, then run it again",
            ) from error
        raise TokenmillError(
            "cannot write the output", str(path), error.strerror, "choose another --out"
        ) from error
