"""Parquet made to be expensive: pages, dictionaries, groups, footers, from a seed, without end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.torture.hostile_case import Case

MB = 1_000_000
Options = dict[str, Any]
Shape = Callable[[random.Random, Options], "pa.Table"]
"""A table; what is special in how it is written goes into the options."""

_CODECS = ("none", "snappy", "gzip", "zstd", "lz4", "brotli")
_ENCODINGS = ("PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", None, None)
"""None: by a dictionary."""
_TYPES = (pa.string(), pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_UNITS = ("word and ", "word ", "a", " ", "\0", "aA", "\n", "\u00e9", "\u6f22", "\ufdfa", "7")


def _text(rng: random.Random, size: int) -> str:
    unit = rng.choice(_UNITS)
    return unit * (size // len(unit.encode()) + 1)


def _noise(rng: random.Random, size: int) -> str:
    return rng.randbytes(size // 2).hex()


def _table(rng: random.Random, texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string()).cast(rng.choice(_TYPES))})


def _rows(rng: random.Random, options: Options) -> pa.Table:
    """Rows of the same size, alike or each with a beginning of its own."""
    size = rng.choice([0, 1, 10, 1000, 30_000, 300_000])
    count = min(200_000, rng.randrange(MB, 30 * MB) // (size + 8))
    text = _text(rng, size)
    return _table(rng, [f"{row if row % 2 else ''}{text}" for row in range(count)])


def _large_rows(rng: random.Random, options: Options) -> pa.Table:
    size = rng.randrange(MB, 30 * MB)
    count = rng.randrange(1, max(2, 40 * MB // size))
    if rng.random() < 0.3:
        return _table(rng, [_noise(rng, size // 3) for _ in range(count)])
    return _table(rng, [_text(rng, size) for _ in range(count)])


def _one_page(rng: random.Random, options: Options) -> pa.Table:
    """All rows in one page."""
    options |= {"data_page_size": 1 << 30, "write_batch_size": 1 << 30}
    options |= {"max_rows_per_page": 1 << 30, "dictionary_pagesize_limit": 1 << 30}
    table = _rows(rng, options)
    options["row_group_size"] = 1 << 30
    return table


def _bomb(rng: random.Random, options: Options) -> pa.Table:
    """Pages that are a thousandth of what they become."""
    text = _text(rng, rng.choice([1, 5, 20]) * MB)
    if rng.random() < 0.5:
        options |= {"data_page_size": 1 << 30, "write_batch_size": 1 << 30}
    options |= {"compression": rng.choice(["zstd", "gzip", "brotli"])}
    options |= {"use_dictionary": False, "column_encoding": None}
    return _table(rng, [text] * (rng.randrange(20, 80) * MB // len(text.encode()) + 1))


def _large_entries(rng: random.Random, options: Options) -> pa.Table:
    """A dictionary of few large texts, of which rows are made; most rows are of a small one."""
    size = rng.choice([0.01, 0.1, 0.5, 2, 5])
    entries = [_text(rng, int(size * MB)) for _ in range(rng.choice([1, 2, 4]))]
    count = max(2, int(40 / size / rng.choice([1, 2])))
    indices = [rng.randrange(len(entries)) for _ in range(min(count, 20_000))]
    indices[rng.randrange(len(indices)) : 0] = [len(entries)] * rng.choice([0, 1000, 200_000])
    options |= {"use_dictionary": True, "column_encoding": None, "store_schema": False}
    options |= {"dictionary_pagesize_limit": 1 << 30, "row_group_size": 1 << 30}
    array = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), [*entries, "a"])
    return pa.table({"text": array})


def _nulls(rng: random.Random, options: Options) -> pa.Table:
    count = rng.choice([1, 1000, MB])
    if rng.random() < 0.3:
        return pa.table({"text": pa.nulls(count, rng.choice(_TYPES))})
    texts = [None if rng.random() < 0.9 else "a word" for _ in range(count // 10)]
    return _table(rng, texts)


def _groups(rng: random.Random, options: Options) -> pa.Table:
    """As many groups as columns let be written in a second or two."""
    groups, columns = rng.choice([(1050, 9), (1050, 9), (5000, 2), (10_000, 1), (200, 40)])
    each = rng.choice([1, 1, 3])
    options["row_group_size"] = each
    rows = groups * each
    beside = {f"c{number}": pa.array([number] * rows) for number in range(columns - 1)}
    return pa.table({"text": ["a word or two"] * rows, **beside})


def _wide(rng: random.Random, options: Options) -> pa.Table:
    columns, rows = rng.choice([(100, 100), (3000, 1), (5000, 2)])
    beside = {f"c{number}": pa.array(["x"] * rows) for number in range(columns)}
    return pa.table({**beside, "text": ["a word"] * rows})


def _nested(rng: random.Random, options: Options) -> pa.Table:
    """Columns of structs and lists before the text, or the text in one of them."""
    rows = rng.choice([10, 3000])
    deep: Any = [1]
    for _ in range(rng.choice([1, 5, 60])):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    table = pa.table({"deep": [deep] * rows, "list": [["x"] * 30] * rows})
    text = [_text(rng, rng.choice([10, 3000]))] * rows
    inside = [text, [{"text": each} for each in text], [[each] for each in text]]
    return table.append_column("text", pa.array(inside[rng.choice([0, 0, 0, 1, 2])]))


def _metadata(rng: random.Random, options: Options) -> pa.Table:
    """A footer of megabytes: one long value, or many keys."""
    table = _table(rng, ["a word"] * 100)
    if rng.random() < 0.5:
        return table.replace_schema_metadata({"key": _text(rng, rng.randrange(10 * MB))})
    count = rng.choice([1000, 100_000])
    return table.replace_schema_metadata({f"k{number}": "v" for number in range(count)})


_SHAPES: dict[str, Shape] = {
    "rows": _rows,
    "large rows": _large_rows,
    "one page": _one_page,
    "bomb": _bomb,
    "large entries": _large_entries,
    "nulls": _nulls,
    "groups": _groups,
    "wide": _wide,
    "nested": _nested,
    "metadata": _metadata,
}


def _write(path: Path, shape: Shape, rng: random.Random) -> None:
    encoding = rng.choice(_ENCODINGS)
    options: Options = {
        "compression": rng.choice(_CODECS),
        "data_page_version": rng.choice(["1.0", "2.0"]),
        "use_dictionary": encoding is None,
        "column_encoding": encoding and {"text": encoding},
        "write_page_checksum": rng.random() < 0.5,
        "write_statistics": rng.random() < 0.5,
        "data_page_size": rng.choice([1000, 1 << 20, 64 << 20]),
        "row_group_size": rng.choice([1000, 100_000, 1 << 30]),
        "store_schema": rng.random() < 0.7,
    }
    table = shape(rng, options)
    pq.write_table(table, path, **options)


def _make(name: str, count: int, spoil: str, seed: int, folder: Path) -> list[str]:
    rng = random.Random(seed)
    place = folder / "in"
    place.mkdir()
    for number in range(count):
        path = place / f"{number}.parquet"
        _write(path, _SHAPES[name], rng)
        path.write_bytes(_SPOILS[spoil](path.read_bytes(), rng))
    return [str(place), *_choices(rng)]


def _choices(rng: random.Random) -> list[str]:
    options = ["--on-bad", "quarantine"] if rng.random() < 0.6 else []
    options += ["--invalid-utf8", "replace"] if rng.random() < 0.3 else []
    options += ["--special-text", rng.choice(["token", "text"])] if rng.random() < 0.3 else []
    return options


def varint(number: int) -> bytes:
    """As Thrift's compact protocol writes it."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def _length(data: bytes | bytearray, at: int) -> int:
    """Of the number at a place."""
    stop = at
    while stop < len(data) and data[stop] & 128:
        stop += 1
    return stop + 1 - at


