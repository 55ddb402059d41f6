"""The check by the reference while a run works: always something, and always the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.kit import corpora, texts, trained
from tests.kit.outcome import prepare
from tokenmill.errors import EngineMismatch, LimitReached
from tokenmill.sizes import Sizes
from tokenmill.tokenizers.engines.engine import Tokens
from tokenmill.tokenizers.engines.gigatoken import GigatokenEngine

SPELLINGS = ("one.txt", "{}/one.txt", "../in/one.txt", "../in/../in/one.txt", "*.txt")


@pytest.fixture
def lying_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that gives the id after the right one, for every token."""
    honest = GigatokenEngine.encode

    def encode(self: Any, documents: Sequence[bytes]) -> Tokens:
        tokens = honest(self, documents)
        wrong = (tokens.ids + 1) % 50256
        wrong[tokens.marks] = tokens.ids[tokens.marks]
        return Tokens(wrong, tokens.marks)

    monkeypatch.setattr(GigatokenEngine, "encode", encode)


def test_the_same_piece_is_checked_however_the_path_is_typed(
    small_blocks: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.txt").write_text("\n\n".join(texts.prose(900) for _ in range(60)))
    monkeypatch.chdir(folder)
    seen = set()
    for number, spelling in enumerate(SPELLINGS):
        options: dict[str, Any] = {"documents": "blank-line", "val_fraction": 0, "check": 0.1}
        made = prepare(
            Path(spelling.format(folder)), tmp_path / str(number), **options, sizes=small_blocks
        )
        seen.add((made.manifest["check"]["documents"], made.manifest["check"]["bytes"]))
    assert len(seen) == 1
    assert min(seen)[1] > 0


@pytest.mark.parametrize("share", [1e-12, None])
@pytest.mark.parametrize("count", [1, 5])
def test_something_is_checked_however_small_the_share(
    share: float | None, count: int, tmp_path: Path
) -> None:
    documents = ["", *(f"document {n} of a small corpus" for n in range(count)), ""]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    options: dict[str, Any] = {} if share is None else {"check": share}
    made = prepare(corpus, tmp_path / "out", val_fraction=0, **options)
    assert made.manifest["check"]["documents"] == 1
    assert made.manifest["check"]["bytes"] > 20
    none = prepare(corpus, tmp_path / "none", val_fraction=0, check=0)
    assert none.manifest["check"]["bytes"] == 0


@pytest.mark.usefixtures("lying_engine")
def test_an_engine_that_lies_is_found_in_the_smallest_corpus(tmp_path: Path) -> None:
    corpus = corpora.write(tmp_path, "jsonl", ["", "hello world"])
    with pytest.raises(EngineMismatch, match="different ids"):
        prepare(corpus, tmp_path / "out", val_fraction=0)


def test_a_run_that_goes_on_checks_something_again(
    small_blocks: Sizes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    documents = [texts.prose(800) for _ in range(60)]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    options: dict[str, Any] = {"val_fraction": 0, "check": 1e-12, "threads": 1}
    whole = prepare(corpus, tmp_path / "whole", **options, sizes=small_blocks)
    for out in ("out", "lied"):
        with pytest.raises(LimitReached):
            prepare(corpus, tmp_path / out, max_time=0, **options, sizes=small_blocks)
    again = prepare(corpus, tmp_path / "out", **options, sizes=small_blocks)
    assert again.hashes == whole.hashes, "the manifest counts what an undisturbed run counts"
    assert again.manifest == whole.manifest
    request.getfixturevalue("lying_engine")
    with pytest.raises(EngineMismatch, match="different ids"):
        prepare(corpus, tmp_path / "lied", **options, sizes=small_blocks)


def test_of_a_long_text_that_is_never_cut_the_beginning_is_checked(tmp_path: Path) -> None:
    """Its tokens cannot be told apart by a cut: its beginning is encoded as a text of its own."""
    corpus = corpora.write(tmp_path, "jsonl", [texts.prose(300_000)])
    options = trained.options("llama2")
    made = prepare(corpus, tmp_path / "out", val_fraction=0, **options)
    assert made.manifest["check"]["bytes"] == 64 * 1024


def test_the_last_line_tells_how_much_text_was_checked(tokenmill: Run, tmp_path: Path) -> None:
    corpus = corpora.write(tmp_path, "jsonl", ["hello world"])
    arguments = ["prepare", *corpus.arguments(), "--val-fraction", 0, "--out"]
    done = tokenmill(*arguments, tmp_path / "out")
    assert "11 B of text checked by tiktoken, no difference" in done.stderr
    done = tokenmill(*arguments, tmp_path / "none", "--check", 0)
    assert "nothing of text checked by tiktoken (--check 0)" in done.stderr
