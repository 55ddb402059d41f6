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
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tokenmill import utf8
from tokenmill.batches import (
    INVALID_UTF8,
    NO_TEXT,
    NOT_JSON,
    RAW_BYTES,
    SPECIAL_TEXT,
    TOO_DEEP,
    TOO_LARGE,
    BadRecord,
    Counts,
    DocumentBatch,
)
from tokenmill.errors import InputError, UsageError
from tokenmill.places import InputFile
from tokenmill.sources.block import (
    BLOCK_BYTES,
    BadBlock,
    Block,
    Sample,
    SourceOptions,
    State,
    bad_record,
    damage_block,
    opened,
    record_too_large,
    resumed,
)
from tokenmill.sources.columns import divided, values_of
from tokenmill.sources.text import BYTE_ORDER_MARK
from tokenmill.textstream import ByteStream, Excerpt

_STEP = 64 * 1024
_MOST_RECORDS = 1000
_AND_MORE = ", and the lines after it"
_LARGEST_SAMPLE = 16 * 1024 * 1024
_HALF = "\ud800"
_HALVES = re.compile("[\ud800-\udfff]")


class NoText(ValueError):
    """Valid JSON, but without a text in its place."""


class BadLine(Exception):
    """A line that cannot become a document: reason, what, place in the line, why."""

    def __init__(self, reason: str, what: str, place: int = 0, why: str | None = None) -> None:
        super().__init__(reason, what, place, why)
        self.reason = reason
        self.what = what
        self.place = place
        self.why = why


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
        batch = DocumentBatch([])
        offset = self.excerpt.start
        if offset == 0 and text.startswith(BYTE_ORDER_MARK):
            text = text[len(BYTE_ORDER_MARK) :]
            offset = len(BYTE_ORDER_MARK)
            batch.counts.byte_order_marks = 1
        documents = _deeper(lambda: self._decode_block(text))
        if documents is None:
            self._decode_lines(text, offset, batch)
        else:
            batch.documents = documents
        return batch

    def _decode_block(self, text: bytes) -> list[bytes] | None:
        """All texts at once; None when anything at all is unusual."""
        lines = _plain_lines(text)
        if lines is None:
            return None
        try:
            records = self.source.decoder.decode_lines(text)
            documents = [self.source.text_of(record).encode() for record in records]
        except Exception:  # noqa: BLE001  whatever it is, the line-by-line path names it
            return None
        refused = self.source.options.refused_when_kept
        if refused and any(refused in document for document in documents):
            return None
        return documents if len(documents) == lines else None

    def _decode_lines(self, text: bytes, offset: int, batch: DocumentBatch) -> None:
        """Line by line; a line's outcome does not depend on its neighbours."""
        for number, line in enumerate(_lines(text)):
            if line.strip(b" \t\r\n"):
                try:
                    document = self._decode_line(line, batch.counts)
                except BadLine as bad:
                    if not self.source.options.quarantines:
                        raise self._error(bad, offset, number) from None
                    _add(batch.bad, self._record(bad, line, offset, number))
                else:
                    if document is None:
                        batch.counts.null_documents += 1
                    else:
                        batch.documents.append(document)
            offset += len(line)

    def _decode_line(self, line: bytes, counts: Counts) -> bytes | None:
        try:
            text = self.source.text_of(self.source.decoder.decode(line))
            document = None if text is None else text.encode()
        except Exception:  # noqa: BLE001  whatever it is, the reference decides
            document = self._decode_slowly(line, counts)
        refused = self.source.options.refused_when_kept
        if document and refused and refused in document:
            raise BadLine(SPECIAL_TEXT, f"the text contains {refused.decode()}")
        return document

    def check_text(self, line: bytes, offset: int, number: int) -> None:
        """Raise InputError when a line is JSON that has no text in its place."""
        try:
            self._decode_line(line, Counts())
        except BadLine as bad:
            if bad.reason == NO_TEXT:
                raise self._error(bad, offset, number) from None

    def _decode_slowly(self, line: bytes, counts: Counts) -> bytes | None:
        # Bytes that are not UTF-8 matter only where they are in the text itself: the fast
        # decoders do not look into the other fields either. Until the text is known, half a
        # surrogate pair stands for each sequence of them.
        repaired = utf8.repair(line, _HALF)
        try:
            text = self._text_of(json.loads(repaired.text))
            if text is None:
                return None
            if self.source.options.replaces:
                text, replaced = _HALVES.subn(utf8.REPLACEMENT, text)
                counts.replaced += replaced
            return text.encode()
        except UnicodeEncodeError:
            raise _not_utf8(line, repaired) from None
        except RecursionError:
            raise BadLine(TOO_DEEP, "the JSON is nested too deeply") from None
        except NoText as error:
            raise BadLine(NO_TEXT, str(error)) from None
        except json.JSONDecodeError as error:
            place = _raw_place(repaired, error.pos)
            raise BadLine(NOT_JSON, "not a JSON object", place, error.msg) from None
        except ValueError as error:  # an integer of more digits than Python reads
            raise BadLine(NOT_JSON, "not readable as JSON", 0, str(error)) from None

    def _text_of(self, value: Any) -> str | None:
        key = self.source.text_key
        if not isinstance(value, dict):
            raise NoText(f"the line holds {_noun(value)}, not an object")
        values = values_of(value, key)
        if not values:
            keys = ", ".join(map(repr, list(value)[:8])) or "none"
            raise NoText(f"there is no field {key!r}; the fields are {keys}")
        if len(values) > 1:
            raise NoText(f"there are {len(values)} fields that {key!r} may mean")
        if values[0] is not None and not isinstance(values[0], str):
            raise NoText(f"the field {key!r} holds {_noun(values[0])}, not a string")
        text: str | None = values[0]
        return text

    def _line_number(self, number: int) -> int:
        return self.source.line_number(self.excerpt.start, self.lines_before) + number

    def _error(self, bad: BadLine, offset: int, number: int) -> InputError:
        place = f"{self.source.file.path}:{self._line_number(number)}, byte {offset + bad.place}"
        fix = "correct or remove that line, or go on without it: --on-bad quarantine"
        if "no field" in bad.what:
            fix = "name the text's field with --text-key"
        return InputError(bad.what, place, bad.why, fix)

    def _record(self, bad: BadLine, line: bytes, offset: int, number: int) -> BadRecord:
        """The line without its line feed."""
        detail = f"{bad.what}{f': {bad.why}' if bad.why else ''} (byte {offset + bad.place})"
        return bad_record(
            self.source.file,
            bad.reason,
            detail,
            line.removesuffix(b"\n"),
            offset=offset,
            line=self._line_number(number),
        )


