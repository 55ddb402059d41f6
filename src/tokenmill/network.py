"""Failures of a network pass: requests are made again, with back-off, while patience lasts.

All requests of the process go through one gate. When a server says that it is asked too often, and
when it will answer again, every thread waits until then: the next request of another thread would
only be refused, too, and counted. Nothing here decides on bytes: a request that succeeds is
checked by whoever made it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tokenmill.errors import TemporaryFailure
from tokenmill.quantities import format_seconds

Result = TypeVar("Result")
DEFAULT_PATIENCE = 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0


class Passing(Exception):
    """A failure that may pass: ``why`` for people, ``retry_after`` seconds if the server told."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why, retry_after)
        self.why = why
        self.retry_after = retry_after


class Gate:
    """The process's way to the network. ``patience`` is in seconds, for each request."""

    def __init__(self, patience: float = DEFAULT_PATIENCE) -> None:
        self.patience = patience
        self.retries = 0
        self._lock = threading.Lock()
        self._opens_at = 0.0
        self._is_closing = threading.Event()

    def request(self, call: Callable[[], Result], where: str) -> Result:
        """What ``call`` returns, which is called again whenever it raises Passing.

        Raises TemporaryFailure when it failed for longer than the patience, or was given up.
        """
        began, pause = None, _FIRST_PAUSE
        while True:
            self._wait(where)
            try:
                return call()
            except Passing as error:
                now = time.monotonic()
                began = now if began is None else began
                delay = pause * random.uniform(0.5, 1.0)
                if error.retry_after is not None:
                    delay = max(error.retry_after, 0.0)
                if now + delay - began > self.patience:
                    raise _failed(error, where, now - began) from error
                self._pause(delay, for_all=error.retry_after is not None)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def close(self) -> None:
        """Give up all waiting: the run is being stopped."""
        self._is_closing.set()

    def _pause(self, delay: float, for_all: bool) -> None:
        with self._lock:
            self.retries += 1
            if for_all:
                self._opens_at = max(self._opens_at, time.monotonic() + delay)
        if not for_all:
            self._is_closing.wait(delay)

    def _wait(self, where: str) -> None:
        while not self._is_closing.is_set():
            left = self._opens_at - time.monotonic()
            if left <= 0:
                return
            self._is_closing.wait(left)
        raise TemporaryFailure("given up", where, "the run is being stopped", "run it again")


def _failed(error: Passing, where: str, seconds: float) -> TemporaryFailure:
    return TemporaryFailure(
        "the network does not give what is asked for",
        where,
        f"{error.why}; tried for {format_seconds(seconds)}",
        "run the same command again: it goes on from what is done (--network-patience is how long "
        "one request is tried)",
    )


GATE = Gate()
"""The one of this process."""
