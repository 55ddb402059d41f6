"""Where the bytes are: paths, folders and globs become a list of files, in a stated order.

The order is that of the arguments; a folder or glob stands for its files sorted by path, byte by
byte. Each file is read once however often it is named. How bytes are compressed is told by the
last suffix, how they divide into records by the one before it.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import xxhash

from tokenmill.compression import COMPRESSIONS, READ_BYTES, Damage, DecompressedFile
from tokenmill.errors import InputError, unreadable
from tokenmill.reading import read_patiently

KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


_PROBE = 64 * 1024


@dataclass(frozen=True)
class InputFile:
    """One file of the corpus.

    ``size`` is in bytes on disk, ``compression`` a suffix such as ``.gz`` or None, ``modified``
    the modification time in nanoseconds, ``probe`` a hash of a few places in it: with the size
    they are the file's identity.
    """

    path: Path
    kind: str
    compression: str | None
    size: int
    modified: int
    probe: str


@dataclass
class InputList:
    """The files of a corpus, and what was passed over on the way (to be told, never hidden)."""

    files: list[InputFile]
    ignored: list[Path]
    repeated: list[Path]


def find_inputs(arguments: list[str]) -> InputList:
    """Expand the arguments to files. Raises InputError when one of them leads nowhere."""
    found = InputList([], [], [])
    seen: set[str] = set()
    for argument in arguments:
        for path, named in _expand(argument):
            entry = _input_file(path)
            if entry is None:
                if named:
                    raise _unknown_kind(path)
                found.ignored.append(path)
                continue
            place = os.path.realpath(path)
            if place in seen:
                found.repeated.append(path)
                continue
            seen.add(place)
            found.files.append(entry)
    if not found.files:
        raise InputError(
            "no input files",
            where=", ".join(arguments) or None,
            why=f"{len(found.ignored)} files there are of no known kind" if found.ignored else None,
            fix=f"name files that end in {', '.join(KINDS)} (also compressed)",
        )
    return found


def _expand(argument: str) -> list[tuple[Path, bool]]:
    """The files an argument stands for, and whether each was named itself."""
    path = Path(argument)
    # os.path answers "no" where pathlib raises: a name too long, a folder closed to us.
    if os.path.isdir(argument):
        return [(file, False) for file in _files_below(path)]
    if os.path.lexists(argument):
        return [(path, True)]
    if glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True), key=os.fsencode)
        below = [
            pair
            for match in matches
            for pair in (
                [(file, False) for file in _files_below(Path(match))]
                if os.path.isdir(match)
                else [(Path(match), False)]
            )
        ]
        if below:
            return below
        raise InputError("no file matches", argument, None, "check the pattern and the quotes")
    raise InputError("no such file or folder", argument, None, "check the path")


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones left out, links followed but never in circles."""
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise InputError(
            "cannot read a folder", str(error.filename), error.strerror, "make it readable"
        )

    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(root)
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(shown, key=os.fsencode)
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found, key=os.fsencode)


