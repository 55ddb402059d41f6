"""Writes `tokenizers/differences.json` for the installed releases.

Run `python -m tests.kit.make_differences` when a release of an engine or of a reference joins those
that tokenmill is tested with, and keep the entries of the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from tests.kit import trained
from tests.kit.shared import SOURCE
from tokenmill.tokenizers.engines import ENGINES as ENGINE_KINDS
from tokenmill.tokenizers.engines import plain_engine
from tokenmill.tokenizers.engines.differences import Ranges, compared, ranges_of
from tokenmill.tokenizers.engines.engine import Engine, NotInstalled
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import PATTERNS, Ranks
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

PLACE = SOURCE / "tokenizers" / "engines" / "differences.json"
ENGINES = ("gigatoken", "fastokens")
EVERY = [code for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000]
"""Every code point that is not ASCII and no surrogate."""


def probes() -> Iterator[tuple[str, Vocabulary]]:
    """What the known patterns are told by, with a probe of each: as ranks, and in a file."""
    for pattern in PATTERNS:
        yield pattern, Ranks("any", b"", "", pattern, 0, 0).probe()
    for kind in ("gpt2", "llama3", "qwen", "o200k"):
        vocabulary = load_vocabulary(str(trained.path(kind)))
        yield vocabulary.tables, vocabulary.probe()


def is_used(engine: str, probe: Vocabulary) -> bool:
    """Is it installed, and does it promise such a vocabulary?"""
    try:
        plain_engine(engine, probe)
    except NotInstalled:
        return False
    return ENGINE_KINDS[engine].refusal(probe) is None


def computed(engine: str, probe: Vocabulary, codes: list[int] = EVERY) -> Ranges:
    """The characters among ``codes`` that the engine takes otherwise than the reference."""
    pair: list[Engine] = [plain_engine(name, probe) for name in (engine, probe.reference)]
    return ranges_of(compared(pair[0], pair[1], codes))


def entry(engine: str, tables: str, probe: Vocabulary, codes: list[int] = EVERY) -> dict[str, Any]:
    """One entry of the file."""
    return {
        "engine": f"{engine} {metadata.version(engine)}",
        "reference": f"{probe.reference} {metadata.version(probe.reference)}",
        "tables": tables,
        "ranges": computed(engine, probe, codes),
    }


if __name__ == "__main__":
    mine = [
        entry(engine, *pair) for engine in ENGINES for pair in probes() if is_used(engine, pair[1])
    ]
    keys = [(each["engine"], each["reference"], each["tables"]) for each in mine]
    others = [
        each for each in json.loads(PLACE.read_text())
        if (each["engine"], each["reference"], each["tables"]) not in keys
    ]  # fmt: skip
    lines = ",\n".join(json.dumps(each) for each in [*others, *mine])
    PLACE.write_text(f"[\n{lines}\n]\n")
