"""``prepare --repair`` makes only the damaged shards again, to the same bytes."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, kill, start
from tests.kit import corpora, outcome, texts
from tests.kit.outcome import Outcome
from tokenmill import verify
from tokenmill.dataset.manifest import load_manifest
from tokenmill.errors import DamageFound, SpecMismatch, TokenmillError, UsageError
from tokenmill.sizes import Sizes

SHARDS = {"shard_tokens": "3K"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "nanogpt, one file a split": ("jsonl", {"val_fraction": 0.3}),
    "nanogpt, one document": ("one", {"val_fraction": 0.3}),
    "nanogpt, one document in shards": ("one", {"val_fraction": 0.3, **SHARDS}),
    "nanogpt, no validation": ("txt", {"val_fraction": 0, **SHARDS}),
    "build-nanogpt": ("parquet", {"format": "build-nanogpt", **SHARDS}),
    "build-nanogpt by tokens": ("jsonl.gz", {"format": "build-nanogpt", "val_tokens": 7001,
                                             **SHARDS}),
    "llm.c": ("txt.zst", {"format": "llm.c", "val_fraction": 0.3, **SHARDS}),
    "llm.c without delimiters": ("txt", {"format": "llm.c", "eot": "none", **SHARDS}),
    "modded-nanogpt": ("txt", {"format": "modded-nanogpt", "val_shards": 2, **SHARDS}),
    "special text as token": ("txt", {"format": "llm.c", "special_text": "token", **SHARDS}),
}  # fmt: skip


SMALL = Sizes(block=4096, hashed=2048, reach=2048)
prepare = functools.partial(outcome.prepare, sizes=SMALL)


def made(name: str, folder: Path) -> tuple[corpora.Corpus, dict[str, Any], Path]:
    """A corpus with documents larger than blocks and than shards, prepared."""
    kind, options = CASES[name]
    documents = [f"{n} {texts.prose(700)}" for n in range(30)]
    documents[7] = texts.prose(30_000) + "<|endoftext|> and on"
    documents[8] = ""
    if kind == "one":
        corpus = corpora.Corpus(folder / "one.txt")
        corpus.path.write_text("\n".join(documents))
    else:
        corpus = corpora.write(folder, kind, documents)
    options = {**corpus.options, **options}
    return corpus, options, prepare(corpus.path, folder / "out", **options).folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.iterdir()
        if path.is_file()
    }


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: list[Callable[[Path], None]] = [
    lambda path: path.unlink(),
    lambda path: os.truncate(path, path.stat().st_size // 2),
    flip,
]


@pytest.mark.parametrize("name", CASES)
def test_damaged_shards_are_made_again_alone(name: str, tmp_path: Path) -> None:
    corpus, options, out = made(name, tmp_path)
    before = snapshot(out)
    names = [shard.name for shard in load_manifest(out).shards]
    assert len(names) > 1
    for turn in range(3):
        damaged = names[turn::3]
        for number, shard in enumerate(damaged):
            DAMAGES[(turn + number) % 3](out / shard)
        prepare(corpus.path, out, repair=True, **options)
        after = snapshot(out)
        assert {n: content for n, (_, content) in after.items()} == {
            n: content for n, (_, content) in before.items()
        }
        assert {n for n in after if after[n][0] != before[n][0]} == set(damaged)
        before = after
    assert list(verify(out)) == []


def test_some_shard_begins_inside_a_document_and_inside_a_block(tmp_path: Path) -> None:
    """What the test above rests on."""
    _, _, out = made("build-nanogpt by tokens", tmp_path)
    origins = [shard.origin for shard in load_manifest(out).shards]
    assert any(origin.skip for origin in origins)
    assert any(origin.val_left for origin in origins)


def test_all_damaged_at_once_and_the_sums_too(tmp_path: Path) -> None:
    corpus, options, out = made("llm.c", tmp_path)
    before = Outcome(out).hashes
    for shard in load_manifest(out).shards:
        (out / shard.name).unlink()
    (out / "SHA256SUMS").unlink()
    prepare(corpus.path, out, repair=True, **options)
    assert Outcome(out).hashes == before
    assert list(verify(out)) == []


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_took_the_place_of_the_sums_is_set_aside(kind: str, tmp_path: Path) -> None:
    corpus, options, out = made("llm.c", tmp_path)
    sums, before = out / "SHA256SUMS", Outcome(out).hashes
    sums.unlink()
    if kind == "folder":
        sums.mkdir()
        (sums / "mine").write_text("mine")
    elif kind == "pipe":
        os.mkfifo(sums)
    else:
        sums.symlink_to(tmp_path / "nowhere")
    prepare(corpus.path, out, repair=True, **options)
    assert Outcome(out).hashes == before
    assert [problem.name for problem in verify(out)] == []
    (aside,) = (out / ".tokenmill-found").iterdir()
    assert kind != "folder" or (aside / "mine").read_text() == "mine"


def test_nothing_is_touched_where_all_is_whole(tmp_path: Path) -> None:
    corpus, options, out = made("llm.c", tmp_path)
    before = snapshot(out)
    prepare(corpus.path, out, repair=True, **options)
    assert snapshot(out) == before


def test_strays_and_links_elsewhere_are_left_alone(tmp_path: Path) -> None:
    corpus, options, out = made("llm.c", tmp_path)
    first, second = (out / shard.name for shard in load_manifest(out).shards[:2])
    (out / "notes.md").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    first.unlink()
    first.symlink_to(elsewhere)
    partial = second.with_name(second.name + ".partial")
    partial.write_bytes(b"not left by a repair: that would have claimed it")
    prepare(corpus.path, out, repair=True, **options)
    assert (out / "notes.md").read_text() == "mine"
    assert elsewhere.read_bytes() == b"precious"
    assert [problem.name for problem in verify(out)] == [partial.name, "notes.md"]


def test_what_cannot_be_repaired_is_a_clear_error(tmp_path: Path) -> None:
    corpus, options, out = made("llm.c", tmp_path)
    name = load_manifest(out).shards[0].name
    (out / name).unlink()
    before = snapshot(out)

    def refused(kind: type[TokenmillError], path: Path = corpus.path, **change: Any) -> str:
        with pytest.raises(kind) as caught:
            prepare(path, out, **{"repair": True, **options, **change})
        assert caught.value.fix
        return str(caught.value)

    assert "--seed" in refused(SpecMismatch, seed=5)
    other = shutil.copy(corpus.path, tmp_path / "other.txt.zst")
    assert "other.txt.zst" in refused(SpecMismatch, Path(other))
    refused(UsageError, overwrite=True)
    assert snapshot(out) == before
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"skip": ', '"skip": 1'))
    assert "SHA256SUMS" in refused(DamageFound)
    manifest.write_bytes(before["manifest.json"][1][:-40])
    refused(DamageFound)
    manifest.unlink()
    refused(UsageError)
    assert not (out / name).exists()


def test_a_shard_that_does_not_become_what_it_was_is_not_published(tmp_path: Path) -> None:
    """The manifest tells of another one, and nothing tells that it was edited."""
    corpus, options, out = made("llm.c", tmp_path)
    name = load_manifest(out).shards[1].name
    (out / name).write_bytes(b"damaged")
    manifest = out / "manifest.json"
    shard = load_manifest(out).shards[1]
    manifest.write_text(manifest.read_text().replace(shard.sha256, "0" * 64))
    (out / "SHA256SUMS").unlink()
    with pytest.raises(TokenmillError, match="cannot be made again"):
        prepare(corpus.path, out, repair=True, **options)
    assert (out / name).read_bytes() == b"damaged"
    assert not list(out.glob("*.partial"))


def test_the_command_says_what_it_repaired(tmp_path: Path, tokenmill: Run) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(corpora.jsonl([texts.prose(3000)] * 9))
    command = ["prepare", path, "--out", tmp_path / "out", "--format", "llm.c",
               "--shard-tokens", "2K"]  # fmt: skip
    assert tokenmill(*command, "--repair").rc == 2
    assert tokenmill(*command).rc == 0
    name = Outcome(tmp_path / "out").manifest["shards"][1]["name"]
    (tmp_path / "out" / name).unlink()
    assert tokenmill(*command).rc == 13
    done = tokenmill(*command, "--repair")
    assert done.rc == 0, done.stderr
    assert f"repaired: {name}" in done.stderr
    assert tokenmill("verify", tmp_path / "out").rc == 0


def test_a_repair_that_is_killed_is_done_again(tmp_path: Path, tokenmill: Run) -> None:
    path, out = tmp_path / "c.jsonl", tmp_path / "out"
    path.write_bytes(corpora.jsonl([f"{n} {texts.prose(20_000)}" for n in range(300)]))
    command = ["prepare", path, "--out", out, "--engine", "tiktoken", "--check", "0"]
    assert tokenmill(*command[:4], "--quiet").rc == 0
    before = Outcome(out).hashes
    (out / "train.bin").unlink()
    process = start(*command, "--repair")
    deadline = time.monotonic() + 30
    partial = out / "train.bin.partial"
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    kill(process)
    assert partial.exists() and not (out / "train.bin").exists()
    done = tokenmill(*command[:4], "--repair")
    assert done.rc == 0, done.stderr
    assert Outcome(out).hashes == before
    assert list(verify(out)) == []
