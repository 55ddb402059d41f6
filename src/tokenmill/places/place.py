"""What every place gives: the files of an input argument, and their bytes by range.

Where bytes are, how they are compressed and how they divide into records are three questions: a
place answers the first one alone. Its files have an identity that tells whether they changed, and
contents that any thread may read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tokenmill.compression import COMPRESSIONS
from tokenmill.errors import InputError

KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
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
    an earlier run took for moving ``revisions``, by what was asked for."""

    config: str | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)


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


Expand = Callable[[str], Found]
"""From an argument of the command line to its files, in a stated order. Raises InputError."""


def kind_of(name: str) -> tuple[str, str | None] | None:
    """How a file's bytes divide into records, and how they are compressed, by its suffixes."""
    suffixes = [suffix.lower() for suffix in _suffixes(name)]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else None
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and compression):
        return None
    return kind, compression


def _suffixes(name: str) -> list[str]:
    parts = os.path.basename(name).lstrip(".").split(".")
    return ["." + part for part in parts[1:]]


def unknown_kind(path: str) -> InputError:
    """The error for a file that was named, and whose kind its name does not tell."""
    return InputError(
        "cannot tell what kind of input this is",
        path,
        "the kind is told by the file's suffix",
        f"rename it to end in one of {', '.join(KINDS)}, then perhaps {', '.join(COMPRESSIONS)}",
    )
