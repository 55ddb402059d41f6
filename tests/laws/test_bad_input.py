"""Law 5: bad input stops the run with file, place, reason and fix, and leaves no finished file.

Each case writes an input in which something is wrong, prepares it (most in this process, some by
the command), and looks at the exit code, the message and the output folder.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tokenmill as tokenmill_package
from tests.conftest import Result, Run
from tests.kit import corpora
from tests.kit.outcome import prepare

GOOD = [f"document {index}, some words" for index in range(20)]


def assert_refused(done: Result, out: Path, *needles: str, rc: int = 1) -> None:
    """The right exit code, a message with everything in it, and nothing under a final name."""
    assert done.rc == rc, done.stderr
    assert "Traceback" not in done.stderr
    assert "fix:" in done.stderr
    message = re.sub(r"(?<=\d)[,_](?=\d)", "", done.stderr)
    for needle in needles:
        assert needle in message, f"{needle!r} is missing in\n{message}"
    assert_nothing_finished(out)


def assert_nothing_finished(out: Path) -> None:
    left = {path.name for path in out.iterdir()} if out.exists() else set[str]()
    finished = {name for name in left if not name.endswith(".partial")} - {".tokenmill"}
    assert not finished, f"finished files: {finished}"


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[..., None]:
    """`refuse(name, data, *needles)` writes one input and sees it refused, in this process."""

    def run(name: str, data: bytes, *needles: str, **options: Any) -> None:
        path, out = tmp_path / name, tmp_path / "out"
        path.write_bytes(data)
        with pytest.raises(tokenmill_package.TokenmillError) as caught:
            prepare(path, out, **options)
        done = Result(caught.value.exit_code, "", str(caught.value))
        assert_refused(done, out, name, *needles)

    return run


Refuse = Callable[..., None]

# --- compressed files --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
@pytest.mark.parametrize("kept", [0.5, 0.999, "all but one byte", "nothing"])
def test_a_truncated_file_is_an_error(suffix: str, kept: float | str, refuse: Refuse) -> None:
    whole = corpora.COMPRESSORS[suffix](corpora.jsonl(GOOD * 20))
    lengths = {"all but one byte": len(whole) - 1, "nothing": 0}
    length = lengths[kept] if isinstance(kept, str) else int(len(whole) * kept)
    refuse(f"c.jsonl{suffix}", whole[:length])


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
def test_a_truncated_second_member_is_an_error(suffix: str, refuse: Refuse) -> None:
    compress = corpora.COMPRESSORS[suffix]
    first, second = compress(corpora.jsonl(GOOD)), compress(corpora.jsonl(GOOD))
    refuse(f"c.jsonl{suffix}", first + second[: len(second) // 2])


@pytest.mark.parametrize("field", ["checksum", "length"])
def test_a_wrong_gzip_trailer_is_an_error(field: str, refuse: Refuse) -> None:
    data = bytearray(gzip.compress(corpora.jsonl(GOOD)))
    data[-8 if field == "checksum" else -4] ^= 0xFF
    refuse("c.jsonl.gz", bytes(data))


def test_a_wrong_zstd_checksum_is_an_error(refuse: Refuse) -> None:
    data = bytearray(corpora.zst(corpora.jsonl(GOOD), checksum=True))
    data[-1] ^= 0xFF
    refuse("c.jsonl.zst", bytes(data))


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
def test_a_flipped_bit_is_an_error(suffix: str, refuse: Refuse) -> None:
    text = corpora.jsonl(GOOD * 50)
    packed = corpora.zst(text, checksum=True) if suffix == ".zst" else None
    data = bytearray(packed or corpora.COMPRESSORS[suffix](text))
    data[len(data) * 2 // 3] ^= 0x10
    refuse(f"c.jsonl{suffix}", bytes(data))


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
def test_junk_after_the_end_is_an_error(suffix: str, refuse: Refuse) -> None:
    data = corpora.COMPRESSORS[suffix](corpora.jsonl(GOOD)) + b"this is not a member"
    refuse(f"c.jsonl{suffix}", data)


@pytest.mark.parametrize("suffix", corpora.COMPRESSORS)
def test_a_file_that_is_not_compressed_at_all_is_an_error(suffix: str, refuse: Refuse) -> None:
    refuse(f"c.jsonl{suffix}", corpora.jsonl(GOOD))


# --- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["file", "line", "blank-line", "separator:##"])
@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xe6\x97"],
    ids=["ff", "cut short", "surrogate", "beyond Unicode", "overlong", "half a character"],
)
def test_invalid_utf8_in_text_is_named_with_its_byte(mode: str, bad: bytes, refuse: Refuse) -> None:
    before = "日本 text\n\nmore\n##".encode()
    refuse("c.txt", before + bad + b" after", f"byte {len(before)}", documents=mode)


def test_invalid_utf8_at_the_very_end(refuse: Refuse) -> None:
    refuse("c.txt", "text 日本".encode()[:-1], "byte 8")


def test_invalid_utf8_far_into_a_large_file(refuse: Refuse) -> None:
    data = bytearray(b"some words " * 1_000_000)
    data[7_654_321] = 0xE9
    refuse("c.txt", bytes(data), "byte 7654321")


def test_latin1_is_not_guessed(refuse: Refuse) -> None:
    refuse("c.txt", "Tous les êtres humains".encode("latin-1"), "byte 9")


# --- JSONL -------------------------------------------------------------------------------------

BAD_LINES: dict[str, bytes] = {
    "not JSON": b"hello",
    "cut short": b'{"text": "abc',
    "cut short after the text": b'{"text": "abc"',
    "an array": b'["text", "abc"]',
    "a string": b'"abc"',
    "null": b"null",
    "a number as text": b'{"text": 5}',
    "a list as text": b'{"text": ["a"]}',
    "no text": b'{"id": 1}',
    "another case": b'{"Text": "abc"}',
    "two objects": b'{"text": "a"} {"text": "b"}',
    "junk after": b'{"text": "a"} x',
    "trailing comma": b'{"text": "a",}',
    "single quotes": b"{'text': 'a'}",
    "raw tab": b'{"text": "a\tb"}',
    "raw nul": b'{"text": "a\x00b"}',
    "bad escape": rb'{"text": "\x41"}',
    "lone surrogate": rb'{"text": "a\ud800b"}',
    "reversed surrogates": rb'{"text": "\udc00\ud800"}',
    "invalid UTF-8": b'{"text": "a\xffb"}',
    "encoded surrogate": b'{"text": "\xed\xa0\x80"}',
    "byte order mark": b'\xef\xbb\xbf{"text": "a"}',
    "too deep": b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


# Every case in the middle; at the other places, a third of them.
PLACED = [(name, "middle") for name in BAD_LINES] + [
    (name, place)
    for name in list(BAD_LINES)[::3]
    for place in ("first", "last", "last without newline")
    if (name, place) != ("byte order mark", "first")  # there it is allowed
]


@pytest.mark.parametrize(("name", "place"), PLACED)
def test_a_bad_line_is_named(name: str, place: str, refuse: Refuse) -> None:
    good = corpora.jsonl(GOOD).splitlines(keepends=True)
    number = {"first": 1, "middle": 11}.get(place, 21)
    lines = [*good[: number - 1], BAD_LINES[name] + b"\n", *good[number - 1 :]]
    data = b"".join(lines)
    if place == "last without newline":
        data = data.removesuffix(b"\n")
    refuse("c.jsonl", data, f"c.jsonl:{number}, byte ")


def test_the_byte_of_a_bad_line_is_where_it_goes_wrong(refuse: Refuse) -> None:
    good = corpora.jsonl(["日本"])
    bad = b'{"text": "ok", "x": }\n'
    refuse("c.jsonl", good + bad, f"c.jsonl:2, byte {len(good) + bad.index(b'}')}")


def test_line_and_byte_far_into_a_large_file(refuse: Refuse) -> None:
    good = corpora.jsonl(["many words " * 20] * 40_000)
    refuse("c.jsonl", good + b"oops\n", f"c.jsonl:40001, byte {len(good)}")


def test_line_and_byte_in_a_compressed_file(refuse: Refuse) -> None:
    good = corpora.jsonl(["many words " * 20] * 20_000)
    data = corpora.zst(good + b"oops\n")
    refuse("c.jsonl.zst", data, f"c.jsonl.zst:20001, byte {len(good)}")


def test_a_missing_key_names_the_keys_there_are(refuse: Refuse) -> None:
    refuse("c.jsonl", b'{"content": "a", "url": "b"}\n', "'text'", "content", "--text-key")


# --- parquet -----------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path: Path) -> bytes:
    path = corpora.write_parquet(tmp_path / "whole.parquet", GOOD * 200, write_page_checksum=True)
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.mark.parametrize("kept", [0, 3, 100, -1, -8, -100])
def test_a_truncated_parquet_file_is_an_error(kept: int, parquet: bytes, refuse: Refuse) -> None:
    refuse("c.parquet", parquet[:kept])


def test_a_parquet_file_without_its_head_is_an_error(parquet: bytes, refuse: Refuse) -> None:
    refuse("c.parquet", parquet[200:])


def test_a_damaged_page_is_found_by_its_checksum(parquet: bytes, refuse: Refuse) -> None:
    data = bytearray(parquet)
    data[len(data) // 2] ^= 0xFF
    refuse("c.parquet", bytes(data))


def test_a_missing_column_names_the_columns_there_are(tmp_path: Path, tokenmill: Run) -> None:
    path = corpora.write_parquet(tmp_path / "c.parquet", GOOD, key="content")
    done = tokenmill("prepare", path, "--out", tmp_path / "out")
    assert done.rc in (1, 2), done.stderr
    assert_refused(done, tmp_path / "out", "'text'", "content", "--text-key", rc=done.rc)


def test_a_column_that_is_not_text_is_refused(tmp_path: Path, tokenmill: Run) -> None:
    path = corpora.write_parquet(tmp_path / "c.parquet", GOOD)
    done = tokenmill("prepare", path, "--out", tmp_path / "out", "--text-key", "id")
    assert done.rc in (1, 2), done.stderr
    assert_refused(done, tmp_path / "out", "'id'", "int64", rc=done.rc)


def test_invalid_utf8_in_a_parquet_row_is_named_with_its_row(
    tmp_path: Path, tokenmill: Run
) -> None:
    rows: list[str | bytes | None] = [b"good", None, *[b"fine"] * 200, b"caf\xe9", b"good"]
    path = corpora.write_parquet(tmp_path / "c.parquet", rows, type_=pa.binary(), row_group=64)
    done = tokenmill("prepare", path, "--out", tmp_path / "out")
    assert_refused(done, tmp_path / "out", "c.parquet, row 202")


# --- nothing to do -----------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["nowhere.txt", "*.jsonl", "empty", "only-unknown"])
def test_no_input_is_an_error(argument: str, tmp_path: Path, tokenmill: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-unknown").mkdir()
    (tmp_path / "only-unknown" / "a.pdf").write_bytes(b"%PDF")
    done = tokenmill("prepare", argument, "--out", "out", cwd=tmp_path)
    assert_refused(done, tmp_path / "out", argument)


def empty_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)


EMPTIES: dict[str, Callable[[Path], object]] = {
    "c.jsonl": lambda path: path.write_bytes(b""),
    "blank.jsonl": lambda path: path.write_bytes(b"\n\n \n"),
    "c.parquet": empty_parquet,
    "nulls.jsonl": lambda path: path.write_bytes(corpora.jsonl([None, None])),
}


@pytest.mark.parametrize("name", EMPTIES)
def test_a_corpus_of_no_documents_is_an_error(name: str, tmp_path: Path, tokenmill: Run) -> None:
    path = tmp_path / name
    EMPTIES[name](path)
    done = tokenmill("prepare", path, "--out", tmp_path / "out")
    assert_refused(done, tmp_path / "out", "document")


def test_an_empty_file_among_others_is_no_error(tmp_path: Path, tokenmill: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(b"")
    (tmp_path / "in" / "b.jsonl").write_bytes(corpora.jsonl(GOOD))
    empty_parquet(tmp_path / "in" / "c.parquet")
    done = tokenmill("prepare", tmp_path / "in", "--out", tmp_path / "out")
    assert done.rc == 0, done.stderr


def test_a_named_file_of_unknown_kind_is_an_error(tmp_path: Path, tokenmill: Run) -> None:
    (tmp_path / "notes.docx").write_bytes(b"PK")
    done = tokenmill("prepare", "notes.docx", "--out", "out", cwd=tmp_path)
    assert_refused(done, tmp_path / "out", "notes.docx", ".jsonl")


def test_special_text_can_be_made_an_error(refuse: Refuse) -> None:
    data = corpora.jsonl(["fine", "not <|endoftext|> fine"])
    refuse("c.jsonl", data, "<|endoftext|>", special_text="error")


def test_bad_input_after_good_shards_leaves_nothing_finished(
    tmp_path: Path, tokenmill: Run
) -> None:
    """The good part is larger than several shards: even those may not stand under final names."""
    good = corpora.jsonl([f"{index} many words " * 40 for index in range(20_000)])
    path = tmp_path / "c.jsonl"
    path.write_bytes(good + b"oops\n")
    out = tmp_path / "out"
    options = ["--format", "build-nanogpt", "--shard-tokens", "200K"]
    done = tokenmill("prepare", path, "--out", out, *options)
    assert_refused(done, out, f"c.jsonl:20001, byte {len(good)}")
