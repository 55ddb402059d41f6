"""A shard that is one file: a header of fixed length, then the ids, little-endian and in a row.

So are nanogpt's, build-nanogpt's, llm.c's and modded-nanogpt's; each says what its header is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tokenmill.formats.format import (
    Appendable,
    Bytes,
    Format,
    Opener,
    ShardDamage,
    item_bytes,
    row_bytes,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FlatFormat(Format):
    """A format of one file a shard, without document starts."""

    suffix: ClassVar[str]

    @abstractmethod
    def header(self, tokens: int, dtype: str) -> bytes:
        """What stands before the tokens; of one length for every count."""

    @abstractmethod
    def read_header(self, head: bytes) -> tuple[str, int | None]:
        """The dtype and the count of tokens that a file's header tells (None: it tells none);
        ``head`` has the length of a header, or less in a short file. Raises ShardDamage."""

    @property
    def header_bytes(self) -> int:
        """Its length."""
        return len(self.header(0, "uint16"))

    def files(self, name: str, split: str, index: int | None) -> tuple[str, ...]:
        return (f"{name}_{split}_{0 if index is None else index:06d}{self.suffix}",)

    def writer(
        self, files: tuple[str, ...], open_: Opener, dtype: str, expected: int
    ) -> FlatWriter:
        return FlatWriter(self, open_(files[0], self.header(expected, dtype)), dtype)

    def reader(self, files: Mapping[str, Bytes]) -> FlatReader:
        (file,) = files.values()
        length = self.header_bytes
        dtype, told = self.read_header(file.read(0, min(length, file.size)))
        size, width = file.size - length, item_bytes(dtype)
        if size < 0:
            raise ShardDamage(f"{file.size} bytes, too short for its header of {length}")
        if size % width:
            raise ShardDamage(f"{size} bytes of tokens, not a multiple of {width}")
        if told is not None and told * width != size:
            raise ShardDamage(f"the header tells {told} tokens, the file holds {size // width}")
        return FlatReader(file, length, dtype, size // width)

    def fits(self, sizes: Mapping[str, int], shard: str, tokens: int, dtype: str) -> bool:
        return dict(sizes) == {shard: self.header_bytes + row_bytes(tokens, dtype)}


class FlatWriter:
    """The one file of a flat shard."""

    def __init__(self, layout: FlatFormat, file: Appendable, dtype: str) -> None:
        self._layout = layout
        self._file = file
        self._dtype = dtype

    def append(self, ids: NDArray[Any], starts: NDArray[np.int64]) -> None:
        self._file.write(ids.data.cast("B"))

    def finish(self) -> None:
        tokens = (self._file.size - self._layout.header_bytes) // item_bytes(self._dtype)
        self._file.set_head(self._layout.header(tokens, self._dtype))


class FlatReader:
    """The one file of a flat shard, whose header fits its size."""

    def __init__(self, file: Bytes, head_bytes: int, dtype: str, tokens: int) -> None:
        self._file = file
        self.head_bytes = head_bytes
        self.dtype = dtype
        self.tokens = tokens

    def ids(self, start: int, stop: int) -> NDArray[Any]:
        import numpy as np

        width = item_bytes(self.dtype)
        begin, end = (self.head_bytes + place * width for place in (start, stop))
        return np.frombuffer(self._file.read(begin, end), np.dtype(self.dtype).newbyteorder("<"))

    def starts(self) -> NDArray[np.int64] | None:
        return None
