"""A kind of input that nobody else reads: records of a stated length.

Each is a line with the number of its bytes, the text, and a line end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tokenmill.batches import NO_TEXT, DocumentBatch, State
from tokenmill.errors import InputError
from tokenmill.kinds import KINDS, Kind
from tokenmill.sources.bad_records import (
    BadBlock,
    add_document,
    bad_record,
    damage_block,
    record_too_large,
)
from tokenmill.sources.block import Block, resumed
from tokenmill.sources.source import Sample, Source, opened
from tokenmill.sources.stream import ByteStream, Excerpt

LONGEST_HEAD = 21


@dataclass(kw_only=True)
class RecBlock(Block):
    """Whole records. It is plain data: it may go to another process."""

    path: str
    excerpt: Excerpt

    @property
    def where(self) -> str:
        return f"{self.path}, byte {self.excerpt.start}"

    @property
    def text_bytes(self) -> int:
        return self.excerpt.stop - self.excerpt.start


class RecSource(Source):
    """A file of records, as blocks."""

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        state = resumed(state, {"position": 0, "disk": 0})
        stream = opened(self.file, self.options, self.options.ahead)
        stream.begin(state["position"])
        while "ended" not in state:
            start, before = state["position"], state
            stream.release(start)  # nothing before is asked for again
            stop = self.end(stream, start)
            if stop == start:
                last = damage_block(self.file, stream, state) or self.rest(stream, state)
                if last:
                    yield last
                break
            excerpt = stream.excerpt(start, stop)
            state = {"position": stop, "disk": stream.disk_position(stop)}
            size = state["disk"] - before["disk"]
            yield RecBlock(path=self.file.path, excerpt=excerpt, size=size, after=state)
        stream.finish()

    def end(self, stream: ByteStream, start: int) -> int:
        """Where a block that begins at a record ends: at one, about a block's size later."""
        at = start
        while at < start + self.options.sizes.block:
            head = stream.peek(at, at + LONGEST_HEAD).partition(b"\n")[0]
            if not head.isdigit():
                break  # the end, or something that is no record
            if int(head) > self.options.record_bytes:
                raise record_too_large(self.file, f"byte {at}", int(head), "a record")
            stop = at + len(head) + 1 + int(head) + 1
            if stream.peek(stop - 1, stop) != b"\n":
                break
            at = stop
        return at

    def rest(self, stream: ByteStream, state: State) -> BadBlock | None:
        """What is behind the last record, if anything is: nobody knows where the next begins."""
        start, raw = state["position"], stream.peek(state["position"], state["position"] + 1000)
        if not raw:
            return None
        if not self.options.quarantines:
            where = f"{self.file.path}, byte {start}"
            raise InputError("here begins no record", where, None, "write the file again")
        detail = "here begins no record; what follows is left out"
        record = bad_record(self.file, NO_TEXT, detail, raw, offset=start)
        size = self.file.size - state["disk"]
        return BadBlock(size=size, after={**state, "ended": True}, record=record)

    def read(self, block: Block) -> DocumentBatch:
        if isinstance(block, BadBlock):
            return block.batch
        assert isinstance(block, RecBlock)
        text, batch, at = block.excerpt.take(self.text), DocumentBatch([]), 0
        while at < len(text):
            begin = text.index(b"\n", at) + 1
            stop = begin + int(text[at:begin])
            add_document(
                batch, text[begin:stop], self.file, self.options, block.excerpt.start + begin
            )
            at = stop + 1
        return batch

    def text(self) -> ByteStream:
        """The text for a worker, where it may be read in any order."""
        return opened(self.file, self.options)

    def sample(self, position: float, size: int) -> Sample:
        """From the start, wherever it is asked for: from there alone one finds the records."""
        stream = self.text()
        stop = self.end(stream, 0)
        disk = stream.disk_position(stop)
        block = RecBlock(path=self.file.path, excerpt=stream.excerpt(0, stop), size=disk, after={})
        documents = self.read(block).documents
        return Sample(documents, disk, len(documents), disk)


KIND = Kind("rec", "tests.contract.toy_source:RecSource", (".rec",))


def register() -> None:
    """The one line, in a process of its own."""
    KINDS[KIND.name] = KIND
