"""What encoding needs to know of the spec and the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.splits import SplitRule
from tokenmill.text.cuts import EVERYWHERE, CutRule
from tokenmill.tokenizers.vocabularies.vocabulary import END_OF_TEXT


@dataclass(frozen=True)
class EncodingRules:
    """What encoding needs of the spec; ``check`` is a share of the documents, 0 to 1.

    ``special`` is how the delimiter is written, as bytes; empty where it is no token of its own.
    """

    delimiter: str
    dtype: str
    end_of_text: int
    largest_id: int
    split: SplitRule
    seed: int
    special_text: str
    check: float
    call_bytes: int = 2 * 1024 * 1024
    """Text given to the engine in one call; larger documents are cut into pieces of about this."""
    special: bytes = END_OF_TEXT.encode()
    cuts: CutRule = EVERYWHERE
    document_bytes: int = 1 << 62
    """The largest document that memory allows where documents are never cut."""
    quarantines: bool = False
    reference: str = "tiktoken"
    unknown_id: int | None = None
    sizes: Sizes = DEFAULT_SIZES
    grown_bytes: Callable[[bytes, int], int] = lambda text, limit: len(text)
    """Bytes that the tokenizer makes of a text, about: ``Vocabulary.grown_bytes``."""

    def is_val(self, document: bytes) -> bool:
        """Is the document drawn for validation?"""
        return self.split.is_val(document, self.sizes.hashed)
