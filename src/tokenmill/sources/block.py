"""What every source gives: blocks, and the options that decide how they divide."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenmill.batches import CORRUPT_COMPRESSION, RAW_BYTES, TOO_LARGE, BadRecord, DocumentBatch
from tokenmill.errors import InputError, TokenmillError
from tokenmill.kinds.compression import WINDOW_BYTES, WindowRoom
from tokenmill.memory import InHand
from tokenmill.stores import InputFile
from tokenmill.text import utf8
from tokenmill.text.charset import SAMPLE_BYTES, advice
from tokenmill.text.cuts import EVERYWHERE, CutRule, SeamEncoder
from tokenmill.textstream import Ahead, ByteStream, open_stream, read_head
from tokenmill.units import format_bytes

BLOCK_BYTES = 2 * 1024 * 1024
"""Text in one block, about. Measured: from 1 to 2 MiB is fastest, for the text and its ids then
stay in the processor's caches; more costs up to a fifth, less costs Python time."""


class Tails:
    """The ends of remote files, of the first few that are asked for: a footer is needed to look at
    the file, to estimate, and to read it, and is fetched once."""

    def __init__(self, most: int = 4 * 1024 * 1024) -> None:
        self._kept: dict[str, bytes] = {}
        self._left = most

    def of(self, path: str, fetch: Callable[[], bytes]) -> bytes:
        """The end of a file; by any thread."""
        if (tail := self._kept.get(path)) is None:
            tail = fetch()
            if len(tail) <= self._left:
                self._left -= len(tail)
                self._kept[path] = tail
        return tail


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
    ``threads`` how many it is for. ``tails`` holds what was fetched of footers already.
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


State = dict[str, Any]
"""Where a source stands between two blocks: plain data, of a shape that only it knows."""


@dataclass(frozen=True)
class Position:
    """A place between two blocks of the corpus: a file, by its number, and its source's state."""

    file: int
    state: State | None


START = Position(0, None)


def resumed(state: State | None, first: State) -> State:
    """The state to go on from: ``state``, or ``first`` where a file begins.

    Raises TokenmillError when it has not the shape of ``first``: it comes from a file.
    """
    if state is None:
        return first
    wrong = [
        name for name, value in first.items()
        if name not in state
        or type(state[name]) not in {type(value), int if value is None else type(value)}
        or (type(value) is int and not 0 <= state[name] < 1 << 62)
    ]  # fmt: skip
    if wrong and "ended" not in state:
        raise TokenmillError(
            "the journal of the unfinished run makes no sense",
            None,
            f"{', '.join(wrong)} cannot be what it is in {str(state)[:200]}",
            "run the same command with --overwrite, which starts anew",
        )
    return state


@dataclass(kw_only=True)
class Block(ABC):
    """A piece of input that can be encoded alone; ``size`` is its share of the file on disk.

    ``after`` is the state from which its source goes on with the next block, ``file_number`` the
    place of its file among the inputs. ``seam_before`` and ``seam_after`` are the tokens that must
    stand at its ends, where it was cut inside an unbroken run.
    """

    size: int
    after: State
    file_number: int = 0
    seam_before: int | None = None
    seam_after: int | None = None

    @property
    def end(self) -> Position:
        """Where the next block begins."""
        return Position(self.file_number, self.after)

    @property
    @abstractmethod
    def where(self) -> str:
        """The file and the place in it, for messages."""

    @property
    @abstractmethod
    def text_bytes(self) -> int:
        """About how much text it holds."""

    @abstractmethod
    def read(self) -> DocumentBatch:
        """Its documents. Called once, from any thread. Raises InputError."""


@dataclass(kw_only=True)
class BadBlock(Block):
    """A piece of input with nothing in it but a bad record."""

    record: BadRecord
    continues: bool = False
    split: str | None = None

    @property
    def where(self) -> str:
        place = f"row {self.record.row}" if self.record.offset is None else ""
        return f"{self.record.file}, {place or f'byte {self.record.offset}'}"

    @property
    def text_bytes(self) -> int:
        return 0

    def read(self) -> DocumentBatch:
        # A document that was going on ends here: an empty rest.
        documents = [b""] if self.continues else []
        return DocumentBatch(documents, self.continues, split=self.split, bad=[self.record])


class Source(Protocol):
    """One input file, as blocks."""

    def fetch(self, state: State | None) -> None:
        """Begin to fetch what ``blocks(state)`` is going to read, where the file is remote."""

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        """The blocks from ``state`` on (None: from the start), in order; by one thread."""

    def sample(self, position: float, size: int) -> Sample:
        """A few documents or pieces near ``position`` (0 to 1), about ``size`` bytes of text."""


def opened(file: InputFile, options: SourceOptions, ahead: Ahead | None = None) -> ByteStream:
    """The text of a file, as the options say; ``ahead`` where it is going to be read through."""
    return open_stream(file, options.quarantines, ahead, options.room)


def record_too_large(
    file: InputFile, where: str, size: int, noun: str, factor: int = 10
) -> InputError:
    """The error for a record that the memory budget cannot hold; each byte of it takes
    ``factor``."""
    return InputError(
        f"{noun} of {format_bytes(size)} or more is too large for the memory budget",
        f"{file.path}, {where}",
        None,
        f"--memory {round(size * factor / 10**6) + 300}MB or more, or divide the record",
    )


def check_utf8(text: bytes, file: InputFile, offset: int) -> None:
    """Raise InputError, with the byte's place, unless ``text`` is valid UTF-8."""
    if utf8.is_utf8(text):
        return
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        start = max(0, error.start - SAMPLE_BYTES // 2)
        start += -(offset + start) % 4  # what has letters of two or four bytes begins with one
        sample = text[min(start, error.start) : error.start + SAMPLE_BYTES // 2]
        raise InputError(
            f"invalid UTF-8: byte 0x{text[error.start]:02x}",
            f"{file.path}, byte {offset + error.start}",
            error.reason,
            advice(sample, file.path),
        ) from None


def bad_record(
    file: InputFile,
    reason: str,
    detail: str,
    raw: bytes,
    *,
    offset: int | None = None,
    line: int | None = None,
    row: int | None = None,
    length: int | None = None,
) -> BadRecord:
    """A bad record of ``file``; its length is that of ``raw`` unless told."""
    size = len(raw) if length is None else length
    return BadRecord(reason, detail, file.path, offset, line, row, size, raw[:RAW_BYTES])


def damage_block(
    file: InputFile, stream: ByteStream, before: State, continues: bool = False
) -> BadBlock | None:
    """What of a compressed file could not be decompressed, as its last block; None if all was."""
    damage = stream.damage
    if damage is None:
        return None
    reason = TOO_LARGE if damage.needs else CORRUPT_COMPRESSION
    detail = (
        f"{damage.what} ({damage.why}): bytes {damage.offset} to {file.size} of the compressed "
        f"file on disk gave no text; the {damage.text_bytes} bytes of text before were read"
    )
    if damage.fix:
        detail += f"; it can be read with {damage.fix}"
    record = bad_record(
        file,
        reason,
        detail,
        read_head(file, damage.offset, RAW_BYTES),
        offset=damage.offset,
        length=file.size - damage.offset,
    )
    size = file.size - before["disk"]
    return BadBlock(size=size, after={**before, "ended": True}, record=record, continues=continues)


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
