"""Parquet: one document a row, its text in one column; only that column is read.

Small row groups are blocks by themselves, read in parallel; a row group too large for that is
read through in sequence, a few rows at a time, so that memory does not depend on its size. Page
checksums are verified where the file has them. Null rows are counted, not encoded.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenmill.batches import (
    CORRUPT_PARQUET,
    INVALID_UTF8,
    NO_TEXT,
    RAW_BYTES,
    SPECIAL_TEXT,
    TOO_LARGE,
    BadRecord,
    DocumentBatch,
    State,
)
from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.kinds.content import HEAD_BYTES
from tokenmill.memory import PAGE_SHARE, SMALL_PAGE, SMALL_READER
from tokenmill.sources.bad_records import BadBlock, bad_record, record_too_large
from tokenmill.sources.block import Block, Tails, resumed
from tokenmill.sources.columns import find_column, find_leaf, leaf_count
from tokenmill.sources.pages import (
    NoFooter,
    Page,
    PageTooLarge,
    Steps,
    footer_elements,
    pages_of,
)
from tokenmill.sources.source import Look, Sample, Source, SourceOptions
from tokenmill.sources.stream import read_head
from tokenmill.stores import InputFile
from tokenmill.stores.range_file import RangeFile
from tokenmill.stores.readahead import Range, ReadAhead, cost
from tokenmill.text import utf8
from tokenmill.units import format_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BUFFER_BYTES = 1024 * 1024
_LOOKED_AT = 4
_PIECE_BYTES = 1024
"""What a piece of a few short rows takes, at least: 50,000 of four rows took 35 MB."""
TOLD = "token_count"
"""FineWeb's column of how many GPT-2 tokens a row has."""
_TOLD_COST = 1.02
_TAIL = 8
_REMOTE_TAIL = 64 * 1024
"""As Arrow does: most footers are shorter, and cost one request."""
_SMALL_BYTES = 4096
"""Of a remote file, which begins with a mark and ends with all that tells of it, the beginning is
looked at only where the file is so small that it is hardly parquet."""
_FOOTER_FACTOR = 14
"""Memory for each byte of a footer. Measured with release 26 of pyarrow: 1,050 row groups of 9
columns 8.4, 20,000 of 2 columns 9.2, 5,001 columns 13.2, one key of 40 MB 4.6."""

_ELEMENT = 1500
"""Memory for each thing that a footer lists, a column above all. Measured: a million columns of
three bytes 688 MB when opened, 1,500 in a run that opens the file again for its sample; a list of a
million without one 767 MB."""


@dataclass(kw_only=True)
class ParquetBlock(Block):
    """Row groups of a file, or rows that were read already (``pieces``); ``ended`` are the groups
    that end with this block, ``told_bytes`` is how much text the footer tells, ``told`` what its
    rows tell of their tokens, where that was read already, too."""

    path: str
    row_groups: list[int]
    ended: list[int]
    first_row: int
    told_bytes: int
    pieces: list[Piece] | None = None
    told: tuple[int, int] | None = None

    @property
    def where(self) -> str:
        return f"{self.path}, row {self.first_row}"

    @property
    def text_bytes(self) -> int:
        if self.pieces is not None:
            return sum(piece.array.nbytes for piece in self.pieces if not piece.bad)
        return self.told_bytes


