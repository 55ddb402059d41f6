"""The engines' caches: who drops them, and when, so that the memory budget holds."""

from __future__ import annotations

import threading

from tokenmill.encoding.encoder import BlockEncoder
from tokenmill.memory import MIB, Budget, anonymous_bytes, resident_bytes

_WORTH_DROPPING = 8 * MIB


class CacheGovernor:
    """Drops an engine's caches when the process nears its budget: the fullest ones first."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._before = anonymous_bytes() if budget.is_share else 0
        """Of a process that has a share of the budget, what it has from the one that forked it."""
        self._encoders: list[BlockEncoder] = []
        self._baseline = 0
        self._lock = threading.Lock()

    def watch(self, encoder: BlockEncoder) -> None:
        """Take care of one more encoder, whose caches are empty."""
        with self._lock:
            if not self._encoders:  # a later one may come when the first has filled its caches
                self._baseline = self._resident()
            self._encoders.append(encoder)

    def look(self, encoder: BlockEncoder) -> None:
        """Called by an encoder, in its thread, after each call of its engine."""
        resident = self._resident()
        near = self._budget.is_near(resident, self._baseline) and self._is_fullest(encoder)
        if near or self._budget.is_reached(resident):
            encoder.drop_caches()
            encoder.drops += 1
            self._learn(resident, self._resident())

    def _resident(self) -> int:
        if not self._budget.is_share:
            return resident_bytes()
        return max(0, anonymous_bytes() - self._before)

    def _learn(self, before: int, after: int) -> None:
        """What a drop does not free is no cache: readers' buffers, the allocators' reserves.

        Without this, a parquet reader's 80 MB counted as caches, and a 512 MB budget dropped
        them all the time.
        """
        caches = (before - after) * (len(self._encoders) - 1)
        with self._lock:
            held = self._budget.in_hand.bytes
            self._baseline = max(self._baseline, after - held - max(0, caches))

    def _is_fullest(self, encoder: BlockEncoder) -> bool:
        fullest = max(other.bytes_since_drop for other in self._encoders)
        return encoder.bytes_since_drop >= max(_WORTH_DROPPING, fullest // 2)
