"""``verify``: is a dataset what its manifest says? All problems are found, none is repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tokenmill.commands.log import log_line
from tokenmill.dataset.checks import (
    Problem,
    check_counts,
    check_quarantine,
    check_sums,
    load_verifiable,
    shard_problems,
    strays,
)
from tokenmill.dataset.files import DatasetFiles, files_at
from tokenmill.dataset.manifest import Manifest
from tokenmill.dataset.reader import DatasetReader
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.stores.retry import RetryPolicy

DEFAULT_SHARE = 0.01


def verify(
    folder: str | Path,
    *,
    quick: bool = False,
    against: list[str | Path] | None = None,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
    config: str | None = None,
    tell: Callable[[str], None] = log_line,
) -> Iterator[Problem]:
    """Every problem of the dataset in ``folder``, or at a URL such as ``s3://BUCKET/PREFIX``;
    ``quick`` looks at sizes and headers only.

    With the inputs that it was made from in ``against``, a ``share`` of their documents, drawn by
    ``seed``, is encoded again by the reference implementation and compared. ``config`` is that of
    a dataset on the Hub. ``tell`` gets the lines for a person: what the network is waited for, and
    what was compared; they go to the logger ``tokenmill`` unless told otherwise.

    Raises DamageFound when the manifest itself is missing or damaged, SpecMismatch when the inputs
    are others than the dataset's, UsageError when they cannot be compared.
    """
    return verify_sized(
        folder, DEFAULT_SIZES, quick, against, share=share, seed=seed, config=config, tell=tell
    )


def verify_sized(
    folder: str | Path,
    sizes: Sizes,
    quick: bool = False,
    against: list[str | Path] | None = None,
    *,
    share: float,
    seed: int = 0,
    config: str | None = None,
    tell: Callable[[str], None] = log_line,
) -> Iterator[Problem]:
    """The same of what was prepared with blocks of such sizes, for tests."""
    with RetryPolicy(log=tell) as policy:  # whoever looks at no more problems asks for no more
        files, comparison = files_at(folder, policy), None
        manifest = load_verifiable(files)
        if against is not None:
            from tokenmill.commands.compare import Comparison  # heavy

            dataset, inputs = DatasetReader(files, manifest), [str(path) for path in against]
            comparison = Comparison(dataset, inputs, share, seed, config, sizes, policy)
        yield from _problems(files, manifest, quick)
        if comparison is None:
            return
        if any(
            any(shard_problems(files, manifest, shard, quick=True)) for shard in manifest.shards
        ):
            detail = "its shards are not whole, so the documents in them cannot be found"
            yield Problem("uncompared", files.where, detail)
            return
        yield from comparison.problems()
        tell(comparison.summary())


def _problems(files: DatasetFiles, manifest: Manifest, quick: bool) -> Iterator[Problem]:
    """Those that the dataset alone shows."""
    for shard in manifest.shards:
        yield from shard_problems(files, manifest, shard, quick=quick)
    yield from check_counts(manifest)
    yield from check_quarantine(files, manifest, quick)
    yield from check_sums(files, manifest)
    yield from strays(files, manifest)
