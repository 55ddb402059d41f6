"""How a run is asked to stop: by a signal, at the next block or at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tokenmill.errors import Interrupted


class _Stopped(BaseException):
    """Raised by a signal's handler into whatever is under way. It is no Exception, so that nobody
    takes it for a failure of a library or the network, and tries again."""


class StopRequest:
    """How a signal asks a run to stop: at the next block, or at once where nothing is half done."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._is_deferred = False
        self._raised: int | None = None

    def ask(self, number: int) -> None:
        """Called by the signal's handler. Raises where that is safe: within ``heard``."""
        self.signal = number
        if not self._is_deferred:
            self._raised = number
            raise _Stopped

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within it, what comes of a signal is Interrupted.

        That is whatever ends the work after the handler raised: native code that calls Python
        turns an exception from there into one of its own (Rust panics).
        """
        try:
            yield
        except BaseException as error:
            if self._raised is None:
                raise
            raise Interrupted.by_signal(self._raised) from error

    def defer(self, is_deferred: bool) -> None:
        """From now on the run looks for the request itself (or no longer)."""
        self._is_deferred = is_deferred

    def is_asked(self) -> bool:
        """Was the run asked to stop?"""
        return self.signal is not None
