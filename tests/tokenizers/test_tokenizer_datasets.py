"""Datasets made with other tokenizers, looked at again: inspect, verify, repair, going on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.test_repair import SMALL, prepare
from tests.conftest import Run
from tests.kit import corpora, runs, texts, trained
from tests.kit.outcome import Outcome
from tokenmill.commands.verify import DEFAULT_SHARE, verify_sized
from tokenmill.errors import SpecMismatch, TokenmillError

KINDS = ("llama3", "qwen", "llama2", "wordpiece", "sentencepiece bpe, normalizing")
DOCUMENTS = [f"{n} {texts.prose(500)} end." for n in range(20)]
DOCUMENTS[7] = texts.prose(20_000)
DOCUMENTS[8] = ""
DOCUMENTS[9] = "e\u0301 \u212b 日本語、テキスト。\r\n  two"


@pytest.fixture(autouse=True)
def tried_once() -> Iterator[None]:
    with trained.tried_once():
        yield


def made(name: str, folder: Path, kind: str = "jsonl", **options: Any) -> tuple[Path, Outcome]:
    """The documents prepared with a trained tokenizer: the corpus, and what came out."""
    corpus = corpora.Corpus(folder / f"corpus.{kind}", {"documents": "separator:|||"})
    if kind == "jsonl":
        corpus = corpora.Corpus(corpus.path)
    if not corpus.path.exists():  # written again, it would be another input
        data = corpora.jsonl(DOCUMENTS) if kind == "jsonl" else "|||".join(DOCUMENTS).encode()
        corpus.path.write_bytes(data)
    options = {"format": "llm.c", "val_shards": 0, "shard_tokens": "3K"} | options
    spec = {**corpus.options, **trained.options(name), **options}
    return corpus.path, prepare(corpus.path, folder / "out", **spec)


@pytest.mark.parametrize("name", KINDS)
def test_inspect_shows_the_text(name: str, tokenmill: Run, tmp_path: Path) -> None:
    _, outcome = made(name, tmp_path)
    for number in (3, 9):
        done = tokenmill("inspect", outcome.folder, "--doc", number, "--json")
        ids = trained.encode(DOCUMENTS[number], name)
        assert done.lines[0]["ids"] == ids
        text = done.lines[0]["text"]
        if name in ("llama3", "sentencepiece bpe, normalizing"):
            same = DOCUMENTS[number] if name == "llama3" else trained.library(name).decode(ids)
            assert text == same
        assert "tw" in text if number == 9 else "end" in text.replace(" ", "")
    done = tokenmill("inspect", outcome.folder, "--token", 0)
    assert done.rc == 0
    assert tokenmill("inspect", outcome.folder).stdout.startswith("llm.c, tokenizer.")


@pytest.mark.parametrize("eot", ["before", "after"])
@pytest.mark.parametrize("name", KINDS)
def test_verify_against_finds_one_changed_token(name: str, eot: str, tmp_path: Path) -> None:
    for kind in ("jsonl", "txt"):
        folder = tmp_path / kind
        folder.mkdir()
        path, outcome = made(name, folder, kind, eot=eot)
        assert [*verify_sized(outcome.folder, SMALL, against=[path], share=1)] == []
        shard = sorted(outcome.folder.glob("*.bin"))[1]
        data = bytearray(shard.read_bytes())
        position = 1024 + 2 * 500
        data[position] ^= 1
        shard.write_bytes(data)
        problems = [*verify_sized(outcome.folder, SMALL, against=[path], share=1)]
        kinds = {(problem.kind, problem.name) for problem in problems}
        assert ("mismatch", shard.name) in kinds


@pytest.mark.parametrize("name", ["llama2", "wordpiece"])
def test_verify_finds_documents_by_their_delimiters(name: str, tmp_path: Path) -> None:
    """Their ids do not tell bytes; all the same, only those drawn are encoded again."""
    path, outcome = made(name, tmp_path)
    told: list[str] = []
    assert [*verify_sized(outcome.folder, SMALL, against=[path], share=0, tell=told.append)] == []
    assert told[0].startswith("20 documents of the inputs followed through the shards; of 0 (")


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_shard_is_made_again(name: str, tmp_path: Path) -> None:
    path, outcome = made(name, tmp_path)
    before = outcome.hashes
    shards = sorted(outcome.folder.glob("*.bin"))
    assert len(shards) > 3
    shards[2].write_bytes(b"nothing")
    made(name, tmp_path, repair=True)
    assert outcome.hashes == before
    assert [*verify_sized(outcome.folder, SMALL, against=[path], share=1)] == []


@pytest.mark.parametrize("name", KINDS)
def test_threads_memory_and_engine_change_no_byte(name: str, tmp_path: Path) -> None:
    _, outcome = made(name, tmp_path)
    variants: list[dict[str, Any]] = [
        {"threads": 3, "memory": "1GB"},
        {"threads": 1, "memory": "400MB"},
        {"engine": trained.KINDS[name].reference},
    ]
    for index, options in enumerate(variants):
        (tmp_path / str(index)).mkdir()
        _, again = made(name, tmp_path / str(index), **options)
        assert again.hashes == outcome.hashes


@pytest.mark.parametrize("name", ["qwen", "llama2"])
def test_a_killed_run_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    corpus = runs.write_corpus(tmp_path, "one.txt" if name == "qwen" else "jsonl")
    named = [f"--{key.replace('_', '-')}={value}" for key, value in trained.options(name).items()]
    arguments = ["prepare", *corpus.arguments(), *runs.OPTIONS, *named, "--out"]
    assert runs.run(*arguments, tmp_path / "undisturbed").rc == 0
    with runs.running(*arguments, tmp_path / "out", pause=0.1) as process:
        runs.wait_for_checkpoints(tmp_path / "out", 3)
        runs.end(process, "both")
    runs.wait_until_free(tmp_path / "out")
    runs.assert_nothing_finished(tmp_path / "out")
    done = runs.run(*arguments, tmp_path / "out")
    assert done.rc == 0, done.stderr
    assert "going on: " in done.stderr
    assert runs.snapshot(tmp_path / "out") == runs.snapshot(tmp_path / "undisturbed")


def test_the_same_content_is_the_same_tokenizer_wherever_it_lies(tmp_path: Path) -> None:
    """Named by file, by folder, or moved: the dataset is the same one."""
    _, outcome = made("llama3", tmp_path)
    shutil.copytree(trained.path("llama3").parent, tmp_path / "elsewhere")
    for place in (tmp_path / "elsewhere", tmp_path / "elsewhere" / "tokenizer.json"):
        made("llama3", tmp_path, tokenizer=str(place))
    other = json.loads((tmp_path / "elsewhere" / "tokenizer.json").read_text())
    other["added_tokens"].append({**other["added_tokens"][0], "id": 5000, "content": "<new>"})
    (tmp_path / "elsewhere" / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(SpecMismatch, match="tokenizer's sha256 is"):
        made("llama3", tmp_path, tokenizer=str(tmp_path / "elsewhere" / "tokenizer.json"))
    assert np.count_nonzero(outcome.tokens("train") == trained.eot("llama3")) == len(DOCUMENTS)


def test_a_tokenizer_that_is_gone_is_named(tmp_path: Path) -> None:
    shutil.copy(trained.path("llama3"), tmp_path / "mine.json")
    path, outcome = made("llama3", tmp_path, tokenizer=str(tmp_path / "mine.json"))
    (tmp_path / "mine.json").unlink()
    with pytest.raises(TokenmillError, match="cannot find the tokenizer of this dataset again"):
        [*verify_sized(outcome.folder, SMALL, against=[path], share=DEFAULT_SHARE)]
