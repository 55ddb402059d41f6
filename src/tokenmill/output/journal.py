"""The journal: what of an unfinished run is durable; continuing rests on nothing else.

``.tokenmill/journal`` has one line an entry: a checksum, a space, JSON. An entry is added only
after everything that it refers to is on disk. Reading stops at the first line that is torn or
changed, so a journal cut off anywhere is still one, of an earlier moment.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from tokenmill.dataset.manifest import Input, Shard, is_plain_name
from tokenmill.errors import TokenmillError
from tokenmill.stores.disk_reads import read_lines
from tokenmill.stores.durable import STATE_FOLDER, AppendedFile

JOURNAL = "journal"
VERSION = 1
_CHECKSUM = 17
"""Bytes of a line before its JSON: sixteen digits and a space."""


class RunBegun(msgspec.Struct, tag="run"):
    """The first entry: what the run was asked to do, and by which command, for a person.

    ``revisions`` are the commits that moving revisions of datasets were taken for, ``libraries``
    those that may decide the ids, as they were installed.

    A later one replaces it, where a run goes on in a way that writes the same bytes up to there.
    """

    journal_version: int
    tokenmill_version: str
    fingerprint: str
    spec: dict[str, Any]
    tokenizer: dict[str, str | int]
    inputs: list[Input]
    command: list[str]
    began: str
    revisions: dict[str, str] = {}
    libraries: dict[str, dict[str, str]] = {}


class ShardDone(msgspec.Struct, tag="shard"):
    """A shard is whole and durable, all its files still as ``.partial``."""

    shard: Shard


class ShardStored(msgspec.Struct, tag="stored"):
    """A whole shard is in the object store, all its files under their final names; their
    ``.partial`` may be gone."""

    name: str


class OpenFile(msgspec.Struct):
    """A file that is being written: its first ``bytes`` are durable and have that hash.

    ``shard`` is what it will be, or will be a part of, without hashes; None for the quarantine
    file.
    """

    name: str
    bytes: int
    sha256: str | None
    shard: Shard | None = None


class Checkpoint(msgspec.Struct, tag="checkpoint"):
    """All blocks before a position (``file``, ``state``) in the inputs are durable.

    ``shards`` is the number of shards that were whole, ``open`` the files being written,
    ``seconds`` the time it all took, and the rest what the writer and the counting go on from.
    """

    file: int
    state: dict[str, Any] | None
    shards: int
    open: list[OpenFile]
    val_left: int
    open_split: str
    numbers: dict[str, int]
    done_bytes: int
    counts: dict[str, int]
    reasons: dict[str, int]
    checked_documents: int
    checked_bytes: int
    seconds: float


class Encoded(msgspec.Struct, tag="encoded"):
    """Everything is encoded, and every file of the dataset whole and durable."""

    at: Checkpoint
    quarantine_sha256: str | None


Entry = RunBegun | ShardDone | ShardStored | Checkpoint | Encoded


@dataclass
class Log:
    """What a journal tells, up to its last checkpoint. ``size`` is the length in bytes of that
    part: a shard noted after it will be made again, and noted again.
    """

    run: RunBegun
    whole: dict[str, Shard] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    encoded: Encoded | None = None
    size: int = 0
    names: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)

    @property
    def shards(self) -> list[Shard]:
        """The shards that are whole, in the order in which they became so."""
        return list(self.whole.values())

    def add(self, entry: Entry) -> None:
        """Take in one more entry."""
        if isinstance(entry, RunBegun):
            self.run = entry
        elif isinstance(entry, ShardDone):
            self.whole[entry.shard.name] = entry.shard
            self.names |= {file.name for file in entry.shard.all_files}
        elif isinstance(entry, ShardStored):
            self.stored.add(entry.name)
            self.names.add(entry.name)
        elif isinstance(entry, Checkpoint):
            self.checkpoint = entry
            if len(self.whole) > entry.shards:
                self.whole = dict(list(self.whole.items())[: entry.shards])
            self.names |= {file.name for file in entry.open}
            shards = [file.shard for file in entry.open if file.shard]
            self.names |= {file.name for shard in shards for file in shard.all_files}
        elif isinstance(entry, Encoded):
            self.add(entry.at)
            self.encoded = entry


class Journal:
    """The journal of the run that is under way."""

    def __init__(self, folder: Path, size: int = 0) -> None:
        """Write on after the first ``size`` bytes."""
        self._file = AppendedFile(folder / STATE_FOLDER / JOURNAL, size)

    def append(self, entry: Entry) -> None:
        """Add an entry; it is durable on return."""
        self._file.append(to_line(entry))

    def close(self) -> None:
        """No more entries."""
        self._file.close()


def to_line(entry: Entry) -> bytes | bytearray:
    """An entry as it stands in a journal."""
    line = bytearray(_CHECKSUM)  # one copy: with a million inputs the first has 300 MB
    msgspec.json.Encoder().encode_into(entry, line, _CHECKSUM)
    with memoryview(line) as whole, whole[_CHECKSUM:] as text:
        checksum = xxhash.xxh3_64_hexdigest(text)
    line[:_CHECKSUM] = f"{checksum} ".encode()
    line += b"\n"
    return line


def continuing_command(arguments: list[str]) -> str:
    """What a person types to go on with a run; ``--overwrite`` would begin it anew."""
    return shlex.join(["tokenmill", *(word for word in arguments if word != "--overwrite")])


def read_journal(folder: Path) -> Log | None:
    """What the journal in an output folder tells; None when no run left one that begins whole, or
    when there is no file under its name.

    Raises TokenmillError when it cannot be read, for then nobody may think that there is none,
    and when it names a file outside the folder.
    """
    path = folder / STATE_FOLDER / JOURNAL
    try:
        return _log_of(map(memoryview, read_lines(path)), str(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        if not os.path.isfile(path):  # a pipe, a link in a circle: no run left that
            return None
        raise TokenmillError(
            "cannot read the journal of the unfinished run",
            str(path),
            error.strerror,
            "mend that and run it again: what is done is kept",
        ) from error


def parse_journal(content: bytes, where: str) -> Log | None:
    """The same of a journal's content, found at ``where``."""
    return _log_of(_lines(content), where)


