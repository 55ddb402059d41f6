"""What encodes with a vocabulary; all engines are in ``ENGINES``."""

from __future__ import annotations

import threading
from functools import partial

from tokenmill.memory import Budget, Needs
from tokenmill.text.cuts import NOWHERE, CutRule
from tokenmill.tokenizers.engines.differences import different
from tokenmill.tokenizers.engines.engine import Engine, EngineKind
from tokenmill.tokenizers.engines.fastokens import FastokensEngine
from tokenmill.tokenizers.engines.gigatoken import GigatokenEngine
from tokenmill.tokenizers.engines.guarded import GuardedEngine
from tokenmill.tokenizers.engines.huggingface import HuggingFaceEngine
from tokenmill.tokenizers.engines.sentencepiece import SentencePieceEngine
from tokenmill.tokenizers.engines.tiktoken import TiktokenEngine
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

ENGINES: dict[str, EngineKind] = {
    GigatokenEngine.name: GigatokenEngine,
    FastokensEngine.name: FastokensEngine,
    TiktokenEngine.name: TiktokenEngine,
    HuggingFaceEngine.name: HuggingFaceEngine,
    SentencePieceEngine.name: SentencePieceEngine,
}
"""All of them, each in one line: which vocabularies it reads, it declares itself. Of two that are
exact, the first is taken where nothing is measured."""
DEFAULT_ENGINE = "gigatoken"
_REFERENCE_FACTOR = 55
"""Bytes of memory for each byte of text. Measured with 0.14 of tiktoken: 37 to 52."""


def make_engine(
    name: str, vocabulary: Vocabulary, cuts: CutRule = NOWHERE, budget: Budget | None = None
) -> Engine:
    """An engine of its own, for one thread: exact, whatever tables of Unicode it has.

    ``cuts`` is where it may cut a long document of which only a part is the reference's; what the
    reference must have whole, and ``budget`` has no room for, is TooLarge.
    """
    engine = plain_engine(name, vocabulary)
    ranges = different(name, vocabulary, plain_engine)
    if not ranges:
        return engine
    end_of_text = vocabulary.end_of_text
    factor = max(_REFERENCE_FACTOR, needs_of(vocabulary.reference, vocabulary).factor)
    room = None if budget is None else budget.room_beside(factor)
    reference = partial(shared_reference, vocabulary)
    return GuardedEngine(engine, ranges, reference, end_of_text, cuts, room)


def readers(vocabulary: Vocabulary) -> list[str]:
    """The engines that read vocabularies of this kind, in the order of the table."""
    return [name for name, kind in ENGINES.items() if isinstance(vocabulary, kind.reads)]


def needs_of(name: str, vocabulary: Vocabulary) -> Needs:
    """The memory that a vocabulary takes with that engine."""
    return ENGINES[name].needs(vocabulary)


def plain_engine(name: str, vocabulary: Vocabulary) -> Engine:
    """An engine as its library is, with its own tables of Unicode."""
    return ENGINES[name](vocabulary)


_making = threading.Lock()
"""Held for a moment by whoever makes a reference, which is the vocabulary's, and so a run's."""


def shared_reference(vocabulary: Vocabulary) -> Engine:
    """The vocabulary's reference, one for all threads, made when it is first asked for."""
    kept = vars(vocabulary)
    with _making:
        if "_reference" not in kept:
            kept["_reference"] = plain_engine(vocabulary.reference, vocabulary)
    engine: Engine = kept["_reference"]
    return engine
