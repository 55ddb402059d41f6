"""The one writer: takes token batches in order, routes runs to splits, cuts shards, makes durable.

It is the only writer of the dataset. Shards keep the suffix ``.partial`` until the whole run is
done, and get their final names together, just before the manifest: a run that fails or is killed
leaves no file that a trainer could take for a dataset. What it notes in the journal is on disk
before the note is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from tokenmill.batches import START, TRAIN, VAL, BadRecord, Position, TokenBatch
from tokenmill.dataset.manifest import QUARANTINE, Origin, Quarantine, Shard
from tokenmill.dataset.spec import Spec
from tokenmill.formats import Format
from tokenmill.journal import Checkpoint, Encoded, Journal, Log, OpenFile, ShardDone
from tokenmill.stores.durable import StagedFile, check_partial, sync_folder
from tokenmill.uploads import MOST_WAITING, Uploads

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Done = TypeVar("_Done")
_MOST_UNFINISHED = 2
"""Shards that wait for their sync, at most: then the disk is slower than the rest."""


@dataclass
class _OpenShard:
    """A shard that is being filled: ``about`` counts what is in it."""

    staged: StagedFile
    about: Shard
    header: bytes = b""


class SplitWriter:
    """One split's shards, cut at the exact token."""

    def __init__(self, split: str, folder: Path, spec: Spec, dtype: str, numbers: Numbers) -> None:
        self.split = split
        self.open_shard: _OpenShard | None = None
        self._folder = folder
        self._spec = spec
        self._layout: Format = spec.layout
        self._dtype = dtype
        self._numbers = numbers
        self._tokens_of_block = 0

    def begin_block(self) -> None:
        """What is appended from now on comes from another block."""
        self._tokens_of_block = 0

    def append(
        self, ids: NDArray[Any], starts: NDArray[np.int64], origin: Origin, whole: list[_OpenShard]
    ) -> None:
        """Write ``ids`` (of the shard's dtype); documents begin at ``starts``.

        Shards that are full go to the list ``whole``. ``origin`` is that of the block.
        """
        limit = self._spec.shard_tokens
        done = 0
        while done < len(ids):
            if self.open_shard is None:
                self._open(msgspec.structs.replace(origin, skip=self._tokens_of_block))
            assert self.open_shard is not None
            about = self.open_shard.about
            room = len(ids) - done if limit is None else limit - about.tokens
            part = ids[done : done + room]
            self.open_shard.staged.write(part.data.cast("B"))
            begins = np.searchsorted(starts, [done, done + len(part)])
            about.documents += int(begins[1] - begins[0])
            about.tokens += len(part)
            done += len(part)
            self._tokens_of_block += len(part)
            if about.tokens == limit:
                whole.append(self.take())

    def _open(self, origin: Origin) -> None:
        number = None if self._spec.shard_tokens is None else self._numbers.next(self.split)
        name = self._layout.file_name(self._spec.name, self.split, number)
        staged = StagedFile(self._folder / name, self._first_header())
        self.open_shard = _OpenShard(staged, Shard(name, self.split, 0, 0, 0, "", origin))

    def _first_header(self) -> bytes:
        return self._layout.header(self._spec.shard_tokens or 0, self._dtype)

    def reopen(self, file: OpenFile) -> None:
        """Go on with a shard that an interrupted run left."""
        assert file.shard is not None
        place = self._folder / file.name
        staged = StagedFile.reopen(place, file.bytes, file.sha256, self._first_header())
        self.open_shard = _OpenShard(staged, file.shard)

    def take(self) -> _OpenShard:
        """Hand out the open shard, to be finished."""
        assert self.open_shard is not None
        taken, self.open_shard = self.open_shard, None
        taken.about.bytes = taken.staged.size
        taken.header = self._layout.header(taken.about.tokens, self._dtype)
        return taken

    def last(self, origin: Origin) -> _OpenShard | None:
        """The shard that is not full, if any. A split that is one file always has it."""
        if self.open_shard is None and self._spec.shard_tokens is None:
            self._open(origin)
        return self.take() if self.open_shard is not None else None


class Numbers:
    """The numbers of shards: running on across splits where validation is the head of the
    corpus, as the original scripts number them; else for each split from 0."""

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self.following: dict[str, int] = {}

    def next(self, split: str) -> int:
        """The next number for a split."""
        key = "" if self._shared else split
        number = self.following.get(key, 0)
        self.following[key] = number + 1
        return number


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


