"""JSON Lines: one object a line, its text in one field.

The fast decoder (msgspec) parses a whole block at once. When it refuses, or when objects and
lines do not match one to one, the block is read line by line: what the fast decoder refuses is
decided by one reference, Python's ``json``. Where both take a line they give the same text, so a
line's outcome depends neither on them nor on its neighbours. The field must be a string; ``null``
is counted as no document; a line without the field is an error, and so is anything that is not
JSON or whose text cannot be written as UTF-8.

What a line costs in memory is known before it is spent. Only the text itself is ever made a Python
string; what stands beside it is passed over by the fast decoder. Python's ``json``, which makes an
object of every value (29 bytes of memory for each byte of ``{"a":1},``), gets a large line's head
first, and never more of it than the budget has room for.

pyarrow.json was tried: it releases the interpreter's lock, takes a third more CPU, and a line
nested 100,000 deep kills the process (its parser recurses without a limit).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

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
    State,
)
from tokenmill.errors import InputError, UsageError
from tokenmill.sources.bad_records import BadBlock, bad_record, damage_block, record_too_large
from tokenmill.sources.block import Block, resumed
from tokenmill.sources.columns import divided, values_of
from tokenmill.sources.source import Sample, Source, SourceOptions, opened
from tokenmill.sources.stream import ByteStream, Excerpt
from tokenmill.sources.text import BYTE_ORDER_MARK
from tokenmill.stores import InputFile
from tokenmill.text import utf8

_STEP = FIRST_LINE_BYTES = 64 * 1024
_MOST_RECORDS = 1000
_AND_MORE = ", and the lines after it"
_LARGEST_SAMPLE = 16 * 1024 * 1024
_SMALL_LINE = 64 * 1024
"""So much of a line Python's ``json`` may always read, whatever is in it."""
_SURE = 32
"""Where a head of a line is cut, the last few characters may look like an error."""
_ROOM = 5
"""Of what ``record_bytes`` stands for, the part that the objects of one line may take."""
_KEY_SHOWN = 40
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

    path: str
    excerpt: Excerpt
    lines_before: int | None

    @property
    def where(self) -> str:
        return f"{self.path}, byte {self.excerpt.start}"

    @property
    def text_bytes(self) -> int:
        return self.excerpt.stop - self.excerpt.start


