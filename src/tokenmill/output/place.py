"""The place that ``--out`` names, and where a run works whose output is an object store: a local
folder of its own for each URL.

It holds the journal and what is not yet in the store: the unfinished files, and a few whole
shards that wait for their upload.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path

from tokenmill.errors import UsageError

STORES = ("s3://", "gs://", "az://")
"""Those that can be written, as the classes in ``stores`` say of themselves (``can_write``)."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_store(out: str) -> bool:
    """Does ``--out`` name a place in an object store?"""
    return out.startswith(STORES)


def output_place(out: str) -> str:
    """``--out`` as it is meant: ``~`` in quotes is what the shell would have made of it. Raises
    UsageError where it names nothing."""
    if not out.strip():
        raise UsageError(
            "--out is empty",
            None,
            "a variable in the command may not be set",
            "name a folder; the one you are in is --out .",
        )
    if _ADDRESS.match(out) and not is_store(out):
        raise UsageError(
            "no dataset can be written there",
            out,
            "it is an address, and of addresses only those of object stores can be written",
            f"name a folder, or an object store: {', '.join(f'{s}BUCKET/KEY' for s in STORES)}",
        )
    is_home = out.startswith("~") and not os.path.lexists(out)
    place = os.path.expanduser(out) if is_home else out
    try:
        os.lstat(place)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(
                "the name of the output folder is too long",
                f"{place[:60]}...",
                f"{len(os.fsencode(place))} bytes, of which a file system takes 255 for each name",
                "choose a shorter --out",
            ) from error
    return place


def working_folder(out: str, staging: str | None = None) -> Path:
    """The local folder that a run works in: ``out`` itself, or one for the URL below ``staging``
    (default: in the user's cache folder)."""
    if not is_store(out):
        return Path(out)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    parent = Path(staging) if staging else Path(cache, "tokenmill", "staging")
    return parent / hashlib.sha256(out.rstrip("/").encode()).hexdigest()[:16]
