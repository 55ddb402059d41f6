"""llm.c: 256 int32 of header, then the ids (dev/data/data_common.py, llmc/dataloader.h).

Version 1 holds uint16 (magic 20240520), version 7 uint32 (magic 20240801), which
train_llama3.py reads and the C loader does not.
"""

from __future__ import annotations

import struct

from tokenmill.errors import UsageError
from tokenmill.formats.flat import FlatFormat
from tokenmill.formats.format import UINT16_LARGEST, Layout, ShardDamage, item_bytes
from tokenmill.splits import TRAIN

HEADER_BYTES = 1024
_KINDS = {"uint16": (20240520, 1), "uint32": (20240801, 7)}
_LARGEST_FILE = 2**31 - 1
SMALLEST_SHARD = 8 * 64 * 1024 + 1
"""num_processes * B * T + 1 for the README's run (8 GPUs, B=64, T=1024): shards may not be less."""


class LlmC(FlatFormat):
    name = "llm.c"
    delimiter = "before"
    default_name = "fineweb"
    default_shard_tokens = 100_000_000
    default_val_shards = 1
    suffix = ".bin"

    def dtype(self, largest_id: int) -> str:
        return "uint16" if largest_id <= UINT16_LARGEST else "uint32"

    def header(self, tokens: int, dtype: str) -> bytes:
        return struct.pack("<3i", *_KINDS[dtype], tokens).ljust(HEADER_BYTES, b"\0")

    def read_header(self, head: bytes) -> tuple[str, int | None]:
        if len(head) < HEADER_BYTES:
            raise ShardDamage(f"{len(head)} bytes, too short for its header of {HEADER_BYTES}")
        magic, version, tokens = struct.unpack_from("<3i", head)
        for dtype, kind in _KINDS.items():
            if kind == (magic, version):
                return dtype, tokens
        raise ShardDamage(f"magic {magic} and version {version} are not llm.c's")

    def check(self, shard_tokens: int | None, dtype: str, end_of_text: int) -> None:
        most = (_LARGEST_FILE - HEADER_BYTES) // item_bytes(dtype)
        if shard_tokens is None or shard_tokens > most:
            raise UsageError(
                f"--shard-tokens {shard_tokens or 'none'} is too large for {self.name}",
                None,
                "its loader seeks with a 32-bit offset, so a shard must stay under 2 GiB",
                f"--shard-tokens {most} or less",
            )

    def warnings(self, layout: Layout) -> list[str]:
        found = []
        for split, counts in layout.shards.items():
            if layout.exact and counts and counts[-1] < SMALLEST_SHARD:
                found.append(
                    f"the last {split} shard holds {counts[-1]} tokens; every shard must hold "
                    f"num_processes*B*T+1 ({SMALLEST_SHARD} for 8 GPUs, B=64, T=1024), or training "
                    "aborts; fix: another --shard-tokens, or leave that file out"
                )
        if not layout.shards.get(TRAIN):
            found.append(
                "there is no train shard: the corpus fits in the validation shard; fix: a smaller "
                "--shard-tokens, or --val-fraction"
            )
        return found


LLMC = LlmC()
