"""Where the test data is: the repository's own examples, and `../shared`, which may be absent.

`../shared` (or the folder that TOKENMILL_SHARED names) holds vocabularies and corpora that this
project does not redistribute. A test that needs them and does not find them is skipped, with the
reason, and `conftest.py` prints at the end how many were and why.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
BOOKS = EXAMPLES / "books"
ARTICLES = EXAMPLES / "articles.jsonl"
SOURCE = REPOSITORY / "src" / "tokenmill"
GPT2_RANKS = SOURCE / "tokenizers" / "vocabularies" / "gpt2.tiktoken"
SHARED = Path(os.environ.get("TOKENMILL_SHARED", REPOSITORY.parent / "shared"))

VOCABULARIES = ("gpt2", "cl100k_base", "o200k_base")
CORPORA = ("en", "code", "multi")


def shared_file(name: str) -> Path:
    """A file under `../shared`, or a skip that says what is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs shared/{name} (set TOKENMILL_SHARED to the folder that has it)")
    return path


def tokenizer_argument(name: str) -> str:
    """What to pass as `--tokenizer`: the name if it ships with the package, else the local file."""
    return name if name == "gpt2" else str(shared_file(f"vocab/{name}.tiktoken"))


def corpus_documents(name: str, limit: int | None = None) -> Iterable[str]:
    """The documents of a shared corpus, spread over the whole file if there is a limit."""
    return _documents(name, 1) if limit is None else _drawn(name, limit)


@functools.cache
def _drawn(name: str, limit: int) -> tuple[str, ...]:
    """Kept, for many tests ask for the same."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(shared_file(f"corpus/{name}.parquet")) as file:
        rows = file.metadata.num_rows
    return tuple(_documents(name, max(1, rows // limit)))


def _documents(name: str, step: int) -> Iterator[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(shared_file(f"corpus/{name}.parquet")) as file:
        seen = 0
        for batch in file.iter_batches(batch_size=256, columns=["text"], use_threads=False):
            for text in batch.column(0):
                if seen % step == 0:
                    yield text.as_py()
                seen += 1
