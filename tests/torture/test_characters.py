"""Every code point, in every neighbourhood, by the engine that a run takes and by the reference.

Every known vocabulary and pattern, and each pattern of a `tokenizer.json` also behind NFC and NFKC.
Counted: code points times neighbourhoods. A document of 256 of them is compared at once, and where
it differs, each by itself, so that a failure names the characters.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tokenmill
from tests.kit import trained
from tests.kit.make_differences import ENGINES, PLACE, computed, is_used, probes
from tests.kit.shared import tokenizer_argument
from tests.text.test_characters import NEIGHBOURHOODS, expected, found
from tokenmill.errors import UsageError
from tokenmill.tokenizers.choose import choose
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

GROUP = 256
EVERY = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


VOCABULARIES = ("gpt2", "cl100k_base", "o200k_base")
KINDS = ("gpt2", "llama3", "qwen", "o200k")
NORMALIZERS = ("none", "NFC", "NFKC")
NAMES = [*VOCABULARIES, *(f"{kind}, {form}" for kind in KINDS for form in NORMALIZERS)]


def place_of(name: str, folder: Path) -> str:
    """A known vocabulary, or a trained `tokenizer.json` with this normalizer and no other."""
    kind, _, form = name.partition(", ")
    if not form:
        return tokenizer_argument(name)
    plain = json.loads(trained.path(kind).read_text())
    plain["normalizer"] = None if form == "none" else {"type": form}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(plain))
    return str(path)


@pytest.mark.parametrize("engine", ["auto", "fastokens"])
@pytest.mark.parametrize("name", NAMES)
def test_every_code_point_in_every_neighbourhood(name: str, engine: str, tmp_path: Path) -> None:
    place, differing, tried = place_of(name, tmp_path), [], 0
    try:
        engine = choose(engine, load_vocabulary(place)).engine
    except UsageError as error:
        pytest.skip(error.why or str(error))
    for low in range(0, len(EVERY), 64 * GROUP):
        codes = EVERY[low : low + 64 * GROUP]
        groups = [codes[at : at + GROUP] for at in range(0, len(codes), GROUP)]
        documents = [
            "\n".join(around.format(chr(code)) for code in group for around in NEIGHBOURHOODS)
            for group in groups
        ]
        tried += len(codes) * len(NEIGHBOURHOODS)
        mine, theirs = found(place, documents, engine), expected(place, documents)
        triples = zip(mine, theirs, groups, strict=True)
        differing += [code for own, right, group in triples if own != right for code in group]
    alone = [around.format(chr(code)) for code in differing for around in NEIGHBOURHOODS]
    mine, theirs = found(place, alone or ["a"], engine), expected(place, alone or ["a"])
    wrong = [text for text, a, b in zip(alone, mine, theirs, strict=False) if a != b]
    print(
        f"{name}: {tried:,} code points times neighbourhoods by {engine}, {len(wrong)} differences"
    )
    assert not differing, [ascii(text) for text in wrong[:20]] or differing[:20]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_known_differences_are_those_of_all_code_points(engine: str) -> None:
    pytest.importorskip(engine)
    known = {
        each["tables"]: each["ranges"]
        for each in json.loads(PLACE.read_text())
        if each["engine"].startswith(engine)
    }
    for tables, probe in probes():
        if is_used(engine, probe):
            assert [list(pair) for pair in computed(engine, probe)] == known[tables], tables


def test_a_letter_that_python_does_not_know_before_a_run(tmp_path: Path) -> None:
    """U+1C8A is a small letter since Unicode 16. With it, the run before the seam is another one
    than with Python's tables: 700,007 ids, not 700,006."""
    name = tokenizer_argument("o200k_base")
    text = "\u1c8a" + "\u65e0\u7801" * 700_000 + "AVAVAVb"
    (tmp_path / "one.txt").write_text(text)
    manifest = tokenmill.prepare(
        tmp_path / "one.txt", out=tmp_path / "out", tokenizer=name, format="llm.c", val_fraction=0
    )
    assert manifest.counts["tokens"] - 1 == len(expected(name, [text])[0]) == 700_007
