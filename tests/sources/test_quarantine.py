"""`--on-bad quarantine` and `--invalid-utf8 replace`: what is kept, what is left out, and where.

Everything is looked at through the plan's blocks, with what each gives: its documents and its bad
records.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokenmill
from tests.kit import corpora, oracles, texts
from tests.sources import test_positions
from tokenmill import batches
from tokenmill.batches import BadRecord, Counts
from tokenmill.commands.plan import Plan, make_plan
from tokenmill.dataset.spec import Spec
from tokenmill.errors import InputError, TokenmillError
from tokenmill.memory import Budget
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.splits import SplitRule
from tokenmill.stores import disk_reads
from tokenmill.text import utf8

QUARANTINE: dict[str, Any] = {"on_bad": "quarantine"}
REPLACE: dict[str, Any] = {"invalid_utf8": "replace"}


@dataclass
class Reading:
    """What all blocks of some inputs give."""

    documents: list[bytes] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def reasons(self) -> list[str]:
        return [record.reason for record in self.bad]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(r.offset, r.offset + r.length) for r in self.bad if r.offset is not None]


def plan_of(*paths: Path, sizes: Sizes = DEFAULT_SIZES, **options: Any) -> Plan:
    # With tiktoken, for gigatoken takes 40 ms to begin again before each unbroken run.
    spec_options: Any = {"val_fraction": 0.0, **options}
    spec = Spec.of(spec_options)
    return make_plan([str(path) for path in paths], spec, "tiktoken", sizes=sizes)


def read(*paths: Path, **options: Any) -> Reading:
    """All blocks, in order, documents that go on from one block to the next joined."""
    found = Reading()
    going_on = False
    corpus = plan_of(*paths, **options).corpus()
    for each in corpus.blocks():
        batch = corpus.read(each)
        assert batch.continues == going_on or not batch.documents
        if batch.documents and batch.continues:
            found.documents[-1] += batch.documents.pop(0)
        if batch.documents or batch.continues:
            going_on = batch.unfinished
        found.documents += batch.documents
        found.bad += batch.bad
        found.counts.add(batch.counts)
    assert set(found.reasons) <= set(batches.REASONS)
    return found


SMALL = Sizes(block=4096, hashed=2048, reach=2048, window=512, seam_context=1024, run_ahead=256)


@pytest.fixture
def small_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of 64 kB are too large."""
    monkeypatch.setattr(Budget, "record_bytes", 64_000)


# --- the policy, as a table --------------------------------------------------------------------

GOOD = b'{"text": "good"}\n'

