"""Many files: what is known of each is small, counted in the budget, and can be read back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

import tokenmill as mill
from tests.conftest import Run
from tokenmill.batches import Counts
from tokenmill.dataset.identity import fingerprint
from tokenmill.dataset.manifest import Input, load_manifest
from tokenmill.dataset.spec import Spec
from tokenmill.errors import UsageError
from tokenmill.memory import Budget, Listing, TooManyFiles, listed_bytes
from tokenmill.output.journal import (
    Checkpoint,
    OpenFile,
    RunBegun,
    parse_journal,
    read_journal,
    to_line,
)
from tokenmill.stores import Selection, disk_reads, expand

AWKWARD = "".join(map(chr, [*range(1, 128), 0x80, 0x9F, 0xA0, 0x2028, 0xFEFF, 0x1F600]))


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
def test_a_manifest_in_pieces_is_the_one_that_json_writes(count: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.")
    manifest = mill.prepare(tmp_path / "a.txt", out=tmp_path / "out", check=0.00001)
    manifest.inputs = [
        Input(f"{AWKWARD}/{n}", "text", None if n % 2 else ".gz", n, -n, f"{n:x}")
        for n in range(count)
    ]
    plain = msgspec.to_builtins(manifest)
    expected = json.dumps(plain, indent=2, ensure_ascii=False).encode() + b"\n"
    assert manifest.to_json() == expected
    digest = hashlib.sha256(expected).hexdigest()
    assert f"{digest}  manifest.json\n".encode() in manifest.sha256sums()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_fingerprint_is_the_hash_of_the_canonical_json(count: int) -> None:
    spec, tokenizer = Spec.of({"documents": 'separator:"inputs":['}), {"name": '"inputs":[]'}
    inputs = [{"path": f"{AWKWARD}{n}", "size": n, "kind": None} for n in range(count)]
    plain = {**spec.as_dict(), "tokenizer": tokenizer, "inputs": inputs, "pattern": None}
    del plain["eot_token"]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found = fingerprint(spec, tokenizer, iter(inputs))
    assert found == hashlib.sha256(text.encode()).hexdigest()


def test_a_journal_of_many_inputs_is_read_back() -> None:
    inputs = [Input(f"{AWKWARD}/{n}", "text", None, n, n, "0") for n in range(3000)]
    run = RunBegun(1, "0", "f", {}, {}, inputs, [], "")
    line = to_line(run)
    for content in (bytes(line), bytes(line) + line[:500]):
        log = parse_journal(content, "here")
        assert log is not None
        assert log.run == run
    assert parse_journal(bytes(line[:-1]), "here") is None


def test_the_journal_of_a_run_of_weeks_is_read_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint every two seconds: 300 MB in ten days."""
    numbers = dict.fromkeys(vars(Counts()), 10**9)
    state = {"position": 10**12, "disk": 10**12}
    files = [OpenFile("train.bin", 10**12, "a" * 64)]
    at = Checkpoint(0, state, 0, files, 0, "train", {}, 10**12, numbers, {}, 1, 1, 1.0)
    (tmp_path / ".tokenmill").mkdir()
    with open(tmp_path / ".tokenmill" / "journal", "wb") as file:
        file.write(to_line(RunBegun(1, "0", "f", {}, {}, [], [], "")))
        file.write(bytes(to_line(at)) * 10_000)
        size = file.tell()
    monkeypatch.setattr(disk_reads, "MOST_BYTES", 10_000)
    tracemalloc.start()
    log = read_journal(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 500_000 < size
    tracemalloc.stop()
    assert log is not None
    assert (log.checkpoint, log.size) == (at, size)


def test_the_reader_takes_a_manifest_of_a_million_files() -> None:
    """About 400 bytes each with a long path."""
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 4 * 10**9:
        pytest.skip("this machine has little memory")
    assert disk_reads.MOST_BYTES >= 400 * 10**6


def test_each_file_is_counted_in_the_budget() -> None:
    assert listed_bytes(["short"] * 1000) == 0
    short, long = listed_bytes(["a" * 30] * 101_000), listed_bytes(["a" * 250] * 101_000)
    assert 80 * 10**6 < short < long < 200 * 10**6
    assert Budget.of(10**9, 1, listed=long).floor == Budget.of(10**9, 1).floor + long
    with pytest.raises(UsageError, match="too little") as caught:
        Budget.of(300 * 10**6, 1, listed=long)
    assert "for the list of input files" in str(caught.value)


class ManyEntries:
    """A stand-in for a folder of so many files: to make them would take minutes."""

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name

    def __enter__(self) -> Iterator[SimpleNamespace]:
        names = (f"{n}{self._name}" for n in range(self._count))
        return (SimpleNamespace(name=name, is_dir=lambda: False) for name in names)

    def __exit__(self, *_: object) -> None:
        pass


def test_a_listing_that_memory_cannot_hold_is_counted_and_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda path: ManyEntries(10_000, "a.txt"))
    listing = Listing(10**6)
    tracemalloc.start()
    with pytest.raises(TooManyFiles):
        expand(str(tmp_path), Selection(listing=listing))
    assert tracemalloc.get_traced_memory()[1] < 1.5 * 10**6
    tracemalloc.stop()
    assert listing.bytes > 10_000 * 850


def test_a_run_over_too_many_files_names_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda path: ManyEntries(150_000, "a" * 200 + ".txt"))
    with pytest.raises(UsageError, match="too little") as caught:
        mill.plan(tmp_path, memory="200MB", threads=1)
    assert "for the list of input files" in str(caught.value)
    told = re.search(r"fix: --memory (\d+)MB", str(caught.value))
    assert told and 350 < int(told[1]) < 450


def test_paths_are_those_of_pathlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/c.txt", "a.txt", "b/d/é.txt", "b/.hidden.txt", ".b/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for argument in (".", "./b", "b/", "b//d", str(tmp_path), "*", "./*/"):
        found = [file.path for file in expand(argument).files]
        assert found, argument
        assert found == [str(Path(path)) for path in found]
    assert [file.path for file in expand(".").files] == ["a.txt", "b/c.txt", "b/d/é.txt"]


def test_some_thousand_files(tmp_path: Path, tokenmill: Run) -> None:
    for number in range(3000):
        (tmp_path / f"{number:05d}.txt").write_text(f"Document {number}.\n")
    out = tmp_path / "out"
    done = tokenmill("prepare", tmp_path, "--out", out, "--memory", "256MB", "--quiet")
    assert done.rc == 0, done.stderr
    assert load_manifest(out).counts["documents"] == 3000
    assert tokenmill("verify", out).rc == 0
