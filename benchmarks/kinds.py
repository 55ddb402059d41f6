"""The table of tokenizers: engine chosen and why, exact whole and cut, MB/s.

Vocabularies of real size are built from the shared ranks: GPT-2's and cl100k_base's as
``tokenizer.json``, the latter with Llama 3's pattern, and with Qwen's and NFC. The others are
trained on the shared corpora with 16,000 tokens. Each is then held against its reference, on the
head of each of the three corpora: the documents one by one, and joined to one text that `prepare`
reads from a file and cuts where it may. Speeds are of one thread with empty caches, of text that
is in memory, in MB for each second of processor time (other work on the machine does not count):
the engine chosen, and the reference.

    python benchmarks/kinds.py --work WORK --megabytes 8
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import tokenmill
from corpora import CORPORA, default_shared
from tokenmill.errors import TokenmillError
from tokenmill.text.cuts import NOWHERE
from tokenmill.tokenizers.choose import Choice, choose
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import PATTERNS
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

CALL_BYTES = 2 * 1024 * 1024
TRAINED_TOKENS = 16_000
COLUMNS = (
    "tokenizer", "engine", "exact, documents", "exact, one text", "cut", "MB/s en", "code", "multi",
    "reference MB/s", "why this engine",
)  # fmt: skip


def documents(shared: Path, corpus: str, megabytes: float) -> list[bytes]:
    """The head of a corpus, of at least so much text."""
    found, size = [], 0.0
    with pq.ParquetFile(shared / "corpus" / f"{corpus}.parquet") as file:
        for batch in file.iter_batches(64, columns=["text"], use_threads=False):
            for text in batch.column(0).to_pylist():
                found.append(text.encode())
                size += len(found[-1]) / 1e6
                if size >= megabytes:
                    return found
    return found


# --- making the tokenizers ---------------------------------------------------------------------


def merges_of(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The pair that makes each token, in order: what byte pair encoding gives for it when only
    the tokens before it are there."""
    for token, rank in sorted(ranks.items(), key=lambda entry: entry[1]):
        if len(token) == 1:
            continue
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            joined = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
            best = min(range(len(joined)), key=joined.__getitem__)
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        yield parts[0], parts[1]


def byte_level(shared: Path, ranks_name: str, split: str | None, nfc: bool) -> str:
    """A tokenizer.json with published ranks."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre

    letters = {byte: letter for letter, byte in BYTE_LETTERS.items()}

    def written(token: bytes) -> str:
        return "".join(map(letters.__getitem__, token))

    lines = (shared / "vocab" / f"{ranks_name}.tiktoken").read_bytes().splitlines()
    pairs = (line.split() for line in lines)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    vocabulary = {written(token): rank for token, rank in ranks.items()}
    merges = [(written(a), written(b)) for a, b in merges_of(ranks)]
    made = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    if nfc:
        made.normalizer = normalizers.NFC()
    last = pre.ByteLevel(add_prefix_space=False, use_regex=split is None)
    first = [pre.Split(Regex(split), "isolated")] if split else []
    made.pre_tokenizer = pre.Sequence([*first, last]) if split else last
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    if nfc:
        made.add_tokens(["<tool_call>", "</tool_call>"])
    return str(made.to_str())


def sample(shared: Path) -> Iterator[str]:
    """What the small ones are trained on."""
    for corpus in CORPORA:
        for text in documents(shared, corpus, 2):
            yield text.decode()


def trained(shared: Path, kind: str) -> str:
    """A tokenizer.json of another kind, trained here."""
    from tokenizers import Tokenizer, models, normalizers, trainers
    from tokenizers import pre_tokenizers as pre

    size: dict[str, Any] = {"vocab_size": TRAINED_TOKENS, "show_progress": False}
    trainer: Any
    if kind == "bpe":
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.pre_tokenizer = pre.Metaspace()
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        specials = ["<unk>", "<s>", "</s>", *bytes_]
        trainer = trainers.BpeTrainer(special_tokens=specials, limit_alphabet=4000, **size)
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre.Metaspace()
        trainer = trainers.UnigramTrainer(
            special_tokens=["<unk>", "</s>"], unk_token="<unk>", **size
        )
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(special_tokens=["[UNK]", "[CLS]", "[SEP]"], **size)
    made.train_from_iterator(sample(shared), trainer)
    plain = json.loads(made.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]
    return json.dumps(plain)


def model(shared: Path, path: Path, kind: str) -> None:
    """A SentencePiece model, trained here, without normalization as Llama 2's."""
    import sentencepiece

    lines = (line for text in sample(shared) for line in text.splitlines() if line.strip())
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_prefix=str(path.with_suffix("")), model_type=kind,
        vocab_size=TRAINED_TOKENS, byte_fallback=True, character_coverage=0.999, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        input_sentence_size=60_000, shuffle_input_sentence=True,
    )  # fmt: skip


