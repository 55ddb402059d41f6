"""How bytes divide into records: one file a kind of input.

A source turns a file into *blocks*: pieces that can be encoded alone and give the same ids
wherever they are encoded. ``blocks()`` walks through the file once, cheaply and in order; a
block's ``read()`` does the heavy part and is called from any thread. Blocks follow from the input
alone, never from the number of threads or the memory.

To add a source: one file here, one line in ``SOURCES``, a suffix in ``kinds.kind.KINDS``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from tokenmill.sources.block import Source, SourceOptions, State
from tokenmill.sources.jsonl import JsonlSource
from tokenmill.sources.parquet import ParquetSource
from tokenmill.sources.text import TextSource
from tokenmill.stores import InputFile
from tokenmill.stores.readahead import in_background

SOURCES: dict[str, Callable[[InputFile, SourceOptions], Source]] = {
    "text": TextSource,
    "jsonl": JsonlSource,
    "parquet": ParquetSource,
}


_MOST_OPENED = 8


def open_source(file: InputFile, options: SourceOptions) -> Source:
    """The source for one input file. Raises InputError when it is not what its name says."""
    return SOURCES[file.kind](file, options)


def opened_ahead(
    files: Iterable[tuple[InputFile, State | None]], options: SourceOptions
) -> Iterator[tuple[Source, State | None]]:
    """The sources of files, in order, each with the state to go on from.

    To open a remote file takes several round trips: while one is read, the next ones are opened
    and begin to fetch.
    """
    opening: deque[tuple[InputFile, State | None, Future[Source] | None]] = deque()
    rest = iter(files)
    window = options.ahead.chunk_bytes * options.ahead.chunks if options.ahead else 1
    while True:
        while len(opening) <= _MOST_OPENED and _ahead(opening, window) < window:
            file, state = next(rest, (None, None))
            if file is None:
                break
            future = None
            if file.place.is_remote:
                future = in_background(partial(_opened, file, state, options))
            opening.append((file, state, future))
        if not opening:
            return
        file, state, future = opening.popleft()
        yield (open_source(file, options) if future is None else future.result()), state


def _ahead(opening: Iterable[tuple[InputFile, Any, Any]], window: int) -> int:
    """How many bytes files may have fetched ahead, at most."""
    return sum(min(file.size, window) for file, _, _ in opening)


def _opened(file: InputFile, state: State | None, options: SourceOptions) -> Source:
    source = open_source(file, options)
    source.fetch(state)
    return source
