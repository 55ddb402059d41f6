"""A format of one file a shard that no trainer reads: a magic word, the count, the ids."""

from __future__ import annotations

import struct

from tokenmill.formats.flat import FlatFormat
from tokenmill.formats.format import ShardDamage

HEAD = struct.Struct("<8sq")
MAGIC = b"OWLIDS16"


class Owl(FlatFormat):
    name = "owl"
    delimiter = "before"  # the end-of-text id stands before each document
    default_name = "owl"
    default_shard_tokens = 100_000_000
    default_val_shards = 1
    suffix = ".owl"

    def dtype(self, largest_id: int) -> str:
        return self.uint16_only(largest_id, "owls read uint16")

    def header(self, tokens: int, dtype: str) -> bytes:
        return HEAD.pack(MAGIC, tokens)

    def read_header(self, head: bytes) -> tuple[str, int | None]:
        if len(head) < HEAD.size or not head.startswith(MAGIC):
            raise ShardDamage(f"it does not begin with {MAGIC.decode()}")
        return "uint16", HEAD.unpack(head)[1]


OWL = Owl()
