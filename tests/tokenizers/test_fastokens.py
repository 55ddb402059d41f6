"""The extra engine fastokens: what it is not trusted with, and how it is used where it is."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.kit import trained
from tests.kit.shared import tokenizer_argument
from tokenmill.errors import UsageError
from tokenmill.tokenizers.choose import choose
from tokenmill.tokenizers.engines import fastokens, make_engine, plain_engine
from tokenmill.tokenizers.engines.gigatoken_limits import MARK
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

ByteLevel = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
needs_it = pytest.mark.skipif(
    find_spec("fastokens") is None,
    reason="needs the extra fastokens",
)


def split(pattern: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior}
    return {**step, "invert": invert}


def with_steps(folder: Path, *steps: dict[str, Any], model: str = "llama3") -> str:
    """A trained tokenizer that splits text by these steps."""
    settings = json.loads(trained.path(model).read_text())
    settings["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(steps)}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(settings))
    return str(path)


LAST = {**ByteLevel, "use_regex": False}


@pytest.mark.parametrize(
    "steps",
    [
        [split(r"\w+|\W"), LAST],
        [split(trained.LLAMA3 + "|x"), LAST],
        [split(trained.LLAMA3, "Removed", True), LAST],
        [split(trained.LLAMA3, "MergedWithPrevious"), LAST],
        [split(trained.LLAMA3), {**LAST, "add_prefix_space": True}],
        [split(trained.LLAMA3), {**ByteLevel, "use_regex": True}],
        [{"type": "Digits", "individual_digits": True}, split(trained.LLAMA3), LAST],
        [split(trained.LLAMA3), split(trained.QWEN), LAST],
    ],
)
def test_what_it_has_no_scanner_for_is_refused_by_rule(
    steps: list[dict[str, Any]], tmp_path: Path
) -> None:
    vocabulary = load_vocabulary(with_steps(tmp_path, *steps), None, "<|end_of_text|>")
    assert fastokens.refusal(vocabulary) == "it has no scanner for its split pattern"


@pytest.mark.parametrize(
    "patterns",
    [(trained.LLAMA3,), (trained.QWEN,), (trained.O200K,), *fastokens.KNOWN_SPLITS.values()],
)
@needs_it
def test_what_it_has_a_scanner_for_is_exact(patterns: tuple[str, ...], tmp_path: Path) -> None:
    """With patterns that tokenmill has no name for, too: those of Tekken, Qwen 3.5, DeepSeek."""
    path = with_steps(tmp_path, *map(split, patterns), LAST)
    vocabulary = load_vocabulary(path)
    assert fastokens.refusal(vocabulary) is None
    if vocabulary.pattern == "other":  # which characters differ would be computed, for a minute
        engine, reference = (plain_engine(n, vocabulary) for n in ("fastokens", "tokenizers"))
        for text in ("it's 1234567 日本語テキスト、12年 Привет, мир!\n\n  x\t y  \r\n", "a1b2/\n/"):
            assert engine.encode_piece(text.encode()) == reference.encode_piece(text.encode())
    else:
        assert choose("fastokens", vocabulary).engine == "fastokens"


def test_ranks_are_used_where_their_pattern_is_known() -> None:
    assert fastokens.refusal(load_vocabulary("gpt2")) is None
    assert fastokens.refusal(load_vocabulary(tokenizer_argument("o200k_base"))) is None
    refused = fastokens.refusal(load_vocabulary(tokenizer_argument("cl100k_base")))
    assert refused == "it has no scanner for its split pattern"


def test_its_settings_for_servers_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTOKENS_INPUT_CACHE", "8")
    assert "FASTOKENS_INPUT_CACHE is set" in (fastokens.refusal(load_vocabulary("gpt2")) or "")


def test_where_it_is_not_installed_the_error_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    vocabulary = load_vocabulary("gpt2")
    with pytest.raises(UsageError, match="the engine fastokens is not installed") as caught:
        choose("fastokens", vocabulary)
    assert "pip install fastokens" in (caught.value.fix or "").replace("'", "")
    assert choose("auto", vocabulary).engine == "gigatoken"
    refused = load_vocabulary(str(trained.path("unknown pattern")))
    assert "fastokens" not in choose("auto", refused).why


@needs_it
@pytest.mark.parametrize("eot", [None, "628"])
def test_the_mark_and_an_ordinary_delimiter_in_the_text(eot: str | None) -> None:
    """628 is two line feeds: its id stands in texts, too."""
    vocabulary = load_vocabulary("gpt2", None, eot)
    reference = make_engine("tiktoken", vocabulary)
    texts = ["a\n\n", "", f"a {MARK}{MARK} b", "\n\n\n\n", f"{MARK}", "x" * 40_000, "\n\n", "b"]
    for some in (texts, texts[:2], texts[2:3], texts[5:]):
        documents = [text.encode() for text in some]
        tokens = make_engine("fastokens", vocabulary).encode(documents)
        expected = reference.encode(documents)
        assert tokens.ids.tolist() == expected.ids.tolist()
        assert tokens.marks.tolist() == expected.marks.tolist()


@needs_it
def test_it_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTOKENS_BPE_THREADS", raising=False)
    before = dict(os.environ)
    make_engine("fastokens", load_vocabulary("gpt2")).encode([b"a"])
    assert dict(os.environ) == before