class QuarantineWriter:
    """The file of the records left out; it exists only if there are any."""

    def __init__(self, folder: Path) -> None:
        self._place = folder / QUARANTINE
        self.staged: StagedFile | None = None
        self.reasons: Counter[str] = Counter()

    def append(self, records: list[BadRecord]) -> None:
        """Add records, one line of JSON each."""
        for record in records:
            self.staged = self.staged or StagedFile(self._place)
            line = json.dumps(record.as_dict(), ensure_ascii=False) + "\n"
            self.staged.write(memoryview(line.encode()))
            self.reasons[record.reason] += 1

    def reopen(self, file: OpenFile, reasons: dict[str, int]) -> None:
        """Go on with the file that an interrupted run left."""
        self.staged = StagedFile.reopen(self._place, file.bytes, file.sha256)
        self.reasons = Counter(reasons)


class DatasetWriter:
    """Routes runs of tokens to the splits' writers, and notes what is durable.

    All syncs and notes happen in one thread of its own, in order: while the disk works, blocks go
    on being encoded and written.
    """

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        dtype: str,
        journal: Journal,
        uploads: Uploads | None = None,
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._uploads = uploads
        if uploads is not None:
            uploads.note = lambda entry: self._submit(journal.append, entry).result()
        self.wants_checkpoint = False
        self._router = Router.of(spec)
        splits = [VAL, TRAIN] if spec.has_validation else [TRAIN]
        self._numbers = Numbers(shared=bool(spec.val_tokens))
        self._splits = {
            split: SplitWriter(split, folder, spec, dtype, self._numbers) for split in splits
        }
        self._quarantine = QuarantineWriter(folder)
        self._journal = journal
        self._position = START
        self._shards: list[Future[Shard]] = []
        self._handed_over = 0
        self._checkpoint: Future[None] | None = None
        self._committer = ThreadPoolExecutor(1, "tokenmill-commit")
        self._failure: BaseException | None = None

    @property
    def reasons(self) -> Counter[str]:
        """Records left out so far, by reason."""
        return self._quarantine.reasons

    def restore(self, log: Log) -> None:
        """Go on from the journal's last checkpoint. Raises TokenmillError."""
        at = log.checkpoint
        assert at is not None
        self._router = Router.of(self._spec, at.val_left, at.open_split)
        self._numbers.following.update(at.numbers)
        self._position = Position(at.file, at.state)
        for shard in log.shards[: at.shards]:
            if shard.name not in log.stored:
                check_partial(self._folder / shard.name, shard.bytes)
            if self._uploads is not None:
                add = self._uploads.add_stored if shard.name in log.stored else self._uploads.add
                add(shard)
            done: Future[Shard] = Future()
            done.set_result(shard)
            self._shards.append(done)
        self._handed_over = at.shards
        for file in at.open:
            if file.shard is None:
                self._quarantine.reopen(file, at.reasons)
            else:
                self._splits[file.shard.split].reopen(file)

    def write(self, batch: TokenBatch, end: Position) -> None:
        """Append one batch, in its turn; the next block begins at ``end``."""
        self._raise_failures()
        self._quarantine.append(batch.bad)
        for writer in self._splits.values():
            writer.begin_block()
        origin = self._origin()
        whole: list[_OpenShard] = []
        for split, ids, starts in self._router.route(batch):
            self._splits[split].append(ids, starts, origin, whole)
        for shard in whole:
            self._finish(shard)
        self._position = end

    def _origin(self) -> Origin:
        place, router = self._position, self._router
        return Origin(place.file, place.state, 0, router.val_left, router.open_split)

    def _finish(self, shard: _OpenShard) -> None:
        """Sync in the background: the disk works while the next shard is filled."""
        self._shards.append(self._submit(self._complete, shard))
        if len(self._shards) > _MOST_UNFINISHED:
            self._shards[-1 - _MOST_UNFINISHED].result()
        if self._uploads is not None:
            self.wants_checkpoint = True  # while little is in the next one
            held_back = len(self._shards) - self._handed_over
            self._uploads.wait_for_room(max(0, MOST_WAITING - held_back))

    def _submit(self, task: Callable[..., _Done], *arguments: object) -> Future[_Done]:
        return self._committer.submit(self._unless_failed, task, *arguments)

    def _unless_failed(self, task: Callable[..., _Done], *arguments: object) -> _Done:
        """After a failure nothing more is noted: every note rests on those before it, and a sync
        that is tried again may claim what the first one lost."""
        if self._failure is not None:
            raise self._failure
        try:
            return task(*arguments)
        except BaseException as error:
            self._failure = error
            raise

    def _complete(self, shard: _OpenShard) -> Shard:
        shard.about.sha256 = shard.staged.finish(shard.header)
        sync_folder(self._folder)
        self._journal.append(ShardDone(shard.about))
        return shard.about

    def _hand_over(self, at: Checkpoint) -> None:
        """Let the shards that a durable checkpoint calls whole be stored, and removed here. Any
        earlier, and a run that goes on from the checkpoint before would miss them."""
        if self._uploads is None:
            return
        for future in self._shards[self._handed_over : at.shards]:
            self._uploads.add(future.result())
        self._handed_over = at.shards

    def _raise_failures(self) -> None:
        if self._uploads is not None:
            self._uploads.raise_failure()
        for future in [self._checkpoint, *self._shards[-1 - _MOST_UNFINISHED :]]:
            if future is not None and future.done():
                future.result()

    @property
    def is_checkpointing(self) -> bool:
        """Is the last checkpoint not yet durable?"""
        return self._checkpoint is not None and not self._checkpoint.done()

    def checkpoint(self, counted: dict[str, Any], wait: bool = False) -> None:
        """Make all that was written durable, and note it with ``counted``, the run's counts."""
        self.wants_checkpoint = False
        entry = self._snapshot(counted)
        files = [shard.staged for shard in self._open_shards()]
        if self._quarantine.staged is not None:
            files.append(self._quarantine.staged)
        self._checkpoint = self._submit(self._commit, entry, files)
        if wait:
            self._checkpoint.result()

    def _commit(self, entry: Checkpoint, files: list[StagedFile]) -> None:
        for file in files:
            file.sync()
        sync_folder(self._folder)
        self._journal.append(entry)
        self._hand_over(entry)
        if self._uploads is not None:
            self._uploads.add_checkpoint(entry)

    def _open_shards(self) -> list[_OpenShard]:
        found = [writer.open_shard for writer in self._splits.values()]
        return [shard for shard in found if shard is not None]

    def _snapshot(self, counted: dict[str, Any]) -> Checkpoint:
        opened = [
            OpenFile(
                shard.about.name,
                shard.staged.size,
                shard.staged.hash_so_far(),
                msgspec.structs.replace(shard.about),
            )
            for shard in self._open_shards()
        ]
        staged = self._quarantine.staged
        if staged is not None:
            opened.append(OpenFile(QUARANTINE, staged.size, staged.hash_so_far()))
        return Checkpoint(
            file=self._position.file,
            state=self._position.state,
            shards=len(self._shards),
            open=opened,
            val_left=self._router.val_left,
            open_split=self._router.open_split,
            numbers=dict(self._numbers.following),
            reasons=dict(self._quarantine.reasons),
            **counted,
        )

    def finish(self, counted: dict[str, Any]) -> Encoded:
        """Complete all files, still under their partial names, and note that all is encoded."""
        if self._checkpoint is not None:
            self._checkpoint.result()
        for writer in self._splits.values():
            last = writer.last(self._origin())
            if last is not None:
                self._finish(last)
        self.shards()
        staged, sha256 = self._quarantine.staged, None
        at = self._snapshot(counted)
        if staged is not None:
            sha256 = staged.finish()
        sync_folder(self._folder)
        encoded = Encoded(at, sha256)
        self._journal.append(encoded)
        self._hand_over(at)
        if self._uploads is not None:
            self._uploads.wait_for_room(0)
        return encoded

    def shards(self) -> list[Shard]:
        """All shards that are whole, in the order of the manifest."""
        return in_order([future.result() for future in self._shards])

    def close(self) -> None:
        """Wait for the disk and let go of all files; what is in them stays."""
        if self._uploads is not None:
            self._uploads.close()
        self._committer.shutdown(wait=True)
        for shard in self._open_shards():
            shard.staged.close()
        if self._quarantine.staged is not None:
            self._quarantine.staged.close()


def in_order(shards: list[Shard]) -> list[Shard]:
    """As the manifest lists them: the splits one by one, validation first."""
    return sorted(shards, key=lambda shard: shard.split != VAL)


def quarantine_of(encoded: Encoded) -> Quarantine:
    """What the manifest tells of the records left out."""
    size = sum(file.bytes for file in encoded.at.open if file.shard is None)
    return Quarantine(dict(sorted(encoded.at.reasons.items())), size, encoded.quarantine_sha256)
