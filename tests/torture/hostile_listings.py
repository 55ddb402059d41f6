"""Folders made to be expensive: many files, long names, deep folders, nothing in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.torture.hostile_case import Case

_CONTENTS = {
    "a.txt": [b"", b"\n", b"a word", b"\xff", b"\xef\xbb\xbf"],
    "a.jsonl": [b'{"text":"a"}\n', b"{}\n", b"", b'{"text":null}'],
    "a.unknown": [b"x"],
    "a.txt.gz": [b"", b"\x1f\x8b"],
}


def _make(kind: str, count: int, length: int, depth: int, seed: int, folder: Path) -> list[str]:
    rng = random.Random(seed)
    place = folder.joinpath("in", *("d" * length for _ in range(depth)))
    place.mkdir(parents=True)
    stem, _, suffix = kind.partition(".")
    for number in range(count):
        name = f"{number}{stem * (length - 1)}.{suffix}"
        (place / name).write_bytes(rng.choice(_CONTENTS[kind]))
    options = ["--on-bad", "quarantine"] if rng.random() < 0.6 else []
    if suffix == "txt" and rng.random() < 0.5:
        options += ["--documents", "line"]
    return [str(folder / "in"), *options]


def cases(seed: int) -> Iterator[Case]:
    """Folders of up to 400 files, a few of 4,000."""
    rng = random.Random(seed)
    while True:
        kind = rng.choice(sorted(_CONTENTS))
        count = rng.choice([0, 1, 50, 200, 400] * 4 + [4000])
        length, depth = rng.choice([1, 50, 200]), rng.choice([0, 0, 1, 5, 12])
        each = rng.randrange(1 << 40)
        make = partial(_make, kind, count, length, depth, each)
        yield Case(f"folder {count} {kind} names {length} depth {depth}, {each}", make)
