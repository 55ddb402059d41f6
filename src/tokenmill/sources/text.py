"""Plain text: one document, or divided by lines, blank lines or a separator.

Files of any size are read in bounded memory: a block is a byte range cut between two documents
where one ends near, else inside the document at a safe cut (``tokenmill.text.cuts``). A byte order
mark at the very start is dropped; every other byte is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tokenmill.batches import (
    INVALID_UTF8,
    SPECIAL_TEXT,
    TAKEN_OUT,
    Counts,
    DocumentBatch,
    State,
)
from tokenmill.errors import InputError, UsageError, choose_from
from tokenmill.memory import TooLarge
from tokenmill.sources.bad_records import (
    BadBlock,
    bad_record,
    check_utf8,
    damage_block,
    record_too_large,
)
from tokenmill.sources.block import Block, resumed
from tokenmill.sources.source import Sample, Source, SourceOptions, opened
from tokenmill.sources.stream import ByteStream, Excerpt
from tokenmill.splits import split_at
from tokenmill.stores import InputFile
from tokenmill.text import utf8
from tokenmill.text.cuts import NOWHERE, Cut, UnbrokenRun, find_cut, whole_characters
from tokenmill.units import format_bytes

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_RUN = "an unbroken run of text"
_NEAR = 1024
"""Bytes between two places that are taken out as one, where there are more than a thousand."""
_MOST_TIMES = 50
"""So often special text is looked for that only came together when other special text was out."""
_END = 1 << 62
_LONG_RUN = 4096
_TWO_ENDS = re.compile(rb"\r?\n\r?\n")
_ENDS = re.compile(rb"[\r\n]*")
_LONE_RETURN = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True)
class Divider:
    """How a text divides into documents: what stands between two, as a pattern over bytes.

    ``unbreakable`` strings lie inside a divider, so that no block may end in them.
    ``leading`` says whether a divider at the very start ends an (empty) document. ``is_run``: it
    is two line ends and all that follow.
    """

    pattern: re.Pattern[bytes]
    literal: bytes | None = None
    unbreakable: tuple[bytes, ...] = ()
    leading: bool = True
    is_run: bool = False

    def split(self, text: bytes) -> list[bytes]:
        """The documents of ``text``, dividers removed."""
        if self.literal:
            return text.split(self.literal)
        if not (self.is_run and _has_long_run(text)):
            return self.pattern.split(text)
        spans = list(self.spans(text))
        begins, ends = [0, *(stop for _, stop in spans)], [*(low for low, _ in spans), len(text)]
        return [text[low:high] for low, high in zip(begins, ends, strict=True)]

    def spans(self, text: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
        """Where the dividers are from ``start`` on."""
        if self.is_run and _has_long_run(text):
            return _long_runs(text, start)
        return (match.span() for match in self.pattern.finditer(text, start))


def _has_long_run(text: bytes) -> bool:
    """May there be thousands of line ends in a row? For each the regular expression would take 50
    bytes of memory."""
    ends, step = b"\r\n", _LONG_RUN // 2
    return any(
        text[place] in ends and not text[place : place + step].strip(ends)
        for place in range(0, len(text), step)
    )


def _long_runs(text: bytes, start: int) -> Iterator[tuple[int, int]]:
    """The same as the regular expression of a blank line gives, however long they are."""
    while first := _TWO_ENDS.search(text, start):
        run = _ENDS.match(text, first.end())
        assert run is not None
        lone = _LONE_RETURN.search(text, *run.span())
        start = lone.start() if lone else run.end()
        yield first.start(), start


def divider_of(documents: str) -> Divider | None:
    """The divider for a ``--documents`` mode; None for ``file``. Raises UsageError."""
    if documents == "file":
        return None
    if documents == "line":
        return Divider(re.compile(rb"\r?\n"), None, (b"\r\n",))
    if documents == "blank-line":
        inner = (b"\n\n", b"\n\r\n")
        pattern = re.compile(rb"\r?\n(?:\r?\n)+")
        return Divider(pattern, None, inner, leading=False, is_run=True)
    mode, _, literal = documents.partition(":")
    if mode == "separator" and literal:
        separator = literal.encode()
        return Divider(re.compile(re.escape(separator)), separator, (separator,))
    raise UsageError(
        f"--documents {documents!r} is no way to divide a text",
        fix=choose_from(documents, ["file", "line", "blank-line", "separator:STRING"])
        + "; a separator is written like separator:'<|endoftext|>'",
    )


class _Unreadable(Exception):
    """Up to ``stop`` there is invalid UTF-8 and no safe cut: the document ends there."""

    def __init__(self, stop: int) -> None:
        super().__init__(stop)
        self.stop = stop


@dataclass(kw_only=True)
class TextBlock(Block):
    """A byte range of a text."""

    path: str
    excerpt: Excerpt
    continues: bool
    unfinished: bool
    split: str | None

    @property
    def where(self) -> str:
        return f"{self.path}, byte {self.excerpt.start}"

    @property
    def text_bytes(self) -> int:
        return self.excerpt.stop - self.excerpt.start


def _starts(text: bytes, divider: Divider | None) -> list[int]:
    """Where the documents begin that ``Divider.split`` gives."""
    return [0, *(stop for _, stop in divider.spans(text))] if divider else [0]


def _occurrences(raw: bytes, taken: list[tuple[int, int]], wanted: bytes) -> list[tuple[int, int]]:
    """Where ``wanted`` stands in ``raw`` when ``taken`` is out of it, which may have made it: the
    first of them, as many as may be taken out one by one, and the last as one range."""
    text = utf8.without(raw, taken)
    found: list[tuple[int, int]] = []
    place = text.find(wanted)
    while place >= 0:
        end = place + len(wanted)
        if len(found) > utf8.MOST_PLACES:
            place = text.rfind(wanted)
            found.append((found[-1][1], _raw(place + len(wanted) - 1, taken) + 1))
            break
        found.append((_raw(place, taken), _raw(end - 1, taken) + 1))
        place = text.find(wanted, end)
    return found


def _widened(raw: bytes, low: int, high: int, more: int) -> tuple[int, int]:
    """A range with so many bytes more on both sides, or a few more still: whole characters."""
    low, high = max(0, low - more), min(len(raw), high + more)
    while low > 0 and raw[low] & 0xC0 == 0x80:
        low -= 1
    while high < len(raw) and raw[high] & 0xC0 == 0x80:
        high += 1
    return low, high


def _raw(position: int, taken: list[tuple[int, int]]) -> int:
    """The place in the raw text of what stands at ``position`` when ``taken`` is out of it."""
    for low, high in taken:
        if low > position:
            break
        position += high - low
    return position


class TextSource(Source):
    """A text file as blocks."""

    def __init__(self, file: InputFile, options: SourceOptions) -> None:
        self.file = file
        self.divider = divider_of(options.documents)
        self._options = options
        self._sizes = options.sizes
        self._unbreakable = options.unbreakable
        if self.divider:
            self._unbreakable += self.divider.unbreakable
        self._stream: ByteStream | None = None
        self._reader: ByteStream | None = None

    def fetch(self, state: State | None) -> None:
        if self._stream is None:
            self._stream = opened(self.file, self._options, self._options.ahead)
            if state is None or "ended" not in state:
                self._stream.begin(state.get("position", 0) if state else 0)

    def read(self, block: Block) -> DocumentBatch:
        if isinstance(block, BadBlock):
            return block.batch
        assert isinstance(block, TextBlock)
        text, offset = block.excerpt.take(self._text), block.excerpt.start
        first, counts, is_clean = offset == 0, Counts(), self._is_clean(text, offset)
        if first and text.startswith(BYTE_ORDER_MARK):
            text = text[len(BYTE_ORDER_MARK) :]
            offset = len(BYTE_ORDER_MARK)
            counts.byte_order_marks = 1
        divider = self.divider
        documents = divider.split(text) if divider else [text]
        offsets = [] if is_clean else [offset + start for start in _starts(text, divider)]
        if divider and not block.unfinished and not documents[-1]:
            documents.pop()  # a divider at the end ends the last document and begins none
        if divider and first and not divider.leading and documents[:1] == [b""]:
            del documents[0]
            del offsets[:1]
        batch = DocumentBatch(documents, block.continues, block.unfinished, block.split, counts)
        if not is_clean:
            last = len(documents) - 1
            batch.documents = [
                self._cleaned(
                    raw,
                    start,
                    batch,
                    is_whole=not (number == 0 and block.continues)
                    and not (number == last and block.unfinished),
                )
                for number, (raw, start) in enumerate(zip(documents, offsets, strict=False))
            ]
        return batch

    def _text(self) -> ByteStream:
        """The text, where it can be read in any order."""
        if self._reader is None:
            self._reader = opened(self.file, self._options)
        return self._reader

    def _is_clean(self, text: bytes, offset: int) -> bool:
        """Is there nothing to take out or to replace? Raises InputError for invalid UTF-8 unless
        something else was asked for."""
        options = self._options
        if not (options.quarantines or options.replaces):
            check_utf8(text, self.file, offset)
            return True
        refused = options.refused_when_kept
        return utf8.is_utf8(text) and not (refused and refused in text)

    def _cleaned(self, raw: bytes, offset: int, batch: DocumentBatch, is_whole: bool) -> bytes:
        """A document, or a part of one, as valid UTF-8; ``batch`` gets what that took."""
        # Where a document is cut, what is taken out must not depend on the documents before it.
        is_hopeless = is_whole and len(batch.bad) >= self._sizes.most_records
        most = 0 if is_hopeless else utf8.MOST_PLACES
        ranges = [] if self._options.replaces else utf8.places(raw, most)
        reason = dict.fromkeys(ranges, INVALID_UTF8)
        refused, gap, times = self._options.refused_when_kept, -1, 0
        while refused and (found := _occurrences(raw, ranges, refused)):
            reason.update(dict.fromkeys(found, SPECIAL_TEXT))
            times += 1
            if times > _MOST_TIMES or len(reason) > most:
                # Made to be removed again and again, or millions of times: what is near goes, too.
                gap = max(2 * gap, _NEAR)
            if times > _MOST_TIMES:
                found = [_widened(raw, low, high, gap) for low, high in found]
            ranges = utf8.join_ranges(sorted(ranges + found), gap)
        for low, high in ranges:
            record = bad_record(
                self.file,
                reason.get((low, high), SPECIAL_TEXT),
                TAKEN_OUT,
                raw[low:high],
                offset=offset + low,
            )
            batch.bad.append(record)
        kept, count = utf8.replace(utf8.without(raw, ranges))
        batch.counts.replaced += count
        return kept

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        first: State = {"position": 0, "disk": 0, "continues": False, "seam": None}
        state = resumed(state, first)
        self.fetch(state)
        assert self._stream is not None
        stream, self._stream = self._stream, None
        while "ended" not in state:
            start = state["position"]
            stream.release(start)
            try:
                cut, inside = self._next(stream, start)
            except _Unreadable as stretch:
                cut, inside = Cut(stretch.stop), False
            excerpt = stream.excerpt(start, cut.position if cut else _END)
            if excerpt.stop == start and (start > 0 or stream.damage):
                damaged = damage_block(self.file, stream, state, state["continues"])
                if damaged:
                    yield damaged
                break
            disk, before = stream.disk_position(excerpt.stop), state
            state = {"ended": True}
            if cut is not None or stream.damage:
                seam = cut.seam[1] if cut and cut.seam else None
                state = {
                    "position": excerpt.stop, "disk": disk, "continues": inside, "seam": seam
                }  # fmt: skip
            if not excerpt.is_held:
                self._reader = stream
            yield TextBlock(
                path=self.file.path,
                excerpt=excerpt,
                size=disk - before["disk"],
                after=state,
                continues=before["continues"],
                unfinished=inside,
                split=split_at(start, self._options.position_split),
                seam_before=before["seam"],
                seam_after=cut.seam[0] if cut and cut.seam else None,
            )
        stream.finish()

    def _next(self, stream: ByteStream, start: int) -> tuple[Cut | None, bool]:
        """Where the block that begins at ``start`` ends, and whether that is inside a document."""
        target = self._target(stream, start)
        border = self._options.position_split
        if border is not None and start < border <= target:
            return self._inside(self._cut(stream, start, border, start + 1))
        begin = start
        if start == 0 and stream.peek(0, len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            begin = len(BYTE_ORDER_MARK)  # the mark is not in the document, nor in what is hashed
        if self.divider is None:
            return self._inside(self._cut(stream, start, target, begin + self._sizes.hashed))
        found, reach = self._divided(stream, self.divider, start, target), self._sizes.reach
        if found is not None:
            return Cut(found), False
        head = stream.peek(start, target + reach)
        if len(head) < target + reach - start:
            return None, False
        last = begin
        for _, stop in self.divider.spans(head):
            last = start + stop
        floor = last + self._sizes.hashed
        return self._inside(self._cut(stream, start, max(target + reach, floor), floor))

    def _target(self, stream: ByteStream, start: int) -> int:
        """About where the block ends: earlier where documents are so short that it would have
        millions of them, for each costs memory, however empty it is."""
        sizes = self._sizes
        size = sizes.block
        if self.divider is not None:
            sign = self.divider.literal or b"\n"
            text = stream.peek(start, start + size)
            while size > sizes.least_block and text.count(sign, 0, size) > sizes.most_documents:
                size //= 2
        return start + size

    @staticmethod
    def _inside(cut: Cut | None) -> tuple[Cut | None, bool]:
        return cut, cut is not None

    def _cut(self, stream: ByteStream, start: int, target: int, floor: int) -> Cut | None:
        options = self._options
        replacement = utf8.REPLACEMENT if options.replaces else ""

        def find(limit: int) -> Cut | None:
            whole, rule = self._unbreakable, options.cuts
            return find_cut(
                stream, start, target, floor, options.seams, whole, limit, replacement, rule,
                self._sizes,
            )  # fmt: skip

        try:
            return self._found(find, stream, start)
        except TooLarge as run:
            what = f"{_RUN} of {format_bytes(run.size)} or more is too large for the memory budget"
            where = f"{self.file.path}, byte {start}"
            raise InputError(what, where, None, f"{run.fix}, or divide the text") from None

    def _found(
        self, find: Callable[[int], Cut | None], stream: ByteStream, start: int
    ) -> Cut | None:
        """What ``find`` finds within so many bytes. Raises TooLarge, InputError."""
        options = self._options
        try:
            return find(2 * self._sizes.block)
        except UnbrokenRun as run:
            # No matter how much memory there is: what is taken out must not depend on it.
            self._check_stretch(stream.peek(start, start + run.length), start)
        try:
            # To look for a seam costs 25 bytes of memory for each byte of half a run.
            return find(max(options.record_bytes * 2 // 3, 2 * self._sizes.block))
        except UnbrokenRun as run:
            noun = "a document" if options.cuts == NOWHERE else _RUN
            raise record_too_large(self.file, f"byte {run.start}", run.length, noun, 15) from None

    def _check_stretch(self, text: bytes, start: int) -> None:
        """A stretch without a safe cut that holds invalid UTF-8 is an error, or ends a document:
        between two documents, any cut is safe."""
        text = text[: 2 * self._sizes.block]
        if self._options.replaces or utf8.is_utf8(whole_characters(text)):
            return
        if not self._options.quarantines:
            check_utf8(whole_characters(text), self.file, start)
        back = next(i for i in range(5) if i == 4 or (i and text[-i] & 0xC0 != 0x80))
        at_end = len(text) < 2 * self._sizes.block
        raise _Unreadable(start + len(text) - (0 if at_end else back))

    def _divided(self, stream: ByteStream, divider: Divider, start: int, target: int) -> int | None:
        """The end of the first divider that surely begins at or after ``target``, if one is near.

        A match is sure when no other could overlap it from the left, so that dividing the whole
        text from its start finds the same one; and when it ends before the end of what was seen,
        so that it could not have gone on.
        """
        reach = len(divider.literal) - 1 if divider.literal else 0
        for step in self._steps():
            low = max(start, target - reach)
            window = stream.peek(low, target + step)
            at_end = len(window) < target + step - low
            for begin, end in divider.spans(window, target - low):
                if end == len(window) and not at_end:
                    break
                overlap = window[max(0, begin - reach) : begin + reach]
                if reach == 0 or (divider.literal or b"") not in overlap:
                    return low + end
            if at_end:
                return None
        return None

    def _steps(self) -> list[int]:
        """How far to look for a divider, again and again. A document that is never cut ends where
        its divider is, however far that may be."""
        is_uncut = self._options.cuts == NOWHERE
        reach = self._sizes.reach
        most = max(reach, self._options.record_bytes) if is_uncut else reach
        steps, step = [], 64 * 1024
        while step < most:
            steps.append(step)
            step *= 4
        return [*steps, most] if is_uncut or step == most else steps

    def sample(self, position: float, size: int) -> Sample:
        start = 0 if self.file.compression else int(position * max(0, self.file.size - size))
        stream = opened(self.file, self._options)
        text = stream.peek(start, start + size)
        share = stream.disk_position(len(text)) / max(1, len(text)) if start == 0 else 1.0
        documents = [text.decode("utf-8", "ignore").encode()]
        if self.divider:
            documents = self.divider.split(documents[0])
        begun = len(documents) - (start > 0)  # the first began before
        return Sample(documents, len(text) * share, begun, len(text) * share)
