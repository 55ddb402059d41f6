"""What can be known of the inputs before the first token: each file's footer, header, first line.

A run that would end with an error in its fortieth file ends before it began, with all such files
named; and what files need of memory while they are read (footers, windows of decompressors) is
known before it is needed. Footers are looked at one at a time, of remote files a few at a time;
nothing of them is kept but numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from tokenmill.compression import too_large
from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.places import InputFile
from tokenmill.places.standard_input import Pipe
from tokenmill.readahead import in_background, result_by
from tokenmill.sources.block import BLOCK_BYTES, SourceOptions, opened
from tokenmill.sources.jsonl import JsonlSource
from tokenmill.sources.parquet import ParquetSource, page_too_large
from tokenmill.textstream import window_needs

_AT_ONCE = 8
_SHOWN = 5


@dataclass(frozen=True)
class Head:
    """What one file needs while it is read, in bytes, or why it cannot be; ``page`` is what it
    needs for a moment, while no other file needs the like: for a page of parquet."""

    file: InputFile
    needs: int = 0
    fault: TokenmillError | None = None
    page: int = 0


def heads_of(
    files: list[InputFile], options: SourceOptions, deadline: float | None = None
) -> list[Head]:
    """The heads of all files, in their order. Raises what is no fault of a file: of the network;
    and LimitReached at ``deadline``, of the monotonic clock."""
    return list(_looked_at(files, partial(_head_of, options=options), deadline))


def refuse_unusable(heads: list[Head], quarantines: bool) -> None:
    """Raise UsageError for all files that cannot be read, or InputError where the first of them is
    damaged or cannot be had: each is counted, the first few are named.

    Those that are going to be left out are none, unless no file would be left: then it is not the
    files that are at fault but what is looked for in them."""
    faults = [head.fault for head in heads if head.fault is not None]
    if not faults or (quarantines and len(faults) < len(heads)):
        return
    if len(faults) == 1:
        raise faults[0]
    shown = [f"{fault.where}: {fault.what}" for fault in faults[:_SHOWN]]
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    first = faults[0].fix or "correct them"
    kind = InputError if isinstance(faults[0], InputError) else UsageError
    raise kind(
        f"{len(faults)} of {len(heads)} input files cannot be read as they are",
        "; ".join(shown) + more,
        faults[0].why,
        f"{first}; or leave them out, each as a record: --on-bad quarantine",
    )


def needs_at_once(heads: list[Head], window: int, most: int) -> int:
    """The memory that files take at the same time where ``window`` blocks are in flight, in bytes.

    A file's footer is held until its last block was read; meanwhile the next files are opened. A
    file, or a page, that needs more than ``most`` is not counted: it is refused or left out.
    """
    held: deque[tuple[int, int]] = deque()  # blocks at least, needs
    blocks = total = largest = 0
    for head in heads:
        if head.needs > most:
            continue
        held.append((max(1, head.file.size // BLOCK_BYTES), head.needs))
        blocks, total = blocks + held[-1][0], total + head.needs
        # The first and the last of them may be held for one block each.
        while len(held) > 2 and blocks - held[0][0] - held[-1][0] >= window:
            gone_blocks, gone = held.popleft()
            blocks, total = blocks - gone_blocks, total - gone
        largest = max(largest, total)
    return largest + max((head.page for head in heads if head.page <= most), default=0)


def _looked_at(
    files: Iterable[InputFile], look: Callable[[InputFile], Head], deadline: float | None
) -> Iterator[Head]:
    waiting: deque[Future[Head] | Head] = deque()

    def first() -> Head:
        head = waiting.popleft()
        return result_by(head, deadline) if isinstance(head, Future) else head

    for file in files:
        remote = file.place.is_remote
        waiting.append(in_background(partial(look, file)) if remote else look(file))
        if len(waiting) >= _AT_ONCE or not remote:
            yield first()
    while waiting:
        yield first()


def _head_of(file: InputFile, options: SourceOptions) -> Head:
    if isinstance(file.place, Pipe):
        return Head(file)
    try:
        if file.kind == "parquet":
            source = ParquetSource(file, options)
            needs, page, most = source.footer_needs, source.page_needs(), options.reader_bytes
            if page > most and not options.quarantines:
                raise page_too_large(file, page, most, options.budget_bytes + page - most)
            return Head(file, needs, source.fault, page)
        need = window_needs(file)
        if file.compression and need.memory > options.reader_bytes:
            room = replace(options.room, threads=0)  # it is taken into account from now on
            error = too_large(file.compression, need.memory, room)
            return Head(file, need.memory, UsageError(error.what, file.path, error.why, error.fix))
        if file.kind == "jsonl" and not options.quarantines:
            JsonlSource(file, options).check_first_line()
        elif file.compression:
            opened(file, options).peek(0, 1)
        return Head(file, need.memory)
    except (InputError, UsageError) as error:
        return Head(file, fault=error)
