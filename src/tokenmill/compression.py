"""Compressed files read whole: every member, every frame, every check, or an error with a place.

gzip and bzip2 files may hold several members, zstd files several frames, xz files several
streams; all are read. A file that ends early, a wrong checksum and bytes after the end that are
not another member are errors: short data is never passed on as if it were all; or, where that was
asked for, the text ends there and the damage is told. Zero padding after
the last member is allowed where the command-line tools allow it (gzip, xz).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tokenmill.errors import InputError

READ_BYTES = 256 * 1024
_XZ_MEMORY = 128 * 1024 * 1024
"""As zstd's default window: enough for xz -9, and a bound on what a file may ask for."""


class Decompressor(Protocol):
    """One member's state, as ``bz2.BZ2Decompressor`` has it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip() -> Decompressor:
    from isal import igzip_lib

    decompressor: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decompressor


def _zstd() -> Decompressor:
    module: Any
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    decompressor: Decompressor = module.ZstdDecompressor()
    return decompressor


def _bz2() -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Decompressor:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


COMPRESSIONS: dict[str, Callable[[], Decompressor]] = {
    ".gz": _gzip,
    ".zst": _zstd,
    ".bz2": _bz2,
    ".xz": _xz,
}
_PADDED = (".gz", ".xz")


class Stored(Protocol):
    """A file's bytes as stored."""

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer where the file ends."""

    def release(self, position: int) -> None:
        """Nothing before ``position`` is likely to be read again."""


@dataclass(frozen=True)
class Damage:
    """What is wrong with a compressed file: ``offset`` is in bytes of the file on disk, and
    follows the last byte that gave text or ended a member; ``text_bytes`` came out before."""

    what: str
    why: str
    offset: int
    text_bytes: int


class DecompressedFile:
    """Sequential reading of one compressed file; ``position`` is the place in the file on disk.

    Damage is an error, or, with ``keeps_damaged``, the end of the text, told in ``damage``.
    """

    def __init__(self, path: str, stored: Stored, suffix: str, keeps_damaged: bool = False) -> None:
        self._path = path
        self._stored = stored
        self._suffix = suffix
        self._keeps_damaged = keeps_damaged
        self._new = COMPRESSIONS[suffix]
        self._byte_by_byte_from: int | None = None
        self._piece, self._piece_at = b"", 0
        self._begin()

    def _begin(self) -> None:
        self._member: Decompressor | None = None
        self._pending = b""
        self._members = 0
        self._text_bytes = self._gave_text_at = self._chunk_at = 0
        self.position = 0
        self.damage: Damage | None = None

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes of text; b"" at the end. Raises InputError on damage."""
        if self.damage:
            return b""
        try:
            text = self._read(size)
        except _Damaged as error:
            if not self._keeps_damaged:
                raise self._error(*error.args) from error
            if self._byte_by_byte_from is None:
                return self._come_closer(size)
            what, why = error.args
            self.damage = Damage(what, why, self._gave_text_at, self._text_bytes)
            return b""
        return self._given(text)

    def _given(self, text: bytes) -> bytes:
        self._text_bytes += len(text)
        if text:
            self._gave_text_at = self.position - len(self._pending)
        return text

    def _come_closer(self, size: int) -> bytes:
        """Read the file again, and from where the damage is near, byte by byte: a decompressor
        that fails does not hand over what it had decoded just before."""
        given, self._byte_by_byte_from = self._text_bytes, self._chunk_at
        self._begin()
        while self._text_bytes < given:
            self._given(self._read(min(size, given - self._text_bytes)))
        return self.read(size)

    def _read(self, size: int) -> bytes:
        while True:
            if self._member is None and not self._next_member():
                return b""
            assert self._member is not None
            data = self._feed(self._member)
            try:
                text = self._member.decompress(data, size)
            except Exception as error:
                raise _Damaged("the compressed data is corrupt", str(error)) from error
            if self._member.eof:
                self._pending = self._member.unused_data
                self._member = None
                self._gave_text_at = self.position - len(self._pending)
            if text:
                return text

    def _feed(self, member: Decompressor) -> bytes:
        if self._pending:
            data, self._pending = self._pending, b""
            return data
        if not member.needs_input:
            return b""
        data = self._read_file()
        if not data:
            raise _Damaged("the compressed file ends early", "its last member or frame has no end")
        return data

    def _next_member(self) -> bool:
        """Begin the next member; False at the end of the file."""
        if not self._pending:
            self._pending = self._read_file()
        if self._members and self._suffix in _PADDED:
            while self._pending and not self._pending.strip(b"\0"):
                self._pending = self._read_file()
            self._pending = self._pending.lstrip(b"\0")
        if not self._pending:
            if self._members == 0:
                raise _Damaged("the compressed file is empty", "even no text has a member")
            return False
        self._member = self._new()
        self._members += 1
        return True

    def _read_file(self) -> bytes:
        size, near = READ_BYTES, self._byte_by_byte_from
        if near is not None:
            size = min(size, near - self.position) if self.position < near else 1
        at = self.position - self._piece_at
        if not 0 <= at < len(self._piece):
            self._piece = self._stored.read(self.position, self.position + READ_BYTES)
            self._piece_at, at = self.position, 0
        data = self._piece[at : at + size]
        if data:
            self._chunk_at = self.position
        self.position += len(data)
        self._stored.release(self._chunk_at)
        return data

    def _error(self, what: str, why: str) -> InputError:
        return InputError(
            what,
            f"{self._path}, at or before byte {self.position - len(self._pending)} of the file",
            why,
            f"fetch or write {self._path.rpartition('/')[2]} again",
        )


class _Damaged(Exception):
    """What and why, before it is decided whether that is an error."""
