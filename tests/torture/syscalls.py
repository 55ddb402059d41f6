"""The command in a forked process, killed at its N-th call to the system: tens of milliseconds a
run, where a new interpreter under strace takes seconds.

A filter of the kernel (seccomp) stops the process, whatever thread it is in, before each call that
changes the file system (or before every call); the tracer (ptrace) counts, and kills it there with
SIGKILL. Calls that only write to pipes, the terminal or files outside the watched folder are not
counted. Linux on x86-64 and on 64-bit ARM only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_NUMBERS = {
    "x86_64": {
        "write": 1, "open": 2, "pwrite64": 18, "writev": 20, "fsync": 74, "fdatasync": 75,
        "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85,
        "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91, "openat": 257,
        "mkdirat": 258, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "fallocate": 285, "renameat2": 316,
    },
    "aarch64": {
        "write": 64, "pwrite64": 68, "writev": 66, "fsync": 82, "fdatasync": 83, "truncate": 45,
        "ftruncate": 46, "openat": 56, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "linkat": 37,
        "symlinkat": 36, "fchmod": 52, "fallocate": 47, "renameat2": 276,
    },
}  # fmt: skip
_BY_FILE = {"write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "fchmod", "fallocate"}
"""Calls whose first argument is an open file."""
_OPENS = {"open": 1, "openat": 2}
"""Which argument has the flags: only an open that can write or create counts."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NAMING = {"open": 0, "openat": 1, "creat": 0, "mkdir": 0, "mkdirat": 1, "link": 1, "linkat": 3,
           "rename": 1, "renameat": 3, "renameat2": 3}  # fmt: skip
"""Which argument is a name that the call may make."""
_TRACEME, _CONT, _SETOPTIONS, _SYSCALL_INFO = 0, 7, 0x4200, 0x420E
_OPTIONS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 20  # forks, threads, seccomp, die with us
_SECCOMP_EVENT, _WALL = 7, 0x40000000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_TRACE, _ALLOW = 0x7FF00000, 0x7FFF0000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass
class Outcome:
    """How a run ended: ``rc`` is -9 where it was killed; ``calls`` were counted, ``names`` are the
    paths that it made, as it wrote them."""

    rc: int
    stdout: str
    stderr: str
    calls: int = 0
    names: set[str] = field(default_factory=set)

    @property
    def was_killed(self) -> bool:
        return self.rc == -signal.SIGKILL


def need_tracing() -> None:
    """Skip, with the reason, where no process can be traced."""
    if sys.platform != "linux" or platform.machine() not in _NUMBERS:
        pytest.skip("NOT TESTED: calls to the system can be traced on Linux only")
    probe = run(lambda: os.mkdir("probe"), Path(tempfile.mkdtemp()), kill_at=1)
    if not probe.was_killed:
        pytest.skip(f"NOT TESTED: processes cannot be traced here: {probe}")


def run(
    call: Callable[[], object], folder: Path, kill_at: int | None = None, every_call: bool = False
) -> Outcome:
    """``call`` in a fork whose working folder is ``folder``, killed before its call number
    ``kill_at`` (from 1). Of ``every_call`` or of those that change something in the folder."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            _be_the_command(call, folder, stdout.fileno(), stderr.fileno(), every_call)
        done = _Tracer(process, str(folder.resolve()), kill_at, every_call).watch()
        for file, name in ((stdout, "stdout"), (stderr, "stderr")):
            file.seek(0)
            setattr(done, name, file.read().decode("utf-8", "replace"))
    return done


def run_untraced(call: Callable[[], object], folder: Path) -> Outcome:
    """The same, to its end and at full speed."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = os.fork()
        if process == 0:
            _be_the_command(call, folder, stdout.fileno(), stderr.fileno(), None)
        rc = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        stdout.seek(0)
        stderr.seek(0)
        return Outcome(rc, stdout.read().decode(), stderr.read().decode("utf-8", "replace"))


