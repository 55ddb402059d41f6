"""Compressed files made to be expensive: bombs, windows, members, from a seed, without end."""

from __future__ import annotations

import bz2
import lzma
import random
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from backports import zstd

from tests.torture.hostile_case import Case

MB = 1_000_000
_PIECE = 1 << 20
_ZSTD_BLOCK = 128 * 1024
Shape = Callable[[random.Random], tuple[bytes, bytes, int, bytes]]
"""A text: its beginning, a unit, how many of it, its end."""


def _line_of(unit: bytes, most: int) -> Shape:
    """A line of JSON with one unit again and again, and a good line after it."""
    return lambda rng: (
        b'{"text":"a"}\n{"text":"',
        unit,
        rng.randrange(most * MB // 10, most * MB) // len(unit),
        b'"}\n{"text":"b"}\n',
    )


def _many_of(unit: bytes, most: int) -> Shape:
    return lambda rng: (b"", unit, rng.randrange(most * MB // 10, most * MB) // len(unit), b"")


def _noise(rng: random.Random) -> tuple[bytes, bytes, int, bytes]:
    noise = rng.randbytes(rng.randrange(1000, 9 * MB)).translate(None, b'\n"\\')
    return b'{"text":"', noise, 1, b'"}\n'


_LINES: dict[str, Shape] = {
    "noise": _noise,
    "a line of blanks": _line_of(b" ", 250),
    "a line of zeros": _line_of(b"\0", 250),
    "a line of letters": _line_of(b"a", 40),
    "a line of words": _line_of(b"word ", 40),
    "a line of half pairs": _line_of(b"\\ud800", 20),
    "a line without end": lambda rng: (b'{"text":"', b"a", 200 * MB, b""),
    "blanks before a line": lambda rng: (b"", b" ", rng.randrange(250 * MB), b'{"text":"a"}\n'),
    "empty lines": _many_of(b"\n", 30),
    "small lines": _many_of(b'{"text":"a"}\n', 12),
    "lines of words": _many_of(b'{"text":"' + b"word " * 300 + b'"}\n', 40),
    "bad lines": _many_of(b"{}\n", 1),
    "zeros": _many_of(b"\0", 250),
    "nothing": lambda rng: (b"", b"", 0, b""),
}
_TEXTS: dict[str, Shape] = {
    "blanks": _many_of(b" ", 100),
    "line ends": _many_of(b"\n", 40),
    "line ends of two": _many_of(b"\r\n", 40),
    "words": _many_of(b"word and ", 40),
    "zeros": _many_of(b"\0", 60),
    "invalid": _many_of(b"\xff", 4),
    "zero lines": _many_of(b"\0\n", 8),
    "capitals": _many_of(b"aA", 10),
    "markers": _many_of(b"<|endoftext|>", 10),
    "nothing": lambda rng: (b"", b"", 0, b""),
}


def _pieces(text: tuple[bytes, bytes, int, bytes]) -> Iterator[bytes]:
    """The text, a megabyte at a time."""
    begin, unit, count, end = text
    each = max(1, _PIECE // max(1, len(unit)))
    whole = unit * min(each, count)
    yield begin
    for _ in range(count // each):
        yield whole
    yield unit * (count % each) + end


def _compressor(suffix: str, rng: random.Random) -> object:
    if suffix == ".gz":
        return zlib.compressobj(rng.choice([1, 6]), wbits=31)
    if suffix == ".bz2":
        return bz2.BZ2Compressor(rng.choice([1, 9]))
    if suffix == ".xz":
        check = rng.choice([lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64])
        return lzma.LZMACompressor(lzma.FORMAT_XZ, check, preset=rng.choice([0, 0, 1]))
    return zstd.ZstdCompressor(level=rng.choice([1, 1, 3]))


def _one(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    """All of it in one member."""
    compressor = _compressor(suffix, rng)
    parts = [compressor.compress(piece) for piece in pieces]  # type: ignore[attr-defined]
    return b"".join([*parts, compressor.flush()])  # type: ignore[attr-defined]


def _whole(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    return _one(suffix, pieces, rng)


def _a_member_each(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    """A member for each megabyte, most of them the same one."""
    made: dict[bytes, bytes] = {}
    members = []
    for piece in pieces:
        if piece not in made:
            made[piece] = _one(suffix, iter([piece]), rng)
        members.append(made[piece])
    return b"".join(members)


def _tiny_members(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    """Up to a hundred thousand members of a few bytes each, or of none."""
    text = rng.choice([b"", b"", b"a", b'{"text":"a"}\n', b'{"text":"a"}\n', b"\n"])
    return _one(suffix, iter([text]), rng) * rng.choice([1000, 10_000, 100_000])


def _truncated(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    data = _one(suffix, pieces, rng)
    return data[: rng.choice([rng.randrange(len(data)), len(data) - 1, 5, 12])]


def _garbage_after(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    """Bytes after the end: noise, zeros, or the beginning of another member."""
    data = _one(suffix, pieces, rng)
    size = rng.choice([1, 4, 1000, 5 * MB])
    return data + rng.choice([rng.randbytes(size), b"\0" * size, data[: size % len(data)]])


def _damaged(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    data = bytearray(_one(suffix, pieces, rng))
    for _ in range(rng.choice([1, 1, 10])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _twice(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    return _one(suffix, iter([_one(suffix, pieces, rng)]), rng)


def _wide(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    """Of a header that asks for a large window or dictionary, or that has a long name."""
    if suffix == ".zst":
        return _wide_zstd(pieces, rng)
    data = _one(suffix, pieces, rng)
    if suffix == ".gz":
        name = rng.choice([b"n" * rng.randrange(30 * MB), b""])
        flags = rng.choice([8, 16, 24])
        ends = b"\0" * (2 if flags == 24 else 1)
        return data[:3] + bytes([flags]) + data[4:10] + name + ends + data[10:]
    if suffix == ".xz":
        return _with_dictionary(data, rng.choice([*range(20, 41), 41, 63]))
    return data[:3] + rng.choice([b"1", b"9", b"0", b"A"]) + data[4:]


def _with_dictionary(data: bytes, bits: int) -> bytes:
    """The first block's header with another size of its dictionary."""
    length = (data[12] + 1) * 4
    header = bytearray(data[12 : 12 + length - 4])
    at = header.find(b"\x21\x01")
    if data[12] == 0 or at < 0:
        return data
    header[at + 2] = bits
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "little") + data[12 + length :]


def _wide_zstd(pieces: Iterator[bytes], rng: random.Random) -> bytes:
    """Frames written by hand: any window, any size claimed, blocks as they are or of one byte."""
    blocks = []
    for piece in pieces:
        for at in range(0, len(piece), _ZSTD_BLOCK):
            block = piece[at : at + _ZSTD_BLOCK]
            is_run = block.count(block[:1]) == len(block)
            head = (len(block) << 3 | is_run << 1).to_bytes(3, "little")
            blocks.append(head + (block[:1] if is_run else block))
            if len(blocks) > 1000 and not is_run:
                break
    window = bytes([(rng.choice([10, 16, 20, 25, 26, 27, 28, 31]) - 10) << 3 | rng.choice([0, 7])])
    claimed = rng.choice([0, 1000, 1 << 27, 1 << 40, (1 << 64) - 1]).to_bytes(8, "little")
    begin = rng.choice(
        [b"\0" + window, b"\0" + window, b"\xe0" + claimed, b"\xc0" + window + claimed]
    )
    if rng.random() < 0.1:
        begin = b"\x03" + window + b"\x07\0\0\0"  # a dictionary's number
    last = b"\x01\0\0"
    return b"\x28\xb5\x2f\xfd" + begin + b"".join(blocks) + last


def _skippable(suffix: str, pieces: Iterator[bytes], rng: random.Random) -> bytes:
    """Frames to be skipped before and between; of other formats, empty members."""
    data = _one(suffix, pieces, rng)
    if suffix != ".zst":
        return _one(suffix, iter([b""]), rng) * rng.choice([9, 20_000]) + data
    size = rng.choice([0, 1, 100, 20 * MB])
    claimed = size if rng.random() < 0.8 else rng.choice([(1 << 32) - 1, 1 << 30])
    frame = (0x184D2A50 + rng.randrange(16)).to_bytes(4, "little")
    frame += claimed.to_bytes(4, "little") + b"\0" * size
    count = rng.choice([1, 9, 50_000]) if size < 1000 else 1
    return frame * count + data + frame + data


_WAYS: dict[str, Callable[[str, Iterator[bytes], random.Random], bytes]] = {
    "whole": _whole,
    "a member each": _a_member_each,
    "tiny members": _tiny_members,
    "truncated": _truncated,
    "garbage after": _garbage_after,
    "damaged": _damaged,
    "twice": _twice,
    "wide": _wide,
    "skippable": _skippable,
}
_SLOW = {".bz2": 8, ".xz": 3}
"""How much less text there is for a format that is slow to write and to read."""


def _make(suffix: str, shape: Shape, way: str, count: int, is_text: bool, seed: int,
          folder: Path) -> list[str]:  # fmt: skip
    rng = random.Random(seed)
    place = folder / "in"
    place.mkdir()
    for number in range(count):
        begin, unit, times, end = shape(rng)
        times = max(min(times, 1), times // _SLOW.get(suffix, 1) // count)
        data = _WAYS[way](suffix, _pieces((begin, unit, times, end)), rng)
        (place / f"{number}.{'txt' if is_text else 'jsonl'}{suffix}").write_bytes(data[: 40 * MB])
    options = ["--on-bad", "quarantine"] if rng.random() < 0.6 else []
    if rng.random() < 0.35:
        options += ["--invalid-utf8", "replace"]
    if is_text:
        ways = ("file", "line", "blank-line", "separator:X", "separator:<|endoftext|>")
        options += ["--documents", rng.choice(ways)]
        options += ["--special-text", rng.choice(["token", "text"])] if rng.random() < 0.4 else []
    return [str(place), *options]


def cases(seed: int) -> Iterator[Case]:
    """One file, or a few, of up to 250 MB of text."""
    rng = random.Random(seed)
    while True:
        suffix = rng.choice([".gz", ".zst", ".zst", ".xz", ".bz2"])
        way = rng.choice(sorted(_WAYS))
        if is_text := rng.random() < 0.4:
            name, shape = rng.choice(sorted(_TEXTS.items()))
        else:
            name, shape = rng.choice(sorted(_LINES.items()))
        count, each = rng.choice([1, 1, 1, 3]), rng.randrange(1 << 40)
        make = partial(_make, suffix, shape, way, count, is_text, each)
        about = f"{'text' if is_text else 'jsonl'}{suffix} {way}, {name}"
        yield Case(f"{about} x {count}, {each}", make)
