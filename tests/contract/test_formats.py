"""What every format keeps, the four of the table and two toys with several files a shard.

What was appended is read back; a shard whose files are cut back to a checkpoint becomes, when it is
gone on with, what it would have been; and prepare, resume, verify, --repair and --overwrite know of
all its files.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokenmill
from tests.conftest import command_environment
from tests.contract.toy_format import OWL
from tests.contract.toy_formats import TOYS
from tests.contract.yours import yours
from tests.kit import runs, sized
from tests.kit.runs import snapshot
from tests.kit.shared import REPOSITORY
from tests.kit.stores import BUCKET, Store
from tests.output.test_resume import SMALL, Death, die_after
from tests.stores.test_store import server, store
from tokenmill.dataset.files import LocalFiles
from tokenmill.dataset.manifest import Origin, Shard, ShardFile, load_manifest
from tokenmill.dataset.reader import DatasetReader, open_shard
from tokenmill.formats import FORMATS, Format
from tokenmill.output.journal import read_journal
from tokenmill.output.shards import OpenShard
from tokenmill.output.writer import DatasetWriter
from tokenmill.stores.claims import STATE_FOLDER, Claims

__all__ = ["server", "store"]  # fixtures
MINE: dict[str, Format] = yours(lambda entry: isinstance(entry, Format))
TOYS_AND_MINE = TOYS | {layout.name: layout for layout in (OWL, *MINE.values())}
LAYOUTS: dict[str, Format] = FORMATS | TOYS_AND_MINE
EVERY = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
TOY = pytest.mark.parametrize("layout", TOYS.values(), ids=lambda layout: layout.name)
SPLIT: dict[str, Any] = {"shard_tokens": "5K", "val_tokens": "7K", "sizes": SMALL}
Piece = tuple[Any, Any]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, layout in TOYS_AND_MINE.items():
        monkeypatch.setitem(FORMATS, name, layout)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_corpus(tmp_path_factory.mktemp("corpus"), "jsonl", 12).path


def begun(folder: Path, layout: Format, expected: int, left: Any = (), old: Any = None) -> Any:
    """A shard that is being filled; gone on with where ``old`` is what it was."""
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    Claims.begun(folder)
    names = layout.files("x", "train", 3)
    about = old or Shard(names[0], "train", 0, 0, 0, "", Origin(0, None, 0, 0, "train"))
    if old is None:
        about.set_files([ShardFile(name, 0, "") for name in names])
    return OpenShard(folder, layout, "uint16", expected, about, left)


def pieces(seed: int) -> list[Piece]:
    """Ids in pieces, and the places in each where documents begin; some have none."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(12):
        ids = draw.integers(0, 50257, draw.integers(1, 400)).astype(np.uint16)
        some = draw.integers(0, len(ids), draw.integers(0, 4))
        found.append((ids, np.unique(some).astype(np.int64)))
    return found


def content(folder: Path, shard: Shard) -> list[bytes]:
    return [(folder / (file.name + ".partial")).read_bytes() for file in shard.all_files]


def kept(out: Path) -> dict[str, str]:
    """All but what was set aside: of a file of less than 512 bytes a change leaves nothing that
    tells that it was ours."""
    return {name: sha for name, sha in snapshot(out).items() if ".tokenmill-found" not in name}


def named(folder: Path, shard: Shard) -> None:
    for file in shard.all_files:
        (folder / (file.name + ".partial")).rename(folder / file.name)


@EVERY
def test_what_was_appended_is_read_back(layout: Format, tmp_path: Path) -> None:
    parts = pieces(1)
    whole = begun(tmp_path, layout, 0)
    for ids, starts in parts:
        whole.append(ids, starts)
    shard = whole.complete()
    named(tmp_path, shard)
    reader = open_shard(LocalFiles(tmp_path), layout.name, shard)
    ids = np.concatenate([ids for ids, _ in parts])
    assert (reader.tokens, reader.dtype) == (len(ids), "uint16")
    assert np.array_equal(reader.ids(0, len(ids)), ids)
    assert np.array_equal(reader.ids(17, 450), ids[17:450])
    assert len(reader.ids(5, 5)) == 0
    before = np.cumsum([0, *(len(ids) for ids, _ in parts)])
    starts = np.concatenate([s + b for (_, s), b in zip(parts, before[:-1], strict=True)])
    found = reader.starts()
    assert found is None or np.array_equal(found, starts)
    assert shard.documents == len(starts)


@EVERY
@pytest.mark.parametrize("expected", [0, 7])
def test_an_empty_shard_is_one(layout: Format, expected: int, tmp_path: Path) -> None:
    shard = begun(tmp_path, layout, expected).complete()
    named(tmp_path, shard)
    reader = open_shard(LocalFiles(tmp_path), layout.name, shard)
    assert reader.tokens == 0
    assert len(reader.ids(0, 0)) == 0


@EVERY
@pytest.mark.parametrize("seed", range(6))
def test_cut_back_and_gone_on_with_it_is_the_same(
    layout: Format, seed: int, tmp_path: Path
) -> None:
    """Also where all was finished already, but nothing noted."""
    parts, rng = pieces(seed), random.Random(seed)
    kept, written = sorted(rng.sample(range(len(parts) + 1), 2))
    undisturbed = begun(tmp_path / "undisturbed", layout, 0)
    for piece in parts:
        undisturbed.append(*piece)
    expected = content(tmp_path / "undisturbed", undisturbed.complete())

    folder = tmp_path / "resumed"
    first = begun(folder, layout, 0)
    for piece in parts[:kept]:
        first.append(*piece)
    for file in first.staged:
        file.sync()
    left = first.open_files()
    sizes = {file.name: file.bytes for file in left}
    assert layout.fits(sizes, first.about.name, first.about.tokens, "uint16")
    assert not layout.fits(sizes, first.about.name, first.about.tokens + 1, "uint16")
    for piece in parts[kept:written]:
        first.append(*piece)
    if seed % 2:
        first.complete()
    first.close()
    second = begun(folder, layout, 0, left, left[0].shard)
    for piece in parts[kept:]:
        second.append(*piece)
    assert content(folder, second.complete()) == expected


