"""What every place gives: the files of an input argument, and their bytes by range.

Where bytes are, how they are compressed and how they divide into records are three questions: a
place answers the first one alone. Its files have an identity that tells whether they changed, and
contents that any thread may read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from tokenmill.compression import COMPRESSIONS
from tokenmill.content import contradiction, looks_like_lines, told_by_name
from tokenmill.errors import InputError, UsageError
from tokenmill.memory import Listing

KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
SAME_COMPRESSION = {".zstd": ".zst", ".gzip": ".gz"}
"""Other suffixes that people give to what is compressed so."""


@dataclass(frozen=True)
class KindRule:
    """``--kind``: what files are whose path matches ``glob`` (None: all that no glob matches).

    A glob without a slash is held against the file's name, one with a slash against its path.
    ``compression`` None is what the name tells.
    """

    text: str
    kind: str
    compression: str | None
    glob: str | None

    @classmethod
    def of(cls, text: str) -> KindRule:
        """Parse ``KIND`` or ``KIND=GLOB``. Raises UsageError."""
        kind, equals, glob = text.partition("=")
        name, dot, suffix = kind.partition(".")
        compression = SAME_COMPRESSION.get(dot + suffix, dot + suffix) if dot else None
        is_known = name in KINDS.values() and (compression is None or compression in COMPRESSIONS)
        if not is_known or (name == "parquet" and compression) or (equals and not glob):
            raise UsageError(
                f"--kind {text!r} is no kind of input",
                fix="use text, jsonl (also for .json) or parquet, with .gz, .zst, .bz2 or .xz "
                "where it is compressed and its name does not say so (text.gz); for some of the "
                "inputs: KIND=GLOB, such as --kind 'jsonl=*.log'",
            )
        return cls(text, name, compression, glob or None)

    def matches(self, path: str) -> bool:
        """Is it for this file?"""
        if self.glob is None:
            return True
        if "/" in self.glob:
            return fnmatchcase(path, self.glob) or fnmatchcase(path, "*/" + self.glob)
        return fnmatchcase(os.path.basename(path), self.glob)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the corpus.

    ``path`` is a path or a URL, ``size`` in bytes as stored, ``compression`` a suffix such as
    ``.gz`` or None. ``modified`` is the modification time in nanoseconds (0 where a place has
    none), ``probe`` stands for the content: a hash of a few places in it, an etag, or a hash of
    all of it. With the size they are the file's identity.
    """

    path: str
    kind: str
    compression: str | None
    size: int
    modified: int
    probe: str
    place: Place = field(repr=False, compare=False)


class Content(Protocol):
    """The bytes of one file as stored, for any thread."""

    def read(self, start: int, stop: int) -> bytes:
        """All bytes from ``start`` to ``stop``, which lie in the file. Raises TokenmillError when
        they cannot be had whole: short data is never passed on as if it were all."""


class Place(Protocol):
    """Somewhere files are: a disk, the Hub, an object store.

    ``is_remote``: each read costs a round trip, so that what comes next is fetched ahead.
    """

    is_remote: bool

    def open(self, file: InputFile) -> Content:
        """The bytes of a file that this place found. Raises InputError."""

    def check_unchanged(self, file: InputFile) -> None:
        """Raise InputError if the file is no longer what it was when it was found."""


@dataclass(frozen=True)
class Selection:
    """What is asked for beside the arguments: a dataset's ``config`` by name, and the commits that
    an earlier run took for moving ``revisions``, by what was asked for; and what ``kinds`` files
    are: the first rule with a glob that matches counts, then one without. ``listing`` counts what
    is found, and says whether more may be held."""

    config: str | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[KindRule, ...] = ()
    listing: Listing = field(default_factory=Listing, compare=False)

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
            None if rule.kind == "parquet" else compression_of(path)
        )


NO_MORE = Selection()
"""Nothing is asked for beside the arguments."""


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


def kind_of(name: str) -> tuple[str, str | None] | None:
    """How a file's bytes divide into records, and how they are compressed, by its suffixes."""
    suffixes = [suffix.lower() for suffix in _suffixes(name)]
    compression = compression_of(name)
    if compression:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and compression):
        return None
    return kind, compression


def compression_of(name: str) -> str | None:
    """How a file is compressed, by its last suffix."""
    last = "".join(_suffixes(name)[-1:]).lower()
    last = SAME_COMPRESSION.get(last, last)
    return last if last in COMPRESSIONS else None


def _suffixes(name: str) -> list[str]:
    parts = os.path.basename(name).lstrip(".").split(".")
    return ["." + part for part in parts[1:]]


def unknown_kind(path: str, head: bytes | None = None) -> InputError:
    """The error for a file that was named, and whose kind its name does not tell; ``head`` is how
    its content begins, where that was cheap to know."""
    found = contradiction("text", head, False) if head else None
    found = found or told_by_name(path)
    kinds = ", ".join(KINDS)
    if found is not None:
        why, fix = f"it is {found.name}", found.advice(path)
    elif head and looks_like_lines(head):
        why, fix = "its name does not tell; it looks like JSON Lines", "if so: --kind jsonl"
    else:
        why = f"the kind is told by the file's suffix: {kinds}, then perhaps a compression's"
        fix = "say what it is: --kind text, --kind jsonl or --kind parquet"
    return InputError("cannot tell what kind of input this is", path, why, fix)
