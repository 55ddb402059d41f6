"""The pages of a parquet column, by their headers: what Arrow is going to hold, before it does.

A footer tells the size of a row group's column, not of its pages, and it may be wrong; Arrow
allocates what the header before each page says. The headers are read here too, a few hundred bytes
a page, so that a page that memory cannot hold is an error in words, and so that no more rows are
asked for at once than memory can hold even if each were the largest that its page allows.

Format: parquet.thrift, struct PageHeader, in Thrift's compact protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tokenmill.memory import SMALL_PAGE

Read = Callable[[int, int], bytes]
"""Bytes of the file from a place to another, fewer where it ends."""

_HEADER = 256
"""Longer than nearly all headers: of two sizes, a checksum and a few counts."""
_LARGEST_HEADER = 16 * 1024 * 1024
"""Arrow's own limit."""
_DEEPEST = 16
_TRUE, _FALSE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_FIXED = {_TRUE: 1, _FALSE: 1, 3: 1, 7: 8, 13: 16}
"""Bytes of a value: of a truth value only in a list, of a byte, a double, a UUID."""
_DICTIONARY_PAGE = 2
_BY_DICTIONARY = (2, 8)
_DELTAS = (5, 6, 7)
_BY_THE_VALUE_BEFORE = 7
_LENGTH = 4
"""Bytes before each text of a dictionary."""
UNCOMPRESSED = "UNCOMPRESSED"
_CODECS = {"LZ4": "lz4_raw"}
_DELTA_FACTOR = 12
"""Bytes that Arrow keeps for each value of a delta encoding: lengths, and shared beginnings."""

Struct = dict[int, "int | Struct"]


@dataclass(frozen=True)
class Page:
    """A page: its ``rows`` (of a dictionary none), and the bytes that it ``takes`` while it is
    read. ``largest`` bytes are the most text of all its rows together, or, where it
    ``is_shared``, of each of them: a row may be what stands in the dictionary, or most of the row
    before; of a dictionary, of its longest text, as far as that is known."""

    rows: int
    takes: int
    largest: int
    is_shared: bool


def pages_of(read: Read, start: int, stop: int, codec: str) -> Iterator[Page]:
    """The pages between two places in a file, as far as their headers make sense: where one does
    not, Arrow has better words for it. ``codec`` is the name of the column's compression."""
    is_compressed = codec != UNCOMPRESSED
    dictionary = entry = 0
    while start < stop:
        found = _page_head(read, start, stop)
        if found is None:
            return
        header, length = found
        start += length
        stored = min(_number(header, 3), stop - start)
        size = _number(header, 2) if is_compressed else stored
        # Measured with release 26 of pyarrow: the content, as much room for what is made of it,
        # the stored bytes while they are decompressed, and the dictionary.
        takes = dictionary + 2 * size + (stored if is_compressed else 0)
        if _number(header, 1) == _DICTIONARY_PAGE:
            dictionary = max(dictionary, size)
            largest = size
            if takes <= SMALL_PAGE:
                largest = _largest_entry(read(start, start + stored), size, codec)
            entry = max(entry, largest)
            yield Page(0, takes, largest, False)
        else:
            data = header.get(5) or header.get(8)
            data = data if isinstance(data, dict) else {}
            rows, encoding = _number(data, 1), _number(data, 2 if 5 in header else 4)
            takes += _DELTA_FACTOR * rows if encoding in _DELTAS else 0
            by_dictionary = encoding in _BY_DICTIONARY
            is_shared = by_dictionary or encoding == _BY_THE_VALUE_BEFORE
            yield Page(rows, takes, entry if by_dictionary else size, is_shared)
        start += stored


def _largest_entry(stored: bytes, size: int, codec: str) -> int:
    """The bytes of the longest text in a dictionary, no more than ``size``, which is that of all
    of them. All were taken for the longest once: of 50,000 short texts, as a writer puts them into
    a dictionary by default, rows were read one by one."""
    import pyarrow as pa

    content = memoryview(stored)
    if codec != UNCOMPRESSED:
        try:
            name = _CODECS.get(codec, codec.lower())
            content = memoryview(pa.Codec(name).decompress(stored, decompressed_size=size))
        except (pa.ArrowException, OSError, ValueError):
            return size  # Arrow may know more, or says what is wrong
    at = largest = 0
    while at + _LENGTH <= len(content):
        length = int.from_bytes(content[at : at + _LENGTH], "little")
        largest = max(largest, length)
        at += _LENGTH + length
    return largest if at == len(content) else size


class PageTooLarge(Exception):
    """A page that memory cannot hold: it ``takes`` so many bytes."""

    def __init__(self, takes: int) -> None:
        super().__init__(takes)
        self.takes = takes


