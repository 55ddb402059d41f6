"""The files of a run, one after the other; remote ones are opened before they are needed.

A ``Corpus`` is the blocks of all of them and what reads a block. Where it made the block itself,
the source that did reads it: a file is held open, and its footer in memory, until its last block
was read. Where the block comes from elsewhere, it opens the file for itself.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokenmill.batches import START, DocumentBatch, Position, State
from tokenmill.sources import open_source
from tokenmill.sources.block import Block
from tokenmill.sources.source import Source, SourceOptions
from tokenmill.stores import InputFile
from tokenmill.stores.readahead import in_background

_MOST_OPENED = 8
_MOST_KEPT = 2
"""Of the files that were opened only to read blocks from elsewhere: these come in order, nearly."""


@dataclass
class Opened:
    """A file's source; how many of its blocks are not yet read; are there none to come?"""

    source: Source
    unread: int = 0
    is_walked: bool = False


class Corpus:
    """All blocks of all files, in order, and their documents."""

    def __init__(self, files: Sequence[InputFile], options: SourceOptions) -> None:
        self._files = files
        self._options = options
        self._lock = threading.Lock()
        self.opened: dict[int, Opened] = {}
        """By number, the files of which blocks are to come, or to be read."""
        self._visited: dict[int, Source] = {}

    def blocks(self, start: Position = START) -> Iterator[Block]:
        """The blocks from ``start`` on; by one thread."""
        files = self._files[start.file :]
        states = [start.state, *[None] * len(files)]
        sources = opened_ahead(zip(files, states, strict=False), self._options)
        for number, (source, state) in enumerate(sources, start.file):
            opened = self.opened[number] = Opened(source)
            for block in source.blocks(state):
                block.file_number = number
                with self._lock:
                    opened.unread += 1
                yield block
            with self._lock:
                opened.is_walked = True
                self._forget(number)

    def read(self, block: Block) -> DocumentBatch:
        """The documents of a block, once; by any thread. Raises InputError."""
        number = block.file_number
        try:
            return self._source(number).read(block)
        finally:
            with self._lock:
                if number in self.opened:
                    self.opened[number].unread -= 1
                    self._forget(number)

    def _forget(self, number: int) -> None:
        opened = self.opened[number]
        if opened.is_walked and not opened.unread:
            del self.opened[number]

    def _source(self, number: int) -> Source:
        with self._lock:
            if number in self.opened:
                return self.opened[number].source
            source = self._visited.pop(number, None)
            if source is None:
                source = open_source(self._files[number], self._options)
            self._visited[number] = source
            while len(self._visited) > _MOST_KEPT:
                del self._visited[next(iter(self._visited))]
            return source


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
            if file.store.is_remote:
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