def _add(records: list[BadRecord], record: BadRecord) -> None:
    """Add a bad line; after the first thousand of a block, neighbours of one kind are one record,
    for a block of the shortest bad lines has a million of them."""
    last = records[-1] if len(records) >= _MOST_RECORDS else None
    if last is None or last.offset is None or record.offset is None:
        records.append(record)
        return
    if last.reason != record.reason or last.offset + last.length + 1 != record.offset:
        records.append(record)
        return
    room = RAW_BYTES - len(last.raw)
    records[-1] = replace(
        last,
        detail=last.detail.removesuffix(_AND_MORE) + _AND_MORE,
        length=record.offset + record.length - last.offset,
        raw=last.raw + (b"\n" + record.raw)[:room] if room > 0 else last.raw,
    )


def _not_utf8(line: bytes, repaired: utf8.Repaired) -> BadLine:
    if repaired.faults:
        place = repaired.faults[0][0]
        return BadLine(INVALID_UTF8, f"invalid UTF-8: byte 0x{line[place]:02x}", place)
    return BadLine(INVALID_UTF8, "the text holds half a surrogate pair")


def _raw_place(repaired: utf8.Repaired, position: int) -> int:
    """The place in the line of a character of its repaired text."""
    place = len(repaired.text[:position].encode("utf-8", "surrogatepass"))
    for low, high in repaired.faults:
        if low >= place:
            break
        place += (high - low) - len(_HALF.encode("utf-8", "surrogatepass"))
    return place


