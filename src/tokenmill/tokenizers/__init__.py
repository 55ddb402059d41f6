"""Tokenizers: a vocabulary, and the engines that encode with it.

An engine changes speed, never an id. To add one: one file here and one line in ``ENGINES``; the
contract tests of engines then run on it by themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenmill.errors import UsageError
from tokenmill.tokenizers.engine import Engine, Tokens
from tokenmill.tokenizers.gigatoken import GigatokenEngine
from tokenmill.tokenizers.tiktoken import TiktokenEngine
from tokenmill.tokenizers.vocabulary import Vocabulary, load_vocabulary

__all__ = [
    "ENGINES",
    "REFERENCE_ENGINE",
    "Engine",
    "Tokens",
    "Vocabulary",
    "load_vocabulary",
    "make_engine",
]

ENGINES: dict[str, Callable[[Vocabulary], Engine]] = {
    "gigatoken": GigatokenEngine,
    "tiktoken": TiktokenEngine,
}
DEFAULT_ENGINE = "gigatoken"
REFERENCE_ENGINE = "tiktoken"


def engine_name(choice: str) -> str:
    """The engine for an ``--engine`` option; ``auto`` is the fastest exact one."""
    if choice == "auto":
        return DEFAULT_ENGINE
    if choice not in ENGINES:
        raise UsageError(f"there is no engine {choice!r}", fix=f"use auto, {', '.join(ENGINES)}")
    return choice


def make_engine(name: str, vocabulary: Vocabulary) -> Engine:
    """An engine of its own, for one thread."""
    return ENGINES[name](vocabulary)
