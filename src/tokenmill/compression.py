"""Compressed files read whole: every member, every frame, every check, or an error with a place.

gzip and bzip2 files may hold several members, zstd files several frames, xz files several
streams; all are read. A file that ends early, a wrong checksum and bytes after the end that are
not another member are errors: short data is never passed on as if it were all. Zero padding after
the last member is allowed where the command-line tools allow it (gzip, xz).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from tokenmill.errors import InputError, unreadable

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


class DecompressedFile:
    """Sequential reading of one compressed file; ``position`` is the place in the file on disk."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._path = path
        self._suffix = suffix
        self._file: IO[bytes] = path.open("rb", buffering=0)
        self._new = COMPRESSIONS[suffix]
        self._member: Decompressor | None = None
        self._pending = b""
        self._members = 0
        self.position = 0

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes of text; b"" at the end. Raises InputError on damage."""
        while True:
            if self._member is None and not self._next_member():
                return b""
            assert self._member is not None
            data = self._feed(self._member)
            try:
                text = self._member.decompress(data, size)
            except Exception as error:
                raise self._damage("the compressed data is corrupt", str(error)) from error
            if self._member.eof:
                self._pending = self._member.unused_data
                self._member = None
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
            raise self._damage(
                "the compressed file ends early", "its last member or frame has no end"
            )
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
                raise self._damage("the compressed file is empty", "even no text has a member")
            return False
        self._member = self._new()
        self._members += 1
        return True

    def _read_file(self) -> bytes:
        try:
            data = self._file.read(READ_BYTES)
        except OSError as error:
            raise unreadable(f"{self._path}, byte {self.position}", error) from error
        self.position += len(data)
        return data

    def _damage(self, what: str, why: str) -> InputError:
        return InputError(
            what,
            f"{self._path}, at or before byte {self.position - len(self._pending)} of the file",
            why,
            f"fetch or write {self._path.name} again",
        )

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
