"""What a format is: the files of a shard, how they are written and read, and the loader's demands.

A shard is one file or several. While it is filled, its files only grow: what of them is durable at
one moment is what they were cut back to, so that a run goes on by cutting back. Only when all of
the shard is there the format may set the heads anew, append what comes last (an index, a footer),
and make files out of others.

Nobody outside this package knows where in a file the ids lie, or how wide they are.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tokenmill.errors import UsageError
from tokenmill.splits import NAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UINT16_LARGEST = 65535
_FIRST = f"{0:06d}"
"""The number of a first shard, as it stands in names."""


class ShardDamage(Exception):
    """A file is not a whole shard of its format; the message says in what way."""


class Bytes(Protocol):
    """A stored file, to be read at any place."""

    @property
    def size(self) -> int:
        """In bytes."""

    def read(self, start: int, stop: int) -> bytes:
        """All bytes from ``start`` to before ``stop``, or an error."""


class Appendable(Protocol):
    """A file that is being written."""

    @property
    def size(self) -> int:
        """Bytes so far, the head included."""

    def write(self, data: memoryview) -> None:
        """Append bytes."""

    def read(self, start: int, stop: int) -> bytes:
        """What was written before, by an earlier run too."""

    def set_head(self, head: bytes) -> None:
        """Let the file begin with these bytes instead of its first head, which had as many. Only
        in ``ShardWriter.finish``."""


Opener = Callable[[str, bytes], Appendable]
"""Opens a file of a shard by its name, with the head that it begins with at first: a new file, or
the one that an interrupted run left, cut back, and with that head again."""


class ShardWriter(Protocol):
    """One shard that is being filled.

    Two rules make resuming exact. Whatever was appended is in the files when ``append`` returns,
    for an interrupted run has nothing else. And a writer that is made over files that were cut back
    goes on as the one before it would have.
    """

    def append(self, ids: NDArray[Any], starts: NDArray[np.int64]) -> None:
        """Add ids (of the dataset's dtype); documents begin at ``starts``, counted from the first
        of these. The first document may go on from the shard before."""

    def finish(self) -> None:
        """All ids are there: set heads, append indexes, make the files that are made last. In
        another thread than ``append``, and after it."""


class ShardReader(Protocol):
    """One finished shard."""

    @property
    def tokens(self) -> int:
        """How many ids there are."""

    @property
    def dtype(self) -> str:
        """``uint16`` or ``uint32``."""

    @property
    def head_bytes(self) -> int:
        """Bytes before the first id, where the ids lie in a row; else 0."""

    def ids(self, start: int, stop: int) -> NDArray[Any]:
        """The ids from number ``start`` to before ``stop``, in one dimension."""

    def starts(self) -> NDArray[np.int64] | None:
        """Where documents begin; None where the format does not know it."""


@dataclass(frozen=True)
class Layout:
    """A dataset's outline, planned (then ``exact`` is False) or written.

    ``shards`` maps a split to the token counts of its files, in order.
    """

    shards: dict[str, list[int]]
    end_of_text: int
    exact: bool

    def tokens(self, split: str | None = None) -> int:
        """All tokens of one split, or of all."""
        if split is None:
            return sum(map(sum, self.shards.values()))
        return sum(self.shards.get(split, []))


class Format(ABC):
    """The layout that one trainer reads. Formats are stateless: one instance each."""

    name: ClassVar[str]
    delimiter: ClassVar[str]
    """Where the end-of-text id stands: ``before`` or ``after`` each document."""
    default_name: ClassVar[str]
    default_shard_tokens: ClassVar[int | None]
    """Tokens in a shard; None is one file a split."""
    default_val_fraction: ClassVar[float] = 0.0
    default_val_shards: ClassVar[int] = 0

    @abstractmethod
    def dtype(self, largest_id: int) -> str:
        """``uint16`` or ``uint32``. Raises UsageError when the loader cannot hold the ids."""

    @abstractmethod
    def files(self, name: str, split: str, index: int | None) -> tuple[str, ...]:
        """The names of the files of shard ``index`` of a split; None when the split is one shard.
        The first is the shard's own name. None holds a slash."""

    def scratch(self, files: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the files that only grow while the shard ``files`` is filled, and from
        which ``finish`` makes those; they are removed when they are needed no more."""
        return ()

    @abstractmethod
    def writer(
        self, files: tuple[str, ...], open_: Opener, dtype: str, expected: int
    ) -> ShardWriter:
        """Fill the shard of these files, or go on with it. ``expected``: so many tokens a full one
        holds; 0 is not known."""

    @abstractmethod
    def reader(self, files: Mapping[str, Bytes]) -> ShardReader:
        """A shard's files, by their names and in the order of ``files``; each is held against its
        size and against the others. Raises ShardDamage."""

    @abstractmethod
    def fits(self, sizes: Mapping[str, int], shard: str, tokens: int, dtype: str) -> bool:
        """Can the files that grow have these sizes (in bytes, by name) when ``tokens`` of the shard
        of that name were appended? A journal that says otherwise is not gone on with."""

    def writes(self, name: str, file: str, is_numbered: bool) -> bool:
        """Has a dataset of that ``name`` (its splits cut into shards, or not) a file called so?"""
        for split in NAMES:
            files = self.files(name, split, 0 if is_numbered else None)
            for first in (*files, *self.scratch(files)):
                head, zero, tail = first.rpartition(_FIRST if is_numbered else first)
                number = r"\d{6,}" if is_numbered and zero else re.escape(zero)
                if re.fullmatch(re.escape(head) + number + re.escape(tail), file):
                    return True
        return False

    def check_name(self, name: str) -> None:
        """Refuse a ``--name`` that the loader would stumble over. Raises UsageError."""
        return

    def check(self, shard_tokens: int | None, dtype: str, end_of_text: int) -> None:
        """Refuse, before any work, what the loader can never read. Raises UsageError."""
        return

    def warnings(self, layout: Layout) -> list[str]:
        """What the loader will stumble over in a dataset of this layout, each with a fix."""
        return []

    def uint16_only(self, largest_id: int, reason: str) -> str:
        """``uint16``, or a UsageError that says why nothing else can be."""
        if largest_id > UINT16_LARGEST:
            raise UsageError(
                f"format {self.name} holds ids up to {UINT16_LARGEST}, "
                f"this tokenizer has ids up to {largest_id}",
                None,
                reason,
                "use --format llm.c (32-bit shards), or a smaller tokenizer such as gpt2",
            )
        return "uint16"


def item_bytes(dtype: str) -> int:
    """Bytes of one token."""
    return {"uint16": 2, "uint32": 4}[dtype]


def row_bytes(tokens: int, dtype: str) -> int:
    """Bytes of so many ids in a row: what a shard takes on disk, about, whatever its format."""
    return tokens * item_bytes(dtype)
