"""How fast engines are on some text, side by side. Their ids are the same: nobody looks at them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tokenmill.tokenizers.engines.engine import Engine

_ROUNDS = 5


def speeds(engines: Mapping[str, Engine], documents: Sequence[bytes]) -> dict[str, float]:
    """Bytes of text that each engine encodes in a second of the processor's time, in this thread.

    All documents go through each engine once before the clock runs: what is new to it at first is
    known to it in all of a large corpus but its beginning. Then they take turns, five times over,
    and the least time of each counts: whatever else the machine does makes a turn slower, never
    faster. A turn is a megabyte: with less, each would find the processor's caches full of the
    other's words, and the one with the larger tables would seem slower than it is.
    """
    least = dict.fromkeys(engines, float("inf"))
    for turn in range(1 + _ROUNDS):
        for name, engine in engines.items():
            began = time.thread_time()
            engine.encode(documents)
            if turn:
                least[name] = min(least[name], time.thread_time() - began)
    size = sum(map(len, documents))
    return {name: size / max(1e-9, seconds) for name, seconds in least.items()}
