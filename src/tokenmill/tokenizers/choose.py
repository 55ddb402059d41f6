"""Which engine a run takes, and where it may cut: what is exact, by rule or by self-test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tokenmill.errors import TokenmillError, UsageError, choose_from
from tokenmill.memory import Needs, return_free_memory
from tokenmill.text.cuts import CutRule
from tokenmill.tokenizers.engines import (
    DEFAULT_ENGINE,
    ENGINES,
    make_engine,
    needs_of,
    plain_engine,
    readers,
)
from tokenmill.tokenizers.engines.engine import Engine, NotInstalled
from tokenmill.tokenizers.selftest import difference, documents_for, tried_cuts
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary


@dataclass(frozen=True)
class Choice:
    """How a run encodes: with which engine and why, and where it may cut a text and why.

    ``speeds``: where engines were measured, the bytes a second of each, of one thread.
    """

    engine: str
    why: str
    cuts: CutRule
    why_cuts: str
    needs: Needs
    speeds: Mapping[str, float] = field(default_factory=dict)

    def named(self) -> str:
        """The engine, and what was measured: ``gigatoken (131 MB/s here; fastokens 88)``."""
        if not self.speeds:
            return self.engine
        rest = {name: speed for name, speed in self.speeds.items() if name != self.engine}
        others = ", ".join(f"{name} {speed / 1e6:.0f}" for name, speed in rest.items())
        return f"{self.engine} ({self.speeds[self.engine] / 1e6:.0f} MB/s here; {others})"


def check_engine(choice: str) -> None:
    """Raises UsageError for an ``--engine`` option that names none."""
    if choice != "auto" and choice not in ENGINES:
        raise UsageError(
            f"there is no engine {choice!r}", fix=choose_from(choice, ["auto", *ENGINES])
        )


def choose(choice: str, vocabulary: Vocabulary) -> Choice:
    """The engine for an ``--engine`` option, and the safe cuts: what the self-test allows.

    ``auto`` is the first of the table that is exact for this vocabulary. Raises UsageError.
    """
    check_engine(choice)
    names = readers(vocabulary)
    if choice != "auto" and choice not in names:
        raise UsageError(
            f"the engine {choice} cannot use {vocabulary.name}",
            why="it is for other kinds of tokenizer files",
            fix=f"use --engine auto, or one of {', '.join(names)}",
        )
    if vocabulary.is_proven and choice in ("auto", DEFAULT_ENGINE, vocabulary.reference):
        engine = DEFAULT_ENGINE if choice == "auto" else choice
        why = "it was asked for" if choice != "auto" else "the fastest, and exact for this pattern"
        needs = needs_of(engine, vocabulary)
        return Choice(engine, why, vocabulary.cuts, vocabulary.why_cuts, needs)
    reference = make_engine(vocabulary.reference, vocabulary)
    documents = documents_for(vocabulary.own_texts())
    engine, why = _exact_engine(choice, vocabulary, reference, documents)
    cuts, why_cuts = vocabulary.cuts, vocabulary.why_cuts
    if not vocabulary.is_proven:
        cuts, why_cuts = tried_cuts(vocabulary, reference, documents)
    return_free_memory()
    return Choice(engine, why, cuts, why_cuts, needs_of(engine, vocabulary))


def rivals_of(
    choice: Choice, vocabulary: Vocabulary, fits: Callable[[Needs], bool]
) -> list[Choice]:
    """The engines behind the chosen one in the table that ``fits`` has the memory for, and that
    are exact as well, by rule and by self-test: one of them may be faster. The reference is none:
    where another engine is exact, that was many times as fast with every tokenizer measured."""
    names = readers(vocabulary)
    names = [
        name
        for name in names[names.index(choice.engine) + 1 :]
        if name != vocabulary.reference and fits(needs_of(name, vocabulary))
    ]
    names = [name for name in names if _is_installed(name, vocabulary)]
    if choice.engine == vocabulary.reference or not names:
        return []
    reference = make_engine(vocabulary.reference, vocabulary)
    documents = documents_for(vocabulary.own_texts())
    exact = [name for name in names if _fault(name, vocabulary, reference, documents) is None]
    return_free_memory()
    why = f"it equals {reference.name} on the {len(documents)} documents of the self-test"
    return [
        replace(choice, engine=name, why=why, needs=needs_of(name, vocabulary)) for name in exact
    ]


def _exact_engine(
    choice: str, vocabulary: Vocabulary, reference: Engine, documents: list[bytes]
) -> tuple[str, str]:
    if choice == reference.name:
        return choice, "it was asked for"
    faults = []
    for name in readers(vocabulary) if choice == "auto" else (choice,):
        if name == reference.name or (choice == "auto" and not _is_installed(name, vocabulary)):
            continue
        fault = _fault(name, vocabulary, reference, documents)
        if fault is None:
            why = f"it equals {reference.name} on the {len(documents)} documents of the self-test"
            return name, why
        if choice != "auto":
            raise UsageError(
                f"the engine {name} is not exact for {vocabulary.name}",
                why=fault,
                fix=f"use --engine auto, or --engine {reference.name}",
            )
        faults.append(f"{name} is not used: {fault}")
    return reference.name, "; ".join(faults) or "no other engine reads such a file"


def _is_installed(name: str, vocabulary: Vocabulary) -> bool:
    """Is its library there? An engine of an extra that nobody asked for is passed over."""
    try:
        plain_engine(name, vocabulary)
    except NotInstalled:
        return False
    except TokenmillError:
        return True  # and why it cannot use the vocabulary is told
    return True


def _fault(
    name: str, vocabulary: Vocabulary, reference: Engine, documents: list[bytes]
) -> str | None:
    """Why an engine is not to be used: by rule, or what the self-test finds wrong with it."""
    try:
        plain_engine(name, vocabulary)
        refusal = ENGINES[name].refusal(vocabulary)
        return refusal or difference(make_engine(name, vocabulary), reference, documents)
    except NotInstalled:
        raise
    except TokenmillError as error:
        return f"it cannot use this tokenizer: {error.why}"