def _log_of(lines: Iterable[memoryview], where: str) -> Log | None:
    """What lines tell, of which there may be a million: a run of weeks has a checkpoint every two
    seconds."""
    log: Log | None = None
    size = 0
    for line in lines:
        entry = _parse(line)
        if entry is None:
            break
        if log is not None:
            log.add(entry)
        elif isinstance(entry, RunBegun):
            log = Log(entry)
        else:
            break
        at = entry.at if isinstance(entry, Encoded) else entry
        if log is not None and isinstance(at, Checkpoint) and at.shards > len(log.shards):
            break  # it speaks of shards that no entry names
        size += len(line)
        if not isinstance(entry, ShardDone):
            log.size = size
    if log is not None:
        _check_names(log, where)
    return log


def _lines(content: bytes) -> Iterator[memoryview]:
    """The lines, the torn one at the end too; without a copy, for the first may be large."""
    start, whole = 0, memoryview(content)
    while start < len(content):
        stop = content.find(b"\n", start) + 1 or len(content)
        yield whole[start:stop]
        start = stop


def _parse(line: memoryview) -> Entry | None:
    checksum, text = bytes(line[:_CHECKSUM]), line[_CHECKSUM:-1]
    wanted = f"{xxhash.xxh3_64_hexdigest(text)} ".encode()
    if bytes(line[-1:]) != b"\n" or checksum != wanted:
        return None
    try:
        entry: Entry = msgspec.json.decode(text, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return entry


def _check_names(log: Log, where: str) -> None:
    for name in log.names:
        if not is_plain_name(name):
            raise TokenmillError(
                "the journal of the unfinished run names a file outside its folder",
                where,
                repr(name),
                "do not use this folder: somebody changed its journal",
            )
