"""The files are those that the original scripts write, and the trainers' own loaders take them.

Byte for byte against `tests/kit/oracles.py` for build-nanogpt, llm.c and modded-nanogpt, at shard
sizes that fall on, before and after document borders; nanoGPT's stream and its splits; the
manifest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run
from tests.kit import corpora, oracles, texts
from tests.kit.outcome import Outcome, prepare
from tests.kit.shared import ARTICLES, tokenizer_argument

ARTICLE_TEXTS = [json.loads(line)["text"] for line in ARTICLES.read_text().splitlines()]
DOCUMENTS = [*ARTICLE_TEXTS[:40], *texts.short_texts(), "", "", *ARTICLE_TEXTS[40:60], ""]
IDS = oracles.encode_all(DOCUMENTS)
TOTAL = sum(map(len, IDS)) + len(IDS)
SHARD_SIZES = [997, 4096, TOTAL - 1, TOTAL, TOTAL + 1, 10 * TOTAL]


@pytest.fixture
def corpus(tmp_path: Path) -> corpora.Corpus:
    return corpora.write(tmp_path, "jsonl", DOCUMENTS)


def assert_same_files(outcome: Outcome, expected: dict[str, bytes]) -> None:
    assert list(outcome.files) == sorted(expected)
    for name, data in expected.items():
        assert outcome.files[name] == data, f"{name} differs from the original script's"


# --- as the original scripts write them --------------------------------------------------------


@pytest.mark.parametrize("size", SHARD_SIZES)
def test_build_nanogpt_writes_what_fineweb_py_writes(
    corpus: corpora.Corpus, tmp_path: Path, size: int
) -> None:
    outcome = prepare(corpus, tmp_path / "out", format="build-nanogpt", shard_tokens=size)
    assert_same_files(outcome, oracles.build_nanogpt_files(IDS, size))


@pytest.mark.parametrize("size", SHARD_SIZES)
def test_llmc_writes_what_fineweb_py_writes(
    corpus: corpora.Corpus, tmp_path: Path, size: int
) -> None:
    outcome = prepare(corpus, tmp_path / "out", format="llm.c", shard_tokens=size)
    assert_same_files(outcome, oracles.llmc_files(IDS, size))


@pytest.mark.parametrize("vocabulary", ["cl100k_base", "o200k_base"])
def test_llmc_has_32_bit_shards_for_a_large_vocabulary(
    corpus: corpora.Corpus, tmp_path: Path, vocabulary: str
) -> None:
    tokenizer = tokenizer_argument(vocabulary)
    outcome = prepare(
        corpus, tmp_path / "out", format="llm.c", shard_tokens=2000, tokenizer=tokenizer
    )
    ids = oracles.encode_all(DOCUMENTS, vocabulary)
    eot = oracles.eot(vocabulary)
    assert_same_files(outcome, oracles.llmc_files(ids, 2000, "llama-3", before=eot))
    shards = [oracles.llama3_shard(tmp_path / "out" / name) for name in outcome.files]
    assert sum(map(len, shards)) == sum(map(len, ids)) + len(ids)


def test_modded_nanogpt_writes_what_its_script_writes(
    corpus: corpora.Corpus, tmp_path: Path
) -> None:
    outcome = prepare(corpus, tmp_path / "out", format="modded-nanogpt", shard_tokens=3000)
    assert_same_files(outcome, oracles.llmc_files(IDS, 3000))
    train = oracles.modded_shards(outcome.folder, "train")
    assert sum(len(shard.document_starts) for shard in train) > 10


@pytest.mark.parametrize("order", ["long first", "long in the middle", "long last"])
@pytest.mark.parametrize("size", [100, 128])
def test_documents_longer_than_a_shard(tmp_path: Path, order: str, size: int) -> None:
    long, short = "to be or not to be " * 200, ["one two", "three", "", "four"]
    documents = {
        "long first": [long, *short],
        "long in the middle": [*short[:2], long, *short[2:]],
        "long last": [*short, long],
    }[order]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    outcome = prepare(corpus, tmp_path / "out", format="build-nanogpt", shard_tokens=size)
    assert_same_files(outcome, oracles.build_nanogpt_files(oracles.encode_all(documents), size))


def test_a_document_that_fills_a_shard_exactly(tmp_path: Path) -> None:
    size = 64
    document = " a" * (size - 1)
    assert len(oracles.encode(document)) == size - 1
    corpus = corpora.write(tmp_path, "jsonl", [document] * 3)
    outcome = prepare(corpus, tmp_path / "out", format="llm.c", shard_tokens=size)
    assert_same_files(outcome, oracles.llmc_files(oracles.encode_all([document] * 3), size))
    assert len(outcome.files) == 3


def test_a_corpus_smaller_than_a_shard_is_said_to_have_no_training_part(
    corpus: corpora.Corpus, tmp_path: Path, tokenmill: Run
) -> None:
    """The original writes one file, `val`, and its loader then finds no `train`: so warn."""
    out = tmp_path / "out"
    done = tokenmill("prepare", *corpus.arguments(), "--out", out, "--format", "build-nanogpt")
    assert done.rc == 0, done.stderr
    assert_same_files(Outcome(out), oracles.build_nanogpt_files(IDS, 100_000_000))
    assert "train" in done.stderr


# --- as the trainers read them -----------------------------------------------------------------


def test_build_nanogpt_loader_takes_the_folder(corpus: corpora.Corpus, tmp_path: Path) -> None:
    outcome = prepare(corpus, tmp_path / "out", format="build-nanogpt", shard_tokens=2000)
    val = oracles.build_nanogpt_shards(outcome.folder, "val")
    train = oracles.build_nanogpt_shards(outcome.folder, "train")
    assert len(val) == 1
    assert np.array_equal(np.concatenate([*val, *train]), outcome.all_tokens())
    batches = oracles.build_nanogpt_next_batches(train, 64, 40)
    assert all(len(batch) == 65 for batch in batches)


def test_llmc_loader_takes_the_folder(corpus: corpora.Corpus, tmp_path: Path) -> None:
    outcome = prepare(corpus, tmp_path / "out", format="llm.c", shard_tokens=2000)
    for split in ("val", "train"):
        shards = oracles.llmc_shards(outcome.folder, f"*_{split}_*.bin")
        assert np.array_equal(np.concatenate(shards), outcome.tokens(split))


def test_nanogpt_loader_takes_the_folder(corpus: corpora.Corpus, tmp_path: Path) -> None:
    outcome = prepare(corpus, tmp_path / "out", val_fraction=0.2)
    for split in ("train", "val"):
        x, y = oracles.nanogpt_batch(outcome.folder, split)
        assert np.array_equal(x[:, 1:], y[:, :-1])


@pytest.mark.parametrize("kind", ["nanogpt", "build-nanogpt", "llm.c", "modded-nanogpt"])
def test_no_side_file_is_taken_for_a_shard(
    corpus: corpora.Corpus, tmp_path: Path, kind: str
) -> None:
    """build-nanogpt's loader takes every name that contains the split's."""
    outcome = prepare(corpus, tmp_path / "out", format=kind)
    shards = {shard["name"] for shard in outcome.manifest["shards"]}
    for path in outcome.folder.rglob("*"):
        if path.name not in shards:
            assert "train" not in path.name and "val" not in path.name


# --- nanogpt and its splits --------------------------------------------------------------------


def test_nanogpt_without_validation_is_one_stream(corpus: corpora.Corpus, tmp_path: Path) -> None:
    outcome = prepare(corpus, tmp_path / "out", val_fraction=0)
    assert_same_files(outcome, {"train.bin": oracles.nanogpt_stream(IDS)})


def assert_partition(outcome: Outcome, ids: list[list[int]]) -> None:
    """Both splits hold whole documents, in the corpus's order, each exactly once."""
    train, val = outcome.documents("train"), outcome.documents("val")
    t = v = 0
    for document in ids:
        if t < len(train) and train[t] == document:
            t += 1
        else:
            assert v < len(val) and val[v] == document, "a document is lost or out of order"
            v += 1
    assert (t, v) == (len(train), len(val))


