"""The manifest: what was written, from what, by what. Its existence means finished.

``manifest.json`` is the last file to appear in the output folder. It holds nothing that differs
between two runs of the same spec over the same inputs with the same ``--check``, so it is the
same, byte for byte, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from tokenmill.errors import DamageFound

MANIFEST = "manifest.json"
SHA256SUMS = "SHA256SUMS"
VERSION = 1


class Shard(msgspec.Struct, forbid_unknown_fields=True):
    """One finished file; ``documents`` begin in it."""

    name: str
    split: str
    tokens: int
    documents: int
    bytes: int
    sha256: str


class Input(msgspec.Struct):
    """One input file: ``modified`` is in nanoseconds since 1970."""

    path: str
    kind: str
    compression: str | None
    size: int
    modified: int


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
    counts: dict[str, int]
    check: dict[str, float | int | str]
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
        """The content of SHA256SUMS, for plain ``sha256sum -c``."""
        return "".join(f"{shard.sha256}  {shard.name}\n" for shard in self.shards).encode()


def load_manifest(folder: str | Path) -> Manifest:
    """The manifest of a finished dataset.

    Raises DamageFound when there is none, or when it is not one.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise DamageFound(
            "this folder holds no finished dataset",
            str(folder),
            f"{MANIFEST}: {error.strerror}",
            "run tokenmill prepare with this --out",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamageFound(
            f"{MANIFEST} is damaged",
            str(path),
            str(error),
            "remove the folder, then prepare it again",
        ) from error
    for shard in manifest.shards:
        if "/" in shard.name or "\0" in shard.name or shard.name in ("", ".", ".."):
            raise DamageFound(
                f"{MANIFEST} names a file outside its folder",
                str(path),
                repr(shard.name),
                "do not use this folder: somebody changed its manifest",
            )
    return manifest