def _deeper(call: Callable[[], Any], frames: int = 16) -> Any:
    """``call()`` with less of the interpreter's stack left than line by line there is: what is
    nested almost too deeply for it is then decided line by line, whatever stands around it."""
    return _deeper(call, frames - 1) if frames else call()


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
        self.decoder, self.text_of = _decoder(options.text_key)
        self.options = options
        self._stream: ByteStream | None = None

    def fetch(self, state: State | None) -> None:
        if self._stream is None:
            self._stream = opened(self.file, self.options, self.options.ahead)
            if state is None or "ended" not in state:
                self._stream.begin(state.get("position", 0) if state else 0)

    def check_first_line(self) -> None:
        """Raise InputError when the file's first line has no text: then few of its lines have one.
        What else may be wrong with it is seen in its turn, and so is a line of more than a step."""
        text = opened(self.file, self.options).peek(0, _STEP)
        offset = len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0
        lines = _lines(text[offset:])
        for number, line in enumerate(lines):
            if line.strip(b" \t\r\n") and (line.endswith(b"\n") or len(text) < _STEP):
                block = JsonlBlock(
                    source=self, excerpt=Excerpt(0, 0, None, b""), lines_before=0, size=0, after={}
                )
                block.check_text(line, offset, number)
                return
            offset += len(line)

    def line_number(self, start: int, lines_before: int | None) -> int:
        """The number, from 1, of the line that begins at byte ``start``."""
        if lines_before is not None:
            return lines_before + 1
        stream, step = opened(self.file, self.options), 4 * 1024 * 1024
        pieces = (stream.peek(low, min(low + step, start)) for low in range(0, start, step))
        return sum(piece.count(b"\n") for piece in pieces) + 1

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        state = resumed(state, {"position": 0, "disk": 0, "lines": None})
        if state.get("lines", 0) is None:
            state = {**state, "lines": self._lines_before(state["position"])}
        self.fetch(state)
        assert self._stream is not None
        stream, self._stream = self._stream, None
        while "ended" not in state:
            start, lines = state["position"], state["lines"]
            stream.release(start)
            end = self._line_end(stream, start)
            if end is None:
                skipped = self._skip_line(stream, state)
                state = skipped.after
                yield skipped
                continue
            excerpt = stream.excerpt(start, end)
            if excerpt.stop == start:
                damaged = damage_block(self.file, stream, state)
                if damaged:
                    yield damaged
                stream.finish()
                return
            disk, before = stream.disk_position(excerpt.stop), state["disk"]
            # Records tell their line; to count from the start for each block would take forever.
            lines_before = None
            is_cheap = excerpt.is_held or self.options.quarantines
            if is_cheap and lines is not None:
                lines_before, lines = lines, lines + stream.peek(start, excerpt.stop).count(b"\n")
            else:
                lines = None
            state = {"position": excerpt.stop, "disk": disk, "lines": lines}
            yield JsonlBlock(
                source=self,
                excerpt=excerpt,
                size=disk - before,
                after=state,
                lines_before=lines_before,
            )

    def _lines_before(self, position: int) -> int | None:
        """How many there are, where it is worth knowing before there is an error."""
        if position == 0:
            return 0
        return self.line_number(position, None) - 1 if self.options.quarantines else None

    def _line_end(self, stream: ByteStream, start: int) -> int | None:
        """The end of the first line that ends at or after ``start`` + BLOCK_BYTES; or, before a
        line that is too large, the end of the one before. None if it is the first that is."""
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
            if at - start > BLOCK_BYTES + self.options.record_bytes:
                if not self.options.quarantines:
                    raise record_too_large(
                        self.file, f"in the lines after byte {start}", at - start, "a JSON line"
                    )
                last = stream.peek(start, at).rfind(b"\n")
                return start + last + 1 if last >= 0 else None

    def _skip_line(self, stream: ByteStream, before: State) -> BadBlock:
        """A line too large to hold, walked over a little at a time."""
        start = stop = before["position"]
        raw = stream.peek(start, start + RAW_BYTES)
        while True:
            window = stream.peek(stop, stop + _STEP)
            found = window.find(b"\n")
            stop += len(window) if found < 0 else found
            stream.release(stop)
            if found >= 0 or not window:
                break
        record = bad_record(
            self.file,
            TOO_LARGE,
            f"a JSON line of {stop - start} bytes is too large for the memory budget",
            raw,
            offset=start,
            line=before["lines"] + 1,
            length=stop - start,
        )
        stop += found >= 0
        disk = stream.disk_position(stop)
        return BadBlock(
            size=disk - before["disk"],
            after={"position": stop, "disk": disk, "lines": before["lines"] + (found >= 0)},
            record=record,
        )

    def sample(self, position: float, size: int) -> Sample:
        stream = opened(self.file, self.options)
        start = 0 if self.file.compression else int(position * max(0, self.file.size - size))
        text = stream.peek(start, start + size)
        while b"\n" not in text[:-1] and len(text) == size and size < _LARGEST_SAMPLE:
            size *= 2
            text = stream.peek(start, start + size)
        lines = _lines(text)
        begun = text.count(b"\n") if len(text) == size else len(lines)
        if len(lines) > 1 and len(text) == size:
            lines.pop()
        if len(lines) > 1 and start:
            del lines[0]
        documents = []
        for line in lines:
            with contextlib.suppress(Exception):  # the run itself reports bad lines
                documents.append((self.text_of(self.decoder.decode(line)) or "").encode())
        share = stream.disk_position(len(text)) / max(1, len(text)) if start == 0 else 1.0
        return Sample(documents, sum(map(len, lines)) * share, begun, len(text) * share)


