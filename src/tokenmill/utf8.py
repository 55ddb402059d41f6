"""Bytes that claim to be UTF-8 and are not: where they are, and the text without them.

A *fault* is what Python's decoder calls an error: a maximal subpart of an ill-formed sequence, one
to three bytes, for which ``bytes.decode("utf-8", "replace")`` writes one U+FFFD. UTF-8 finds its
step again at every byte that is no continuation, so a character that is valid is so whatever
stands around it, and a text may be repaired in pieces that are cut between valid characters.
"""

from __future__ import annotations

import codecs
import re
import threading
from dataclasses import dataclass

REPLACEMENT = "\ufffd"
MOST_PLACES = 1000
"""With more places than this in a piece of text, it is hardly UTF-8 at all: see ``places``."""
_NEAR = 1024

_ESCAPED = re.compile("[\udc80-\udcff]+")

_call = threading.local()


@dataclass(frozen=True)
class Repaired:
    """A text with each fault replaced; ``faults`` are their ranges in the raw bytes, in order."""

    text: str
    faults: list[tuple[int, int]]


def repair(raw: bytes, replacement: str) -> Repaired:
    """``raw`` as text, ``replacement`` for each fault."""
    _call.faults, _call.replacement = [], replacement
    text = raw.decode("utf-8", "tokenmill-repair")
    return Repaired(text, _call.faults)


def _on_fault(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    _call.faults.append((error.start, error.end))
    return _call.replacement, error.end


codecs.register_error("tokenmill-repair", _on_fault)


def is_utf8(text: bytes) -> bool:
    """Is it valid UTF-8?"""
    import pyarrow as pa

    # Arrow checks 20 GB/s of ASCII and 1 GB/s of other text, without making a str and without
    # the interpreter's lock; bytes.decode() does 0.5 to 0.8.
    offsets = (0).to_bytes(8, "little") + len(text).to_bytes(8, "little")
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    array = pa.Array.from_buffers(pa.large_string(), 1, buffers)
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def replace(raw: bytes) -> tuple[bytes, int]:
    """``raw`` as valid UTF-8 with U+FFFD for each fault, and how many there were."""
    repaired = repair(raw, REPLACEMENT)
    return repaired.text.encode(), len(repaired.faults)


def invalid_ranges(raw: bytes) -> list[tuple[int, int]]:
    """Where the bytes are that are not UTF-8, in order: neighbouring faults are one."""
    # Each byte of a fault becomes a lone surrogate; counting those is faster than `repair`.
    text = raw.decode("utf-8", "surrogateescape")
    ranges, position, last = [], 0, 0
    for match in _ESCAPED.finditer(text):
        position += len(text[last : match.start()].encode())
        ranges.append((position, position + len(match[0])))
        position, last = ranges[-1][1], match.end()
    return ranges


def places(raw: bytes) -> list[tuple[int, int]]:
    """The ranges that are to be taken out, in order.

    A text with very many faults is in another encoding. So that it does not become millions of
    records, of three bytes each, and a document of the blanks between them, ranges less than a
    kilobyte apart are then one, with what is between them.
    """
    ranges = invalid_ranges(raw)
    return join_ranges(ranges, _NEAR) if len(ranges) > MOST_PLACES else ranges


def join_ranges(ranges: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Ranges that overlap, or are at most ``gap`` apart, as one."""
    joined: list[tuple[int, int]] = []
    for low, high in ranges:
        if joined and low - joined[-1][1] <= gap:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return joined


def without(raw: bytes, ranges: list[tuple[int, int]]) -> bytes:
    """``raw`` less some ranges."""
    borders = [0, *(border for pair in ranges for border in pair), len(raw)]
    return b"".join(raw[borders[i] : borders[i + 1]] for i in range(0, len(borders), 2))
