"""Parquet: one document a row, its text in one column; only that column is read.

Small row groups are blocks by themselves, read in parallel; a row group too large for that is
read through in sequence, a few rows at a time, so that memory does not depend on its size. Page
checksums are verified where the file has them. Null rows are counted, not encoded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenmill.batches import Counts, DocumentBatch
from tokenmill.errors import InputError, UsageError
from tokenmill.inputs import InputFile
from tokenmill.sources.block import (
    BLOCK_BYTES,
    Block,
    Sample,
    SourceOptions,
    State,
    record_too_large,
    texts_of,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LARGE_ROW_GROUP = 12 * 1024 * 1024
"""A row group whose text is larger than this is streamed instead of read by one thread."""
_BUFFER_BYTES = 1024 * 1024
_BATCH_BYTES = 512 * 1024
_MAX_BATCH_ROWS = 1024
_DICTIONARY_BATCH_ROWS = 64


@dataclass(kw_only=True)
class ParquetBlock(Block):
    """Row groups of a file, or rows of one that were read already (``arrays``)."""

    source: ParquetSource
    row_groups: list[int]
    first_row: int
    arrays: list[pa.Array] | None = None

    @property
    def where(self) -> str:
        return f"{self.source.file.path}, row {self.first_row}"

    @property
    def text_bytes(self) -> int:
        if self.arrays is not None:
            return sum(array.nbytes for array in self.arrays)
        return sum(self.source.text_bytes(group) for group in self.row_groups)

    def read(self) -> DocumentBatch:
        arrays, self.arrays = self.arrays, None
        if arrays is None:
            arrays = list(self.source.read_rows(self.row_groups, self.first_row))
        batch = DocumentBatch([], counts=Counts())
        row = self.first_row
        for array in arrays:
            batch.documents += self._documents(array, row)
            batch.counts.null_documents += array.null_count
            row += len(array)
        return batch

    def _documents(self, array: pa.Array, row: int) -> list[bytes]:
        """The rows of one array as bytes, nulls left out, checked to be UTF-8."""
        import numpy as np
        import pyarrow as pa

        rows = np.arange(row, row + len(array))
        if array.null_count:
            rows = rows[array.is_valid().to_numpy(zero_copy_only=False)]
            array = array.drop_null()
        documents = texts_of(array)
        try:
            array.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid:
            for place, document in zip(rows.tolist(), documents, strict=True):
                self._check(document, place)
        return documents

    def _check(self, document: bytes, row: int) -> None:
        try:
            document.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"invalid UTF-8: byte 0x{document[error.start]:02x} at {error.start} of the text",
                f"{self.source.file.path}, row {row}",
                error.reason,
                "write the file again with its text as UTF-8",
            ) from None


class ParquetSource:
    """A parquet file as blocks of whole rows."""

    def __init__(self, file: InputFile, options: SourceOptions) -> None:
        self.file = file
        self.column = options.text_key
        self._options = options
        self._threads = threading.local()
        try:
            self._metadata = self._open(None).metadata
        except InputError:
            raise
        except Exception as error:
            raise self._damage("cannot read the parquet file's footer", error) from error
        self._column_index = self._find_column()

    def _open(self, metadata: Any) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        # Row groups are not fetched ahead and pages pass through a small buffer: that is what
        # keeps a giant row group at tens of megabytes (dataset readers hold whole groups).
        return pq.ParquetFile(
            str(self.file.path),
            metadata=metadata,
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
            page_checksum_verification=True,
        )

    def _find_column(self) -> int:
        schema = self._metadata.schema.to_arrow_schema()
        names = schema.names
        if self.column not in names:
            raise UsageError(
                f"there is no column {self.column!r}",
                str(self.file.path),
                f"the columns are {', '.join(map(repr, names[:20]))}",
                "name the text's column with --text-key",
            )
        kind = schema.field(self.column).type
        if not _is_text(kind):
            raise UsageError(
                f"the column {self.column!r} holds {kind}, not text",
                str(self.file.path),
                None,
                "name a string or binary column with --text-key",
            )
        paths = [self._metadata.schema.column(i).path for i in range(self._metadata.num_columns)]
        return paths.index(self.column)

    def _thread_file(self) -> pq.ParquetFile:
        """This thread's own handle; the footer is parsed once."""
        if not hasattr(self._threads, "file"):
            self._threads.file = self._open(self._metadata)
        handle: pq.ParquetFile = self._threads.file
        return handle

    def read_rows(self, row_groups: list[int], first_row: int) -> Iterator[pa.Array]:
        """The text column of the row groups, a few rows at a time."""
        import pyarrow as pa

        text_bytes = sum(self.text_bytes(group) for group in row_groups)
        rows = sum(self._metadata.row_group(group).num_rows for group in row_groups)
        if rows == 0:
            return
        batch_rows = max(1, min(_MAX_BATCH_ROWS, rows * _BATCH_BYTES // max(1, text_bytes)))
        if any(self._is_dictionary(group) for group in row_groups):
            batch_rows = min(batch_rows, _DICTIONARY_BATCH_ROWS)
        row = first_row
        try:
            for batch in self._thread_file().iter_batches(
                batch_rows, row_groups, [self.column], use_threads=False
            ):
                array = batch.column(0)
                if pa.types.is_dictionary(array.type):
                    array = array.dictionary_decode()
                self._check_size(array, row)
                yield array
                row += len(array)
        except (pa.ArrowException, OSError) as error:
            raise self._damage(f"cannot read the rows from row {row} on", error) from error

    def _check_size(self, array: pa.Array, row: int) -> None:
        if array.nbytes > self._options.record_bytes:
            noun = f"a cell, or {len(array)} neighbouring ones together,"
            raise record_too_large(self.file, f"from row {row} on", array.nbytes, noun)

    def text_bytes(self, group: int) -> int:
        """Bytes of a row group's text, as the footer tells."""
        column = self._metadata.row_group(group).column(self._column_index)
        return int(column.total_uncompressed_size)

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        state = state or {"group": 0, "row": 0, "skip": 0}
        start, row, skip = state["group"], state["row"], state["skip"]
        groups: list[int] = []
        held = 0
        for group in range(start, self._metadata.num_row_groups):
            size, rows = self.text_bytes(group), self._metadata.row_group(group).num_rows
            is_streamed = size > LARGE_ROW_GROUP or self._is_dictionary(group)
            if groups and (is_streamed or held + size > BLOCK_BYTES):
                yield self._whole_groups(groups, row)
                groups, held = [], 0
            if is_streamed:
                yield from self._stream(group, row, skip)
            else:
                groups.append(group)
                held += size
            row, skip = row + rows, 0
        if groups:
            yield self._whole_groups(groups, row)

    def _whole_groups(self, groups: list[int], next_row: int) -> ParquetBlock:
        """Row groups that follow one another, up to row ``next_row``, as one block."""
        rows = sum(self._metadata.row_group(group).num_rows for group in groups)
        following = groups[-1] + 1
        return ParquetBlock(
            source=self,
            row_groups=groups,
            first_row=next_row - rows,
            size=self._place(following) - self._place(groups[0]),
            after={"group": following, "row": next_row, "skip": 0},
        )

    def _is_dictionary(self, group: int) -> bool:
        """Is the text stored as places in a dictionary, so that its size tells nothing of it?"""
        row_group = self._metadata.row_group(group)
        column = row_group.column(self._column_index)
        small = bool(self.text_bytes(group) <= 2 * BLOCK_BYTES + 4 * row_group.num_rows)
        return bool(column.has_dictionary_page) and small and row_group.num_rows > 1024

    def _place(self, group: int) -> int:
        """Bytes of the file up to row group ``group``, as far as progress needs to know."""
        return int(self.file.size * group // max(1, self._metadata.num_row_groups))

    def _stream(self, group: int, first_row: int, skip: int) -> Iterator[Block]:
        """A large row group, decoded in sequence into blocks of about BLOCK_BYTES; its first
        ``skip`` rows are decoded only to come to the others."""
        arrays: list[pa.Array] = []
        done, held_rows, held_bytes = 0, 0, 0
        for array in self.read_rows([group], first_row):
            if done < skip:
                done += len(array)
                continue
            arrays.append(array)
            held_rows += len(array)
            held_bytes += array.nbytes
            if held_bytes >= BLOCK_BYTES:
                yield self._part_of_group(group, first_row, done, arrays)
                done += held_rows
                arrays, held_rows, held_bytes = [], 0, 0
        if arrays:
            yield self._part_of_group(group, first_row, done, arrays)

    def _part_of_group(
        self, group: int, first_row: int, done: int, arrays: list[pa.Array]
    ) -> ParquetBlock:
        """The rows of ``arrays``, which follow the first ``done`` rows of a group."""
        total, rows = self._metadata.row_group(group).num_rows, sum(map(len, arrays))
        after = {"group": group, "row": first_row, "skip": done + rows}
        if done + rows == total:
            after = {"group": group + 1, "row": first_row + total, "skip": 0}
        return ParquetBlock(
            source=self,
            row_groups=[group],
            first_row=first_row + done,
            size=(self._place(group + 1) - self._place(group)) * rows // max(1, total),
            after=after,
            arrays=arrays,
        )

    def _damage(self, what: str, error: Exception) -> InputError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return InputError(what, str(self.file.path), reason, "fetch or write the file again")

    def sample(self, position: float, size: int) -> Sample:
        groups = self._metadata.num_row_groups
        if groups == 0:
            return Sample([], 0)
        group = min(groups - 1, int(position * groups))
        documents: list[bytes] = []
        rows = 0
        for array in self.read_rows([group], 0):
            documents += texts_of(array.drop_null())
            rows += len(array)
            if sum(map(len, documents)) >= size:
                break
        share = rows / max(1, self._metadata.num_rows)
        return Sample(documents, self.file.size * share)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_string_view,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)
