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

from tokenmill.batches import DocumentBatch, Position, TokenBatch
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
from tokenmill.tokenizers.engines import make_engine, shared_reference
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary


def no_seams() -> NoReturn:
    """In the place of what makes the encoder that looks for seams. Raises RuntimeError."""
    raise RuntimeError("a recipe that was pickled reads blocks, and finds none")


def calls_of(budget: Budget, share: Budget | None = None) -> Calls:
    """Who may call an engine when, for all threads of a process with that budget, or with a
    ``share`` of it: that decides when to ask for more, and nothing about what is too large."""
    here = share or budget
    seams = LARGE_PIECE if here.is_tight else here.alone_bytes
    most = {} if share is None else {"here": share.room_alone.most}
    return Calls(here.alone_bytes, seams, budget.room_alone, **most)


@dataclass(frozen=True)
class Recipe:
    """``rules`` and ``vocabulary`` decide the ids, whatever ``engine`` gives them; ``files`` and
    ``options`` how blocks are read; ``budget`` is what the run may use, and ``share`` what one
    worker process may, where it has such."""

    rules: EncodingRules
    vocabulary: Vocabulary
    engine: str
    budget: Budget
    files: Sequence[InputFile]
    options: SourceOptions
    share: Budget | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to this process: its seam encoder, and what it holds just now."""
        in_hand = InHand()
        fetches = not self.options.hands_over
        options = replace(
            self.options, seams=no_seams, in_hand=in_hand, tails=None, fetches=fetches
        )
        budget = replace(self.budget, in_hand=in_hand)
        share = self.share and replace(self.share, in_hand=in_hand)
        return {**vars(self), "options": options, "budget": budget, "share": share}

    def shared(self, share: Budget) -> Recipe:
        """That of a worker process with such a share: its calls are smaller where that is small,
        for a call may let caches grow by twenty times its text."""
        rules = replace(self.rules, call_bytes=share.call_bytes)
        return replace(self, rules=rules, share=share)

    def make_engine(self) -> Engine:
        """The chosen engine, for one thread."""
        return make_engine(self.engine, self.vocabulary, self.rules.cuts, self.budget)


class Worker:
    """What the threads of one process share: the open inputs, the reference, the watch over the
    engines' caches."""

    def __init__(self, recipe: Recipe, calls: Calls | None = None) -> None:
        self.recipe = recipe
        self.corpus = Corpus(recipe.files, recipe.options)
        self.reference = Reference(recipe.vocabulary)
        self.caches = CacheGovernor(recipe.share or recipe.budget)
        self._calls = calls or calls_of(recipe.budget, recipe.share)

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


Task = tuple[Block, bool]
"""A block to be encoded, and whether the reference is due to check something of it."""
Encode = Callable[[Task], tuple[TokenBatch, Position]]
"""What a worker does with it; the next block begins at the position."""


def encoding(encode: Callable[[Block, bool], TokenBatch]) -> Encode:
    """A block's encoder as a worker calls it."""
    return lambda task: (encode(*task), task[0].end)


class ProcessMaker:
    """Makes what a worker process calls, of a recipe.

    The engine and the reference are loaded before the workers are forked: their memory is then
    taken once, and a worker begins at once. Measured with GPT-2's vocabulary: 0.2 s and 50 MB less
    for each of them.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._engine: Engine | None = None

    def preload(self) -> None:
        """Load what all workers can share, in the process that forks them."""
        recipe = self._recipe
        if recipe.vocabulary.reference in _FORKED:
            shared_reference(recipe.vocabulary).encode([b"a"])
        if recipe.engine in _FORKED:
            self._engine = recipe.make_engine()
            self._engine.encode([b"a", b"b"])

    def __call__(self) -> Encode:
        return encoding(Worker(self._recipe).encoder(self._engine).encode)


_FORKED = {"gigatoken", "tiktoken"}
"""Engines that start no thread when they are loaded, so that they work on after a fork."""
