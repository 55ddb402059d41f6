"""Law 1 on everything there is: the three shared corpora whole, three vocabularies, three kinds.

`pytest tests/torture` (make torture): minutes, gigabytes of disk under the temporary folder.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kit import corpora, oracles, texts
from tests.kit.outcome import Outcome, prepare
from tests.kit.shared import CORPORA, SHARED, VOCABULARIES, corpus_documents, tokenizer_argument

SINGLE_DOCUMENT_BYTES = 60_000_000


@functools.lru_cache(maxsize=1)
def documents_of(corpus: str) -> list[str]:
    return list(corpus_documents(corpus))


@functools.lru_cache(maxsize=1)
def stream_of(corpus: str, vocabulary: str) -> oracles.Tokens:
    """The reference's ids of every document, the delimiter before each."""
    eot = oracles.eot(vocabulary)
    ids = (oracles.encode(text, vocabulary) for text in documents_of(corpus))
    chained = itertools.chain.from_iterable((eot, *document) for document in ids)
    return np.fromiter(chained, dtype=np.uint32)


def run(inputs: corpora.Corpus | Path, out: Path, vocabulary: str) -> Outcome:
    return prepare(
        inputs,
        out,
        tokenizer=tokenizer_argument(vocabulary),
        format="llm.c",
        val_shards=0,
        shard_tokens="500M",
    )


@pytest.mark.parametrize(
    ("corpus", "vocabulary", "kind"), list(itertools.product(CORPORA, VOCABULARIES, corpora.KINDS))
)
def test_every_document(corpus: str, vocabulary: str, kind: str, tmp_path: Path) -> None:
    written = corpora.write(tmp_path, kind, documents_of(corpus))
    tokens = run(written, tmp_path / "out", vocabulary).tokens("train")
    assert np.array_equal(tokens, stream_of(corpus, vocabulary))


@pytest.mark.parametrize(("corpus", "vocabulary"), list(itertools.product(CORPORA, VOCABULARIES)))
def test_one_large_document(corpus: str, vocabulary: str, tmp_path: Path) -> None:
    """A text file of at least 60 MB that is one document, cut into many blocks."""
    path = tmp_path / "one.txt"
    tool, base = SHARED / "tools" / "grow_corpus.py", SHARED / "corpus" / f"{corpus}.parquet"
    size = str(SINGLE_DOCUMENT_BYTES + 10**6)
    subprocess.run([sys.executable, tool, base, path, "--size", size], check=True)
    assert path.stat().st_size >= SINGLE_DOCUMENT_BYTES
    tokens = run(path, tmp_path / "out", vocabulary).tokens("train")
    encoding = oracles.encoding(vocabulary)
    whole = encoding.encode_to_numpy(path.read_bytes().decode(), disallowed_special=())
    assert np.array_equal(tokens[1:], whole)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", texts.ADVERSARIES)
def test_ten_million_characters(name: str, vocabulary: str, tmp_path: Path) -> None:
    text = texts.ADVERSARIES[name](10_000_000)
    whole = reference(text, vocabulary)
    path = tmp_path / "long.txt"
    path.write_bytes(text.encode())
    tokens = run(path, tmp_path / "out", vocabulary).tokens("train")
    assert np.array_equal(tokens[1:], whole)


def reference(text: str, vocabulary: str) -> list[int]:
    """tiktoken's ids; its split pattern overflows the stack on some megabytes of white space."""
    try:
        return oracles.encode(text, vocabulary)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        pytest.skip("tiktoken itself overflows its stack on this text")
