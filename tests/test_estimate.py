"""The estimate of a plan, against what the run then finds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import tokenmill
from tests import corpora, texts
from tokenmill.estimate import Estimate


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
    estimate = tokenmill.plan(path, **options).estimate
    assert estimate is not None
    found = tokenmill.prepare(path, out=tmp_path / "out", **options).counts
    assert estimate.documents == pytest.approx(found["documents"], rel=0.4)
    assert estimate.tokens == pytest.approx(found["tokens"], rel=0.2)
    assert estimate.text_bytes == pytest.approx(found["text_bytes"], rel=0.2)


def test_the_time_is_that_of_new_words_and_then_that_of_the_text() -> None:
    estimate = Estimate(1, 300, 0.1, text_bytes=6000, bytes_per_second=1000.0, first_seconds=0.5)
    assert estimate.seconds == pytest.approx(6.5)
