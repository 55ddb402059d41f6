"""What a run finds where it is to write: its dataset finished, a run to go on with, or neither.

A run goes on only with what is its own: the same spec, tokenizer, inputs and release. These are
questions, for a folder and for a prefix of an object store alike, which change nothing; but for
``enter`` and ``settle``, which say so.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import partial
from typing import Any

from tokenmill.batches import Counts
from tokenmill.dataset.identity import identity
from tokenmill.dataset.manifest import (
    MANIFEST,
    Input,
    Manifest,
    ShardFile,
    parse_manifest,
)
from tokenmill.errors import DamageFound, SpecMismatch, TokenmillError, UsageError
from tokenmill.output.asked import Asked, needs, would_write
from tokenmill.output.journal import JOURNAL, Checkpoint, Log, RunBegun
from tokenmill.output.journal import VERSION as JOURNAL_VERSION
from tokenmill.output.output import Output, Removal, in_the_way, manifest_in
from tokenmill.output.shards import by_shard
from tokenmill.stores import InputFile
from tokenmill.stores.durable import STATE_FOLDER
from tokenmill.stores.side_files import written_in
from tokenmill.tokenizers.libraries import advice
from tokenmill.tokenizers.libraries import differences as library_differences
from tokenmill.version import __version__


def finished(output: Output, asked: Asked) -> Manifest | None:
    """The manifest of this very dataset, if it is there, finished.

    Raises SpecMismatch when it is another one, DamageFound when it is not whole.
    """
    manifest = dataset(output, asked)
    if manifest is None:
        return None
    lost = [file.name for file in manifest.shard_files() if not _is_whole(output, file)]
    if lost:
        raise DamageFound(
            f"the finished dataset in this {output.files.noun} is damaged",
            f"{output.files.where}: {', '.join(lost[:5])}",
            "these files are missing or of another size",
            f"run the same command with {output.mending}",
        )
    return manifest


def dataset(output: Output, asked: Asked) -> Manifest | None:
    """The manifest of this very dataset, if it is there, whole or not.

    Raises SpecMismatch when it is another one.
    """
    manifest = _manifest(output)
    if manifest is None:
        return None
    if manifest.fingerprint != asked.fingerprint():
        found = _differences(asked, manifest.spec, manifest.tokenizer, manifest.inputs)
        raise SpecMismatch(
            f"the {output.files.noun} holds another dataset",
            output.files.where,
            "; ".join(found),
            "choose another --out, or --overwrite to replace it",
        )
    now = asked.libraries()
    if found := library_differences(now, manifest.libraries):
        raise SpecMismatch(
            f"the {output.files.noun} holds the dataset of another release of a library",
            output.files.where,
            "; ".join(found),
            "it is whole, and can be used as it is; to make it anew: --overwrite; to have that "
            f"release again: {advice(now, manifest.libraries)}",
        )
    return manifest


def _manifest(output: Output) -> Manifest | None:
    content = manifest_in(output.files)
    return None if content is None else parse_manifest(content, output.files.place(MANIFEST))


def _is_whole(output: Output, file: ShardFile) -> bool:
    try:
        return output.files.open(file.name).size == file.bytes
    except OSError:
        return False


def is_begun(output: Output, asked: Asked) -> bool:
    """Is the unfinished run there one of this very dataset?"""
    log = output.journal()
    return log is not None and log.run.fingerprint == asked.fingerprint()


def enter(output: Output, asked: Asked, any_spec: bool = False) -> None:
    """Changes: let no other run write there from now on. Raises OutputInUse, and SpecMismatch where
    a run of another kind is unfinished, unless it is to be removed (``any_spec``)."""
    if output.files.has_lock:
        return  # which this run has
    other = None if any_spec else output.other_run(_fingerprints(asked))
    if other is not None:
        run, why = other.run, f"process {other.holder} began it"
        if run is not None:
            why = "; ".join(_differences(asked, run.spec, run.tokenizer, run.inputs))
        raise SpecMismatch(
            f"the {output.files.noun} holds an unfinished run of another kind",
            output.files.where,
            why,
            "repeat the command that began it, choose another --out, or --overwrite to begin anew",
        )
    output.reserve(asked.fingerprint())


def settle(output: Output, asked: Asked) -> None:
    """Changes: remove the state of a run that was killed when all but that was done. Raises
    OutputInUse where another run is at work."""
    if output.has_state():
        enter(output, asked, any_spec=True)
    output.finish()


def unfinished(output: Output, asked: Asked) -> Log | None:
    """What an interrupted run of the same command left, if it is worth going on with.

    Raises SpecMismatch when there is one of another spec, over other inputs or by another release.
    """
    log = output.journal()
    if log is None or log.checkpoint is None or not is_worth_keeping(log, asked):
        return None
    run = log.run
    found = []
    if run.tokenmill_version != __version__:
        found.append(f"tokenmill is {__version__}, was {run.tokenmill_version}")
    if run.journal_version != JOURNAL_VERSION:
        found.append(f"its journal has version {run.journal_version}, not {JOURNAL_VERSION}")
    if run.fingerprint not in _fingerprints(asked):
        found += _differences(asked, run.spec, run.tokenizer, run.inputs)
    found += library_differences(asked.libraries(), run.libraries)
    if found:
        raise SpecMismatch(
            f"the {output.files.noun} holds an unfinished run of another kind",
            output.files.where,
            "; ".join(found),
            "repeat the command that began it (tokenmill status shows it), choose another "
            "--out, or --overwrite to begin anew",
        )
    if doubt := _doubt(log, log.checkpoint, asked):
        raise TokenmillError(
            "the journal of the unfinished run makes no sense",
            str(output.path / STATE_FOLDER / JOURNAL),
            doubt,
            "run the same command with --overwrite, which starts anew",
        )
    _check_kept(output, log, log.checkpoint)
    return log


def keeps(output: Output, asked: Asked) -> bool:
    """Is what is there of a run worth going on with? What cannot be read may be."""
    try:
        return is_worth_keeping(output.journal(), asked)
    except TokenmillError:
        return True


def is_worth_keeping(log: Log | None, asked: Asked) -> bool:
    """Has it anything to go on with? A pipe begins anew in every run."""
    at = None if log is None else log.checkpoint
    if at is None or not asked.inputs.are_replayable:
        return False
    return bool(at.counts.get("documents") or at.reasons)


def refuse_foreign(output: Output, asked: Asked) -> None:
    """Raise TokenmillError where files that are not tokenmill's have names that this run needs."""
    if taken := output.foreign(partial(needs, asked.spec)):
        raise in_the_way(output.files, taken)


