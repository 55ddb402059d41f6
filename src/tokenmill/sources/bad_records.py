"""Pieces of input that cannot become tokens: as records with a place, or as errors."""

from __future__ import annotations

from dataclasses import dataclass

from tokenmill.batches import (
    CORRUPT_COMPRESSION,
    INVALID_UTF8,
    RAW_BYTES,
    SPECIAL_TEXT,
    TOO_LARGE,
    BadRecord,
    DocumentBatch,
    State,
)
from tokenmill.errors import InputError
from tokenmill.sources.block import Block
from tokenmill.sources.source import SourceOptions
from tokenmill.sources.stream import ByteStream, read_head
from tokenmill.stores import InputFile
from tokenmill.text import utf8
from tokenmill.text.charset import SAMPLE_BYTES, advice
from tokenmill.units import format_bytes


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

    @property
    def batch(self) -> DocumentBatch:
        """All that there is to read."""
        # A document that was going on ends here: an empty rest.
        documents = [b""] if self.continues else []
        return DocumentBatch(documents, self.continues, split=self.split, bad=[self.record])


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


def add_document(
    batch: DocumentBatch, raw: bytes, file: InputFile, options: SourceOptions, offset: int
) -> None:
    """Add a whole document that begins at byte ``offset`` of the text to a batch, as the run wants
    it: replaced or left out where it is no UTF-8, left out where it holds text that is refused.
    Raises InputError, with the byte's place, where the run is to stop instead."""
    refused = options.refused_when_kept
    if options.replaces:
        raw, count = utf8.replace(raw)
        batch.counts.replaced += count
    elif not options.quarantines:
        check_utf8(raw, file, offset)
    if not utf8.is_utf8(raw):
        bad = bad_record(file, INVALID_UTF8, "invalid UTF-8", raw, offset=offset)
    elif refused and refused in raw:
        detail = f"the text contains {refused.decode()}"
        bad = bad_record(file, SPECIAL_TEXT, detail, raw, offset=offset)
    else:
        batch.documents.append(raw)
        return
    batch.bad.append(bad)


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
