"""Starts worker processes: a server that has loaded what they need forks them, when asked.

A worker that died is replaced in milliseconds. The server is a bare Python, not a fork of this
process, which has threads; and not ``multiprocessing``'s, which imports the caller's main script
again: one without its ``if __name__ == "__main__"`` would start itself anew.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from tokenmill.executors.worker import ENDED, FORK, FORKED, KILL, receive, send

_BEGIN = (
    "import sys; sys.path[:] = {path!r}\nfrom tokenmill.executors.worker import main; main({fd})"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
"""A process is forked whole only if it has one thread; and a worker is one core's work."""
_SECONDS_TO_TELL = 2.0


class ServerDied(Exception):
    """The process that starts workers ended."""


class ForkServer:
    """A process that forks workers. What workers need, ``make`` and ``modules``, is loaded while
    the caller goes on."""

    def __init__(self, make: bytes, modules: Sequence[str]) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            code = _BEGIN.format(path=sys.path, fd=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
            )
        self.is_closed = False
        self._sending = threading.Lock()  # a map's thread forks while who closes it kills
        self.pid = self._process.pid
        self._asked = 0
        self.pids: list[int] = []
        """Of the workers, in the order in which they were asked for."""
        self._ends: dict[int, int] = {}
        with contextlib.suppress(OSError):  # it died; that is heard when it is asked
            send(self.control, (list(modules), make))

    def fork(self, target: str | None = None) -> tuple[int, socket.socket]:
        """A new worker, or a process with another ``target``: its number, by which ``how`` knows
        it, and the channel to it."""
        ours, theirs = socket.socketpair()
        with theirs, self._sending, contextlib.suppress(OSError):
            send(self.control, (FORK, target), (theirs.fileno(),))
        self._asked += 1
        return self._asked - 1, ours

    def hear(self) -> None:
        """Take in one message of the server's. Raises ServerDied."""
        try:
            (what, pid, status), _ = receive(self.control)
        except (EOFError, OSError):
            code = self._process.wait()
            raise ServerDied(f"the process that starts workers ended with {code}") from None
        if what == FORKED:
            self.pids.append(pid)
        elif what == ENDED:
            self._ends[pid] = status

    def how(self, number: int) -> int | None:
        """The status with which a worker ended; None where nobody can say. Raises ServerDied."""
        end = time.monotonic() + _SECONDS_TO_TELL
        self.control.settimeout(_SECONDS_TO_TELL)
        try:
            while time.monotonic() < end:
                if number < len(self.pids) and self.pids[number] in self._ends:
                    return self._ends[self.pids[number]]
                self.hear()
        except TimeoutError:
            pass
        finally:
            self.control.settimeout(None)
        return None

    def kill(self, number: int) -> None:
        """End a process, in native code, too. One that is not yet known has done nothing yet, and
        ends when its channel does."""
        if number < len(self.pids):
            with self._sending, contextlib.suppress(OSError):
                send(self.control, (KILL, self.pids[number]), ())

    def close(self) -> None:
        """End it, and with it all workers, in native code, too."""
        self.is_closed = True
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self.control.close()