def _decoder(text_key: str) -> tuple[Any, Callable[[Any], Any]]:
    """msgspec's decoder of records that have nothing but a text, and what takes it out of them.

    Of a key with dots, it knows the field as it is written, and one way into what is nested; a
    line of any other shape is refused by it, and then decided by the reference.
    """
    import msgspec

    def record(fields: list[Any], names: dict[str, str]) -> Any:
        return msgspec.defstruct("Record", fields, rename=names, gc=False)

    ways = list(divided(text_key))
    try:
        if not ways:
            kind = record([("text", str | None)], {"text": text_key})
            return msgspec.json.Decoder(kind), operator.attrgetter("text")
        if len(ways) > 1:
            return msgspec.json.Decoder(), lambda value: _only_text(value, text_key)
        outer, inner = ways[0]
        nested = record([("text", str | None)], {"text": inner})
        fields: list[Any] = [
            ("text", str | None | msgspec.UnsetType, msgspec.UNSET),
            ("nested", nested | None | msgspec.UnsetType, msgspec.UNSET),
        ]
        kind = record(fields, {"text": text_key, "nested": outer})
    except ValueError as error:
        raise UsageError(
            f"--text-key {text_key!r} cannot be a field",
            why=str(error),
            fix="give the name of the text's field as it stands in the lines",
        ) from None
    unset = msgspec.UNSET
    return msgspec.json.Decoder(kind), lambda r: r.nested.text if r.text is unset else r.text


def _only_text(record: Any, key: str) -> Any:
    """The one value that a key names. Raises ValueError for anything else."""
    (value,) = values_of(record, key)
    if value is not None and not isinstance(value, str):
        raise ValueError(key)
    return value
