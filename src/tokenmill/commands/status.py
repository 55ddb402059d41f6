"""``status``: what a run has done, told from its files alone; it changes none of them."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tokenmill.dataset.files import DatasetFiles, files_at
from tokenmill.dataset.manifest import MANIFEST, read_manifest
from tokenmill.errors import DamageFound
from tokenmill.output.journal import (
    JOURNAL,
    Log,
    continuing_command,
    parse_journal,
    read_journal,
)
from tokenmill.output.lease import LEASE, parse_lease, token_of
from tokenmill.output.place import working_folder
from tokenmill.stores.durable import STATE_FOLDER
from tokenmill.stores.lock import lock_holder
from tokenmill.stores.retry import RetryPolicy


def status_of(place: str | Path, policy: RetryPolicy | None = None) -> dict[str, Any]:
    """The state, ``running``, ``stopped`` or ``finished``, and what goes with it, of a folder or of
    a URL, which requests are made for by ``policy``.

    Below a URL a run is called ``running`` while its lease is held: whether its holder lives, only
    who watches the lease can tell. Raises DamageFound when there is nothing of tokenmill's, or
    nothing that can be read.
    """
    files, folder = files_at(place, policy), working_folder(str(place))
    holder = _holder(files, folder)
    if _has_manifest(files):
        return {"state": "finished", "holder": holder, **_finished(files)}
    log, written = _journal(files, folder)
    if _has_manifest(files_at(place, policy)):  # it became so just now
        return status_of(place, policy)
    if log is None and holder is None:
        is_folder = not files.has_lock or os.path.isdir(files.where)
        raise DamageFound(
            f"there is no run and no dataset in this {files.noun}",
            files.where,
            None if is_folder else "it is no folder",
            f"name the {files.noun} that prepare was given as --out",
        )
    state = "stopped" if holder is None else "running"
    found = {} if log is None else _unfinished(log, written)
    return {"state": state, "holder": holder, **found}


def _has_manifest(files: DatasetFiles) -> bool:
    try:
        files.entry(MANIFEST)
    except OSError:
        return False
    return True


def _holder(files: DatasetFiles, folder: Path) -> str | None:
    """Who is at work there; on this machine a run works in ``folder``."""
    holder = lock_holder(folder)
    if files.has_lock or holder is not None:
        return holder
    lease = parse_lease(_state(files, LEASE) or b"")
    is_elsewhere = lease is not None and lease.is_held and lease.token != token_of(folder)
    return lease.holder if lease is not None and is_elsewhere else None


def _journal(files: DatasetFiles, folder: Path) -> tuple[Log | None, str | None]:
    """What the run noted, and when it was noted last, if that is known: in ``folder``, or what is
    stored, if that is more."""
    log, written = read_journal(folder), _written(folder / STATE_FOLDER / JOURNAL)
    content = None if files.has_lock else _state(files, JOURNAL)
    stored = None if content is None else parse_journal(content, files.where)
    return (stored, None) if _done(stored) > _done(log) else (log, written)


def _state(files: DatasetFiles, name: str) -> bytes | None:
    """A file of a run's state that is stored; None where it is not there, or is none of ours."""
    try:
        return files.read(f"{STATE_FOLDER}/{name}")
    except OSError:
        return None


def _done(log: Log | None) -> int:
    if log is None:
        return -1
    return 0 if log.checkpoint is None else log.checkpoint.done_bytes


def _finished(files: DatasetFiles) -> dict[str, Any]:
    """The dataset's figures; whole or not by the sizes of its files only."""
    manifest = read_manifest(files)
    wrong = [file.name for file in manifest.shard_files() if _size(files, file.name) != file.bytes]
    damaged = [shard for shard in manifest.shards if {f.name for f in shard.all_files} & {*wrong}]
    return {
        "format": manifest.format,
        "tokenizer": manifest.tokenizer["name"],
        "split": manifest.split,
        "documents": manifest.counts["documents"],
        "tokens": manifest.counts["tokens"],
        "shards_whole": len(manifest.shards) - len(damaged),
        "damaged": wrong,
        "quarantined": manifest.quarantine.reasons,
    }


def _unfinished(log: Log, written: str | None) -> dict[str, Any]:
    run, at = log.run, log.checkpoint
    total = sum(file.size for file in run.inputs)
    found: dict[str, Any] = {
        "began": run.began,
        "tokenmill_version": run.tokenmill_version,
        "command": continuing_command(run.command),
        "total_bytes": total,
        "bytes": at.done_bytes if at else 0,
        "documents": at.counts.get("documents", 0) if at else 0,
        "tokens": at.counts.get("tokens", 0) if at else 0,
        "shards_whole": len(log.shards),
        "shards_open": [file.name for file in at.open if file.shard is not None] if at else [],
        "quarantined": at.reasons if at else {},
        "seconds": at.seconds if at else 0.0,
        "is_encoded": log.encoded is not None,
        "checkpoint": written if at else None,
    }
    whole = {shard.name for shard in log.shards}
    found["shards_open"] = [name for name in found["shards_open"] if name not in whole]
    return found


def _size(files: DatasetFiles, name: str) -> int | None:
    try:
        return files.entry(name).size
    except OSError:
        return None


def _written(path: Path) -> str | None:
    """When a file was last written, for a person: nothing is decided by it."""
    try:
        modified = path.stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(modified, timezone.utc).isoformat(timespec="seconds")
