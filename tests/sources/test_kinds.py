"""What an input is: by its name, by `--kind`, and by a second look at its first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import sqlite3
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tokenmill as package
from tests.conftest import Run, command_environment
from tests.kit import corpora, fake_stores, texts
from tests.kit.outcome import Outcome
from tests.sources.test_inputs import decoded
from tests.stores.test_standard_input import prepare as prepare_pipe
from tokenmill.commands.verify import verify
from tokenmill.dataset.identity import fingerprint
from tokenmill.dataset.spec import Spec
from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.kinds.content import HEAD_BYTES, contradiction
from tokenmill.kinds.suffixes import KindRule
from tokenmill.sources.inputs import Selection, find_inputs
from tokenmill.text import charset

DOCUMENTS = [f"{number} and some words, more or less" for number in range(20)]
JSONL = corpora.jsonl(DOCUMENTS)
OPTIONS: dict[str, Any] = {"val_fraction": 0}
SAID = ("--val-fraction", "0")
"""The same on the command line."""


def prepared(*inputs: Path, out: Path, **options: Any) -> list[str]:
    """The documents of what comes of some inputs."""
    package.prepare([str(path) for path in inputs], out=out, **OPTIONS, **options)
    return documents(out)


def documents(out: Path) -> list[str]:
    """The documents of a dataset."""
    return decoded(Outcome(out))


def refused(path: Path, out: Path, **options: Any) -> str:
    """The error of an input, which comes before anything is written."""
    told = []
    calls: tuple[Any, ...] = (package.plan, package.prepare)
    for call in calls:
        with pytest.raises(TokenmillError) as error:
            call([str(path)], **({"out": out} if call is package.prepare else {}), **options)
        told.append(str(error.value))
    assert told[0] == told[1] and "fix: " in told[0]
    assert not out.exists() or not list(out.glob("*.bin"))
    return told[0]


# --- by the name, and by --kind ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.json", "a.json.gz", "a.jsonlines", "a.jsonl.zstd", "a.JSON.GZIP", "a.json.zst"]
)
def test_json_lines_under_all_their_names(name: str, tmp_path: Path) -> None:
    from backports import zstd  # type: ignore[import-not-found,unused-ignore]

    last = name.lower().rpartition(".")[2]
    compressors: dict[str, Any] = {"gz": gzip.compress, "gzip": gzip.compress,
                                   "zst": zstd.compress, "zstd": zstd.compress}  # fmt: skip
    data = compressors.get(last, bytes)(JSONL)
    (tmp_path / name).write_bytes(data)
    assert prepared(tmp_path / name, out=tmp_path / "out") == DOCUMENTS


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("shard-00017", JSONL, "jsonl"),
        ("a.txt", JSONL, ["jsonl=*.txt"]),
        ("a.log", gzip.compress(JSONL), ["jsonl.gz=*.log", "text"]),
        ("a.log.gz", gzip.compress(JSONL), "jsonl"),
        ("a.txt", gzip.compress(JSONL), "jsonl.gz"),
    ],
)
def test_kind_says_what_no_name_tells(name: str, data: bytes, kind: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert prepared(tmp_path / name, out=tmp_path / "out", kind=kind) == DOCUMENTS
    outcome = Outcome(tmp_path / "out")
    assert outcome.manifest["spec"]["kind"] == ([kind] if isinstance(kind, str) else kind)
    assert not list(verify(tmp_path / "out", against=[str(tmp_path / name)], share=1.0))
    # Again: it is done; and with another kind it is another dataset.
    assert prepared(tmp_path / name, out=tmp_path / "out", kind=kind) == DOCUMENTS


def test_a_parquet_file_by_another_name(tmp_path: Path) -> None:
    path = tmp_path / "part-0"
    corpora.write_parquet(path, DOCUMENTS)
    assert prepared(path, out=tmp_path / "out", kind="parquet=part-*") == DOCUMENTS


def test_text_may_be_anything_that_is_utf8(tmp_path: Path) -> None:
    for name, text in {"a.csv": "a,b\n1,2\n", "b.jsonl": '[\n {"text": 1}\n]\n'}.items():
        (tmp_path / name).write_text(text)
        out = tmp_path / f"{name}.out"
        assert prepared(tmp_path / name, out=out, kind="text") == [text]


def test_rules_are_held_in_order_and_those_for_nothing_are_named(tmp_path: Path) -> None:
    kinds = ("text", "jsonl=*.log", "parquet=*/x/*", "text=a.log")
    selection = Selection(kinds=tuple(map(KindRule.of, kinds)))
    for path, kind in {"d/a.log": "jsonl", "d/x/y": "parquet", "d/z.jsonl": "text"}.items():
        assert selection.kind_of(path) == (kind, None)
    assert Selection().kind_of("a.log") is None
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UsageError, match="is for no input"):
        package.plan(str(tmp_path / "a.txt"), kind="text=*.md")
    for wrong in ("json", "text.rar", "parquet.gz", "text=", "", "a=b"):
        with pytest.raises(UsageError, match="no kind of input"):
            Spec.of({"kind": wrong})
    with pytest.raises(UsageError, match="only one kind"):
        Spec.of({"kind": ["text", "jsonl"]})


def test_without_kind_the_fingerprint_is_as_it_was() -> None:
    spec = Spec.of({})
    assert "kind" not in spec.as_dict()
    assert Spec.restored(spec.as_dict()) == spec
    told = Spec.of({"kind": ["text=*.a"]})
    assert Spec.restored(json.loads(json.dumps(told.as_dict()))) == told
    assert fingerprint(spec, {}, []) != fingerprint(told, {}, [])
    # As the release before --kind gave it.
    assert fingerprint(spec, {}, []) == BEFORE


BEFORE = "1f10ec5aa15a48f1b753171cd56a04981bdbe61ff93028c8d05dc33b6f5185b4"


# --- what a folder holds beside data -------------------------------------------------------------


def test_json_that_is_no_lines_is_passed_over_in_a_folder_and_named_by_name(
    tmp_path: Path, tokenmill: Run
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.json").write_bytes(JSONL)
    (folder / "info.json").write_text(json.dumps({"rows": 20}, indent=1))
    (folder / "short.json").write_text('{"rows": 20}')
    (folder / "one.json").write_text('{"text": "one"}')
    done = tokenmill("prepare", folder, "--out", tmp_path / "out", *SAID)
    assert done.rc == 0, done.stderr
    assert done.stderr.count("no JSON Lines") == 2
    assert documents(tmp_path / "out") == [*DOCUMENTS, "one"]
    assert "jq -c ." in refused(folder / "info.json", tmp_path / "no")
    (folder / "a.json").unlink()
    (folder / "one.json").unlink()
    assert "no JSON Lines" in refused(folder, tmp_path / "no")


# --- the second look -----------------------------------------------------------------------------


def archive(kind: str) -> bytes:
    """An archive with one text in it."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.txt", "text")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(__file__)
    return buffer.getvalue()


