"""The kinds of input: told by suffixes, by ``--kind``, and what is said where neither tells."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tokenmill.errors import InputError, UsageError
from tokenmill.kinds import KINDS, names, suffixes
from tokenmill.kinds.compression import COMPRESSIONS
from tokenmill.kinds.content import contradiction, looks_like_lines, told_by_name

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
        is_known = name in KINDS and (compression is None or compression in COMPRESSIONS)
        if not is_known or (compression and not KINDS[name].is_sequential) or (equals and not glob):
            known = names().replace("jsonl", "jsonl (also for .json)")
            raise UsageError(
                f"--kind {text!r} is no kind of input",
                fix=f"use {known}, with .gz, .zst, .bz2 or .xz "
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


def kind_of(name: str) -> tuple[str, str | None] | None:
    """How a file's bytes divide into records, and how they are compressed, by its suffixes."""
    found = [suffix.lower() for suffix in _suffixes(name)]
    compression = compression_of(name)
    if compression:
        found.pop()
    kind = suffixes().get(found[-1]) if found else None
    if kind is None or (compression and not kind.is_sequential):
        return None
    return kind.name, compression


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
    if found is not None:
        why, fix = f"it is {found.name}", found.advice(path)
    elif head and looks_like_lines(head):
        why, fix = "its name does not tell; it looks like JSON Lines", "if so: --kind jsonl"
    else:
        known = ", ".join(suffixes())
        why = f"the kind is told by the file's suffix: {known}, then perhaps a compression's"
        fix = f"say what it is: {names('--kind {}')}"
    return InputError("cannot tell what kind of input this is", path, why, fix)
