"""Blocks, inputs and recipes are plain data: pickled, and read elsewhere, they give the same."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import command_environment
from tests.kit import corpora, runs, sized, trained
from tests.kit.shared import REPOSITORY
from tokenmill.batches import TokenBatch
from tokenmill.commands.plan import Plan, make_plan
from tokenmill.dataset.spec import Spec
from tokenmill.encoding.recipe import Recipe, Worker
from tokenmill.sources.bad_records import BadBlock
from tokenmill.sources.block import Block
from tokenmill.tokenizers.engines import shared_reference
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

KINDS = ("txt", "one.txt", "txt.gz", "one.txt.gz", "jsonl", "jsonl.zst", "parquet", "giant.parquet")
SMALL = sized.shrunk(runs.BLOCK)


def plan_of(path: Path, tokenizer: str = "gpt2", **options: Any) -> Plan:
    chosen: Any = {"val_fraction": 0.3, "tokenizer": tokenizer, **options}
    return make_plan([str(path)], Spec.of(chosen), "tiktoken", sizes=SMALL)


def written(kind: str, folder: Path) -> corpora.Corpus:
    corpus = runs.write_corpus(folder, kind.removesuffix(".gz"))
    if not kind.endswith(".gz"):
        return corpus
    packed = corpus.path.with_name(corpus.path.name + ".gz")
    packed.write_bytes(corpora.COMPRESSORS[".gz"](corpus.path.read_bytes()))
    corpus.path.unlink()
    return corpora.Corpus(packed, corpus.options)


def content(batch: TokenBatch) -> dict[str, Any]:
    """All that a batch holds but the times it took, and what memory there was."""
    not_told = ("seconds_reading", "seconds_encoding", "cache_drops")
    plain = {name: value for name, value in vars(batch).items() if name not in not_told}
    plain["runs"] = [(r.split, r.ids.dtype, r.ids.tolist(), r.starts.tolist()) for r in batch.runs]
    plain["quarantined"] = vars(batch.quarantined) if batch.quarantined else None
    return plain


def copied(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing, pickle.HIGHEST_PROTOCOL))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_block_gives_the_same_tokens_to_a_pickled_recipe(
    kind: str, tmp_path: Path
) -> None:
    corpus = written(kind, tmp_path)
    here = plan_of(corpus.path, **corpus.options).worker(check=0.3)
    there = Worker(copied(here.recipe))
    assert there.recipe.files[0] == here.recipe.files[0]
    mine, theirs, count = here.encoder(), there.encoder(), 0
    for block in here.corpus.blocks():
        copy: Block = copied(block)
        assert (copy.where, copy.end, copy.text_bytes) == (block.where, block.end, block.text_bytes)
        assert content(theirs.encode(copy)) == content(mine.encode(block))
        count += 1
    assert count > 10, "a test of blocks needs some"


def test_what_is_left_out_is_the_same(tmp_path: Path) -> None:
    """A damaged file ends in a bad block; lines that are no JSON are records, with their number."""
    lines = [f'{{"text": "line {n}"}}' if n % 7 else f"no JSON {n}" for n in range(3000)]
    packed = corpora.COMPRESSORS[".gz"]("\n".join(lines).encode())
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(packed[:-9])
    here = plan_of(path, on_bad="quarantine").worker(check=0)
    there = Worker(copied(here.recipe))
    mine, theirs, blocks = here.encoder(), there.encoder(), list(here.corpus.blocks())
    assert isinstance(blocks[-1], BadBlock)
    for block in blocks:
        assert content(theirs.encode(copied(block))) == content(mine.encode(block))


def digest(recipe: Recipe, blocks: list[Block]) -> str:
    encoder = Worker(recipe).encoder()
    return hashlib.sha256(repr([content(encoder.encode(b)) for b in blocks]).encode()).hexdigest()


def test_another_process_encodes_the_same(tmp_path: Path) -> None:
    corpus = written("giant.parquet", tmp_path)
    worker = plan_of(corpus.path, **corpus.options).worker(check=0.1)
    packed = pickle.dumps((worker.recipe, list(worker.corpus.blocks())))
    script = (
        "import pickle, sys; from tests.encoding.test_recipe import digest; "
        "print(digest(*pickle.loads(sys.stdin.buffer.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=packed, capture_output=True, check=False,
        env=command_environment(), cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == digest(*pickle.loads(packed))


def test_a_file_is_let_go_when_its_last_block_was_read(tmp_path: Path) -> None:
    for name in "abc":
        runs.write_corpus(tmp_path / name, "parquet")
    corpus = plan_of(tmp_path).corpus()
    blocks = list(corpus.blocks())
    for number in range(3):
        assert list(corpus.opened) == list(range(number, 3))
        for block in blocks:
            if block.file_number == number:
                corpus.read(block)
    assert not corpus.opened


@pytest.mark.parametrize("name", trained.KINDS)
def test_every_kind_of_vocabulary_travels(name: str) -> None:
    vocabulary = load_vocabulary(str(trained.path(name)), None, trained.KINDS[name].eot)
    text = runs.documents()[0][:2000].encode()
    expected = shared_reference(vocabulary).encode([text]).ids  # which stays here
    copy = copied(vocabulary)
    assert "_reference" not in vars(copy), "an engine is made where it is used"
    assert copy.describe() == vocabulary.describe()
    assert shared_reference(copy).encode([text]).ids.tolist() == expected.tolist()