# One line of JSONL: the documents it gives, and the reason why it is bad if it is.
LINES: dict[str, tuple[bytes, list[str], str | None]] = {
    "plain": (b'{"text": "a"}', ["a"], None),
    "empty document": (b'{"text": ""}', [""], None),
    "null": (b'{"text": null}', [], None),
    "blank line": (b" \t ", [], None),
    "CRLF": (b'{"text": "a"}\r', ["a"], None),
    "escaped NUL": (rb'{"text": "a\u0000b"}', ["a\0b"], None),
    "raw NUL": (b'{"text": "a\0b"}', [], "not-json"),
    "NUL between": (b'{"text":\0"a"}', [], "not-json"),
    "raw tab": (b'{"text": "a\tb"}', [], "not-json"),
    "lone CR in the text": (b'{"text": "a\rb"}', [], "not-json"),
    "lone CR between": (b'{"text":\r"a"}', ["a"], None),
    "U+2028": ('{"text": "a\u2028b\u2029c\x85d"}'.encode(), ["a\u2028b\u2029c\x85d"], None),
    "byte order mark in the text": ('{"text": "\ufeffa"}'.encode(), ["\ufeffa"], None),
    "byte order mark before": (b'\xef\xbb\xbf{"text": "a"}', [], "not-json"),
    "same key twice": (b'{"text": "a", "text": "b"}', ["b"], None),
    "same key twice, the last no text": (b'{"text": "a", "text": 1}', [], "no-text"),
    "NaN elsewhere": (b'{"text": "a", "x": NaN, "y": -Infinity}', ["a"], None),
    "NaN as text": (b'{"text": NaN}', [], "no-text"),
    "number of 30 digits": (b'{"text": "a", "x": ' + b"1" * 30 + b"}", ["a"], None),
    "number too long": (b'{"text": ' + b"1" * 5000 + b"}", [], "not-json"),
    "deep": (b'{"text": "a", "x": ' + b"[" * 300 + b"]" * 300 + b"}", ["a"], None),
    "too deep": (b'{"text": "a", "x": ' + b"[" * 9999 + b"]" * 9999 + b"}", [], "too-deep"),
    "lone surrogate": (rb'{"text": "a\ud800b"}', [], "invalid-utf8"),
    "reversed pair": (rb'{"text": "\udc00\ud800"}', [], "invalid-utf8"),
    "lone surrogate elsewhere": (rb'{"text": "a", "x": "\ud800"}', ["a"], None),
    "invalid UTF-8": (b'{"text": "a\xffb"}', [], "invalid-utf8"),
    "encoded surrogate": (b'{"text": "\xed\xa0\x80"}', [], "invalid-utf8"),
    "invalid UTF-8 elsewhere": (b'{"text": "a", "x": "\xff"}', ["a"], None),
    "invalid UTF-8 outside": (b'\xff{"text": "a"}', [], "not-json"),
    "two objects": (b'{"text": "a"} {"text": "b"}', [], "not-json"),
    "broken": (b'{"text": "a', [], "not-json"),
    "a list": (b'["a"]', [], "no-text"),
    "no such field": (b'{"id": 1}', [], "no-text"),
    "a number": (b'{"text": 5}', [], "no-text"),
}
PLACES: dict[str, Callable[[bytes], tuple[bytes, int, list[str], list[str]]]] = {
    # whole file, where the line begins in it, documents before, documents after
    "alone": lambda line: (line + b"\n", 0, [], []),
    "alone, no line feed": lambda line: (line, 0, [], []),
    "between good ones": lambda line: (GOOD + line + b"\n" + GOOD, len(GOOD), ["good"], ["good"]),
    "after a blank line": lambda line: (b"\n" + line + b"\n" + GOOD, 1, [], ["good"]),
    "last, no line feed": lambda line: (GOOD + line, len(GOOD), ["good"], []),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LINES)
def test_the_policy_for_a_line(name: str, place: str, tmp_path: Path) -> None:
    line, documents, reason = LINES[name]
    if name == "byte order mark before" and place.startswith("alone"):
        return  # at the start of the file it is allowed
    data, offset, before, after = PLACES[place](line)
    expected = [document.encode() for document in before + documents + after]
    for path, packed in {"c.jsonl": data, "c.jsonl.gz": gzip.compress(data)}.items():
        (tmp_path / path).write_bytes(packed)
        found = read(tmp_path / path, **QUARANTINE)
        assert found.documents == expected
        assert found.reasons == ([reason] if reason else [])
        for record in found.bad:
            assert (record.offset, record.length) == (offset, len(line))
            assert record.raw == line[: batches.RAW_BYTES]
            assert record.line == data[:offset].count(b"\n") + 1
            assert record.file == str(tmp_path / path)
    if reason:
        with pytest.raises(TokenmillError):
            read(tmp_path / "c.jsonl")
    else:
        assert read(tmp_path / "c.jsonl").documents == expected


def test_nesting_is_judged_alike_whatever_the_neighbours(tmp_path: Path) -> None:
    """Near the decoders' limit: in a block of good lines, and in one that is read line by line."""
    path = tmp_path / "c.jsonl"
    for depth in range(850, 1000):
        line = b'{"text": "a", "x": ' + b"[" * depth + b"]" * depth + b"}\n"
        outcomes = []
        for prefix in (b"", b"\n"):
            path.write_bytes(prefix + line)
            outcomes.append(read(path, **QUARANTINE).reasons)
        assert outcomes[0] == outcomes[1], depth