def _let_go(pieces: list[Piece]) -> Iterator[Piece]:
    """Each of them once: what was copied is not held any longer."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()


def _fault(document: bytes, refused: bytes | None) -> tuple[str, str, str | None] | None:
    """What is wrong with a cell: reason, what, why."""
    try:
        document.decode()
    except UnicodeDecodeError as error:
        byte, at = document[error.start], error.start
        what = f"invalid UTF-8: byte 0x{byte:02x} at {at} of the text"
        return INVALID_UTF8, what, error.reason
    if refused and refused in document:
        return SPECIAL_TEXT, f"the text contains {refused.decode()}", None
    return None


@dataclass(frozen=True)
class Piece:
    """``rows`` neighbouring rows from ``row`` on: their column, or the record of their loss. A
    block may end where ``ends_batch`` says so, whatever memory there is."""

    row: int
    rows: int
    array: Any
    bad: BadRecord | None = None
    ends_batch: bool = True

    def after(self, rows: int) -> Piece:
        """It without its first ``rows`` rows."""
        rest = self.array if self.bad else self.array.slice(rows)
        return replace(self, row=self.row + rows, rows=self.rows - rows, array=rest)


class ParquetSource(Source):
    """A parquet file as blocks of whole rows."""

    def __init__(self, file: InputFile, options: SourceOptions) -> None:
        self.file = file
        self.options = options
        self._sizes = options.sizes
        self._threads = threading.local()
        if file.store.is_remote and not options.fetches:
            return  # it reads what is handed over, and knows no footer
        self._content = None if file.store.has_paths else file.store.open(file)
        self._ahead: ReadAhead | None = None
        self._lost: BadRecord | None = None
        self.fault: UsageError | None = None
        """Why there is no text in a file that is whole, where that is left out."""
        self._told_index: int | None = None
        self._tail, self._tail_at = b"", file.size
        if self._is_too_large() or self._lost:
            return
        try:
            self._metadata = self._open(None).metadata
            self._schema = self._metadata.schema.to_arrow_schema()
        except TokenmillError:
            raise  # of the network, which says it better
        except Exception as error:  # noqa: BLE001  Arrow raises many kinds
            self._leave_out(error)
            return
        try:
            self._column = find_column(self._schema, self.options.text_key, self.file.path)
        except UsageError as error:
            if not options.quarantines:
                raise
            self.fault = error
            self._lose(NO_TEXT, f"{error.what}{f' ({error.why})' if error.why else ''}")
            return
        if contradiction := self._contradiction():
            self._leave_out(ValueError(contradiction))

    def _is_too_large(self) -> bool:
        """Is the footer one that memory cannot hold? Raises UsageError, unless bad records are
        kept."""
        most = self.options.reader_bytes
        need = footer_needs(self._content_tail(), self.file.size)
        self._footer_bytes = need // _FOOTER_FACTOR
        if need <= most and self._footer_bytes * _ELEMENT // 3 > SMALL_READER:
            need = max(need, self._element_needs(most))
        self.footer_needs = need
        if need <= most:
            return False
        error = footer_too_large(self.file, need, most, self.options.budget_bytes)
        if not self.options.quarantines:
            raise error
        self._lose(TOO_LARGE, f"{error.what}: {error.why}")
        return True

    def _element_needs(self, most: int) -> int:
        """The memory for all that a footer lists, which may be much more than usual: it is counted
        where it may be a large part of ``most``."""
        stop = self.file.size - _TAIL
        start = stop - self._footer_bytes
        if self._content is None:
            footer = self.file.store.open(self.file).read(start, stop)
        else:
            if start < self._tail_at:
                self._tail = self._content.read(start, self.file.size)
                self._tail_at = start
            footer = self._tail[start - self._tail_at : stop - self._tail_at]
        # Each takes three bytes or more, and ends with a zero.
        likely = min(footer.count(0), len(footer) // 3) * _ELEMENT
        if likely <= most // 8:
            return likely
        try:
            return footer_elements(footer) * _ELEMENT
        except NoFooter as error:
            self._leave_out(ValueError("it is no footer of parquet"), error)
            return 0

    def _content_tail(self) -> bytes:
        """The end of the file; of a remote one, as much as is worth a request, for Arrow reads on
        from there."""
        size = self.file.size
        if self._content is None:
            return self.file.store.open(self.file).read(max(0, size - _TAIL), size) if size else b""
        self._tail_at = max(0, size - _REMOTE_TAIL)
        fetch = partial(self._content.read, self._tail_at, size)
        tails = self.options.tails or Tails(0)
        self._tail = tails.of(self.file.path, fetch) if size else b""
        return self._tail[-_TAIL:]

    def _leave_out(self, error: Exception, cause: Exception | None = None) -> None:
        """The footer cannot be used, and so nothing of the file can. Raises InputError, unless bad
        records are kept."""
        what = "cannot read the parquet file's footer"
        if not self._is_content(error):
            raise self._damage(what, error) from cause or error
        self._lose(CORRUPT_PARQUET, f"{what}: {_first_line(error)}")

    def _lose(self, reason: str, detail: str) -> None:
        """Nothing of the file is read: it becomes one record."""
        self._lost = bad_record(
            self.file,
            reason,
            f"{detail}; the whole file is left out",
            read_head(self.file, 0, RAW_BYTES),
            offset=0,
            length=self.file.size,
        )

    def _contradiction(self) -> str | None:
        """What the footer says that cannot be. It has no checksum, and Arrow believes it: of a row
        group with fewer rows than values, the last ones would be lost without a word."""
        total = sum(leaf_count(field.type) for field in self._schema)
        if total != self._metadata.num_columns:
            return f"its schema has {total} columns, and {self._metadata.num_columns} are stored"
        total = 0
        for group in range(self._metadata.num_row_groups):
            row_group = self._metadata.row_group(group)
            values = row_group.column(self._column.leaf).num_values
            if values != row_group.num_rows:
                return f"row group {group} has {row_group.num_rows} rows and {values} values"
            total += row_group.num_rows
        rows = self._metadata.num_rows
        return None if total == rows else f"the row groups have {total} rows, the file {rows}"

    def _is_content(self, error: Exception) -> bool:
        """Is that the fault of what the file holds, which may be left out?

        Not when the system cannot read it (Arrow passes its error number on), nor when the file
        is not the one that the plan saw.
        """
        if not self.options.quarantines or getattr(error, "errno", None) is not None:
            return False
        self.file.store.check_unchanged(self.file)
        return True

    def _open(self, metadata: Any) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        # Row groups are not fetched ahead and pages pass through a small buffer: that is what
        # keeps a giant row group at tens of megabytes (dataset readers hold whole groups).
        return pq.ParquetFile(
            self.file.path if self._content is None else RangeFile(self._read, self.file.size),
            metadata=metadata,
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
            page_checksum_verification=True,
            # Arrow makes room for all that a list says it has before it reads the first of them.
            thrift_container_size_limit=min(10**6, max(1000, self._footer_bytes // 4)),
        )

    def _read(self, start: int, stop: int) -> bytes:
        """Bytes of a remote file: the column's own were asked for before, each is read once."""
        assert self._content is not None
        if self._tail and start >= self._tail_at:
            return self._tail[start - self._tail_at : stop - self._tail_at]
        if self._ahead is None:
            kept = self._kept(start, stop)
            return kept if len(kept) == stop - start else self._content.read(start, stop)
        data = self._ahead.read(start, stop)
        self._ahead.release(start, stop)
        self._keep(start, data)
        return data

    def _keep(self, start: int, data: bytes) -> None:
        """The headers of the next pages may be in what Arrow has read last."""
        kept = data[-_BUFFER_BYTES:]
        self._threads.kept = start + len(data) - len(kept), kept

    def _kept(self, start: int, stop: int) -> bytes:
        at, data = getattr(self._threads, "kept", (0, b""))
        return data[start - at : stop - at] if at <= start else b""

    def _look(self, start: int, stop: int, end: int) -> bytes:
        """Bytes of a remote file's column, which ends at ``end``, before Arrow reads them."""
        assert self._content is not None
        data = self._kept(start, stop)
        start += len(data)
        if start >= stop:
            return data
        if self._ahead is not None:
            return data + self._ahead.read(start, stop)
        # As much as Arrow is going to ask for, so that it makes no request more.
        self._keep(start, self._content.read(start, max(stop, min(end, start + _BUFFER_BYTES))))
        return data + self._kept(start, stop)

    def _pages(self, groups: list[int]) -> Iterator[Page]:
        """The pages of the text in row groups, by their headers."""
        content = self.file.store.open(self.file) if self._content is None else None
        for group in groups:
            start, stop = self._range(group)
            stop = min(stop, self.file.size)
            column = self._metadata.row_group(group).column(self._column.leaf)
            read = partial(self._look, end=stop) if content is None else content.read
            if start >= 0:
                yield from pages_of(read, start, stop, column.compression)

    @classmethod
    def look(cls, file: InputFile, options: SourceOptions) -> Look:
        text = None
        if file.size and not (file.store.is_remote and file.size > _SMALL_BYTES):
            text = read_head(file, 0, HEAD_BYTES)
        is_whole = file.size <= HEAD_BYTES
        try:
            source = cls(file, options)
            page, most = source.page_needs(), options.reader_bytes
            if page > most and not options.quarantines:
                raise page_too_large(file, page, most, options.budget_bytes + page - most)
        except (InputError, UsageError) as error:
            return Look(fault=error, text=text, is_whole=is_whole)
        return Look(source.footer_needs, page, source.fault, text, is_whole)

    def page_needs(self) -> int:
        """The memory that the largest page takes, as far as a few pages of the largest row groups
        tell: a writer who makes large pages makes them all alike. Of a remote file nothing is
        looked at: each place in it costs a request. What is not seen here is seen when it is
        read."""
        if self._lost or self._content is not None:
            return 0
        groups = range(self._metadata.num_row_groups)
        largest = 0
        for group in heapq.nlargest(_LOOKED_AT, groups, self.text_bytes):
            is_large = self.text_bytes(group) > self._sizes.large_row_group
            if not is_large and not self._is_dictionary(group):
                continue
            for page in itertools.islice(self._pages([group]), _LOOKED_AT):
                rows_of_all = 0 if page.rows else self._sizes.dictionary_rows * page.largest
                largest = max(largest, page.takes + rows_of_all)
        return largest if largest > SMALL_PAGE else 0

    def fetch(self, state: State | None) -> None:
        ahead = self.options.ahead
        if self._content is None or self._lost or ahead is None or self._ahead is not None:
            return
        if not self.file.store.is_remote:
            return
        first = resumed(state, {"group": 0, "row": 0, "skip": 0})["group"]
        self._told_index = self._find_told()
        ranges = self._ranges(first, self._told_index)
        if all(before[1] <= after[0] for before, after in itertools.pairwise(ranges)):
            self._ahead = ReadAhead(self._content.read, ranges, ahead.chunk_bytes, ahead.chunks)

    def _ranges(self, first: int, told: int | None) -> list[Range]:
        """Where in the file that lies which will be read of the groups from ``first`` on."""
        ranges = []
        for group in range(first, self._metadata.num_row_groups):
            ranges.append(self._range(group))
            if told is not None:
                ranges.append(self._range(group, told))
        return sorted(ranges)

    def _find_told(self) -> int | None:
        """The column that tells how many tokens there are, where it costs next to nothing."""
        import pyarrow as pa

        schema, names = self._schema, self._schema.names
        if not self.options.asks_told or names.count(TOLD) != 1:
            return None
        if not pa.types.is_integer(schema.field(TOLD).type):
            return None
        told = find_leaf(schema, TOLD)
        # With the same pieces whatever memory there is, for the manifest tells the result.
        requests, size = cost(self._ranges(0, None), 8 * self._sizes.block)
        more_requests, more = cost(self._ranges(0, told), 8 * self._sizes.block)
        is_cheap = more_requests <= requests * _TOLD_COST + 1 and more <= size * _TOLD_COST
        return told if is_cheap else None

    def _told(self, groups: list[int]) -> tuple[int, int]:
        """Tokens that some row groups say they have, and the rows that say it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._told_index is None or not groups:
            return 0, 0
        try:
            reader = self._thread_file().reader
            table = reader.read_row_groups(groups, [self._told_index], use_threads=False)
            column = table.column(0)
        except (pa.ArrowException, OSError):
            return 0, 0  # it is no text: then there is nothing to compare with
        finally:
            if self._ahead is not None:
                for group in groups:
                    self._ahead.release(*self._range(group, self._told_index))
        return pc.sum(column, min_count=0).as_py(), len(column) - column.null_count

    def _range(self, group: int, index: int | None = None) -> Range:
        """Where the text, or another column, of a row group lies in the file."""
        index = self._column.leaf if index is None else index
        column = self._metadata.row_group(group).column(index)
        start = column.data_page_offset
        if column.has_dictionary_page and column.dictionary_page_offset:
            start = min(start, column.dictionary_page_offset)
        return start, start + column.total_compressed_size

    def _thread_file(self) -> pq.ParquetFile:
        """This thread's own handle; the footer is parsed once."""
        if not hasattr(self._threads, "file"):
            self._threads.file = self._open(self._metadata)
        handle: pq.ParquetFile = self._threads.file
        return handle

    def read_groups(self, groups: list[int], first_row: int) -> Iterator[Piece]:
        """The text column of row groups that follow one another, a few rows at a time.

        Where bad records are kept, each group is read by itself, so that what cannot be read of
        one takes nothing from its neighbours.
        """
        if not self.options.quarantines:
            yield from self._read_rows(groups, first_row)
            return
        row = first_row
        for group in groups:
            yield from self._read_what_can_be_read(group, row)
            row += self._metadata.row_group(group).num_rows

    def _read_what_can_be_read(self, group: int, first_row: int) -> Iterator[Piece]:
        row, end = first_row, first_row + self._metadata.row_group(group).num_rows
        try:
            for piece in self._read_rows([group], first_row):
                yield from self._without_large_cells(piece)
                row += piece.rows
        except _UnreadableRows as error:
            if not self._is_content(error.cause):
                raise
            yield Piece(row, end - row, None, self._lost_rows(group, row, end, error))

    def _without_large_cells(self, piece: Piece) -> Iterator[Piece]:
        """The rows, less cells that memory cannot hold, or less all when together they are."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        limit = self.options.record_bytes
        if piece.array.nbytes <= limit:
            yield piece
            return
        array = piece.array.cast(pa.large_binary())

        def part(low: int, high: int) -> Piece:
            # A copy, for a slice would keep the large cells in memory.
            return Piece(piece.row + low, high - low, array.take(pa.array(np.arange(low, high))))

        sizes = pc.fill_null(pc.binary_length(array), 0).to_pylist()
        start, rest = 0, sum(size for size in sizes if size <= limit)
        for index, size in enumerate(sizes):
            if size > limit or rest > limit:
                if index > start:
                    yield part(start, index)
                yield Piece(piece.row + index, 1, None, self._too_large(array, index, piece.row))
                start = index + 1
        if len(sizes) > start:
            yield part(start, len(sizes))

    def _too_large(self, array: pa.Array, index: int, first_row: int) -> BadRecord:
        """The record of a cell, which is looked at in Arrow's own memory."""
        value = array[index].as_buffer()
        size = value.size if value is not None else 0
        return bad_record(
            self.file,
            TOO_LARGE,
            f"a cell of {size} bytes is, or with its neighbours would be, too large for the "
            "memory budget",
            value.slice(0, min(size, RAW_BYTES)).to_pybytes() if value is not None else b"",
            row=first_row + index,
            length=size,
        )

    def _lost_rows(self, group: int, row: int, end: int, error: _UnreadableRows) -> BadRecord:
        start, stop = self._range(group)
        size = stop - start
        detail = (
            f"rows {row} to {end - 1} ({end - row} rows) of row group {group} cannot be read: "
            f"{error.why}; the column's bytes are {start} to {stop} of the file"
        )
        return bad_record(
            self.file,
            error.reason,
            detail,
            read_head(self.file, start, min(size, RAW_BYTES)),
            offset=start,
            row=row,
            length=size,
        )

    def _read_rows(self, row_groups: list[int], first_row: int) -> Iterator[Piece]:
        import pyarrow as pa

        text_bytes = sum(self.text_bytes(group) for group in row_groups)
        rows = sum(self._metadata.row_group(group).num_rows for group in row_groups)
        if rows == 0:
            return
        sizes = self._sizes
        batch_rows = max(1, min(sizes.batch_rows, rows * sizes.batch // max(1, text_bytes)))
        if any(self._is_dictionary(group) for group in row_groups):
            # Each row may be the largest entry, which is no larger than all of them together.
            certain = sizes.dictionary_batch // max(1, text_bytes)
            batch_rows = min(batch_rows, max(sizes.dictionary_batch_rows, certain))
        row = first_row
        steps = self._steps(row_groups, text_bytes)
        reader = self._thread_file().reader
        try:
            # By its number: by name, Arrow takes all that have it, and what is inside of them.
            batches = reader.iter_batches(
                self._next(steps, batch_rows), row_groups, [self._column.leaf], use_threads=False
            )
            for batch in batches:
                array = batch.column(0)
                for _ in range(self._column.depth):
                    (array,) = array.flatten()  # a struct that is null has null inside
                if pa.types.is_dictionary(array.type):
                    array = array.dictionary_decode()
                if not self.options.quarantines:
                    self._check_size(array, row)
                done = row + len(array) - first_row
                yield Piece(row, len(array), array, None, done % batch_rows == 0 or done == rows)
                row += len(array)
                steps.taken(len(array))
                if done < rows:
                    reader.set_batch_size(self._next(steps, batch_rows - done % batch_rows))
            if row != first_row + rows:
                raise pa.ArrowInvalid(f"there are {row - first_row} rows, {rows} were announced")
        except (pa.ArrowException, OSError) as error:
            what = f"cannot read the rows from row {row} on"
            raise _UnreadableRows.of(self._damage(what, error), error) from error
        except PageTooLarge as error:
            raise _UnreadableRows.of(self._page_error(error, row), error, TOO_LARGE) from error
        finally:
            self.options.in_hand.tell(steps, 0)
            if self._ahead is not None:
                for group in row_groups:
                    self._ahead.release(*self._range(group))

    def _next(self, steps: Steps, wanted: int) -> int:
        rows = steps.next(wanted)
        self.options.in_hand.tell(steps, steps.takes if steps.takes > SMALL_PAGE else 0)
        return rows

    def _steps(self, row_groups: list[int], text_bytes: int) -> Steps:
        """How many rows to ask for at once. Several threads may read small row groups at a time,
        whose pages are small too, unless the footer is wrong."""
        options = self.options
        most = options.page_bytes
        if text_bytes <= self._sizes.large_row_group:
            most = min(most, max(SMALL_PAGE, options.record_bytes))
        return Steps(
            self._pages(row_groups), max(self._sizes.block // 2, options.record_bytes // 4), most
        )

    def _page_error(self, error: PageTooLarge, row: int) -> InputError:
        """For a page that was not seen before the run began."""
        most, total = self.options.page_bytes, self.options.budget_bytes
        more = PAGE_SHARE * max(0, error.takes - most)
        found = page_too_large(self.file, error.takes, most, total + more)
        return InputError(found.what, f"{found.where}, from row {row} on", found.why, found.fix)

    def _whole_rows(self, groups: list[int], first_row: int) -> Iterator[Piece]:
        """All rows of small row groups; no more text than memory can hold, where a dictionary, or
        a footer that is wrong, makes much of little."""
        most = 2 * self._sizes.large_row_group + self.options.record_bytes
        end = first_row + sum(self._metadata.row_group(group).num_rows for group in groups)
        held = 0
        for piece in self.read_groups(groups, first_row):
            if not piece.bad:
                held += max(0, piece.array.nbytes - 4 * piece.array.null_count)
            if held <= most:
                yield piece
                continue
            noun = f"the text of rows {first_row} to {end - 1}, more than the footer tells,"
            error = record_too_large(self.file, f"row {piece.row}", held, noun)
            if not self.options.quarantines:
                raise error
            detail = f"{error.what}: rows {piece.row} to {end - 1} are left out"
            bad = bad_record(self.file, TOO_LARGE, detail, b"", row=piece.row, length=held)
            yield Piece(piece.row, end - piece.row, None, bad)
            return

    def _check_size(self, array: pa.Array, row: int) -> None:
        if array.nbytes > self.options.record_bytes:
            noun = f"a cell, or {len(array)} neighbouring ones together,"
            raise record_too_large(self.file, f"from row {row} on", array.nbytes, noun)

    def text_bytes(self, group: int) -> int:
        """Bytes of a row group's text, as the footer tells."""
        column = self._metadata.row_group(group).column(self._column.leaf)
        return int(column.total_uncompressed_size)

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        state = resumed(state, {"group": 0, "row": 0, "skip": 0})
        if self._lost:
            if not state.get("ended"):
                after = {"group": 0, "row": 0, "skip": 0, "ended": True}
                yield BadBlock(size=self.file.size, after=after, record=self._lost)
            return
        self.fetch(state)
        start, row, skip = state["group"], state["row"], state["skip"]
        groups: list[int] = []
        held = 0
        for group in range(start, self._metadata.num_row_groups):
            size, rows = self.text_bytes(group), self._metadata.row_group(group).num_rows
            is_streamed = size > self._sizes.large_row_group or self._is_dictionary(group)
            if groups and (is_streamed or held + size > self._sizes.block):
                yield self._handed_over(self._whole_groups(groups, row))
                groups, held = [], 0
            if is_streamed:
                yield from self._stream(group, row, skip)
            else:
                groups.append(group)
                held += size
            row, skip = row + rows, 0
        if groups:
            yield self._handed_over(self._whole_groups(groups, row))

    def read(self, block: Block) -> DocumentBatch:
        if isinstance(block, BadBlock):
            return block.batch
        assert isinstance(block, ParquetBlock)
        pieces: Iterable[Piece] | None
        pieces, block.pieces = block.pieces and _let_go(block.pieces), None
        if pieces is None:
            pieces = self._whole_rows(block.row_groups, block.first_row)
        batch = DocumentBatch([])
        for piece in pieces:
            if piece.bad:
                batch.bad.append(piece.bad)
            else:
                self._add(piece.array, piece.row, batch)
                batch.counts.null_documents += piece.array.null_count
        told = self._told(block.ended) if block.told is None else block.told
        batch.counts.told_tokens, batch.counts.told_rows = told
        return batch

    def _add(self, array: pa.Array, row: int, batch: DocumentBatch) -> None:
        """The rows of one array as bytes, nulls left out, checked to be UTF-8."""
        import numpy as np
        import pyarrow as pa

        options = self.options
        rows = np.arange(row, row + len(array))
        if array.null_count:
            rows = rows[array.is_valid().to_numpy(zero_copy_only=False)]
            array = array.drop_null()
        documents = texts_of(array)
        refused = options.refused_when_kept
        try:
            array.cast(pa.large_binary()).cast(pa.large_string())
            is_clean = not (refused and any(refused in document for document in documents))
        except pa.ArrowInvalid:
            is_clean = False
        if is_clean:
            batch.documents += documents
            return
        for place, document in zip(rows.tolist(), documents, strict=True):
            if options.replaces:
                document, count = utf8.replace(document)
                batch.counts.replaced += count
            fault = _fault(document, refused)
            if fault is None:
                batch.documents.append(document)
            elif options.quarantines:
                reason, what, _ = fault
                batch.bad.append(bad_record(self.file, reason, what, document, row=place))
            else:
                raise self._bad_cell(fault, place)

    def _bad_cell(self, fault: tuple[str, str, str | None], row: int) -> InputError:
        _, what, why = fault
        return InputError(
            what,
            f"{self.file.path}, row {row}",
            why,
            "write the file again with its text as UTF-8, or go on without that row: "
            "--on-bad quarantine",
        )

    def _handed_over(self, block: ParquetBlock) -> ParquetBlock:
        """A block with its rows, where another process reads it, and they are in the network."""
        if self.options.hands_over and self.file.store.is_remote:
            if block.pieces is None:
                block.pieces = list(self._whole_rows(block.row_groups, block.first_row))
            block.told = self._told(block.ended)
        return block

    def _whole_groups(self, groups: list[int], next_row: int) -> ParquetBlock:
        """Row groups that follow one another, up to row ``next_row``, as one block."""
        rows = sum(self._metadata.row_group(group).num_rows for group in groups)
        following = groups[-1] + 1
        return ParquetBlock(
            path=self.file.path,
            row_groups=groups,
            told_bytes=sum(map(self.text_bytes, groups)),
            ended=groups,
            first_row=next_row - rows,
            size=self._place(following) - self._place(groups[0]),
            after={"group": following, "row": next_row, "skip": 0},
        )

    def _is_dictionary(self, group: int) -> bool:
        """Is the text stored as places in a dictionary, so that its size tells nothing of it?"""
        row_group = self._metadata.row_group(group)
        column = row_group.column(self._column.leaf)
        small = bool(self.text_bytes(group) <= 2 * self._sizes.block + 4 * row_group.num_rows)
        return bool(column.has_dictionary_page) and small and row_group.num_rows > 1024

    def _place(self, group: int) -> int:
        """Bytes of the file up to row group ``group``, as far as progress needs to know."""
        return int(self.file.size * group // max(1, self._metadata.num_row_groups))

    def _stream(self, group: int, first_row: int, skip: int) -> Iterator[Block]:
        """A large row group, decoded in sequence into blocks of the usual size; its first
        ``skip`` rows are decoded only to come to the others."""
        pieces: list[Piece] = []
        done, held_rows, held_bytes = 0, 0, 0
        # Sooner than a batch ends only where its text would be a burden to a small budget.
        block, batch = self._sizes.block, self._sizes.batch
        most = max(block, self.options.record_bytes // 4)
        for piece in self.read_groups([group], first_row):
            if done + piece.rows <= skip:
                done += piece.rows
                continue
            if done < skip:  # with other memory, other pieces
                piece, done = piece.after(skip - done), skip
            size = 0 if piece.bad else max(_PIECE_BYTES, piece.array.nbytes)
            if pieces and held_bytes + size > most + batch:
                yield self._handed_over(self._part_of_group(group, first_row, done, pieces))
                done += held_rows
                pieces, held_rows, held_bytes = [], 0, 0
            pieces.append(piece)
            held_rows += piece.rows
            held_bytes += size
            if held_bytes >= block and (piece.ends_batch or held_bytes >= most):
                yield self._handed_over(self._part_of_group(group, first_row, done, pieces))
                done += held_rows
                pieces, held_rows, held_bytes = [], 0, 0
        if pieces:
            yield self._handed_over(self._part_of_group(group, first_row, done, pieces))

    def _part_of_group(
        self, group: int, first_row: int, done: int, pieces: list[Piece]
    ) -> ParquetBlock:
        """The rows of ``pieces``, which follow the first ``done`` rows of a group."""
        total, rows = self._metadata.row_group(group).num_rows, sum(piece.rows for piece in pieces)
        after = {"group": group, "row": first_row, "skip": done + rows}
        if done + rows == total:
            after = {"group": group + 1, "row": first_row + total, "skip": 0}
        return ParquetBlock(
            path=self.file.path,
            row_groups=[group],
            told_bytes=0,
            ended=[group] if done + rows == total else [],
            first_row=first_row + done,
            size=(self._place(group + 1) - self._place(group)) * rows // max(1, total),
            after=after,
            pieces=pieces,
        )

    def _damage(self, what: str, error: Exception) -> InputError:
        where = self.file.path
        return InputError(what, where, _first_line(error), "fetch or write the file again")

    def sample(self, position: float, size: int) -> Sample:
        groups = 0 if self._lost else self._metadata.num_row_groups
        if groups == 0:
            return Sample([], 0, 0, 0)
        group = min(groups - 1, int(position * groups))
        documents: list[bytes] = []
        rows, held = 0, 0
        for piece in self.read_groups([group], 0):
            if not piece.bad:
                texts = [utf8.replace(text)[0] for text in texts_of(piece.array.drop_null())]
                documents += texts
                held += sum(map(len, texts))
            rows += piece.rows
            if held >= size:
                break
        size, share = held, rows / max(1, self._metadata.num_rows)
        # The footer tells the size of all texts, which a few rows of ever different lengths do
        # not; but of texts that are repeated, and in the dictionary once, the rows tell more.
        told = sum(map(self.text_bytes, range(groups)))
        of_told = size / max(1, told)
        disk_bytes = self.file.size * (share if of_told > 2 * share else of_told)
        return Sample(documents, disk_bytes, len(documents), self.file.size * share)


def footer_needs(tail: bytes, size: int) -> int:
    """The memory that it takes to hold a file's footer, in bytes, by the last bytes of the file;
    0 where they are none of parquet's."""
    if len(tail) < _TAIL or tail[-4:] not in (b"PAR1", b"PARE"):
        return 0
    length = int.from_bytes(tail[-8:-4], "little")
    return length * _FOOTER_FACTOR if length < size else 0


def footer_too_large(file: InputFile, need: int, memory: int, total: int) -> UsageError:
    """The error for a footer that the memory budget cannot hold."""
    return UsageError(
        f"the parquet file's footer takes about {format_bytes(need)} of memory",
        file.path,
        f"{format_bytes(memory)} are left for that in this run",
        f"--memory {-(-(total + need - memory) // 10**6)}MB, or fewer --workers; or write the file "
        "again with fewer, larger row groups and less metadata",
    )


def page_too_large(file: InputFile, takes: int, memory: int, total: int) -> UsageError:
    """The error for a page that takes more than the ``memory`` there is for it, which a budget of
    ``total`` would have."""
    return UsageError(
        f"a page of the parquet file takes about {format_bytes(takes)} of memory",
        file.path,
        f"{format_bytes(memory)} are left for that in this run",
        f"--memory {-(-total // 10**6)}MB, or fewer --workers; or write the file again with "
        "smaller pages",
    )


class _UnreadableRows(InputError):
    """Rows that cannot be read; ``cause`` is Arrow's or the system's own error, ``reason`` that
    of their record."""

    cause: Exception
    reason: str

    @classmethod
    def of(
        cls, error: InputError, cause: Exception, reason: str = CORRUPT_PARQUET
    ) -> _UnreadableRows:
        found = cls(error.what, error.where, error.why, error.fix)
        found.cause, found.reason = cause, reason
        return found


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def texts_of(array: Any) -> list[bytes]:
    """The values of an Arrow string or binary array without nulls, each as bytes of its own."""
    import numpy as np
    import pyarrow as pa

    array = array.cast(pa.large_binary())
    if len(array) == 0:
        return []
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8).tolist()
    text = memoryview(data) if data else memoryview(b"")
    return [bytes(text[low:high]) for low, high in itertools.pairwise(ends)]