class _Lines:
    """The lines from byte ``start`` of a file on, decoded; ``lines_before`` them, where known."""

    def __init__(self, source: JsonlSource, start: int, lines_before: int | None) -> None:
        self.source = source
        self.start = start
        self.lines_before = lines_before

    def documents(self, text: bytes) -> DocumentBatch:
        """What the lines give."""
        batch = DocumentBatch([])
        offset = self.start
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
        bad_lines = _BadLines(batch.bad)
        for number, line in enumerate(_lines(text)):
            if line.strip(b" \t\r\n"):
                try:
                    document = self._decode_line(line, batch.counts)
                except BadLine as bad:
                    if not self.source.options.quarantines:
                        raise self._error(bad, offset, number) from None
                    if not bad_lines.is_next(bad.reason, line, offset):
                        bad_lines.add(self._record(bad, line, offset, number))
                else:
                    if document is None:
                        batch.counts.null_documents += 1
                    else:
                        batch.documents.append(document)
            offset += len(line)
        bad_lines.finish()

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
        try:
            text = self._slow_text(line)
            if text is None:
                return None
            if self.source.options.replaces:
                return _without_halves(text, counts)
            return text.encode()
        except UnicodeEncodeError:
            raise _not_utf8(line) from None
        except RecursionError:
            raise BadLine(TOO_DEEP, "the JSON is nested too deeply") from None
        except NoText as error:
            raise BadLine(NO_TEXT, str(error)) from None
        except ValueError as error:  # an integer of more digits than Python reads
            raise BadLine(NOT_JSON, "not readable as JSON", 0, str(error)) from None

    def _slow_text(self, line: bytes) -> str | None:
        """The text with half a surrogate pair for what is not UTF-8 in it."""
        try:
            value = self.source.raw_text(line)
            if value is not None and value.startswith(b'"'):
                text: str = json.loads(utf8.repair(value, _HALF))
                return text
            if len(line) > _SMALL_LINE:
                self._refuse_textless(value)
        except NoText:
            raise
        except Exception:  # noqa: BLE001  whatever it is, the reference decides
            pass
        return self._text_of(self._parsed(line))

    def _refuse_textless(self, value: bytes | None) -> NoReturn:
        """Raise NoText for a large line whose field is missing (None) or holds no text."""
        key = self.source.text_key
        if value is None:
            raise NoText(f"there is no field {key!r}")
        raise NoText(f"the field {key!r} holds {_noun_of(value)}, not a string")

    def _parsed(self, line: bytes) -> Any:
        """The line as Python's ``json`` reads it; of a large one as much as is needed to refuse
        it. Raises BadLine when its values would take too much memory, RecursionError."""
        room = _ROOM * self.source.options.record_bytes
        size = _SMALL_LINE
        while size < len(line):
            if _cost(line, size) > room:
                break
            _refuse_head(line[:size])
            size *= 2
        if len(line) > _SMALL_LINE and _cost(line, len(line)) > room:
            self._refuse_large(line)
        text = utf8.repair(line, _HALF)
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise _not_json(line, text, error) from None

    def _refuse_large(self, line: bytes) -> NoReturn:
        """A line whose values memory has no room for: what is it, as far as can be told?"""
        import msgspec

        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            value = bytes(msgspec.json.decode(line, type=msgspec.Raw))
            if not value.startswith(b"{"):
                raise NoText(f"the line holds {_noun_of(value)}, not an object")
        need = round((_cost(line, len(line)) * 10 / _ROOM + 300_000_000) / 10**6)
        raise BadLine(
            TOO_LARGE,
            f"a JSON line of {len(line)} bytes holds too many values for the memory budget",
            0,
            f"it needs --memory {need}MB",
        )

    def _text_of(self, value: Any) -> str | None:
        key = self.source.text_key
        if not isinstance(value, dict):
            raise NoText(f"the line holds {_noun(value)}, not an object")
        values = values_of(value, key)
        if not values:
            shown = itertools.islice(value, 8)
            keys = ", ".join(repr(name[:_KEY_SHOWN]) for name in shown) or "none"
            raise NoText(f"there is no field {key!r}; the fields are {keys}")
        if len(values) > 1:
            raise NoText(f"there are {len(values)} fields that {key!r} may mean")
        if values[0] is not None and not isinstance(values[0], str):
            raise NoText(f"the field {key!r} holds {_noun(values[0])}, not a string")
        text: str | None = values[0]
        return text

    def _line_number(self, number: int) -> int:
        return self.source.line_number(self.start, self.lines_before) + number

    def _error(self, bad: BadLine, offset: int, number: int) -> InputError:
        place = f"{self.source.file.path}:{self._line_number(number)}, byte {offset + bad.place}"
        fix = "correct or remove that line, or go on without it: --on-bad quarantine"
        if bad.reason == TOO_LARGE:
            fix = f"{bad.why}; or leave the line out: --on-bad quarantine"
        if "no field" in bad.what:
            fix = "name the text's field with --text-key"
        return InputError(bad.what, place, bad.why, fix)

    def _record(self, bad: BadLine, line: bytes, offset: int, number: int) -> BadRecord:
        """The line without its line feed."""
        size = len(line) - line.endswith(b"\n")
        detail = f"{bad.what}{f': {bad.why}' if bad.why else ''} (byte {offset + bad.place})"
        return bad_record(
            self.source.file,
            bad.reason,
            detail,
            line[: min(RAW_BYTES, size)],
            offset=offset,
            line=self._line_number(number),
            length=size,
        )


class _BadLines:
    """The bad lines of a block. After the first thousand, neighbours of one kind are one record,
    for a block of the shortest bad lines has a million of them."""

    def __init__(self, records: list[BadRecord]) -> None:
        self._records = records
        self._reason: str | None = None
        self._start = self._end = 0
        self._raw = bytearray()
        self._is_grown = self._has_end = False

    def is_next(self, reason: str, line: bytes, offset: int) -> bool:
        """Does a bad line belong to the record before it? Then it is in it now."""
        if reason != self._reason or self._end != offset:
            return False
        room = RAW_BYTES - len(self._raw)
        if room > 0:
            self._raw += (b"\n" + line.removesuffix(b"\n"))[:room]
        self._end = offset + len(line)
        self._is_grown = True
        self._has_end = line.endswith(b"\n")
        return True

    def add(self, record: BadRecord) -> None:
        """A bad line that is a record of its own."""
        self.finish()
        self._records.append(record)
        if len(self._records) >= _MOST_RECORDS and record.offset is not None:
            self._reason, self._start = record.reason, record.offset
            self._end = record.offset + record.length + 1
            self._raw = bytearray(record.raw)

    def finish(self) -> None:
        """No more lines belong to the last record."""
        if self._is_grown:
            last = self._records[-1]
            self._records[-1] = replace(
                last,
                detail=last.detail + _AND_MORE,
                length=self._end - self._has_end - self._start,
                raw=bytes(self._raw),
            )
        self._reason, self._is_grown = None, False


def _not_utf8(line: bytes) -> BadLine:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        place = error.start
        return BadLine(INVALID_UTF8, f"invalid UTF-8: byte 0x{line[place]:02x}", place)
    return BadLine(INVALID_UTF8, "the text holds half a surrogate pair")


