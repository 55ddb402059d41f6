"""Every death of the working process in every kind of input; one of each is in `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.executors.test_supervision import (
    corpus,
    is_left_out_when_asked,
    reference_takes_over,
    run_stops_with_the_place,
    undisturbed,
)
from tests.kit import corpora

__all__ = ["corpus", "undisturbed"]  # fixtures
pytestmark = pytest.mark.parametrize(
    "corpus", ["jsonl", "txt", "jsonl.zst", "parquet"], indirect=True
)


@pytest.mark.parametrize(("how", "name"), [("abort", "SIGABRT"), ("segfault", "SIGSEGV")])
def test_a_document_that_kills_the_fast_engine_is_encoded_by_the_reference(
    how: str, name: str, corpus: corpora.Corpus, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    reference_takes_over(how, name, corpus, undisturbed, tmp_path)


def test_a_document_that_kills_both_engines_stops_the_run_with_its_place(
    corpus: corpora.Corpus, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    run_stops_with_the_place(corpus, undisturbed, tmp_path)


def test_a_document_that_kills_both_engines_is_left_out_when_asked(
    corpus: corpora.Corpus, tmp_path: Path
) -> None:
    is_left_out_when_asked(corpus, tmp_path)
