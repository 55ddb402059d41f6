"""A file's text by byte range, whatever store and compression it is in.

A plain local file is read by the thread that encodes; what can be read only in sequence, or is
fetched ahead, is read by the thread that walks through the file, and handed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any, Protocol

from tokenmill.errors import WrongContent
from tokenmill.kinds.compression import (
    READ_BYTES,
    Damage,
    DecompressedFile,
    MemberNeeds,
    WindowRoom,
    first_needs,
)
from tokenmill.stores import InputFile, RangeReader
from tokenmill.stores.readahead import ReadAhead
from tokenmill.stores.store import ReadOnce

SHA256 = "sha256:"
"""How the probe of a file begins whose store lists the hash of all of it."""


@dataclass(frozen=True)
class Ahead:
    """How much of a remote file is fetched before it is read: ``chunks`` of ``chunk_bytes``."""

    chunk_bytes: int
    chunks: int


class ByteStream(Protocol):
    """A file's text by byte range. ``peek`` may go back only as far as the last ``release``."""

    def begin(self, position: int) -> None:
        """The text is going to be read from ``position`` on."""

    def peek(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer where the text ends."""

    def release(self, position: int) -> None:
        """Nothing before ``position`` will be asked for again."""

    def excerpt(self, start: int, stop: int) -> Excerpt:
        """A range for another thread, which reads it itself where the file allows that."""

    def disk_position(self, position: int) -> int:
        """Bytes of the file as stored that were read to come to ``position`` of the text."""

    def finish(self) -> None:
        """All of the text was read. Raises WrongContent when the file was read from its start and
        is not the one that its store lists."""

    @property
    def damage(self) -> Damage | None:
        """Why the text ended before the file did; known once its end was seen."""


@dataclass
class Excerpt:
    """A byte range of a text, to be taken once; with the bytes, where the file is read only in
    sequence."""

    start: int
    stop: int
    text: bytes | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Its text is a buffer, which may travel beside the pickle."""
        text = self.text
        if text is not None and int(protocol) >= 5:
            return Excerpt, (self.start, self.stop, PickleBuffer(text))
        return Excerpt, (self.start, self.stop, text)

    def take(self, stream: Callable[[], ByteStream]) -> bytes:
        """The bytes, of a stream where they are not held."""
        text, self.text = self.text, None
        return stream().peek(self.start, self.stop) if text is None else text

    @property
    def is_held(self) -> bool:
        """Was it read already, because the file can be read only in sequence?"""
        return self.text is not None


class StoredBytes:
    """A file's bytes as stored, fetched ahead where it is remote and its reading has begun."""

    def __init__(self, file: InputFile, ahead: Ahead | None) -> None:
        self._content: RangeReader = file.store.open(file)
        self._size = file.size
        self._ahead = ahead if file.store.is_remote else None
        self._reader: ReadAhead | None = None
        self._released = 0
        self._path = file.path
        self._policy = file.store.policy
        self._sha256 = file.probe.removeprefix(SHA256) if file.probe.startswith(SHA256) else None
        self._digest = hashlib.sha256()

    def __del__(self) -> None:
        if getattr(self, "_reader", None):
            self._reader.close()  # type: ignore[union-attr]

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer where the file ends."""
        stop = min(stop, self._size)
        if start >= stop:
            return b""
        return (self._reader or self._content).read(start, stop)

    def begin(self, position: int) -> None:
        """Fetch ahead from ``position`` on."""
        if self._ahead is not None and self._reader is None:
            ahead, ranges = self._ahead, [(position, self._size)]
            self._reader = ReadAhead(self._content.read, ranges, ahead.chunk_bytes, ahead.chunks)
            self._released = position
            if position > 0:
                self._sha256 = None  # what is before was read by another run

    def release(self, position: int) -> None:
        """Nothing before ``position`` will be read again (or seldom: then it is fetched anew)."""
        if self._reader is not None and position > self._released:
            if self._sha256 is not None:
                self._digest.update(self.read(self._released, position))
            self._reader.release(self._released, position)
            self._released = position

    def finish(self) -> None:
        """All was read: compare the hash, where the store lists one and all of it was read."""
        if self._reader is None or self._sha256 is None:
            return
        self.release(self._size)
        if self._digest.hexdigest() != self._sha256:
            raise WrongContent(
                "the file that came is not the one that is listed",
                self._path,
                f"its SHA-256 is {self._digest.hexdigest()}, listed is {self._sha256}",
                "run the same command again: it begins anew, for what was made of that file is "
                "not kept",
            )
        if self._policy is not None:
            self._policy.count_verified()


class PlainStream:
    """An uncompressed file."""

    damage = None

    def __init__(self, file: InputFile, ahead: Ahead | None) -> None:
        self._bytes = StoredBytes(file, ahead)
        self._size = file.size
        self._is_remote = file.store.is_remote

    def begin(self, position: int) -> None:
        self._bytes.begin(position)

    def peek(self, start: int, stop: int) -> bytes:
        return self._bytes.read(start, stop)

    def release(self, position: int) -> None:
        self._bytes.release(position)

    def excerpt(self, start: int, stop: int) -> Excerpt:
        stop = min(stop, self._size)
        return Excerpt(start, stop, self.peek(start, stop) if self._is_remote else None)

    def disk_position(self, position: int) -> int:
        return position

    def finish(self) -> None:
        self._bytes.finish()


class Sequence(Protocol):
    """A text that can be read only once, from front to back."""

    position: int
    damage: Damage | None

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes of text; b"" at the end. Raises InputError."""


class Undamaged:
    """A text that comes as it is stored, so that its places are those of what is stored."""

    damage: Damage | None = None

    def __init__(self, source: ReadOnce) -> None:
        self._source = source
        self.position = 0

    def read(self, size: int) -> bytes:
        """The next bytes; b"" at the end. Raises InputError."""
        data = self._source.read(size)
        self.position += len(data)
        return data


class SequentialStream:
    """A compressed file or a pipe, read once, held from the last release on."""

    def __init__(self, source: Sequence, stored: StoredBytes | None) -> None:
        self._source = source
        self._stored = stored
        self._buffer = bytearray()
        self._origin = 0
        self._disk = 0
        self._ended = False

    def begin(self, position: int) -> None:
        if self._stored is not None:
            self._stored.begin(0)

    def peek(self, start: int, stop: int) -> bytes:
        while not self._ended and self._origin + len(self._buffer) < stop:
            text = self._source.read(READ_BYTES * 4)
            self._ended = not text
            self._buffer += text
        with memoryview(self._buffer) as held:  # a slice of the buffer would be one more copy
            return bytes(held[max(0, start - self._origin) : max(0, stop - self._origin)])

    def release(self, position: int) -> None:
        while position > self._origin:
            held = min(position - self._origin, len(self._buffer))
            del self._buffer[:held]
            self._origin += held
            if self._origin < position and not self.peek(self._origin, self._origin + 1):
                return

    def excerpt(self, start: int, stop: int) -> Excerpt:
        text = self.peek(start, stop)
        return Excerpt(start, start + len(text), text)

    def disk_position(self, position: int) -> int:
        # Where damage is near, the file is read a second time.
        self._disk = max(self._disk, self._source.position)
        return self._disk

    def finish(self) -> None:
        if self._stored is not None and self.damage is None:
            self._stored.finish()

    @property
    def damage(self) -> Damage | None:
        return self._source.damage


def open_stream(
    file: InputFile,
    keeps_damaged: bool = False,
    ahead: Ahead | None = None,
    room: WindowRoom | None = None,
) -> ByteStream:
    """The file's text, decompressed where it is compressed.

    With ``keeps_damaged`` the text of a damaged file ends where the damage begins. ``ahead`` is
    for a remote file that is going to be read through. A compressed file may take as much memory
    for its window as there is ``room``.
    """
    if not file.store.is_replayable:
        return SequentialStream(Undamaged(file.store.once(file)), None)
    if file.compression is None:
        return PlainStream(file, ahead)
    stored = StoredBytes(file, ahead)
    text = DecompressedFile(file.path, stored, file.compression, keeps_damaged, room)
    return SequentialStream(text, stored)


def read_head(file: InputFile, start: int, size: int) -> bytes:
    """At most ``size`` bytes of the file as stored, from ``start`` on."""
    return StoredBytes(file, None).read(start, start + size)


class Beginning:
    """How a file begins, and what it takes to decompress it: of a remote one in one request."""

    def __init__(self, file: InputFile, keeps_damaged: bool, room: WindowRoom) -> None:
        self._file = file
        self._stored = _FirstPiece(StoredBytes(file, None))
        self._text, self._ended = b"", False
        self._decompressed: DecompressedFile | None = None
        if file.compression is not None:
            self._decompressed = DecompressedFile(
                file.path, self._stored, file.compression, keeps_damaged, room
            )

    @property
    def needs(self) -> MemberNeeds:
        """As the header of the first member with data tells."""
        suffix = self._file.compression
        return MemberNeeds() if suffix is None else first_needs(self._stored, suffix)

    def read(self, size: int) -> tuple[bytes, bool]:
        """The first ``size`` bytes of text, and whether there are no more. Raises InputError."""
        if self._decompressed is None:
            return self._stored.plain(size), self._file.size <= size
        while len(self._text) <= size and not self._ended:
            more = self._decompressed.read(size + 1 - len(self._text))
            self._text, self._ended = self._text + more, not more
        is_whole = self._ended and self._decompressed.damage is None and len(self._text) <= size
        return self._text[:size], is_whole


class _FirstPiece:
    """Stored bytes of which the first are read once."""

    def __init__(self, stored: StoredBytes) -> None:
        self._stored = stored
        self._piece: bytes | None = None

    def plain(self, size: int) -> bytes:
        return self._stored.read(0, size)

    def read(self, start: int, stop: int) -> bytes:
        if stop > READ_BYTES:
            return self._stored.read(start, stop)
        if self._piece is None:
            self._piece = self._stored.read(0, READ_BYTES)
        return self._piece[start:stop]

    def release(self, position: int) -> None:
        """It is all held as long as it is looked at."""
