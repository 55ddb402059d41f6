"""What travels through the pipeline: documents on the way in, token ids on the way out.

A batch may begin or end in the middle of a document, since one document can be larger than any
buffer. ``continues`` says that the first document began in an earlier batch, ``unfinished`` that
the last one goes on in the next; everything between is whole.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INVALID_UTF8 = "invalid-utf8"
NOT_JSON = "not-json"
NO_TEXT = "no-text"
TOO_DEEP = "too-deep"
TOO_LARGE = "too-large"
CORRUPT_COMPRESSION = "corrupt-compression"
CORRUPT_PARQUET = "corrupt-parquet"
SPECIAL_TEXT = "special-text"
CRASH = "crash"
REASONS = (
    INVALID_UTF8, NOT_JSON, NO_TEXT, TOO_DEEP, TOO_LARGE, CORRUPT_COMPRESSION, CORRUPT_PARQUET,
    SPECIAL_TEXT, CRASH,
)  # fmt: skip
"""Every reason that a BadRecord can have."""
RAW_BYTES = 64 * 1024
"""Of a bad record, at most so many bytes are kept."""
_CHUNK_BYTES = 256 * 1024


@dataclass
class Counts:
    """What was read so far; all of it ends in the manifest."""

    documents: int = 0
    empty_documents: int = 0
    null_documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    byte_order_marks: int = 0
    special_text: int = 0
    replaced: int = 0
    """U+FFFD put in for what was not UTF-8."""
    unknown_tokens: int = 0
    """Of ``tokens``, those that stand for text which the tokenizer has no token for."""
    told_tokens: int = 0
    told_rows: int = 0
    """What a dataset says itself of its tokens, and of how many of its rows it was asked."""

    def add(self, other: Counts) -> None:
        """Add ``other`` to this, field by field."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A piece of input that cannot become tokens, with its place, so that it is never just gone.

    ``reason`` is one of a few words that are counted in the manifest, ``detail`` a sentence, or
    ``TAKEN_OUT``. ``offset`` is in bytes of the (decompressed) text, ``line`` counts from 1,
    ``row`` from 0; each is None where it has no meaning. ``length`` is in bytes, ``raw`` the first
    of them. A block may have hundreds of thousands of them, so they are small.
    """

    reason: str
    detail: str
    file: str
    offset: int | None
    line: int | None
    row: int | None
    length: int
    raw: bytes

    def as_dict(self) -> dict[str, object]:
        """All of it, for JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["raw"] = base64.b64encode(self.raw).decode()
        if self.detail == TAKEN_OUT and self.offset is not None:
            stop = self.offset + self.length
            fields["detail"] = f"bytes {self.offset} to {stop} were taken out of the document"
        return fields


TAKEN_OUT = "taken out of the document"
"""The detail of bytes that were: their place says all."""


@dataclass(frozen=True)
class QuarantineLines:
    """Bad records as they are written, a line of JSON each; ``reasons`` counts them.

    The lines are kept compressed until they are written: of a block of nothing but faults there
    are 130,000, which take 18 MB as objects, 32 MB as lines, and 1.3 like this.
    """

    reasons: Counter[str]
    compressed: bytes

    @classmethod
    def of(cls, records: list[BadRecord]) -> QuarantineLines:
        """The lines of ``records``, in their order."""
        squeeze, squeezed = zlib.compressobj(1), bytearray()
        for record in records:
            line = json.dumps(record.as_dict(), ensure_ascii=False) + "\n"
            squeezed += squeeze.compress(line.encode())
        squeezed += squeeze.flush()
        return cls(Counter(record.reason for record in records), bytes(squeezed))

    def chunks(self) -> Iterator[bytes]:
        """The lines' bytes, in parts of bounded size."""
        expand, rest = zlib.decompressobj(), self.compressed
        while not expand.eof:
            yield expand.decompress(rest, _CHUNK_BYTES)
            rest = expand.unconsumed_tail


@dataclass
class DocumentBatch:
    """Documents of one block, in order, as valid UTF-8.

    ``counts`` holds what only the source can know (nulls, byte order marks); encoding fills in
    the rest. ``split`` is set when the whole batch belongs to one split by its position. ``bad``
    are the records left out, where that was asked for.
    """

    documents: list[bytes]
    continues: bool = False
    unfinished: bool = False
    split: str | None = None
    counts: Counts = field(default_factory=Counts)
    bad: list[BadRecord] = field(default_factory=list)


@dataclass
class TokenRun:
    """Consecutive tokens of one split, delimiters in place, in the shard's dtype.

    ``starts`` are the offsets in ``ids`` at which documents begin (int64, ascending). ``split``
    None means: wherever the document that is being continued went.
    """

    split: str | None
    ids: NDArray[Any]
    starts: NDArray[np.int64]


@dataclass
class TokenBatch:
    """The tokens of one block, ready to be written.

    ``due_bytes`` of a document were checked only because nothing of the run had been.
    """

    runs: list[TokenRun]
    counts: Counts
    source_bytes: int
    checked_documents: int = 0
    checked_bytes: int = 0
    due_bytes: int = 0
    seconds_reading: float = 0.0
    seconds_encoding: float = 0.0
    cache_drops: int = 0
    """Caches that were dropped meanwhile, because memory was short."""
    quarantined: QuarantineLines | None = None


State = dict[str, Any]
"""Where a source stands between two blocks: plain data, of a shape that only it knows."""


@dataclass(frozen=True)
class Position:
    """A place between two blocks of the corpus: a file, by its number, and its source's state."""

    file: int
    state: State | None


START = Position(0, None)