def test_nanogpt_splits_whole_documents_by_fraction(tmp_path: Path) -> None:
    documents = sorted(set(ARTICLE_TEXTS), key=ARTICLE_TEXTS.index)
    corpus = corpora.write(tmp_path, "jsonl", documents)
    outcome = prepare(corpus, tmp_path / "out", val_fraction=0.3)
    assert_partition(outcome, oracles.encode_all(documents))
    assert 30 <= len(outcome.documents("val")) <= 90
    assert set(outcome.files) == {"train.bin", "val.bin"}


def test_the_seed_draws_the_split_and_nothing_else(tmp_path: Path) -> None:
    corpus = corpora.write(tmp_path, "jsonl", ARTICLE_TEXTS)
    one, again, two = (
        prepare(corpus, tmp_path / name, val_fraction=0.3, seed=seed)
        for name, seed in [("one", 1), ("again", 1), ("two", 2)]
    )
    assert one.hashes == again.hashes
    assert one.hashes != two.hashes
    assert sorted(one.all_tokens()) == sorted(two.all_tokens())


def test_equal_documents_never_fall_on_both_sides(tmp_path: Path) -> None:
    documents = ARTICLE_TEXTS[:50] * 4
    corpus = corpora.write(tmp_path, "jsonl", documents)
    outcome = prepare(corpus, tmp_path / "out", val_fraction=0.5)
    train, val = outcome.documents("train"), outcome.documents("val")
    assert train and val
    assert not set(map(tuple, train)) & set(map(tuple, val))
    assert len(train) + len(val) == len(documents)


