"""The files of a dataset, by name: what a run wrote is no input of the next.

A folder that holds a dataset of tokenmill's, finished or not, is told by the beginning of its
manifest or by its journal, and SHA256SUMS lists its files; the manifest is not parsed, for there
may be thousands below an input folder.
"""

from __future__ import annotations

import os

MANIFEST = "manifest.json"
SHA256SUMS = "SHA256SUMS"
QUARANTINE = "quarantine.jsonl"
SIDE_FILES = (MANIFEST, SHA256SUMS, QUARANTINE)
JOURNAL_PATH = os.path.join(".tokenmill", "journal")
_HEAD_BYTES = 256
_MOST_SUMS = 16 * 1024 * 1024
"""A line has 65 bytes and a name: more than a hundred thousand shards."""
_MANIFEST_HEAD = b'"manifest_version"'
_JOURNAL_HEAD = b'{"type":"run"'


def written_in(folder: str) -> frozenset[str]:
    """The names of what tokenmill wrote, where ``folder`` holds a dataset of its; else none."""
    is_ours = _MANIFEST_HEAD in _head(os.path.join(folder, MANIFEST)) or _JOURNAL_HEAD in _head(
        os.path.join(folder, JOURNAL_PATH)
    )
    if not is_ours:
        return frozenset()
    sums = _head(os.path.join(folder, SHA256SUMS), _MOST_SUMS).decode("utf-8", "replace")
    listed = (line.partition("  ") for line in sums.splitlines())
    return frozenset([*SIDE_FILES, *(name for _, _, name in listed if name)])


def _head(path: str, size: int = _HEAD_BYTES) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(fd, size)
    except OSError:
        return b""
    finally:
        os.close(fd)
