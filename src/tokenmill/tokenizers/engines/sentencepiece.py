"""The engine ``sentencepiece``: the reference implementation for ``.model`` files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tokenmill.memory import MIB, Needs, return_free_memory
from tokenmill.tokenizers.engines.engine import Tokens, joined
from tokenmill.tokenizers.vocabularies.sentencepiece_model import SentencePieceModel
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary


class SentencePieceEngine:
    """Google's library. One processor serves all threads."""

    name = "sentencepiece"
    reads: ClassVar[tuple[type[Vocabulary], ...]] = (SentencePieceModel,)

    def __init__(self, vocabulary: Vocabulary) -> None:
        assert isinstance(vocabulary, SentencePieceModel)
        self._vocabulary = vocabulary
        self._processor = vocabulary.processor

    @staticmethod
    def refusal(vocabulary: Vocabulary) -> str | None:
        """It is the reference."""
        return None

    @staticmethod
    def needs(vocabulary: Vocabulary) -> Needs:
        """Measured with release 0.2.3: 20 to 45 bytes for each byte of text."""
        return Needs(8 * MIB + 400 * (vocabulary.largest_id + 1), 8 * MIB, 80)

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        return joined(map(self.encode_piece, documents), self._vocabulary.end_of_text)

    def encode_piece(self, text: bytes) -> list[int]:
        ids: list[int] = self._processor.encode(text.decode(), out_type=int)
        return ids

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        """Nothing is kept between calls; what the last one left goes back to the system."""
        return_free_memory()
