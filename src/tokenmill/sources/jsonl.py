"""JSON Lines: one object a line, its text in one field.

The fast decoder (msgspec) parses a whole block at once. When it refuses, or when objects and
lines do not match one to one, the block is read line by line: what the fast decoder refuses is
decided by one reference, Python's ``json``. Where both take a line they give the same text, so a
line's outcome depends neither on them nor on its neighbours. The field must be a string; ``null``
is counted as no document; a line without the field is an error, and so is anything that is not
JSON or whose text cannot be written as UTF-8.

pyarrow.json was tried: it releases the interpreter's lock, takes a third more CPU, and a line
nested 100,000 deep kills the process (its parser recurses without a limit).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenmill.batches import Counts, DocumentBatch
from tokenmill.errors import InputError, UsageError
from tokenmill.inputs import ByteStream, Excerpt, InputFile, open_stream
from tokenmill.sources.block import (
    BLOCK_BYTES,
    Block,
    Sample,
    SourceOptions,
    State,
    record_too_large,
)
from tokenmill.sources.text import BYTE_ORDER_MARK

_STEP = 64 * 1024
_LARGEST_SAMPLE = 16 * 1024 * 1024


class NoText(ValueError):
    """Valid JSON, but without a text in its place."""


@dataclass(kw_only=True)
class JsonlBlock(Block):
    """Whole lines of a file; ``lines_before`` is known where it can be read only in sequence."""

    source: JsonlSource
    excerpt: Excerpt
    lines_before: int | None

    @property
    def where(self) -> str:
        return f"{self.source.file.path}, byte {self.excerpt.start}"

    @property
    def text_bytes(self) -> int:
        return self.excerpt.stop - self.excerpt.start

    def read(self) -> DocumentBatch:
        text = self.excerpt.take()
        counts = Counts()
        offset = self.excerpt.start
        if offset == 0 and text.startswith(BYTE_ORDER_MARK):
            text = text[len(BYTE_ORDER_MARK) :]
            offset = len(BYTE_ORDER_MARK)
            counts.byte_order_marks = 1
        documents = self._decode_block(text)
        if documents is None:
            found = list(self._decode_lines(text, offset))
            documents = [document for document in found if document is not None]
            counts.null_documents = len(found) - len(documents)
        return DocumentBatch(documents, counts=counts)

    def _decode_block(self, text: bytes) -> list[bytes] | None:
        """All texts at once; None when anything at all is unusual."""
        lines = _plain_lines(text)
        if lines is None:
            return None
        try:
            records = self.source.decoder.decode_lines(text)
            documents = [record.text.encode() for record in records]
        except Exception:  # noqa: BLE001  whatever it is, the line-by-line path names it
            return None
        return documents if len(documents) == lines else None

    def _decode_lines(self, text: bytes, offset: int) -> Iterator[bytes | None]:
        """Line by line; a line's outcome does not depend on its neighbours."""
        for number, line in enumerate(_lines(text)):
            if line.strip(b" \t\r\n"):
                yield self._decode_line(line, offset, number)
            offset += len(line)

    def _decode_line(self, line: bytes, offset: int, number: int) -> bytes | None:
        try:
            text = self.source.decoder.decode(line).text
            return None if text is None else text.encode()
        except Exception:  # noqa: BLE001  whatever it is, the reference decides
            return self._decode_slowly(line, offset, number)

    def _decode_slowly(self, line: bytes, offset: int, number: int) -> bytes | None:
        try:
            # Bytes that are not UTF-8 matter only where they are in the text itself: the fast
            # decoders do not look into the other fields either.
            value = json.loads(line.decode("utf-8", "surrogateescape"))
            text = self._text_of(value)
            return None if text is None else text.encode()
        except UnicodeEncodeError:
            raise self._not_utf8(line, offset, number) from None
        except RecursionError:
            raise self._bad("the JSON is nested too deeply", offset, number) from None
        except NoText as error:
            raise self._bad(str(error), offset, number) from None
        except json.JSONDecodeError as error:
            place = offset + len(error.doc[: error.pos].encode("utf-8", "surrogateescape"))
            raise self._bad("not a JSON object", place, number, error.msg) from None
        except ValueError as error:  # an integer of more digits than Python reads
            raise self._bad("not readable as JSON", offset, number, str(error)) from None

    def _text_of(self, value: Any) -> str | None:
        key = self.source.text_key
        if not isinstance(value, dict):
            raise NoText(f"the line holds {_noun(value)}, not an object")
        if key not in value:
            keys = ", ".join(map(repr, list(value)[:8])) or "none"
            raise NoText(f"there is no field {key!r}; the fields are {keys}")
        if value[key] is not None and not isinstance(value[key], str):
            raise NoText(f"the field {key!r} holds {_noun(value[key])}, not a string")
        text: str | None = value[key]
        return text

    def _not_utf8(self, line: bytes, offset: int, number: int) -> InputError:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"invalid UTF-8: byte 0x{line[error.start]:02x}"
            return self._bad(what, offset + error.start, number)
        return self._bad("the text holds half a surrogate pair", offset, number)

    def _bad(self, what: str, place: int, number: int, why: str | None = None) -> InputError:
        line = self.source.line_number(self.excerpt.start, self.lines_before) + number
        fix = "correct or remove that line"
        if "no field" in what:
            fix = "name the text's field with --text-key"
        return InputError(f"{what}", f"{self.source.file.path}:{line}, byte {place}", why, fix)