def _not_json(line: bytes, repaired: str, error: json.JSONDecodeError) -> BadLine:
    """The error with its place in the line, of a character of its repaired text."""
    place = len(repaired[: error.pos].encode("utf-8", "surrogatepass"))
    place = utf8.raw_place(line, _HALF, place)
    return BadLine(NOT_JSON, "not a JSON object", place, error.msg)


def _refuse_head(head: bytes) -> None:
    """Raise what Python's ``json`` says of a line that begins so, where the rest cannot matter."""
    text = utf8.repair(head, _HALF)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos < len(text) - _SURE and not error.msg.startswith("Unterminated"):
            raise _not_json(head, text, error) from None
    except RecursionError:
        raise
    except ValueError:
        pass  # a number that is too long, or of which this is the head


def _without_halves(text: str, counts: Counts) -> bytes:
    """As UTF-8, with U+FFFD for each half of a surrogate pair; a little at a time, for each of
    them costs a place in a list."""
    parts = []
    for start in range(0, len(text), _STEP):
        part, replaced = _HALVES.subn(utf8.REPLACEMENT, text[start : start + _STEP])
        counts.replaced += replaced
        parts.append(part.encode())
    return b"".join(parts)


def _cost(line: bytes, size: int) -> int:
    """At most so much memory do the objects take that Python's ``json`` makes of the head of a
    line; what is in its strings is counted, too.

    Measured, with Python 3.11: 24 bytes for each byte of ``{"a":1},`` and of ``[1],``, 15 of ever
    new keys, 16 of ``["x"],``; the costs below come to between two and four times that.
    """
    each = ((b"{", 232), (b"[", 96), (b":", 250), (b",", 100))
    return 5 * min(size, len(line)) + sum(line.count(sign, 0, size) * cost for sign, cost in each)


def _deeper(call: Callable[[], Any], frames: int = 16) -> Any:
    """``call()`` with less of the interpreter's stack left than line by line there is: what is
    nested almost too deeply for it is then decided line by line, whatever stands around it."""
    return _deeper(call, frames - 1) if frames else call()


def _lines(text: bytes) -> Iterator[bytes]:
    """The lines with their line feeds; nothing else ends a line."""
    start = 0
    while start < len(text):
        stop = text.find(b"\n", start) + 1 or len(text)
        yield text[start:stop]
        start = stop


def _plain_lines(text: bytes) -> int | None:
    """How many lines there are, if each begins with ``{`` and ends with ``}``; else None.

    The fast decoder takes any white space between two objects, and as many objects in a line as
    there are. Lines of this shape, as many as objects, hold one object each.
    """
    import numpy as np

    if not text.startswith(b"{"):
        return None
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    if len(ends) == 0 or ends[0] == 0:
        return None
    is_whole = bool(ends[-1] == len(text) - 1)
    begins = ends[:-1] + 1 if is_whole else ends + 1
    lasts = characters[ends - 1]
    if (lasts == ord("\r")).all():
        lasts = characters[ends - 2]
    well = (lasts == ord("}")).all() and (characters[begins] == ord("{")).all()
    return len(ends) + (not is_whole) if well else None


def _noun_of(value: bytes) -> str:
    """What a JSON value is, by its first character."""
    nouns = {b"{": "an object", b"[": "a list", b'"': "a string", b"n": "null"}
    first = value[:1]
    return "true or false" if first in (b"t", b"f") else nouns.get(first, "a number")


