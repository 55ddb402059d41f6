"""build-nanogpt: NumPy v1.0 files of uint16, the first shard for validation (fineweb.py).

The bytes are those of ``np.save``: magic, version 1.0, a header padded to 128 bytes in all. The
loader (train_gpt2.py, DataLoaderLite) takes every name in the folder that contains the split's
name, sorted.
"""

from __future__ import annotations

import re

from tokenmill.errors import UsageError
from tokenmill.formats.flat import FlatFormat
from tokenmill.formats.format import Layout, ShardDamage
from tokenmill.splits import NAMES, TRAIN

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_BYTES = 128


class BuildNanoGPT(FlatFormat):
    name = "build-nanogpt"
    delimiter = "before"
    default_name = "edufineweb"
    default_shard_tokens = 100_000_000
    default_val_shards = 1
    suffix = ".npy"

    def dtype(self, largest_id: int) -> str:
        return self.uint16_only(largest_id, "build-nanogpt's fineweb.py writes uint16")

    def header(self, tokens: int, dtype: str) -> bytes:
        text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({tokens},), }}"
        length = _HEADER_BYTES - len(_MAGIC) - 2
        return _MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"

    def read_header(self, head: bytes) -> tuple[str, int | None]:
        shape = re.search(rb"'shape': \((\d{1,20}),\)", head)
        tokens = int(shape[1]) if shape else 0
        if shape is None or self.header(tokens, "uint16") != head:
            raise ShardDamage("the NumPy header is not that of a token shard")
        return "uint16", tokens

    def check_name(self, name: str) -> None:
        if any(split in name for split in NAMES):
            raise UsageError(
                f"--name {name!r} contains the name of a split",
                why="build-nanogpt's loader takes every file whose name contains it",
                fix="use a name without train and val",
            )

    def warnings(self, layout: Layout) -> list[str]:
        if layout.shards.get(TRAIN):
            return []
        return [
            "there is no train shard: the first shard is for validation, and the corpus fits in "
            "it; the loader will say 'no shards found for split train'; fix: a smaller "
            "--shard-tokens, or --val-fraction"
        ]


BUILD_NANOGPT = BuildNanoGPT()
