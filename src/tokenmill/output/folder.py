"""The output folder as a run finds it: a finished dataset, an unfinished run, or foreign files.

A run goes on only with what is its own: the same spec, tokenizer, inputs and release. Nothing
that tokenmill did not write is ever removed, and ``--overwrite`` tells what it removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenmill.batches import Counts
from tokenmill.dataset.identity import identity
from tokenmill.dataset.manifest import (
    MANIFEST,
    QUARANTINE,
    SHA256SUMS,
    Input,
    Manifest,
    ShardFile,
    has_foreign_manifest,
    is_plain_name,
    load_manifest,
)
from tokenmill.dataset.spec import Spec
from tokenmill.errors import DamageFound, SpecMismatch, TokenmillError, UsageError
from tokenmill.output.asked import Asked
from tokenmill.output.journal import JOURNAL, Checkpoint, Log, RunBegun, read_journal
from tokenmill.output.journal import VERSION as JOURNAL_VERSION
from tokenmill.output.shards import by_shard, remove_scratch
from tokenmill.output.uploads import Uploads
from tokenmill.stores import InputFile
from tokenmill.stores.claims import Claims, is_own
from tokenmill.stores.disk_reads import read_small
from tokenmill.stores.durable import (
    PARTIAL,
    STATE_FOLDER,
    explained,
    foreign,
    publish,
    remove_file,
    remove_own,
    set_aside,
    sync_folder,
    write_durably,
)
from tokenmill.stores.lock import remove_state
from tokenmill.stores.side_files import written_in
from tokenmill.tokenizers.libraries import advice
from tokenmill.tokenizers.libraries import differences as library_differences
from tokenmill.units import format_bytes, format_files
from tokenmill.version import __version__

_STEP = 1024 * 1024


def recorded_commit(folder: Path, tokenizer: str) -> str | None:
    """The Hub's commit of the tokenizer that the dataset in a folder, finished or not, was made
    with, if it was named in these words: a branch may have moved since."""
    if has_foreign_manifest(folder):
        return None  # that is told later
    if os.path.lexists(folder / MANIFEST):
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

    _holds = "the folder holds files"

    def __init__(self, path: Path, plan: Asked) -> None:
        self.path = path
        self.where = str(path)
        self._plan = plan
        self._mine: list[Path] = []
        self._changed: list[Path] = []
        self._looked_at: list[tuple[int, ...]] = []

    def finished(self) -> Manifest | None:
        """The manifest of this very dataset, if it is there, finished.

        Raises SpecMismatch when it is another one, DamageFound when it is not whole.
        """
        manifest = self.manifest()
        if manifest is None:
            return None
        lost = [file.name for file in manifest.shard_files() if not self._is_whole(file)]
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
        now = self._plan.libraries()
        if found := library_differences(now, manifest.libraries):
            raise SpecMismatch(
                "the folder holds the dataset of another release of a library",
                self.where,
                "; ".join(found),
                "it is whole, and can be used as it is; to make it anew: --overwrite; to have that "
                f"release again: {advice(now, manifest.libraries)}",
            )
        return manifest

    def _load(self) -> Manifest | None:
        if has_foreign_manifest(self.path):
            raise self._in_the_way([MANIFEST])
        return load_manifest(self.path) if os.path.lexists(self.path / MANIFEST) else None

    def _is_whole(self, file: ShardFile) -> bool:
        path = self.path / file.name
        return os.path.isfile(path) and path.stat().st_size == file.bytes

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
        found += library_differences(self._plan.libraries(), run.libraries)
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
        """Raise TokenmillError unless all files that were whole are still of their size."""
        lost = [
            (self._lost(file, shard.name in log.stored), file.bytes)
            for shard in (log.shards if log.encoded else log.shards[: at.shards])
            for file in shard.all_files
        ]
        if log.encoded is not None:
            whole = [file for file in log.encoded.at.open if file.shard is None]
            lost += [(self._lost_file(file.name, file.bytes), file.bytes) for file in whole]
        for where, size in lost:
            if where is not None:
                raise TokenmillError(
                    "an unfinished file is not what the interrupted run left",
                    where,
                    f"it was whole, with {size} bytes",
                    "run the same command with --overwrite, which starts anew",
                )

    def _lost(self, file: ShardFile, is_stored: bool) -> str | None:
        """Where a file of a shard that was whole (and ``is_stored`` elsewhere, or not) is not, or
        not of its size, any more; None if it is."""
        return self._lost_file(file.name, file.bytes)

    def _lost_file(self, name: str, size: int) -> str | None:
        places = [self.path / (name + PARTIAL), self.path / name]
        found = next((place for place in places if os.path.lexists(place)), places[0])
        is_file = os.path.isfile(found) and not found.is_symlink()
        return None if is_file and found.stat().st_size == size else str(found)

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

    def take_stock(self) -> None:
        """Learn which files are this run's. Raises TokenmillError where a foreign file has the
        journal's name.

        The first release made no claims: its journal and its names tell what is its own.
        """
        journal = self.path / STATE_FOLDER / JOURNAL
        with explained(journal):
            claims = Claims.begun(self.path)
            if os.path.lexists(journal) and not claims.owns(journal):
                log = read_journal(self.path)
                if log is None:
                    raise foreign(journal)
                for path in self._left_without_claims(log):
                    claims.adopt(path)
                claims.adopt(journal)
            claims.renew()

    def _left_without_claims(self, log: Log) -> list[Path]:
        spec = Spec.restored(log.run.spec)
        names = log.names | {MANIFEST, SHA256SUMS, QUARANTINE}
        found = []
        for path in self._entries():
            name = path.name.removesuffix(PARTIAL)
            is_named = name in names or (spec is not None and would_write(spec, name))
            is_final = path.name == name
            if is_named and _is_regular(path) and not (is_final and log.encoded is None):
                found.append(path)
        return found

    def remove_leftovers(self) -> None:
        """Remove what a run left before its first checkpoint, or while it removed a dataset;
        refuse where foreign files are in the way."""
        self._remove_own()
        self.refuse_foreign()

    def _remove_own(self) -> None:
        """Remove the journal, then all files that are ours; of a finished dataset none."""
        remove_own(self.path / STATE_FOLDER / JOURNAL)
        claims = Claims.of(self.path)
        is_finished = os.path.lexists(self.path / MANIFEST)
        with explained(self.path):
            for path in list(claims.paths()) if claims is not None else []:
                is_state = path.parent != self.path
                if not is_state and (path.name.endswith(PARTIAL) or not is_finished):
                    claims.remove(path)  # type: ignore[union-attr]

    def refuse_foreign(self, but: Collection[Path] = ()) -> None:
        """Raise TokenmillError where files that are not ours have names that this run needs."""
        taken = [
            path.name
            for path in self._entries()
            if self._needs(path.name.removesuffix(PARTIAL)) and path not in but and not is_own(path)
        ]
        if taken:
            raise self._in_the_way(taken)

    def _needs(self, name: str) -> bool:
        side = {MANIFEST, SHA256SUMS}
        if self._plan.spec.on_bad == "quarantine":
            side.add(QUARANTINE)
        return name in side or would_write(self._plan.spec, name)

    def _in_the_way(self, names: Collection[str]) -> TokenmillError:
        return TokenmillError(
            f"{self._holds} that this run would replace",
            f"{self.where}: {', '.join(sorted(names)[:5])}",
            "tokenmill did not write them: they belong to no dataset of tokenmill's",
            "choose another --out, or move them away",
        )

    def check_inputs(self) -> None:
        """Raise UsageError where an input is a file that a run into this folder writes."""
        here, spec = os.path.realpath(self.path), self._plan.spec
        for file in self._plan.inputs.files:
            if not file.store.has_paths:
                continue
            folder, name = os.path.split(os.path.realpath(file.path))
            if folder == here and (would_write(spec, name) or name in written_in(here)):
                raise UsageError(
                    "an input is a file of the output",
                    file.path,
                    f"a run into {self.path} writes {name}",
                    "leave it out of the inputs, or choose another --out",
                )

    def is_begun(self) -> bool:
        """Did a run leave a journal here?"""
        return read_journal(self.path) is not None

    def is_mine(self) -> bool:
        """Is the unfinished run there one of this very dataset?"""
        log = read_journal(self.path)
        return log is not None and log.run.fingerprint == self._plan.fingerprint()

    def leave(self, keeps: bool = True) -> None:
        """After a failure: what is worth going on with stays, anything less is removed."""
        log = read_journal(self.path)
        at = log.checkpoint if log is not None else None
        if keeps and at is not None and self._is_worth_keeping(at):
            return
        with contextlib.suppress(OSError, TokenmillError):
            self._remove_own()
            remove_state(self.path)

    def uploads(self, run: RunBegun) -> Uploads | None:
        """What stores the shards elsewhere, where the dataset is not to stay in this folder."""

    def publish(self, manifest: Manifest) -> None:
        """All files are whole: name them, and say so. Can be done again from the middle."""
        for shard in manifest.shards:  # left where a run was killed before it removed it
            remove_scratch(self.path, self._plan.spec.layout, shard)
        names = [file.name for file in manifest.shard_files()]
        if manifest.quarantine.sha256 is not None:
            names.append(QUARANTINE)
        publish(self.path, names)
        write_durably(self.path / SHA256SUMS, manifest.sha256sums())
        write_durably(self.path / MANIFEST, manifest.to_json())

    def finish(self) -> None:
        """The dataset is complete: nothing of the run is left but that."""
        remove_state(self.path)

    def removable_bytes(self) -> int:
        """Look what ``overwrite`` will remove, and how large it is; nothing is removed yet.

        What a dataset or journal names and has not the bytes that tokenmill wrote may be somebody's
        by now: it is set aside and not removed, so that a damaged dataset can be made anew. Raises
        TokenmillError where a foreign file has a name that this run needs.
        """
        claims = Claims.begun(self.path)
        mine = {path for path in claims.paths() if path.parent == self.path}
        changed: set[Path] = set()
        for path, is_ours in [*self._of_the_dataset(), *self._of_the_run()]:
            if path not in mine and os.path.lexists(path):
                (mine if is_ours(path) else changed).add(path)
        if folders := [path.name for path in changed if _is_folder(path)]:
            raise self._in_the_way(folders)
        self.refuse_foreign(mine | changed)
        self._mine, self._changed = sorted(mine), sorted(changed)
        self._looked_at = self._look()
        return sum(path.lstat().st_size for path in self._mine)

    def _look(self) -> list[tuple[int, ...]]:
        """What tells that the files to be removed are still those that were looked at."""
        there = [path.lstat() for path in self._mine + self._changed if os.path.lexists(path)]
        return [(status.st_ino, status.st_size, status.st_mtime_ns) for status in there]

    def _of_the_dataset(self) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
        """The files of a finished dataset, each with the question whether it is what was written.
        A damaged manifest does not tell its files, but SHA256SUMS does."""
        if has_foreign_manifest(self.path):
            raise self._in_the_way([MANIFEST])
        if not os.path.lexists(self.path / MANIFEST):
            return
        known: dict[str, str] = {}
        lines = _sums_of(self.path)
        with contextlib.suppress(DamageFound):
            manifest = load_manifest(self.path)
            known = {file.name: file.sha256 for file in manifest.shard_files()}
            if manifest.quarantine.sha256 is not None:
                known[QUARANTINE] = manifest.quarantine.sha256
            known[MANIFEST] = hashlib.sha256(manifest.to_json()).hexdigest()
        if not known and MANIFEST in lines:
            known = lines
        elif MANIFEST in lines:
            known[MANIFEST] = lines[MANIFEST]  # of a release that wrote other keys
        known.setdefault(MANIFEST, "")
        for name, digest in known.items():
            yield self.path / name, partial(_has_sha256, sha256=digest)
        if lines.items() & known.items():
            yield self.path / SHA256SUMS, lambda _: lines.items() <= known.items()

    def _of_the_run(self) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
        """The files of an unfinished run; those that are as it left them have claims."""
        log = read_journal(self.path)
        for name in sorted(log.names) if log is not None else []:
            yield self.path / (name + PARTIAL), lambda _: False

    def overwrite(self) -> list[str]:
        """Remove a dataset or an unfinished run; returns what was removed, in words.

        First all of it is claimed: killed after that, the same command knows it, and goes on.
        """
        if self._look() != self._looked_at:  # all of it was hashed already: not twice
            self.removable_bytes()
        size = sum(path.lstat().st_size for path in self._mine)
        present, manifest, claims = self._mine, self.path / MANIFEST, Claims.begun(self.path)
        told = [
            f"set aside {path.name}, which is not as tokenmill wrote it: {set_aside(path)}"
            for path in self._changed
        ]
        with explained(self.path):
            remove_own(self.path / STATE_FOLDER / JOURNAL)
            for path in [path for path in present if path.name.endswith(PARTIAL)]:
                claims.remove(path)
            present_finals = [path for path in present if os.path.lexists(path)]
            for path in present_finals:
                claims.adopt(path)
            if manifest in present_finals:  # first: without it nothing claims to be a dataset
                remove_file(manifest)
                sync_folder(self.path)
            for path in present_finals:
                claims.remove(path)
        removed = f"removed {format_files(len(present))}, {format_bytes(size)}, of {self.path}"
        return [*told, removed]

    def _is_worth_keeping(self, at: Checkpoint) -> bool:
        # A pipe begins anew in every run.
        return self._plan.inputs.are_replayable and bool(at.counts.get("documents") or at.reasons)

    def _entries(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir())
        except OSError as error:
            raise TokenmillError(
                "cannot read the output folder",
                str(self.path),
                error.strerror,
                "mend that and run it again, or choose another --out",
            ) from error


def revisions_of(path: Path) -> dict[str, str]:
    """The commits that the dataset or the unfinished run in a folder took for moving revisions:
    running the same command again means these, wherever the revisions have moved to."""
    with contextlib.suppress(TokenmillError):
        if os.path.lexists(path / MANIFEST):
            return load_manifest(path).revisions
        log = read_journal(path)
        return log.run.revisions if log is not None else {}
    return {}  # what is wrong there is told later


def _is_regular(path: Path) -> bool:
    return os.path.isfile(path) and not path.is_symlink()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _has_sha256(path: Path, sha256: str) -> bool:
    if not _is_regular(path):
        return False
    digest = hashlib.sha256()
    with explained(path), path.open("rb") as file:
        while chunk := file.read(_STEP):
            digest.update(chunk)
    return digest.hexdigest() == sha256


def _sums_of(folder: Path) -> dict[str, str]:
    """The names in SHA256SUMS with their hashes; none where it is no such file."""
    try:
        lines = read_small(folder / SHA256SUMS).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines]
    sums = {match[2]: match[1] for match in found if match and is_plain_name(match[2])}
    return sums if len(sums) == len(lines) else {}


def _doubt(log: Log, at: Checkpoint, plan: Asked) -> str | None:
    """What a checkpoint tells that cannot be, in words: its file may have been changed."""
    spec = plan.spec
    splits = spec.split_rule.names
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
    for opened in by_shard(at.open).values():
        shard, sizes = opened[0].shard, {file.name: file.bytes for file in opened}
        assert shard is not None
        is_full = spec.shard_tokens is not None and shard.tokens >= spec.shard_tokens
        fits = spec.layout.fits(sizes, shard.name, shard.tokens, plan.dtype)
        if shard.split not in splits or not fits or shard.tokens < 0 or is_full:
            size = sum(sizes.values())
            return f"{shard.name!r} of {shard.split!r} has {shard.tokens} tokens in {size} bytes"
    return None


def would_write(spec: Spec, name: str) -> bool:
    """Would a run with that spec write a file of that name?"""
    return spec.layout.writes(spec.name, name, spec.shard_tokens is not None)


def _changes(file: InputFile, before: Input) -> list[str]:
    """How a file differs from what it was, in words."""
    found = []
    if not file.store.is_replayable:
        return ["what comes through a pipe cannot be held against what came through before"]
    if file.size != before.size:
        found.append(f"{file.path} has {file.size} bytes, had {before.size}")
    elif file.modified != before.modified:
        found.append(f"{file.path} was modified since")
    elif file.probe != before.probe:
        found.append(f"{file.path} has another content")
    return found