def _wrong_sizes(data: bytes, rng: random.Random) -> bytes:
    """The first page header tells another size, as large as its bytes can, or as small."""
    found = bytearray(data)
    at = 6  # after the magic and the page's type: its size, and as it is stored
    for is_changed in rng.choice([(1, 0), (0, 1), (1, 1)]):
        length = _length(found, at + 1)
        if is_changed and len(found) > at + length + 8:
            last = rng.choice([0x7E, 0x7F, 0x01, 0x00])
            found[at + 1 : at + 1 + length] = b"\xfe" * (length - 1) + bytes([last])
        at += 1 + length
    return bytes(found)


def _flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bytes of the page headers' part or of the footer are others."""
    found = bytearray(data)
    footer = min(len(found), int.from_bytes(found[-8:-4], "little") + 8)
    spans = [(4, min(60, len(found))), (len(found) - footer, len(found) - 8), (4, len(found))]
    start, stop = rng.choice(spans)
    for _ in range(rng.choice([1, 1, 3, 20])):
        found[rng.randrange(start, max(start + 1, stop))] = rng.choice([0, 255, rng.randrange(256)])
    return bytes(found)


def _truncated(data: bytes, rng: random.Random) -> bytes:
    """A part of it is missing: at the end, or in the middle."""
    at = rng.randrange(len(data))
    return data[:at] if rng.random() < 0.4 else data[: at // 2] + data[at:]


def _long_footer(data: bytes, rng: random.Random) -> bytes:
    """The footer claims to be another length."""
    claimed = rng.choice([0, 1, len(data) - 12, len(data) - 8, (1 << 31) - 1, (1 << 32) - 1])
    return data[:-8] + max(0, claimed).to_bytes(4, "little") + rng.choice([b"PAR1", b"PARE"])


_SPOILS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "": lambda data, rng: data,
    "wrong sizes": _wrong_sizes,
    "flipped": _flipped,
    "truncated": _truncated,
    "long footer": _long_footer,
}


