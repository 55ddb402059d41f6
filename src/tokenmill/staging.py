"""Where a run works whose output is an object store: a local folder of its own for each URL.

It holds the journal and what is not yet in the store: the unfinished files, and a few whole
shards that wait for their upload.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

STORES = ("s3://", "gs://", "az://")


def is_store(out: str) -> bool:
    """Does ``--out`` name a place in an object store?"""
    return out.startswith(STORES)


def working_folder(out: str, staging: str | None = None) -> Path:
    """The local folder that a run works in: ``out`` itself, or one for the URL below ``staging``
    (default: in the user's cache folder)."""
    if not is_store(out):
        return Path(out)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    parent = Path(staging) if staging else Path(cache, "tokenmill", "staging")
    return parent / hashlib.sha256(out.rstrip("/").encode()).hexdigest()[:16]
