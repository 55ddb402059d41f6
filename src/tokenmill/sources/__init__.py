"""How bytes divide into records: one file a kind of input.

A source turns a file into *blocks*: pieces that can be encoded alone and give the same ids
wherever they are encoded. ``blocks()`` walks through the file once, cheaply and in order;
``read(block)`` does the heavy part and is called from any thread. Blocks follow from the input
alone, never from the number of threads or the memory.

To add a source: one file here, one line in ``tokenmill.kinds.KINDS`` (docs/write-a-source.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tokenmill.kinds import KINDS
from tokenmill.sources.source import Source, SourceOptions
from tokenmill.stores import InputFile


def source_of(kind: str) -> type[Source]:
    """The class that reads files of a kind; loaded when it is asked for."""
    found = KINDS[kind]
    return cast(type[Source], getattr(import_module(found.module), found.source.rpartition(":")[2]))


def open_source(file: InputFile, options: SourceOptions) -> Source:
    """The source for one input file. Raises InputError when it is not what its name says."""
    return source_of(file.kind)(file, options)
