"""Failures of a network pass: requests are made again, with back-off, while patience lasts.

All requests of one run go through its one policy, which the command makes and hands down: two runs
in one process count for themselves, and each gives up its own requests only. When a server says
that it is asked too often, and when it will answer again, every thread of the run waits until then:
the next request of another thread would only be refused, too, and counted. Nothing here decides on
bytes: a request that succeeds is checked by whoever made it.

A host that never answered in this run is hardly one that will: a name mistyped, a server that is
not there, a proxy that is missing. It gets seconds, not the patience of a run that has begun.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from tokenmill.errors import TemporaryFailure
from tokenmill.stores.readahead import in_background
from tokenmill.units import format_seconds

Result = TypeVar("Result")
DEFAULT_PATIENCE = 3600.0
"""Seconds for each request, of a run that was told no other (``--network-patience``)."""
FIRST_PATIENCE = 8.0
"""Seconds for a host that cannot be reached and never was: a resolver that is asked again after
its own time-out (5 s, resolv.conf(5)) still comes through."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_POLL_SECONDS = 0.1
_LOG_SECONDS = 30.0


class TransientError(Exception):
    """A failure that may pass: ``why`` for people, ``retry_after`` seconds if the server told.

    ``for_all``: the server is asked too often, so that every other request waits, too.
    ``is_unreachable``: there was no connection at all.
    """

    def __init__(
        self,
        why: str,
        retry_after: float | None = None,
        for_all: bool = False,
        is_unreachable: bool = False,
    ) -> None:
        super().__init__(why, retry_after)
        self.why = why
        self.retry_after = retry_after
        self.for_all = for_all or retry_after is not None
        self.is_unreachable = is_unreachable


def _unheard(line: str) -> None:
    """Log nothing."""


class RetryPolicy:
    """One run's way to the network. ``patience`` is in seconds, for each request (None: the
    default); ``log`` hears what is waited for, from any thread.

    ``requests``, ``retries``, ``moved`` (bytes of files) and ``verified`` (files whose hash was
    compared) count the run's own. As a context, it gives up at the end what is still under way.
    Pickled and read back it is another one of the same patience, which counts from 0 and logs
    nothing: locks, threads and the command's log cross no border between processes.
    """

    def __init__(
        self, patience: float | None = None, log: Callable[[str], None] = _unheard
    ) -> None:
        self.patience = DEFAULT_PATIENCE if patience is None else patience
        self.retries = self.requests = self.moved = self.verified = 0
        self._log = log
        self._logged_at: float | None = None
        self._lock = threading.Lock()
        self._opens_at = 0.0
        self._is_closing = threading.Event()
        self._reached: set[str] = set()
        # Of its own: to draw from the module's would change what a seeded script draws.
        self._random = random.Random()

    def __reduce__(self) -> tuple[type[RetryPolicy], tuple[float]]:
        return RetryPolicy, (self.patience,)

    def __enter__(self) -> RetryPolicy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def request(self, call: Callable[[], Result], where: str) -> Result:
        """What ``call`` returns, which is called again whenever it raises TransientError.

        Raises TemporaryFailure when it failed for longer than the patience, or was given up:
        then without waiting for ``call``, which may hang for longer than a person likes to.
        """
        closing, began, pause = self._is_closing, None, _FIRST_PAUSE
        host, asked = _host(where), time.monotonic()
        while True:
            self._wait(closing, where)
            try:
                result = self._result(call, closing, where)
                self._reached.add(host)
                return result
            except TransientError as error:
                now = time.monotonic()
                if not error.is_unreachable:
                    self._reached.add(host)
                began = now if began is None else began
                delay = pause * self._random.uniform(0.5, 1.0)
                if error.retry_after is not None:
                    delay = max(error.retry_after, 0.0)
                if host not in self._reached:
                    if now + delay - asked > min(self.patience, FIRST_PATIENCE):
                        raise _never_reached(error, where, now - asked) from error
                elif now + delay - began > self.patience:
                    raise _failed(error, where, now - began) from error
                self._pause(closing, error, delay, where, host)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def count(self, moved: int) -> None:
        """A request was answered with so many bytes of a file."""
        with self._lock:
            self.requests += 1
            self.moved += moved

    def count_verified(self) -> None:
        """All of a file came, and had the hash that its place lists."""
        with self._lock:
            self.verified += 1

    def close(self) -> None:
        """Give up all requests, and all waiting: the run is being stopped."""
        self._is_closing.set()

    def reopen(self) -> None:
        """Take requests again; those that were given up stay so."""
        if self._is_closing.is_set():
            self._is_closing = threading.Event()
            self._opens_at = 0.0

    def _result(self, call: Callable[[], Result], closing: threading.Event, where: str) -> Result:
        answer = in_background(call)
        while True:
            try:
                return answer.result(_POLL_SECONDS)
            except NotYet:
                if answer.done():
                    return answer.result()
                if closing.is_set():
                    raise _given_up(where) from None

    def _pause(
        self, closing: threading.Event, error: TransientError, delay: float, where: str, host: str
    ) -> None:
        with self._lock:
            self.retries += 1
            now = time.monotonic()
            if error.for_all:
                self._opens_at = max(self._opens_at, now + delay)
            is_logged = self._logged_at is not None and now - self._logged_at < _LOG_SECONDS
            if not is_logged:
                self._logged_at = now
        patience = self.patience
        if host not in self._reached:
            patience = min(patience, FIRST_PATIENCE)
        if not is_logged:
            self._log(
                f"network: {error.why} ({where}); trying again in {format_seconds(delay)}, for "
                f"up to {format_seconds(patience)}"
            )
        if not error.for_all:
            closing.wait(delay)

    def _wait(self, closing: threading.Event, where: str) -> None:
        while not closing.is_set():
            left = self._opens_at - time.monotonic()
            if left <= 0:
                return
            closing.wait(left)
        raise _given_up(where)


def _host(where: str) -> str:
    """Which server is asked, by the beginning of what messages call the request."""
    parts = urlsplit(where.partition(", ")[0])
    return f"{parts.scheme}://{parts.netloc}"


def _never_reached(error: TransientError, where: str, seconds: float) -> TemporaryFailure:
    return TemporaryFailure(
        "the host cannot be reached",
        where,
        f"{error.why}; it never answered, tried for {format_seconds(seconds)}",
        "run the same command again once it answers; check the address (for a store its endpoint, "
        "for the Hub HF_ENDPOINT), the network and the proxy (HTTPS_PROXY)",
    )


def _given_up(where: str) -> TemporaryFailure:
    return TemporaryFailure("given up", where, "the run is being stopped", "run it again")


def _failed(error: TransientError, where: str, seconds: float) -> TemporaryFailure:
    return TemporaryFailure(
        "the network does not give what is asked for",
        where,
        f"{error.why}; tried for {format_seconds(seconds)}",
        "run the same command again: it goes on from what is done (--network-patience is how long "
        "one request is tried)",
    )