def test_the_split_of_a_document_does_not_depend_on_the_kind_of_input(tmp_path: Path) -> None:
    made = {
        kind: prepare(
            corpora.write(tmp_path, kind, ARTICLE_TEXTS), tmp_path / f"out-{kind}", val_fraction=0.3
        ).hashes
        for kind in corpora.KINDS
    }
    assert len(set(map(str, made.values()))) == 1, made


@pytest.mark.parametrize("size", [500, 1000, TOTAL, TOTAL * 2])
def test_numbered_shards_joined_are_the_one_file(
    corpus: corpora.Corpus, tmp_path: Path, size: int
) -> None:
    whole = prepare(corpus, tmp_path / "whole", val_fraction=0.2)
    cut = prepare(corpus, tmp_path / "cut", val_fraction=0.2, shard_tokens=size)
    for split in ("train", "val"):
        names = [name for name in cut.files if name.startswith(split)]
        assert names == [f"{split}_{index:06d}.bin" for index in range(len(names))]
        assert b"".join(cut.files[name] for name in names) == whole.files[f"{split}.bin"]
        assert all(len(cut.files[name]) == 2 * size for name in names[:-1])


@pytest.mark.parametrize("kind", ["nanogpt", "build-nanogpt"])
@pytest.mark.parametrize("wanted", [1, 500, 3000])
def test_val_tokens_gives_about_that_many(
    corpus: corpora.Corpus, tmp_path: Path, kind: str, wanted: int
) -> None:
    outcome = prepare(corpus, tmp_path / "out", format=kind, val_tokens=wanted, shard_tokens=1000)
    longest = max(map(len, IDS)) + 1
    assert wanted <= len(outcome.tokens("val")) <= wanted + longest
    assert len(outcome.all_tokens()) == TOTAL


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_val_shards_are_the_first(corpus: corpora.Corpus, tmp_path: Path, shards: int) -> None:
    outcome = prepare(
        corpus, tmp_path / "out", format="build-nanogpt", shard_tokens=1000, val_shards=shards
    )
    originals = oracles.build_nanogpt_files(IDS, 1000)
    assert list(outcome.files.values()) != []
    by_number = sorted(outcome.files, key=lambda name: name[-10:])
    assert [outcome.files[name] for name in by_number] == [
        originals[name] for name in sorted(originals, key=lambda name: name[-10:])
    ]
    assert ["_val_" in name for name in by_number] == [
        index < shards for index in range(len(by_number))
    ]


def test_a_fraction_numbers_each_split_from_zero(corpus: corpora.Corpus, tmp_path: Path) -> None:
    outcome = prepare(corpus, tmp_path / "out", format="llm.c", shard_tokens=500, val_fraction=0.2)
    for split in ("train", "val"):
        names = [name for name in outcome.files if f"_{split}_" in name]
        assert names == [f"fineweb_{split}_{index:06d}.bin" for index in range(len(names))]
    assert len(outcome.documents("train")) + len(outcome.documents("val")) == len(IDS)


def test_one_text_is_split_by_position(tmp_path: Path) -> None:
    """A corpus of one document: the tail is the validation part, cut where the ids allow it."""
    text = "\n\n".join(ARTICLE_TEXTS)
    path = tmp_path / "book.txt"
    path.write_text(text)
    outcome = prepare(path, tmp_path / "out", val_fraction=0.1)
    train, val = outcome.tokens("train").tolist(), outcome.tokens("val").tolist()
    inner = [token for token in train + val if token != oracles.GPT2_EOT]
    assert inner == oracles.encode(text)
    assert val[-1] == oracles.GPT2_EOT
    assert 0.05 < len(val) / len(inner) < 0.15


