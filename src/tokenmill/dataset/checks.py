"""What can be wrong with a dataset, wherever it lies: each file held against the manifest.

Everything is looked at and nothing is repaired. ``commands.verify`` puts the checks together.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from tokenmill.dataset.files import DatasetFiles, FileReplaced
from tokenmill.dataset.manifest import (
    MANIFEST,
    QUARANTINE,
    SHA256SUMS,
    Manifest,
    Quarantine,
    Shard,
    ShardFile,
    read_manifest,
)
from tokenmill.dataset.reader import open_shard
from tokenmill.errors import DamageFound
from tokenmill.formats import FORMATS, ShardDamage
from tokenmill.stores.durable import FOUND_FOLDER, STATE_FOLDER


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


def load_verifiable(files: DatasetFiles) -> Manifest:
    """The manifest, of a format that is known. Raises DamageFound."""
    manifest = read_manifest(files)
    if manifest.format not in FORMATS:
        raise DamageFound(
            f"{MANIFEST} is damaged",
            files.place(MANIFEST),
            f"there is no format {manifest.format!r}",
            "put back a copy of it, or prepare the dataset again with --overwrite",
        )
    return manifest


def shard_problems(
    files: DatasetFiles, manifest: Manifest, shard: Shard, *, quick: bool
) -> Iterator[Problem]:
    """What is wrong with each of a shard's files; and where nothing is, with all of it."""
    is_whole = True
    for file in shard.all_files:
        problem = _shard_file_problem(files, manifest, file, quick)
        if problem is not None:
            is_whole = False
            yield problem
    if is_whole and (problem := _header_problem(files, manifest, shard)) is not None:
        yield problem


def _shard_file_problem(
    files: DatasetFiles, manifest: Manifest, file: ShardFile, quick: bool
) -> Problem | None:
    def look() -> Problem | None:
        problem = _file_problem(files, file.name, file.bytes)
        if not quick and (problem is None or problem.kind in ("truncated", "longer")):
            return _content_problem(files, manifest, file, problem)
        return problem

    return _told(file.name, look)


def _told(name: str, look: Callable[[], Problem | None]) -> Problem | None:
    """What ``look`` finds; that it cannot look is a problem, too."""
    try:
        return look()
    except FileNotFoundError as error:
        return Problem("missing", name, str(error.strerror))
    except FileReplaced as error:
        return Problem("changed", name, str(error.why))
    except DamageFound as error:
        return Problem("unreadable", name, str(error.why))
    except OSError as error:
        return Problem("unreadable", name, str(error.strerror))


def _file_problem(files: DatasetFiles, name: str, size: int | None) -> Problem | None:
    """A file of the right size (None: any)? Links are not followed: they could lead anywhere."""
    found = files.entry(name)
    if found.instead is not None:
        return Problem("changed", name, f"it is {found.instead}")
    if size is None or found.size == size:
        return None
    kind = "truncated" if found.size < size else "longer"
    return Problem(kind, name, f"{found.size} bytes, the manifest tells {size}")


def _header_problem(files: DatasetFiles, manifest: Manifest, shard: Shard) -> Problem | None:
    def look() -> Problem | None:
        try:
            tokens = open_shard(files, manifest.format, shard).tokens
        except ShardDamage as error:
            return Problem("changed", shard.name, str(error))
        if tokens == shard.tokens:
            return None
        detail = f"{tokens} tokens, the manifest tells {shard.tokens}"
        return Problem("miscounted", shard.name, detail)

    return _told(shard.name, look)


def _content_problem(
    files: DatasetFiles, manifest: Manifest, file: ShardFile, problem: Problem | None
) -> Problem | None:
    """The same by its hash; ``problem`` is what is wrong with its size."""
    size = files.entry(file.name).size
    if problem is not None and all(other.bytes != size for other in manifest.shard_files()):
        return problem
    found = _sha256(files, file.name)
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


