"""What can be wrong with a dataset in a folder: each file held against what the manifest says.

Everything is looked at and nothing is repaired. ``verification`` puts the checks together.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tokenmill.dataset.manifest import (
    MANIFEST,
    QUARANTINE,
    SHA256SUMS,
    Manifest,
    Quarantine,
    Shard,
    ShardFile,
    load_manifest,
)
from tokenmill.dataset.reader import open_shard
from tokenmill.errors import DamageFound
from tokenmill.formats import FORMATS, ShardDamage
from tokenmill.stores.disk_reads import read_small
from tokenmill.stores.durable import FOUND_FOLDER, STATE_FOLDER
from tokenmill.stores.lock import lock_holder

_STEP = 1024 * 1024


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be.

    ``kind`` is missing, truncated, longer, changed, swapped, unreadable, miscounted or stray; and
    of a comparison with the inputs mismatch or uncompared.
    """

    kind: str
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}: {self.detail}"


def load_verifiable(folder: Path) -> Manifest:
    """The manifest, of a format that is known. Raises DamageFound."""
    manifest = load_manifest(folder)
    if manifest.format not in FORMATS:
        raise DamageFound(
            f"{MANIFEST} is damaged",
            str(folder / MANIFEST),
            f"there is no format {manifest.format!r}",
            "put back a copy of it, or prepare the dataset again with --overwrite",
        )
    return manifest


def shard_problems(
    folder: Path, manifest: Manifest, shard: Shard, *, quick: bool
) -> Iterator[Problem]:
    """What is wrong with each of a shard's files; and where nothing is, with all of it."""
    is_whole = True
    for file in shard.all_files:
        problem = _shard_file_problem(folder, manifest, file, quick)
        if problem is not None:
            is_whole = False
            yield problem
    if is_whole and (problem := _header_problem(folder, manifest, shard)) is not None:
        yield problem


def _shard_file_problem(
    folder: Path, manifest: Manifest, file: ShardFile, quick: bool
) -> Problem | None:
    path = folder / file.name
    try:
        problem = _file_problem(path, file.bytes)
        if not quick and (problem is None or problem.kind in ("truncated", "longer")):
            return _content_problem(path, manifest, file, problem)
    except FileNotFoundError as error:
        problem = Problem("missing", file.name, str(error.strerror))
    except OSError as error:
        problem = Problem("unreadable", file.name, str(error.strerror))
    return problem


