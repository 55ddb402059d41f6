"""The shards of a split: numbered, cut at the exact token, hashed while they are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tokenmill.dataset.manifest import Origin, Shard
from tokenmill.dataset.spec import Spec
from tokenmill.formats import Format
from tokenmill.output.journal import OpenFile
from tokenmill.splits import NAMES
from tokenmill.stores.durable import StagedFile

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class OpenShard:
    """A shard that is being filled: ``about`` counts what is in it."""

    staged: StagedFile
    about: Shard
    header: bytes = b""


class SplitWriter:
    """One split's shards, cut at the exact token."""

    def __init__(self, split: str, folder: Path, spec: Spec, dtype: str, numbers: Numbers) -> None:
        self.split = split
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
        self.open_shard = OpenShard(staged, Shard(name, self.split, 0, 0, 0, "", origin))

    def _first_header(self) -> bytes:
        return self._layout.header(self._spec.shard_tokens or 0, self._dtype)

    def reopen(self, file: OpenFile) -> None:
        """Go on with a shard that an interrupted run left."""
        assert file.shard is not None
        place = self._folder / file.name
        staged = StagedFile.reopen(place, file.bytes, file.sha256, self._first_header())
        self.open_shard = OpenShard(staged, file.shard)

    def take(self) -> OpenShard:
        """Hand out the open shard, to be finished."""
        assert self.open_shard is not None
        taken, self.open_shard = self.open_shard, None
        taken.about.bytes = taken.staged.size
        taken.header = self._layout.header(taken.about.tokens, self._dtype)
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


def in_order(shards: list[Shard]) -> list[Shard]:
    """As the manifest lists them: the splits one by one, validation first."""
    return sorted(shards, key=lambda shard: NAMES.index(shard.split))