def check_quarantine(files: DatasetFiles, manifest: Manifest, quick: bool) -> Iterator[Problem]:
    """What is wrong with the file of the records left out, if anything."""
    about = manifest.quarantine
    if about.sha256 is None:
        if sum(about.reasons.values()):
            yield Problem("miscounted", MANIFEST, f"records left out, but no {QUARANTINE}")
        return

    def look() -> Problem | None:
        problem = _file_problem(files, QUARANTINE, about.bytes)
        return problem or (None if quick else _quarantine_problem(files, about))

    if (problem := _told(QUARANTINE, look)) is not None:
        yield problem


def _quarantine_problem(files: DatasetFiles, about: Quarantine) -> Problem | None:
    found = _sha256(files, QUARANTINE)
    if found != about.sha256:
        return Problem("changed", QUARANTINE, f"its SHA-256 is {found}, not {about.sha256}")
    decoder = msgspec.json.Decoder(_QuarantineLine)
    reasons: Counter[str] = Counter()
    try:
        reasons.update(decoder.decode(line).reason for line in _lines(files.stream(QUARANTINE)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Problem("changed", QUARANTINE, str(error))
    if reasons == about.reasons:
        return None
    detail = f"{dict(reasons)} records, the manifest tells {about.reasons}"
    return Problem("miscounted", QUARANTINE, detail)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file that comes in pieces, one at a time."""
    left: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        left.append(first)
        for other in others:
            yield b"".join(left)
            left = [other]
    if any(left):
        yield b"".join(left)


def check_sums(files: DatasetFiles, manifest: Manifest) -> Iterator[Problem]:
    """Is SHA256SUMS what goes with the manifest, and the manifest what SHA256SUMS lists?"""
    found: list[bytes] = []

    def look() -> Problem | None:
        if (problem := _file_problem(files, SHA256SUMS, None)) is None:
            found.extend(files.read(SHA256SUMS).splitlines(keepends=True))
        return problem

    if (problem := _told(SHA256SUMS, look)) is not None:
        yield problem
        return
    problem = _told(MANIFEST, lambda: _manifest_problem(files, found))
    if problem is not None:
        yield problem
    expected = manifest.sha256sums().splitlines(keepends=True)
    is_only_manifest = problem is not None and found[:-1] == expected[:-1]
    if found != expected and not is_only_manifest:
        yield Problem("changed", SHA256SUMS, "it does not list what the manifest does")


def _manifest_problem(files: DatasetFiles, sums: list[bytes]) -> Problem | None:
    """Does the manifest's hash differ from the one that SHA256SUMS (its lines) has for it?"""
    if (problem := _file_problem(files, MANIFEST, None)) is not None:
        return problem
    line = f"{_sha256(files, MANIFEST)}  {MANIFEST}\n".encode()
    listed = [other for other in sums if other.rstrip().endswith(f" {MANIFEST}".encode())]
    if not listed or line in listed:
        return None
    return Problem(
        "changed", MANIFEST, f"its SHA-256 is not the one in {SHA256SUMS}: one of both was edited"
    )


def strays(files: DatasetFiles, manifest: Manifest) -> Iterator[Problem]:
    """What the manifest does not know, by the first part of its name."""
    known = {MANIFEST, SHA256SUMS, FOUND_FOLDER} | {file.name for file in manifest.shard_files()}
    if manifest.quarantine.sha256 is not None:
        known.add(QUARANTINE)
    for name in sorted({name.partition("/")[0] for name in files.names()} - known):
        if name != STATE_FOLDER:
            yield Problem("stray", name, "the manifest does not know it")
        elif files.holder() is None:
            alive = "" if files.has_lock else ", or of one that is at work there"
            yield Problem("stray", name, f"left by a run that was killed{alive}")


def _sha256(files: DatasetFiles, name: str) -> str:
    digest = hashlib.sha256()
    for piece in files.stream(name):
        digest.update(piece)
    return digest.hexdigest()