# A text: the documents by --documents line, and the ranges that are taken out.
TEXTS: dict[str, tuple[bytes, list[bytes], list[tuple[int, int]]]] = {
    "plain": (b"a\nb\n", [b"a", b"b"], []),
    "byte order mark": (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [b"a", b"\xef\xbb\xbfb"], []),
    "NUL, lone CR, U+2028": ("a\0b\rc\u2028d".encode(), ["a\0b\rc\u2028d".encode()], []),
    "CRLF": (b"a\r\nb\r\n", [b"a", b"b"], []),
    "empty documents": (b"\n\n", [b"", b""], []),
    "one byte": (b"a\xffb\nc", [b"ab", b"c"], [(1, 2)]),
    "neighbours are one": (b"a\xff\xfe\xe6\x97b", [b"ab"], [(1, 5)]),
    "two": (b"\xffa\n\xffb", [b"a", b"b"], [(0, 1), (3, 4)]),
    "encoded surrogates": (b"\xed\xa0\x80\xed\xb0\x80", [b""], [(0, 6)]),
    "overlong": (b"a\xc0\xaf\n", [b"a"], [(1, 3)]),
    "beyond Unicode": (b"\xf4\x90\x80\x80 a", [b" a"], [(0, 4)]),
    "cut at the end": (b"ab\xe6\x97", [b"ab"], [(2, 4)]),
    "byte order mark, then bad": (b"\xef\xbb\xbf\xff\na", [b"", b"a"], [(3, 4)]),
    "bad alone": (b"\xff\xff\n", [b""], [(0, 2)]),
    "half a character before a line end": (b"\xe6\x97\n\x97", [b"", b""], [(0, 2), (3, 4)]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_policy_for_text(name: str, tmp_path: Path) -> None:
    data, documents, ranges = TEXTS[name]
    for path, packed in {"c.txt": data, "c.txt.gz": gzip.compress(data)}.items():
        (tmp_path / path).write_bytes(packed)
        found = read(tmp_path / path, documents="line", **QUARANTINE)
        assert found.documents == documents
        assert found.ranges == ranges
        assert set(found.reasons) <= {"invalid-utf8"}
        assert [record.raw for record in found.bad] == [data[low:high] for low, high in ranges]


def test_a_cell_follows_the_same_policy(tmp_path: Path) -> None:
    rows = [b"good", None, b"", b"caf\xe9", b"\xed\xa0\x80", "日\0\r\n\ufeff".encode(), b"good"]
    path = corpora.write_parquet(tmp_path / "c.parquet", rows, type_=pa.binary(), row_group=4)
    found = read(path, **QUARANTINE)
    assert found.documents == [b"good", b"", "日\0\r\n\ufeff".encode(), b"good"]
    assert [(r.reason, r.row, r.raw, r.length) for r in found.bad] == [
        ("invalid-utf8", 3, b"caf\xe9", 4),
        ("invalid-utf8", 4, b"\xed\xa0\x80", 3),
    ]
    assert found.counts.null_documents == 1


# --- replacing ---------------------------------------------------------------------------------

INVALID = [
    b"\xff", b"\xe6\x97", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf",
    b"\xf4\x90\x80\x80", b"\x80",
]  # fmt: skip


@pytest.mark.parametrize("bad", INVALID)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_replacing_is_what_python_does(kind: str, bad: bytes, tmp_path: Path) -> None:
    raw = b"a" + bad + "日\ufffd".encode() + bad
    expected = raw.decode("utf-8", "replace")
    path = tmp_path / f"c.{kind}"
    if kind == "parquet":
        corpora.write_parquet(path, [raw], type_=pa.binary())
    else:
        path.write_bytes(raw if kind == "txt" else b'{"text": "' + raw + b'", "x": "\xff"}\n')
    for options in (REPLACE, REPLACE | QUARANTINE):
        found = read(path, **options)
        assert found.documents == [expected.encode()]
        assert found.counts.replaced == expected.count("\ufffd") - 1
        assert not found.bad


def test_each_half_of_a_pair_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(rb'{"text": "\udc00\ud800-\ud83d\ude00", "x": "\ud800"}' + b"\n")
    found = read(path, **REPLACE)
    assert found.documents == ["\ufffd\ufffd-😀".encode()]
    assert found.counts.replaced == 2


def dirty(seed: str, size: int = 40_000) -> bytes:
    """Prose in several scripts with invalid bytes here and there."""
    clean = (texts.mixed_scripts(size) + texts.prose(size)).encode()
    draws = [ord(c) for c in texts.pseudo_random(600, "".join(map(chr, range(256))), seed)]
    data = bytearray(clean)
    for index, draw in enumerate(draws):
        at = (index * 7919 + draw * 131) % len(data)
        data[at : at + draw % 2] = INVALID[draw % len(INVALID)] * (1 + draw % 3)
    return bytes(data)


HARD: dict[str, bytes] = {
    "prose": dirty("prose"),
    "another": dirty("another"),
    "one letter": b"z" * 30_000 + b"\xff" + b"z" * 30_000 + b"\xe6\x97" * 3 + b"z" * 30_000,
    "dashes": (b"-" * 5000 + b"\xff") * 12,
    "nothing but invalid": b"\xff" * 60_000,
    "another encoding": texts.SENTENCES["russian"].encode("cp1251") * 400,
    "latin-1": (texts.SENTENCES["english"] + " déjà été ").encode("latin-1") * 300,
}


def encoded(path: Path, options: dict[str, Any]) -> tuple[list[int], Reading, int]:
    """The ids that the blocks give, what is in them, and how many blocks there are."""
    from tokenmill.encoding.encoder import BlockEncoder
    from tokenmill.encoding.reference import Reference
    from tokenmill.encoding.rules import EncodingRules
    from tokenmill.tokenizers.engines import make_engine

    plan = plan_of(path, sizes=SMALL, **options)
    rules = EncodingRules("none", "uint16", 50256, 50256, SplitRule(), 0, "text", 0.0, sizes=SMALL)
    engine = make_engine(plan.engine, plan.vocabulary)
    corpus = plan.corpus()
    encoder = BlockEncoder(rules, engine, Reference(plan.vocabulary), corpus.read)
    tokens = [encoder.encode(each) for each in corpus.blocks()]
    ids = [int(i) for batch in tokens for run in batch.runs for i in run.ids]
    return ids, read(path, sizes=SMALL, **options), len(tokens)


@pytest.mark.parametrize("name", HARD)
def test_replaced_text_in_blocks_has_the_ids_of_the_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(HARD[name])
    ids, found, blocks = encoded(path, REPLACE)
    whole = HARD[name].decode("utf-8", "replace")
    assert found.documents == [whole.encode()]
    assert ids == oracles.encode(whole, "gpt2")
    assert blocks > 5, "a test of cuts has to cut"


@pytest.mark.parametrize("name", ["prose", "another", "one letter", "dashes", "latin-1"])
def test_text_without_its_bad_bytes_has_the_ids_of_the_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(HARD[name])
    ids, found, blocks = encoded(path, QUARANTINE)
    whole = HARD[name].decode("utf-8", "ignore")
    assert found.documents == [whole.encode()]
    assert ids == oracles.encode(whole, "gpt2")
    assert blocks > 5, "a test of cuts has to cut"


@pytest.mark.parametrize("name", HARD)
def test_every_byte_is_kept_or_in_a_record(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(HARD[name])
    found = read(path, sizes=SMALL, **QUARANTINE)
    assert utf8.join_ranges(found.ranges, -1) == found.ranges, "ranges in order, not overlapping"
    assert b"".join(found.documents) == utf8.without(HARD[name], found.ranges)


def test_a_text_in_another_encoding_does_not_become_a_million_records(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    sentence = texts.SENTENCES["russian"].encode("cp1251")
    path.write_bytes(b"good text. " * 1000 + sentence * 40_000 + b" good text" * 1000)
    found = read(path, **QUARANTINE)
    assert len(found.bad) < 100
    kept = b"".join(found.documents)
    assert kept.startswith(b"good text. " * 1000) and kept.endswith(b" good text" * 1000)
    assert kept == utf8.without(path.read_bytes(), found.ranges)


# --- special text ------------------------------------------------------------------------------


def test_special_text_goes_to_quarantine(tmp_path: Path) -> None:
    special = b"<|endoftext|>"
    (tmp_path / "c.txt").write_bytes(
        b"a" + special + b"b<|endof" + special + b"text|>c <|endo\xfff|>"
    )
    (tmp_path / "c.jsonl").write_bytes(
        GOOD + b'{"text": "a<|endoftext|>b"}\n' + rb'{"text": "\u003c|endoftext|>"}' + b"\n" + GOOD
    )
    rows = [b"good", b"a<|endoftext|>", b"good"]
    corpora.write_parquet(tmp_path / "c.parquet", rows, type_=pa.binary())
    options = QUARANTINE | {"special_text": "error"}
    found = read(tmp_path / "c.txt", **options)
    assert found.documents == [b"abc <|endof|>"]
    assert found.ranges == [(1, 14), (15, 41), (49, 50)]
    assert found.reasons == ["special-text", "special-text", "invalid-utf8"]
    for name, bad in {"c.jsonl": 2, "c.parquet": 1}.items():
        found = read(tmp_path / name, **options)
        assert found.documents == [b"good"] * 2
        assert found.reasons == ["special-text"] * bad


# --- compressed files --------------------------------------------------------------------------


@functools.cache
def lines_of(count: int) -> bytes:
    return corpora.jsonl(
        [f"{n} {texts.pseudo_random(60, 'abc def', str(n))}" for n in range(count)]
    )


@functools.lru_cache
def packed(suffix: str, data: bytes) -> bytes:
    return (
        corpora.zst(data, checksum=True) if suffix == ".zst" else corpora.COMPRESSORS[suffix](data)
    )


def check_damage(data: bytes, whole: bytes, path: Path) -> Reading:
    """Kept documents are the first ones; the rest of the file is one record."""
    path.write_bytes(data)
    found = read(path, **QUARANTINE)
    expected = [json.loads(line)["text"].encode() for line in whole.splitlines()]
    assert found.documents == expected[: len(found.documents)]
    *lines, last = found.bad
    assert last.reason == "corrupt-compression"
    assert last.offset is not None and last.offset + last.length == len(data)
    assert last.raw == data[last.offset :][: batches.RAW_BYTES]
    told = re.search(r"the (\d+) bytes of text", last.detail)
    assert told
    kept = whole[: int(told[1])]
    assert len(found.documents) == kept.count(b"\n"), "a whole line that was decoded is kept"
    broken = kept.rpartition(b"\n")[2]
    assert [(r.raw, r.reason) for r in lines] == ([(broken, "not-json")] if broken else [])
    return found


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 1.0])
def test_a_truncated_file_is_kept_as_far_as_it_goes(
    suffix: str, kept: float, tmp_path: Path
) -> None:
    whole = lines_of(20_000)
    data = packed(suffix, whole)
    length = int(kept * (len(data) - 1))
    found = check_damage(data[:length], whole, tmp_path / f"c.jsonl{suffix}")
    share = len(found.documents) / 20_000
    # bzip2 and zstd decode blocks, of 900 kB and 128 kB of text.
    assert share >= kept - 0.6, "most of what is there is kept"


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
def test_a_wrong_checksum_costs_no_document(suffix: str, tmp_path: Path) -> None:
    whole = lines_of(1000)
    data = bytearray(packed(suffix, whole))
    data[{".gz": -8, ".zst": -1, ".bz2": -2, ".xz": -3}[suffix]] ^= 0xFF
    found = check_damage(bytes(data), whole, tmp_path / f"c.jsonl{suffix}")
    assert suffix == ".bz2" or len(found.documents) == 1000


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
def test_a_flipped_bit(suffix: str, tmp_path: Path) -> None:
    whole = lines_of(20_000)
    data = bytearray(packed(suffix, whole))
    data[len(data) // 2] ^= 0x10
    path = tmp_path / f"c.jsonl{suffix}"
    path.write_bytes(bytes(data))
    found = read(path, **QUARANTINE)
    assert found.bad[-1].reason == "corrupt-compression"
    # gzip notices only later that bits are wrong: what came out before may be changed.
    good = {json.loads(line)["text"].encode() for line in whole.splitlines()}
    assert len(good & set(found.documents)) >= (1000 if suffix != ".bz2" else 0)


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
@pytest.mark.parametrize("members", [0, 1, 3])
def test_junk_after_the_end(suffix: str, members: int, tmp_path: Path) -> None:
    whole = lines_of(900)
    parts = [whole] if members == 1 else [*whole.splitlines(keepends=True)]
    data = b"".join(packed(suffix, part) for part in parts[:members])
    junk = b"this is not a member"
    text_of_members = b"".join(parts[:members])
    found = check_damage(data + junk, text_of_members, tmp_path / f"c.jsonl{suffix}")
    assert found.ranges[-1] == (len(data), len(data + junk))
    assert len(found.documents) == text_of_members.count(b"\n")


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
def test_a_damaged_text(suffix: str, tmp_path: Path) -> None:
    whole = texts.prose(300_000).encode()
    path = tmp_path / f"c.txt{suffix}"
    path.write_bytes(packed(suffix, whole) + b"junk")
    found = read(path, **QUARANTINE)
    assert (found.documents, found.reasons) == ([whole], ["corrupt-compression"])
    path.write_bytes(b"")
    found = read(path, **QUARANTINE)
    assert (found.documents, found.reasons) == ([], ["corrupt-compression"])
    path.write_bytes(packed(suffix, whole)[:-20])
    found = read(path, val_fraction=0.1, **QUARANTINE)
    assert whole.startswith(b"".join(found.documents))
    with pytest.raises(InputError):
        read(path)


# --- what is too large -------------------------------------------------------------------------


@pytest.mark.usefixtures("small_records")
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_line_too_large_takes_no_neighbour(suffix: str, ends: bool, tmp_path: Path) -> None:
    before, after = lines_of(300), lines_of(200) if ends else b""
    giant = b'{"text": "' + b"x" * 500_000 + b'"}'
    data = before + giant + (b"\n" if ends else b"") + after + (b"oops" if ends else b"")
    path = tmp_path / f"c.jsonl{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    found = read(path, sizes=SMALL, **QUARANTINE)
    lines = (before + after).splitlines()
    assert found.documents == [json.loads(line)["text"].encode() for line in lines]
    assert found.reasons == ["too-large", "not-json"][: 1 + ends]
    assert (found.bad[0].offset, found.bad[0].length) == (len(before), len(giant))
    assert (found.bad[0].line, found.bad[0].raw) == (301, giant[: batches.RAW_BYTES])
    assert not ends or found.bad[1].line == 502


@pytest.mark.usefixtures("small_records")
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_cell_too_large_takes_no_neighbour(dictionary: bool, tmp_path: Path) -> None:
    rows = [f"{n} some words" for n in range(2000)]
    rows[700], rows[701], rows[1999] = "x" * 80_000, "y" * 90_000, "z" * 64_001
    path = corpora.write_parquet(
        tmp_path / "c.parquet", rows, row_group=1500, use_dictionary=dictionary
    )
    found = read(path, sizes=SMALL, **QUARANTINE)
    assert found.documents == [row.encode() for row in rows if len(row) < 100]
    assert [(r.reason, r.row, r.length) for r in found.bad] == [
        ("too-large", 700, 80_000), ("too-large", 701, 90_000), ("too-large", 1999, 64_001),
    ]  # fmt: skip


# --- parquet -----------------------------------------------------------------------------------


# Arrow writes the number 1,000 six times: of rows in the file and the group, and of values in each
# column with its statistics. It believes every single one of them.
@pytest.mark.parametrize("place", range(6))
def test_a_footer_that_contradicts_itself_loses_no_row(place: int, tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    table = pa.table({"id": range(1000), "text": [f"row {n}" for n in range(1000)]})
    pq.write_table(table, path, store_schema=False)
    data = path.read_bytes()
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    told, other = b"\xd0\x0f", b"\xf2\x0e"  # 1,000 and 953, as thrift writes them
    places = [match.start() + begin for match in re.finditer(told, data[begin:])]
    assert len(places) == 6
    path.write_bytes(data[: places[place]] + other + data[places[place] + 2 :])
    found = read(path, **QUARANTINE)
    assert found.reasons == ["corrupt-parquet"] if found.bad else len(found.documents) == 1000
    if found.bad:
        with pytest.raises(InputError, match="footer"):
            read(path)


@pytest.mark.parametrize("kept", [0, 3, 100, -1, -8, -100])
def test_a_damaged_footer_is_the_whole_file(kept: int, tmp_path: Path) -> None:
    rows = [f"document {n}" for n in range(2000)]
    path = corpora.write_parquet(tmp_path / "c.parquet", rows)
    data = path.read_bytes()[:kept]
    path.write_bytes(data)
    good = corpora.write_parquet(tmp_path / "good.parquet", ["good"])
    found = read(path, good, **QUARANTINE)
    assert found.documents == [b"good"]
    assert [(r.reason, r.offset, r.length) for r in found.bad] == [
        ("corrupt-parquet", 0, len(data))
    ]


def test_a_missing_column_stays_an_error(tmp_path: Path) -> None:
    path = corpora.write_parquet(tmp_path / "c.parquet", ["a"], key="content")
    with pytest.raises(TokenmillError, match="no column"):
        tokenmill.plan(path, on_bad="quarantine")


def damaged_group(path: Path, rows: list[str], group: int, row_group: int) -> None:
    """A parquet file with one byte of the last page of a row group's column changed."""
    corpora.write_parquet(
        path, rows, row_group=row_group, write_page_checksum=True, use_dictionary=False,
        compression="none", data_page_size=2000, write_batch_size=20,
    )  # fmt: skip
    column = pq.ParquetFile(path).metadata.row_group(group).column(1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("streamed", [True, False])
def test_a_damaged_page_takes_the_rest_of_its_row_group(streamed: bool, tmp_path: Path) -> None:
    sizes = Sizes(batch=5000)
    if streamed:
        sizes = replace(sizes, large_row_group=1000)
    rows = [f"{n} {texts.prose(100)}" for n in range(2000)]
    path = tmp_path / "c.parquet"
    damaged_group(path, rows, 1, 500)
    found = read(path, sizes=sizes, **QUARANTINE)
    (bad,) = found.bad
    assert bad.reason == "corrupt-parquet" and bad.row is not None
    assert 700 < bad.row < 1000, "rows before the damage are kept"
    assert found.documents == [row.encode() for row in rows[: bad.row] + rows[1000:]]
    assert f"rows {bad.row} to 999 ({1000 - bad.row} rows)" in bad.detail
    with pytest.raises(InputError):
        read(path, sizes=sizes)


# --- what is not content -----------------------------------------------------------------------


def failing(times: int, call: Callable[..., bytes]) -> Callable[..., bytes]:
    left = [times]

    def read_or_fail(*arguments: Any) -> bytes:
        if left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error")
        return call(*arguments)

    return read_or_fail


@pytest.mark.parametrize("times", [2, 3])
def test_an_io_error_is_tried_again_and_never_quarantined(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_reads, "PAUSE_SECONDS", 0)
    path = tmp_path / "c.txt"
    path.write_bytes(b"some text")
    corpus = plan_of(path, **QUARANTINE).corpus()
    blocks = list(corpus.blocks())
    monkeypatch.setattr(os, "pread", failing(times, os.pread))
    if times < disk_reads.TRIES:
        assert corpus.read(blocks[0]).documents == [b"some text"]
    else:
        with pytest.raises(InputError, match=r"c\.txt, byte 0"):
            corpus.read(blocks[0])


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_file_that_is_cut_while_it_is_read_is_an_error(kind: str, tmp_path: Path) -> None:
    rows = [f"{n} {texts.prose(100)}" for n in range(2000)]
    path = corpora.write(tmp_path, kind, rows).path
    plan = plan_of(path, **QUARANTINE)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError):
        corpus = plan.corpus()
        for each in corpus.blocks():
            corpus.read(each)


# --- positions ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_records")
@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.jsonl.zst", "c.txt", "c.txt.xz"])
def test_blocks_from_any_position(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    data = HARD["prose"][:30_000] + HARD["nothing but invalid"] + HARD["another"][:20_000]
    if "jsonl" in name:
        parts = [lines_of(100), b"oops\n", b"x" * 200_000 + b"\n", lines_of(99), b"\xff"]
        data = b"".join(parts)
    if path.suffix in corpora.COMPRESSORS:
        data = packed(path.suffix, data)[:-6] + b"junk"
    path.write_bytes(data)
    corpora.write(tmp_path, "jsonl", ["good"], "good")
    plan = plan_of(path, tmp_path / "good.jsonl", sizes=SMALL, **QUARANTINE)
    test_positions.check_positions(plan)


@pytest.mark.usefixtures("small_records")
def test_blocks_of_parquet_from_any_position(tmp_path: Path) -> None:
    sizes = replace(SMALL, large_row_group=40_000, batch=5000)
    rows = [f"{n} {texts.prose(100)}" for n in range(2000)]
    rows[950] = "x" * 100_000
    path = tmp_path / "c.parquet"
    damaged_group(path, rows, 1, 700)
    lost = tmp_path / "lost.parquet"
    lost.write_bytes(b"PAR1")
    plan = plan_of(path, lost, path, sizes=sizes, **QUARANTINE)
    test_positions.check_positions(plan)


# --- properties --------------------------------------------------------------------------------

LINE = st.one_of(
    st.sampled_from([line for line, _, _ in LINES.values() if len(line) < 500]),
    st.text(max_size=5).map(lambda text: json.dumps({"text": text}).encode()),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")),
)
FIXTURES = [HealthCheck.function_scoped_fixture]


PLAIN = b"a few plain words " * 40
"""How a file begins that is surely text: what looks like something else is refused as a whole."""


def oracle_of_a_line(line: bytes) -> bytes | type[Exception] | None:
    """What plain Python makes of a line: a document, none, or that it is bad."""
    if not line.strip(b" \t\r\n"):
        return None
    try:
        document = json.loads(line.decode("utf-8", "surrogateescape"))["text"]
        return document if document is None else document.encode()
    except Exception as error:  # noqa: BLE001  any is bad
        return type(error)


@settings(suppress_health_check=FIXTURES, max_examples=150, deadline=None)
@given(lines=st.lists(LINE, max_size=8), ends=st.booleans())
def test_lines_in_any_mixture(lines: list[bytes], ends: bool, tmp_path: Path) -> None:
    lines = [b'{"text": "%s"}' % PLAIN, *lines]
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    documents, ranges, offset = [], [], 0
    for index, line in enumerate(lines):
        seen = line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line
        outcome = oracle_of_a_line(seen)
        if isinstance(outcome, bytes):
            documents.append(outcome)
        elif outcome is not None:
            ranges.append((offset + len(line) - len(seen), offset + len(line)))
        offset += len(line) + 1
    path = tmp_path / "c.jsonl"
    path.write_bytes(data)
    found = read(path, **QUARANTINE)
    assert (found.documents, found.ranges) == (documents, ranges)


def oracle_of_a_text(raw: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The valid characters of a text, and the ranges of the other bytes, byte by byte."""
    kept, bad, position = b"", [], 0
    while position < len(raw):
        for width in (1, 2, 3, 4):
            try:
                raw[position : position + width].decode()
            except UnicodeDecodeError:
                continue
            width = min(width, len(raw) - position)
            kept += raw[position : position + width]
            break
        else:
            width = 1
            bad.append((position, position + 1))
        position += width
    return kept, utf8.join_ranges(bad, 0)


@settings(suppress_health_check=FIXTURES, max_examples=150, deadline=None)
@given(
    parts=st.lists(
        st.one_of(st.text(max_size=6).map(str.encode), st.binary(max_size=4)), max_size=20
    )
)
def test_text_in_any_mixture(parts: list[bytes], tmp_path: Path) -> None:
    raw = PLAIN + b"".join(parts)
    path = tmp_path / "c.txt"
    path.write_bytes(raw)
    kept, ranges = oracle_of_a_text(raw)
    found = read(path, **QUARANTINE)
    assert (b"".join(found.documents), found.ranges) == (kept, ranges)
    assert read(path, **REPLACE).documents == [raw.decode("utf-8", "replace").encode()]
