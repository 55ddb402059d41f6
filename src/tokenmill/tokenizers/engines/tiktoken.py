"""The tiktoken engine: the reference implementation for ``.tiktoken`` vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from tokenmill.memory import Needs
from tokenmill.tokenizers.engines.engine import Tokens, joined
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import PATTERNS, Ranks
from tokenmill.tokenizers.vocabularies.vocabulary import END_OF_TEXT, Vocabulary


class TiktokenEngine:
    """OpenAI's own encoder, made from the ranks without the network."""

    name = "tiktoken"
    reads: ClassVar[tuple[type[Vocabulary], ...]] = (Ranks,)

    def __init__(self, vocabulary: Vocabulary) -> None:
        import tiktoken

        assert isinstance(vocabulary, Ranks)
        self._vocabulary = vocabulary
        self._encoding = tiktoken.Encoding(
            vocabulary.name,
            pat_str=PATTERNS[vocabulary.pattern],
            mergeable_ranks=vocabulary.ranks,
            special_tokens={vocabulary.special_text or END_OF_TEXT: vocabulary.end_of_text},
        )

    @staticmethod
    def refusal(vocabulary: Vocabulary) -> str | None:
        """It is the reference."""
        return None

    @staticmethod
    def needs(vocabulary: Vocabulary) -> Needs:
        """As much as gigatoken, which is more than it takes; it remembers nothing."""
        return replace(Needs.of_ranks(vocabulary.largest_id + 1), has_caches=False)

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        return joined(map(self.encode_piece, documents), self._vocabulary.end_of_text)

    def encode_piece(self, text: bytes) -> list[int]:
        return self._encoding.encode_ordinary(text.decode())

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        """Nothing is kept between calls."""
