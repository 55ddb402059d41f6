"""What fuzzing found (tests/torture/fuzz.py), each with its smallest input.

Only a TokenmillError may come of a manifest, a journal, a vocabulary or an option, whatever is in
it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

import tokenmill
from tests.kit import sized
from tests.kit.shared import GPT2_RANKS
from tokenmill import quantities
from tokenmill.commands.inspect import describe, text_at_token, text_of_document
from tokenmill.commands.verify import verify
from tokenmill.dataset.manifest import load_manifest
from tokenmill.dataset.reader import DatasetReader
from tokenmill.errors import DamageFound, LimitReached, TokenmillError, UsageError
from tokenmill.output import folder
from tokenmill.sizes import Sizes
from tokenmill.stores import disk_reads
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

OPTIONS: dict[str, Any] = {
    "val_fraction": 0.0, "shard_tokens": 300, "threads": 1, "check": 0.0, "engine": "tiktoken",
    "documents": "line",
}  # fmt: skip
Edit = Callable[[Any], None]
prepare = functools.partial(sized.prepare, sizes=Sizes(block=2000))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("one line and another\n" * 400)
    return path


@pytest.fixture
def done(corpus: Path, tmp_path: Path) -> Path:
    """A finished dataset."""
    tokenmill.prepare(corpus, out=tmp_path / "out", **OPTIONS)
    return tmp_path / "out"


@pytest.fixture
def begun(corpus: Path, tmp_path: Path) -> Path:
    """A run that stopped inside a shard."""
    with pytest.raises(LimitReached):
        prepare(corpus, out=tmp_path / "out", **OPTIONS, max_time=1e-9)
    return tmp_path / "out"


def edit_manifest(folder: Path, edit: Edit) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def edit_checkpoint(folder: Path, edit: Edit) -> None:
    """Change the journal's last entry, with the right checksum for it."""
    path = folder / ".tokenmill" / "journal"
    lines = path.read_bytes().splitlines()
    entry = json.loads(lines[-1].partition(b" ")[2])
    assert entry["type"] == "checkpoint"
    edit(entry)
    changed = json.dumps(entry).encode()
    lines[-1] = xxhash.xxh3_64_hexdigest(changed).encode() + b" " + changed
    path.write_bytes(b"".join(line + b"\n" for line in lines))


# --- manifests ---------------------------------------------------------------------------------


def test_a_manifest_that_is_nested_deeply_is_damaged(done: Path) -> None:
    content = (done / "manifest.json").read_text()
    deep = "[" * 100_000 + "]" * 100_000
    (done / "manifest.json").write_text(content.replace('"spec": {', f'"spec": {{"x": {deep},', 1))
    with pytest.raises(DamageFound, match="damaged"):
        load_manifest(done)


@pytest.mark.parametrize("key", ["name", "sha256", "pattern", "end_of_text", "largest_id"])
def test_a_manifest_tells_its_tokenizer(done: Path, key: str) -> None:
    edit_manifest(done, lambda manifest: manifest["tokenizer"].pop(key))
    with pytest.raises(DamageFound, match=f"tokenizer has no {key}"):
        load_manifest(done)


def test_a_manifest_tells_its_counts(corpus: Path, done: Path) -> None:
    edit_manifest(done, lambda manifest: manifest.update(counts={}))
    with pytest.raises(DamageFound, match="does not count documents"):
        tokenmill.prepare(corpus, out=done, **OPTIONS)


@pytest.mark.parametrize("number", [-1, 2**64, 10**400])
def test_a_manifest_counts_what_can_be_counted(done: Path, number: int) -> None:
    edits: list[Edit] = [
        lambda manifest: manifest["counts"].update(tokens=number),
        lambda manifest: manifest["shards"][0].update(tokens=number),
        lambda manifest: manifest["tokenizer"].update(end_of_text=number),
    ]
    content = (done / "manifest.json").read_bytes()
    for edit in edits:
        (done / "manifest.json").write_bytes(content)
        edit_manifest(done, edit)
        with pytest.raises(DamageFound, match="damaged"):
            load_manifest(done)


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "train_000000.bin"])
def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(done: Path, name: str) -> None:
    size = (done / name).stat().st_size
    (done / name).unlink()
    os.mkfifo(done / name)
    if name.endswith(".bin"):  # a pipe's size is 0
        edit_manifest(done, lambda manifest: manifest["shards"][0].update(bytes=0))
    assert size
    with contextlib.suppress(DamageFound):
        assert name in {problem.name for problem in verify(done)}
    with contextlib.suppress(DamageFound):
        describe(DatasetReader.at(done))


def test_a_device_in_the_place_of_a_shard_has_no_end(done: Path) -> None:
    name = "train_000000.bin"
    (done / name).unlink()
    (done / name).symlink_to("/dev/zero")
    edit_manifest(done, lambda manifest: manifest["shards"][0].update(bytes=0, tokens=0))
    assert ("changed", name) in {(problem.kind, problem.name) for problem in verify(done)}