def _be_the_command(
    call: Callable[[], object], folder: Path, stdout: int, stderr: int, every_call: bool | None
) -> None:
    """In the fork; never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if every_call is not None:
            _libc.ptrace(_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            _install(_program(every_call))
        call()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  told as what the process said
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _program(every_call: bool) -> bytes:
    """The kernel's filter: which calls stop."""

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    load, equals, has, end = 0x20, 0x15, 0x45, 0x06
    if every_call:
        return step(end, _TRACE)
    parts = [step(load, 0)]
    for name, number in _NUMBERS[platform.machine()].items():
        if name in _OPENS:
            parts += [
                step(equals, number, 0, 4),
                step(load, 16 + 8 * _OPENS[name]),
                step(has, _WRITING, 0, 1),
                step(end, _TRACE),
                step(end, _ALLOW),
            ]
        else:
            parts += [step(equals, number, 0, 1), step(end, _TRACE)]
    return b"".join([*parts, step(end, _ALLOW)])


def _install(program: bytes) -> None:
    held = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held)), 16
    )
    zero = ctypes.c_ulong(0)
    if _libc.prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero):
        raise OSError(ctypes.get_errno(), "prctl")
    if _libc.prctl(_SECCOMP, ctypes.c_ulong(_FILTER), head, zero, zero):
        raise OSError(ctypes.get_errno(), "seccomp")


class _Tracer:
    """Watches one process with all its threads and children."""

    def __init__(self, process: int, folder: str, kill_at: int | None, every_call: bool) -> None:
        self._process = process
        self._folder = folder
        self._kill_at = kill_at
        self._every_call = every_call
        numbers = _NUMBERS[platform.machine()]
        self._calls = {number: name for name, number in numbers.items()}
        self._known = {process}
        self._done = Outcome(0, "", "")

    def watch(self) -> Outcome:
        """Until all of them are gone."""
        os.waitpid(self._process, _WALL)
        self._ptrace(_SETOPTIONS, self._process, _OPTIONS)
        self._ptrace(_CONT, self._process, 0)
        while True:
            try:
                task, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return self._done
            if os.WIFSTOPPED(status):
                self._stopped(task, status)
            elif task == self._process:
                self._done.rc = os.waitstatus_to_exitcode(status)

    def _stopped(self, task: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        deliver = 0
        if event == _SECCOMP_EVENT:
            if self._counts(task):
                self._done.calls += 1
                if self._done.calls == self._kill_at:
                    self._kill()
                    return
        elif not event and number not in (signal.SIGSTOP, signal.SIGTRAP):  # threads begin so
            deliver = number
        self._known.add(task)
        self._ptrace(_CONT, task, deliver)

    def _kill(self) -> None:
        for task in self._known:
            with contextlib.suppress(ProcessLookupError):
                os.kill(task, signal.SIGKILL)

    def _counts(self, task: int) -> bool:
        if self._every_call:
            return True
        info = ctypes.create_string_buffer(128)
        if _libc.ptrace(_SYSCALL_INFO, task, 128, ctypes.addressof(info)) < 0:
            return False
        number, *arguments = struct.unpack_from("7Q", info, 24)
        call = self._calls[number]
        try:
            if call in _BY_FILE:
                return os.readlink(f"/proc/{task}/fd/{arguments[0]}").startswith(self._folder)
            if call in _NAMING:
                name = self._text(task, arguments[_NAMING[call]])
                if name.startswith("/") and not name.startswith(self._folder):
                    return False
                self._done.names.add(name)
        except OSError:
            return False
        return True

    def _text(self, task: int, address: int) -> str:
        with open(f"/proc/{task}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            found = memory.read(min(4096, 4096 - address % 4096))
            if b"\0" not in found:
                found += memory.read(4096)
        return os.fsdecode(found.partition(b"\0")[0])

    def _ptrace(self, request: int, task: int, data: int) -> None:
        _libc.ptrace(request, task, None, data or None)  # it may just have died
