"""An engine of somebody's own, in a file of its own: a class, and a line in the table.

It is tiktoken with a memory for whole documents, as for a corpus in which many are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tiktoken

from tokenmill.memory import MIB, Needs
from tokenmill.tokenizers.engines import ENGINES
from tokenmill.tokenizers.engines.engine import Tokens, joined
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import PATTERNS, Ranks
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

MOST = 4 * MIB
"""Bytes of documents that it remembers."""


class Remembering:
    name = "remembering"
    reads: ClassVar[tuple[type[Vocabulary], ...]] = (Ranks,)

    def __init__(self, vocabulary: Vocabulary) -> None:
        assert isinstance(vocabulary, Ranks)
        self._vocabulary = vocabulary
        self._known: dict[bytes, list[int]] = {}
        self._bytes = 0
        self._encoding = tiktoken.Encoding(
            "toy", pat_str=PATTERNS["gpt2"], mergeable_ranks=vocabulary.ranks, special_tokens={}
        )

    @staticmethod
    def refusal(vocabulary: Vocabulary) -> str | None:
        return None if vocabulary.pattern == "gpt2" else "it splits text as GPT-2 does, only"

    @staticmethod
    def needs(vocabulary: Vocabulary) -> Needs:
        size = vocabulary.largest_id + 1
        return Needs(350 * size, 16 * MIB + 20 * MOST + 400 * size)

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        return joined(map(self.encode_piece, documents), self._vocabulary.end_of_text)

    def encode_piece(self, text: bytes) -> list[int]:
        if text not in self._known:
            if self._bytes + len(text) > MOST:
                self.drop_caches()
            self._bytes += len(text)
            self._known[text] = self._encoding.encode_ordinary(text.decode())
        return self._known[text]

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        self._known.clear()
        self._bytes = 0


def register() -> None:
    """The one line."""
    ENGINES[Remembering.name] = Remembering
