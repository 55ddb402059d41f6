"""What the files must be, and what their readers demand: plain, slow, owing nothing to tokenmill.

The writers follow, loop for loop, the scripts that define each format: build-nanogpt's
`fineweb.py`, llm.c's `dev/data/fineweb.py` with `data_common.py`, nanoGPT's
`data/openwebtext/prepare.py`. The one liberty: a document may be longer than a shard (there they
write outside the buffer and crash). The readers follow nanoGPT's `train.py`, build-nanogpt's
`train_gpt2.py`, llm.c's `llmc/dataloader.h` and `train_llama3.py`, and modded-nanogpt's
`train_gpt.py`. Nothing here may import tokenmill.

A document is a list of token ids without any delimiter; `encode` gives the reference's.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken

from tests.kit.shared import GPT2_RANKS, shared_file

Ids = Sequence[int]
Tokens = npt.NDArray[Any]

GPT2_EOT = 50256

GPT2_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
)
CL100K_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
O200K_PATTERN = "|".join(
    [
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"""
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"""
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    ]
)

PATTERNS = {"gpt2": GPT2_PATTERN, "cl100k_base": CL100K_PATTERN, "o200k_base": O200K_PATTERN}

SPECIALS = {
    "gpt2": {"<|endoftext|>": GPT2_EOT},
    "cl100k_base": {
        "<|endoftext|>": 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
    "o200k_base": {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
}


# --- the reference encoder ---------------------------------------------------------------------


def ranks_file(name: str) -> Path:
    """Where the merge ranks of a vocabulary lie on this machine."""
    return GPT2_RANKS if name == "gpt2" else shared_file(f"vocab/{name}.tiktoken")


@functools.cache
def encoding(name: str) -> tiktoken.Encoding:
    """tiktoken's own encoder, made from a local file of ranks: no network, no cache."""
    ranks = {}
    for line in ranks_file(name).read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return tiktoken.Encoding(
        name, pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens=SPECIALS[name]
    )


def eot(name: str) -> int:
    """The delimiter's id."""
    return SPECIALS[name]["<|endoftext|>"]


def encode(text: str, name: str = "gpt2") -> list[int]:
    """The ids that the whole text must have: law 1."""
    return encoding(name).encode_ordinary(text)


def encode_all(texts: Iterable[str], name: str = "gpt2") -> list[list[int]]:
    """The ids of many documents."""
    return [encode(text, name) for text in texts]


# --- the writers -------------------------------------------------------------------------------


def cut_into_shards(documents: Iterable[Ids], shard_size: int, before: int) -> list[list[int]]:
    """The loop that fineweb.py has in build-nanogpt, llm.c and modded-nanogpt alike."""
    shards: list[list[int]] = []
    current: list[int] = []
    for document in documents:
        tokens = [before, *document]
        while len(current) + len(tokens) >= shard_size:
            remainder = shard_size - len(current)
            shards.append(current + tokens[:remainder])
            current, tokens = [], tokens[remainder:]
        current = current + tokens
    if current:
        shards.append(current)
    return shards


def _split(index: int) -> str:
    return "val" if index == 0 else "train"


def build_nanogpt_files(documents: Iterable[Ids], shard_size: int) -> dict[str, bytes]:
    """What build-nanogpt's fineweb.py writes: each file as np.save writes it."""
    files = {}
    for index, shard in enumerate(cut_into_shards(documents, shard_size, GPT2_EOT)):
        buffer = io.BytesIO()
        np.save(buffer, np.array(shard).astype(np.uint16))
        files[f"edufineweb_{_split(index)}_{index:06d}.npy"] = buffer.getvalue()
    return files


HEADERS_INFO: dict[str, tuple[int, int, type[np.unsignedinteger[Any]]]] = {
    "gpt-2": (20240520, 1, np.uint16),
    "llama-3": (20240801, 7, np.uint32),
}


def llmc_bytes(tokens: Ids, model_desc: str = "gpt-2") -> bytes:
    """data_common.write_datafile of llm.c."""
    magic, version, dtype = HEADERS_INFO[model_desc]
    header = np.zeros(256, dtype=np.int32)
    header[0] = magic
    header[1] = version
    header[2] = len(tokens)
    return header.tobytes() + np.array(tokens, dtype=dtype).tobytes()


def llmc_files(
    documents: Iterable[Ids],
    shard_size: int,
    model_desc: str = "gpt-2",
    *,
    before: int = GPT2_EOT,
    name: str = "fineweb",
) -> dict[str, bytes]:
    """What llm.c's dev/data/fineweb.py writes; modded-nanogpt's data/fineweb.py writes the same."""
    return {
        f"{name}_{_split(index)}_{index:06d}.bin": llmc_bytes(shard, model_desc)
        for index, shard in enumerate(cut_into_shards(documents, shard_size, before))
    }


def nanogpt_stream(documents: Iterable[Ids]) -> bytes:
    """nanoGPT's train.bin: uint16 ids back to back, the delimiter after each document."""
    ids: list[int] = []
    for document in documents:
        ids.extend(document)
        ids.append(GPT2_EOT)
    return np.array(ids, dtype=np.uint16).tobytes()


# --- the readers -------------------------------------------------------------------------------


class ReaderRefusesError(Exception):
    """The trainer's own loader would not take these files."""


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise ReaderRefusesError(message)


