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
from tokenmill.units import format_bytes

READ_BYTES = 256 * 1024
WINDOW_BYTES = 128 * 1024 * 1024
"""What a file may ask for unless told otherwise: as zstd's own default, and enough for xz -9."""
_ZSTD_LARGEST = 31
_PARENT = 48 * 1024 * 1024
"""Of the budget, for the process that watches the one that works; measured: 16 to 30 MB."""


class Decompressor(Protocol):
    """One member's state, as ``bz2.BZ2Decompressor`` has it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip(memory: int) -> Decompressor:
    from isal import igzip_lib

    decompressor: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decompressor


def _zstd(memory: int) -> Decompressor:
    module: Any
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    # Of any window: what takes more than ``memory`` was refused by its header.
    options = {module.DecompressionParameter.window_log_max: _ZSTD_LARGEST}
    decompressor: Decompressor = module.ZstdDecompressor(options=options)
    return decompressor


def _bz2(memory: int) -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _xz(memory: int) -> Decompressor:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)


COMPRESSIONS: dict[str, Callable[[int], Decompressor]] = {
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
class WindowRoom:
    """The bytes of ``memory`` that a member may take, which are what the ``budget`` leaves with so
    many ``threads`` (0: for the member, threads are done without)."""

    memory: int = WINDOW_BYTES
    budget: int = 0
    threads: int = 0

    def advice(self, need: int) -> str:
        """The options under which there is room for ``need`` bytes."""
        more = need - self.memory
        if not self.budget:
            return f"at least {-(-more // 10**6)}MB more memory"
        if not self.threads:
            return f"--memory {-(-(self.budget + more) // 10**6)}MB"
        # More threads, which a larger budget takes by itself, leave less, and so does a parent.
        need = self.budget + more + _PARENT
        return f"--memory {-(-need // 10**6)}MB --workers {self.threads}"


@dataclass(frozen=True)
class Damage:
    """What is wrong with a compressed file: ``offset`` is in bytes of the file on disk, and
    follows the last byte that gave text or ended a member; ``text_bytes`` came out before.
    ``needs`` is the memory that it would take to read on, where only that is lacking, else 0, and
    ``fix`` the options that give it."""

    what: str
    why: str
    offset: int
    text_bytes: int
    needs: int = 0
    fix: str | None = None


class DecompressedFile:
    """Sequential reading of one compressed file; ``position`` is the place in the file on disk.

    Damage is an error, or, with ``keeps_damaged``, the end of the text, told in ``damage``. A
    member that takes more memory than there is ``room`` is no damage, but it ends the text in the
    same way.
    """

    def __init__(
        self,
        path: str,
        stored: Stored,
        suffix: str,
        keeps_damaged: bool = False,
        room: WindowRoom | None = None,
    ) -> None:
        self._path = path
        self._stored = stored
        self._suffix = suffix
        self._keeps_damaged = keeps_damaged
        self._new = COMPRESSIONS[suffix]
        self._room = room or WindowRoom()
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
        except Damaged as error:
            if not self._keeps_damaged:
                raise self._error(error) from error
            if self._byte_by_byte_from is None and not error.needs:
                return self._come_closer(size)
            at, given = self._gave_text_at, self._text_bytes
            fix = error.fix if error.needs else None
            self.damage = Damage(error.what, error.why, at, given, error.needs, fix)
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
                if type(error).__name__ == "LZMAError" and "limit" in str(error):
                    raise too_large(self._suffix, 2 * self._room.memory, self._room) from error
                raise Damaged("the compressed data is corrupt", str(error)) from error
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
            raise Damaged("the compressed file ends early", "its last member or frame has no end")
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
                raise Damaged("the compressed file is empty", "even no text has a member")
            return False
        self._check_member()
        self._member = self._new(self._room.memory)
        self._members += 1
        return True

    def _check_member(self) -> None:
        """Is there memory for the member that begins with what is pending?"""
        while len(self._pending) < HEADER_BYTES[self._suffix]:
            more = self._read_file()
            if not more:
                break
            self._pending += more
        need = member_needs(self._pending, self._suffix)
        if need.dictionary:
            raise Damaged(
                f"it was compressed with a dictionary (number {need.dictionary})",
                "without that dictionary nobody can read it",
                f"decompress it first: zstd -d -D DICTIONARY {self._path.rpartition('/')[2]}",
            )
        if need.memory > self._room.memory:
            raise too_large(self._suffix, need.memory, self._room)

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

    def _error(self, error: Damaged) -> InputError:
        name = self._path.rpartition("/")[2]
        fix = error.fix or f"fetch or write {name} again"
        where = f"{self._path}, at or before byte {self.position - len(self._pending)} of the file"
        return InputError(error.what, where, error.why, fix)


class Damaged(Exception):
    """What and why, before it is decided whether that is an error; ``needs`` as in Damage."""

    def __init__(self, what: str, why: str, fix: str | None = None, needs: int = 0) -> None:
        super().__init__(what, why, fix, needs)
        self.what = what
        self.why = why
        self.fix = fix
        self.needs = needs


def too_large(suffix: str, need: int, room: WindowRoom) -> Damaged:
    """For a member that takes ``need`` bytes of memory where there is less room."""
    return Damaged(
        f"to decompress it takes {format_bytes(need)} of memory",
        f"its {'dictionary' if suffix == '.xz' else 'window'} is so large, and "
        f"{format_bytes(room.memory)} are left for that in this run",
        room.advice(need),
        need,
    )


@dataclass(frozen=True)
class MemberNeeds:
    """What it takes to read a member of a compressed file: bytes of ``memory``, and the number of
    a zstd ``dictionary`` (0: none). ``skipped`` is the whole length of one that holds no data."""

    memory: int = 0
    dictionary: int = 0
    skipped: int = 0


HEADER_BYTES = {".gz": 0, ".bz2": 0, ".zst": 18, ".xz": 12 + 1024}
"""Of a member's beginning, as much as tells what it needs."""
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPED = range(0x184D2A50, 0x184D2A60)
_XZ_MAGIC = b"\xfd7zXZ\0"
_XZ_LZMA2 = 0x21
_ZSTD_BESIDE = 1024 * 1024
_XZ_BESIDE = 1024 * 1024
"""Beside window or dictionary; measured: 0.4 MB (zstd) and 0.1 MB (xz)."""


