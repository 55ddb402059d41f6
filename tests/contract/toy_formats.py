"""Two formats that no trainer reads, each a file and a line away from the table, as a real one is.

`INDEXED` has two files a shard: bare ids, and an index with a head that is set at the end, document
starts that grow, and a sum that comes last. `PACKED` has one file, made at the end out of two that
only grow: compressed ids are of no use to a run that goes on.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmill.formats import FORMATS, Bytes, Format, ShardDamage
from tokenmill.formats.format import Appendable, Opener

Starts = NDArray[np.int64]
_HEAD = struct.Struct("<4s4xqq")
_MAGIC = b"TOYX"


class Toy(Format):
    delimiter = "before"
    default_name = "toy"
    default_shard_tokens = 5000
    default_val_shards = 1

    def dtype(self, largest_id: int) -> str:
        return self.uint16_only(largest_id, "toys hold uint16")

    def stem(self, name: str, split: str, index: int | None) -> str:
        return f"{name}_{split}_{index or 0:06d}"


class Reader:
    dtype = "uint16"
    head_bytes = 0

    def __init__(self, ids: NDArray[Any], starts: Starts) -> None:
        self.tokens = len(ids)
        self._ids, self._starts = ids, starts

    def ids(self, start: int, stop: int) -> NDArray[Any]:
        return self._ids[start:stop]

    def starts(self) -> Starts | None:
        return self._starts


class Grown:
    """Ids in one file and document starts in another: what both toys write while they grow."""

    def __init__(self, ids: Appendable, starts: Appendable) -> None:
        self.ids, self.starts = ids, starts

    def append(self, ids: NDArray[Any], starts: Starts) -> None:
        before = self.ids.size // 2
        self.starts.write((starts + before).astype("<i8").data.cast("B"))
        self.ids.write(ids.data.cast("B"))


class IndexedWriter(Grown):
    def finish(self) -> None:
        tokens, size = self.ids.size // 2, self.starts.size
        starts = np.frombuffer(self.starts.read(_HEAD.size, size), "<i8")
        self.starts.set_head(_HEAD.pack(_MAGIC, tokens, len(starts)))
        self.starts.write(memoryview(struct.pack("<q", int(starts.sum()))))


class Indexed(Toy):
    name = "indexed-toy"

    def files(self, name: str, split: str, index: int | None) -> tuple[str, ...]:
        stem = self.stem(name, split, index)
        return f"{stem}.ids", f"{stem}.idx"

    def writer(
        self, files: tuple[str, ...], open_: Opener, dtype: str, expected: int
    ) -> IndexedWriter:
        return IndexedWriter(open_(files[0], b""), open_(files[1], bytes(_HEAD.size)))

    def reader(self, files: Mapping[str, Bytes]) -> Reader:
        ids, index = files.values()
        if index.size < _HEAD.size + 8 or index.size % 8:
            raise ShardDamage(f"an index of {index.size} bytes")
        magic, tokens, documents = _HEAD.unpack(index.read(0, _HEAD.size))
        if (
            magic != _MAGIC
            or ids.size != 2 * tokens
            or index.size != _HEAD.size + 8 + 8 * documents
        ):
            raise ShardDamage("the index is not that of these ids")
        starts = np.frombuffer(index.read(_HEAD.size, index.size - 8), "<i8")
        return Reader(np.frombuffer(ids.read(0, ids.size), "<u2"), starts)

    def fits(self, sizes: Mapping[str, int], shard: str, tokens: int, dtype: str) -> bool:
        index = sizes.get(shard.replace(".ids", ".idx"), 0)
        whole = index >= _HEAD.size and index % 8 == 0
        return len(sizes) == 2 and sizes.get(shard) == 2 * tokens and whole


class PackedWriter(Grown):
    def __init__(self, open_: Opener, final: str, scratch: tuple[str, ...]) -> None:
        super().__init__(open_(scratch[0], b""), open_(scratch[1], b""))
        self._open, self._final = open_, final

    def finish(self) -> None:
        ids, starts = (file.read(0, file.size) for file in (self.ids, self.starts))
        packed = zlib.compress(struct.pack("<q", len(ids)) + ids + starts)
        self._open(self._final, b"").write(memoryview(packed))


class Packed(Toy):
    name = "packed-toy"

    def files(self, name: str, split: str, index: int | None) -> tuple[str, ...]:
        return (self.stem(name, split, index) + ".pack",)

    def scratch(self, files: tuple[str, ...]) -> tuple[str, ...]:
        return files[0] + ".ids", files[0] + ".starts"

    def writer(
        self, files: tuple[str, ...], open_: Opener, dtype: str, expected: int
    ) -> PackedWriter:
        return PackedWriter(open_, files[0], self.scratch(files))

    def reader(self, files: Mapping[str, Bytes]) -> Reader:
        (file,) = files.values()
        try:
            content = zlib.decompress(file.read(0, file.size))
            (size,) = struct.unpack_from("<q", content)
        except (zlib.error, struct.error) as error:
            raise ShardDamage(str(error)) from error
        return Reader(
            np.frombuffer(content[8 : 8 + size], "<u2"), np.frombuffer(content[8 + size :], "<i8")
        )

    def fits(self, sizes: Mapping[str, int], shard: str, tokens: int, dtype: str) -> bool:
        ids, starts = (sizes.get(name, -1) for name in self.scratch((shard,)))
        return len(sizes) == 2 and ids == 2 * tokens and starts >= 0 and starts % 8 == 0


INDEXED, PACKED = Indexed(), Packed()
TOYS: dict[str, Format] = {entry.name: entry for entry in (INDEXED, PACKED)}


def register() -> None:
    """The one line, in a process of its own."""
    FORMATS.update(TOYS)