def test_a_folder_in_the_place_of_a_shard_is_damage(done: Path) -> None:
    name = "train_000000.bin"
    (done / name).unlink()
    (done / name).mkdir()
    size = (done / name).stat().st_size
    edit_manifest(done, lambda manifest: manifest["shards"][0].update(bytes=size))
    assert ("changed", name) in {(problem.kind, problem.name) for problem in verify(done)}


def test_a_shard_that_grew_is_not_shown(done: Path) -> None:
    os.truncate(done / "train_000000.bin", 2**30)
    with pytest.raises(DamageFound, match="the manifest tells 300"):
        text_of_document(DatasetReader.at(done), 0, "train")


def test_a_file_too_large_for_a_manifest_is_not_read(done: Path) -> None:
    os.truncate(done / "manifest.json", disk_reads.MOST_BYTES + 1)
    with pytest.raises(DamageFound, match="larger than"):
        load_manifest(done)


def test_names_too_long_for_any_file_are_damage(corpus: Path, done: Path) -> None:
    edit_manifest(done, lambda manifest: manifest["shards"][0].update(name="x" * 5000))
    assert "unreadable" in {problem.kind for problem in verify(done)}
    with pytest.raises(DamageFound):
        tokenmill.prepare(corpus, out=done, **OPTIONS)
    with pytest.raises(TokenmillError, match="would replace"):
        tokenmill.prepare(corpus, out=done, **OPTIONS, overwrite=True)


def test_a_tokenizer_whose_name_is_too_long_is_not_found(done: Path) -> None:
    with pytest.raises(UsageError, match="there is no tokenizer"):
        load_vocabulary("x" * 5000)
    edit_manifest(done, lambda m: m["tokenizer"].update(name="x" * 5000, sha256="0"))
    with pytest.raises(TokenmillError):
        text_at_token(DatasetReader.at(done), 0, "train")


# --- journals ----------------------------------------------------------------------------------


def change(entry: Any, *path: Any, to: Any) -> None:
    """Put a value at a place in a journal's entry."""
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = to


JOURNAL_LIES: dict[str, Edit] = {
    "counts": lambda e: change(e, "counts", to={"documents": 5}),
    "unknown count": lambda e: change(e, "counts", "nonsense", to=5),
    "more than there is": lambda e: change(e, "done_bytes", to=10**400),
    "less than nothing": lambda e: change(e, "counts", "tokens", to=-5),
    "no seam": lambda e: e["state"].pop("seam"),
    "file": lambda e: change(e, "file", to=7),
    "file before the first": lambda e: change(e, "file", to=-1),
    "state": lambda e: change(e, "state", to={}),
    "state of another type": lambda e: change(e, "state", "position", to="x"),
    "place before the start": lambda e: change(e, "state", "position", to=-5),
    "place behind the end": lambda e: change(e, "state", "position", to=10**6),
    "huge place": lambda e: change(e, "state", "position", to=2**63),
    "shards": lambda e: change(e, "shards", to=9),
    "val_left": lambda e: change(e, "val_left", to=-1),
    "open_split": lambda e: change(e, "open_split", to="test"),
    "split": lambda e: change(e, "open", 0, "shard", "split", to="val"),
    "more tokens than a shard has": lambda e: change(e, "open", 0, "shard", "tokens", to=1000),
    "a full shard": lambda e: change(e, "open", 0, "shard", "tokens", to=300),
    "bytes": lambda e: change(e, "open", 0, "bytes", to=-1),
}


@pytest.mark.parametrize("lie", JOURNAL_LIES)
def test_a_journal_that_cannot_be_is_refused(corpus: Path, begun: Path, lie: str) -> None:
    edit_checkpoint(begun, JOURNAL_LIES[lie])
    with pytest.raises(TokenmillError, match="makes no sense"):
        prepare(corpus, out=begun, **OPTIONS)
    prepare(corpus, out=begun, **OPTIONS, overwrite=True)


def test_an_open_shard_has_no_name_outside_the_folder(corpus: Path, begun: Path) -> None:
    victim = begun.parent / "victim.partial"
    victim.write_text("victim")
    edit_checkpoint(begun, lambda entry: change(entry, "open", 0, "shard", "name", to="../victim"))
    with pytest.raises(TokenmillError, match="outside its folder"):
        prepare(corpus, out=begun, **OPTIONS)
    assert victim.read_text() == "victim"
    assert not (begun.parent / "victim").exists()


def test_shards_that_are_written_twice_count_once(corpus: Path, begun: Path) -> None:
    """Killed after two shards were whole and before the next checkpoint, and then once more."""

    def interrupted() -> None:
        with pytest.raises(LimitReached):
            prepare(corpus, out=begun, **OPTIONS, max_time=1e-9)

    interrupted()
    journal = begun / ".tokenmill" / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    while b'"type":"checkpoint"' in lines[-1]:
        lines.pop()
    assert b'"type":"shard"' in lines[-1]
    journal.write_bytes(b"".join(lines))
    interrupted()
    interrupted()
    found = prepare(corpus, out=begun, **OPTIONS)
    whole = prepare(corpus, out=begun.parent / "whole", **OPTIONS)
    assert found == whole
    assert not list(verify(begun))