def _file_problem(path: Path, size: int) -> Problem | None:
    """A file of the right size? Links are not followed: they could lead anywhere."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        return Problem("changed", path.name, f"it is {what}")
    if status.st_size == size:
        return None
    kind = "truncated" if status.st_size < size else "longer"
    return Problem(kind, path.name, f"{status.st_size} bytes, the manifest tells {size}")


def _header_problem(folder: Path, manifest: Manifest, shard: Shard) -> Problem | None:
    try:
        tokens = open_shard(folder, manifest.format, shard).tokens
    except ShardDamage as error:
        return Problem("changed", shard.name, str(error))
    except DamageFound as error:
        return Problem("unreadable", shard.name, str(error.why))
    except OSError as error:
        return Problem("unreadable", shard.name, str(error.strerror))
    if tokens != shard.tokens:
        return Problem(
            "miscounted", shard.name, f"{tokens} tokens, the manifest tells {shard.tokens}"
        )
    return None


def _content_problem(
    path: Path, manifest: Manifest, file: ShardFile, problem: Problem | None
) -> Problem | None:
    """The same by its hash; ``problem`` is what is wrong with its size."""
    size = path.stat().st_size
    if problem is not None and all(other.bytes != size for other in manifest.shard_files()):
        return problem
    found = _sha256(path)
    if found == file.sha256:
        return problem
    for other in manifest.shard_files():
        if other.sha256 == found:
            detail = f"swapped with {other.name}, or a copy of it: it has that shard's SHA-256"
            return Problem("swapped", file.name, detail)
    detail = f"its SHA-256 is {found}, not {file.sha256}"
    return problem or Problem("changed", file.name, detail)


def check_counts(manifest: Manifest) -> Iterator[Problem]:
    """Numbers in the manifest that do not agree."""
    # Without delimiters an empty document has no token, and so begins in no shard.
    for name in ("tokens",) if manifest.delimiter == "none" else ("tokens", "documents"):
        total = sum(getattr(shard, name) for shard in manifest.shards)
        if total != manifest.counts[name]:
            yield Problem(
                "miscounted",
                MANIFEST,
                f"the shards have {total} {name}, the counts tell {manifest.counts[name]}",
            )
    bad = sum(manifest.quarantine.reasons.values())
    if bad != manifest.counts["quarantined"]:
        detail = f"{bad} quarantined by reason, the counts tell {manifest.counts['quarantined']}"
        yield Problem("miscounted", MANIFEST, detail)


class _QuarantineLine(msgspec.Struct):
    reason: str


def check_quarantine(folder: Path, manifest: Manifest, quick: bool) -> Iterator[Problem]:
    """What is wrong with the file of the records left out, if anything."""
    about, path = manifest.quarantine, folder / QUARANTINE
    if about.sha256 is None:
        if sum(about.reasons.values()):
            yield Problem("miscounted", MANIFEST, f"records left out, but no {QUARANTINE}")
        return
    try:
        problem = _file_problem(path, about.bytes)
        if problem is None and not quick:
            problem = _quarantine_problem(path, about)
    except FileNotFoundError as error:
        problem = Problem("missing", QUARANTINE, str(error.strerror))
    except OSError as error:
        problem = Problem("unreadable", QUARANTINE, str(error.strerror))
    if problem is not None:
        yield problem


def _quarantine_problem(path: Path, about: Quarantine) -> Problem | None:
    found = _sha256(path)
    if found != about.sha256:
        return Problem("changed", QUARANTINE, f"its SHA-256 is {found}, not {about.sha256}")
    decoder = msgspec.json.Decoder(_QuarantineLine)
    reasons: Counter[str] = Counter()
    with path.open("rb") as file:
        try:
            reasons.update(decoder.decode(line).reason for line in file)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Problem("changed", QUARANTINE, str(error))
    if reasons == about.reasons:
        return None
    detail = f"{dict(reasons)} records, the manifest tells {about.reasons}"
    return Problem("miscounted", QUARANTINE, detail)


def check_sums(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Is SHA256SUMS what goes with the manifest, and the manifest what SHA256SUMS lists?"""
    try:
        if (problem := _link_problem(folder / SHA256SUMS)) is not None:
            yield problem
            return
        found = read_small(folder / SHA256SUMS).splitlines(keepends=True)
    except OSError as error:
        yield Problem("missing", SHA256SUMS, str(error.strerror))
        return
    problem = manifest_problem(folder, found)
    if problem is not None:
        yield problem
    expected = manifest.sha256sums().splitlines(keepends=True)
    is_only_manifest = problem is not None and found[:-1] == expected[:-1]
    if found != expected and not is_only_manifest:
        yield Problem("changed", SHA256SUMS, "it does not list what the manifest does")


def manifest_problem(folder: Path, sums: list[bytes]) -> Problem | None:
    """Does the manifest's hash differ from the one that SHA256SUMS (its lines) has for it?"""
    path = folder / MANIFEST
    if (problem := _link_problem(path)) is not None:
        return problem
    line = f"{_sha256(path)}  {MANIFEST}\n".encode()
    listed = [other for other in sums if other.rstrip().endswith(f" {MANIFEST}".encode())]
    if not listed or line in listed:
        return None
    return Problem(
        "changed", MANIFEST, f"its SHA-256 is not the one in {SHA256SUMS}: one of both was edited"
    )


def _link_problem(path: Path) -> Problem | None:
    return _file_problem(path, path.lstat().st_size)


def strays(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """What the manifest does not know."""
    known = {MANIFEST, SHA256SUMS, FOUND_FOLDER} | {file.name for file in manifest.shard_files()}
    if manifest.quarantine.sha256 is not None:
        known.add(QUARANTINE)
    for path in sorted(folder.iterdir()):
        if path.name in known:
            continue
        if path.name != STATE_FOLDER:
            yield Problem("stray", path.name, "the manifest does not know it")
        elif lock_holder(folder) is None:
            yield Problem("stray", path.name, "left by a run that was killed")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_STEP):
            digest.update(chunk)
    return digest.hexdigest()
