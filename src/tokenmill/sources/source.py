"""The seam of sources: what each gives and is told, and what decides how its blocks divide.

``tests/contract/test_sources.py`` holds each source to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tokenmill.batches import DocumentBatch, State
from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.kinds.compression import WINDOW_BYTES, WindowRoom, too_large
from tokenmill.kinds.content import HEAD_BYTES
from tokenmill.memory import InHand
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.sources.block import Block, Tails
from tokenmill.sources.stream import Ahead, Beginning, ByteStream, open_stream
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
    ``hands_over``: blocks are read by other processes, so that what comes from the network is in
    them; ``fetches``: may this one ask the network?
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
    hands_over: bool = False
    fetches: bool = True

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


@dataclass(frozen=True)
class Look:
    """What is seen of a file before a run begins.

    ``needs`` is what it takes to hold the file open, in bytes, ``page`` what it takes for a moment,
    while no other file needs the like; ``fault`` is why it cannot be read. ``text`` is how its
    content begins (None where that is not known); ``is_whole``: there is no more.
    """

    needs: int = 0
    page: int = 0
    fault: TokenmillError | None = None
    text: bytes | None = None
    is_whole: bool = False


class Source(ABC):
    """One input file, as blocks; it is made where the file is opened. Raises InputError."""

    def __init__(self, file: InputFile, options: SourceOptions) -> None:
        self.file = file
        self.options = options

    def fetch(self, state: State | None) -> None:  # noqa: B027  most have nothing to fetch
        """Begin to fetch what ``blocks(state)`` is going to read, where the file is remote."""

    @abstractmethod
    def blocks(self, state: State | None = None) -> Iterator[Block]:
        """The blocks from ``state`` on (None: from the start), in order; by one thread.

        They follow from the file alone: a walk that begins at ``block.after`` gives the rest of a
        walk from the start."""

    @abstractmethod
    def read(self, block: Block) -> DocumentBatch:
        """The documents of a block of this file, once; by any thread, also where another source
        of the same file made the block. Raises InputError."""

    @abstractmethod
    def sample(self, position: float, size: int) -> Sample:
        """A few documents or pieces near ``position`` (0 to 1), about ``size`` bytes of text."""

    @classmethod
    def look(cls, file: InputFile, options: SourceOptions) -> Look:
        """What can be known of a file cheaply: here, of one that is read from front to back. What
        is wrong with the file is returned; raises what is no fault of it, of the network."""
        begins = Beginning(file, options.quarantines, options.room)
        try:
            needs = begins.needs.memory
            if needs > options.reader_bytes:
                assert file.compression is not None
                room = replace(options.room, threads=0)  # it is taken into account from now on
                error = too_large(file.compression, needs, room)
                refusal = UsageError(error.what, file.path, error.why, error.fix)
                return Look(needs, fault=refusal)
            text, is_whole = begins.read(HEAD_BYTES)
        except (InputError, UsageError) as error:
            return Look(fault=error)
        fault: TokenmillError | None = None
        try:
            cls.check_beginning(file, options, text, is_whole, begins.read)
        except (InputError, UsageError) as error:
            fault = error
        return Look(needs, fault=fault, text=text or None, is_whole=is_whole)

    @classmethod  # noqa: B027  most have nothing to check
    def check_beginning(
        cls,
        file: InputFile,
        options: SourceOptions,
        text: bytes,
        is_whole: bool,
        read: Callable[[int], tuple[bytes, bool]],
    ) -> None:
        """Raise InputError or UsageError where a file that begins with ``text`` has no documents;
        ``is_whole``: there is no more of it, ``read(size)`` gives more of its beginning."""


def opened(file: InputFile, options: SourceOptions, ahead: Ahead | None = None) -> ByteStream:
    """The text of a file, as the options say; ``ahead`` where it is going to be read through."""
    return open_stream(file, options.quarantines, ahead, options.room)
