"""Characters that an engine's tables of Unicode take otherwise than the reference's do.

The ids are the reference's all the same: beside neighbours of every class, alone in a document,
among others, in a document that is cut, and where Python's own tables know nothing of them.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.kit import runs, trained
from tests.kit.make_differences import ENGINES, PLACE, computed, entry, probes
from tests.kit.shared import GPT2_RANKS, tokenizer_argument
from tokenmill.tokenizers.choose import choose
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import Ranks

NEW = (
    0x088F, 0xA7CE, 0x10940, 0x16EA0, 0x187F8, 0x18D09, 0x1E6C0, 0x2B73A, 0x323B0, 0x33000, 0x33479,
    0x113C2, 0x1611E, 0x16D67, 0x10EC5, 0x1C8A,
)  # fmt: skip
MARKS = ("\u064e\u08d3", "\u09cd\u09fe", "\u0c4d\u0c3c", "\u0628\u0650")
NEIGHBOURHOODS = (
    "{0}", "a{0}b", "A{0}B", "a{0}", "{0}a", "0{0}1", "!{0}!", " {0} ", "\n{0}\n", "'{0}'s",
    "a'{0}", "{0}'ll", "\u4e2d{0}\u6587", "\u0301{0}\u0301", "\u00e9{0}", "\u00a0{0}\u00a0",
    "\t{0}\t", "x {0}{0} y",
)  # fmt: skip


def hostile() -> list[str]:
    pieces = [*map(chr, NEW), *MARKS]
    return [around.format(piece) for piece in pieces for around in NEIGHBOURHOODS]


def expected(name: str, documents: list[str]) -> list[list[int]]:
    vocabulary = load_vocabulary(name)
    reference = make_engine(vocabulary.reference, vocabulary)
    return [reference.encode_piece(document.encode()) for document in documents]


def found(name: str, documents: list[str], engine: str = "auto") -> list[list[int]]:
    vocabulary = load_vocabulary(name)
    choice = choose(engine, vocabulary)
    tokens = make_engine(choice.engine, vocabulary, choice.cuts).encode(
        [document.encode() for document in documents]
    )
    borders = [-1, *tokens.marks.tolist(), len(tokens.ids)]
    pairs = itertools.pairwise(borders)
    return [tokens.ids[low + 1 : high].tolist() for low, high in pairs]


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_new_letters_beside_neighbours_of_every_class(name: str) -> None:
    place, documents = tokenizer_argument(name), hostile()
    assert found(place, documents) == expected(place, documents)


@pytest.mark.parametrize("kind", ["llama3", "qwen"])
def test_the_same_of_tokenizer_json_with_and_without_nfc(kind: str) -> None:
    place, documents = str(trained.path(kind)), hostile()
    assert found(place, documents) == expected(place, documents)


def test_such_letters_in_a_long_document() -> None:
    """Only its surroundings are the reference's, and the whole is what the reference gives."""
    plain = "the quick brown fox jumps over the lazy dog, 12 times; " * 2000
    text = plain + " ".join(hostile()) + plain + "x\u088fy"
    assert found("gpt2", [text, "a", text]) == expected("gpt2", [text, "a", text])


def test_a_letter_that_python_does_not_know_before_a_run(tmp_path: Path) -> None:
    """U+1C8A is a small letter since Unicode 16. With it, the run before the seam is another one
    than with Python's tables: one id more. `make torture` has it in blocks of the real size."""
    name = tokenizer_argument("o200k_base")
    text = "\u1c8a" + "\u65e0\u7801" * 13_000 + "AVAVAVb"
    (tmp_path / "one.txt").write_text(text)
    options = ["--tokenizer", name, "--format", "llm.c", "--val-fraction", "0", "--check", "0"]
    done = runs.run("prepare", tmp_path / "one.txt", "--out", tmp_path / "out", *options)
    assert done.rc == 0, done.stderr
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["tokens"] - 1 == len(expected(name, [text])[0]) == 13_007


@pytest.mark.parametrize("engine", ENGINES)
def test_the_differences_are_those_of_the_installed_releases(engine: str) -> None:
    """Computed again, of the known characters and their neighbours; `make torture` tries all."""
    pytest.importorskip(engine)
    known = json.loads(PLACE.read_text())
    by_key = {(each["engine"], each["reference"], each["tables"]): each for each in known}
    probe = Ranks("any", GPT2_RANKS.read_bytes(), "", "o200k_base", 0, 0).probe()
    here = entry(engine, "o200k_base", probe, codes=[0x88F, 0x1C89, 0x10EC5, 0x323B0])
    written = by_key[here["engine"], here["reference"], "o200k_base"]["ranges"]
    codes = [code for low, high in written for code in (low - 1, low, high, high + 1)]
    inside = {code for low, high in computed(engine, probe, codes) for code in range(low, high + 1)}
    assert inside == {code for low, high in written for code in range(low, high + 1)}
    assert {tables for tables, _ in probes()} <= {each["tables"] for each in known}
