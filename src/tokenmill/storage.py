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
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tokenmill.errors import NoSpace, OutputInUse, TokenmillError
from tokenmill.quantities import format_bytes

PARTIAL = ".partial"
STATE_FOLDER = ".tokenmill"
_WRITE_BACK = 16 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOCK_PATIENCE = 1.0
"""A run that was killed lets go of its lock when the last of its processes is gone."""


class StagedFile:
    """A file being written under ``NAME.partial``; ``sha256`` covers all that was written."""

    def __init__(self, final: Path, header: bytes = b"") -> None:
        self._begin(final, header, os.O_CREAT | os.O_TRUNC)
        self._hash_thread: threading.Thread | None = None
        if header:
            try:
                self.write(memoryview(header))
            except BaseException:
                self.discard()
                raise

    def _begin(self, final: Path, header: bytes, flags: int) -> None:
        self.final = final
        self.path = final.with_name(final.name + PARTIAL)
        self.size = 0
        self._header = header
        self._hash = hashlib.sha256()
        self._hash_lock = threading.Lock()
        self._hash_problem: Exception | None = None
        self._is_closing = False
        self._flushed = 0
        with _explained(self.path):
            self._fd = os.open(self.path, os.O_RDWR | flags | os.O_NOFOLLOW, 0o666)

    @classmethod
    def reopen(cls, final: Path, size: int, sha256: str | None, header: bytes = b"") -> StagedFile:
        """Go on with a partial file of an earlier run, cut back to its first ``size`` bytes.

        Those are read again behind the back of the writing, for the hash, and must have the hash
        ``sha256`` (None: it is not known). Raises TokenmillError when they are not there.
        """
        check_partial(final, size, exact=False)
        staged = cls.__new__(cls)
        partial = final.with_name(final.name + PARTIAL)
        if not partial.exists():
            raise _changed(partial, "it is not there any more")
        staged._begin(final, header, 0)
        with _explained(staged.path):
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
                self._hash.update(chunk)
                position += len(chunk)
                wrong = position == size and sha256 not in (None, self._hash.hexdigest())
                if wrong or not chunk:
                    raise _changed(self.path, "its hash is not the one noted when it was written")
        except Exception as error:  # noqa: BLE001  raised again where the hash is wanted
            self._hash_problem = error

    def write(self, data: memoryview) -> None:
        """Append all of ``data`` (bytes), however short the single writes are."""
        with _explained(self.path):
            done = 0
            while done < len(data):
                done += os.write(self._fd, data[done:])
        with self._hash_lock:
            if self._hash_thread is None:
                self._hash.update(data)
            self.size += len(data)
        if self.size - self._flushed >= _WRITE_BACK:
            self._start_write_back()

    def _start_write_back(self) -> None:
        # Begins the disk's work now and lets clean pages go, so that the sync at the end is short
        # and the page cache is not filled with what nobody will read soon.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, self.size, os.POSIX_FADV_DONTNEED)
        self._flushed = self.size

    def hash_so_far(self) -> str | None:
        """The SHA-256 of all that was written; None while an earlier run's part is being read."""
        with self._hash_lock:
            return self._hash.hexdigest() if self._hash_thread is None else None

    def sync(self) -> None:
        """Make what was written durable."""
        with _explained(self.path):
            _sync_data(self._fd)

    def finish(self, header: bytes | None = None) -> str:
        """Sync and close, still as ``.partial``; returns the sha256 of the content.

        ``header``, of the length of the one given first, replaces it when it differs.
        """
        thread = self._hash_thread
        if thread is not None:
            thread.join()
        if self._hash_problem is not None:
            raise self._hash_problem
        with _explained(self.path):
            if header is not None and header != self._header:
                os.pwrite(self._fd, header, 0)
                self._hash = hashlib.sha256()
                os.lseek(self._fd, 0, os.SEEK_SET)
                while chunk := os.read(self._fd, 1024 * 1024):
                    self._hash.update(chunk)
            os.fsync(self._fd)
            os.close(self._fd)
        self._fd = -1
        return self._hash.hexdigest()

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
        self.path.unlink(missing_ok=True)


class AppendedFile:
    """A file to which whole lines are added, each durable when ``append`` returns."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """Open ``path``, cut back to its first ``size`` bytes."""
        self._path = path
        with _explained(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
            sync_folder(path.parent)

    def append(self, line: bytes) -> None:
        """Add one line, durably."""
        with _explained(self._path):
            done = 0
            while done < len(line):
                done += os.write(self._fd, line[done:])
            _sync_data(self._fd)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def _sync_data(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


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


def publish(folder: Path, names: list[str]) -> None:
    """Give finished ``.partial`` files their final names, in order, durably.

    What an interrupted call has renamed already stays as it is.
    """
    with _explained(folder):
        for name in names:
            partial = folder / (name + PARTIAL)
            if partial.exists() or not (folder / name).exists():
                os.replace(partial, folder / name)
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
    with _explained(folder):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def free_bytes(folder: Path) -> int:
    """Free bytes for an ordinary user on the file system of ``folder`` (or its nearest parent)."""
    existing = next(place for place in [folder, *folder.parents] if place.exists())
    return shutil.disk_usage(existing).free


def remove_file(path: Path) -> None:
    """Remove a file, if it is there; a folder in its place is an error."""
    with _explained(path):
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make the output folder and its parents."""
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the output folder for one run; the lock vanishes with its holder.

    Raises OutputInUse, naming the holder, when another run has it.
    """
    fd = _lock(folder)
    try:
        with _explained(folder):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        _remove_lone_lock(fd, folder)
        os.close(fd)


def _remove_lone_lock(fd: int, folder: Path) -> None:
    """A run that left nothing else leaves no lock file either."""
    state = folder / STATE_FOLDER
    with contextlib.suppress(OSError):
        if _is_current(fd, folder) and os.listdir(state) == ["lock"]:
            os.unlink(state / "lock")
            os.rmdir(state)


def _lock(folder: Path) -> int:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        fd = _open_lock(folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = holder_of(fd)
            os.close(fd)
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise OutputInUse(
                "the output folder is in use by another run",
                where=str(folder),
                why=f"process {holder} holds its lock",
                fix="wait for that run, stop it, or choose another --out",
            ) from error
        if _is_current(fd, folder):
            return fd
        os.close(fd)  # a run that ended removed it after we opened it


def holder_of(fd: int) -> str:
    """Who wrote the open lock file, in words."""
    return os.pread(fd, 256, 0).decode("utf-8", "replace").strip() or "unknown"


def lock_holder(folder: Path) -> str | None:
    """Who holds the lock on the output folder now; None when nobody does."""
    try:
        fd = os.open(folder / STATE_FOLDER / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder_of(fd)
    finally:
        os.close(fd)
    return None


def _open_lock(folder: Path) -> int:
    with _explained(folder):
        # A link would lead what is written to somewhere else.
        state, flags = folder / STATE_FOLDER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        state.mkdir(parents=True, exist_ok=True)
        if state.is_symlink():
            raise OSError(errno.ELOOP, f"{STATE_FOLDER} is a symbolic link")
        return os.open(state / "lock", flags, 0o666)


def _is_current(fd: int, folder: Path) -> bool:
    """Is the locked file still the one that others find under its name?"""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(folder / STATE_FOLDER / "lock"))
    except FileNotFoundError:
        return False


def remove_folder(folder: Path) -> None:
    """Remove a run's own working folder, with all that is left in it."""
    shutil.rmtree(folder, ignore_errors=True)


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