class Steps:
    """How many rows may be read at a time of the pages of row groups that follow one another:
    ``most_text`` bytes of text together, and no page that takes more than ``most_page``."""

    def __init__(self, pages: Iterator[Page], most_text: int, most_page: int) -> None:
        self._pages = pages
        self._most_text = most_text
        self._most_page = most_page
        self._waiting: deque[tuple[int, Page]] = deque()
        self.takes = 0
        """What the pages of the rows that are read next take, the largest of them."""

    def next(self, wanted: int) -> int:
        """Between 1 and ``wanted`` rows, from the first on that was not ``taken``: together no
        more than may be, unless it is one row, or rows of one page that holds them as they are.
        Raises PageTooLarge where the first of them is in such a page."""
        rows = size = self.takes = 0
        for left, page in self._from_here():
            if page.takes > self._most_page:
                if rows:
                    return rows
                raise PageTooLarge(page.takes)
            self.takes = max(self.takes, page.takes)
            if page.is_shared:
                fit = max(0, self._most_text - size) // max(1, page.largest)
                if fit < min(left, wanted - rows):
                    return max(1, rows + fit)
                size += left * page.largest
            elif page.rows:
                size += page.largest
                if rows and size > self._most_text:
                    return rows
            rows += left
            if rows >= wanted:
                break
        return wanted  # where the pages end early, Arrow has to say so

    def taken(self, rows: int) -> None:
        """So many rows were read."""
        while self._waiting and self._waiting[0][0] <= rows:
            rows -= self._waiting.popleft()[0]
        if self._waiting:
            left, page = self._waiting.popleft()
            self._waiting.appendleft((left - rows, page))

    def _from_here(self) -> Iterator[tuple[int, Page]]:
        """The pages from the first with rows that were not taken, each with those rows."""
        yield from list(self._waiting)
        for page in self._pages:
            self._waiting.append((page.rows, page))
            yield self._waiting[-1]


def _page_head(read: Read, start: int, stop: int) -> tuple[Struct, int] | None:
    """The page header at ``start`` and its length; None where there is none that makes sense."""
    size = _HEADER
    while True:
        values = _Values(read(start, min(stop, start + size)))
        try:
            return _struct(values, 0), values.at
        except _TooDeep:
            return None
        except IndexError:
            if size >= min(stop - start, _LARGEST_HEADER):
                return None
        size *= 8


class _TooDeep(Exception):
    """No header is nested like that."""


def _number(struct: Struct, field: int) -> int:
    value = struct.get(field, 0)
    return max(0, value) if isinstance(value, int) else 0


class _Values:
    """Values of Thrift's compact protocol, one after the other. Its methods raise IndexError where
    the data ends, and _TooDeep for what is in no header and no footer."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def fields(self, depth: int) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; its value, unless it is one of the two truth
        values, is read before the next is asked for."""
        if depth > _DEEPEST:
            raise _TooDeep
        field = 0
        while head := self.data[self.at]:
            self.at += 1
            field = field + (head >> 4) if head >> 4 else self.integer()
            yield field, head & 15
        self.at += 1

    def items(self) -> tuple[int, int]:
        """Length and type of a list that begins here."""
        head = self.data[self.at]
        self.at += 1
        return self.varint() if head >> 4 == 15 else head >> 4, head & 15

    def integer(self) -> int:
        """A number in Thrift's zigzag."""
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def varint(self) -> int:
        """A number in bytes of seven bits."""
        value = shift = 0
        while shift < 70:
            byte = self.data[self.at]
            value |= (byte & 0x7F) << shift
            shift, self.at = shift + 7, self.at + 1
            if byte < 0x80:
                return value
        raise _TooDeep

    def skip(self, kind: int, depth: int) -> None:
        """Pass over a value that does not matter."""
        if kind == _BINARY:
            size = self.varint()
            self.at += size
        elif kind in _FIXED:
            self.at += _FIXED[kind]
        elif kind in _INTEGERS:
            self.varint()
        elif kind == _STRUCT:
            _struct(self, depth + 1)
        elif kind in (_LIST, _SET):
            size, inner = self.items()
            for _ in range(size):
                self.skip(inner, depth)
        else:
            raise _TooDeep  # a map, or no type at all
        if self.at > len(self.data):
            raise IndexError


def _struct(values: _Values, depth: int) -> Struct:
    """A struct's numbers and structs."""
    found: Struct = {}
    for field, kind in values.fields(depth):
        if kind in _INTEGERS:
            found[field] = values.integer()
        elif kind == _STRUCT:
            found[field] = _struct(values, depth + 1)
        elif kind not in (_TRUE, _FALSE):
            values.skip(kind, depth)
    return found


class NoFooter(Exception):
    """Bytes that are no footer: it ends early, or is nested as none is."""


def footer_elements(footer: bytes) -> int:
    """How many columns, row groups and the like a footer lists, each of which Arrow makes an object
    of some hundred bytes of, though three bytes of the footer can do for one. Raises NoFooter."""
    try:
        return _elements(_Values(footer), 0, 0)
    except (IndexError, _TooDeep):
        raise NoFooter from None


def _elements(values: _Values, lists: int, depth: int) -> int:
    """Those in the struct that begins here, which is inside of so many lists."""
    found = 0
    for _, kind in values.fields(depth):
        if kind == _STRUCT:
            found += _elements(values, lists, depth + 1)
        elif kind == _LIST and values.data[values.at] & 15 == _STRUCT:
            size, _ = values.items()
            found += size if lists < 2 else 0
            for _ in range(size):
                found += _elements(values, lists + 1, depth + 1)
        elif kind not in (_TRUE, _FALSE):
            values.skip(kind, depth)
    return found
