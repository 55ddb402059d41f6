"""``verify`` of a dataset in an object store: every object is read once, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tokenmill.dataset.checks import Problem, check_counts
from tokenmill.dataset.manifest import MANIFEST, QUARANTINE, SHA256SUMS, Manifest, parse_manifest
from tokenmill.errors import DamageFound
from tokenmill.stores.bucket import Bucket, ObjectChanged, StoredObject, parse
from tokenmill.stores.durable import STATE_FOLDER
from tokenmill.stores.prefix import Prefix, sha256_of
from tokenmill.stores.retry import RetryPolicy


def problems_of_prefix(url: str, quick: bool, policy: RetryPolicy) -> Iterator[Problem]:
    """Every problem of the dataset at ``url``; ``quick`` looks at sizes only; requests are
    made by ``policy``.

    Raises DamageFound when there is no manifest, or when it is damaged.
    """
    scheme, name, key = parse(url)
    prefix = Prefix(Bucket(scheme, name, policy), key)
    content, manifest = _manifest(prefix)
    skipped = len(prefix.at(""))
    there = {entry.key[skipped:]: entry for entry in prefix.bucket.objects(prefix.key)}
    expected = {file.name: (file.bytes, file.sha256) for file in manifest.shard_files()}
    if manifest.quarantine.sha256 is not None:
        expected[QUARANTINE] = (manifest.quarantine.bytes, manifest.quarantine.sha256)
    for name, (size, sha256) in expected.items():
        problem = _problem(prefix, name, there.get(name), size, sha256, quick)
        if problem is not None:
            yield problem
    yield from check_counts(manifest)
    yield from _check_sums(prefix, content, manifest)
    for name in sorted(there.keys() - expected.keys() - {MANIFEST, SHA256SUMS}):
        is_state = name.startswith(f"{STATE_FOLDER}/")
        detail = "left by a run that was killed" if is_state else "the manifest does not know it"
        yield Problem("stray", name, detail)


def _manifest(prefix: Prefix) -> tuple[bytes, Manifest]:
    key = prefix.at(MANIFEST)
    found = prefix.bucket.fetch(key)
    if found is None:
        raise DamageFound(
            "this prefix holds no finished dataset",
            prefix.url,
            f"there is no {MANIFEST}",
            "run tokenmill prepare with this --out",
        )
    return found[0], parse_manifest(found[0], prefix.bucket.url(key))


def _problem(
    prefix: Prefix, name: str, found: StoredObject | None, size: int, sha256: str, quick: bool
) -> Problem | None:
    if found is None:
        return Problem("missing", name, "there is no such object")
    if found.size != size:
        kind = "truncated" if found.size < size else "longer"
        return Problem(kind, name, f"{found.size} bytes, the manifest tells {size}")
    if quick:
        return None
    try:
        digest = sha256_of(prefix.bucket, found)
    except (FileNotFoundError, ObjectChanged):
        return Problem("changed", name, "it was replaced or removed while it was read")
    if digest == sha256:
        return None
    return Problem("changed", name, f"its SHA-256 is {digest}, not {sha256}")


def _check_sums(prefix: Prefix, content: bytes, manifest: Manifest) -> Iterator[Problem]:
    found = prefix.bucket.fetch(prefix.at(SHA256SUMS))
    if found is None:
        yield Problem("missing", SHA256SUMS, "there is no such object")
        return
    lines = found[0].splitlines(keepends=True)
    line = f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()
    if line not in lines:
        detail = f"its SHA-256 is not the one in {SHA256SUMS}: one of both was edited"
        yield Problem("changed", MANIFEST, detail)
    elif found[0] != manifest.sha256sums():
        yield Problem("changed", SHA256SUMS, "it does not list what the manifest does")
