"""The protocol that every engine keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = NDArray[np.uint16 | np.uint32]


class Tokens(NamedTuple):
    """Documents' ids in one array, with the end-of-text id between each two of them.

    ``ids``: of one dimension; uint32 as engines give them, or the shards' dtype. ``marks``: int64,
    the ``len(documents) - 1`` places of those end-of-text ids, ascending.
    """

    ids: Ids
    marks: NDArray[np.int64]


class Engine(Protocol):
    """Encodes documents with one vocabulary, one thread at a time.

    Ids are those of the vocabulary's reference for each whole document: of
    ``tiktoken.Encoding.encode_ordinary``, of ``tokenizers.Tokenizer.encode`` without special
    tokens, or of ``sentencepiece.SentencePieceProcessor.encode``. Special tokens written in the
    text are text.
    """

    name: str

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        """Encode valid UTF-8 documents (one at least)."""

    def encode_piece(self, text: bytes) -> list[int]:
        """The ids of one short text."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for."""

    def drop_caches(self) -> None:
        """Free what was only kept for speed."""


def joined(parts: Iterable[Sequence[int]], end_of_text: int) -> Tokens:
    """The ids of documents that were encoded one by one."""
    import numpy as np

    ids: list[NDArray[np.uint32]] = []
    ends: list[int] = []
    length = 0
    for part in parts:
        if ids:
            ids.append(np.array([end_of_text], np.uint32))
            ends.append(length)
            length += 1
        ids.append(np.array(part, np.uint32))
        length += len(part)
    return Tokens(np.concatenate(ids), np.array(ends, np.int64))