def nanogpt_batch(
    folder: Path, split: str, block_size: int = 8, batch_size: int = 4, seed: int = 0
) -> tuple[Tokens, Tokens]:
    """get_batch of nanoGPT's train.py: memory-map the file, draw windows, shift by one."""
    data = np.memmap(folder / f"{split}.bin", dtype=np.uint16, mode="r")
    _demand(
        len(data) > block_size, f"{split}.bin holds {len(data)} tokens, block_size {block_size}"
    )
    starts = np.random.default_rng(seed).integers(len(data) - block_size, size=batch_size)
    x = np.stack([data[i : i + block_size].astype(np.int64) for i in starts])
    y = np.stack([data[i + 1 : i + 1 + block_size].astype(np.int64) for i in starts])
    return x, y


def build_nanogpt_shards(folder: Path, split: str) -> list[Tokens]:
    """DataLoaderLite: every name that contains the split, sorted; load_tokens of each."""
    names = sorted(entry.name for entry in folder.iterdir() if split in entry.name)
    _demand(len(names) > 0, f"no shards found for split {split}")
    return [np.load(folder / name, allow_pickle=False).astype(np.int32) for name in names]


def build_nanogpt_next_batches(shards: Sequence[Tokens], size: int, steps: int) -> list[Tokens]:
    """DataLoaderLite.next_batch for one process: the tokens of each step, B*T+1 of them."""
    shard, position, batches = 0, 0, []
    for _ in range(steps):
        batches.append(shards[shard][position : position + size + 1])
        position += size
        if position + size + 1 > len(shards[shard]):
            shard, position = (shard + 1) % len(shards), 0
    return batches


def llmc_shards(folder: Path, pattern: str, batch_tokens: int = 1) -> list[Tokens]:
    """dataloader_init of llm.c: glob order, header, exact size, a batch in each shard at least."""
    paths = sorted(folder.glob(pattern))
    _demand(len(paths) > 0, f"no files found matching the pattern: {pattern}")
    return [_llmc_shard(path, batch_tokens) for path in paths]


def _llmc_shard(path: Path, batch_tokens: int) -> Tokens:
    data = path.read_bytes()
    _demand(len(data) >= 1024, "file too short for a header")
    header = np.frombuffer(data[:1024], dtype=np.int32)
    _demand(header[0] == 20240520, "Bad magic in the data file")
    _demand(header[1] == 1, "Bad version in data file")
    count = int(header[2])
    _demand(count > 0, "we expect some tokens in the file")
    _demand(len(data) == 1024 + 2 * count, "file size is not as expected")
    _demand(not header[3:].any(), "the rest of the header is zero")
    _demand(count >= batch_tokens + 1, f"{path.name}: {count} tokens are less than one batch")
    return np.frombuffer(data, dtype=np.uint16, offset=1024)


def llama3_shard(path: Path) -> Tokens:
    """_peek_data_shard and _load_data_shard of llm.c's train_llama3.py: version 7, uint32."""
    data = path.read_bytes()
    header = np.frombuffer(data[:1024], dtype=np.int32)
    _demand(header[0] == 20240801, "magic number mismatch in the data .bin file")
    _demand(header[1] == 7, "unsupported version")
    tokens = np.frombuffer(data, dtype=np.uint32, offset=1024)
    _demand(len(tokens) == header[2], "number of tokens read does not match header")
    return tokens


@dataclass(frozen=True)
class ModdedShard:
    """A shard as modded-nanogpt sees it: tokens, and where documents begin."""

    tokens: Tokens
    document_starts: list[int]


def modded_shards(folder: Path, split: str, val_tokens: int = 1) -> list[ModdedShard]:
    """modded-nanogpt: _load_data_shard, the scan for BOS, and the least number of shards."""
    paths = sorted(folder.glob(f"fineweb_{split}_*.bin"))
    _demand(len(paths) >= (2 if split == "train" else 1), f"too few {split} shards: {len(paths)}")
    shards = []
    for path in paths:
        tokens = _llmc_shard(path, 0)
        starts = np.flatnonzero(tokens == GPT2_EOT).tolist()
        _demand(bool(starts), f"{path.name}: no document begins in this shard")
        shards.append(ModdedShard(tokens, starts))
    if split == "val":
        _demand(len(shards[0].tokens) >= val_tokens, "validation shard too short")
    return shards


# --- from tokens back to documents -------------------------------------------------------------


def split_after(tokens: Tokens, delimiter: int) -> list[list[int]]:
    """The documents of a stream whose delimiter comes after each."""
    if len(tokens) == 0:
        return []
    if tokens[-1] != delimiter:
        raise AssertionError("the stream does not end with the delimiter")
    ends = np.flatnonzero(tokens == delimiter)
    starts = [0, *(ends[:-1] + 1).tolist()]
    return [tokens[a:b].tolist() for a, b in zip(starts, ends.tolist(), strict=True)]


def split_before(tokens: Tokens, delimiter: int) -> list[list[int]]:
    """The documents of a stream whose delimiter comes before each."""
    if len(tokens) == 0:
        return []
    if tokens[0] != delimiter:
        raise AssertionError("the stream does not begin with the delimiter")
    starts = np.flatnonzero(tokens == delimiter)
    ends = [*starts[1:].tolist(), len(tokens)]
    return [tokens[a + 1 : b].tolist() for a, b in zip(starts.tolist(), ends, strict=True)]
