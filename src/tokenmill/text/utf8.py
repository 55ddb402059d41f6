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
from collections.abc import Iterator

REPLACEMENT = "\ufffd"
MOST_PLACES = 1000
"""With more places than this in a piece of text, it is hardly UTF-8 at all: see ``places``."""
_NEAR = 1024

_PIECE = 16 * 1024
"""Bytes looked at together where each fault costs an object: of nine megabytes of nothing but
faults, all at once took 120 bytes of memory for each byte."""

_ESCAPED = re.compile("[\udc80-\udcff]+")
_CHARACTER = REPLACEMENT.encode()

_call = threading.local()


def repair(raw: bytes, replacement: str) -> str:
    """``raw`` as text, ``replacement`` (one character) for each fault.

    Takes four bytes of memory for each byte of ``raw``, and no object a fault.
    """
    if replacement == REPLACEMENT or raw.isascii():
        return raw.decode("utf-8", "replace")
    return "".join(_repaired(raw[low:high], replacement) for low, high in _pieces(raw))


def _repaired(piece: bytes, replacement: str) -> str:
    # The decoder's own "replace" is a hundred times as fast as a handler in Python, but writes
    # what may stand in the text already.
    parts = piece.split(_CHARACTER)
    texts = (part.decode("utf-8", "replace").replace(REPLACEMENT, replacement) for part in parts)
    return REPLACEMENT.join(texts)


def growth_before(raw: bytes, replacement: str, place: int) -> int:
    """By how many bytes the faults that begin before ``place`` grow when each is replaced."""
    length, growth = _length(replacement), 0
    for low, high in _pieces(raw):
        if high > place:
            faults = [fault for fault in _faults(raw[low:high]) if low + fault[0] < place]
            return growth + sum(length - (end - begin) for begin, end in faults)
        growth += _length(_repaired(raw[low:high], replacement)) - (high - low)
    return growth


def raw_place(raw: bytes, replacement: str, place: int) -> int:
    """The place in ``raw`` of what stands at the byte ``place`` of the repaired text."""
    length = _length(replacement)
    for low, high in _pieces(raw):
        size = _length(_repaired(raw[low:high], replacement))
        if place < size:
            for begin, end in _faults(raw[low:high]):
                if begin + length > place:
                    break
                place += (end - begin) - length
            return low + place
        place -= size
    return len(raw) + place


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _pieces(raw: bytes) -> Iterator[tuple[int, int]]:
    """``raw`` in ranges that divide no character and no fault."""
    low = 0
    while low < len(raw):
        high = min(low + _PIECE, len(raw))
        while high < len(raw) and _is_inside(raw, high):
            high += 1
        yield low, high
        low = high


def _is_inside(raw: bytes, place: int) -> bool:
    """May a character or a fault that began before ``place`` go on there? None has more than
    three bytes after its first."""
    if raw[place] & 0xC0 != 0x80:
        return False
    return any(byte & 0xC0 != 0x80 for byte in raw[max(0, place - 3) : place])


def _faults(piece: bytes) -> list[tuple[int, int]]:
    """The ranges of the faults in a short text, in order."""
    _call.faults = []
    piece.decode("utf-8", "tokenmill-faults")
    found: list[tuple[int, int]] = _call.faults
    return found


def _on_fault(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    _call.faults.append((error.start, error.end))
    return "", error.end


codecs.register_error("tokenmill-faults", _on_fault)


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
    text = repair(raw, REPLACEMENT).encode()
    return text, text.count(_CHARACTER) - raw.count(_CHARACTER)


def invalid_ranges(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where the bytes are that are not UTF-8, in order: neighbouring faults are one."""
    before: tuple[int, int] | None = None
    for low, high in _pieces(raw):
        for begin, end in _escaped(raw[low:high]):
            if before is not None and before[1] == low + begin:
                before = before[0], low + end
                continue
            if before is not None:
                yield before
            before = low + begin, low + end
    if before is not None:
        yield before


def _escaped(piece: bytes) -> Iterator[tuple[int, int]]:
    # Each byte of a fault becomes a lone surrogate; counting those is faster than `_faults`.
    text = piece.decode("utf-8", "surrogateescape")
    if len(text) == len(piece) and text.isascii():
        return
    position, last = 0, 0
    for match in _ESCAPED.finditer(text):
        begin = position + len(text[last : match.start()].encode())
        position, last = begin + match.end() - match.start(), match.end()
        yield begin, position


def places(raw: bytes, most: int = MOST_PLACES) -> list[tuple[int, int]]:
    """The ranges that are to be taken out, in order.

    A text with very many faults, more than ``most``, is in another encoding. So that it does not
    become millions of records, of three bytes each, and a document of the blanks between them,
    ranges less than a kilobyte apart are then one, with what is between them.
    """
    ranges: list[tuple[int, int]] = []
    joined: list[tuple[int, int]] = []
    for pair in invalid_ranges(raw):
        if len(ranges) <= most:
            ranges.append(pair)
        if joined and pair[0] - joined[-1][1] <= _NEAR:
            joined[-1] = joined[-1][0], pair[1]
        else:
            joined.append(pair)
    return joined if len(ranges) > most else ranges


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
