"""Law 2: the bytes do not depend on threads, memory, engine, compression or the kind of input.

Real processes, on a few megabytes that make several blocks, for each kind of input.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.kit import corpora, runs, texts
from tests.kit.outcome import Outcome
from tests.kit.shared import ARTICLES, BOOKS

ARTICLE_TEXTS = [json.loads(line)["text"] for line in ARTICLES.read_text().splitlines()]
KINDS = ["file.txt", "txt", "txt.gz", "jsonl", "jsonl.zst", "parquet"]
TRIED = ["file.txt", "txt", "jsonl", "jsonl.zst", "parquet"]
SMALL: dict[str, Any] = {"block": 700_000, "checkpoint": 10}
RUNS: list[dict[str, Any]] = [
    {"threads": 1, "memory": "512MB"},
    {"threads": 2, "memory": "2GB"},
    {"threads": 4, "memory": "512MB"},
    {"threads": 2, "memory": "1GiB", "engine": "tiktoken", "check": "0"},
]


def several_megabytes() -> list[str]:
    """Documents short and long, about 3 MB, ever different."""
    documents = [f"{index} {text}" for index in range(8) for text in ARTICLE_TEXTS]
    documents += [path.read_text() * 3 for path in sorted(BOOKS.glob("*.txt"))]
    return documents + [make(20_000) for make in texts.ADVERSARIES.values()]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, corpora.Corpus]:
    """The same documents in each kind; and as one text file that is one document."""
    folder, documents = tmp_path_factory.mktemp("inputs"), several_megabytes()
    made = {kind: corpora.write(folder, kind, documents) for kind in KINDS if kind != "file.txt"}
    path = folder / "file.txt"
    path.write_bytes("\n".join(documents).encode())
    return made | {"file.txt": corpora.Corpus(path)}


def flags(options: dict[str, Any]) -> list[str]:
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


@pytest.mark.parametrize("kind", TRIED)
def test_threads_and_memory_change_no_byte(
    kind: str, inputs: dict[str, corpora.Corpus], tmp_path: Path
) -> None:
    hashes = {}
    for index, options in enumerate(RUNS):
        out = tmp_path / str(index)
        arguments = [*inputs[kind].arguments(), "--val-fraction", "0.05", "--shard-tokens", "300K"]
        done = runs.run("prepare", *arguments, "--out", out, *flags(options), **SMALL)
        assert done.rc == 0, done.stderr
        hashes[str(options)] = Outcome(out).hashes
    assert len(set(map(str, hashes.values()))) == 1, hashes


def test_compression_and_kind_change_no_byte(
    inputs: dict[str, corpora.Corpus], tmp_path: Path, tokenmill: Run
) -> None:
    hashes = {}
    for kind in KINDS[1:]:
        out = tmp_path / kind
        form = ["--format", "build-nanogpt", "--shard-tokens", "500K"]
        done = tokenmill("prepare", *inputs[kind].arguments(), "--out", out, *form)
        assert done.rc == 0, done.stderr
        hashes[kind] = Outcome(out).hashes
    assert len(set(map(str, hashes.values()))) == 1, hashes


def test_two_runs_give_the_same_manifest_for_the_shards(
    inputs: dict[str, corpora.Corpus], tmp_path: Path, tokenmill: Run
) -> None:
    made = []
    for name in ("one", "two"):
        corpus = inputs["jsonl"]
        done = tokenmill("prepare", *corpus.arguments(), "--out", tmp_path / name)
        assert done.rc == 0, done.stderr
        outcome = Outcome(tmp_path / name)
        manifest = outcome.manifest
        told = {key: manifest[key] for key in ("format", "tokenizer", "shards", "counts", "spec")}
        sums = (outcome.folder / "SHA256SUMS").read_bytes()
        made.append((told, hashlib.sha256(sums).hexdigest()))
    assert made[0] == made[1]