# --- the options that change the bytes ---------------------------------------------------------


def test_the_delimiter_can_be_put_on_the_other_side_or_left_out(
    corpus: corpora.Corpus, tmp_path: Path
) -> None:
    flat = [token for ids in IDS for token in ids]
    eot = oracles.GPT2_EOT
    expected = {
        "after": [token for ids in IDS for token in (*ids, eot)],
        "before": [token for ids in IDS for token in (eot, *ids)],
        "none": flat,
    }
    for side, ids in expected.items():
        outcome = prepare(corpus, tmp_path / side, val_fraction=0, eot=side)
        assert outcome.tokens("train").tolist() == ids


def test_the_name_is_the_prefix(corpus: corpora.Corpus, tmp_path: Path) -> None:
    outcome = prepare(
        corpus, tmp_path / "out", format="llm.c", shard_tokens=2000, name="edu_fineweb"
    )
    assert_same_files(outcome, oracles.llmc_files(IDS, 2000, name="edu_fineweb"))


def test_special_text_as_text_or_as_token(tmp_path: Path) -> None:
    corpus = corpora.write(tmp_path, "jsonl", ["a<|endoftext|>b", "plain"])
    as_text = prepare(corpus, tmp_path / "text", val_fraction=0, special_text="text")
    assert as_text.documents() == oracles.encode_all(["a<|endoftext|>b", "plain"])
    assert as_text.manifest["counts"]["special_text"] == 1
    as_token = prepare(corpus, tmp_path / "token", val_fraction=0, special_text="token")
    eot, [a, b, plain] = oracles.GPT2_EOT, oracles.encode_all(["a", "b", "plain"])
    assert as_token.tokens("train").tolist() == [*a, eot, *b, eot, *plain, eot]


@pytest.mark.parametrize("kind", ["nanogpt", "build-nanogpt", "modded-nanogpt"])
def test_ids_over_16_bits_are_refused_before_anything_is_written(
    corpus: corpora.Corpus, tmp_path: Path, tokenmill: Run, kind: str
) -> None:
    out = tmp_path / "out"
    tokenizer = tokenizer_argument("cl100k_base")
    options = ["--out", out, "--format", kind, "--tokenizer", tokenizer]
    done = tokenmill("prepare", *corpus.arguments(), *options)
    assert done.rc == 2, done.stderr
    assert "65535" in done.stderr.replace(",", "") or "16" in done.stderr
    assert "fix:" in done.stderr
    assert not out.exists() or not Outcome(out).files


# --- what the manifest says --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nanogpt", "build-nanogpt", "llm.c", "modded-nanogpt"])
def test_the_manifest_tells_the_truth(corpus: corpora.Corpus, tmp_path: Path, kind: str) -> None:
    outcome = prepare(corpus, tmp_path / "out", format=kind, shard_tokens=1500, val_fraction=0.2)
    manifest = outcome.manifest
    assert manifest["format"] == kind
    assert {shard["name"] for shard in manifest["shards"]} == set(outcome.files)
    for shard in manifest["shards"]:
        data = outcome.files[shard["name"]]
        assert shard["bytes"] == len(data)
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
    assert sum(shard["tokens"] for shard in manifest["shards"]) == TOTAL
    counts = manifest["counts"]
    assert counts["tokens"] == TOTAL
    assert counts["documents"] == len(DOCUMENTS)
    assert counts["empty_documents"] == 3
    assert counts["null_documents"] == 0
    assert counts["input_bytes"] == corpus.path.stat().st_size
    hashes = {**outcome.hashes}
    hashes["manifest.json"] = hashlib.sha256(
        (outcome.folder / "manifest.json").read_bytes()
    ).hexdigest()
    written = (outcome.folder / "SHA256SUMS").read_text()
    assert sorted(written.splitlines()) == sorted(f"{h}  {name}" for name, h in hashes.items())


def test_nothing_is_left_beside_the_dataset(corpus: corpora.Corpus, tmp_path: Path) -> None:
    outcome = prepare(corpus, tmp_path / "out")
    names = {path.name for path in outcome.folder.iterdir()} - {".tokenmill"}
    shards = {shard["name"] for shard in outcome.manifest["shards"]}
    assert names == shards | {"manifest.json", "SHA256SUMS"}
    assert not [path for path in outcome.folder.rglob("*") if path.suffix == ".partial"]
