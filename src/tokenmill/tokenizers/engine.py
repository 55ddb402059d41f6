"""The protocol that every engine keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tokens(NamedTuple):
    """Documents' ids in one array, with the end-of-text id between each two of them.

    ``ids``: uint32, one dimension. ``marks``: int64, the ``len(documents) - 1`` places of those
    end-of-text ids, ascending.
    """

    ids: NDArray[np.uint32]
    marks: NDArray[np.int64]


class Engine(Protocol):
    """Encodes documents with one vocabulary, one thread at a time.

    Ids are those of ``tiktoken.Encoding.encode_ordinary`` for each whole document: special tokens
    written in the text are text.
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
