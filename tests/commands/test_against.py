"""``verify --against``: what lies in the shards is held against the inputs."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Run
from tests.kit import corpora, outcome, texts
from tokenmill.commands.verify import verify_sized
from tokenmill.dataset.checks import Problem
from tokenmill.dataset.manifest import load_manifest
from tokenmill.dataset.reader import DatasetReader
from tokenmill.errors import SpecMismatch, UsageError
from tokenmill.sizes import Sizes

SHARDS = {"shard_tokens": "3K"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "nanogpt": ("jsonl", {"val_fraction": 0.3}),
    "nanogpt, one document": ("one", {"val_fraction": 0.3}),
    "nanogpt, one document, before": ("one", {"val_fraction": 0.3, "eot": "before", **SHARDS}),
    "nanogpt, no validation": ("txt", {"val_fraction": 0, **SHARDS}),
    "build-nanogpt": ("parquet", {"format": "build-nanogpt", **SHARDS}),
    "build-nanogpt by tokens": ("jsonl.gz", {"format": "build-nanogpt", "val_tokens": 7001,
                                             **SHARDS}),
    "llm.c, long documents drawn": ("txt.zst", {"format": "llm.c", "val_fraction": 0.3, **SHARDS}),
    "llm.c, after": ("txt", {"format": "llm.c", "val_shards": 2, "eot": "after", **SHARDS}),
}  # fmt: skip


SMALL = Sizes(block=4096, hashed=2048, reach=2048)
prepare = functools.partial(outcome.prepare, sizes=SMALL)


def made(name: str, folder: Path) -> tuple[Path, Path]:
    """A corpus and its dataset: long and empty documents, and the delimiter written in one."""
    kind, options = CASES[name]
    documents = [f"{n} {texts.prose(700)}" for n in range(30)]
    documents[7] = texts.prose(30_000) + "<|endoftext|> and on"
    documents[8] = documents[29] = ""
    documents[9] = "z" * 20_000 + " 日本語のテキスト 🎉"
    if kind == "one":
        corpus = corpora.Corpus(folder / "one.txt")
        corpus.path.write_text("\n".join(documents))
    else:
        corpus = corpora.write(folder, kind, documents)
    options = {**corpus.options, **options}
    return corpus.path, prepare(corpus.path, folder / "out", **options).folder


def differences(out: Path, *inputs: Path, share: float = 1.0, seed: int = 0) -> list[Problem]:
    """What is found beyond damage to files."""
    found = verify_sized(out, SMALL, against=list(inputs), share=share, seed=seed)
    return [problem for problem in found if problem.kind != "changed"]


def overwrite(out: Path, split: str, token: int, change: Callable[[int], int]) -> tuple[str, int]:
    """Change one token of a split; returns its shard and its number there."""
    dataset = DatasetReader.at(out)
    shard, place = dataset.locate(token, split)
    reader = dataset.open(shard)
    ids = np.memmap(out / shard.name, reader.dtype, "r+", reader.head_bytes, (reader.tokens,))
    ids[place] = change(int(ids[place]))
    ids.flush()
    return shard.name, place


@pytest.mark.parametrize("name", CASES)
def test_no_difference_where_there_is_none(name: str, tmp_path: Path) -> None:
    path, out = made(name, tmp_path)
    for share in (0.0, 0.1, 1.0):
        assert differences(out, path, share=share) == []
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert differences(out, Path(shutil.copy(path, elsewhere / f"renamed-{path.name}"))) == []


def other_word(token: int) -> int:
    """Another token of the same length: " a" and " I", else one of two letters."""
    return 314 if token == 257 else 257


@pytest.mark.parametrize("name", CASES)
def test_one_other_token_is_found_and_placed(name: str, tmp_path: Path) -> None:
    path, out = made(name, tmp_path)
    split = load_manifest(out).shards[-1].split
    total = load_manifest(out).tokens(split)
    for token in (1, total // 2, total - 2):
        before = {file.name: file.read_bytes() for file in out.iterdir()}
        shard, place = overwrite(out, split, token, other_word)
        problems = differences(out, path, share=1.0)
        assert [(p.kind, p.name) for p in problems] == [("mismatch", shard)], list(
            map(str, problems)
        )
        assert f"token {place}:" in problems[0].detail and path.name in problems[0].detail
        for file, content in before.items():
            (out / file).write_bytes(content)


@pytest.mark.parametrize("name", CASES)
def test_a_lost_or_an_extra_delimiter_is_found_without_a_sample(name: str, tmp_path: Path) -> None:
    path, out = made(name, tmp_path)
    split = load_manifest(out).shards[-1].split
    shard, place = overwrite(out, split, load_manifest(out).tokens(split) // 2, lambda _: 50256)
    problems = differences(out, path, share=0.0)
    assert [(p.kind, p.name) for p in problems] == [("mismatch", shard)]
    assert f"token {place}:" in problems[0].detail


def test_tokens_that_are_missing_or_left_over_are_found(tmp_path: Path) -> None:
    path, out = made("nanogpt, no validation", tmp_path)
    manifest = load_manifest(out)
    last = manifest.shards[-1]
    content = (out / last.name).read_bytes()
    for cut in (content[:-10], content + content[-10:]):
        (out / last.name).write_bytes(cut)
        last.bytes, last.tokens = len(cut), len(cut) // 2
        (out / "manifest.json").write_bytes(manifest.to_json())
        found = [p for p in differences(out, path, share=0.0) if p.kind == "mismatch"]
        assert {p.name for p in found} == {last.name}, list(map(str, found))


def test_a_wrong_number_of_documents_is_found(tmp_path: Path) -> None:
    path, out = made("build-nanogpt", tmp_path)
    manifest = load_manifest(out)
    manifest.shards[0].documents += 1
    other = next(shard for shard in manifest.shards[1:] if shard.documents)
    other.documents -= 1
    (out / "manifest.json").write_bytes(manifest.to_json())
    found = {(p.kind, p.name) for p in differences(out, path)}
    assert found == {("miscounted", shard.name) for shard in (manifest.shards[0], other)}


def test_a_shift_of_everything_ends_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenmill.commands import compare

    monkeypatch.setattr(compare, "MOST_DIFFERENCES", 5)
    path, out = made("nanogpt, no validation", tmp_path)
    first = out / load_manifest(out).shards[0].name
    content = first.read_bytes()
    first.write_bytes(content[2:] + content[-2:])
    problems = differences(out, path)
    assert len(problems) == 6
    assert problems[-1].kind == "uncompared"


def test_damaged_shards_are_named_and_not_compared(tmp_path: Path) -> None:
    path, out = made("build-nanogpt", tmp_path)
    name = load_manifest(out).shards[0].name
    (out / name).unlink()
    assert [p.kind for p in differences(out, path)] == ["missing", "uncompared"]


def test_other_inputs_are_named_first(tmp_path: Path) -> None:
    path, out = made("build-nanogpt by tokens", tmp_path)
    other = corpora.write(tmp_path, "jsonl", ["another"], "other").path
    for inputs, named in [([other], "other.jsonl"), ([path, other], "is new")]:
        with pytest.raises(SpecMismatch, match=named):
            differences(out, *inputs)


def test_the_order_of_the_inputs_counts(tmp_path: Path) -> None:
    paths = [corpora.write(tmp_path, "jsonl", [name], name).path for name in "ab"]
    out = prepare(paths, tmp_path / "out").folder
    assert differences(out, *paths) == []
    with pytest.raises(SpecMismatch, match=r"b\.jsonl is not what"):
        differences(out, *reversed(paths))
    with pytest.raises(SpecMismatch, match=r"b\.jsonl is missing"):
        differences(out, paths[0])


@pytest.mark.parametrize("options", [{"eot": "none"}, {"special_text": "token"}], ids=str)
def test_what_cannot_be_compared_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    corpus = corpora.write(tmp_path, "jsonl", ["one", "two"])
    out = prepare(corpus, tmp_path / "out", **options).folder
    with pytest.raises(UsageError, match="cannot be compared"):
        differences(out, corpus.path)


def test_the_sample_is_drawn_by_the_seed(tmp_path: Path) -> None:
    """With a small share some seeds find one wrong token and others do not; each does it again."""
    path, out = made("build-nanogpt", tmp_path)
    shards = load_manifest(out).shards[1:]
    ids = np.concatenate([DatasetReader.at(out).open(s).ids(0, s.tokens) for s in shards])
    overwrite(out, "train", int(np.flatnonzero(ids == 257)[0]), other_word)
    found = [len(differences(out, path, share=0.2, seed=seed)) for seed in range(12)]
    assert set(found) == {0, 1}
    assert found == [len(differences(out, path, share=0.2, seed=seed)) for seed in range(12)]


def test_the_command_line(tmp_path: Path, tokenmill: Run) -> None:
    paths = [corpora.write(tmp_path, "jsonl", [f"{n} one", "two"], n).path for n in "ab"]
    out = prepare(paths, tmp_path / "out").folder
    done = tokenmill("verify", out, "--against", *paths, "--share", "1")
    assert done.rc == 0, done.stderr
    assert "4 documents" in done.stderr
    assert tokenmill("verify", out, *paths).rc == 2
    assert tokenmill("verify", out, "--against", paths[1]).rc == 12
    assert tokenmill("verify", out, "--against", *paths, "--share", "2").rc == 2
