"""What it takes to turn blocks into tokens, as plain data: a ``Recipe`` makes a ``Worker``.

A recipe can be pickled, and gives the same tokens wherever it is used: in this process, whose
threads share one worker, or in another one. It holds the vocabulary's content, not its engines; the
inputs by their identity, not their open files. It cannot walk through the inputs anywhere else:
where blocks end is found by one who has the whole text before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from tokenmill.batches import DocumentBatch
from tokenmill.encoding.cache_limit import CacheGovernor
from tokenmill.encoding.calls import Calls
from tokenmill.encoding.encoder import LARGE_PIECE, BlockEncoder
from tokenmill.encoding.reference import Reference
from tokenmill.encoding.rules import EncodingRules
from tokenmill.memory import Budget, InHand
from tokenmill.sources.block import Block
from tokenmill.sources.corpus import Corpus
from tokenmill.sources.source import SourceOptions
from tokenmill.stores import InputFile
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary


def no_seams() -> NoReturn:
    """In the place of what makes the encoder that looks for seams. Raises RuntimeError."""
    raise RuntimeError("a recipe that was pickled reads blocks, and finds none")


def calls_of(budget: Budget) -> Calls:
    """Who may call an engine when, for all threads of a process with that budget."""
    seams = LARGE_PIECE if budget.is_tight else budget.alone_bytes
    return Calls(budget.alone_bytes, seams, budget.room_alone)


@dataclass(frozen=True)
class Recipe:
    """``rules`` and ``vocabulary`` decide the ids, whatever ``engine`` gives them; ``files`` and
    ``options`` how blocks are read; ``budget`` is what the process may use."""

    rules: EncodingRules
    vocabulary: Vocabulary
    engine: str
    budget: Budget
    files: Sequence[InputFile]
    options: SourceOptions

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to this process: its seam encoder, and what it holds just now."""
        in_hand = InHand()
        options = replace(self.options, seams=no_seams, in_hand=in_hand, tails=None)
        return {**vars(self), "options": options, "budget": replace(self.budget, in_hand=in_hand)}

    def make_engine(self) -> Engine:
        """The chosen engine, for one thread."""
        return make_engine(self.engine, self.vocabulary, self.rules.cuts, self.budget)


class Worker:
    """What the threads of one process share: the open inputs, the reference, the watch over the
    engines' caches. ``is_due``: the reference is to check something of each block, until it is
    told that something was checked."""

    def __init__(self, recipe: Recipe, is_due: bool = False, calls: Calls | None = None) -> None:
        self.recipe = recipe
        self.corpus = Corpus(recipe.files, recipe.options)
        self.reference = Reference(recipe.vocabulary, is_due)
        self.caches = CacheGovernor(recipe.budget)
        self._calls = calls or calls_of(recipe.budget)

    def encoder(self, engine: Engine | None = None) -> BlockEncoder:
        """For one thread; with an engine that nobody else uses, or one that is made."""
        rules, corpus = self.recipe.rules, self.corpus
        engine = engine or self.recipe.make_engine()
        encoder = BlockEncoder(
            rules, engine, self.reference, corpus.read, self.caches.look, self._calls
        )
        self.caches.watch(encoder)
        return encoder

    def slow_encoder(
        self, engine: Engine, read: Callable[[Block], DocumentBatch] | None = None
    ) -> BlockEncoder:
        """The same with an engine of the reference, over which nobody watches; ``read`` gives the
        documents where the corpus is not to."""
        return BlockEncoder(self.recipe.rules, engine, self.reference, read or self.corpus.read)
