"""Law 5 as one figure: how many bytes are lost silently over all injected damage.

Files of every kind are damaged at random, and prepared with `--on-bad quarantine`. What the input
holds is then worked out again, by the standard library and plain rules: all of it must be in the
tokens or in the range of a record, or the run must have stopped with an error. Bytes for which
neither is true are counted. Environment: TOKENMILL_SEED, TOKENMILL_DAMAGES (for each kind).
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import os
import random
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from tests.kit import corpora, oracles, texts
from tests.kit.outcome import Outcome
from tests.torture import mutations, targets
from tokenmill.errors import TokenmillError

SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
DAMAGES = int(os.environ.get("TOKENMILL_DAMAGES", "250"))
KINDS = [
    "txt", "jsonl", "parquet",
    *(f"{kind}{suffix}" for kind in ("txt", "jsonl") for suffix in corpora.COMPRESSORS),
]  # fmt: skip
SEPARATOR = corpora.SEPARATOR.encode()
EXPANDERS: dict[str, Callable[[], Any]] = {
    "gz": lambda: zlib.decompressobj(31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zst": zstd.ZstdDecompressor,
}


def documents() -> list[str]:
    """About 150 kB, short and long, some odd."""
    whole = texts.prose(140_000) + texts.mixed_scripts(10_000)
    sizes = [0, 1, 40, 700, 3000, 9000] * 12
    starts = np.cumsum([0, *sizes]).tolist()
    return [whole[low:high] for low, high in itertools.pairwise(starts)]


def damaged(rng: random.Random, data: bytes) -> bytes:
    """One to three kinds of trouble that disks, networks and people make."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, size = rng.randrange(len(data)), rng.choice((1, 1, 2, 16, 512, 4096))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[: max(1, at)]
        elif kind == 1:
            data = data[:at] + b"\0" * len(data[at : at + size]) + data[at + size :]
        elif kind == 2:
            data = data[:at] + rng.randbytes(size) + data[at + size :]
        elif kind == 3:
            data = data[:at] + data[at + size :] or data[:1]
        elif kind == 4:
            data = data[:at] + rng.choice(mutations.BYTES) + data[at:]
        else:
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    return data


def expanded(data: bytes, suffix: str) -> bytes:
    """The text of whole members and of the beginning of a broken one, by the standard library."""
    text = bytearray()
    while data:
        expander = EXPANDERS[suffix]()
        try:
            for at in range(len(data)):
                text += expander.decompress(data[at : at + 1], 4096)
                while not expander.eof and (more := expander.decompress(rest_of(expander), 4096)):
                    text += more
                if expander.eof:
                    break
        except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, zstd.ZstdError):
            break
        if not expander.eof:
            break
        data = data[at + 1 :]
        if suffix in ("gz", "xz"):
            data = data.lstrip(b"\0")
    return bytes(text)


def rest_of(expander: Any) -> bytes:
    """What zlib hands back when it has given enough; the others keep it."""
    rest: bytes = getattr(expander, "unconsumed_tail", b"")
    return rest


class Prepared:
    """The documents in the shards, as bytes, and the records of what is not in them."""

    def __init__(self, out: Path) -> None:
        outcome = Outcome(out)
        ids = outcome.documents() if "train" in str(outcome.manifest["shards"]) else []
        decode = oracles.encoding("gpt2").decode_bytes
        self.documents = [decode(document) for document in ids]
        path = out / "quarantine.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.nulls: int = outcome.manifest["counts"]["null_documents"]
        self.marks: int = outcome.manifest["counts"]["byte_order_marks"]

    def ranges(self, *others: str) -> list[tuple[int, int]]:
        """Of the text, what is in records."""
        found = [r for r in self.records if r["reason"] not in ("corrupt-compression", *others)]
        return sorted((r["offset"], r["offset"] + r["length"]) for r in found)


def lost_of_text(text: bytes, found: Prepared) -> int:
    """Bytes of a text that are neither in its documents nor in a record."""
    left, at = bytearray(), 0
    for low, high in found.ranges():
        left += text[at:low]
        at = max(at, high)
    left += text[at:]
    rest = bytes(left).removeprefix(b"\xef\xbb\xbf") if found.marks else bytes(left)
    kept = b"".join(found.documents)
    rest = rest.replace(SEPARATOR, b"")
    return 0 if kept == rest else max(1, len(rest) - len(kept))


