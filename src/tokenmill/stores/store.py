"""The seam of stores: the files of an input argument, and their bytes by range.

Where bytes are, how they are compressed and how they divide into records are three questions: a
store answers the first one alone. Its files have an identity that tells whether they changed, and
bytes that any thread may read. ``tests/contract/test_stores.py`` holds each store to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tokenmill.kinds import KINDS
from tokenmill.kinds.suffixes import KindRule, compression_of, kind_of
from tokenmill.memory import Listing
from tokenmill.stores.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the corpus.

    ``path`` is a path or a URL, ``size`` in bytes as stored, ``compression`` a suffix such as
    ``.gz`` or None. ``modified`` is the modification time in nanoseconds (0 where a store has
    none), ``probe`` stands for the content: a hash of a few places in it, an etag, or a hash of
    all of it. With the size they are the file's identity. It crosses borders between processes:
    where it is pickled and read back, its store gives the same bytes.
    """

    path: str
    kind: str
    compression: str | None
    size: int
    modified: int
    probe: str
    store: Store = field(repr=False, compare=False)


class RangeReader(Protocol):
    """The bytes of one file as stored, for any thread."""

    def read(self, start: int, stop: int) -> bytes:
        """All bytes from ``start`` to ``stop``, which lie in the file. Raises TokenmillError when
        they cannot be had whole: short data is never passed on as if it were all."""


class ReadOnce(Protocol):
    """What can be read once only, from front to back."""

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes, as they come; b"" at the end. Raises InputError."""


class Store(ABC):
    """Somewhere files are: a disk, the Hub, an object store.

    ``is_remote``: each read costs a round trip, so that what comes next is fetched ahead.
    ``has_paths``: a file's ``path`` is one on this machine, which other libraries may open, too.
    ``is_replayable``: files may be read again, from any place in them; else only by ``once``.
    ``can_write``: datasets may be written there, too. ``policy`` is that of the run whose files
    these are; None where no request is made. A store is pickled without what belongs to its
    process: connections, locks, secrets.
    """

    is_remote = False
    has_paths = False
    is_replayable = True
    can_write = False
    policy: RetryPolicy | None = None

    @abstractmethod
    def open(self, file: InputFile) -> RangeReader:
        """The bytes of a file that this store listed. Raises InputError."""

    @abstractmethod
    def check_unchanged(self, file: InputFile) -> None:
        """Raise InputError if the file is no longer what it was when it was listed."""

    def once(self, file: InputFile) -> ReadOnce:
        """A file that is not replayable, for its one reader. Raises TypeError for others."""
        raise TypeError(f"{file.path} is read by range")

    def finalized(self, file: InputFile) -> InputFile:
        """The file, now that all of it was read: its size and probe may be known only then."""
        return file

    def close(self) -> None:  # noqa: B027  nothing to wait for, for most
        """Wait for nothing more: the run is over, or is being stopped."""


@dataclass(frozen=True)
class Selection:
    """What is asked for beside the arguments: a dataset's ``config`` by name, and the commits that
    an earlier run took for moving ``revisions``, by what was asked for; and what ``kinds`` files
    are: the first rule with a glob that matches counts, then one without. ``listing`` counts what
    is found, and says whether more may be held; by ``policy`` requests are made, while they are
    listed and when they are read. One selection is for one run."""

    config: str | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[KindRule, ...] = ()
    listing: Listing = field(default_factory=Listing, compare=False)
    policy: RetryPolicy = field(default_factory=RetryPolicy, compare=False)

    def holds(self, path: str) -> bool:
        """Count a file of a listing. May it be held in memory?"""
        return self.listing.add(path, self.kind_of(path) is not None)

    def told_kind(self, path: str) -> KindRule | None:
        """The rule for a file, if there is one."""
        if not self.kinds:
            return None
        rules = sorted(self.kinds, key=lambda rule: rule.glob is None)
        return next((rule for rule in rules if rule.matches(path)), None)

    def kind_of(self, path: str) -> tuple[str, str | None] | None:
        """How a file's bytes divide into records, and how they are compressed: as was told, else
        by its suffixes; None where neither tells."""
        rule = self.told_kind(path)
        if rule is None:
            return kind_of(path)
        return rule.kind, rule.compression or (
            compression_of(path) if KINDS[rule.kind].is_sequential else None
        )


@dataclass
class Found:
    """What an argument leads to: files, and those passed over (to be told, never hidden).

    ``notes`` are for a person, ``revisions`` the commits that moving revisions were taken for.
    """

    files: list[InputFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)


Expand = Callable[[str, Selection], Found]
"""From an argument of the command line to its files, in a stated order. Raises InputError."""
