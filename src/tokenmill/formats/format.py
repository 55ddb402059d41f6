"""What a format is: names, header, dtype, delimiter side, defaults, and what its loader demands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenmill.errors import UsageError

UINT16_LARGEST = 65535


class ShardDamage(Exception):
    """A file is not a whole shard of its format; the message says in what way."""


@dataclass(frozen=True)
class TokenFile:
    """Where the tokens lie in a shard: ``tokens`` of ``dtype`` (little-endian) from ``offset``."""

    path: Path
    offset: int
    dtype: str
    tokens: int


@dataclass(frozen=True)
class Layout:
    """A dataset's outline, planned (then ``exact`` is False) or written.

    ``shards`` maps a split to the token counts of its files, in order.
    """

    shards: dict[str, list[int]]
    end_of_text: int
    exact: bool

    def tokens(self, split: str | None = None) -> int:
        """All tokens of one split, or of all."""
        if split is None:
            return sum(map(sum, self.shards.values()))
        return sum(self.shards.get(split, []))


class Format(ABC):
    """The layout that one trainer reads. Formats are stateless: one instance each."""

    name: ClassVar[str]
    delimiter: ClassVar[str]
    """Where the end-of-text id stands: ``before`` or ``after`` each document."""
    default_name: ClassVar[str]
    default_shard_tokens: ClassVar[int | None]
    """Tokens in a shard; None is one file a split."""
    default_val_fraction: ClassVar[float] = 0.0
    default_val_shards: ClassVar[int] = 0
    suffix: ClassVar[str]

    @abstractmethod
    def dtype(self, largest_id: int) -> str:
        """``uint16`` or ``uint32``. Raises UsageError when the loader cannot hold the ids."""

    @abstractmethod
    def header(self, tokens: int, dtype: str) -> bytes:
        """What stands before the tokens; of one length for every count."""

    @abstractmethod
    def open(self, path: Path) -> TokenFile:
        """Check a shard's header against its size. Raises ShardDamage."""

    def check(self, shard_tokens: int | None, dtype: str, end_of_text: int) -> None:
        """Refuse, before any work, what the loader can never read. Raises UsageError."""
        return

    def warnings(self, layout: Layout) -> list[str]:
        """What the loader will stumble over in a dataset of this layout, each with a fix."""
        return []

    def file_name(self, name: str, split: str, index: int | None) -> str:
        """The name of shard ``index`` of a split; None when the split is one file."""
        number = 0 if index is None else index
        return f"{name}_{split}_{number:06d}{self.suffix}"

    def uint16_only(self, largest_id: int, reason: str) -> str:
        """``uint16``, or a UsageError that says why nothing else can be."""
        if largest_id > UINT16_LARGEST:
            raise UsageError(
                f"format {self.name} holds ids up to {UINT16_LARGEST}, "
                f"this tokenizer has ids up to {largest_id}",
                None,
                reason,
                "use --format llm.c (32-bit shards), or a smaller tokenizer such as gpt2",
            )
        return "uint16"


def item_bytes(dtype: str) -> int:
    """Bytes of one token."""
    return {"uint16": 2, "uint32": 4}[dtype]


def plain_tokens(path: Path, offset: int, dtype: str, declared: int | None = None) -> TokenFile:
    """The tokens after a header, checked to fill the file exactly."""
    size = path.stat().st_size - offset
    width = item_bytes(dtype)
    if size < 0:
        raise ShardDamage(f"{offset + size} bytes, too short for its header of {offset}")
    if size % width:
        raise ShardDamage(f"{size} bytes of tokens, not a multiple of {width}")
    if declared is not None and declared * width != size:
        raise ShardDamage(f"the header tells {declared} tokens, the file holds {size // width}")
    return TokenFile(path, offset, dtype, size // width)
