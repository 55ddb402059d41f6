"""What it takes to decompress: large windows of zstd, large dictionaries of xz.

A small file can ask for gigabytes. It is read where ``--memory`` allows; else the error, or the
record, says how much it takes, and the options that it advises are tried here as they stand.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import tokenmill as package
from tests.kit import corpora
from tests.kit.outcome import Outcome
from tests.sources.test_inputs import decoded
from tokenmill.commands.verify import verify
from tokenmill.errors import TokenmillError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DOCUMENTS = [f"document {number}, in some words" for number in range(60)]
LINES = [corpora.jsonl(DOCUMENTS[start : start + 20]) for start in range(0, 60, 20)]
ALL = b"".join(LINES)
LITTLE = 256
"""Megabytes: what a run of one thread needs, and little more."""


def long(data: bytes, window_log: int) -> bytes:
    """A frame as ``zstd --ultra --long=N`` writes it from a pipe: its header tells no size."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    frame: bytes = packer.compress(data) + packer.flush()
    return frame


def skippable(size: int, number: int = 0) -> bytes:
    return (0x184D2A50 + number).to_bytes(4, "little") + size.to_bytes(4, "little") + bytes(size)


def xz(data: bytes, dictionary: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": dictionary}]
    return lzma.compress(data, lzma.FORMAT_XZ, filters=filters)


FIRST = {
    **{f"window {log}.zst": long(ALL, log) for log in (28, 31)},
    "behind skippable frames.zst": skippable(40_000) + skippable(0, 15) + long(ALL, 28),
    "dictionary 256 MiB.xz": xz(ALL, 256 << 20),
    "dictionary 1536 MiB.xz": xz(ALL, 1536 << 20),
}
LATER = {
    "one of three frames.zst": corpora.zst(LINES[0]) + long(LINES[1], 28) + corpora.zst(LINES[2]),
    "ever larger.zst": corpora.zst(LINES[0]) + long(LINES[1], 29) + long(LINES[2], 30),
    "between skippable frames.zst": corpora.zst(LINES[0]) + skippable(9) + long(LINES[1], 31)
    + skippable(70_000) + corpora.zst(LINES[2]),
    "the second stream.xz": xz(LINES[0], 1 << 20) + xz(b"".join(LINES[1:]), 512 << 20),
}  # fmt: skip


def prepare(path: Path, out: Path, **options: Any) -> Outcome:
    package.prepare([str(path)], out=out, val_fraction=0, check=0, **options)
    return Outcome(out)


def advised(text: str) -> dict[str, Any]:
    """The options that an error or a record advises, and no others than these."""
    found = re.search(r"--memory (\d+)MB(?: --workers (\d+))?(?!\S)", text)
    assert found, text
    options: dict[str, Any] = {"memory": f"{found[1]}MB"}
    return options | ({"workers": int(found[2])} if found[2] else {})


@pytest.mark.parametrize("threads", [None, 2])
@pytest.mark.parametrize("name", FIRST | LATER)
def test_advice_followed_to_the_letter_reads_it(
    name: str, threads: int | None, tmp_path: Path
) -> None:
    path = tmp_path / f"x.jsonl{Path(name).suffix}"
    path.write_bytes((FIRST | LATER)[name])
    given: dict[str, Any] = {"threads": threads, "memory": f"{LITTLE}MB"}
    frames = 2 if name.startswith("ever") else 1
    for _ in range(frames):  # each is known when the one before was read
        with pytest.raises(TokenmillError, match="to decompress it takes") as caught:
            prepare(path, tmp_path / "out", **given)
        assert str(path) in str(caught.value.where) and "corrupt" not in str(caught.value)
        with pytest.raises(TokenmillError) as planned:
            package.plan([str(path)], val_fraction=0, **given)
        assert planned.value.what == caught.value.what
        given |= advised(str(caught.value.fix))
    found = prepare(path, tmp_path / "out", **given)
    assert decoded(found) == DOCUMENTS


@pytest.mark.parametrize("name", LATER)
def test_what_cannot_be_read_is_a_record_that_tells_how_it_can(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.jsonl{Path(name).suffix}"
    path.write_bytes(LATER[name])
    found = prepare(path, tmp_path / "out", memory=f"{LITTLE}MB", on_bad="quarantine")
    assert decoded(found) == DOCUMENTS[:20]
    assert found.manifest["quarantine"]["reasons"] == {"too-large": 1}
    (record,) = map(json.loads, (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines())
    assert record["offset"] + record["length"] == path.stat().st_size
    with pytest.raises(TokenmillError, match="could not hold"):  # with more memory it is another
        list(verify(tmp_path / "out", against=[str(path)]))
    given = advised(record["detail"])
    read = prepare(path, tmp_path / "again", on_bad="quarantine", **given)
    if not name.startswith("ever"):
        assert decoded(read) == DOCUMENTS and not read.manifest["quarantine"]["reasons"]


def test_among_other_files_it_is_left_out_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(LINES[0])
    (folder / "b.jsonl.zst").write_bytes(FIRST["window 31.zst"])
    (folder / "c.jsonl.xz").write_bytes(FIRST["dictionary 1536 MiB.xz"])
    with pytest.raises(TokenmillError, match="2 of 3 input files") as caught:
        prepare(folder, tmp_path / "out", memory=f"{LITTLE}MB")
    assert "b.jsonl.zst" in str(caught.value) and "c.jsonl.xz" in str(caught.value)
    found = prepare(folder, tmp_path / "out", memory=f"{LITTLE}MB", on_bad="quarantine")
    assert found.manifest["quarantine"]["reasons"] == {"too-large": 2}
    assert decoded(found) == DOCUMENTS[:20]


def test_text_as_one_document_with_its_end_for_validation(tmp_path: Path) -> None:
    """Its size is found by decompressing it once before."""
    path = tmp_path / "x.txt.zst"
    path.write_bytes(corpora.zst(b"first words\n" * 900) + long(b"other words\n" * 900, 29))
    options: dict[str, Any] = {"val_fraction": 0.1, "check": 0, "out": tmp_path / "out"}
    with pytest.raises(TokenmillError, match="to decompress it takes") as caught:
        package.prepare([str(path)], memory=f"{LITTLE}MB", **options)
    package.prepare([str(path)], **options, **advised(str(caught.value.fix)))
    (tmp_path / "plain.txt").write_bytes(b"first words\n" * 900 + b"other words\n" * 900)
    options["out"] = tmp_path / "plain"
    package.prepare([str(tmp_path / "plain.txt")], **options)
    assert Outcome(tmp_path / "out").hashes == Outcome(tmp_path / "plain").hashes


@pytest.mark.parametrize("name", ["window 31.zst", "dictionary 1536 MiB.xz", *LATER])
def test_it_is_compared_with_its_input(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.jsonl{Path(name).suffix}"
    path.write_bytes((FIRST | LATER)[name])
    prepare(path, tmp_path / "out", memory="5GB", threads=1)
    assert not list(verify(tmp_path / "out", against=[str(path)], share=1.0))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("-9e.xz", lzma.compress(ALL, preset=9 | lzma.PRESET_EXTREME)),
        ("window 27.zst", long(ALL, 27)),
        ("a frame that tells its size.zst", zstd.compress(ALL, level=22)),
        ("many frames.zst", b"".join(map(corpora.zst, LINES)) + skippable(3)),
        ("empty frames.zst", corpora.zst(b"") + corpora.zst(ALL) + corpora.zst(b"")),
    ],
)  # fmt: skip
def test_what_everybody_writes_needs_no_more(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"x.jsonl{Path(name).suffix}"
    path.write_bytes(data)
    assert decoded(prepare(path, tmp_path / "out", memory="300MB")) == DOCUMENTS


@pytest.mark.parametrize("place", [0, 1])
def test_a_dictionary_of_ones_own_is_named(place: int, tmp_path: Path) -> None:
    trained = zstd.train_dict(ALL.splitlines(keepends=True) * 20, 2000)
    frame = zstd.compress(LINES[1], zstd_dict=trained)
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(b"".join([corpora.zst(LINES[0])][:place]) + frame)
    with pytest.raises(TokenmillError) as caught:
        prepare(path, tmp_path / "out")
    told = str(caught.value)
    assert f"with a dictionary (number {trained.dict_id})" in told and "zstd -d -D" in told
    assert "corrupt" not in told