def removal(output: Output, asked: Asked) -> Removal:
    """What ``--overwrite`` removes. Raises TokenmillError where foreign files have names that this
    run needs."""
    needed = partial(needs, asked.spec)
    found = output.removal(needed)
    if taken := output.foreign(needed, found):
        raise in_the_way(output.files, taken)
    return found


def check_inputs(output: Output, asked: Asked) -> None:
    """Raise UsageError where an input is a file that a run into this output writes."""
    here, spec = os.path.realpath(output.path), asked.spec
    for file in asked.inputs.files:
        if not file.store.has_paths:
            continue
        folder, name = os.path.split(os.path.realpath(file.path))
        if folder == here and (would_write(spec, name) or name in written_in(here)):
            raise UsageError(
                "an input is a file of the output",
                file.path,
                f"a run into {output.path} writes {name}",
                "leave it out of the inputs, or choose another --out",
            )


def recorded(output: Output) -> Manifest | RunBegun | None:
    """What the dataset there, finished or not, was made from, here or on another machine; what is
    wrong there is told later."""
    with contextlib.suppress(TokenmillError):
        if (manifest := _manifest(output)) is not None:
            return manifest
        if (log := output.journal()) is not None:
            return log.run
        other = output.other_run(())
        return None if other is None else other.run
    return None


