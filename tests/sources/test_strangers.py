"""Heads of files as the world has them: what each is taken for as text and as JSON Lines.

What is no text is named, whatever its file is called; what may be text is read. A name in the
first two columns is part of what the error says; None: nothing speaks against reading it.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pytest

import tokenmill as package
from tests.kit import corpora
from tests.kit.outcome import Outcome
from tests.sources.test_inputs import decoded
from tests.sources.test_kinds import POINTER, archive
from tokenmill.errors import TokenmillError
from tokenmill.kinds.content import HEAD_BYTES, contradiction
from tokenmill.text.charset import advice

EN = "All human beings are born free and equal in dignity and rights. " * 40
ZH = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。" * 20
JA = "すべての人間は、生まれながらにして自由であり、かつ、平等である。" * 20
KO = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. " * 20
FR = "Tous les êtres humains naissent libres et égaux en dignité et en droits. " * 20
RU = "Все люди рождаются свободными и равными. " * 20
AR = "يولد جميع الناس أحراراً متساوين في الكرامة. " * 20


def columnar(kind: str) -> bytes:
    table, buffer = pa.table({"text": ["abc", "def"] * 10}), io.BytesIO()
    if kind == "orc":
        sink = pa.BufferOutputStream()
        orc.write_table(table, sink)
        found: bytes = sink.getvalue().to_pybytes()
        return found
    feather.write_feather(table, buffer)
    return buffer.getvalue()


def docx() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
    return buffer.getvalue()


BINARY = "binary data"
NO_TEXT: dict[str, tuple[bytes, str]] = {
    "orc": (columnar("orc"), "an ORC file"),
    "feather": (columnar("feather"), "an Arrow file"),
    "avro": (b"Obj\x01\x04\x14avro.codec\x08null\x16avro.schema" + bytes(30), "an Avro file"),
    "docx": (docx(), "a zip archive"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Office document"),
    "rtf": (b"{\\rtf1\\ansi{\\fonttbl\\f0 Arial;}\\f0 hello}", "a document in RTF"),
    "ps": (b"%!PS-Adobe-3.0\n%%Title: x\n", "a PostScript document"),
    "pdf": (b"%PDF-1.5\n%\xd0\xd4\xc5\xd8\n", "a PDF document"),
    "lfs pointer": (POINTER, "a pointer of Git LFS"),
    "lz4": (b"\x04\x22\x4d\x18d@\xa7", "compressed with lz4"),
    "snappy": (b"\xff\x06\0\0sNaPpY\1", "compressed in a way"),
    "lzip": (b"LZIP\1\x0c" + bytes(range(99)), "compressed in a way"),
    "pzstd": (b"P*M\x18\4\0\0\0\x99\0\0\0" + corpora.zst(b"abc"), "compressed (.zst)"),
    "lzma": (lzma.compress(EN.encode(), lzma.FORMAT_ALONE), BINARY),
    "wasm": (b"\0asm\1\0\0\0\1\7", "a program"),
    "class": (b"\xca\xfe\xba\xbe\0\0\0\x34", "a program"),
    "exe": (b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0" + bytes(99), BINARY),
    "tfrecord": (
        bytes([20, *bytes(11)]) + b"\n\x12\n\x10\n\4text\x12\x08hello" + bytes(99),
        BINARY,
    ),
    "mat": (b"MATLAB 5.0 MAT-file" + b" " * 97 + bytes(99), BINARY),
    "tokens": (bytes([1, 0, 2, 0, 50, 199, 3, 4]) * 100, BINARY),
    "mp4": (b"\0\0\0\x18ftypmp42" + bytes(50), BINARY),
    "zeros": (bytes(1000), BINARY),
    "gguf": (b"GGUF\3\0\0\0", "a model in GGUF"),
    "utf-16 jsonl": ('{"text": "a"}\n'.encode("utf-16"), "text in UTF-16,"),
    "utf-16-le short": ("Hi".encode("utf-16-le"), "UTF-16LE"),
    "utf-16-le korean": (KO.encode("utf-16-le"), "UTF-16LE"),
    "utf-16-le russian": (RU.encode("utf-16-le"), "UTF-16LE"),
    "utf-16-be arabic": (AR.encode("utf-16-be"), "UTF-16BE"),
    "utf-16-le french": (FR.encode("utf-16-le"), "UTF-16LE"),
    "utf-32-le chinese": (ZH.encode("utf-32-le"), "UTF-32LE"),
}
FEATURES = {"type": "FeatureCollection", "features": [{"type": "Feature"}] * 300}
TEXTS: dict[str, tuple[bytes, str | None]] = {
    "warc": (b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n", None),
    "wiki dump": (b'<mediawiki xml:lang="en">\n  <siteinfo>\n', None),
    "xml": (b'<?xml version="1.0"?>\n<a><b>t</b></a>\n', "an HTML page"),
    "html": (b"<html><head></head><body>x</body></html>", "an HTML page"),
    "markdown that begins with a link": (b"[Home](a.md) | [Docs](b.md)\n\n# Title\n", None),
    "kramdown": (b"{: .no_toc }\n# Title\ntext\n", None),
    "a template": (b'{% extends "base.html" %}\n{{ x }}\n', None),
    "css": (b"{ color: red }\n", None),
    "json5": (b"{a: 1}\n", None),
    "a log": (b"[2024-01-01 00:00:00] INFO start\n" * 20, None),
    "a log in colours": (b"\x1b[32mOK\x1b[0m test \x1b[1;31mFAIL\x1b[0m\r\n" * 100, None),
    "a manual page": (b"N\x08NA\x08AM\x08ME\x08E\n" * 20, None),
    "code with NUL": (b'char t[] = "a\0b\0c"; /* \0\0 */ int main(void){return 0;}\n' * 10, None),
    "a short text with NUL": (b"abc\0def\0", None),
    "csv": (b'id,text\n1,"a ""quoted"" text, with comma\nand line"\n2,"b"\n', None),
    "tsv": (b"id\ttext\n1\tabc\n", None),
    "dicts of Python": (b"{'text': 'a'}\n{'text': 'b'}\n", None),
    "subtitles": (b"1\n00:00:01,000 --> 00:00:02,000\nHi\n", None),
    "ini": (b"[section]\na=1\n", None),
    "yaml": (b"---\ntext: a\n", None),
    "bibtex": (b"@article{a,\n}\n", None),
    "a book of Gutenberg": (b"\xef\xbb\xbfThe Project Gutenberg eBook of X\r\n", None),
    "DOS": (b"old text\r\n\x1a", None),
    "pages": (b"page one\x0cpage two\x0c", None),
    "emoji": ("😀".encode() * 100, None),
    "geojson in one line": (json.dumps(FEATURES).encode(), None),
    "geojson": (json.dumps(FEATURES, indent=1).encode(), "several lines"),
    "geojson of ogr2ogr": (b'{\n"type": "FeatureCollection",\n"features": [\n]\n}\n', "several"),
    "an array": (json.dumps([{"text": "a"}] * 50, indent=4).encode(), "one JSON array"),
    "an array, a line each": (b'[\n{"text": "a"},\n{"text": "b"}\n]\n', "one JSON array"),
    "objects without lines": (b'{"text": "a"}{"text": "b"}', None),
    "objects with commas": (b'{"text": "a"},\n{"text": "b"},\n', None),
    "lines of JSON": (b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n', None),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_is_no_text_has_a_name(name: str) -> None:
    data, noun = NO_TEXT[name]
    for kind in ("text", "jsonl", "parquet"):
        found = contradiction(kind, data[:HEAD_BYTES], len(data) <= HEAD_BYTES)
        if kind == "parquet" and noun == BINARY:
            continue  # its reader names what is wrong with it
        assert found is not None and noun in found.name
        assert found.advice("x") and "latin1" not in found.advice("x")


@pytest.mark.parametrize("name", TEXTS)
def test_what_may_be_text_is_read_as_text_and_named_where_it_is_no_lines(name: str) -> None:
    data, noun = TEXTS[name]
    is_whole = len(data) <= HEAD_BYTES
    assert contradiction("text", data[:HEAD_BYTES], is_whole) is None
    found = contradiction("jsonl", data[:HEAD_BYTES], is_whole)
    assert (found is None) if noun is None else (found is not None and noun in found.name)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (ZH.encode("gbk"), "GB18030"), (JA.encode("shift_jis"), "SHIFT_JIS"),
        (KO.encode("euc_kr"), "EUC-KR"), (FR.encode("latin-1"), "windows-1252"),
        (ZH.encode("utf-16-le"), "UTF-16LE"), (JA.encode("utf-16-be"), "UTF-16BE"),
        (EN.encode("cp500"), "find out"), (EN.encode("cp037"), "find out"),
        (zlib.compress(EN.encode()), "find out"), (KO.encode("johab"), "find out"),
    ],
)  # fmt: skip
def test_advice_names_no_encoding_that_does_not_fit(data: bytes, told: str) -> None:
    assert told in advice(data, "x")


@pytest.mark.parametrize("name", ["objects without lines", "objects with commas",
                                  "geojson in one line", "dicts of Python", "csv"])  # fmt: skip
def test_lines_that_are_no_objects_with_a_text_are_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(TEXTS[name][0])
    with pytest.raises(TokenmillError, match=r"x\.jsonl") as caught:
        package.prepare([str(path)], out=tmp_path / "out")
    assert caught.value.fix and not list((tmp_path / "out").glob("*.bin"))


MEMBERS = {
    "x.txt.zst": lambda data: b"P*M\x18\4\0\0\0\x99\0\0\0" + corpora.zst(data),
    "x.txt.gz": lambda data: gzip.compress(b"") + gzip.compress(data),
    "x.txt.bz2": lambda data: corpora.COMPRESSORS[".bz2"](b"") + corpora.COMPRESSORS[".bz2"](data),
    "x.txt.xz": lambda data: lzma.compress(
        data, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 192 << 20}]
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_second_look_goes_behind_empty_members_and_skipped_frames(
    name: str, tmp_path: Path
) -> None:
    """A tar archive of ASCII files is UTF-8: nothing but the look tells it from text."""
    path = tmp_path / name
    path.write_bytes(MEMBERS[name](archive("tar")))
    with pytest.raises(TokenmillError, match="a tar archive"):
        package.plan([str(path)], memory="1GB")


LINES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "c4": ("c4-train.00000-of-01024.json.gz",
           {"text": "{}", "timestamp": "2019-04-25T12:57:54Z", "url": "https://a.b/"}, {}),
    "dolma": ("cc_en_head-0000.json.gz",
              {"id": "http://a.b/", "text": "{}", "source": "common-crawl",
               "added": "2023-04-11T09:57:03.044571+00:00", "metadata": {"bucket": "head"}}, {}),
    "redpajama": ("arxiv_0.jsonl.zst", {"text": "{}", "meta": {"timestamp": "", "url": ""}}, {}),
    "redpajama 2": ("en_head.json.gz", {"url": "a.b", "raw_content": "{}"},
                    {"text_key": "raw_content"}),
    "the pile": ("00.jsonl.zst", {"text": "{}", "meta": {"pile_set_name": "Github"}}, {}),
    "nested": ("x.ndjson.bz2", {"doc": {"body": "{}"}}, {"text_key": "doc.body"}),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_published_corpora_are_read_by_their_names(name: str, tmp_path: Path) -> None:
    file, record, options = LINES[name]
    documents = [f"document {number}: [ and {{" for number in range(9)]
    lines = [json.dumps(record).replace('"{}"', json.dumps(text)) for text in documents]
    data = "\n".join(lines).encode() + b"\n"
    (tmp_path / file).write_bytes(corpora.COMPRESSORS["." + file.rpartition(".")[2]](data))
    package.prepare([str(tmp_path)], out=tmp_path / "out", val_fraction=0, check=0, **options)
    assert decoded(Outcome(tmp_path / "out")) == documents
