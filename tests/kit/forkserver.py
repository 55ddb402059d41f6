"""The command from a process that has its modules loaded: half of a short run is loading them.

`python tests/kit/forkserver.py FD` loads what every run loads, the default tokenizer too, and no
more; then it forks itself for each request that comes through the socket FD, and the child is the
command: of a session of its own, with the arguments, the folder, the environment, the standard
streams and the exit of a process that was started. Nothing that the command does comes back to the
next one. `test_forkserver.py` compares it with the process that it stands for.

What an interpreter and its libraries read of the environment when they start, a forked one never
reads: `stands_for` tells whether it can stand for a process of that environment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_READ_AT_START = (
    "PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "ARROW_", "OMP_",
    "OPENBLAS_", "NPY_",
)  # fmt: skip
_LOADED = (
    "tokenmill.cli.main", "tokenmill.commands.prepare", "tokenmill.commands.verify",
    "tokenmill.commands.inspect",
    "tokenmill.commands.status", "tokenmill.commands.doctor", "gigatoken", "tiktoken",
    "pyarrow", "pyarrow.parquet",
)  # fmt: skip
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Or NumPy and Arrow start some when they are loaded, of which a fork would take none."""
_MOST_BYTES = 100_000
"""Of a request: a message through a socket has to fit into the kernel's buffer for it."""
MODULE = "-m"
_ENGINES = 2
"""That a run finds made: no test in which more would count has more workers."""


def _serve(control: socket.socket) -> list[str]:
    """Fork for each request; returns in the children only, with what they are to run."""
    waiting: dict[int, tuple[int, int]] = {}  # pidfd -> (process, where its end is told)
    while True:
        ready: list[int] = select.select([control.fileno(), *waiting], [], [])[0]
        for fd in ready:
            if fd != control.fileno():
                process, reply = waiting.pop(fd)
                code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                with contextlib.suppress(BrokenPipeError):  # whoever asked has given up
                    os.write(reply, f"{code}\n".encode())
                os.close(reply)
                os.close(fd)
                continue
            message, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, 3)
            if not message:  # the tests are over
                os._exit(0)
            process = os.fork()
            if process == 0:
                for other, (_, reply) in waiting.items():
                    os.close(other)
                    os.close(reply)
                return _become(json.loads(message), *fds)
            stdout, stderr, reply = fds
            os.close(stdout)
            os.close(stderr)
            os.write(reply, f"{process}\n".encode())
            waiting[os.pidfd_open(process)] = process, reply


def _become(request: dict[str, object], stdout: int, stderr: int, reply: int) -> list[str]:
    """In the child: what a process would find that was started so."""
    os.setsid()
    for fd, standard in ((stdout, 1), (stderr, 2)):
        os.dup2(fd, standard)
        os.close(fd)
    os.close(reply)
    os.chdir(str(request["cwd"]))
    environment = request["env"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    command = request["command"]
    assert isinstance(command, list)
    return command


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in _LOADED:
        importlib.import_module(name)
    kept = importlib.import_module("kept")  # beside this script
    kept.keep(again=False)
    kept.fill(_ENGINES)
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:  # of which a fork would take one
        raise RuntimeError(f"{len(threads)} threads after loading the modules")
    gc.collect()
    gc.freeze()
    with control:
        kind, *arguments = _serve(control)
    sys.argv = [kind, *arguments]
    if kind == MODULE:
        sys.path[0] = os.getcwd()
        runpy.run_module("tokenmill", run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")


class Forkserver:
    """The tests' end of it; the process starts with the first command."""

    def __init__(self, environment: Callable[[], dict[str, str]]) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._start: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """Its process, once there is one."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """The end: what it forked goes on without it."""
        if self._process and self._control:
            self._control.close()
            self._process.wait()

    def _started(self) -> socket.socket:
        if self._control is None:
            self._start = self._environment()
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, str(theirs.fileno())],
                    env=self._start | _NO_THREADS,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=hear_signals,
                )
        return self._control

    def start(self, command: Sequence[str], cwd: Path | None, env: dict[str, str]) -> Forked | None:
        """`python COMMAND...`, which is `-m ARGUMENT...` for tokenmill, or a script with its
        arguments, as a process of its own group, to be watched or killed; None when only one that
        is started can tell.
        """
        request = {"command": command, "cwd": str(cwd or Path.cwd()), "env": env}
        message = json.dumps(request).encode()
        with self._lock:
            control = self._started()
            if not self.stands_for(env) or len(message) > _MOST_BYTES:
                return None
            pipes = [os.pipe() for _ in range(3)]
            socket.send_fds(control, [message], [writing for _, writing in pipes])
        for _, writing in pipes:
            os.close(writing)
        return Forked(command, *(reading for reading, _ in pipes))

    def stands_for(self, env: dict[str, str]) -> bool:
        """Is it what a process with that environment would have become?"""
        names = {name for name in env.keys() | self._start if name.startswith(_READ_AT_START)}
        return all(env.get(name) == self._start.get(name) for name in names)


class Forked(subprocess.Popen[str]):
    """The command from a forkserver, which is its parent and tells how it ended."""

    def __init__(self, command: Sequence[str], stdout: int, stderr: int, reply: int) -> None:
        self.args = command
        self.stdin = None
        self.stdout = os.fdopen(stdout, "r")
        self.stderr = os.fdopen(stderr, "r")
        self.returncode = None
        self._reading = threading.Lock()
        self._reply = os.fdopen(reply, "rb", buffering=0)
        self.pid = int(self._reply.readline())

    def __del__(self) -> None:
        """Popen's would ask for its end, which is the forkserver's to ask for."""
        self._reply.close()

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._reply], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._reading:  # a server's thread may ask while the test waits
                if self.returncode is None:
                    self.returncode = int(self._reply.read())
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def communicate(
        self, input: str | None = None, timeout: float | None = None
    ) -> tuple[str, str]:
        """What is left to read of both streams, once both are closed. It hears no ``input``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        streams = [stream for stream in (self.stdout, self.stderr) if stream]
        came: dict[Any, list[bytes]] = {stream: [] for stream in streams if not stream.closed}
        opened = set(came)
        while opened:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            ready, _, _ = select.select(list(opened), [], [], left)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            for stream in ready:
                chunk = os.read(stream.fileno(), 1 << 16)
                came[stream].append(chunk)
                if not chunk:
                    opened.remove(stream)
                    stream.close()
        self.wait(None if deadline is None else max(0, deadline - time.monotonic()))
        stdout, stderr = (_text(b"".join(came.get(stream, []))) for stream in streams)
        return stdout, stderr


def _text(output: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(output)).read()


def hear_signals() -> None:
    """A shell's background jobs ignore Ctrl-C, and after nohup the end of the terminal, and so
    would all that these tests start."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    _main()