def _input_file(path: Path) -> InputFile | None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            "a file's name is not UTF-8", repr(os.fsencode(path)), None, "rename the file"
        ) from None
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else None
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        return None
    if kind == "parquet" and compression:
        return None
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(str(path), error) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            "the input is not a regular file",
            str(path),
            "pipes and devices have no size",
            "write what comes out of it to a file first",
        )
    if not os.access(path, os.R_OK):
        raise unreadable(str(path), PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    probe = _probe(path, status.st_size)
    return InputFile(path, kind, compression, status.st_size, status.st_mtime_ns, probe)


def _probe(path: Path, size: int) -> str:
    """A hash of the beginning, the middle and the end: cheap, and more than the time can tell."""
    digest = xxhash.xxh3_64()
    try:
        with path.open("rb", buffering=0) as file:
            for place in (0, max(0, size // 2 - _PROBE // 2), max(0, size - _PROBE)):
                file.seek(place)
                digest.update(file.read(_PROBE))
    except OSError as error:
        raise unreadable(str(path), error) from error
    return digest.hexdigest()


def _unknown_kind(path: Path) -> InputError:
    return InputError(
        "cannot tell what kind of input this is",
        str(path),
        "the kind is told by the file's suffix",
        f"rename it to end in one of {', '.join(KINDS)}, then perhaps {', '.join(COMPRESSIONS)}",
    )


def check_unchanged(file: InputFile) -> None:
    """Raise InputError if the file is no longer what it was when the run began."""
    try:
        now = file.path.stat()
    except OSError as error:
        raise InputError(
            "the input is gone",
            str(file.path),
            error.strerror,
            "put the file back, then run this again",
        ) from error
    if (now.st_size, now.st_mtime_ns) != (file.size, file.modified):
        raise InputError(
            "the input was changed while it was read",
            str(file.path),
            None,
            "let nothing write to the inputs, then run it again",
        )


class ByteStream(Protocol):
    """A file's text by byte range. ``peek`` may go back only as far as the last ``release``."""

    def peek(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer where the text ends."""

    def release(self, position: int) -> None:
        """Nothing before ``position`` will be asked for again."""

    def excerpt(self, start: int, stop: int) -> Excerpt:
        """A range for another thread, which reads it itself where the file allows that."""

    def disk_position(self, position: int) -> int:
        """Bytes of the file on disk that were read to come to ``position`` of the text."""

    @property
    def damage(self) -> Damage | None:
        """Why the text ended before the file did; known once its end was seen."""


@dataclass
class Excerpt:
    """A byte range of a text, to be taken once, by any thread."""

    start: int
    stop: int
    _stream: ByteStream | None
    _text: bytes | None = None

    def take(self) -> bytes:
        """The bytes."""
        text, self._text = self._text, None
        if text is None:
            assert self._stream is not None
            text = self._stream.peek(self.start, self.stop)
        return text

    @property
    def is_held(self) -> bool:
        """Was it read already, because the file can be read only in sequence?"""
        return self._text is not None


class PlainStream:
    """An uncompressed file, read with ``pread`` by any thread: mapped pages would be resident."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._fd = os.open(file.path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def peek(self, start: int, stop: int) -> bytes:
        return _read_range(self._fd, start, stop, self._file)

    def release(self, position: int) -> None:
        """Nothing is held."""

    def excerpt(self, start: int, stop: int) -> Excerpt:
        return Excerpt(start, min(stop, self._file.size), self)

    def disk_position(self, position: int) -> int:
        return position

    damage = None


class CompressedStream:
    """A compressed file, decompressed once from front to back, held from the last release on."""

    def __init__(self, file: InputFile, keeps_damaged: bool) -> None:
        assert file.compression is not None
        self._source = DecompressedFile(file.path, file.compression, keeps_damaged)
        self._buffer = bytearray()
        self._origin = 0
        self._disk = 0
        self._ended = False

    def peek(self, start: int, stop: int) -> bytes:
        while not self._ended and self._origin + len(self._buffer) < stop:
            text = self._source.read(READ_BYTES * 4)
            self._ended = not text
            self._buffer += text
        return bytes(self._buffer[max(0, start - self._origin) : max(0, stop - self._origin)])

    def release(self, position: int) -> None:
        while position > self._origin:
            held = min(position - self._origin, len(self._buffer))
            del self._buffer[:held]
            self._origin += held
            if self._origin < position and not self.peek(self._origin, self._origin + 1):
                return

    def excerpt(self, start: int, stop: int) -> Excerpt:
        text = self.peek(start, stop)
        return Excerpt(start, start + len(text), None, text)

    def disk_position(self, position: int) -> int:
        # Where damage is near, the file is read a second time.
        self._disk = max(self._disk, self._source.position)
        return self._disk

    @property
    def damage(self) -> Damage | None:
        return self._source.damage


def open_stream(file: InputFile, keeps_damaged: bool = False) -> ByteStream:
    """The file's text, decompressed where it is compressed.

    With ``keeps_damaged`` the text of a damaged file ends where the damage begins.
    """
    try:
        return CompressedStream(file, keeps_damaged) if file.compression else PlainStream(file)
    except OSError as error:
        raise unreadable(str(file.path), error) from error


def read_head(file: InputFile, start: int, size: int) -> bytes:
    """At most ``size`` bytes of the file on disk, from ``start`` on."""
    return PlainStream(file).peek(start, start + size)


def _read_range(fd: int, start: int, stop: int, file: InputFile) -> bytes:
    """``pread`` until all is read; a file that became shorter is an error, not an end."""
    stop = min(stop, file.size)
    if start >= stop:
        return b""
    try:
        data = read_patiently(lambda: os.pread(fd, stop - start, start))
        while len(data) < stop - start:
            at = start + len(data)
            more = read_patiently(partial(os.pread, fd, stop - at, at))
            if not more:
                raise InputError(
                    "the input became shorter while it was read",
                    f"{file.path}, byte {start + len(data)}",
                    f"it had {file.size} bytes when the run began",
                    "let nothing write to the inputs, then run it again",
                )
            data += more
    except OSError as error:
        raise unreadable(f"{file.path}, byte {start}", error) from error
    return data
