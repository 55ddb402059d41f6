"""The files of a run, one after the other; remote ones are opened before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from tokenmill.batches import State
from tokenmill.sources import open_source
from tokenmill.sources.source import Source, SourceOptions
from tokenmill.stores import InputFile
from tokenmill.stores.readahead import in_background

_MOST_OPENED = 8


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
