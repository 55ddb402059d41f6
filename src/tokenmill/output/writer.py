"""The one writer: takes token batches in order, routes runs to splits, cuts shards, makes durable.

It is the only writer of the dataset. Shards keep the suffix ``.partial`` until the whole run is
done, and get their final names together, just before the manifest: a run that fails or is killed
leaves no file that a trainer could take for a dataset. What it notes in the journal is on disk
before the note is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tokenmill.batches import START, Position, TokenBatch
from tokenmill.dataset.manifest import QUARANTINE, Origin, Shard
from tokenmill.dataset.spec import Spec
from tokenmill.output.journal import Checkpoint, Encoded, Journal, Log, OpenFile, ShardDone
from tokenmill.output.quarantine import QuarantineWriter
from tokenmill.output.shards import (
    Numbers,
    OpenShard,
    SplitWriter,
    by_shard,
    in_order,
    remove_scratch,
)
from tokenmill.output.uploads import MOST_WAITING, Uploads
from tokenmill.splits import SplitRouter
from tokenmill.stores.digest import Digest
from tokenmill.stores.durable import StagedFile, check_partial, sync_folder

_Done = TypeVar("_Done")
_MOST_UNFINISHED = 2
"""Shards that wait for their sync, at most: then the disk is slower than the rest."""


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
        new_digest: Callable[[], Digest] = hashlib.sha256,
    ) -> None:
        """``new_digest`` makes the SHA-256 of a shard's file."""
        self._folder = folder
        self._spec = spec
        self._uploads = uploads
        if uploads is not None:
            uploads.note = lambda entry: self._submit(journal.append, entry).result()
        self.wants_checkpoint = False
        rule = spec.split_rule
        self._router = SplitRouter(rule)
        self._numbers = Numbers(shared=bool(rule.tokens))
        self._splits = {
            split: SplitWriter(split, folder, spec, dtype, self._numbers, new_digest)
            for split in rule.names
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
    def position(self) -> Position:
        """Where the next block begins."""
        return self._position

    @property
    def reasons(self) -> Counter[str]:
        """Records left out so far, by reason."""
        return self._quarantine.reasons

    def restore(self, log: Log) -> None:
        """Go on from the journal's last checkpoint. Raises TokenmillError."""
        at = log.checkpoint
        assert at is not None
        self._router = SplitRouter(self._spec.split_rule, at.val_left, at.open_split)
        self._numbers.following.update(at.numbers)
        self._position = Position(at.file, at.state)
        for shard in log.shards[: at.shards]:
            if shard.name not in log.stored:
                for file in shard.all_files:
                    check_partial(self._folder / file.name, file.bytes)
            if self._uploads is not None:
                add = self._uploads.add_stored if shard.name in log.stored else self._uploads.add
                add(shard)
            done: Future[Shard] = Future()
            done.set_result(shard)
            self._shards.append(done)
        self._handed_over = at.shards
        for opened in at.open:
            if opened.shard is None:
                self._quarantine.reopen(opened, at.reasons)
        for left in by_shard(at.open).values():
            assert left[0].shard is not None
            self._splits[left[0].shard.split].reopen(left)

    def write(self, batch: TokenBatch, end: Position) -> None:
        """Append one batch, in its turn; the next block begins at ``end``."""
        self._raise_failures()
        if batch.quarantined is not None:
            self._quarantine.append(batch.quarantined)
        for writer in self._splits.values():
            writer.begin_block()
        origin = self._origin()
        whole: list[OpenShard] = []
        for split, ids, starts in self._router.route(batch):
            self._splits[split].append(ids, starts, origin, whole)
        for shard in whole:
            self._finish(shard)
        self._position = end

    def _origin(self) -> Origin:
        place, router = self._position, self._router
        return Origin(place.file, place.state, 0, router.val_left, router.open_split)

    def _finish(self, shard: OpenShard) -> None:
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

    def _complete(self, shard: OpenShard) -> Shard:
        about = shard.complete()
        sync_folder(self._folder)
        self._journal.append(ShardDone(about))
        return about

    def _hand_over(self, at: Checkpoint) -> None:
        """Let the shards that a durable checkpoint calls whole be stored, and removed here, and
        what they were made from. Any earlier, and a run that goes on from the checkpoint before
        would miss them."""
        for future in self._shards[self._handed_over : at.shards]:
            remove_scratch(self._folder, self._spec.layout, future.result())
            if self._uploads is not None:
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
        files = [file for shard in self._open_shards() for file in shard.staged]
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

    def _open_shards(self) -> list[OpenShard]:
        found = [writer.open_shard for writer in self._splits.values()]
        return [shard for shard in found if shard is not None]

    def _snapshot(self, counted: dict[str, Any]) -> Checkpoint:
        opened = [file for shard in self._open_shards() for file in shard.open_files()]
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
            shard.close()
        if self._quarantine.staged is not None:
            self._quarantine.staged.close()
