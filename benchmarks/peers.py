"""The contenders that tokenmill is measured against, each run as a process of its own.

Promises:

* each does what its users do with it, neither more nor less; where its defaults would hurt it on
  these inputs, the better choice was made for it, and is named here;
* all use the same GPT-2 ranks, from one local file; nothing is downloaded;
* each prints one JSON line on stdout: the documents it saw and the tokens it produced, delimiters
  included where it writes any.

| command | what it is |
|---|---|
| `gigatoken-files FILE` | gigatoken's own `encode_files`: all ids in memory, nothing written |
| `tiktoken-loop FILE OUTDIR` | the streaming loop handed around as `stream_tokenize_to_bin.py` |
| `tiktoken-pool FILE OUTDIR` | a process pool as in build-nanogpt's `fineweb.py`, on all cores |
| `datatrove DIR OUTDIR` | datatrove's reader and DocumentTokenizer, as many tasks as files |
| `tokenizer-json OUT` | no contender: builds and checks the `tokenizer.json` for datatrove |
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import tiktoken

    Ids = npt.NDArray[np.uint16]

REPOSITORY = Path(__file__).resolve().parents[1]
VOCABULARY = REPOSITORY / "src" / "tokenmill" / "vocabularies" / "gpt2.tiktoken"
EOT = "<|endoftext|>"
EOT_ID = 50256


def report(**figures: int) -> None:
    print(json.dumps(figures), flush=True)


def read_ranks(vocabulary: Path) -> dict[bytes, int]:
    """The ranks of a `.tiktoken` file, read here since tiktoken's own reader would cache a copy."""
    lines = (line.split() for line in vocabulary.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def gpt2_encoding(vocabulary: Path) -> tiktoken.Encoding:
    """tiktoken's GPT-2, made from a local file."""
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str  # type: ignore[import-untyped]

    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks=read_ranks(vocabulary),
        special_tokens={EOT: EOT_ID},
    )


# ----------------------------------------------------------------------------------- gigatoken


def gigatoken_files(options: argparse.Namespace) -> None:
    """The fastest thing there is, with none of the work of a data set: the yardstick."""
    import gigatoken

    # No special tokens: with them, a page that mentions <|endoftext|> would get the control id.
    tokenizer = gigatoken.Tokenizer.from_tiktoken(options.vocab, "gpt2", {})
    source = {
        ".txt": gigatoken.TextFileSource,
        ".jsonl": gigatoken.JsonlFileSource,
        ".parquet": gigatoken.ParquetFileSource,
    }[options.input.suffix]([options.input])
    ids = tokenizer.encode_files(source)
    report(documents=len(ids), tokens=len(ids.layout.content))


# ------------------------------------------------------------------------------ tiktoken, alone


def tiktoken_loop(options: argparse.Namespace) -> None:
    """Reads a million characters, encodes them, writes them; the head becomes the validation set.

    Kept from the original: bytes that are no UTF-8 are dropped, text mode makes LF of every CRLF,
    the cuts change ids, one process, no delimiter. Mended: the original sets the size of its
    validation set after ten million tokens but compares with it before, and stops with a TypeError
    on its first million characters; here that size is guessed at the start.
    """
    import numpy as np

    encoding = gpt2_encoding(options.vocab)
    options.output.mkdir(parents=True, exist_ok=True)
    bytes_a_token = 4
    validation = int(options.input.stat().st_size / bytes_a_token * 0.0005)
    tokens = 0
    with (
        open(options.input, encoding="utf-8", errors="ignore") as text,
        open(options.output / "train.bin.tmp", "wb") as train,
        open(options.output / "val.bin.tmp", "wb") as val,
    ):
        while chunk := text.read(1_000_000):
            ids = np.array(encoding.encode_ordinary(chunk), dtype=np.uint16)
            head = min(len(ids), max(0, validation - tokens))
            val.write(ids[:head].tobytes())
            train.write(ids[head:].tobytes())
            tokens += len(ids)
    for name in ("train.bin", "val.bin"):
        (options.output / f"{name}.tmp").rename(options.output / name)
    report(documents=1, tokens=tokens)


# ------------------------------------------------------------------------------ tiktoken, pooled

_encoding: tiktoken.Encoding


def start_worker(vocabulary: Path) -> None:
    global _encoding
    _encoding = gpt2_encoding(vocabulary)


def encode_document(text: str) -> Ids:
    import numpy as np

    tokens = [EOT_ID]
    tokens.extend(_encoding.encode_ordinary(text))
    array = np.array(tokens)
    if not ((array >= 0) & (array < 2**16)).all():
        raise ValueError("an id does not fit 16 bits")
    return array.astype(np.uint16)


def documents_of(path: Path) -> Iterator[str]:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for line in lines:
                yield json.loads(line)["text"]
        return
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(columns=["text"], batch_size=1000):
        yield from batch.column(0).to_pylist()


class ShardWriter:
    """Fills shards of a fixed number of tokens, the first one for validation, as `fineweb.py`."""

    def __init__(self, folder: Path, shard_tokens: int) -> None:
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.buffer = np.empty((shard_tokens,), dtype=np.uint16)
        self.filled = self.index = self.written = 0

    def add(self, ids: Ids) -> None:
        # A document may be longer than what is left, or even than a whole shard.
        while self.filled + len(ids) >= len(self.buffer):
            room = len(self.buffer) - self.filled
            self.buffer[self.filled :] = ids[:room]
            self.filled, ids = len(self.buffer), ids[room:]
            self.flush()
        self.buffer[self.filled : self.filled + len(ids)] = ids
        self.filled += len(ids)

    def flush(self) -> None:
        import numpy as np

        if not self.filled:
            return
        split = "train" if self.index else "val"
        np.save(self.folder / f"edufineweb_{split}_{self.index:06d}", self.buffer[: self.filled])
        self.written += self.filled
        self.index, self.filled = self.index + 1, 0


