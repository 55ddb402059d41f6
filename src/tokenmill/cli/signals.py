"""Signals, and the end: the first stops a run, durably, the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from tokenmill.console import last_words
from tokenmill.errors import Interrupted
from tokenmill.executors.threads import MAP_THREADS

if TYPE_CHECKING:
    from tokenmill.commands.options import RunOptions


@contextmanager
def hearing_signals(run: RunOptions) -> Iterator[None]:
    """While it lasts, signals stop the run; afterwards it is over, whatever comes."""
    with run.stop.heard():
        _catch_signals(run)
        try:
            yield
        finally:
            run.stop.defer(True)


def _catch_signals(run: RunOptions) -> None:
    """The first signal stops the run, durably; the second ends it at once, which is safe too, and
    says so."""
    from tokenmill.executors.supervisor import Repeats

    repeats = Repeats()
    fix = f"to go on, run the same command again: {run.command}"

    def handle(number: int, frame: object) -> None:
        is_second = repeats.is_second()
        if is_second:
            error = Interrupted.by_signal(
                number, None, "it came a second time: what the last checkpoint holds is kept", fix
            )
            last_words(f"error: {error}")
            os._exit(error.exit_code)
        if is_second is False:
            run.stop.ask(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, handle)


def leave(code: int) -> NoReturn:
    """Exit; past the interpreter's own end where a thread is still deep in native code, for then
    that aborts the process."""
    if any(thread.name.startswith(MAP_THREADS) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
