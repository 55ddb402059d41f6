"""Who holds an output folder, and what a run leaves in its state folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenmill.errors import OutputInUse
from tokenmill.stores import claims as ownership
from tokenmill.stores.claims import STATE_FOLDER, UNSUPPORTED, Claims, sync
from tokenmill.stores.durable import explained, foreign

_NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}
"""Of ``flock`` where a file system has none: Lustre without its option, NFS without its daemon."""
_HELD = {errno.EWOULDBLOCK, errno.EACCES}
"""Of ``flock`` where another has the lock; the second from shares (SMB)."""
_TEMPORARY_LOCK = re.compile(r"lock-[0-9a-f]{32}")
_HOLDER = re.compile(rb"(\d+) on ([^\n]*)\n(?:started (\d+)\n)?")
_JOURNAL = re.compile(rb'[0-9a-f]{16} \{"type":"run"')
_LOCK_PATIENCE = 1.0
"""A run that was killed lets go of its lock when the last of its processes is gone."""
_held_here: dict[tuple[int, str], object] = {}
"""Where nothing can be locked: the folders that runs of this process hold, by its number (a fork
has a copy of this) and their real path, each with a thing that only its holder has."""


def _silent(line: str) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def locked(folder: Path, tell: Callable[[str], None] = _silent) -> Iterator[None]:
    """Hold the output folder for one run; the lock vanishes with its holder.

    Raises OutputInUse, naming the holder, when another run has it, and TokenmillError where a
    foreign file is in the lock's place. ``tell`` hears what the file system cannot do.
    """
    holding = object()
    fd = _lock(folder, tell, holding)
    try:
        with explained(folder):
            _write_holder(fd)
            _tell_what_lacks(fd, folder, Claims.begun(folder), tell)
        yield
    finally:
        _remove_lone_lock(fd, folder)
        os.close(fd)
        _let_go(holding)


def _tell_what_lacks(fd: int, folder: Path, claims: Claims, tell: Callable[[str], None]) -> None:
    """Warn of what a power cut or another program may do there. Raises OSError."""
    here = f"warning: the file system of {folder}"
    if not sync(fd):
        tell(
            f"{here} cannot sync files: a power cut may take away what was just written, though "
            "the run noted it, and then it begins anew; fix: after a power cut, tokenmill verify "
            "tells whether a finished dataset is whole; or an --out on a local disk"
        )
    if not ownership.sync_folder(folder):
        tell(
            f"{here} cannot sync folders: a power cut may take away the names of files that were "
            "just written, and the run then begins anew; fix: none is needed, or an --out on a "
            "local disk"
        )
    if not claims.can_link():
        tell(
            f"{here} has no hard links: a file that another program puts under one of this run's "
            "names, while the run is under way, is taken for its own and replaced; fix: let "
            "nothing else write there until it is done"
        )


def _write_holder(fd: int) -> None:
    """Never empty, at no moment: an empty file in the lock's place is none of ours."""
    if os.fstat(fd).st_size:
        line = _holder()
        os.pwrite(fd, line, 0)
        os.ftruncate(fd, len(line))


def _holder() -> bytes:
    started = _started(os.getpid())
    line = f"{os.getpid()} on {socket.gethostname()}\n"
    return (line + (f"started {started}\n" if started else "")).encode()