def _lines(text: bytes) -> list[bytes]:
    """The lines with their line feeds; nothing else ends a line."""
    lines = text.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _plain_lines(text: bytes) -> int | None:
    """How many lines there are, if each begins with ``{`` and ends with ``}``; else None.

    The fast decoder takes any white space between two objects, and as many objects in a line as
    there are. Lines of this shape, as many as objects, hold one object each.
    """
    import numpy as np

    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    if len(text) == 0 or len(ends) == 0 or ends[0] == 0 or text[0] != ord("{"):
        return None
    is_whole = bool(ends[-1] == len(text) - 1)
    begins = ends[:-1] + 1 if is_whole else ends + 1
    lasts = characters[ends - 1]
    if (lasts == ord("\r")).all():
        lasts = characters[ends - 2]
    well = (lasts == ord("}")).all() and (characters[begins] == ord("{")).all()
    return len(ends) + (not is_whole) if well else None


def _noun(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


class JsonlSource:
    """A JSONL file as blocks of whole lines."""

    def __init__(self, file: InputFile, options: SourceOptions) -> None:
        self.file = file
        self.text_key = options.text_key
        self.decoder = _decoder(options.text_key)
        self._options = options

    def line_number(self, start: int, lines_before: int | None) -> int:
        """The number, from 1, of the line that begins at byte ``start``."""
        if lines_before is not None:
            return lines_before + 1
        stream, step = open_stream(self.file), 4 * 1024 * 1024
        pieces = (stream.peek(low, min(low + step, start)) for low in range(0, start, step))
        return sum(piece.count(b"\n") for piece in pieces) + 1

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        state = state or {"position": 0, "disk": 0, "lines": 0}
        stream = open_stream(self.file)
        while True:
            start, lines = state["position"], state["lines"]
            stream.release(start)
            excerpt = stream.excerpt(start, self._line_end(stream, start))
            if excerpt.stop == start:
                return
            disk, before = stream.disk_position(excerpt.stop), state["disk"]
            lines_before = lines if excerpt.is_held else None
            if lines_before is not None:
                lines += stream.peek(start, excerpt.stop).count(b"\n")
            state = {"position": excerpt.stop, "disk": disk, "lines": lines}
            yield JsonlBlock(
                source=self,
                excerpt=excerpt,
                size=disk - before,
                after=state,
                lines_before=lines_before,
            )

    def _line_end(self, stream: ByteStream, start: int) -> int:
        """The end of the first line that ends at or after ``start`` + BLOCK_BYTES."""
        at = start + BLOCK_BYTES - 1
        while True:
            window = stream.peek(at, at + _STEP)
            found = window.find(b"\n")
            if found >= 0:
                return at + found + 1
            if len(window) < _STEP:
                if window:
                    return at + len(window)
                return start + len(stream.peek(start, at))
            at += _STEP
            if at - start > BLOCK_BYTES + self._options.record_bytes:
                raise record_too_large(
                    self.file, f"in the lines after byte {start}", at - start, "a JSON line"
                )

    def sample(self, position: float, size: int) -> Sample:
        stream = open_stream(self.file)
        start = 0 if self.file.compression else int(position * max(0, self.file.size - size))
        text = stream.peek(start, start + size)
        while b"\n" not in text[:-1] and len(text) == size and size < _LARGEST_SAMPLE:
            size *= 2
            text = stream.peek(start, start + size)
        lines = _lines(text)
        if len(lines) > 1 and len(text) == size:
            lines.pop()
        if len(lines) > 1 and start:
            del lines[0]
        documents = []
        for line in lines:
            with contextlib.suppress(Exception):  # the run itself reports bad lines
                documents.append((self.decoder.decode(line).text or "").encode())
        share = stream.disk_position(len(text)) / max(1, len(text)) if start == 0 else 1.0
        return Sample(documents, sum(map(len, lines)) * share)


def _decoder(text_key: str) -> Any:
    """msgspec's decoder of records that have nothing but a text."""
    import msgspec

    fields = [("text", str | None)]
    try:
        record = msgspec.defstruct("Record", fields, rename={"text": text_key}, gc=False)
    except ValueError as error:
        raise UsageError(
            f"--text-key {text_key!r} cannot be a field",
            why=str(error),
            fix="give the name of the text's field as it stands in the lines",
        ) from None
    return msgspec.json.Decoder(record)