@EVERY
def test_a_folder_knows_the_names_of_its_files(layout: Format) -> None:
    for split in ("train", "val"):
        for index in (None, 0, 7, 1_234_567):
            files = layout.files("x", split, index)
            assert len({*files, *layout.scratch(files)}) == len(files) + len(layout.scratch(files))
            for name in (*files, *layout.scratch(files)):
                assert "/" not in name
                assert layout.writes("x", name, index is not None)
                assert not layout.writes("other", name, index is not None)
    assert not layout.writes("x", "notes.txt", is_numbered=True)


@EVERY
def test_prepare_killed_and_gone_on_with(layout: Format, corpus: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = {"format": layout.name, **SPLIT}
    sized.prepare(corpus, out=whole, **options)
    die_after(4, corpus, out, check=0.01, **options)
    assert runs.checkpoints(out) >= 2
    sized.prepare(corpus, out=out, **options)
    assert snapshot(out) == snapshot(whole)
    manifest = load_manifest(whole)
    assert not list(tokenmill.verify(whole))
    assert len(manifest.shards) > 3
    for shard in manifest.shards:
        starts = DatasetReader.at(whole).open(shard).starts()
        assert starts is None or len(starts) == shard.documents
    listed = json.loads((whole / "manifest.json").read_text())["shards"][0]
    assert ("files" in listed) == (len(manifest.shards[0].all_files) > 1)


@EVERY
def test_what_a_whole_shard_was_made_from_stays_until_a_checkpoint(
    layout: Format, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards were finished and noted, but the last checkpoint is from before."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = {"format": layout.name, **SPLIT}
    sized.prepare(corpus, out=whole, **options)
    checkpoint = DatasetWriter.checkpoint

    def dying(writer: Any, counted: dict[str, Any], wait: bool = False) -> None:
        if len(writer.shards()) > 1:
            raise Death
        checkpoint(writer, counted, wait=True)

    with monkeypatch.context() as patch:
        patch.setattr(DatasetWriter, "checkpoint", dying)
        with pytest.raises(Death):
            sized.prepare(corpus, out=out, checkpoint_seconds=0, **options)
    log = read_journal(out)
    assert log is not None
    assert log.checkpoint is not None
    assert runs.journal(out).read_bytes().count(b'{"type":"shard"') > log.checkpoint.shards
    sized.prepare(corpus, out=out, **options)
    assert snapshot(out) == snapshot(whole)


@TOY
def test_a_bucket_gets_all_files(
    layout: Format, corpus: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"format": layout.name, **SPLIT}
    url = f"s3://{BUCKET}/toys/set"
    sized.prepare(corpus, out=url, **options)
    sized.prepare(corpus, out=tmp_path / "whole", **options)
    assert snapshot(store.fetch("toys/set", tmp_path / "got")) == snapshot(tmp_path / "whole")
    assert not list(tokenmill.verify(url))
    lost = load_manifest(tmp_path / "whole").shards[1].all_files[-1].name
    store.client.delete_object(Bucket=BUCKET, Key=f"toys/set/{lost}")
    assert [(p.kind, p.name) for p in tokenmill.verify(url)] == [("missing", lost)]
    sized.prepare(corpus, out=url, overwrite=True, **options)
    assert not list(tokenmill.verify(url))


@TOY
def test_a_killed_process_leaves_what_another_finishes(
    layout: Format, corpus: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    script = REPOSITORY / "tests" / "contract" / "killed_prepare.py"
    killed = subprocess.run(
        [sys.executable, str(script), layout.name, str(corpus), str(out), "5"],
        env=command_environment({"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'src'}"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    runs.assert_nothing_finished(out)
    options = {"format": layout.name, **SPLIT}
    sized.prepare(corpus, out=out, **options)
    sized.prepare(corpus, out=whole, **options)
    assert snapshot(out) == snapshot(whole)


@EVERY
def test_each_damaged_file_is_found_and_made_again(
    layout: Format, corpus: Path, tmp_path: Path
) -> None:
    options = {"format": layout.name, **SPLIT}
    sized.prepare(corpus, out=tmp_path, **options)
    whole = snapshot(tmp_path)
    for file in load_manifest(tmp_path).shards[2].all_files:
        path = tmp_path / file.name
        others = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*_00*") if p != path}
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
        assert [(p.kind, p.name) for p in tokenmill.verify(tmp_path)] == [("changed", file.name)]
        sized.prepare(corpus, out=tmp_path, repair=True, **options)
        assert kept(tmp_path) == whole
        path.unlink()
        assert [p.kind for p in tokenmill.verify(tmp_path, quick=True)] == ["missing"]
        sized.prepare(corpus, out=tmp_path, repair=True, **options)
        assert kept(tmp_path) == whole
        assert {p: p.stat().st_mtime_ns for p in others} == others


@EVERY
def test_overwriting_leaves_nothing_of_it(layout: Format, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    die_after(4, corpus, out, format=layout.name, **SPLIT)
    sized.prepare(corpus, out=out, overwrite=True, format=layout.name, **SPLIT)
    (out / "notes.txt").write_text("mine")
    sized.prepare(corpus, out=out, overwrite=True, format="nanogpt", val_fraction=0, sizes=SMALL)
    left = {path.name for path in out.iterdir()}
    assert left == {"train.bin", "manifest.json", "SHA256SUMS", "notes.txt"}
