"""Shared memory by which items come to worker processes, and results back.

A slot has room for the buffers of one item and, behind them, of its result; it is an open file
without a name, handed over as such, and used again for another item. Neither side pickles a
buffer: who sends writes it to the file (one copy), a worker reads it, and here a result is looked
at in place. A result lies behind its item, so that after a worker's death the item is still whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from mmap import PROT_READ, mmap

ALIGNMENT = 64
_STEP = 1024 * 1024
"""Room grows by so much at a time, so that a slightly larger result needs no new mapping."""
_KEPT = 8 * 1024 * 1024
"""What a slot has beyond that goes back when it is free: a few large results would stay resident
for the rest of a map."""


def padded(size: int) -> int:
    """The room that a buffer of ``size`` bytes takes, so that the next one is aligned."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def put(fd: int, start: int, buffers: Sequence[memoryview]) -> list[int]:
    """Write buffers one after another from ``start`` on; returns their sizes in bytes."""
    for buffer in buffers:
        done = 0
        while done < buffer.nbytes:
            done += os.pwrite(fd, buffer[done:], start + done)
        start += padded(buffer.nbytes)
    return [buffer.nbytes for buffer in buffers]


def taken(fd: int, start: int, sizes: Sequence[int]) -> list[bytes]:
    """The buffers that were put there, each as bytes of its own."""
    buffers = []
    for size in sizes:
        parts, at = [], start
        while at < start + size:
            parts.append(os.pread(fd, start + size - at, at))
            if not parts[-1]:
                raise EOFError("shared memory ends before what was put there")
            at += len(parts[-1])
        buffers.append(parts[0] if len(parts) == 1 else b"".join(parts))
        start += padded(size)
    return buffers


class Slot:
    """Shared memory for the buffers of one item and of its result."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("tokenmill", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        self._memory: mmap | None = None

    def views(self, start: int, sizes: Sequence[int]) -> list[memoryview]:
        """The buffers that a worker has put there, from ``start`` on, in place."""
        stop = start + sum(map(padded, sizes))
        if stop == start:
            return [memoryview(bytearray()) for _ in sizes]
        if self._memory is None or len(self._memory) < stop:
            room = -(-stop // _STEP) * _STEP
            if os.fstat(self.fd).st_size < room:
                os.ftruncate(self.fd, room)  # what nobody has written takes no memory
            self._memory = mmap(self.fd, room, prot=PROT_READ)  # an older one goes with its views
        whole, views = memoryview(self._memory), []
        for size in sizes:
            views.append(whole[start : start + size])
            start += padded(size)
        return views

    def release(self) -> None:
        """Nobody looks at it any more, until it is used again."""
        if os.fstat(self.fd).st_size > _KEPT:
            self._memory = None
            os.ftruncate(self.fd, 0)

    def close(self) -> None:
        """Give the memory back, as soon as nobody looks at it."""
        self._memory = None
        os.close(self.fd)
