"""How bytes divide into records: one file a kind of input.

A source turns a file into *blocks*: pieces that can be encoded alone and give the same ids
wherever they are encoded. ``blocks()`` walks through the file once, cheaply and in order;
``read(block)`` does the heavy part and is called from any thread. Blocks follow from the input
alone, never from the number of threads or the memory.

To add a source: one file here, one line in ``SOURCES``, a suffix in ``kinds.kind.KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenmill.sources.jsonl import JsonlSource
from tokenmill.sources.parquet import ParquetSource
from tokenmill.sources.source import Source, SourceOptions
from tokenmill.sources.text import TextSource
from tokenmill.stores import InputFile

SOURCES: dict[str, Callable[[InputFile, SourceOptions], Source]] = {
    "text": TextSource,
    "jsonl": JsonlSource,
    "parquet": ParquetSource,
}


def open_source(file: InputFile, options: SourceOptions) -> Source:
    """The source for one input file. Raises InputError when it is not what its name says."""
    return SOURCES[file.kind](file, options)
