"""Reading ahead: what will be read next is fetched before it is asked for, in large pieces.

A remote file answers after tens of milliseconds, however little is asked of it, and a busy server
counts requests. So the ranges that a reader is going to want are joined to chunks of megabytes,
and a bounded number of chunks is fetched at once. A chunk is let go when all that is wanted of it
has been read. Whatever is read outside of the plan is fetched by itself: the plan changes how
fast bytes come, never which.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tokenmill.errors import LimitReached

Range = tuple[int, int]
Result = TypeVar("Result")
MOST_WASTE = 16
"""Unwanted bytes between two wanted ranges are fetched along where they are at most one part in
so many of the wanted ones: one request costs more than they do."""


@dataclass
class _Chunk:
    """One request. ``wanted`` are the ranges in it, each with how far it was read."""

    start: int
    stop: int
    wanted: list[Range]
    read_to: list[int] = field(default_factory=list)
    data: Future[bytes] | None = None
    is_done: bool = False

    def __post_init__(self) -> None:
        self.read_to = [low for low, _ in self.wanted]

    def mark(self, start: int, stop: int) -> bool:
        """Note what was read; is that all that was wanted?"""
        for index, (low, high) in enumerate(self.wanted):
            if start < high and stop > low:
                self.read_to[index] = max(self.read_to[index], min(stop, high))
        return all(at >= high for at, (_, high) in zip(self.read_to, self.wanted, strict=True))


class ReadAhead:
    """The wanted ``ranges`` of one file (ascending, not overlapping), read in about that order.

    ``read`` fetches bytes and may be called by several threads; ``chunks`` requests of at most
    ``chunk_bytes`` are under way or held at a time.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        ranges: Iterable[Range],
        chunk_bytes: int,
        chunks: int,
    ) -> None:
        self._read = read
        self._chunks = _joined(ranges, chunk_bytes)
        self._starts = [chunk.start for chunk in self._chunks]
        self._most = chunks
        self._lock = threading.Lock()
        self._next = 0
        self._held = 0
        with self._lock:
            self._advance()

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``."""
        parts = []
        while start < stop:
            chunk, end = self._chunk_at(start, stop)
            if chunk is None:
                parts.append(self._read(start, end))
            else:
                parts.append(self._data(chunk)[start - chunk.start : end - chunk.start])
            start = end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self, start: int, stop: int) -> None:
        """What is wanted between ``start`` and ``stop`` has been read."""
        with self._lock:
            first = max(0, bisect.bisect_right(self._starts, start) - 1)
            for chunk in self._chunks[first:]:
                if chunk.start >= stop:
                    break
                if not chunk.is_done and chunk.mark(start, stop):
                    chunk.is_done = True
                    self._held -= chunk.data is not None
                    chunk.data = None
            self._advance()

    def close(self) -> None:
        """Fetch nothing more, and hold nothing."""
        with self._lock:
            self._next = len(self._chunks)
            for chunk in self._chunks:
                chunk.is_done, chunk.data = True, None

    def _chunk_at(self, start: int, stop: int) -> tuple[_Chunk | None, int]:
        """The chunk to take the byte at ``start`` from, and up to where it, or none, serves."""
        index = bisect.bisect_right(self._starts, start) - 1
        if index >= 0 and start < self._chunks[index].stop:
            chunk = self._chunks[index]
            return None if chunk.is_done else chunk, min(stop, chunk.stop)
        after = self._starts[index + 1] if index + 1 < len(self._starts) else stop
        return None, min(stop, after)

    def _data(self, chunk: _Chunk) -> bytes:
        with self._lock:
            # A reader that is ahead of the others gets its chunk out of turn: it must not wait
            # for chunks that are let go only after it.
            data = chunk.data or self._begin(chunk)
        return data.result()

    def _advance(self) -> None:
        while self._held < self._most and self._next < len(self._chunks):
            chunk = self._chunks[self._next]
            self._next += 1
            if chunk.data is None and not chunk.is_done:
                self._begin(chunk)

    def _begin(self, chunk: _Chunk) -> Future[bytes]:
        chunk.data = in_background(partial(self._read, chunk.start, chunk.stop))
        self._held += 1
        return chunk.data


def in_background(call: Callable[[], Result]) -> Future[Result]:
    """What ``call`` returns or raises, once it did.

    Not by an executor: the interpreter would wait for its threads when it ends.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  it is raised where the result is wanted
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def result_by(future: Future[Result], deadline: float | None) -> Result:
    """What a call in the background returned or raised; LimitReached at ``deadline``, of the
    monotonic clock (None: it is waited for)."""
    try:
        return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except NotYet:
        if future.done():
            raise  # it is what the call itself raised
        raise LimitReached(
            "--max-time is over",
            None,
            "the network was waited for, before anything began",
            "run the same command again, with more time",
        ) from None


def _joined(ranges: Iterable[Range], chunk_bytes: int) -> list[_Chunk]:
    """Ranges cut where they are longer than a chunk, joined where they are shorter."""
    chunks: list[_Chunk] = []
    for low, high in ranges:
        while low < high:
            last = chunks[-1] if chunks else None
            room = 0 if last is None else chunk_bytes - (low - last.start)
            if last is not None and room > 0 and _is_near(last, low):
                stop = min(high, low + room)
                last.stop = stop
                last.wanted.append((low, stop))
                last.read_to.append(low)
            else:
                stop = min(high, low + chunk_bytes)
                chunks.append(_Chunk(low, stop, [(low, stop)]))
            low = stop
    return chunks


def cost(ranges: Iterable[Range], chunk_bytes: int) -> tuple[int, int]:
    """Requests that it takes to fetch some ranges, and the bytes that they move."""
    chunks = _joined(ranges, chunk_bytes)
    return len(chunks), sum(chunk.stop - chunk.start for chunk in chunks)


def _is_near(chunk: _Chunk, start: int) -> bool:
    wanted = sum(high - low for low, high in chunk.wanted)
    return (start - chunk.start - wanted) * MOST_WASTE <= wanted
