"""The estimate of a plan, against what the run then finds."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tokenmill
from tests.kit import corpora, texts
from tests.kit.outcome import prepare
from tests.kit.shared import ARTICLES
from tokenmill.commands import estimate
from tokenmill.commands.estimate import Estimate
from tokenmill.sources.source import Sample
from tokenmill.tokenizers.engines.gigatoken import GigatokenEngine


def short_and_long() -> list[str]:
    """Half of them of a few words, half of up to the length of a sample."""
    generator = random.Random(4)
    long = texts.prose(8_000_000)
    documents, at = [], 0
    while at < len(long):
        size = generator.choice([80, generator.randrange(30_000, 90_000)])
        documents.append(long[at : at + size].replace("\n\n", "\n").strip() + ".")
        at += size
    return documents


@pytest.mark.parametrize("kind", ["jsonl", "txt", "parquet"])
def test_an_estimate_is_near_what_the_run_finds(kind: str, tmp_path: Path) -> None:
    documents = short_and_long()
    if kind == "txt":
        path = tmp_path / "corpus.txt"
        path.write_text("\n\n".join(documents))
    elif kind == "jsonl":
        path = corpora.write(tmp_path, kind, documents).path
    else:
        path = tmp_path / "corpus.parquet"
        corpora.write_parquet(path, documents, row_group=20)
    options: dict[str, Any] = {"format": "build-nanogpt", "documents": "blank-line"}
    found_before = tokenmill.plan(path, **options).estimate
    assert found_before is not None
    found = tokenmill.prepare(path, out=tmp_path / "out", **options).counts
    assert found_before.documents == pytest.approx(found["documents"], rel=0.4)
    assert found_before.tokens == pytest.approx(found["tokens"], rel=0.2)
    assert found_before.text_bytes == pytest.approx(found["text_bytes"], rel=0.2)


def test_the_time_is_that_of_new_words_and_then_that_of_the_text() -> None:
    made = Estimate(1, 300, 0.1, text_bytes=6000, bytes_per_second=1000.0, first_seconds=0.5)
    assert made.seconds == pytest.approx(6.5)


def test_of_remote_files_only_so_many_samples_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each may hold a row group for a moment: eight at once passed half a gigabyte."""
    started = []

    def begin(take: Callable[[], Sample]) -> Future[Sample]:
        started.append(take)
        future: Future[Sample] = Future()
        future.set_result(Sample([b"text"], 4, 1, 4))
        return future

    monkeypatch.setattr(estimate, "in_background", begin)
    file: Any = SimpleNamespace(
        size=10**11, compression=None, store=SimpleNamespace(is_remote=True)
    )
    inputs: Any = SimpleNamespace(files=[file], are_remote=True)
    options: Any = None
    for number, _ in enumerate(estimate.samples_of(inputs, options, 2), 1):
        assert len(started) <= number + 1
    assert len(started) == estimate.SAMPLES


def test_the_engine_of_the_estimate_is_the_first_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded once, not twice; where memory is tight, what the sample took is given back."""
    loads: list[GigatokenEngine] = []
    load = GigatokenEngine._load

    def counted(self: GigatokenEngine, special_tokens: dict[str, int] | None) -> object:
        loads.append(self)
        return load(self, special_tokens)

    monkeypatch.setattr(GigatokenEngine, "_load", counted)
    hashes, times = [], []
    for memory in ("2GB", "300MB"):
        loads.clear()
        done = prepare(ARTICLES, tmp_path / memory, memory=memory, threads=1)
        hashes.append(done.hashes)
        times.append(len(loads))
    assert times == [1, 2]
    assert hashes[0] == hashes[1]
