"""Which split a document or a token goes to: the only place that knows.

Names, rule, hash, route and words. A ``SplitRule`` is plain data, made by the spec; the plan adds
the border where the corpus is one document. docs/decisions/2026-11-21-splits.md says why each rule
is there. What is here decides bytes: the hash, the bytes hashed and the border stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from tokenmill.sizes import DEFAULT_SIZES
from tokenmill.units import format_count, numbered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tokenmill.batches import TokenBatch

TRAIN, VAL = "train", "val"
NAMES = (VAL, TRAIN)
"""Every split there can be, in the manifest's order."""
HASHED_BYTES = DEFAULT_SIZES.hashed
"""A document that goes on in the next block has at least this much in its first one."""
LIKELY_EMPTY = 0.05
"""A chance of an empty validation split that is told before the run."""


@dataclass(frozen=True)
class SplitRule:
    """How the validation split is drawn; plain data.

    At most one is not 0: ``fraction`` (of the documents, by a hash that ``seed`` decides; or where
    there is a ``border``, of the bytes), ``tokens`` and ``documents`` (the first ones of the
    corpus). ``border`` is the byte at or near which val begins in a corpus of one document.
    """

    fraction: float = 0.0
    seed: int = 0
    tokens: int = 0
    documents: int = 0
    border: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that a dataset has, in the manifest's order."""
        return NAMES if self.fraction or self.is_head else (TRAIN,)

    @property
    def has_validation(self) -> bool:
        """Is any of it for validation?"""
        return VAL in self.names

    @property
    def is_head(self) -> bool:
        """Is the head of the corpus for validation?"""
        return bool(self.tokens or self.documents)

    @property
    def draws_documents(self) -> bool:
        """Are documents drawn, each by its hash?"""
        return bool(self.fraction) and self.border is None

    @property
    def joined(self) -> tuple[str, ...]:
        """The splits in the order of the corpus, where documents may go on from one into the
        other; none where each document is whole in one."""
        if self.border is not None:
            return TRAIN, VAL
        return () if self.fraction else (VAL, TRAIN)

    @property
    def default(self) -> str | None:
        """Where a run of tokens goes whose split its block does not tell: behind the border's
        damage the document goes on where it was (None); of a head the router takes its part."""
        return None if self.fraction else TRAIN

    def is_val(self, document: bytes, hashed: int = HASHED_BYTES) -> bool:
        """Drawn by a seeded hash of the document's bytes (the first ``hashed`` of a longer one)."""
        head = document if len(document) <= hashed else memoryview(document)[:hashed]
        return xxhash.xxh3_64_intdigest(head, self.seed) < int(self.fraction * 2**64)

    def border_in(self, size: int) -> int:
        """Where train ends in one document of ``size`` bytes: at a safe cut at or near it."""
        return max(1, size - round(size * self.fraction))

    def expected(self, tokens: int, documents: int) -> int:
        """Of so many tokens in so many documents, about how many are for validation."""
        if self.documents:
            return round(tokens * min(1.0, self.documents / max(1, documents)))
        if self.draws_documents and documents * self.fraction < 1:
            return 0
        return min(tokens, self.tokens or round(tokens * self.fraction))

    def words(self) -> str:
        """How the validation split is drawn, in words, for the manifest."""
        if self.border is not None:
            return (
                "by position: one document, val begins at the safe cut at or near byte "
                f"{self.border}"
            )
        if self.fraction:
            return f"by document: a seeded hash below {self.fraction} is val"
        if self.tokens:
            return f"by position: the first {self.tokens} tokens are val"
        if self.documents:
            return f"by position: the first {numbered(self.documents, 'document')} go to val"
        return "none: all documents are train"

    def doubt(self, documents: int) -> str | None:
        """A warning where none of about so many documents may be drawn."""
        chance = (1 - self.fraction) ** documents
        if not self.draws_documents or chance <= LIKELY_EMPTY:
            return None
        return (
            f"the validation split may be empty, for --val-fraction {self.fraction:g} draws whole "
            f"documents, and there are about {format_count(documents)}; fix: {advised(documents)}"
        )

    def outcome(self, tokens: dict[str, int], documents: int) -> str | None:
        """A warning where a split that was asked for has no token, though there are some."""
        if not self.has_validation or not any(tokens.values()):
            return None
        if not tokens.get(VAL):
            return (
                f"the validation split is empty: none of {numbered(documents, 'document')} was "
                f"drawn; fix: {advised(documents)}"
            )
        if not tokens.get(TRAIN) and self.documents:
            taken = f"--val-docs {self.documents} takes all"
            return f"there is nothing for training: {taken}; fix: fewer"
        return None


def one_sided(share: float, first: str, sources: int) -> str:
    """The warning that the head of the corpus, a ``share`` of its tokens, is of one source only."""
    return (
        f"the validation split is the head of the corpus, and all of it comes from "
        f"{first}, one of {sources} sources; fix: --val-fraction "
        f"{max(1e-6, float(f'{share:.1g}')):g} draws documents from all of them"
    )


def advised(documents: int) -> str:
    """What to do where none of so many documents may be drawn: draw eight of them, of which none
    comes once in three thousand times; or where that is too large a share, take the first."""
    if documents == 1:
        return "--val-tokens, for one 2048"
    if documents < 40:
        return "--val-docs 1, or --val-tokens"
    digits = 10 ** math.ceil(math.log10(documents))
    return f"--val-fraction {math.ceil(8 * digits / documents) / digits:g}"


def split_at(position: int, border: int | None) -> str | None:
    """The split of the text from a byte on; None where there is no border."""
    return None if border is None else TRAIN if position < border else VAL


class SplitRouter:
    """Which split each run of tokens goes to, in the order of the corpus: the first ``val_left``
    tokens to val, or where the rule counts documents so many of these; and a document that goes on
    where it began."""

    def __init__(
        self, rule: SplitRule, val_left: int | None = None, open_split: str = TRAIN
    ) -> None:
        """At the head of the corpus, or where so much is left for val."""
        self.val_left = (rule.documents or rule.tokens) if val_left is None else val_left
        self.open_split = open_split
        self._by_documents = bool(rule.documents)

    def route(self, batch: TokenBatch) -> Iterator[tuple[str, NDArray[Any], NDArray[np.int64]]]:
        """(split, ids, starts of documents in them) for each run, or part of one."""
        for run in batch.runs:
            ids, starts = run.ids, run.starts
            if self._by_documents:
                yield from self._whole_documents(ids, starts)
                continue
            if self.val_left:
                head = ids[: self.val_left]
                self.val_left -= len(head)
                yield VAL, head, starts[: starts.searchsorted(len(head))]
                ids, starts = ids[len(head) :], starts[starts >= len(head)] - len(head)
                if not len(ids):
                    continue
            self.open_split = run.split or self.open_split
            yield self.open_split, ids, starts

    def _whole_documents(
        self, ids: NDArray[Any], starts: NDArray[np.int64]
    ) -> Iterator[tuple[str, NDArray[Any], NDArray[np.int64]]]:
        """The rest of the document that goes on, those that are still for val, and the others."""
        val = min(self.val_left, len(starts))
        self.val_left -= val
        ends = [int(starts[0]) if len(starts) else len(ids)]
        ends.append(int(starts[val]) if val < len(starts) else len(ids))
        yield self.open_split, ids[: ends[0]], starts[:0]
        if val:
            self.open_split = VAL
            yield VAL, ids[ends[0] : ends[1]], starts[:val] - ends[0]
        if val < len(starts):
            self.open_split = TRAIN
            yield TRAIN, ids[ends[1] :], starts[val:] - ends[1]
