"""Which engine a run takes, and where it may cut: what is exact, by rule or by self-test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenmill.errors import TokenmillError, UsageError, choose_from
from tokenmill.memory import Needs, return_free_memory
from tokenmill.text.cuts import CutRule
from tokenmill.tokenizers.engines import DEFAULT_ENGINE, ENGINES, make_engine
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.engines.gigatoken_limits import refusal
from tokenmill.tokenizers.selftest import difference, documents_for, tried_cuts
from tokenmill.tokenizers.vocabularies.sentencepiece_model import SentencePieceModel
from tokenmill.tokenizers.vocabularies.sentencepiece_proto import BYTE, NORMAL
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import Ranks
from tokenmill.tokenizers.vocabularies.tokenizer_json import TokenizerJson
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

_A_WORD = 256
"""Bytes of a token that the self-test writes beside others, at most: the longest of a published
vocabulary has 128. One of a million took 360 MB."""
REFUSALS: dict[str, Callable[[Vocabulary], str | None]] = {"gigatoken": refusal}
"""For each engine that does not promise everything: why it is not to be used for a vocabulary."""


@dataclass(frozen=True)
class Choice:
    """How a run encodes: with which engine and why, and where it may cut a text and why."""

    engine: str
    why: str
    cuts: CutRule
    why_cuts: str
    needs: Needs


def check_engine(choice: str) -> None:
    """Raises UsageError for an ``--engine`` option that names none."""
    if choice != "auto" and choice not in ENGINES:
        raise UsageError(
            f"there is no engine {choice!r}", fix=choose_from(choice, ["auto", *ENGINES])
        )


def choose(choice: str, vocabulary: Vocabulary) -> Choice:
    """The engine for an ``--engine`` option, and the safe cuts: what the self-test allows.

    ``auto`` is the fastest engine that is exact for this vocabulary. Raises UsageError.
    """
    check_engine(choice)
    if choice != "auto" and choice not in vocabulary.engines:
        raise UsageError(
            f"the engine {choice} cannot use {vocabulary.name}",
            why="it is for other kinds of tokenizer files",
            fix=f"use --engine auto, or one of {', '.join(vocabulary.engines)}",
        )
    if isinstance(vocabulary, Ranks) and vocabulary.is_proven:
        engine = DEFAULT_ENGINE if choice == "auto" else choice
        why = "it was asked for" if choice != "auto" else "the fastest, and exact for this pattern"
        needs = vocabulary.needs(engine)
        return Choice(engine, why, vocabulary.cuts, vocabulary.why_cuts, needs)
    reference = make_engine(vocabulary.reference, vocabulary)
    documents = documents_for(_own_texts(vocabulary))
    engine, why = _exact_engine(choice, vocabulary, reference, documents)
    cuts, why_cuts = tried_cuts(vocabulary, reference, documents)
    return_free_memory()
    return Choice(engine, why, cuts, why_cuts, vocabulary.needs(engine))


def _exact_engine(
    choice: str, vocabulary: Vocabulary, reference: Engine, documents: list[bytes]
) -> tuple[str, str]:
    if choice == reference.name:
        return choice, "it was asked for"
    for name in vocabulary.engines if choice == "auto" else (choice,):
        if name == reference.name:
            continue
        fault = REFUSALS[name](vocabulary) if name in REFUSALS else None
        if fault is None:
            fault = _tried(name, vocabulary, reference, documents)
        if fault is None:
            why = f"it equals {reference.name} on the {len(documents)} documents of the self-test"
            return name, why
        if choice != "auto":
            raise UsageError(
                f"the engine {name} is not exact for {vocabulary.name}",
                why=fault,
                fix=f"use --engine auto, or --engine {reference.name}",
            )
    return reference.name, f"{vocabulary.engines[0]} is not used: {fault}"


def _tried(
    name: str, vocabulary: Vocabulary, reference: Engine, documents: list[bytes]
) -> str | None:
    """What the self-test finds wrong with an engine."""
    try:
        return difference(make_engine(name, vocabulary), reference, documents)
    except TokenmillError as error:
        return f"it cannot use this tokenizer: {error.why}"


def _own_texts(vocabulary: Vocabulary) -> list[str]:
    """What the tokenizer may look for in a text: all of it is written into the self-test."""
    if isinstance(vocabulary, TokenizerJson):
        return [str(token.get("content")) for token in vocabulary.added_tokens]
    if isinstance(vocabulary, SentencePieceModel):
        pieces = vocabulary.declared.pieces
        return [piece.text for piece in pieces if piece.kind not in (NORMAL, BYTE)]
    assert isinstance(vocabulary, Ranks)
    # Without its own program: a few thousand of its tokens, each of which it must find again.
    tokens = sorted(vocabulary.ranks.items(), key=lambda item: item[1] * 2654435761 % 2**32)
    texts = [token.decode(errors="ignore") for token, _ in tokens[:4000] if len(token) <= _A_WORD]
    return [text for text in texts if text]
