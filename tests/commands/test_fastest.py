"""`--engine auto` measures engines that are exact on a large corpus, and takes the faster one.

One toy remembers whole calls, so that it is the fastest where the same text comes again; another
one spends the processor's time. What is large is a byte here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tokenmill
from tests.contract.toy_engines import Remembering
from tests.kit import corpora, runs, sized, texts
from tests.kit.outcome import Outcome
from tests.kit.shared import BOOKS
from tests.output.test_resume import SMALL, die_after
from tokenmill.commands import fastest
from tokenmill.memory import MIB, Needs
from tokenmill.tokenizers import choose as choosing
from tokenmill.tokenizers import engines
from tokenmill.tokenizers.choose import choose, rivals_of
from tokenmill.tokenizers.engines import ENGINES, readers
from tokenmill.tokenizers.engines.engine import NotInstalled, Tokens
from tokenmill.tokenizers.measure import speeds
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

OPTIONS: dict[str, Any] = {"format": "nanogpt", "shard_tokens": 20_000}


class Fast(Remembering):
    """It remembers whole calls."""

    name = "fast"

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._calls: dict[tuple[bytes, ...], Tokens] = {}

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        key = tuple(documents)
        if key not in self._calls:
            self._calls[key] = super().encode(documents)
        return self._calls[key]


class Slow(Remembering):
    name = "slow"

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        until = time.thread_time() + 1e-7 * sum(map(len, documents))  # 10 MB/s
        while time.thread_time() < until:
            pass
        return super().encode(documents)


class Wrong(Remembering):
    name = "wrong"

    def encode_piece(self, text: bytes) -> list[int]:
        return super().encode_piece(text.replace("é".encode(), b"e"))


class Missing(Remembering):
    name = "missing"

    def __init__(self, vocabulary: Vocabulary) -> None:
        raise NotInstalled(self.name, "hub")


class Hungry(Remembering):
    name = "hungry"

    @staticmethod
    def needs(vocabulary: Vocabulary) -> Needs:
        return Needs(2 << 40, 16 * MIB)


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Of the engines of the table only the usual one and the reference; all corpora are large."""
    monkeypatch.setattr(fastest, "WORTH_BYTES", 1)
    monkeypatch.setattr(engines, "different", lambda *_: ())  # all of them have the same tables
    for name in set(ENGINES) - {"gigatoken", "tiktoken"}:
        monkeypatch.delitem(ENGINES, name)
    return monkeypatch


def told_by(caplog: pytest.LogCaptureFixture) -> str:
    return next(line for line in caplog.messages if line.startswith("engine: "))


def test_the_faster_one_is_taken_told_and_in_the_manifest(
    rivals: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = tokenmill.prepare(BOOKS, out=tmp_path / "usual", val_fraction=0.1)
    rivals.setitem(ENGINES, "fast", Fast)
    with caplog.at_level("INFO", "tokenmill"):
        own = tokenmill.prepare(BOOKS, out=tmp_path / "own", val_fraction=0.1)
    assert re.match(r"engine: fast \(\d+ MB/s here; gigatoken \d+\) for gpt2$", told_by(caplog))
    assert Outcome(tmp_path / "own").hashes == Outcome(tmp_path / "usual").hashes
    assert own.fingerprint == usual.fingerprint


def test_the_usual_one_stays_where_it_is_as_fast(
    rivals: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rivals.setitem(ENGINES, "slow", Slow)
    with caplog.at_level("INFO", "tokenmill"):
        tokenmill.prepare(BOOKS, out=tmp_path / "out", val_fraction=0.1)
    assert re.match(r"engine: gigatoken \(\d+ MB/s here; slow \d+\) for gpt2$", told_by(caplog))


@pytest.mark.parametrize("kind", [Wrong, Missing, Hungry, Slow])
def test_what_is_not_exact_not_there_or_too_large_is_not_measured(
    kind: type[Remembering], rivals: pytest.MonkeyPatch
) -> None:
    rivals.setitem(ENGINES, kind.name, kind)
    plan = tokenmill.plan(BOOKS, val_fraction=0.1)
    assert plan.engine == "gigatoken"
    assert set(plan.choice.speeds) == ({"gigatoken", "slow"} if kind is Slow else set())
    assert set(plan.as_dict()["engine_speeds"]) == set(plan.choice.speeds)


def test_a_small_corpus_and_an_engine_by_name_are_not_measured(
    rivals: pytest.MonkeyPatch,
) -> None:
    rivals.setitem(ENGINES, "fast", Fast)
    assert not tokenmill.plan(BOOKS, val_fraction=0.1, engine="gigatoken").choice.speeds
    rivals.setattr(fastest, "WORTH_BYTES", 1 << 30)
    plan = tokenmill.plan(BOOKS, val_fraction=0.1)
    assert plan.engine_name() == "engine: gigatoken for gpt2"
    assert not plan.choice.speeds


def test_where_one_engine_qualifies_nothing_is_loaded(rivals: pytest.MonkeyPatch) -> None:
    """No reference, no self-test, no sample: no cost for those who have no other engine."""
    vocabulary = load_vocabulary("gpt2")
    choice = choose("auto", vocabulary)
    rivals.setitem(ENGINES, "missing", Missing)

    def refuse(*_: object) -> None:
        raise AssertionError("something is loaded")

    for name in ("make_engine", "documents_for"):
        rivals.setattr(choosing, name, refuse)
    assert readers(vocabulary) == ["gigatoken", "tiktoken", "missing"]
    assert rivals_of(choice, vocabulary, lambda needs: True) == []


def test_a_run_is_finished_with_another_engine_to_the_same_bytes(
    rivals: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which engine is faster may be another one the next day."""
    corpus = corpora.write(tmp_path, "jsonl", texts.adversarial_documents(2000)).path
    sized.prepare(corpus, out=tmp_path / "whole", sizes=SMALL, **OPTIONS)
    die_after(4, corpus, tmp_path / "out", **OPTIONS)
    assert runs.checkpoints(tmp_path / "out") >= 1
    rivals.setitem(ENGINES, "fast", Fast)
    with caplog.at_level("INFO", "tokenmill"):
        sized.prepare(corpus, out=tmp_path / "out", sizes=SMALL, **OPTIONS)
    assert "engine: fast" in told_by(caplog)
    assert Outcome(tmp_path / "out").hashes == Outcome(tmp_path / "whole").hashes


def test_engines_take_turns_and_the_least_time_counts() -> None:
    """The first turn, in which all is new, and one that was disturbed, do not count."""

    class Recorded(Remembering):
        def __init__(self, name: str, waits: list[float]) -> None:
            self.name, self._waits = name, iter(waits)

        def encode(self, documents: Sequence[bytes]) -> Tokens:
            turns.append(self.name)
            until = time.thread_time() + next(self._waits)
            while time.thread_time() < until:
                pass
            return Tokens(None, None)  # type: ignore[arg-type]

    turns: list[str] = []
    both = {
        "a": Recorded("a", [0.1, 0.02, 0.01, 0.02, 0.02, 0.02]),
        "b": Recorded("b", [0.001, 0.03, 0.03, 0.02, 0.03, 0.03]),
    }
    found = speeds(both, [b"x" * 500, b"y" * 500])
    assert turns == ["a", "b"] * 6
    assert 70_000 < found["a"] <= 100_000
    assert 35_000 < found["b"] <= 50_000
