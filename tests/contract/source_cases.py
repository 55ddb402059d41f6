"""Inputs of each kind for the suite of sources: how its files are written, good and bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.contract import toy_source
from tests.kit import corpora
from tokenmill.kinds import KINDS, Kind


@dataclass(frozen=True)
class SourceCase:
    """One kind of input. ``name`` is what stands behind the dot in a file's name; ``write`` makes
    a file of documents (each valid UTF-8, or for once not); ``options`` go with it. ``kind`` is
    that of your own; ``is_one``: all documents become one, joined by line feeds."""

    name: str
    write: Callable[[Path, Sequence[bytes]], object]
    options: dict[str, Any] = field(default_factory=dict)
    kind: Kind | None = None
    is_one: bool = False

    def file(self, folder: Path, documents: Sequence[bytes]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"corpus.{self.name}"
        self.write(path, documents)
        return path


def packed(
    content: Callable[[Sequence[bytes]], bytes],
) -> Callable[[Path, Sequence[bytes]], object]:
    """Writes what `content` gives, compressed as the file's name says."""

    def write(path: Path, documents: Sequence[bytes]) -> None:
        data = content(documents)
        squeeze = corpora.COMPRESSORS.get(path.suffix)
        path.write_bytes(squeeze(data) if squeeze else data)

    return write


def lines(documents: Sequence[bytes]) -> bytes:
    escaped = (d.replace(b'"', b'\\"').replace(b"\n", b"\\n") for d in documents)
    return b"".join(b'{"id": 1, "text": "%s"}\n' % document for document in escaped)


def separated(documents: Sequence[bytes]) -> bytes:
    return b"".join(document + corpora.SEPARATOR.encode() for document in documents)


def records(documents: Sequence[bytes]) -> bytes:
    return b"".join(b"%d\n%s\n" % (len(document), document) for document in documents)


def rows(row_group: int) -> Callable[[Path, Sequence[bytes]], object]:
    def write(path: Path, documents: Sequence[bytes]) -> None:
        corpora.write_parquet(
            path, documents, type_=pa.binary(), row_group=row_group, use_dictionary=False
        )

    return write


SEPARATED = {"documents": f"separator:{corpora.SEPARATOR}"}
REC = SourceCase("rec", packed(records), kind=toy_source.KIND)
CASES = {
    case.name: case
    for case in (
        SourceCase("txt", packed(separated), SEPARATED),
        *(
            SourceCase(f"txt{suffix}", packed(separated), SEPARATED)
            for suffix in corpora.COMPRESSORS
        ),
        SourceCase("one.txt", packed(b"\n".join), is_one=True),
        SourceCase("one.txt.zst", packed(b"\n".join), is_one=True),
        SourceCase("jsonl", packed(lines)),
        *(SourceCase(f"jsonl{suffix}", packed(lines)) for suffix in corpora.COMPRESSORS),
        SourceCase("parquet", rows(2)),
        SourceCase("giant.parquet", rows(1000)),
        REC,
        SourceCase("rec.gz", packed(records), kind=toy_source.KIND),
    )
}


def lines_of(cases: dict[str, SourceCase]) -> dict[str, Kind]:
    """The lines that they need in the table."""
    mine = [case.kind for case in cases.values() if case.kind is not None]
    return {kind.name: kind for kind in mine if kind.name not in KINDS}
