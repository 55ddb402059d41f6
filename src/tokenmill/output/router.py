"""Which split each run of tokens goes to, in the order of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenmill.batches import TRAIN, VAL, TokenBatch
from tokenmill.dataset.spec import Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Router:
    """Which split each run of tokens goes to, in the order of the corpus: the first ``val_left``
    tokens to val, or where ``by_documents`` so many documents; and a document that goes on where
    it began."""

    def __init__(self, val_left: int, open_split: str = TRAIN, by_documents: bool = False) -> None:
        self.val_left = val_left
        self.open_split = open_split
        self._by_documents = by_documents

    @classmethod
    def of(cls, spec: Spec, val_left: int | None = None, open_split: str = TRAIN) -> Router:
        """That of a spec, at the head of the corpus or where so much is left for val."""
        head = spec.val_docs or spec.val_tokens
        return cls(head if val_left is None else val_left, open_split, bool(spec.val_docs))

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
                yield VAL, head, starts[: np.searchsorted(starts, len(head))]
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