def tiktoken_pool(options: argparse.Namespace) -> None:
    """build-nanogpt's `fineweb.py` on a local file, on all cores where the original takes half."""
    writer = ShardWriter(options.output, options.shard_tokens)
    documents = 0
    context = multiprocessing.get_context("fork")
    with context.Pool(options.cores, start_worker, (options.vocab,)) as pool:
        for ids in pool.imap(encode_document, documents_of(options.input), chunksize=16):
            writer.add(ids)
            documents += 1
    writer.flush()
    report(documents=documents, tokens=writer.written)


# ----------------------------------------------------------------------------------- datatrove


def datatrove(options: argparse.Namespace) -> None:
    """datatrove on a folder of jsonl or parquet files, one task and one worker for each file.

    In its favour: no shuffling, which writes everything a second time; 1,000 documents a batch
    instead of 10,000, which on documents of this length cost many GB a worker; and no threads
    inside its workers, which already take all cores.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader, ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    files = [path for path in options.input.iterdir() if path.is_file()]
    suffixes = {path.suffix for path in files}
    if suffixes not in ({".jsonl"}, {".parquet"}):
        raise SystemExit(
            f"error: {options.input} must hold jsonl files only, or parquet files only"
        )
    reader = JsonlReader if suffixes == {".jsonl"} else ParquetReader
    output = options.output / "tokens"
    LocalPipelineExecutor(
        pipeline=[
            reader(str(options.input)),
            DocumentTokenizer(
                str(output),
                tokenizer_name_or_path=str(options.tokenizer_json),
                eos_token=EOT,
                batch_size=options.batch_size,
                shuffle_documents=False,
            ),
        ],
        tasks=len(files),
        workers=len(files),
        logging_dir=str(options.output / "logs"),
    ).run()
    tokens = sum(path.stat().st_size // 2 for path in output.glob("*.ds"))
    documents = sum(path.stat().st_size // 8 for path in output.glob("*.ds.index"))
    report(documents=documents, tokens=tokens)


def tokenizer_json(options: argparse.Namespace) -> None:
    """Builds GPT-2's tokenizer.json from the ranks, and compares it with tiktoken on a corpus."""
    import tokenizers

    ranks = read_ranks(options.vocab)
    letter = byte_letters()
    spell: Callable[[bytes], str] = lambda token: "".join(letter[b] for b in token)  # noqa: E731
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={spell(token): rank for token, rank in ranks.items()},
            merges=[(spell(left), spell(right)) for left, right in merges_of(ranks)],
        )
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([EOT])
    if tokenizer.token_to_id(EOT) != EOT_ID:
        raise SystemExit(f"error: {EOT} got the id {tokenizer.token_to_id(EOT)}")
    documents = check_against_tiktoken(tokenizer, gpt2_encoding(options.vocab), options.check)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_name(options.output.name + ".partial")
    tokenizer.save(str(partial))
    partial.rename(options.output)
    report(documents=documents, tokens=len(ranks) + 1)


def check_against_tiktoken(tokenizer: Any, encoding: tiktoken.Encoding, corpus: Path) -> int:
    """How many documents were compared; stops at the first whose ids differ."""
    compared = 0
    for number, text in enumerate(documents_of(corpus)):
        # Registered as special, as in the published file, it is found in the text as well.
        if EOT in text:
            continue
        if tokenizer.encode(text, add_special_tokens=False).ids != encoding.encode_ordinary(text):
            raise SystemExit(f"error: tokenizer.json and tiktoken differ on document {number}")
        compared += 1
    if not compared:
        raise SystemExit(f"error: {corpus} has no document to compare")
    return compared


def byte_letters() -> list[str]:
    """GPT-2's way to write each byte as a visible character."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters, next_free = [], 256
    for byte in range(256):
        if byte in visible:
            letters.append(chr(byte))
        else:
            letters.append(chr(next_free))
            next_free += 1
    return letters


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge rules, recovered: a token's rule joins what the lower ranks make of its bytes."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = split_below(token, rank, ranks)
            merges.append((left, right))
    return merges


def split_below(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """BPE on the token's bytes with the merges below `rank` only."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while True:
        joined = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
        lowest = min(joined, default=rank)
        if lowest >= rank:
            return parts
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def contender(
        name: str, action: Callable[[argparse.Namespace], None], *paths: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, description=action.__doc__)
        command.set_defaults(action=action)
        for path in paths:
            command.add_argument(path, type=Path)
        command.add_argument("--vocab", type=Path, default=VOCABULARY, help="GPT-2's ranks")
        return command

    contender("gigatoken-files", gigatoken_files, "input")
    contender("tiktoken-loop", tiktoken_loop, "input", "output")
    pool = contender("tiktoken-pool", tiktoken_pool, "input", "output")
    pool.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    pool.add_argument("--shard-tokens", type=int, default=100_000_000)
    trove = contender("datatrove", datatrove, "input", "output")
    trove.add_argument("--tokenizer-json", type=Path, required=True)
    trove.add_argument("--batch-size", type=int, default=1000)
    builder = contender("tokenizer-json", tokenizer_json, "output")
    builder.add_argument("--check", type=Path, required=True, help="corpus to compare on (parquet)")
    options = parser.parse_args()
    options.action(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
