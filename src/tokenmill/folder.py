"""The output folder as a run finds it: a finished dataset, an unfinished run, or foreign files.

A run goes on only with what is its own: the same spec, tokenizer, inputs and release. Nothing
that tokenmill did not write is ever removed, and ``--overwrite`` tells what it removes.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenmill import __version__
from tokenmill.batches import TRAIN, VAL, Counts
from tokenmill.errors import DamageFound, SpecMismatch, TokenmillError
from tokenmill.formats.format import item_bytes
from tokenmill.journal import JOURNAL, Checkpoint, Log, RunBegun, read_journal
from tokenmill.journal import VERSION as JOURNAL_VERSION
from tokenmill.manifest import (
    MANIFEST,
    QUARANTINE,
    SHA256SUMS,
    Input,
    Manifest,
    Shard,
    load_manifest,
)
from tokenmill.places import InputFile
from tokenmill.places.standard_input import Pipe
from tokenmill.planning import Plan
from tokenmill.quantities import format_bytes, format_files
from tokenmill.spec import Spec
from tokenmill.storage import (
    PARTIAL,
    STATE_FOLDER,
    publish,
    remove_file,
    remove_state,
    write_durably,
)
from tokenmill.tokenizers import identity
from tokenmill.uploads import Uploads


def recorded_commit(folder: Path, tokenizer: str) -> str | None:
    """The Hub's commit of the tokenizer that the dataset in a folder, finished or not, was made
    with, if it was named in these words: a branch may have moved since."""
    if (folder / MANIFEST).exists():
        manifest = load_manifest(folder)
        spec, about = manifest.spec, manifest.tokenizer
    elif (log := read_journal(folder)) is not None:
        spec, about = log.run.spec, log.run.tokenizer
    else:
        return None
    commit = about.get("commit")
    return str(commit) if commit and spec.get("tokenizer") == tokenizer else None


class OutputFolder:
    """The folder of one run, looked at under its lock."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.where = str(path)
        self._plan = plan

    def finished(self) -> Manifest | None:
        """The manifest of this very dataset, if it is there, finished.

        Raises SpecMismatch when it is another one, DamageFound when it is not whole.
        """
        manifest = self.manifest()
        if manifest is None:
            return None
        lost = [shard.name for shard in manifest.shards if not self._is_whole(shard)]
        if lost:
            raise DamageFound(
                "the finished dataset in this folder is damaged",
                f"{self.where}: {', '.join(lost[:5])}",
                "these files are missing or of another size",
                "run the same command with --repair, which makes only these again",
            )
        remove_state(self.path)
        return manifest

    def manifest(self) -> Manifest | None:
        """The manifest of this very dataset, if it is there, whole or not.

        Raises SpecMismatch when it is another one.
        """
        manifest = self._load()
        if manifest is None:
            return None
        if manifest.fingerprint != self._plan.fingerprint():
            found = self._differences(manifest.spec, manifest.tokenizer, manifest.inputs)
            raise SpecMismatch(
                "the folder holds another dataset",
                self.where,
                "; ".join(found),
                "choose another --out, or --overwrite to replace it",
            )
        return manifest

    def _load(self) -> Manifest | None:
        return load_manifest(self.path) if (self.path / MANIFEST).exists() else None

    def _is_whole(self, shard: Shard) -> bool:
        path = self.path / shard.name
        return os.path.isfile(path) and path.stat().st_size == shard.bytes

    def unfinished(self) -> Log | None:
        """What an interrupted run of the same command left, if it is worth going on with.

        Raises SpecMismatch when there is one of another spec, over other inputs or by another
        release.
        """
        log = read_journal(self.path)
        if log is None or log.checkpoint is None or not self._is_worth_keeping(log.checkpoint):
            return None
        run = log.run
        found = []
        if run.tokenmill_version != __version__:
            found.append(f"tokenmill is {__version__}, was {run.tokenmill_version}")
        if run.journal_version != JOURNAL_VERSION:
            found.append(f"its journal has version {run.journal_version}, not {JOURNAL_VERSION}")
        if run.fingerprint not in (self._plan.fingerprint(), self._before_quarantine()):
            found += self._differences(run.spec, run.tokenizer, run.inputs)
        if found:
            raise SpecMismatch(
                "the folder holds an unfinished run of another kind",
                self.where,
                "; ".join(found),
                "repeat the command that began it (tokenmill status shows it), choose another "
                "--out, or --overwrite to begin anew",
            )
        if doubt := _doubt(log, log.checkpoint, self._plan):
            raise TokenmillError(
                "the journal of the unfinished run makes no sense",
                str(self.path / STATE_FOLDER / JOURNAL),
                doubt,
                "run the same command with --overwrite, which starts anew",
            )
        self._check_kept(log, log.checkpoint)
        return log

    def _check_kept(self, log: Log, at: Checkpoint) -> None:
        """Raise TokenmillError unless all shards that were whole are still of their size."""
        for shard in log.shards if log.encoded else log.shards[: at.shards]:
            if (where := self._lost(shard, log)) is not None:
                raise TokenmillError(
                    "an unfinished file is not what the interrupted run left",
                    where,
                    f"it was whole, with {shard.bytes} bytes",
                    "run the same command with --overwrite, which starts anew",
                )

    def _lost(self, shard: Shard, log: Log) -> str | None:
        """Where a shard that was whole is not, or not of its size, any more; None if it is."""
        places = [self.path / (shard.name + PARTIAL), self.path / shard.name]
        found = next((place for place in places if os.path.lexists(place)), places[0])
        is_file = os.path.isfile(found) and not found.is_symlink()
        return None if is_file and found.stat().st_size == shard.bytes else str(found)

    def _before_quarantine(self) -> str | None:
        """The fingerprint of a run that may go on as this one: it stopped at the first bad record,
        so that up to there it wrote what this one would have written."""
        spec = self._plan.spec
        if spec.on_bad != "quarantine":
            return None
        return self._plan.fingerprint(replace(spec, on_bad="stop"))

    def _differences(
        self, spec: dict[str, Any], tokenizer: dict[str, str | int], inputs: list[Input]
    ) -> list[str]:
        """What differs from what was asked before, in words."""
        plan = self._plan
        found = plan.spec.differences(spec)
        mine, theirs = identity(plan.vocabulary.describe()), identity(tokenizer)
        if mine != theirs:
            names = (plan.vocabulary.name, tokenizer.get("name"))
            keys = [key for key in mine if names[0] == names[1] and mine[key] != theirs.get(key)]
            parts = [(key, mine[key], theirs.get(key)) for key in keys] or [("", *names)]
            for key, now_it_is, it_was in parts:
                noun = f"the tokenizer's {key}" if key else "the tokenizer"
                found.append(f"{noun} is {now_it_is}, was {it_was}")
        before = {entry.path: entry for entry in inputs}
        now = {file.path: file for file in plan.inputs.files}
        found += [f"{path} is new" for path in now if path not in before]
        found += [f"{path} is missing" for path in before if path not in now]
        for path, file in now.items():
            if path in before:
                found += _changes(file, before[path])
        return found or ["the order of the inputs differs"]

    def remove_leftovers(self) -> None:
        """Remove what a run left before its first checkpoint; refuse where foreign files are in
        the way."""
        self._remove_partials()
        self._refuse_foreign()

    def _remove_partials(self) -> None:
        specs = [self._plan.spec]
        log = read_journal(self.path)
        before = Spec.restored(log.run.spec) if log is not None else None
        if before is not None:
            specs.append(before)
        for spec in specs:
            for path in self._partials(spec):
                remove_file(path)
        remove_file(self.path / STATE_FOLDER / JOURNAL)

    def _refuse_foreign(self) -> None:
        mine = self._plan.spec
        taken = [path.name for path in self._entries() if would_write(mine, path.name)]
        if taken:
            raise TokenmillError(
                "the folder holds files that this run would replace",
                f"{self.path}: {', '.join(sorted(taken)[:5])}",
                f"they belong to no dataset of tokenmill's (there is no {MANIFEST})",
                "choose another --out, or move them away",
            )

    def is_begun(self) -> bool:
        """Did a run leave a journal here?"""
        return read_journal(self.path) is not None

    def leave(self, keeps: bool = True) -> None:
        """After a failure: what is worth going on with stays, anything less is removed."""
        log = read_journal(self.path)
        at = log.checkpoint if log is not None else None
        if keeps and at is not None and self._is_worth_keeping(at):
            return
        with contextlib.suppress(OSError, TokenmillError):
            if log is not None:
                self._remove_partials()
            remove_state(self.path)

    def uploads(self, run: RunBegun) -> Uploads | None:
        """What stores the shards elsewhere, where the dataset is not to stay in this folder."""

    def publish(self, manifest: Manifest) -> None:
        """All files are whole: name them, and say so. Can be done again from the middle."""
        names = [shard.name for shard in manifest.shards]
        if manifest.quarantine.sha256 is not None:
            names.append(QUARANTINE)
        publish(self.path, names)
        write_durably(self.path / SHA256SUMS, manifest.sha256sums())
        write_durably(self.path / MANIFEST, manifest.to_json())

    def finish(self) -> None:
        """The dataset is complete: nothing of the run is left but that."""
        remove_state(self.path)

    def overwrite(self) -> list[str]:
        """Remove a dataset or an unfinished run; returns what was removed, in words."""
        manifest = self.path / MANIFEST
        names: list[str] = []
        if manifest.exists():
            try:
                names = [shard.name for shard in load_manifest(self.path).shards]
            except DamageFound:
                mine = self._plan.spec
                names = [path.name for path in self._entries() if would_write(mine, path.name)]
            names += [SHA256SUMS, QUARANTINE]
        log = read_journal(self.path)
        if log is not None:
            names += [name + suffix for name in sorted(log.names) for suffix in ("", PARTIAL)]
            names += [SHA256SUMS, QUARANTINE, SHA256SUMS + PARTIAL, MANIFEST + PARTIAL]
        names += [path.name for path in self._partials(self._plan.spec)]
        places = [self.path / name for name in dict.fromkeys(names)]
        present = [place for place in places if _is_file(place)]
        size = sum(place.lstat().st_size for place in present)
        remove_file(manifest)  # first: without it nothing claims to be a dataset
        for place in present:
            remove_file(place)
        remove_file(self.path / STATE_FOLDER / JOURNAL)
        return [f"removed {format_files(len(present))}, {format_bytes(size)}, of {self.path}"]

    def _is_worth_keeping(self, at: Checkpoint) -> bool:
        # A pipe begins anew in every run.
        return not self._plan.inputs.pipe and bool(at.counts.get("documents") or at.reasons)

    def _entries(self) -> list[Path]:
        try:
            return [path for path in self.path.iterdir() if _is_file(path)]
        except OSError as error:
            raise TokenmillError(
                "cannot read the output folder",
                str(self.path),
                error.strerror,
                "mend that and run it again, or choose another --out",
            ) from error

    def _partials(self, spec: Spec) -> list[Path]:
        """Unfinished files that a run with that spec would write itself."""
        side = {name + PARTIAL for name in (MANIFEST, SHA256SUMS, QUARANTINE)}
        return [
            path
            for path in self._entries()
            if path.name in side
            or (path.name.endswith(PARTIAL) and would_write(spec, path.name.removesuffix(PARTIAL)))
        ]


