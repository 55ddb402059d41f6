"""The calls of engines: usual ones side by side, those on a large unbroken text alone.

A text that cannot be cut (a run of megabytes) goes to an engine whole, which then takes some 25
bytes of memory for each of its bytes. Only one such call is under way at a time, and nothing
beside it: the other threads wait, and all caches are dropped before it. Which text is too large
even so follows from its length and the budget alone, and from nothing that happens meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tokenmill.memory import Room, return_free_memory

_ANY = 1 << 62


class NeedsAllMemory(Exception):
    """A text of ``size`` bytes that cannot be cut needs more memory than this process has of the
    run's budget, and no more than the whole of it."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Calls:
    """Who may call an engine now, for all threads of a run.

    ``alone_above`` is the size in bytes from which a call is made alone, ``seams_above`` the same
    for the search for a seam, ``room`` what memory allows then. Where the run has its memory
    divided among processes, ``here`` is how large a text this one may have.
    """

    def __init__(
        self,
        alone_above: int = _ANY,
        seams_above: int = _ANY,
        room: Room | None = None,
        here: int = _ANY,
    ) -> None:
        self._here = here
        self.alone_above = alone_above
        self.seams_above = seams_above
        self.room = room or Room()
        self._changed = threading.Condition()
        self._usual = 0
        self._waiting = 0
        self._is_alone = False
        self._droppers: list[Callable[[], None]] = []

    def watch(self, drop: Callable[[], None]) -> None:
        """``drop`` frees caches of an engine, while no call is under way."""
        self._droppers.append(drop)

    @contextmanager
    def usual(self) -> Iterator[None]:
        """A call beside others."""
        with self._changed:
            while self._is_alone or self._waiting:
                self._changed.wait()
            self._usual += 1
        try:
            yield
        finally:
            with self._changed:
                self._usual -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, size: int) -> Iterator[None]:
        """A call on so many bytes that cannot be cut. Raises TooLarge, NeedsAllMemory."""
        self.room.check(size)
        if size > self._here:
            raise NeedsAllMemory(size)
        with self._changed:
            self._waiting += 1
            while self._is_alone or self._usual:
                self._changed.wait()
            self._waiting -= 1
            self._is_alone = True
        try:
            for drop in self._droppers:
                drop()
            return_free_memory()
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()
