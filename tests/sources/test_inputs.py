"""Which documents an input holds: the modes of plain text, JSON fields, parquet columns, order.

Each test writes a small input, prepares it, and compares the documents' ids with the reference's
for the texts that the policy says are there.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.kit import corpora, oracles
from tests.kit.outcome import Outcome, prepare

BOM = "\ufeff"


def documents_of(path: Path | list[Path], out: Path, **options: Any) -> list[str]:
    """The documents that tokenmill saw, decoded again."""
    outcome = prepare(path, out, val_fraction=0, **options)
    return decoded(outcome)


def decoded(outcome: Outcome) -> list[str]:
    encoding = oracles.encoding("gpt2")
    return [encoding.decode(ids) for ids in outcome.documents()]


def text_file(tmp_path: Path, text: str | bytes, name: str = "corpus.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


MODES: dict[str, tuple[str, str, list[str]]] = {
    "file": ("file", "a\n\nb\r\n", ["a\n\nb\r\n"]),
    "file without final newline": ("file", "a", ["a"]),
    "lines": ("line", "a\nb\n", ["a", "b"]),
    "lines without final newline": ("line", "a\nb", ["a", "b"]),
    "lines by CR LF": ("line", "a\r\nb\r\n", ["a", "b"]),
    "lone CR is no line end": ("line", "a\rb\n", ["a\rb"]),
    "CR before CR LF stays": ("line", "a\r\r\nb", ["a\r", "b"]),
    "U+2028, NEL and form feed are no line ends": (
        "line",
        "a\u2028b\u2029c\x85d\x0ce\x0bf\n",
        ["a\u2028b\u2029c\x85d\x0ce\x0bf"],
    ),
    "empty lines are empty documents": ("line", "a\n\nb\n\n", ["a", "", "b", ""]),
    "blanks are kept": ("line", "  a \n\t\n", ["  a ", "\t"]),
    "blank lines": ("blank-line", "a\nb\n\nc\n", ["a\nb", "c\n"]),
    "many blank lines": ("blank-line", "a\n\n\n\n\nb", ["a", "b"]),
    "blank lines by CR LF": ("blank-line", "a\r\nb\r\n\r\n\r\nc", ["a\r\nb", "c"]),
    "mixed line ends": ("blank-line", "a\n\r\nb\r\n\nc", ["a", "b", "c"]),
    "a line of spaces is not blank": ("blank-line", "a\n \nb", ["a\n \nb"]),
    "blank lines at the end": ("blank-line", "a\n\nb\n\n", ["a", "b"]),
    "separator": ("separator:<|endoftext|>", "a<|endoftext|>b", ["a", "b"]),
    "separator at the end": ("separator:<|endoftext|>", "a<|endoftext|>b<|endoftext|>", ["a", "b"]),
    "separator twice": ("separator:##", "a####b", ["a", "", "b"]),
    "separator at the start": ("separator:##", "##a", ["", "a"]),
    "separator overlapping itself": ("separator:aa", "xaaay", ["x", "ay"]),
    "separator with a colon": ("separator:a:b", "1a:b2", ["1", "2"]),
    "separator of several bytes a letter": ("separator:——", "日本——語\n", ["日本", "語\n"]),
    "escapes are not interpreted": ("separator:\\n", "a\nb\\nc", ["a\nb", "c"]),
    "no separator there": ("separator:##", "abc", ["abc"]),
}


@pytest.mark.parametrize("name", MODES)
def test_plain_text_divides_as_told(name: str, tmp_path: Path) -> None:
    mode, text, expected = MODES[name]
    path = text_file(tmp_path, text)
    assert documents_of(path, tmp_path / "out", documents=mode) == expected


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
@pytest.mark.parametrize("name", ["file", "blank-line", "line"])
def test_compressed_text_divides_the_same(name: str, suffix: str, tmp_path: Path) -> None:
    text = "a b\n\nc\n" * 50
    plain = text_file(tmp_path, text)
    packed = text_file(tmp_path, corpora.COMPRESSORS[suffix](text.encode()), f"c.txt{suffix}")
    assert documents_of(packed, tmp_path / "packed", documents=name) == documents_of(
        plain, tmp_path / "plain", documents=name
    )


MULTI: dict[str, Callable[[list[bytes]], bytes]] = {
    ".gz": lambda parts: b"".join(gzip.compress(part) for part in parts),
    ".bz2": lambda parts: b"".join(bz2.compress(part) for part in parts),
    ".xz": lambda parts: b"".join(lzma.compress(part) for part in parts),
    ".zst": lambda parts: b"".join(corpora.zst(part) for part in parts),
}
SKIPPABLE_FRAME = bytes.fromhex("502a4d18") + (5).to_bytes(4, "little") + b"12345"


@pytest.mark.parametrize("suffix", MULTI)
def test_several_members_are_read_whole(suffix: str, tmp_path: Path) -> None:
    parts = [b"one ", b"", b"two ", "三".encode(), b" end" * 1000]
    path = text_file(tmp_path, MULTI[suffix](parts), f"c.txt{suffix}")
    assert documents_of(path, tmp_path / "out") == [b"".join(parts).decode()]


def test_a_member_may_end_inside_a_character(tmp_path: Path) -> None:
    data = "日本語".encode()
    path = text_file(tmp_path, gzip.compress(data[:4]) + gzip.compress(data[4:]), "c.txt.gz")
    assert documents_of(path, tmp_path / "out") == ["日本語"]


@pytest.mark.parametrize("place", ["first", "between", "last"])
def test_skippable_zstd_frames_are_skipped(place: str, tmp_path: Path) -> None:
    frames = [corpora.zst(b"one "), corpora.zst(b"two")]
    frames.insert({"first": 0, "between": 1, "last": 2}[place], SKIPPABLE_FRAME)
    path = text_file(tmp_path, b"".join(frames), "c.txt.zst")
    assert documents_of(path, tmp_path / "out") == ["one two"]


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_zeros_after_the_last_member_are_padding(suffix: str, tmp_path: Path) -> None:
    data = corpora.COMPRESSORS[suffix](b"text") + b"\0" * 512
    assert documents_of(text_file(tmp_path, data, f"c.txt{suffix}"), tmp_path / "out") == ["text"]


# --- byte order marks, empty and null documents ------------------------------------------------


def test_a_byte_order_mark_is_dropped_at_the_start_of_a_text_file_only(tmp_path: Path) -> None:
    path = text_file(tmp_path, f"{BOM}a{BOM}b\n{BOM}c\n")
    got = documents_of(path, tmp_path / "out", documents="line")
    assert got == [f"a{BOM}b", f"{BOM}c"]


def test_a_byte_order_mark_is_dropped_at_the_start_of_a_jsonl_file_only(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(BOM.encode() + corpora.jsonl([f"{BOM}a", "b"]))
    assert documents_of(path, tmp_path / "out") == [f"{BOM}a", "b"]


def test_a_byte_order_mark_in_a_parquet_row_is_kept(tmp_path: Path) -> None:
    path = corpora.write_parquet(tmp_path / "c.parquet", [f"{BOM}a"])
    assert documents_of(path, tmp_path / "out") == [f"{BOM}a"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_null_is_no_document_and_empty_is_one(kind: str, tmp_path: Path) -> None:
    rows = ["a", None, "", None, "b", ""]
    path = tmp_path / f"c.{kind}"
    if kind == "jsonl":
        path.write_bytes(corpora.jsonl(rows))
    else:
        corpora.write_parquet(path, rows, row_group=2)
    outcome = prepare(path, tmp_path / "out", val_fraction=0)
    assert decoded(outcome) == ["a", "", "b", ""]
    counts = outcome.manifest["counts"]
    assert (counts["documents"], counts["empty_documents"], counts["null_documents"]) == (4, 2, 2)


def test_nul_and_controls_are_text(tmp_path: Path) -> None:
    text = "a\x00b\x01\x7f\x1b[0m"
    assert documents_of(text_file(tmp_path, text), tmp_path / "txt") == [text]
    path = corpora.write(tmp_path, "jsonl", [text]).path
    assert documents_of(path, tmp_path / "jsonl") == [text]


# --- JSONL -------------------------------------------------------------------------------------


def test_json_escapes_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(rb'{"text": "\u0041\n\t\"\\\/ \ud83d\ude00 \u00e9"}' + b"\n")
    assert documents_of(path, tmp_path / "out") == ['A\n\t"\\/ 😀 é']


def test_other_fields_of_any_kind_are_ignored(tmp_path: Path) -> None:
    lines = [
        {"id": 1, "meta": {"text": "not this"}, "text": "a", "tags": ["text", None, 1.5e300]},
        {"text": "b", "big": 10**30, "nested": [[[[]]]]},
    ]
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert documents_of(path, tmp_path / "out") == ["a", "b"]


def test_the_last_of_equal_keys_counts(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "first", "text": "last"}\n')
    assert documents_of(path, tmp_path / "out") == ["last"]


def test_line_ends_and_blank_lines_of_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"text": "a"}\r\n\n  \n{"text": "b"}\n\t{"text": "c"} \n{"text": "d"}')
    assert documents_of(path, tmp_path / "out") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_text_key_can_be_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"c.{kind}"
    if kind == "jsonl":
        path.write_bytes(corpora.jsonl(["a", "b"], key="content"))
    else:
        corpora.write_parquet(path, ["a", "b"], key="content")
    assert documents_of(path, tmp_path / "out", text_key="content") == ["a", "b"]


UNRELATED = {
    "nan": b'{"text": "a", "score": NaN}\n',
    "invalid UTF-8": b'{"text": "a", "id": "\xff"}\n',
    "lone surrogate": rb'{"text": "a", "id": "\ud800"}' + b"\n",
    "raw tab": b'{"text": "a", "id": "x\ty"}\n',
    "leading zero": b'{"text": "a", "n": 01}\n',
    "bad escape": rb'{"text": "a", "id": "\x41"}' + b"\n",
    "trailing comma": b'{"text": "a",}\n',
    "two objects": b'{"text": "a"} {"text": "b"}\n',
    "object over two lines": b'{"text":\n"a"}\n',
    "two objects and one over two lines": b'{"text": "a"} {"text": "b"}\n{"text":\n"c"}\n',
}


@pytest.mark.parametrize("name", UNRELATED)
def test_an_odd_line_is_judged_alike_whatever_its_neighbours(name: str, tmp_path: Path) -> None:
    """A blank line elsewhere sends the block down the slow path: the outcome must not change."""
    outcomes = []
    for label, prefix in {"alone": b"", "after a blank line": b"\n"}.items():
        path = tmp_path / f"{label}.jsonl"
        path.write_bytes(prefix + UNRELATED[name])
        try:
            outcomes.append(str(documents_of(path, tmp_path / label)))
        except Exception as error:  # noqa: BLE001  which error is not the question here
            outcomes.append(type(error).__name__)
    assert outcomes[0] == outcomes[1]


# --- parquet -----------------------------------------------------------------------------------

TYPES = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "dictionary of large strings": pa.dictionary(pa.int8(), pa.large_string()),
}


@pytest.mark.parametrize("name", TYPES)
def test_parquet_columns_of_every_text_type(name: str, tmp_path: Path) -> None:
    rows = ["a", "日本語", None, "", "a", "end"]
    path = corpora.write_parquet(tmp_path / "c.parquet", rows, type_=TYPES[name], row_group=4)
    assert documents_of(path, tmp_path / "out") == [row for row in rows if row is not None]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_parquet_compressions(compression: str, tmp_path: Path) -> None:
    rows = [f"document {index}" for index in range(50)]
    path = corpora.write_parquet(tmp_path / "c.parquet", rows, compression=compression)
    assert documents_of(path, tmp_path / "out") == rows


@pytest.mark.parametrize("options", [{"row_group": 1}, {"data_page_size": 64}, {"version": "1.0"}])
def test_parquet_layouts(options: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"document {index} " * (index % 7) for index in range(60)]
    path = corpora.write_parquet(
        tmp_path / "c.parquet", rows, write_page_checksum=True, use_dictionary=False, **options
    )
    assert documents_of(path, tmp_path / "out") == rows


# --- which files, in which order ---------------------------------------------------------------


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ["b/z.txt", "B.txt", "a.txt", "a10.txt", "a2.txt", "ä.txt", "b/a.txt", "b.txt"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "README").write_text("of no known kind")
    (folder / ".hidden.txt").write_text("hidden")
    expected = ["B.txt", "a.txt", "a10.txt", "a2.txt", "b.txt", "b/a.txt", "b/z.txt", "ä.txt"]
    assert documents_of(folder, tmp_path / "out") == expected


def test_arguments_keep_their_order_and_each_file_is_read_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        text_file(tmp_path, name, f"{name}.txt")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    arguments = [b, tmp_path / "*.txt", a, b, tmp_path / "link.txt"]
    assert documents_of(arguments, tmp_path / "out") == ["b", "a", "c"]


def test_kinds_can_be_mixed(tmp_path: Path) -> None:
    text = text_file(tmp_path, "plain")
    lines = corpora.write(tmp_path, "jsonl.gz", ["line 1", "line 2"]).path
    rows = corpora.write(tmp_path, "parquet", ["row 1", "row 2"]).path
    got = documents_of([rows, text, lines], tmp_path / "out")
    assert got == ["row 1", "row 2", "plain", "line 1", "line 2"]
