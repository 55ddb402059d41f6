"""The protocol that every engine keeps, and what its class declares.

An engine changes speed, never an id. ``choose`` takes one only for a vocabulary of a kind that it
reads, that it does not refuse by rule, and for which the self-test finds it exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tokenmill.errors import UsageError
from tokenmill.extras import install_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tokenmill.memory import Needs
    from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

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


class NotInstalled(UsageError):
    """The library of an engine is not there; ``extra`` is what installs it."""

    def __init__(self, engine: str, extra: str) -> None:
        super().__init__(
            f"the engine {engine} is not installed",
            why="its library is not needed by everybody",
            fix=f"{install_extra(extra)}; or use --engine auto",
        )


class EngineKind(Protocol):
    """What the table of engines holds: a class of engines, by what it declares.

    ``name`` is the option's and the library's. ``reads``: the kinds of vocabularies that it can be
    made of. To make one raises NotInstalled where its library is missing, and TokenmillError where
    that cannot use this one.
    """

    name: str
    reads: tuple[type[Vocabulary], ...]

    def __call__(self, vocabulary: Vocabulary) -> Engine:
        """One for one thread; the vocabulary is of a kind that it reads."""

    def refusal(self, vocabulary: Vocabulary) -> str | None:
        """Why it is not to be used for it, in words: what the file declares and the library does
        not promise. None where all is promised."""

    def needs(self, vocabulary: Vocabulary) -> Needs:
        """The memory that it takes with it, at most: caches that are not dropped included."""


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