def table(kind: str) -> bytes:
    buffer = io.BytesIO()
    columns = pa.table({"text": DOCUMENTS})
    if kind == "parquet":
        pq.write_table(columns, buffer)
    else:
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with new(buffer, columns.schema) as writer:
            writer.write_table(columns)
    return buffer.getvalue()


def database(folder: Path) -> bytes:
    with sqlite3.connect(folder / "x.sqlite") as connection:
        connection.execute("CREATE TABLE t (text)")
    connection.close()
    return (folder / "x.sqlite").read_bytes()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(4))
    return buffer.getvalue()


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PROSE = texts.SENTENCES["english"] * 3
TENSORS = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FOUND = {
    "tar": (archive("tar"), "a tar archive", "tar -xf"),
    "zip": (archive("zip"), "a zip archive", "unzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(50), "a 7z archive", "7z x"),
    "gzip": (gzip.compress(JSONL), "compressed (.gz)", "--kind text.gz="),
    "bzip2": (bz2.compress(JSONL), "compressed (.bz2)", "--kind text.bz2="),
    "xz": (lzma.compress(JSONL), "compressed (.xz)", "--kind text.xz="),
    "parquet": (table("parquet"), "a parquet file", "--kind parquet"),
    "arrow": (table("arrow"), "an Arrow file", "parquet"),
    "arrow stream": (table("stream"), "an Arrow file", "parquet"),
    "elf": (Path(sys.executable).resolve().read_bytes()[:99], "a program", "leave it out"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document", "pdftotext"),
    "pickle": (pickle.dumps(DOCUMENTS), "a Python pickle", "leave it out"),
    "npy": (array(), "a NumPy array", "leave it out"),
    "safetensors": (struct.pack("<Q", len(TENSORS)) + TENSORS, "safetensors", "leave it out"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(9), "a picture", "leave it out"),
    "lfs": (POINTER, "a pointer of Git LFS", "git lfs pull"),
    "binary": (struct.pack("<500I", *range(500)), "binary data", "leave it out"),
    "utf-16": (PROSE.encode("utf-16"), "text in UTF-16,", "iconv -f UTF-16 "),
    "utf-16-le": (PROSE.encode("utf-16-le"), "UTF-16LE", "iconv -f UTF-16LE "),
    "utf-16-be": (PROSE.encode("utf-16-be"), "UTF-16BE", "iconv -f UTF-16BE "),
    "utf-32": (PROSE.encode("utf-32"), "text in UTF-32,", "iconv -f UTF-32 "),
    "utf-32-be": (PROSE.encode("utf-32-be"), "UTF-32BE", "iconv -f UTF-32BE "),
    "short": ("ab,\n".encode("utf-16-le"), "UTF-16LE", "iconv -f UTF-16LE "),
}
JSON_ONLY = {
    "array": (json.dumps([{"text": "a"}] * 3).encode(), "one JSON array", "jq -c '.[]'"),
    "long array": (json.dumps([{"text": "a" * 99}] * 999).encode(), "one JSON array", "jq -c"),
    "pretty array": (json.dumps([{"text": "a"}], indent=2).encode(), "one JSON array", "jq -c"),
    "pretty": (json.dumps({"text": "a"}, indent=2).encode(), "several lines", "jq -c ."),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "an HTML page", "fetch the file"),
}


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("name", FOUND)
def test_what_is_no_text_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    data, noun, fix = FOUND[name]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    told = refused(path, tmp_path / "out")
    assert noun in told and fix in told, told
    assert "latin1" not in told and "rename it to end in .txt" not in told


@pytest.mark.parametrize("name", JSON_ONLY)
def test_json_that_is_no_lines_is_named(name: str, tmp_path: Path) -> None:
    data, noun, fix = JSON_ONLY[name]
    for suffix in (".jsonl", ".json", ".json.gz"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
        told = refused(path, tmp_path / "out")
        assert noun in told and fix in told, told
    (tmp_path / "x.txt").write_bytes(data)
    assert prepared(tmp_path / "x.txt", out=tmp_path / "text") == [data.decode()]


def test_a_database_and_a_pointer_in_the_place_of_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(database(tmp_path))
    assert "an SQLite database" in refused(tmp_path / "x.txt", tmp_path / "out")
    (tmp_path / "x.parquet").write_bytes(POINTER)
    assert "git lfs pull" in refused(tmp_path / "x.parquet", tmp_path / "out")


TEXTS = {
    **{f"{name}": text for name, text in texts.SENTENCES.items()},
    "commas": "a,b,c\n1,2,3\n" * 500,
    "a table": "a\tb\n1\t2\n" * 500,
    "a page": "<!DOCTYPE html><html><body>text</body></html>",
    "an array": '[{"text": 1}]',
    "about formats": "PAR1 and BZh9 and GIF, PK, ustar, %PDF and Rar! are how files begin.",
    "parquet's mark alone": "PAR1",
    "colours": "\x1b[31mred\x1b[0m plain\n" * 300,
    "a form feed a page": ("words on a page\n" * 10 + "\f\n") * 30,
    "a NUL here and there": "some words that are divided by\0" * 300,
    "two bytes": "\0\1",
    "source": "{\n  int x = 1;\n}\n",
    "one letter": "M",
    "empty": "",
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_may_be_text_is_read(name: str) -> None:
    more = TEXTS[name] * (50 if len(TEXTS[name]) > 2 else 1)
    for data in (TEXTS[name].encode(), more.encode()[:HEAD_BYTES]):
        assert contradiction("text", data, False) is None
        line = json.dumps({"text": TEXTS[name]}).encode() + b"\n"
        assert contradiction("jsonl", line * 3, False) is None


def test_a_table_is_told_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,n\nabc,1\n")
    told = refused(tmp_path / "x.csv", tmp_path / "out")
    assert "a table of values" in told and "read_csv" in told and "--kind text" in told
    assert ".txt" not in told.partition("fix:")[2]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("x.tar", archive("tar"), "a tar archive"),
        ("x.tar.gz", gzip.compress(archive("tar")), "compressed"),
        ("prog", b"\x7fELF" + bytes(99), "a program"),
        ("x.docx", archive("zip"), "a zip archive"),
        ("data", JSONL, "--kind jsonl"),
        ("data", b"only words", "--kind text"),
        ("data", table("parquet"), "--kind parquet"),
    ],
)
def test_a_file_of_no_known_name_is_named_by_what_it_holds(
    name: str, data: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    found = refused(tmp_path / name, tmp_path / "out")
    assert told in found and "rename it to end in .txt" not in found


# --- encodings -----------------------------------------------------------------------------------

ENCODED = {
    "gbk": ("中国的历史很长，我们这里的人都说今天天气很好，大家一起去公园里散步。", "GB18030"),
    "shift_jis": ("私たちは今日、公園に行って花を見ました。とてもきれいでした。", "SHIFT_JIS"),
    "euc_jp": ("私たちは今日、公園に行って花を見ました。とてもきれいでした。", "EUC-JP"),
    "euc_kr": ("우리는 오늘 공원에 가서 꽃을 보았습니다. 매우 아름다웠습니다.", "EUC-KR"),
    "big5": ("我們這裡的人都說今天天氣很好，大家一起去公園裡散步，看到了許多花。", "BIG5"),
    "cp1251": ("Сегодня хорошая погода, и мы пошли в парк посмотреть на цветы. ", "windows-1251"),
    "koi8-r": ("Сегодня хорошая погода, и мы пошли в парк посмотреть на цветы. ", "KOI8-R"),
    "cp1252": ("Tous les êtres humains naissent libres et égaux en dignité. ", "windows-1252"),
    "cp1250": ("Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti. ", None),
    "cp1253": ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στα δικαιώματα. ", None),
    "utf-16-be": ("私たちは今日、公園に行って花を見ました。とてもきれいでした。", "UTF-16BE"),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_advice_names_an_encoding_only_where_the_bytes_fit_it(
    encoding: str, tmp_path: Path
) -> None:
    sentence, name = ENCODED[encoding]
    (tmp_path / "x.txt").write_bytes((sentence * 40).encode(encoding))
    with pytest.raises(InputError) as error:
        prepared(tmp_path / "x.txt", out=tmp_path / "out")
    fix = str(error.value).partition("fix: ")[2]
    assert f"iconv -f {name or 'THAT'} -t UTF-8" in fix, fix
    assert "latin1" not in fix


def test_utf8_with_a_damaged_byte_is_not_taken_for_another_encoding() -> None:
    for sentence in ("Tous les êtres humains, égaux, à côté. ", ENCODED["gbk"][0]):
        sample = (sentence * 20).encode() + b"\xff" + (sentence * 20).encode()
        assert charset.guess(sample) == "UTF-8"
        assert "the rest is UTF-8" in charset.advice(sample, "x")


# --- pipes ---------------------------------------------------------------------------------------

BROKEN = b'{"text": "cut sho\n' + JSONL


def test_a_pipe_whose_first_line_is_broken_is_not_taken_for_text(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for data in (BROKEN, b'rt", "id": 7}\n' + JSONL, b"\xef\xbb\xbf" + BROKEN):
        done = prepare_pipe(data, "--out", out, *SAID, "--quiet")
        assert done.rc == 1 and "--kind jsonl" in done.stderr, done.stderr
    told = ("--out", out, *SAID, "--kind", "jsonl")
    named = prepare_pipe(BROKEN, *told)
    assert named.rc == 1 and "-:1, byte" in named.stderr
    left = prepare_pipe(BROKEN, *told, "--on-bad", "quarantine")
    assert left.rc == 3 and documents(out) == DOCUMENTS
    text = ("--kind", "text", "--documents", "line")
    asked = prepare_pipe(BROKEN, "--out", tmp_path / "t", *SAID, *text)
    assert asked.rc == 0, asked.stderr
    assert documents(tmp_path / "t") == BROKEN.decode().splitlines()


@pytest.mark.parametrize("name", ["tar", "utf-16-le", "parquet", "lfs"])
def test_a_pipe_is_looked_at_too(name: str, tmp_path: Path) -> None:
    done = prepare_pipe(FOUND[name][0], "--out", tmp_path / "out", *SAID)
    assert done.rc == 1 and FOUND[name][1] in done.stderr, done.stderr
    done = prepare_pipe(JSON_ONLY["pretty array"][0], "--out", tmp_path / "out", *SAID)
    assert done.rc == 1 and "one JSON array" in done.stderr


def test_pipes_by_their_paths(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(JSONL)
    script = (
        f'"{sys.executable}" -m tokenmill prepare <(cat {path}) <(cat {path}) --kind jsonl '
        f"--out {tmp_path}/out --val-fraction 0"
    )
    done = subprocess.run(
        ["bash", "-c", script], env=command_environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert documents(tmp_path / "out") == DOCUMENTS * 2
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(["bash", "-c", f"cat {path} > {tmp_path}/fifo"]):
        assert prepared(tmp_path / "fifo", out=tmp_path / "named") == DOCUMENTS


# --- what is stored is what is read --------------------------------------------------------------


def test_objects_that_are_stored_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("gs", "az"):
        with fake_stores.served(scheme, tmp_path) as store:
            for name, value in store.env.items():
                monkeypatch.setenv(name, value)
            stored = gzip.compress(JSONL)
            store.put("a.jsonl", stored, "gzip")
            store.put("b.jsonl.gz", stored, "gzip")
            (file,) = find_inputs([store.url("a.jsonl")]).files
            assert file.store.open(file).read(0, file.size) == stored
            with pytest.raises(InputError, match=r"compressed \(\.gz\)"):
                package.plan(store.url("a.jsonl"))
            for key, kind in (("a.jsonl", "jsonl.gz"), ("b.jsonl.gz", None)):
                out = tmp_path / scheme / key
                package.prepare(store.url(key), out=out, kind=kind, **OPTIONS)
                assert documents(out) == DOCUMENTS
                assert not list(verify(out, against=[store.url(key)], share=1.0))
