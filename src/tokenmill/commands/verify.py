"""``verify``: is a dataset what its manifest says? All problems are found, none is repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tokenmill.dataset.checks import (
    Problem,
    check_counts,
    check_quarantine,
    check_sums,
    load_verifiable,
    shard_problems,
    strays,
)
from tokenmill.errors import UsageError
from tokenmill.output.output import is_store

DEFAULT_SHARE = 0.01


def verify(
    folder: str | Path,
    *,
    quick: bool = False,
    against: list[str | Path] | None = None,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
    config: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Problem]:
    """Every problem of the dataset in ``folder``, or at a URL such as ``s3://BUCKET/PREFIX``;
    ``quick`` looks at sizes and headers only.

    With the inputs that it was made from in ``against``, a ``share`` of their documents, drawn by
    ``seed``, is encoded again by the reference implementation and compared. ``config`` is that of
    a dataset on the Hub.

    Raises DamageFound when the manifest itself is missing or damaged, SpecMismatch when the inputs
    are others than the dataset's, UsageError when they cannot be compared.
    """
    if is_store(str(folder)):
        yield from _stored_problems(str(folder), quick, against)
        return
    place = Path(folder)
    manifest = load_verifiable(place)
    comparison = None
    if against is not None:
        from tokenmill.commands.compare import Comparison  # heavy

        comparison = Comparison(place, [str(path) for path in against], share, seed, config)
    for shard in manifest.shards:
        yield from shard_problems(place, manifest, shard, quick=quick)
    yield from check_counts(manifest)
    yield from check_quarantine(place, manifest, quick)
    yield from check_sums(place, manifest)
    yield from strays(place, manifest)
    if comparison is None:
        return
    if any(any(shard_problems(place, manifest, shard, quick=True)) for shard in manifest.shards):
        detail = "its shards are not whole, so the documents in them cannot be found"
        yield Problem("uncompared", str(place), detail)
        return
    yield from comparison.problems()
    tell(comparison.summary())


def _stored_problems(url: str, quick: bool, against: list[str | Path] | None) -> Iterator[Problem]:
    from tokenmill.dataset.object_checks import problems_of_prefix  # heavy

    if against is not None:
        raise UsageError(
            "--against needs the dataset's files",
            url,
            "its documents are found by walking through the shards",
            "copy the dataset to a folder, and verify that",
        )
    yield from problems_of_prefix(url, quick)