def test_the_manifest_is_the_same_when_all_was_encoded_before(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the last token and before the manifest, with shards of both splits."""
    options = OPTIONS | {"val_fraction": 0.3}
    corpus.write_text("".join(f"line {number}\n" for number in range(800)))
    whole = tokenmill.prepare(corpus, out=tmp_path / "whole", **options)

    def fail(*_: object) -> None:
        raise OSError("no manifest yet")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no manifest yet"):
        patch.setattr(folder, "write_durably", fail)
        tokenmill.prepare(corpus, out=tmp_path / "out", **options)
    assert tokenmill.prepare(corpus, out=tmp_path / "out", **options) == whole


@pytest.mark.parametrize("change", ["longer", "shorter", "missing", "a device"])
def test_a_whole_shard_that_was_changed_is_not_published(
    corpus: Path, begun: Path, change: str
) -> None:
    shard = begun / "train_000000.bin.partial"
    data = shard.read_bytes()
    shard.unlink()
    if change == "a device":
        shard.symlink_to("/dev/zero")
    elif change != "missing":
        shard.write_bytes(data + b"more" if change == "longer" else data[:-2])
    with pytest.raises(TokenmillError, match="not what the interrupted run left"):
        prepare(corpus, out=begun, **OPTIONS)
    prepare(corpus, out=begun, **OPTIONS, overwrite=True)
    assert not list(verify(begun))


def test_a_pipe_in_the_place_of_the_journal_holds_up_nobody(corpus: Path, begun: Path) -> None:
    journal = begun / ".tokenmill" / "journal"
    journal.unlink()
    os.mkfifo(journal)
    with pytest.raises(TokenmillError, match="did not write is in the way"):
        prepare(corpus, out=begun, **OPTIONS)


def test_a_folder_in_the_place_of_the_journal_is_told(corpus: Path, begun: Path) -> None:
    journal = begun / ".tokenmill" / "journal"
    journal.unlink()
    journal.mkdir()
    with pytest.raises(TokenmillError, match="did not write is in the way"):
        prepare(corpus, out=begun, **OPTIONS)


@pytest.mark.parametrize("name", [".tokenmill/lock", ".tokenmill"])
def test_links_in_the_state_folder_lead_nowhere(corpus: Path, tmp_path: Path, name: str) -> None:
    out, beside = tmp_path / "out", tmp_path / "beside"
    link, target = out / name, beside / ("victim" if "/" in name else "folder")
    link.parent.mkdir(parents=True)
    target.parent.mkdir()
    target.write_text("victim") if "/" in name else target.mkdir()
    link.symlink_to(target)
    with pytest.raises(TokenmillError, match="did not write is in the way"):
        tokenmill.prepare(corpus, out=out, **OPTIONS)
    if target.is_file():
        assert target.read_text() == "victim"
    else:
        assert not list(target.iterdir())


# --- vocabularies ------------------------------------------------------------------------------


def tokens() -> list[bytes]:
    """The first of GPT-2's tokens: all bytes and a few merges."""
    lines = GPT2_RANKS.read_bytes().splitlines()[:700]
    return [base64.b64decode(line.split()[0]) for line in lines]


def write_vocabulary(path: Path, wanted: list[bytes]) -> Path:
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(wanted)]
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("engine", ["tiktoken", "gigatoken"])
def test_a_vocabulary_has_all_bytes(corpus: Path, tmp_path: Path, engine: str) -> None:
    path = write_vocabulary(tmp_path / "v.tiktoken", [t for t in tokens() if t != b"A"])
    options = OPTIONS | {"tokenizer": str(path), "pattern": "gpt2", "engine": engine}
    with pytest.raises(TokenmillError, match="byte 0x41"):
        tokenmill.prepare(corpus, out=tmp_path / "out", **options)


def test_ranks_in_another_order_are_told_by_gigatoken(corpus: Path, tmp_path: Path) -> None:
    wanted = tokens()
    wanted[0], wanted[600] = wanted[600], wanted[0]
    path = write_vocabulary(tmp_path / "v.tiktoken", wanted)
    options = OPTIONS | {"tokenizer": str(path), "pattern": "gpt2", "engine": "gigatoken"}
    with pytest.raises(TokenmillError, match="the engine gigatoken is not exact"):
        tokenmill.prepare(corpus, out=tmp_path / "out", **options)
    tokenmill.prepare(corpus, out=tmp_path / "out", **options | {"engine": "tiktoken"})


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["9" * 30, "9" * 320, "9" * 5000, "1" + "0" * 90 + "G", 10**400])
def test_a_number_that_nothing_has_is_refused(wanted: str | int) -> None:
    for parse in (quantities.parse_bytes, quantities.parse_count):
        with pytest.raises(UsageError):
            parse(wanted)
