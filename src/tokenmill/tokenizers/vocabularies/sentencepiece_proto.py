"""What a SentencePiece ``.model`` file declares, read from its bytes.

The library sentencepiece tells pieces and ids, but neither of which kind each piece is nor how
text is normalized. Both stand in the file, a protobuf message; the numbers are those of
sentencepiece_model.proto. Only what decides ids is read; a field that is left out has the
default of that file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3


@dataclass(frozen=True)
class Piece:
    """One piece, by its place in the file: that is its id."""

    text: str
    score: float
    kind: int


@dataclass
class ModelFile:
    """The file's settings and pieces."""

    model_type: int = UNIGRAM
    has_byte_fallback: bool = False
    puts_space_last: bool = False
    """treat_whitespace_as_suffix."""
    has_charsmap: bool = False
    """Rules of normalization beyond white space."""
    adds_dummy_prefix: bool = True
    removes_extra_whitespaces: bool = True
    escapes_whitespaces: bool = True
    pieces: list[Piece] = field(default_factory=list)


def read_model_file(content: bytes) -> ModelFile:
    """What a ``.model`` file that the library could load declares. Raises ValueError."""
    found = ModelFile()
    for number, value in _fields(content):
        if not isinstance(value, bytes):
            continue
        if number == _PIECES:
            parts = dict(_fields(value))
            text, score, kind = parts.get(1, b""), parts.get(2, bytes(4)), parts.get(3, NORMAL)
            assert isinstance(text, bytes)
            assert isinstance(score, bytes)
            assert isinstance(kind, int)
            found.pieces.append(Piece(text.decode(), struct.unpack("<f", score)[0], kind))
        elif number == _TRAINER:
            parts = dict(_fields(value))
            found.model_type = int(parts.get(3, UNIGRAM))
            found.puts_space_last = bool(parts.get(24, 0))
            found.has_byte_fallback = bool(parts.get(35, 0))
        elif number == _NORMALIZER:
            parts = dict(_fields(value))
            found.has_charsmap = bool(parts.get(2, b""))
            found.adds_dummy_prefix = bool(parts.get(3, 1))
            found.removes_extra_whitespaces = bool(parts.get(4, 1))
            found.escapes_whitespaces = bool(parts.get(5, 1))
    return found


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field's number and value; the last of several counts, as protobuf has it."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        yield number, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if place >= len(message):
            raise ValueError("it ends within a number")
        byte = message[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, place
        shift += 7
