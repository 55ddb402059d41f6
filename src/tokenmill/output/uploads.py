"""Whole shards on their way to an object store, in the background and in order.

A shard is read from its local file, hashed on the way, and given to the store under its final
name, where nobody sees it before all of it is there: bytes that have not the shard's hash never
appear. Then that is noted in the journal, and the local file is removed. After shards the state
of the run (the journal, and what is in the unfinished files) is stored beside them, so that a run
can go on where its local files are lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tokenmill.dataset.manifest import Shard
from tokenmill.errors import TokenmillError
from tokenmill.output.journal import (
    JOURNAL,
    Checkpoint,
    Entry,
    RunBegun,
    ShardDone,
    ShardStored,
    to_line,
)
from tokenmill.output.lease import Lease
from tokenmill.stores.durable import PARTIAL, STATE_FOLDER, remove_own
from tokenmill.stores.prefix import FileChanged, Prefix

MOST_WAITING = 2
"""Whole shards that wait for a checkpoint or their upload, at most, but for those of one block: so
many are on the local disk."""


class Uploads:
    """What a run has to store, one after the other, by one thread."""

    def __init__(self, prefix: Prefix, lease: Lease, folder: Path, run: RunBegun) -> None:
        self._prefix = prefix
        self._lease = lease
        self._folder = folder
        self._run = run
        self._tasks: deque[Shard | Checkpoint] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._failure: BaseException | None = None
        self._shards: dict[str, Shard] = {}
        self._since_mirror = 0
        self.note: Callable[[ShardStored], None] = lambda entry: None
        self.is_asked_to_stop: Callable[[], bool] = lambda: False
        self._thread = threading.Thread(target=self._work, name="tokenmill-upload", daemon=True)
        self._thread.start()

    def add_stored(self, shard: Shard) -> None:
        """A shard that an earlier run has stored."""
        self._shards[shard.name] = shard

    def add(self, shard: Shard) -> None:
        """Store a shard that the last checkpoint calls whole: its local file is not needed to go
        on with, and is removed afterwards."""
        self._put(shard)

    def add_checkpoint(self, entry: Checkpoint) -> None:
        """Store the state at a checkpoint, too, when all its shards are."""
        with self._changed:
            if any(isinstance(task, Shard) for task in self._tasks) or self._since_mirror:
                self._tasks.append(entry)
                self._changed.notify_all()

    def _put(self, task: Shard | Checkpoint) -> None:
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    def wait_for_room(self, most: int) -> None:
        """Until at most so many shards wait, or the run is asked to stop. Raises what the
        uploading raised."""
        with self._changed:
            while self._failure is None and self._waiting() > most:
                if self.is_asked_to_stop():
                    break
                self._changed.wait(0.2)
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what the uploading raised, or that the prefix was lost to another run."""
        if self._failure is not None:
            raise self._failure
        self._lease.check()

    def _waiting(self) -> int:
        return sum(isinstance(task, Shard) for task in self._tasks)

    def close(self) -> None:
        """Store nothing more; what is under way is given up, and does not appear."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout=1)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._tasks and not self._is_closing:
                    self._changed.wait()
                if self._is_closing:
                    return
                task = self._tasks[0]
            try:
                self._store(task) if isinstance(task, Shard) else self._mirror(task)
            except BaseException as error:  # noqa: BLE001  raised again where the run writes
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._tasks.popleft()
                self._changed.notify_all()

    def _store(self, shard: Shard) -> None:
        self._lease.check()
        for file in shard.all_files:
            path = self._folder / (file.name + PARTIAL)
            try:
                self._prefix.send(path, file.name, file.bytes, file.sha256, self._is_asked_to_stop)
            except FileChanged as error:
                raise TokenmillError(
                    "a whole shard is not what was written",
                    str(path),
                    "its hash is not the one noted when it was written",
                    "check the disk, then run the same command with --overwrite",
                ) from error
        self.note(ShardStored(shard.name))
        for file in shard.all_files:
            remove_own(self._folder / (file.name + PARTIAL))
        self._shards[shard.name] = shard
        self._since_mirror += shard.total_bytes

    def _mirror(self, at: Checkpoint) -> None:
        """Keep beside the shards what another machine needs to go on from here."""
        if at.shards > len(self._shards):
            return
        if sum(file.bytes for file in at.open) > self._since_mirror:
            return  # it would cost more than it saves: at the next shard, then
        try:
            for file in at.open:
                if file.sha256 is None:
                    return
                path, name = self._folder / (file.name + PARTIAL), f"{STATE_FOLDER}/{file.name}"
                self._prefix.send(
                    path, name + PARTIAL, file.bytes, file.sha256, self._is_asked_to_stop
                )
        except (FileChanged, FileNotFoundError):
            return  # it was finished meanwhile
        shards = list(self._shards.values())[: at.shards]
        entries: list[Entry] = [self._run, *map(ShardDone, shards)]
        entries += [ShardStored(shard.name) for shard in shards]
        self._lease.check()
        content = b"".join(map(to_line, [*entries, at]))
        self._prefix.put(f"{STATE_FOLDER}/{JOURNAL}", content)
        self._since_mirror = 0

    def _is_asked_to_stop(self) -> bool:
        return self._is_closing
