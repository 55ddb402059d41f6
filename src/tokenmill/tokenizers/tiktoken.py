"""The tiktoken engine: the reference implementation for ``.tiktoken`` vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenmill.tokenizers.engine import Tokens
from tokenmill.tokenizers.vocabulary import END_OF_TEXT, PATTERNS, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TiktokenEngine:
    """OpenAI's own encoder, made from the ranks without the network."""

    name = "tiktoken"

    def __init__(self, vocabulary: Vocabulary) -> None:
        import tiktoken

        self._vocabulary = vocabulary
        self._encoding = tiktoken.Encoding(
            vocabulary.name,
            pat_str=PATTERNS[vocabulary.pattern],
            mergeable_ranks=vocabulary.ranks,
            special_tokens={END_OF_TEXT: vocabulary.end_of_text},
        )

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        import numpy as np

        mark = np.array([self._vocabulary.end_of_text], np.uint32)
        parts: list[NDArray[Any]] = []
        for document in documents:
            ids = self._encoding.encode_ordinary(document.decode())
            parts += [np.array(ids, np.uint32), mark]
        lengths = np.array([len(part) for part in parts[:-1]], np.int64)
        return Tokens(np.concatenate(parts[:-1]), np.cumsum(lengths)[:-1:2])

    def encode_piece(self, text: bytes) -> list[int]:
        return self._encoding.encode_ordinary(text.decode())

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        """Nothing is kept between calls."""