def revisions_of(path: Path) -> dict[str, str]:
    """The commits that the dataset or the unfinished run in a folder took for moving revisions:
    running the same command again means these, wherever the revisions have moved to."""
    with contextlib.suppress(TokenmillError):
        if (path / MANIFEST).exists():
            return load_manifest(path).revisions
        log = read_journal(path)
        return log.run.revisions if log is not None else {}
    return {}  # what is wrong there is told later


def _is_file(path: Path) -> bool:
    """A file or a link; no, where pathlib raises: of a name too long."""
    return os.path.isfile(path) or os.path.islink(path)


def _doubt(log: Log, at: Checkpoint, plan: Plan) -> str | None:
    """What a checkpoint tells that cannot be, in words: its file may have been changed."""
    spec = plan.spec
    splits = [VAL, TRAIN] if spec.has_validation else [TRAIN]
    if set(at.counts) != set(vars(Counts())):
        return f"it counts {', '.join(at.counts)[:200]}"
    numbers = [*at.counts.values(), *at.numbers.values(), *at.reasons.values(), at.done_bytes]
    if not all(0 <= number < 1 << 62 for number in numbers):
        return "it counts less than nothing, or more than there can be"
    if not 0 <= at.file < len(plan.inputs.files):
        return f"there is no input number {at.file}"
    file = plan.inputs.files[at.file]
    place = (at.state or {}).get("disk" if file.compression else "position", 0)
    if type(place) is int and place > file.size:
        return f"byte {place} is behind the end of {file.path}"
    if not 0 <= at.shards <= len(log.shards):
        return f"of {at.shards} shards there are {len(log.shards)}"
    if at.val_left < 0 or at.open_split not in splits:
        return f"{at.val_left} tokens are left for val, and {at.open_split!r} is open"
    header = len(spec.layout.header(spec.shard_tokens or 0, plan.dtype))
    for shard, size in [(file.shard, file.bytes) for file in at.open if file.shard]:
        told = header + shard.tokens * item_bytes(plan.dtype)
        is_full = spec.shard_tokens is not None and shard.tokens >= spec.shard_tokens
        if shard.split not in splits or size != told or shard.tokens < 0 or is_full:
            return f"{shard.name!r} of {shard.split!r} has {shard.tokens} tokens in {size} bytes"
    return None


def would_write(spec: Spec, name: str) -> bool:
    """Would a run with that spec write a file of that name?"""
    layout = spec.layout
    number = None if spec.shard_tokens is None else 0
    firsts = [layout.file_name(spec.name, split, number) for split in ("train", "val")]
    if number is None:
        return name in firsts
    stem = re.escape(layout.suffix)
    return any(
        re.fullmatch(re.escape(first.rsplit("_", 1)[0]) + r"_\d{6,}" + stem, name)
        for first in firsts
    )


def _changes(file: InputFile, before: Input) -> list[str]:
    """How a file differs from what it was, in words."""
    found = []
    if isinstance(file.place, Pipe):
        return ["what comes through a pipe cannot be held against what came through before"]
    if file.size != before.size:
        found.append(f"{file.path} has {file.size} bytes, had {before.size}")
    elif file.modified != before.modified:
        found.append(f"{file.path} was modified since")
    elif file.probe != before.probe:
        found.append(f"{file.path} has another content")
    return found