def _noun(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


class JsonlSource(Source):
    """A JSONL file as blocks of whole lines."""

    def __init__(self, file: InputFile, options: SourceOptions) -> None:
        self.file = file
        self.text_key = options.text_key
        self.decoder, self.text_of = _decoder(options.text_key)
        self._raw_decoder, self._raw_of = _raw_decoder(options.text_key)
        self.options = options
        self._stream: ByteStream | None = None
        self._reader: ByteStream | None = None

    def raw_text(self, line: bytes) -> bytes | None:
        """The text's JSON as it stands in a line; None where it is missing. Raises what msgspec
        raises, and ValueError where that alone cannot tell."""
        found = self._raw_of(self._raw_decoder.decode(line))
        return None if found is None else bytes(found)

    def fetch(self, state: State | None) -> None:
        if self._stream is None:
            self._stream = opened(self.file, self.options, self.options.ahead)
            if state is None or "ended" not in state:
                self._stream.begin(state.get("position", 0) if state else 0)

    @classmethod
    def check_beginning(
        cls,
        file: InputFile,
        options: SourceOptions,
        text: bytes,
        is_whole: bool,
        read: Callable[[int], tuple[bytes, bool]],
    ) -> None:
        if options.quarantines:
            return  # each line that has no text is a record
        source = cls(file, options)
        if not source.check_first_line(text, is_whole):
            source.check_first_line(*read(FIRST_LINE_BYTES))

    def check_first_line(self, text: bytes, is_whole: bool) -> bool:
        """Raise InputError when the first line of the file, which begins with ``text``, has no
        text: then few of its lines have one. What else may be wrong with it is seen in its turn.
        Was there a line to its end? ``is_whole``: the file has no more."""
        offset = len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0
        lines = _lines(text[offset:])
        for number, line in enumerate(lines):
            if line.strip(b" \t\r\n") and (line.endswith(b"\n") or is_whole):
                _Lines(self, 0, 0).check_text(line, offset, number)
                return True
            offset += len(line)
        return is_whole

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
            if not excerpt.is_held:
                self._reader = stream
            yield JsonlBlock(
                path=self.file.path,
                excerpt=excerpt,
                size=disk - before,
                after=state,
                lines_before=lines_before,
            )

    def read(self, block: Block) -> DocumentBatch:
        if isinstance(block, BadBlock):
            return block.batch
        assert isinstance(block, JsonlBlock)
        text = block.excerpt.take(self._text)
        return _Lines(self, block.excerpt.start, block.lines_before).documents(text)

    def _text(self) -> ByteStream:
        """The text, where it can be read in any order."""
        if self._reader is None:
            self._reader = opened(self.file, self.options)
        return self._reader

    def _lines_before(self, position: int) -> int | None:
        """How many there are, where it is worth knowing before there is an error."""
        if position == 0:
            return 0
        return self.line_number(position, None) - 1 if self.options.quarantines else None

    def _line_end(self, stream: ByteStream, start: int) -> int | None:
        """The end of the first line that ends at or after ``start`` and a block; or, before a
        line that is too large, the end of the one before. None if it is the first that is."""
        block, step = self.options.sizes.block, self.options.sizes.line_step
        at = start + block - 1
        while True:
            window = stream.peek(at, at + step)
            found = window.find(b"\n")
            if found >= 0:
                return at + found + 1
            if len(window) < step:
                if window:
                    return at + len(window)
                return start + len(stream.peek(start, at))
            at += step
            if at - start > block + self.options.record_bytes:
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
        lines = list(_lines(text))
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

    ways = list(divided(text_key))
    try:
        if not ways:
            kind = _record_kind([("text", str | None)], {"text": text_key})
            return msgspec.json.Decoder(kind), operator.attrgetter("text")
        if len(ways) > 1:
            return msgspec.json.Decoder(), lambda value: _only_text(value, text_key)
        outer, inner = ways[0]
        nested = _record_kind([("text", str | None)], {"text": inner})
        fields: list[Any] = [
            ("text", str | None | msgspec.UnsetType, msgspec.UNSET),
            ("nested", nested | None | msgspec.UnsetType, msgspec.UNSET),
        ]
        kind = _record_kind(fields, {"text": text_key, "nested": outer})
    except ValueError as error:
        raise UsageError(
            f"--text-key {text_key!r} cannot be a field",
            why=str(error),
            fix="give the name of the text's field as it stands in the lines",
        ) from None
    unset = msgspec.UNSET
    return msgspec.json.Decoder(kind), lambda r: r.nested.text if r.text is unset else r.text


def _record_kind(fields: list[Any], names: dict[str, str]) -> Any:
    import msgspec

    return msgspec.defstruct("Record", fields, rename=names, gc=False)


def _raw_decoder(text_key: str) -> tuple[Any, Callable[[Any], Any]]:
    """The same of records whose text is taken as it stands in the line (None: it is missing),
    without a look into it; a key that can be read in several ways is left to the reference."""
    import msgspec

    ways = list(divided(text_key))
    raw: list[Any] = [("text", msgspec.Raw, msgspec.field(default=None))]
    if not ways:
        kind = _record_kind(raw, {"text": text_key})
        return msgspec.json.Decoder(kind), operator.attrgetter("text")
    outer, inner = ways[0]
    nested = _record_kind(raw, {"text": inner})
    fields = [*raw, ("nested", nested | None, None)]
    kind = _record_kind(fields, {"text": text_key, "nested": outer})

    def taken(record: Any) -> Any:
        if record.text is not None:
            return record.text
        if len(ways) > 1:
            raise ValueError(text_key)
        return record.nested and record.nested.text

    return msgspec.json.Decoder(kind), taken


def _only_text(record: Any, key: str) -> Any:
    """The one value that a key names. Raises ValueError for anything else."""
    (value,) = values_of(record, key)
    if value is not None and not isinstance(value, str):
        raise ValueError(key)
    return value
