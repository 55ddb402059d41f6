"""What every source gives and is told: blocks, samples, and what decides how they divide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tokenmill.batches import DocumentBatch, State
from tokenmill.kinds.compression import WINDOW_BYTES, WindowRoom
from tokenmill.memory import InHand
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.sources.block import Block, Tails
from tokenmill.sources.stream import Ahead, ByteStream, open_stream
from tokenmill.stores import InputFile
from tokenmill.text.cuts import EVERYWHERE, CutRule, SeamEncoder


@dataclass(frozen=True)
class SourceOptions:
    """What a source has to know of the run.

    ``documents`` is the text mode, ``text_key`` the JSON field or parquet column, ``seams`` makes
    the encoder that cuts unbroken runs, ``unbreakable`` are strings that no cut may divide,
    ``record_bytes`` is the largest record that memory allows, ``position_split`` the byte at which
    a corpus of one document turns from train to val. ``quarantines`` is ``--on-bad quarantine``,
    ``replaces`` is ``--invalid-utf8 replace``; ``refused`` is the special text that makes a
    document bad, ``ahead`` how much of a remote file is fetched before it is read. ``cuts`` says
    where a document may be cut, ``asks_told`` whether it matters how many GPT-2 tokens a dataset
    says that it has. ``reader_bytes`` is what a file may take while it is read, beside its text:
    the footer of parquet, the window of a decompressor; ``page_bytes`` what a page of parquet may
    take for a moment, which is told to ``in_hand``; ``budget_bytes`` is the whole budget,
    ``threads`` how many it is for. ``tails`` holds what was fetched of footers already, ``sizes``
    says how large blocks are.
    """

    documents: str
    text_key: str
    seams: Callable[[], SeamEncoder]
    unbreakable: tuple[bytes, ...] = ()
    record_bytes: int = 64 * 1024 * 1024
    position_split: int | None = None
    quarantines: bool = False
    replaces: bool = False
    refused: bytes | None = None
    ahead: Ahead | None = None
    cuts: CutRule = EVERYWHERE
    asks_told: bool = False
    reader_bytes: int = WINDOW_BYTES
    budget_bytes: int = 0
    page_bytes: int = WINDOW_BYTES
    in_hand: InHand = field(default_factory=InHand, compare=False)
    threads: int = 0
    tails: Tails | None = None
    sizes: Sizes = DEFAULT_SIZES

    @property
    def room(self) -> WindowRoom:
        """What a member of a compressed file may take."""
        return WindowRoom(self.reader_bytes, self.budget_bytes, self.threads)

    @property
    def refused_when_kept(self) -> bytes | None:
        """The special text that a source itself has to look for: else encoding refuses it."""
        return self.refused if self.quarantines else None


@dataclass(frozen=True)
class Sample:
    """Some documents, and how many bytes of the file on disk they stand for.

    ``begun`` documents, cut ones too, begin in the ``seen_bytes`` of the file that were looked at:
    to count the whole ones only would favour the short.
    """

    documents: list[bytes]
    disk_bytes: float
    begun: int
    seen_bytes: float


class Source(Protocol):
    """One input file, as blocks."""

    def fetch(self, state: State | None) -> None:
        """Begin to fetch what ``blocks(state)`` is going to read, where the file is remote."""

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        """The blocks from ``state`` on (None: from the start), in order; by one thread."""

    def read(self, block: Block) -> DocumentBatch:
        """The documents of a block of this file, once; by any thread, also where another source
        of the same file made the block. Raises InputError."""

    def sample(self, position: float, size: int) -> Sample:
        """A few documents or pieces near ``position`` (0 to 1), about ``size`` bytes of text."""


def opened(file: InputFile, options: SourceOptions, ahead: Ahead | None = None) -> ByteStream:
    """The text of a file, as the options say; ``ahead`` where it is going to be read through."""
    return open_stream(file, options.quarantines, ahead, options.room)
