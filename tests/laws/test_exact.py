"""Law 1: the ids of a document are those that tiktoken gives for the whole document.

Adversarial texts as documents and as single files, random texts by Hypothesis, and a sample of the
shared corpora in every kind of input, for the three vocabularies. To see cuts inside documents at
small sizes, the block size is shrunk where a test says so. The whole corpora are in `torture/`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit import corpora, oracles, texts
from tests.kit.outcome import Outcome, prepare
from tests.kit.shared import CORPORA, VOCABULARIES, corpus_documents, tokenizer_argument
from tokenmill.sizes import Sizes

SIZE = 12_000
IN_BLOCKS = 6000
"""Of each adversary in blocks of 4096 bytes."""
LONG = 2_500_000
LONG_TEXTS = [
    ("one_letter", "gpt2"),
    ("no_spaces", "cl100k_base"),
    ("hanzi", "o200k_base"),
    ("prose", "gpt2"),
]
# Not every combination here: `torture/` has them all.
FEW = [("jsonl", name) for name in VOCABULARIES] + [("txt", "gpt2"), ("parquet", "gpt2")]
SQUARE = [
    (corpus, corpora.KINDS[(i + j) % 3], vocabulary)
    for i, corpus in enumerate(CORPORA)
    for j, vocabulary in enumerate(VOCABULARIES)
]


def run(inputs: corpora.Corpus | Path, out: Path, vocabulary: str, **options: Any) -> Outcome:
    """Prepare with a vocabulary, everything in one training file, for any size of id."""
    options = {"format": "llm.c", "val_shards": 0, "shard_tokens": "500M"} | options
    return prepare(inputs, out, tokenizer=tokenizer_argument(vocabulary), **options)


def assert_exact(outcome: Outcome, documents: Sequence[str], vocabulary: str) -> None:
    got = outcome.documents("train", vocabulary)
    assert len(got) == len(documents)
    for text, ids in zip(documents, got, strict=True):
        assert ids == oracles.encode(text, vocabulary), f"differs for {text[:80]!r}"


@pytest.mark.parametrize(("kind", "vocabulary"), FEW)
def test_adversarial_documents(kind: str, vocabulary: str, tmp_path: Path) -> None:
    documents = texts.adversarial_documents(SIZE)
    corpus = corpora.write(tmp_path, kind, documents)
    assert_exact(run(corpus, tmp_path / "out", vocabulary), documents, vocabulary)


@pytest.mark.parametrize(("kind", "vocabulary"), [*FEW, ("txt", "o200k_base")])
def test_adversarial_documents_in_small_blocks(
    small_blocks: Sizes, kind: str, vocabulary: str, tmp_path: Path
) -> None:
    documents = texts.adversarial_documents(IN_BLOCKS)
    corpus = corpora.write(tmp_path, kind, documents)
    assert_exact(
        run(corpus, tmp_path / "out", vocabulary, sizes=small_blocks), documents, vocabulary
    )


@pytest.mark.parametrize("vocabulary", ["gpt2", "o200k_base"])
def test_each_adversary_as_a_single_file(
    small_blocks: Sizes, vocabulary: str, tmp_path: Path
) -> None:
    """One document a file, every file cut into several blocks where its text allows it."""
    documents = []
    for index, (name, make) in enumerate(texts.ADVERSARIES.items()):
        documents.append(make(IN_BLOCKS))
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{index:03d}_{name}.txt").write_bytes(documents[-1].encode())
    outcome = run(
        tmp_path / "in", tmp_path / "out", vocabulary, kind="text", sizes=small_blocks
    )  # some look binary
    assert_exact(outcome, documents, vocabulary)


@pytest.mark.parametrize(("name", "vocabulary"), LONG_TEXTS)
def test_long_text_at_the_real_block_size(name: str, vocabulary: str, tmp_path: Path) -> None:
    text = texts.ADVERSARIES[name](LONG)
    path = tmp_path / "long.txt"
    path.write_bytes(text.encode())
    assert_exact(run(path, tmp_path / "out", vocabulary), [text], vocabulary)


@pytest.mark.parametrize(("corpus", "kind", "vocabulary"), SQUARE)
def test_a_sample_of_the_shared_corpora(
    corpus: str, kind: str, vocabulary: str, tmp_path: Path
) -> None:
    documents = list(corpus_documents(corpus, 40))
    written = corpora.write(tmp_path, kind, documents)
    assert_exact(run(written, tmp_path / "out", vocabulary), documents, vocabulary)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_sample_as_one_document(corpus: str, vocabulary: str, tmp_path: Path) -> None:
    text = "\n\n".join(corpus_documents(corpus, 40))
    path = tmp_path / "one.txt"
    path.write_bytes(text.encode())
    assert_exact(run(path, tmp_path / "out", vocabulary), [text], vocabulary)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_sample_in_small_blocks(
    small_blocks: Sizes, corpus: str, vocabulary: str, tmp_path: Path
) -> None:
    text = "\n\n".join(document[:20_000] for document in corpus_documents(corpus, 15))
    path = tmp_path / "one.txt"
    path.write_bytes(text.encode())
    assert_exact(run(path, tmp_path / "out", vocabulary, sizes=small_blocks), [text], vocabulary)


@pytest.mark.parametrize("mode", ["line", "blank-line", "separator:\r\n"])
def test_dividing_does_not_depend_on_the_blocks(
    small_blocks: Sizes, mode: str, tmp_path: Path
) -> None:
    """Line ends fall on every side of the block borders; the reference divides the whole text."""
    import re

    unit = texts.pseudo_random(60_000, "aé \r\n\n日", mode)
    pattern = {"line": r"\r?\n", "blank-line": r"\r?\n(?:\r?\n)+"}.get(mode, "\r\n")
    expected = re.split(pattern, unit)
    if not expected[-1]:
        expected.pop()
    if mode == "blank-line" and expected and not expected[0]:
        del expected[0]
    path = tmp_path / "divided.txt"
    path.write_bytes(unit.encode())
    outcome = run(path, tmp_path / "out", "gpt2", documents=mode, sizes=small_blocks)
    assert_exact(outcome, expected, "gpt2")


@pytest.mark.parametrize("engine", ["gigatoken", "tiktoken"])
def test_engines_change_no_byte(engine: str, tmp_path: Path) -> None:
    documents = texts.adversarial_documents(2000)
    corpus = corpora.write(tmp_path, "jsonl", documents)
    automatic = run(corpus, tmp_path / "auto", "gpt2")
    assert run(corpus, tmp_path / engine, "gpt2", engine=engine).hashes == automatic.hashes


# --- random texts ------------------------------------------------------------------------------

FRAGMENTS = st.sampled_from(
    [
        *texts.ODDITIES.values(),
        *"  \n\r\t'sSaAzZé日本1٣²!-_/<|>\u0301\u00a0\u3000\u200d😀\ufeff\x00",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(FRAGMENTS, max_size=20).map("".join),
    st.builds(lambda unit, times: unit * times, st.text(max_size=5), st.integers(1, 300)),
).map(lambda text: text.encode("utf-8", "ignore").decode())
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@settings(max_examples=6, deadline=None, suppress_health_check=QUIET)
@given(documents=st.lists(TEXTS, min_size=1, max_size=100))
def test_random_documents(vocabulary: str, documents: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpora.write(Path(folder), "jsonl", documents)
        assert_exact(run(corpus, Path(folder, "out"), vocabulary), documents, vocabulary)


@pytest.mark.parametrize("vocabulary", ["gpt2", "cl100k_base"])
@settings(max_examples=4, deadline=None, suppress_health_check=QUIET)
@given(pieces=st.lists(st.tuples(TEXTS, st.integers(1, 40)), min_size=10, max_size=120))
def test_random_text_cut_into_blocks(
    small_blocks: Sizes, vocabulary: str, pieces: list[tuple[str, int]]
) -> None:
    text = "".join(unit * times for unit, times in pieces)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.txt")
        path.write_bytes(text.encode())
        outcome = run(
            path, Path(folder, "out"), vocabulary, kind="text", sizes=small_blocks
        )  # it may look binary
        expected = oracles.encode(text.removeprefix("\ufeff"), vocabulary)
        assert np.array_equal(outcome.tokens("train")[1:], expected)
