"""A real pseudo-terminal with an emulator behind it: what a person would see of a command.

The child is the leader of a session whose controlling terminal it is, so that Ctrl-C is typed and
not sent. `pyte` is the emulator: it gives the screen as rows of letters, and tells whether the
cursor is shown.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyte

ROWS = 40


class Terminal:
    """One command at a terminal of so many columns."""

    def __init__(
        self,
        command: Sequence[str],
        columns: int,
        env: dict[str, str],
        rows: int = ROWS,
        redirect: dict[int, str] | None = None,
    ) -> None:
        """``redirect`` leads file descriptors of the command to files."""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.rc: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            for heard in (signal.SIGINT, signal.SIGHUP):
                signal.signal(heard, signal.SIG_DFL)
            for number, path in (redirect or {}).items():
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            _set_size(0, columns, rows)
            os.execvpe(command[0], list(command), env)
        _set_size(self._fd, columns, rows)

    def read(self, seconds: float = 0.05) -> bool:
        """Take in what comes within that time; False when the command has ended."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return True
        try:
            chunk = os.read(self._fd, 65536)
        except OSError:
            chunk = b""
        self.output += chunk
        self._stream.feed(chunk)
        return bool(chunk)

    def wait_for(self, is_there: Callable[[Terminal], bool], seconds: float = 30.0) -> None:
        """Until that is so; fails when it never is."""
        end = time.monotonic() + seconds
        while not is_there(self):
            lives = self.read()
            assert lives or is_there(self), f"it ended before that:\n{self.text()}"
            assert time.monotonic() < end, f"it never came:\n{self.text()}"

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._fd, keys)

    def resize(self, columns: int) -> None:
        """Another width, as when a window is dragged."""
        self.screen.resize(columns=columns)
        _set_size(self._fd, columns, self.screen.lines)

    def finish(self, seconds: float = 60.0) -> int:
        """Its exit code."""
        end = time.monotonic() + seconds
        while self.read():
            assert time.monotonic() < end, f"it never ended:\n{self.text()}"
        _, status = os.waitpid(self.pid, 0)
        self.rc = os.waitstatus_to_exitcode(status)
        return self.rc

    def lines(self) -> list[str]:
        """The rows of the screen, without blanks at their ends and empty rows at the end."""
        return self.text().split("\n")

    def text(self) -> str:
        """The whole screen."""
        return "\n".join(row.rstrip() for row in self.screen.display).rstrip()

    @property
    def is_cursor_hidden(self) -> bool:
        """Would a person miss it?"""
        return bool(self.screen.cursor.hidden)

    def close(self) -> None:
        """Whatever is left of it ends."""
        if self.rc is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


def _set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def at_terminal(
    command: Sequence[str],
    columns: int,
    env: dict[str, str],
    rows: int = ROWS,
    redirect: dict[int, str] | None = None,
) -> Iterator[Terminal]:
    """The command at a terminal, closed at the end."""
    terminal = Terminal(command, columns, env, rows, redirect)
    try:
        yield terminal
    finally:
        terminal.close()
