"""Writes the same documents in every kind of input that tokenmill reads.

A kind is a name such as `jsonl`, `jsonl.zst` or `parquet`; `write` gives the path and the options
that make `prepare` see exactly those documents.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SEPARATOR = "<<<end of document>>>"


def zst(data: bytes, checksum: bool = False) -> bytes:
    """One zstd frame."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: int(checksum)})


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zst,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}

KINDS = ("txt", "jsonl", "parquet")
COMPRESSED_KINDS = tuple(f"{kind}{suffix}" for kind in ("txt", "jsonl") for suffix in COMPRESSORS)


@dataclass(frozen=True)
class Corpus:
    """An input file, and the options that go with it."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """The same as command-line arguments."""
        named = [(f"--{key.replace('_', '-')}", str(value)) for key, value in self.options.items()]
        return [str(self.path), *(part for pair in named for part in pair)]


def jsonl(documents: Sequence[str | None], key: str = "text") -> bytes:
    """One JSON object a line, the text as raw UTF-8."""
    lines = (json.dumps({"id": i, key: d}, ensure_ascii=False) for i, d in enumerate(documents))
    return "".join(line + "\n" for line in lines).encode()


def separated(documents: Sequence[str]) -> bytes:
    """Plain text, each document ended by the separator."""
    assert not any(SEPARATOR in document for document in documents)
    return "".join(document + SEPARATOR for document in documents).encode()


def write_parquet(
    path: Path,
    documents: Sequence[str | bytes | None],
    *,
    key: str = "text",
    type_: pa.DataType | None = None,
    row_group: int = 100,
    **options: Any,
) -> Path:
    """A parquet file with an `id` column and the text column in the given type."""
    texts = pa.array(documents, type=type_ or pa.string())
    table = pa.table({"id": pa.array(range(len(documents))), key: texts})
    pq.write_table(table, path, row_group_size=row_group, **{"compression": "zstd"} | options)
    return path


def write(folder: Path, kind: str, documents: Sequence[str], name: str = "corpus") -> Corpus:
    """The documents as a file of that kind."""
    path = folder / f"{name}.{kind}"
    form, _, suffix = kind.partition(".")
    if form == "parquet":
        write_parquet(path, documents)
        return Corpus(path)
    data = separated(documents) if form == "txt" else jsonl(documents)
    if suffix:
        data = COMPRESSORS[f".{suffix}"](data)
    path.write_bytes(data)
    return Corpus(path, {"documents": f"separator:{SEPARATOR}"} if form == "txt" else {})
