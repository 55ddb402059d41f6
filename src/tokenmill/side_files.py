"""The files beside the shards of a dataset, by name: what a run wrote is no input of the next.

A folder that holds a dataset of tokenmill's, finished or not, is told by the beginning of its
manifest or by its journal; nothing is parsed, for an input folder may hold thousands.
"""

from __future__ import annotations

import os

MANIFEST = "manifest.json"
SHA256SUMS = "SHA256SUMS"
QUARANTINE = "quarantine.jsonl"
SIDE_FILES = (MANIFEST, SHA256SUMS, QUARANTINE)
JOURNAL_PATH = os.path.join(".tokenmill", "journal")
_HEAD_BYTES = 256
_MANIFEST_HEAD = b'"manifest_version"'
_JOURNAL_HEAD = b'{"type":"run"'


def side_files_in(folder: str) -> tuple[str, ...]:
    """The side files that tokenmill writes, where ``folder`` holds a dataset of its; else none."""
    is_ours = _MANIFEST_HEAD in _head(os.path.join(folder, MANIFEST)) or _JOURNAL_HEAD in _head(
        os.path.join(folder, JOURNAL_PATH)
    )
    return SIDE_FILES if is_ours else ()


def _head(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(fd, _HEAD_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