def _started(process: int) -> str | None:
    """When a process started, in ticks since boot: with it a number names one process for good.
    None where it is gone, or dead and waited for by nobody yet (in a container, perhaps never)."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if len(fields) < 20 or fields[0] in (b"Z", b"X") else fields[19].decode()


def _remove_lone_lock(fd: int, folder: Path) -> None:
    """A run that left nothing else leaves no lock file either."""
    state = folder / STATE_FOLDER
    with contextlib.suppress(OSError):
        claims = Claims.of(folder)
        if _is_current(fd, folder) and claims is not None and not list(claims.paths()):
            claims.end()
        if _is_current(fd, folder) and os.listdir(state) == ["lock"] and os.fstat(fd).st_size:
            os.unlink(state / "lock")
            os.rmdir(state)


def _lock(folder: Path, tell: Callable[[str], None], holding: object) -> int:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        fd = _open_lock(folder)
        try:
            has_locks, is_held = True, None
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            has_locks = error.errno not in _NO_LOCKS
            if has_locks and error.errno not in _HELD:
                os.close(fd)
                with explained(folder / STATE_FOLDER / "lock"):
                    raise
            is_mine = not has_locks and not _is_alive(fd) and _hold(folder, holding)
            is_held = None if is_mine else error
        if is_held is not None:
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
            ) from is_held
        if _is_current(fd, folder):
            if not has_locks:
                tell(
                    f"warning: the file system of {folder} has no locks: a second run into this "
                    "folder is noticed only if it is on this machine; fix: see to it that there is "
                    "only one"
                )
            return fd
        os.close(fd)  # a run that ended removed it after we opened it
        _let_go(holding)


def _key(folder: Path) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(folder)


def _hold(folder: Path, holding: object) -> bool:
    """Note that ``holding`` has the folder, unless another run of this process does: has it?"""
    return _held_here.setdefault(_key(folder), holding) is holding  # one step, without a lock


def _let_go(holding: object) -> None:
    """By the holder: a path may lead elsewhere by now."""
    for key in [key for key, other in tuple(_held_here.items()) if other is holding]:
        del _held_here[key]


def _is_alive(fd: int) -> bool:
    """Where nothing can be locked: is the process that wrote the lock file one of this machine
    that runs, and not this one? A number that was given to another process since is not it. (What
    this one holds, it knows.)"""
    found = _HOLDER.match(os.pread(fd, 512, 0))
    if found is None or found[2].decode("utf-8", "replace") != socket.gethostname():
        return False
    process = int(found[1])
    if process == os.getpid() or found[3] is None:
        return False
    return _started(process) == found[3].decode()


def holder_of(fd: int) -> str:
    """Who wrote the open lock file, in words."""
    line = os.pread(fd, 256, 0).partition(b"\n")[0]
    return line.decode("utf-8", "replace").strip() or "unknown"


def lock_holder(folder: Path) -> str | None:
    """Who holds the lock on the output folder now; None when nobody does."""
    try:
        fd = os.open(folder / STATE_FOLDER / "lock", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        is_held = error.errno in _HELD or _is_alive(fd) or _key(folder) in _held_here
        return holder_of(fd) if is_held else None
    finally:
        os.close(fd)
    return None


def _open_lock(folder: Path) -> int:
    state = folder / STATE_FOLDER
    path = state / "lock"
    with explained(folder):
        while True:
            # A link would lead what is written to somewhere else.
            if state.is_symlink():
                raise foreign(state)
            state.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    raise foreign(path)
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                break
            _make_lock(state)
    content = os.pread(fd, 512, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b"none of ours"
    if content and not _HOLDER.match(content):
        os.close(fd)
        raise foreign(path)
    return fd


def _make_lock(state: Path) -> None:
    """Make the lock file, with its content from the first moment on."""
    temporary = state / f"lock-{uuid.uuid4().hex}"
    with contextlib.suppress(FileNotFoundError):  # another run removes what was left, and this too
        temporary.write_bytes(_holder())
        try:
            os.link(temporary, state / "lock")
        except FileExistsError:
            pass
        except OSError:  # no hard links there; a rename would take the place of another run's
            with contextlib.suppress(FileExistsError):
                fd = os.open(state / "lock", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                os.write(fd, _holder())
                os.close(fd)
        temporary.unlink(missing_ok=True)


def _is_current(fd: int, folder: Path) -> bool:
    """Is the locked file still the one that others find under its name?"""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(folder / STATE_FOLDER / "lock"))
    except FileNotFoundError:
        return False


def remove_state(folder: Path) -> None:
    """Remove the state of a finished or abandoned run: the files that are tokenmill's, and the
    folder if nothing else is in it. What cannot be removed stays."""
    state = folder / STATE_FOLDER
    if state.is_symlink() or not state.is_dir():
        return
    with contextlib.suppress(OSError):
        claims = Claims.of(folder)
        if claims is not None:
            for path in list(claims.paths()):
                if path.parent == state:
                    claims.remove(path)
        _remove_if(state / "journal", _JOURNAL)
        if claims is not None:
            claims.end()
        for name in os.listdir(state):
            if _TEMPORARY_LOCK.fullmatch(name):
                _remove_if(state / name, _HOLDER)
        _remove_if(state / "lock", _HOLDER)
        os.rmdir(state)


def _remove_if(path: Path, pattern: re.Pattern[bytes]) -> None:
    """Remove a regular file that begins as ours do."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return
        with path.open("rb") as file:
            is_ours = pattern.match(file.read(512)) is not None
        if is_ours:
            path.unlink()


def remove_working_folder(folder: Path) -> None:
    """Remove a run's own working folder, with what is tokenmill's in it; foreign files stay."""
    with contextlib.suppress(OSError):
        claims = Claims.of(folder)
        if claims is not None:
            for path in list(claims.paths()):
                claims.remove(path)
        remove_state(folder)
        os.rmdir(folder)
