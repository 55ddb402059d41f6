"""The manifest: what was written, from what, by what. Its existence means finished.

``manifest.json`` is the last file to appear in the output folder. It holds nothing that differs
between two runs of the same spec over the same inputs with the same ``--check``, so it is the
same, byte for byte, too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tokenmill.errors import DamageFound
from tokenmill.reading import read_small

MANIFEST = "manifest.json"
SHA256SUMS = "SHA256SUMS"
QUARANTINE = "quarantine.jsonl"
VERSION = 1
_COUNTS = ("documents", "tokens", "quarantined")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""How many of something: what is read from a file is refused when it cannot be."""
_LARGEST_ID = 2**32 - 1
_TOKENIZER = {"name": str, "sha256": str, "pattern": str, "end_of_text": int, "largest_id": int}


class Origin(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where a shard's first token comes from, so that it can be made again without the others.

    Going on from the place (``file``, ``state``) in the inputs, it is the split's token number
    ``skip``; there ``val_left`` tokens were still to go to val by position, and a document that
    goes on belongs to ``open_split``.
    """

    file: Count
    state: dict[str, Any] | None
    skip: Count
    val_left: Count
    open_split: str


class Shard(msgspec.Struct, forbid_unknown_fields=True):
    """One finished file; ``documents`` begin in it."""

    name: str
    split: str
    tokens: Count
    documents: Count
    bytes: Count
    sha256: str
    origin: Origin


class Input(msgspec.Struct):
    """One input file: ``modified`` is in nanoseconds since 1970, ``probe`` a hash of a few places
    in it."""

    path: str
    kind: str
    compression: str | None
    size: Count
    modified: int
    probe: str


class Quarantine(msgspec.Struct):
    """The records left out: how many for each reason, and the hash of the file that has them
    (None when there are none)."""

    reasons: dict[str, Count]
    bytes: Count
    sha256: str | None


class Manifest(msgspec.Struct):
    """Everything known of a finished dataset."""

    manifest_version: int
    tokenmill_version: str
    fingerprint: str
    format: str
    dtype: str
    delimiter: str
    tokenizer: dict[str, str | int]
    spec: dict[str, Any]
    split: str
    inputs: list[Input]
    shards: list[Shard]
    counts: dict[str, Count]
    check: dict[str, float | int | str]
    quarantine: Quarantine
    warnings: list[str]

    def tokens(self, split: str) -> int:
        """All tokens of one split."""
        return sum(shard.tokens for shard in self.shards if shard.split == split)

    def shard_tokens(self) -> dict[str, list[int]]:
        """Token counts of each split's shards, in order."""
        found: dict[str, list[int]] = {}
        for shard in self.shards:
            found.setdefault(shard.split, []).append(shard.tokens)
        return found

    def to_json(self) -> bytes:
        """The file's content."""
        plain = msgspec.to_builtins(self)
        return json.dumps(plain, indent=2, ensure_ascii=False).encode() + b"\n"

    def sha256sums(self) -> bytes:
        """The content of SHA256SUMS, for plain ``sha256sum -c``: this manifest is in it too, so
        that an edited one is found."""
        hashes = [(shard.sha256, shard.name) for shard in self.shards]
        if self.quarantine.sha256 is not None:
            hashes.append((self.quarantine.sha256, QUARANTINE))
        hashes.append((hashlib.sha256(self.to_json()).hexdigest(), MANIFEST))
        return "".join(f"{digest}  {name}\n" for digest, name in hashes).encode()


def load_manifest(folder: str | Path) -> Manifest:
    """The manifest of a finished dataset.

    Raises DamageFound when there is none, or when it is not one.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = msgspec.json.decode(read_small(path), type=Manifest)
    except OSError as error:
        raise DamageFound(
            "this folder holds no finished dataset",
            str(folder),
            f"{MANIFEST}: {error.strerror}",
            "run tokenmill prepare with this --out",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if missing := _missing(manifest):
        raise _damaged(path, f"it does not tell {', '.join(missing)}")
    for shard in manifest.shards:
        if not is_plain_name(shard.name):
            raise DamageFound(
                f"{MANIFEST} names a file outside its folder",
                str(path),
                repr(shard.name),
                "do not use this folder: somebody changed its manifest",
            )
    return manifest


def _missing(manifest: Manifest) -> list[str]:
    """What every manifest tells, and this one does not."""
    kinds = {
        name: type(value)
        for name, value in manifest.tokenizer.items()
        if not isinstance(value, int) or 0 <= value <= _LARGEST_ID
    }
    found = [f"counts.{name}" for name in _COUNTS if name not in manifest.counts]
    return found + [
        f"tokenizer.{name}" for name, kind in _TOKENIZER.items() if kinds.get(name) is not kind
    ]


def _damaged(path: Path, why: str) -> DamageFound:
    return DamageFound(
        f"{MANIFEST} is damaged", str(path), why, "remove the folder, then prepare it again"
    )


def is_plain_name(name: str) -> bool:
    """Is it the name of a file in a folder, and of none outside it?"""
    return "/" not in name and "\0" not in name and name not in ("", ".", "..")