def member_needs(head: bytes, suffix: str) -> MemberNeeds:
    """What the header of a member tells; nothing where it is none: its decompressor says why.

    Formats: RFC 8878, section 3.1.1.1; The .xz File Format 1.2, sections 2.1.1, 3.1 and 5.3.1.
    """
    if suffix == ".zst":
        return _zstd_needs(head)
    if suffix == ".xz" and head.startswith(_XZ_MAGIC):
        return MemberNeeds(_xz_dictionary(head[12:]))
    return MemberNeeds()


def _zstd_needs(head: bytes) -> MemberNeeds:
    magic = int.from_bytes(head[:4], "little")
    if magic in _ZSTD_SKIPPED and len(head) >= 8:
        return MemberNeeds(skipped=8 + int.from_bytes(head[4:8], "little"))
    if magic != _ZSTD_MAGIC or len(head) < 6:
        return MemberNeeds()
    descriptor, at, window = head[4], 5, 0
    is_single = bool(descriptor & 0x20)
    if not is_single:
        exponent, mantissa = head[5] >> 3, head[5] & 7
        window = (1 << (10 + exponent)) * (8 + mantissa) // 8
        at += 1
    id_bytes = (0, 1, 2, 4)[descriptor & 3]
    dictionary = int.from_bytes(head[at : at + id_bytes], "little")
    at += id_bytes
    size_bytes = (int(is_single), 2, 4, 8)[descriptor >> 6]
    if size_bytes:
        size = int.from_bytes(head[at : at + size_bytes], "little")
        size += 256 if size_bytes == 2 else 0
        window = size if is_single else min(window, size)  # more than the text is never held
    return MemberNeeds(window + _ZSTD_BESIDE, dictionary)


def _xz_dictionary(block: bytes) -> int:
    """The memory that the first block of a stream needs, by its header."""
    if not block or not block[0]:
        return 0  # a stream without blocks
    flags, at = block[1] if len(block) > 1 else 0, 2
    for is_there in (flags & 0x40, flags & 0x80):
        if is_there:
            _, at = _xz_number(block, at)
    for _ in range((flags & 3) + 1):
        kind, at = _xz_number(block, at)
        size, at = _xz_number(block, at)
        if kind == _XZ_LZMA2 and size == 1 and at < len(block):
            bits = min(40, block[at] & 0x3F)
            largest = 2**32 - 1 if bits == 40 else (2 | (bits & 1)) << (bits // 2 + 11)
            return largest + _XZ_BESIDE
        at += size
    return 0


def _xz_number(data: bytes, at: int) -> tuple[int, int]:
    """A number of several bytes, and where the next one begins."""
    value = shift = 0
    while at < len(data) and shift < 63:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            break
    return value, at


def first_needs(stored: Stored, suffix: str) -> MemberNeeds:
    """What the first member with data in it needs, those without skipped (a few of them)."""
    at = 0
    for _ in range(_MOST_SKIPPED):
        need = member_needs(stored.read(at, at + HEADER_BYTES[suffix]), suffix)
        if not need.skipped:
            return need
        at += need.skipped
    return MemberNeeds()


_MOST_SKIPPED = 8
