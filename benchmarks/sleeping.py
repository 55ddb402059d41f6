"""An engine that takes no core: importing this puts it in gigatoken's place.

It sleeps as if it encoded SLEEPING_RATE bytes a second, and gives an id for each four bytes. So a
run shows what everything but the engine can do. Worker processes import it, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np

from tokenmill.memory import Needs
from tokenmill.tokenizers.engines import ENGINES
from tokenmill.tokenizers.engines.engine import Tokens
from tokenmill.tokenizers.engines.gigatoken import GigatokenEngine
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

RATE = float(os.environ.get("SLEEPING_RATE", "150e6"))


class Sleeping:
    """Sleeps."""

    name = "gigatoken"
    reads = GigatokenEngine.reads

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._end = vocabulary.end_of_text

    @classmethod
    def refusal(cls, vocabulary: Vocabulary) -> str | None:
        return None

    @classmethod
    def needs(cls, vocabulary: Vocabulary) -> Needs:
        return GigatokenEngine.needs(vocabulary)

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        size, count = sum(map(len, documents)), len(documents)
        time.sleep(size / RATE)
        ids = np.full(size // 4 + count, 7, np.uint32)
        marks = np.arange(1, count, dtype=np.int64) * (len(ids) // count)
        ids[marks] = self._end
        return Tokens(ids, marks)

    def encode_piece(self, text: bytes) -> list[int]:
        return [7] * (len(text) // 4 + 1)

    def token_bytes(self, token: int) -> bytes:
        return b"seven"

    def drop_caches(self) -> None:
        """There are none."""


ENGINES["gigatoken"] = Sleeping
