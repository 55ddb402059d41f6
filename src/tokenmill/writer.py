"""The one writer: takes token batches in order, routes runs to splits, cuts shards.

It is the only writer of the dataset. Shards keep the suffix ``.partial`` until the whole run is
done, and get their final names together, just before the manifest: a run that fails or is killed
leaves no file that a trainer could take for a dataset.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenmill.batches import TRAIN, VAL, TokenBatch
from tokenmill.formats import Format
from tokenmill.manifest import Shard
from tokenmill.spec import Spec
from tokenmill.storage import StagedFile

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SplitWriter:
    """One split's shards, cut at the exact token."""

    def __init__(self, split: str, folder: Path, spec: Spec, dtype: str, numbers: Numbers) -> None:
        self.split = split
        self.tokens = 0
        self._folder = folder
        self._spec = spec
        self._layout: Format = spec.layout
        self._dtype = dtype
        self._numbers = numbers
        self._staged: StagedFile | None = None
        self._shard_tokens = 0
        self._shard_documents = 0
        self._finishing: list[tuple[Future[str], Shard, StagedFile]] = []
        self._finisher = ThreadPoolExecutor(1)

    def append(self, ids: NDArray[Any], starts: NDArray[np.int64]) -> None:
        """Write ``ids`` (of the shard's dtype); documents begin at ``starts``."""
        limit = self._spec.shard_tokens
        self.tokens += len(ids)
        done = 0
        while done < len(ids):
            if self._staged is None:
                self._open()
            assert self._staged is not None
            room = len(ids) - done if limit is None else limit - self._shard_tokens
            part = ids[done : done + room]
            self._staged.write(part.data.cast("B"))
            begins = np.searchsorted(starts, [done, done + len(part)])
            self._shard_documents += int(begins[1] - begins[0])
            self._shard_tokens += len(part)
            done += len(part)
            if self._shard_tokens == limit:
                self._finish_shard()

    def _open(self) -> None:
        number = None if self._spec.shard_tokens is None else self._numbers.next(self.split)
        name = self._layout.file_name(self._spec.name, self.split, number)
        header = self._layout.header(self._spec.shard_tokens or 0, self._dtype)
        self._staged = StagedFile(self._folder / name, header)

    def _finish_shard(self) -> None:
        """Sync in the background: the disk works while the next shard is filled."""
        staged = self._staged
        assert staged is not None
        header = self._layout.header(self._shard_tokens, self._dtype)
        shard = Shard(
            name=staged.final.name,
            split=self.split,
            tokens=self._shard_tokens,
            documents=self._shard_documents,
            bytes=staged.size,
            sha256="",
        )
        self._finishing.append((self._finisher.submit(staged.finish, header), shard, staged))
        self._staged, self._shard_tokens, self._shard_documents = None, 0, 0
        if len(self._finishing) > 1:
            self._finishing[-2][0].result()

    def finish(self) -> list[Shard]:
        """Complete every shard, still under its partial name. Files without shards always exist."""
        if self._staged is None and self._spec.shard_tokens is None:
            self._open()
        if self._staged is not None:
            self._finish_shard()
        shards = []
        for future, shard, _ in self._finishing:
            shard.sha256 = future.result()
            shards.append(shard)
        self._finisher.shutdown()
        return shards

    def discard(self) -> None:
        """Remove what was written."""
        self._finisher.shutdown(wait=True)
        for _, _, staged in self._finishing:
            staged.discard()
        if self._staged is not None:
            self._staged.discard()


class Numbers:
    """The numbers of shards: running on across splits where validation is the head of the
    corpus, as the original scripts number them; else for each split from 0."""

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self._next: dict[str, int] = {}

    def next(self, split: str) -> int:
        """The next number for a split."""
        key = "" if self._shared else split
        number = self._next.get(key, 0)
        self._next[key] = number + 1
        return number


class DatasetWriter:
    """Routes runs of tokens to the splits' writers."""

    def __init__(self, folder: Path, spec: Spec, dtype: str) -> None:
        self._val_left = spec.val_tokens
        self._open_split = TRAIN
        splits = [VAL, TRAIN] if spec.val_fraction or spec.val_tokens else [TRAIN]
        numbers = Numbers(shared=bool(spec.val_tokens))
        self._splits = {split: SplitWriter(split, folder, spec, dtype, numbers) for split in splits}

    def write(self, batch: TokenBatch) -> None:
        """Append one batch, in its turn."""
        for run in batch.runs:
            ids, starts = run.ids, run.starts
            if self._val_left:
                head = ids[: self._val_left]
                self._splits[VAL].append(head, starts[: np.searchsorted(starts, len(head))])
                self._val_left -= len(head)
                ids, starts = ids[len(head) :], starts[starts >= len(head)] - len(head)
                if not len(ids):
                    continue
            split = run.split or self._open_split
            self._splits[split].append(ids, starts)
            self._open_split = split

    def finish(self) -> list[Shard]:
        """Complete all shards; returns them in the order of their names in the manifest."""
        return [shard for writer in self._splits.values() for shard in writer.finish()]

    def discard(self) -> None:
        """Remove everything written."""
        for writer in self._splits.values():
            writer.discard()
