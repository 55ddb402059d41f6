"""The shards of a split: numbered, cut at the exact token, hashed while they are written.

What the files of a shard are, and what is in them, their format knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tokenmill.dataset.manifest import Origin, Shard, ShardFile
from tokenmill.dataset.spec import Spec
from tokenmill.formats import Format
from tokenmill.output.journal import OpenFile
from tokenmill.splits import NAMES
from tokenmill.stores.digest import Digest
from tokenmill.stores.durable import PARTIAL, StagedFile, remove_own

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OpenShard:
    """A shard that is being filled: ``about`` counts what is in it, and names its files."""

    def __init__(
        self,
        folder: Path,
        layout: Format,
        dtype: str,
        expected: int,
        about: Shard,
        left: Iterable[OpenFile] = (),
        new_digest: Callable[[], Digest] = hashlib.sha256,
    ) -> None:
        """Begin it, or go on with the files that an interrupted run ``left`` of it; a full one has
        ``expected`` tokens (0: it is not known). Raises TokenmillError."""
        self.about = about
        self._folder = folder
        self._left = {file.name: file for file in left}
        self._staged: dict[str, StagedFile] = {}
        self._new_digest = new_digest
        names = tuple(file.name for file in about.all_files)
        try:
            self._writer = layout.writer(names, self._open, dtype, expected)
        except BaseException:
            self.close()
            raise

    def _open(self, name: str, head: bytes) -> StagedFile:
        place, left = self._folder / name, self._left.get(name)
        if left is None:
            file = StagedFile(place, head, self._new_digest)
        else:
            file = StagedFile.reopen(place, left.bytes, left.sha256, head, self._new_digest)
        self._staged[name] = file
        return file

    @property
    def staged(self) -> list[StagedFile]:
        """The files that are there so far."""
        return list(self._staged.values())

    def append(self, ids: NDArray[Any], starts: NDArray[np.int64]) -> None:
        """Add ids; documents begin at ``starts``, counted from the first of these."""
        self._writer.append(ids, starts)
        self.about.documents += len(starts)
        self.about.tokens += len(ids)

    def open_files(self) -> list[OpenFile]:
        """What a run needs to go on with it from here."""
        about = msgspec.structs.replace(self.about)
        return [
            OpenFile(name, file.size, file.hash_so_far(), about)
            for name, file in self._staged.items()
        ]

    def complete(self) -> Shard:
        """Finish its files, durably and still as ``.partial``; what it is now."""
        self._writer.finish()
        files = []
        for name in [file.name for file in self.about.all_files]:
            staged = self._staged[name]
            size, sha256 = staged.size, staged.finish()
            files.append(ShardFile(name, size, sha256))
        self.close()
        self.about.set_files(files)
        return self.about

    def close(self) -> None:
        """Let go of the files; what is in them stays."""
        for file in self.staged:
            file.close()

    def discard(self) -> None:
        """Let go of the files, and remove those that have not got their final names."""
        for file in self.staged:
            file.discard()


class SplitWriter:
    """One split's shards, cut at the exact token."""

    def __init__(
        self,
        split: str,
        folder: Path,
        spec: Spec,
        dtype: str,
        numbers: Numbers,
        new_digest: Callable[[], Digest] = hashlib.sha256,
    ) -> None:
        self.split = split
        self._new_digest = new_digest
        self.open_shard: OpenShard | None = None
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
        self, ids: NDArray[Any], starts: NDArray[np.int64], origin: Origin, whole: list[OpenShard]
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
            low, high = np.searchsorted(starts, [done, done + len(part)])
            self.open_shard.append(part, starts[low:high] - done)
            done += len(part)
            self._tokens_of_block += len(part)
            if about.tokens == limit:
                whole.append(self.take())

    def _open(self, origin: Origin) -> None:
        number = None if self._spec.shard_tokens is None else self._numbers.next(self.split)
        names = self._layout.files(self._spec.name, self.split, number)
        about = Shard(names[0], self.split, 0, 0, 0, "", origin)
        about.set_files([ShardFile(name, 0, "") for name in names])
        self._begin(about)

    def _begin(self, about: Shard, left: Iterable[OpenFile] = ()) -> None:
        expected = self._spec.shard_tokens or 0
        self.open_shard = OpenShard(
            self._folder, self._layout, self._dtype, expected, about, left, self._new_digest
        )

    def reopen(self, left: list[OpenFile]) -> None:
        """Go on with a shard that an interrupted run left."""
        assert left[0].shard is not None
        self._begin(left[0].shard, left)

    def take(self) -> OpenShard:
        """Hand out the open shard, to be finished."""
        assert self.open_shard is not None
        taken, self.open_shard = self.open_shard, None
        return taken

    def last(self, origin: Origin) -> OpenShard | None:
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


def by_shard(opened: Iterable[OpenFile]) -> dict[str, list[OpenFile]]:
    """The files that a checkpoint calls open, by the name of their shard; not the quarantine's."""
    found: dict[str, list[OpenFile]] = {}
    for file in opened:
        if file.shard is not None:
            found.setdefault(file.shard.name, []).append(file)
    return found


def remove_scratch(folder: Path, layout: Format, shard: Shard) -> None:
    """Remove what a shard was made from, now that no run goes on from before it was whole."""
    for name in layout.scratch(tuple(file.name for file in shard.all_files)):
        remove_own(folder / (name + PARTIAL))


def in_order(shards: list[Shard]) -> list[Shard]:
    """As the manifest lists them: the splits one by one, validation first."""
    return sorted(shards, key=lambda shard: NAMES.index(shard.split))
