"""``verify``: is a dataset what its manifest says? All problems are found, none is repaired."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenmill.formats import ShardDamage, find_format
from tokenmill.manifest import MANIFEST, SHA256SUMS, Manifest, Shard, load_manifest
from tokenmill.reading import read_small

_HARMLESS = {MANIFEST, SHA256SUMS}
_STEP = 1024 * 1024


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be.

    ``kind`` is missing, truncated, longer, changed, miscounted or stray.
    """

    kind: str
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}: {self.detail}"


def verify(folder: str | Path, *, quick: bool = False) -> Iterator[Problem]:
    """Every problem of the dataset in ``folder``; ``quick`` looks at sizes and headers only.

    Raises DamageFound when the manifest itself is missing or damaged.
    """
    place = Path(folder)
    manifest = load_manifest(place)
    for shard in manifest.shards:
        yield from _check_shard(place, manifest, shard, quick)
    yield from _check_counts(manifest)
    yield from _check_sums(place, manifest)
    yield from _strays(place, manifest)


def _check_shard(folder: Path, manifest: Manifest, shard: Shard, quick: bool) -> Iterator[Problem]:
    path = folder / shard.name
    try:
        status = path.stat()
    except OSError as error:
        yield Problem("missing", shard.name, str(error.strerror))
        return
    if not stat.S_ISREG(status.st_mode):
        yield Problem("changed", shard.name, "it is not a regular file")
        return
    size = status.st_size
    if size != shard.bytes:
        kind = "truncated" if size < shard.bytes else "longer"
        yield Problem(kind, shard.name, f"{size} bytes, the manifest tells {shard.bytes}")
        return
    try:
        tokens = find_format(manifest.format).open(path).tokens
    except ShardDamage as error:
        yield Problem("changed", shard.name, str(error))
        return
    if tokens != shard.tokens:
        yield Problem(
            "miscounted", shard.name, f"{tokens} tokens, the manifest tells {shard.tokens}"
        )
    if not quick and (found := _sha256(path)) != shard.sha256:
        yield Problem("changed", shard.name, f"its SHA-256 is {found}, not {shard.sha256}")


def _check_counts(manifest: Manifest) -> Iterator[Problem]:
    # Without delimiters an empty document has no token, and so begins in no shard.
    for name in ("tokens",) if manifest.delimiter == "none" else ("tokens", "documents"):
        total = sum(getattr(shard, name) for shard in manifest.shards)
        if total != manifest.counts.get(name):
            yield Problem(
                "miscounted",
                MANIFEST,
                f"the shards have {total} {name}, the counts tell {manifest.counts.get(name)}",
            )


def _check_sums(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    try:
        if read_small(folder / SHA256SUMS) != manifest.sha256sums():
            yield Problem("changed", SHA256SUMS, "it does not list the manifest's hashes")
    except OSError as error:
        yield Problem("missing", SHA256SUMS, str(error.strerror))


def _strays(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    known = _HARMLESS | {shard.name for shard in manifest.shards}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield Problem("stray", path.name, "the manifest does not know it")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_STEP):
            digest.update(chunk)
    return digest.hexdigest()