def makers(shared: Path) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Every tokenizer of the table: its file, and what makes it (nothing where it is there)."""

    def text(make: Callable[[], str]) -> Callable[[Path], object]:
        return lambda path: path.write_text(make())

    cl100k = "cl100k_base"
    found: dict[str, tuple[str, Callable[[Path], object]]] = {
        name: (str(shared / "vocab" / f"{name}.tiktoken"), lambda path: None)
        for name in ("gpt2", cl100k, "o200k_base")
    }
    return found | {
        "GPT-2 as tokenizer.json": (
            "gpt2.json", text(lambda: byte_level(shared, "gpt2", None, False))
        ),
        "byte-level BPE, Llama 3's pattern": (
            "llama3.json", text(lambda: byte_level(shared, cl100k, PATTERNS["llama3"], False))
        ),
        "byte-level BPE, Qwen's pattern, NFC": (
            "qwen.json", text(lambda: byte_level(shared, cl100k, PATTERNS["qwen2"], True))
        ),
        "BPE with byte fallback": ("fallback.json", text(lambda: trained(shared, "bpe"))),
        "Unigram": ("unigram.json", text(lambda: trained(shared, "unigram"))),
        "WordPiece": ("wordpiece.json", text(lambda: trained(shared, "wordpiece"))),
        "SentencePiece .model, BPE": ("bpe.model", lambda path: model(shared, path, "bpe")),
        "SentencePiece .model, Unigram": (
            "unigram.model", lambda path: model(shared, path, "unigram")
        ),
    }  # fmt: skip


# --- measuring ---------------------------------------------------------------------------------


@dataclass
class Measured:
    """What one corpus showed."""

    speed: float
    reference_speed: float
    same_documents: bool
    same_text: bool


def measure(
    vocabulary: Vocabulary, choice: Choice, texts: list[bytes], argument: str, work: Path
) -> Measured:
    """One tokenizer on one corpus."""
    engine = make_engine(choice.engine, vocabulary)
    reference = make_engine(vocabulary.reference, vocabulary)
    groups, size = [[texts[0]]], len(texts[0])
    for text in texts[1:]:
        if size + len(text) > CALL_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(text)
        size += len(text)
    total = sum(map(len, texts)) / 1e6
    engine.encode([b"warm up"])
    began = time.process_time()
    encoded = [engine.encode(group) for group in groups]
    speed = total / (time.process_time() - began)
    seconds, same = 0.0, True
    for group, tokens in zip(groups, encoded, strict=True):
        borders = [-1, *tokens.marks.tolist(), len(tokens.ids)]
        for index, text in enumerate(group):
            began = time.process_time()
            expected = reference.encode_piece(text)
            seconds += time.process_time() - began
            found = tokens.ids[borders[index] + 1 : borders[index + 1]]
            same = same and np.array_equal(found, expected)
    whole = b"\n\n".join(texts)
    same_text = one_text(whole, argument, vocabulary, work) == reference.encode_piece(whole)
    return Measured(speed, total / seconds, same, same_text)


def one_text(whole: bytes, argument: str, vocabulary: Vocabulary, work: Path) -> list[int]:
    """The ids that `prepare` gives a text in one file."""
    path, out = work / "one.txt", work / "out"
    path.write_bytes(whole)
    tokenmill.prepare(
        path, out=out, tokenizer=argument, format="llm.c", val_shards=0, shard_tokens="500M",
        eot_token=str(vocabulary.end_of_text), memory="16GB", threads=1, overwrite=True, check=0,
    )  # fmt: skip
    shard = next(out.glob("*.bin"))
    dtype = np.uint16 if vocabulary.largest_id < 2**16 else np.uint32
    ids: list[int] = np.fromfile(shard, dtype, offset=1024)[1:].tolist()
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=default_shared())
    parser.add_argument("--megabytes", type=float, default=8.0, help="of each corpus")
    parser.add_argument("--only", action="append", help="a tokenizer's name in the table")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    texts = {name: documents(options.shared, name, options.megabytes) for name in CORPORA}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    is_exact = True
    for name, (file, make) in makers(options.shared).items():
        if options.only and name not in options.only:
            continue
        path = options.work / file
        if not path.exists():
            make(path)
        try:
            vocabulary = load_vocabulary(str(path))
        except TokenmillError:
            vocabulary = load_vocabulary(str(path), None, "[SEP]")
        choice = choose("auto", vocabulary)
        found = [
            measure(vocabulary, choice, texts[corpus], str(path), options.work)
            for corpus in CORPORA
        ]
        documents_same = sum(entry.same_documents for entry in found)
        text_same = sum(entry.same_text for entry in found)
        is_exact = is_exact and documents_same == text_same == len(found)
        slowest = min(entry.reference_speed for entry in found)
        fastest = max(entry.reference_speed for entry in found)
        cells = [
            name, choice.engine, f"{documents_same} of 3", f"{text_same} of 3",
            "no" if choice.cuts == NOWHERE else "yes", *(f"{entry.speed:.1f}" for entry in found),
            f"{slowest:.1f}-{fastest:.1f}", choice.why,
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)
    sys.exit(0 if is_exact else 1)


if __name__ == "__main__":
    main()