def recorded_commit(found: Manifest | RunBegun | None, tokenizer: str) -> str | None:
    """The Hub's commit of the tokenizer that a dataset was made with, if it was named in these
    words: a branch may have moved since."""
    if found is None or found.spec.get("tokenizer") != tokenizer:
        return None
    commit = found.tokenizer.get("commit")
    return str(commit) if commit else None


def _check_kept(output: Output, log: Log, at: Checkpoint) -> None:
    """Raise TokenmillError unless all files that were whole are still of their size."""
    whole = [
        (file, shard.name in log.stored)
        for shard in (log.shards if log.encoded else log.shards[: at.shards])
        for file in shard.all_files
    ]
    if log.encoded is not None:
        left = [file for file in log.encoded.at.open if file.shard is None]
        whole += [(ShardFile(file.name, file.bytes, file.sha256 or ""), False) for file in left]
    for file, is_stored in whole:
        where = output.lost(file, is_stored)
        if where is not None:
            raise TokenmillError(
                "an unfinished file is not what the interrupted run left",
                where,
                f"it was whole, with {file.bytes} bytes",
                "run the same command with --overwrite, which starts anew",
            )


def _fingerprints(asked: Asked) -> tuple[str, ...]:
    """Of the runs that may go on as this one: of one that stopped at the first bad record, too,
    for up to there it wrote what this one would have written."""
    mine = asked.fingerprint()
    if asked.spec.on_bad != "quarantine":
        return (mine,)
    return (mine, asked.fingerprint(replace(asked.spec, on_bad="stop")))


def _differences(
    asked: Asked, spec: dict[str, Any], tokenizer: dict[str, str | int], inputs: list[Input]
) -> list[str]:
    """What differs from what was asked before, in words."""
    found = asked.spec.differences(spec)
    mine, theirs = identity(asked.vocabulary.describe()), identity(tokenizer)
    if mine != theirs:
        names = (asked.vocabulary.name, tokenizer.get("name"))
        keys = [key for key in mine if names[0] == names[1] and mine[key] != theirs.get(key)]
        parts = [(key, mine[key], theirs.get(key)) for key in keys] or [("", *names)]
        for key, now_it_is, it_was in parts:
            noun = f"the tokenizer's {key}" if key else "the tokenizer"
            found.append(f"{noun} is {now_it_is}, was {it_was}")
    before = {entry.path: entry for entry in inputs}
    now = {file.path: file for file in asked.inputs.files}
    found += [f"{path} is new" for path in now if path not in before]
    found += [f"{path} is missing" for path in before if path not in now]
    for path, file in now.items():
        if path in before:
            found += _changes(file, before[path])
    return found or ["the order of the inputs differs"]


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


def _doubt(log: Log, at: Checkpoint, asked: Asked) -> str | None:
    """What a checkpoint tells that cannot be, in words: its file may have been changed."""
    spec = asked.spec
    splits = spec.split_rule.names
    if set(at.counts) != set(vars(Counts())):
        return f"it counts {', '.join(at.counts)[:200]}"
    numbers = [*at.counts.values(), *at.numbers.values(), *at.reasons.values(), at.done_bytes]
    if not all(0 <= number < 1 << 62 for number in numbers):
        return "it counts less than nothing, or more than there can be"
    if not 0 <= at.file < len(asked.inputs.files):
        return f"there is no input number {at.file}"
    file = asked.inputs.files[at.file]
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
        fits = spec.layout.fits(sizes, shard.name, shard.tokens, asked.dtype)
        if shard.split not in splits or not fits or shard.tokens < 0 or is_full:
            size = sum(sizes.values())
            return f"{shard.name!r} of {shard.split!r} has {shard.tokens} tokens in {size} bytes"
    return None
