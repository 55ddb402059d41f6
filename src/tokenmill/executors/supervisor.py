"""The light parent of ``prepare``: it watches the process that works, and lets it go on when it
dies.

Native code can abort and the kernel can kill; the work is then done again from the last
checkpoint, by a new process, and the user is told what happened in plain words. A piece of input
that kills the process again and again is found by working with one thread that notes what it has
in hand; its records are then encoded one by one by the reference engine, and one that still kills
is treated as a bad record. A death from outside (an unexplained SIGKILL) is never blamed on the
input.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tokenmill.console import erase_leftover
from tokenmill.errors import Interrupted, TokenmillError
from tokenmill.executors.obituary import CRASHES, obituary, oom_kills
from tokenmill.stores.claims import create_own

AGAIN = 97
"""Exit code of a careful worker that has come past the trouble: go on as usual."""
PARENT_BYTES = 21 * 1024 * 1024
"""Resident memory of the parent, measured: of the budget, the worker has that much less."""
MOST_DEATHS = 12
"""Without any progress between them."""
GRACE_SECONDS = 0.3
"""After a second signal: then the worker is killed, which is as safe as any other end."""
PATIENCE_SECONDS = 2.5
"""After a first signal: then it is told what is waited for."""
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Attempt:
    """What a worker is told about the workers before it.

    ``parent_bytes`` is what the parent itself needs, ``shrink`` is how often the budget is to be
    cut to two thirds, ``suspects`` are the blocks that killed, ``condemned`` the records (block,
    number) that the reference engine died of, too (number None: the block cannot even be read).
    """

    parent_bytes: int = 0
    number: int = 0
    shrink: int = 0
    is_careful: bool = False
    suspects: set[str] = field(default_factory=set)
    condemned: set[tuple[str, int | None]] = field(default_factory=set)


class Watch:
    """What the parent has seen so far, and what it concludes."""

    def __init__(self, progress: Callable[[], str], in_hand: Callable[[], str | None]) -> None:
        self.attempt = Attempt()
        self._progress = progress
        self._in_hand = in_hand
        self._last = progress()
        self._deaths = 0
        self._crashes = 0

    def died(self, number: int, was_oom: bool) -> bool:
        """A worker was killed by signal ``number``. Is it worth another attempt?"""
        before, attempt = self._last, self.attempt
        self._last = self._progress()
        if self._last != before:
            self._deaths = self._crashes = 0
        self._deaths += 1
        attempt.number += 1
        attempt.shrink += was_oom
        if not was_oom and number not in CRASHES:
            return self._deaths < MOST_DEATHS
        self._crashes += 1
        if self._crashes >= 3 and attempt.is_careful:
            if not self._learn():
                return False
            self._deaths = 0
        attempt.is_careful = self._crashes >= 2
        return self._deaths < MOST_DEATHS

    def _learn(self) -> bool:
        """From what the careful worker had in hand; False when it tells nothing new."""
        note, attempt = self._in_hand(), self.attempt
        if note is None:
            return False
        block, _, number = note.rpartition("\t")
        record = int(number) if number else None
        if block not in attempt.suspects:
            attempt.suspects.add(block)
            return True
        known = (block, record) in attempt.condemned
        attempt.condemned.add((block, record))
        return not known

    def passed(self) -> None:
        """The careful worker is past the trouble."""
        self.attempt.is_careful = False
        self._deaths = self._crashes = 0
        self._last = self._progress()


def supervise(
    watch: Watch,
    tell: Callable[[str], None],
    fail: Callable[[TokenmillError], None],
    where: Path,
) -> Attempt:
    """Fork a worker and watch it; returns in the worker only. The parent exits as it does.
    ``fail`` tells the error that ends it."""
    while True:
        kills = oom_kills()
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        worker = os.fork()
        if worker == 0:
            os.close(writing)
            _die_with_parent(reading)
            watch.attempt.parent_bytes = PARENT_BYTES
            return watch.attempt
        os.close(reading)
        with Forwarding(worker, tell) as forwarding:
            _, status = os.waitpid(worker, 0)
        os.close(writing)
        if not os.WIFSIGNALED(status):
            code = os.WEXITSTATUS(status)
            if code != AGAIN:
                _leave(code)
            watch.passed()
            continue
        erase_leftover()
        number = os.WTERMSIG(status)
        asked = forwarding.asked or (number if number in _FORWARDED else None)
        if asked is not None:  # it was to stop, and had no time to say so
            fail(Interrupted.by_signal(asked))
            _leave(128 + asked)
        was_oom = number == signal.SIGKILL and oom_kills() > kills
        goes_on = watch.died(number, was_oom)
        how = obituary("the working process", number, was_oom)
        tell(f"warning: {how}" + ("; going on" if goes_on else ""))
        if not goes_on:
            fail(
                TokenmillError(
                    "the working process died again and again without coming any further",
                    str(where),
                    how,
                    "run the same command with more --memory, or with --engine tiktoken; what is "
                    "done is kept",
                )
            )
            _leave(1)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Forwarding:
    """While it lasts, signals sent to the parent go to the worker; ``asked`` is the first.

    A worker that is still there ``PATIENCE_SECONDS`` later is told of; after a second signal it is
    killed.
    """

    def __init__(self, worker: int, tell: Callable[[str], None]) -> None:
        self.asked: int | None = None
        self._worker = worker
        self._tell = tell
        self._repeats = Repeats()
        self._is_over = False
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Forwarding:
        for number in _FORWARDED:
            handler = signal.getsignal(number)
            if handler != signal.SIG_IGN:  # nohup
                self._before[number] = handler
                signal.signal(number, self._forward)
        return self

    def _forward(self, number: int, frame: FrameType | None) -> None:
        is_second = self._repeats.is_second()
        self.asked = self.asked or number
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._worker, number)
        if is_second is not None:
            then = self._kill if is_second else self._tell_of_waiting
            timer = threading.Timer(GRACE_SECONDS if is_second else PATIENCE_SECONDS, then)
            timer.daemon = True
            timer.start()

    def _tell_of_waiting(self) -> None:
        """The worker is deaf, or the disk is slow: only who asked can know how long to wait."""
        if not self._is_over:
            erase_leftover()
            self._tell(
                f"warning: still waiting for the working process {self._worker} to stop: it is in "
                "native code that hears no signal, or syncs to a slow disk; fix: wait, or press "
                "Ctrl-C again: that ends it at once, and what the last checkpoint holds is kept"
            )

    def _kill(self) -> None:
        """A worker deep in native code (a pattern that tries for ever) hears no signal."""
        if not self._is_over:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _die_with_parent(reading: int) -> None:
    """A worker without its parent would hold the output folder: it ends when the pipe does."""

    def wait() -> None:
        os.read(reading, 1)
        erase_leftover()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="tokenmill-parent", daemon=True).start()


class Hand:
    """What a careful worker has in hand, noted where its parent finds it after its death."""

    def __init__(self, path: Path) -> None:
        create_own(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)

    def note(self, block: str, record: int | None = None) -> None:
        """Take up a block, or one record of it."""
        text = f"{block}\t{'' if record is None else record}".encode()
        os.pwrite(self._fd, len(text).to_bytes(8, "little") + text, 0)


def in_hand(path: Path) -> str | None:
    """What was noted last."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length].decode("utf-8", "replace") or None


class Repeats:
    """A signal that comes twice at the same moment, from the terminal and from the parent, is
    one."""

    def __init__(self, seconds: float = 0.1) -> None:
        self._seconds = seconds
        self._first: float | None = None

    def is_second(self) -> bool | None:
        """Is this signal another one than the first? None when it is the same one again."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return False
        return True if now - self._first > self._seconds else None