def _list(count: int, kind: int) -> bytes:
    return bytes([0xF0 | kind]) + varint(count)


def _footer(rng: random.Random) -> bytes:
    """What a footer may claim: many things of few bytes, or many that are not there."""
    claimed = rng.choice([0, 1000, MB, 100 * MB, (1 << 31) - 1, 1 << 40])
    count = rng.choice([1, 1000, 300_000, MB])
    root = b"\x48\x06schema\x15\x02\x00"
    leaf = b"\x15\x0c\x25\x02\x18\x04text\x25\x00\x00"
    begin, group = b"\x15\x02\x19\x2c" + root + leaf + b"\x16\x00", b"\x26\x00\x00"
    many = b"\x19" + _list(claimed or count, 12)
    choice = rng.choice(["groups", "columns", "leaves", "keys", "string", "deep", "zeros", "tree"])
    if choice == "groups":
        return begin + many + b"\x19\x0c\x16\x00\x16\x00\x00" * count + b"\x00"
    if choice == "columns":
        return begin + b"\x19\x1c" + many + group * count + b"\x16\x00\x16\x00\x00\x00"
    if choice == "leaves":
        return b"\x15\x02" + many + root + leaf * count + b"\x16\x00\x19\x0c\x00"
    if choice == "keys":
        return begin + b"\x19\x0c" + many + b"\x18\x01k\x00" * count + b"\x00"
    if choice == "string":
        return begin + b"\x19\x0c\x28" + varint(claimed or 9 * MB) + b"x" * (9 * count)
    if choice == "tree":  # groups of one child each, one in another
        return (
            b"\x15\x02" + many + (b"\x48\x01a\x15\x02\x00" * count) + leaf + b"\x16\x00\x19\x0c\x00"
        )
    return begin + (b"\x1c" if choice == "deep" else b"\0") * count


def _make_footer(seed: int, folder: Path) -> list[str]:
    rng = random.Random(seed)
    footer = _footer(rng)
    end = len(footer).to_bytes(4, "little") + b"PAR1"
    (folder / "a.parquet").write_bytes(b"PAR1" + footer + end)
    return [str(folder / "a.parquet"), *_choices(rng)]


def cases(seed: int) -> Iterator[Case]:
    """Files of up to 40 MB, a third of them spoiled, and footers without a file."""
    rng = random.Random(seed)
    while True:
        each = rng.randrange(1 << 40)
        if rng.random() < 0.2:
            yield Case(f"parquet footer, {each}", partial(_make_footer, each))
            continue
        name, count = rng.choice(sorted(_SHAPES)), rng.choice([1, 1, 1, 2])
        spoil = rng.choice(["", "", *sorted(_SPOILS)])
        make = partial(_make, name, count, spoil, each)
        yield Case(f"parquet {name} {spoil} x {count}, {each}", make)
