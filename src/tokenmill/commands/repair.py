"""``prepare --repair``: only the damaged shards of a finished dataset are made again.

Each shard's origin in the manifest tells from which place in the inputs it can be made without the
others, and its hash whether it became what it was. Files that are whole are not touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tokenmill.batches import Position, TokenBatch
from tokenmill.commands.plan import Plan
from tokenmill.dataset.checks import Problem, check_quarantine, check_sums, shard_problems, strays
from tokenmill.dataset.files import LocalFiles
from tokenmill.dataset.manifest import MANIFEST, QUARANTINE, SHA256SUMS, Manifest, Shard
from tokenmill.errors import DamageFound, TokenmillError, UsageError
from tokenmill.executors.threads import OrderedMap
from tokenmill.output import resume
from tokenmill.output.folder import Folder
from tokenmill.output.shards import OpenShard
from tokenmill.sources.block import Block
from tokenmill.splits import SplitRouter
from tokenmill.stores.claims import shares_a_stretch
from tokenmill.stores.disk_reads import read_small
from tokenmill.stores.durable import (
    PARTIAL,
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
        manifest = resume.dataset(Folder(out), plan)
        assert manifest is not None
        files = LocalFiles(out)
        sums = list(check_sums(files, manifest))
        _refuse_edited_manifest(sums, out)
        for shard in manifest.shards:
            problems = list(shard_problems(files, manifest, shard, quick=False))
            for problem in problems:
                tell(f"damaged: {problem}")
            damaged = [file for file in shard.all_files if file.name in {p.name for p in problems}]
            if damaged:
                _Rebuilding(plan, out, shard, tell).run([file.name for file in damaged])
            for file in damaged:
                tell(f"repaired: {file.name}, {format_bytes(file.bytes)}")
            names = [file.name for file in shard.all_files]
            for name in [*names, *plan.spec.layout.scratch(tuple(names))]:
                remove_own(out / (name + PARTIAL))  # of a repair that was killed
        if sums:
            _restore_sums(out, manifest, tell)
            tell(f"repaired: {SHA256SUMS}")
        remove_state(out)
        for stray in strays(files, manifest):
            tell(f"warning: {stray}; it was left alone")
        _refuse_damaged_quarantine(files, manifest)
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


def _refuse_damaged_quarantine(files: LocalFiles, manifest: Manifest) -> None:
    for problem in check_quarantine(files, manifest, quick=False):
        raise DamageFound(
            "the shards are whole, but the file of the records left out cannot be repaired",
            files.place(QUARANTINE),
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

    def run(self, damaged: list[str]) -> None:
        """Make the shard anew, and replace its damaged files, if all that was made has the hashes
        that it should have."""
        shard, plan, made = self._shard, self._plan, None
        about = msgspec.structs.replace(shard, tokens=0, documents=0)
        try:
            made = OpenShard(self._out, plan.spec.layout, plan.dtype, shard.tokens, about)
            for ids, starts in self._parts():
                made.append(ids, starts)
            for found, file in zip(made.complete().all_files, shard.all_files, strict=True):
                if found.sha256 != file.sha256:
                    raise TokenmillError(
                        f"{file.name} cannot be made again as it was",
                        str(self._out / file.name),
                        f"made from the same inputs, its SHA-256 is {found.sha256}, not "
                        f"{file.sha256}",
                        "run verify --against with the inputs, or prepare again with --overwrite",
                    )
            for staged in made.staged:
                if staged.final.name in damaged:
                    self._keep_foreign(staged.final, staged.path, staged.head_bytes)
            publish(self._out, damaged, replaces=True)
        finally:
            if made is not None:
                made.discard()

    def _keep_foreign(self, there: Path, made: Path, header: int) -> None:
        """Set aside what has the file's name and nothing in common with it: damage mostly leaves
        some bytes as they were, and the file may be somebody's."""
        if not os.path.lexists(there):
            return
        with explained(there):
            if there.is_dir() and not there.is_symlink():
                raise foreign(there)
            is_ours = shares_a_stretch(made, there, header)
        if not is_ours:
            aside = set_aside(there)
            self._tell(f"set aside: {there} has nothing of the shard, and is {aside} now")

    def _parts(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Its tokens and where documents begin in them, from its origin on; as many as can be
        had."""
        origin, left = self._shard.origin, self._shard.tokens
        if not left:
            return
        rule, skip = self._plan.split_rule, origin.skip
        router = SplitRouter(rule, origin.val_left, origin.open_split)
        batches = self._batches(Position(origin.file, origin.state))
        try:
            for batch in batches:
                for split, ids, starts in router.route(batch):
                    if split != self._shard.split:
                        continue
                    part = ids[skip : skip + left]
                    low, high = np.searchsorted(starts, [skip, skip + len(part)])
                    yield part, starts[low:high] - skip
                    skip = max(0, skip - len(ids))
                    left -= len(part)
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
