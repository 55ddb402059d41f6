"""``status``: what a run has done, told from its files alone; it changes none of them."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tokenmill.dataset.manifest import MANIFEST, Manifest, load_manifest
from tokenmill.errors import DamageFound
from tokenmill.output.journal import JOURNAL, Log, continuing_command, read_journal
from tokenmill.stores.durable import STATE_FOLDER
from tokenmill.stores.lock import lock_holder


def status_of(folder: Path) -> dict[str, Any]:
    """The state, ``running``, ``stopped`` or ``finished``, and what goes with it.

    Raises DamageFound when there is nothing of tokenmill's, or nothing that can be read.
    """
    holder = lock_holder(folder)
    if os.path.exists(folder / MANIFEST):
        return {"state": "finished", "holder": holder, **_finished(folder, load_manifest(folder))}
    log = read_journal(folder)
    if os.path.exists(folder / MANIFEST):  # it became so just now
        return status_of(folder)
    if log is None and holder is None:
        raise DamageFound(
            "there is no run and no dataset in this folder",
            str(folder),
            None if os.path.isdir(folder) else "it is no folder",
            "name the folder that prepare was given as --out",
        )
    state = "stopped" if holder is None else "running"
    return {"state": state, "holder": holder, **({} if log is None else _unfinished(folder, log))}


def _finished(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """The dataset's figures; whole or not by the sizes of its files only."""
    files = manifest.shard_files()
    wrong = [file.name for file in files if _size(folder / file.name) != file.bytes]
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


def _unfinished(folder: Path, log: Log) -> dict[str, Any]:
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
        "checkpoint": _written(folder / STATE_FOLDER / JOURNAL) if at else None,
    }
    whole = {shard.name for shard in log.shards}
    found["shards_open"] = [name for name in found["shards_open"] if name not in whole]
    return found


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


def _written(path: Path) -> str | None:
    """When a file was last written, for a person: nothing is decided by it."""
    try:
        modified = path.stat().st_mtime
    except OSError:
        return None
    return datetime.fromtimestamp(modified, timezone.utc).isoformat(timespec="seconds")
