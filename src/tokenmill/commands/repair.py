"""``prepare --repair``: only the damaged shards of a finished dataset are made again.

Each shard's origin in the manifest tells from which place in the inputs it can be made without the
others, and its hash whether it became what it was. Files that are whole are not touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenmill.batches import Position, TokenBatch
from tokenmill.commands.plan import Plan
from tokenmill.dataset.checks import Problem, check_quarantine, check_sums, shard_problem, strays
from tokenmill.dataset.manifest import MANIFEST, QUARANTINE, SHA256SUMS, Manifest, Shard
from tokenmill.errors import DamageFound, TokenmillError, UsageError
from tokenmill.executors.threads import OrderedMap
from tokenmill.output.folder import OutputFolder
from tokenmill.sources.block import Block
from tokenmill.splits import SplitRouter
from tokenmill.stores.claims import shares_a_stretch
from tokenmill.stores.disk_reads import read_small
from tokenmill.stores.durable import (
    PARTIAL,
    StagedFile,
    explained,
    foreign,
    publish,
    remove_own,
    set_aside,
    write_durably,
)
from tokenmill.stores.lock import locked, remove_state
from tokenmill.units import format_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray


def repair(plan: Plan, out: Path, tell: Callable[[str], None]) -> Manifest:
    """Make the damaged shards of the plan's dataset in ``out`` again; returns its manifest.

    Raises UsageError where there is no dataset, SpecMismatch where there is another one, and
    DamageFound where its manifest or its quarantine file is damaged.
    """
    if not os.path.lexists(out / MANIFEST):
        raise UsageError(
            "there is no finished dataset to repair",
            str(out),
            f"it has no {MANIFEST}",
            "run the same command without --repair",
        )
    with locked(out, tell):
        manifest = OutputFolder(out, plan).manifest()
        assert manifest is not None
        sums = list(check_sums(out, manifest))
        _refuse_edited_manifest(sums, out)
        for shard in manifest.shards:
            problem = shard_problem(out, manifest, shard, quick=False)
            if problem is not None:
                tell(f"damaged: {problem}")
                _Rebuilding(plan, out, shard, tell).run()
                tell(f"repaired: {shard.name}, {format_bytes(shard.bytes)}")
            remove_own(out / (shard.name + PARTIAL))  # of a repair that was killed
        if sums:
            _restore_sums(out, manifest, tell)
            tell(f"repaired: {SHA256SUMS}")
        remove_state(out)
        for stray in strays(out, manifest):
            tell(f"warning: {stray}; it was left alone")
        _refuse_damaged_quarantine(out, manifest)
    tell(f"{out}: all {len(manifest.shards)} shards are as the manifest tells")
    return manifest


def _restore_sums(out: Path, manifest: Manifest, tell: Callable[[str], None]) -> None:
    """Write SHA256SUMS again. Raises TokenmillError where it is another program's: none of our
    lines is in it. A link, a folder, a pipe and an empty file may be anybody's: they are set
    aside."""
    path, content = out / SHA256SUMS, manifest.sha256sums()
    if os.path.lexists(path):
        there = set()
        if path.is_file() and not path.is_symlink():
            with explained(path):
                there = set(read_small(path).splitlines())
        if there and not there & set(content.splitlines()):
            raise foreign(path)
        if not there:
            tell(f"set aside: {path} is {set_aside(path)} now")
    write_durably(path, content, replaces=True)


def _refuse_edited_manifest(sums: list[Problem], out: Path) -> None:
    for problem in sums:
        if problem.name == MANIFEST:
            raise DamageFound(
                "the manifest cannot be trusted, and so nothing be repaired",
                str(out / MANIFEST),
                problem.detail,
                f"put back a copy of it, or prepare again with --overwrite; if you know that it is "
                f"right, remove {SHA256SUMS} and repair again",
            )


def _refuse_damaged_quarantine(out: Path, manifest: Manifest) -> None:
    for problem in check_quarantine(out, manifest, quick=False):
        raise DamageFound(
            "the shards are whole, but the file of the records left out cannot be repaired",
            str(out / QUARANTINE),
            problem.detail,
            "put back a copy of it, or prepare again with --overwrite",
        )


class _Rebuilding:
    """One shard, made again."""

    def __init__(self, plan: Plan, out: Path, shard: Shard, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._plan = plan
        self._out = out
        self._shard = shard

    def run(self) -> None:
        """Replace the damaged file, if what was made has the hash that it should have."""
        shard, layout, dtype = self._shard, self._plan.spec.layout, self._plan.dtype
        header = layout.header(shard.tokens, dtype)
        staged = StagedFile(self._out / shard.name, header)
        try:
            for part in self._parts():
                staged.write(part.data.cast("B"))
            sha256 = staged.finish()
            if sha256 != shard.sha256:
                raise TokenmillError(
                    f"{shard.name} cannot be made again as it was",
                    str(self._out / shard.name),
                    f"made from the same inputs, its SHA-256 is {sha256}, not {shard.sha256}",
                    "run verify --against with the inputs, or prepare again with --overwrite",
                )
            self._keep_foreign(staged.path, len(header))
            publish(self._out, [shard.name], replaces=True)
        finally:
            staged.discard()

    def _keep_foreign(self, made: Path, header: int) -> None:
        """Set aside what has the shard's name and nothing in common with it: damage mostly leaves
        some bytes as they were, and the file may be somebody's."""
        there = self._out / self._shard.name
        if not os.path.lexists(there):
            return
        with explained(there):
            if there.is_dir() and not there.is_symlink():
                raise foreign(there)
            is_ours = shares_a_stretch(made, there, header)
        if not is_ours:
            aside = set_aside(there)
            self._tell(f"set aside: {there} has nothing of the shard, and is {aside} now")

    def _parts(self) -> Iterator[NDArray[Any]]:
        """Its tokens, from its origin on; as many as can be had."""
        origin, left = self._shard.origin, self._shard.tokens
        if not left:
            return
        rule, skip = self._plan.split_rule, origin.skip
        router = SplitRouter(rule, origin.val_left, origin.open_split)
        batches = self._batches(Position(origin.file, origin.state))
        try:
            for batch in batches:
                for split, ids, _ in router.route(batch):
                    if split != self._shard.split:
                        continue
                    part = ids[skip : skip + left]
                    skip = max(0, skip - len(ids))
                    left -= len(part)
                    yield part
                if not left:
                    return
        finally:
            batches.close()

    def _batches(self, start: Position) -> OrderedMap[Block, TokenBatch]:
        plan = self._plan
        worker = plan.worker(check=0)

        return OrderedMap(
            lambda: worker.encoder().encode,
            worker.corpus.blocks(start),
            plan.budget.threads,
            plan.budget.window,
            plan.weight,
        )