def lost_of_lines(text: bytes, found: Prepared) -> int:
    """Bytes of JSON lines whose text is neither the next document nor in a record."""
    ranges, kept = found.ranges(), iter(found.documents)
    lost = at = nulls = 0
    for number, line in enumerate(text.split(b"\n")):
        start, at = at, at + len(line) + 1
        if any(low <= start and start + len(line) <= high for low, high in ranges):
            continue
        if number == 0 and found.marks:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip(b" \t\r"):
            continue
        value = json.loads(line.decode("utf-8", "surrogateescape"))["text"]
        if value is None:
            nulls += 1
        elif next(kept, None) != value.encode():
            lost += len(line)
    return lost + sum(map(len, kept)) + abs(nulls - found.nulls)


def lost_of_rows(rows: list[str], found: Prepared) -> int:
    """Bytes of rows that are neither the next document nor in a record."""
    missing: set[int] = set()
    for record in found.records:
        if record["row"] is None:
            return sum(map(len, found.documents))  # the whole file
        count = int(record["detail"].partition("(")[2].partition(" rows")[0] or 1)
        missing |= set(range(record["row"], record["row"] + count))
    kept = iter(found.documents)
    expected = [row.encode() for number, row in enumerate(rows) if number not in missing]
    lost = sum(len(row) or 1 for row in expected if next(kept, None) != row)
    return lost + sum(map(len, kept))


def lost_bytes(kind: str, rows: list[str], data: bytes, found: Prepared) -> int:
    """Of the damaged file, what was lost and not told."""
    form, _, suffix = kind.partition(".")
    if form == "parquet":
        return lost_of_rows(rows, found)
    lost = 0
    if suffix:
        told = [r for r in found.records if r["reason"] == "corrupt-compression"]
        if not told and not is_whole(data, suffix):
            lost += 1
        text = expanded(data, suffix)
        if told:  # from its offset to the end of the file, all is in the record
            lost += told[0]["offset"] + told[0]["length"] != len(data)
            kept = int(told[0]["detail"].partition("; the ")[2].partition(" bytes")[0])
            lost += len(text) < kept
            text = text[:kept]
        data = text
    return lost + (lost_of_text if form == "txt" else lost_of_lines)(data, found)


def is_whole(data: bytes, suffix: str) -> bool:
    """Do the standard library's own whole-file readers take it?"""
    readers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress,
        "zst": zstd.decompress,
    }  # fmt: skip
    try:
        readers[suffix](data)
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, zstd.ZstdError):
        return False
    return True


def in_members(path: Path, plain: Path) -> None:
    """Several members or frames, so that damage to one leaves the text of those before."""
    text, compress = plain.read_bytes(), corpora.COMPRESSORS[path.suffix]
    step = len(text) // 5
    parts = [text[at : at + step] for at in range(0, len(text), step)]
    path.write_bytes(b"".join(compress(part) for part in parts))


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> None:
    targets.make_small()


@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_is_lost_silently(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = documents()
    if kind == "parquet":
        path = tmp_path / "corpus.parquet"
        corpora.write_parquet(path, rows, row_group=12, write_page_checksum=True)
        corpus = corpora.Corpus(path)
    else:
        corpus = corpora.write(tmp_path, kind, rows)
        if corpus.path.suffix in corpora.COMPRESSORS:
            in_members(corpus.path, corpora.write(tmp_path, kind.partition(".")[0], rows).path)
    good, tally, wrong = corpus.path.read_bytes(), {"left out": 0, "stopped": 0, "harmless": 0}, []
    lost = 0
    for index in range(DAMAGES):
        data = damaged(random.Random(f"{SEED} {kind} {index}"), good)
        corpus.path.write_bytes(data)
        out = tmp_path / "out"
        try:
            targets.prepare(
                corpus.path, out=out, on_bad="quarantine", val_fraction=0.0, threads=1, check=0.0,
                checkpoint_seconds=9e9, **corpus.options,
            )  # fmt: skip
        except TokenmillError as error:
            assert error.fix, error
            tally["stopped"] += 1
        else:
            found = Prepared(out)
            tally["left out" if found.records else "harmless"] += 1
            gone = lost_bytes(kind, rows, data, found)
            lost += gone
            if gone:
                wrong.append(f"damage {index}: {gone} bytes")
        shutil.rmtree(out, ignore_errors=True)
    with capsys.disabled():
        print(
            f"\n{kind}, TOKENMILL_SEED={SEED}: {lost} bytes lost silently over {DAMAGES} damages "
            f"({', '.join(f'{count} {what}' for what, count in tally.items())})"
        )
    assert not wrong, "\n".join(wrong[:20])
