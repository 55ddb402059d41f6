"""What the fuzzer attacks: one target for each thing that tokenmill reads, with its invariants."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import hashlib
import json
import lzma
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from tests.kit import corpora, sized, texts
from tests.kit.shared import GPT2_RANKS
from tests.kit.sized import shrunk
from tests.torture import mutations
from tokenmill import quantities
from tokenmill.batches import CORRUPT_COMPRESSION, START, BadRecord, Counts, Position
from tokenmill.commands import plan
from tokenmill.commands.inspect import describe, text_at_token, text_of_document
from tokenmill.commands.plan import Plan, make_plan
from tokenmill.commands.verify import verify
from tokenmill.dataset.files import LocalFile
from tokenmill.dataset.manifest import load_manifest
from tokenmill.dataset.reader import DatasetReader
from tokenmill.dataset.spec import Spec
from tokenmill.errors import LimitReached, TokenmillError
from tokenmill.formats import FORMATS, ShardDamage
from tokenmill.memory import Budget
from tokenmill.sources import open_source
from tokenmill.text import utf8
from tokenmill.tokenizers import engines
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

MIB = 1024 * 1024
BLOCK = 4096


class Broken(Exception):
    """An invariant does not hold."""


@dataclass
class Case:
    """One attack: its randomness, an empty folder, and the folder of the valid files."""

    rng: random.Random
    folder: Path
    fixtures: Path


@dataclass(frozen=True)
class Target:
    """``share`` is its part of the time, ``seconds`` the longest that a case may take, ``growth``
    by how many bytes memory may grow in one."""

    name: str
    run: Callable[[Case], None]
    share: float = 1.0
    seconds: float = 20.0
    growth: int = 256 * MIB


SMALL = shrunk(BLOCK, window=512, seam_context=1024, run_ahead=256)
"""So that small files have many blocks."""
prepare = functools.partial(sized.prepare, sizes=SMALL)


def make_small() -> None:
    """Small records, and nothing waits for the disk; the small blocks are `SMALL`."""
    Budget.record_bytes = property(lambda budget: 64_000)  # type: ignore[assignment]
    vars(os).update(fsync=lambda fd: None, fdatasync=lambda fd: None)
    made: dict[str, Engine] = {}

    def make_once(name: str, vocabulary: Vocabulary, *more: Any) -> Engine:
        key = f"{name} {vocabulary.describe()}"  # neither it nor a rule of cuts can be hashed
        if key not in made:
            while len(made) >= 4:
                made.pop(next(iter(made)))
            made[key] = engines.make_engine(name, vocabulary, *more)
        return made[key]

    vars(plan)["make_engine"] = make_once


# --- valid files -------------------------------------------------------------------------------


def documents() -> list[str]:
    """Short and long, plain and odd."""
    prose = texts.prose(30_000)
    odd = ["", "\ufeff", "é中😀\u2028", "a\0b", "x" * 9000, "<|endoftext|>", "1" * 700, "\r\n \t"]
    return [*odd, *(prose[n * 700 : n * 700 + 40 * n] for n in range(40))]


def make_fixtures(folder: Path) -> None:
    """All valid files, each kind in a folder of its own."""
    plain = folder / "plain"
    plain.mkdir(parents=True)
    (folder / "small.tiktoken").write_bytes(small_vocabulary())
    some = documents()
    (plain / "a.txt").write_text("\n\n".join(some), newline="")
    (plain / "b.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(some[:20]).encode())
    (plain / "c.jsonl").write_bytes(corpora.jsonl([*some, None]))
    lines = [json.dumps({"meta": [{"n": i}], "text": t}) for i, t in enumerate(some)]
    (plain / "d.jsonl").write_text("\r\n".join(lines[:30]) + "\n\n \n" + "\n".join(lines[30:]))
    for path in list(plain.iterdir()):
        for suffix, compress in corpora.COMPRESSORS.items():
            data, half = path.read_bytes(), path.stat().st_size // 2
            place = folder / suffix[1:] / (path.name + suffix)
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(compress(data))
            two = compress(data[:half]) + compress(data[half:])
            place.with_name("two-" + place.name).write_bytes(two)
    checked = folder / "zst" / "checked.txt.zst"
    checked.write_bytes(corpora.zst((plain / "a.txt").read_bytes(), checksum=True))
    make_parquet(folder / "parquet", some)
    make_datasets(folder)


def make_parquet(folder: Path, some: list[str]) -> None:
    """Every type of text column, encoding and compression."""
    folder.mkdir()
    nulls: list[str | None] = [*some, None, None]
    variants: list[tuple[list[Any], dict[str, Any]]] = [
        (some, {"compression": "none", "use_dictionary": False}),
        (nulls, {"compression": "snappy", "write_page_checksum": True}),
        (some, {"compression": "gzip", "data_page_version": "2.0", "data_page_size": 2048}),
        (nulls, {"compression": "zstd", "type_": pa.large_string(), "row_group": 7}),
        (some, {"compression": "lz4", "type_": pa.binary(), "use_dictionary": False}),
        (some, {"type_": pa.dictionary(pa.int32(), pa.string())}),
        (some * 30, {"row_group": 1100}),  # read as a dictionary, a few rows at a time
        (some, {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}),
        (nulls, {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}}),
        ([], {}),
    ]
    for number, (values, options) in enumerate(variants):
        if options.get("column_encoding") == "DELTA_BYTE_ARRAY":
            options["column_encoding"] = {"text": "DELTA_BYTE_ARRAY"}
        corpora.write_parquet(folder / f"{number}.parquet", values, **options)


def make_datasets(folder: Path) -> None:
    """Finished datasets in every format, and unfinished runs stopped at several places."""
    for name in FORMATS:
        out = folder / "done" / name
        prepare(folder / "plain" / "c.jsonl", out=out, **finished(folder, name))
    for number, (kind, stops) in enumerate(UNFINISHED):
        inputs = [folder / "plain" / kind]
        for steps in range(stops + 1):
            out = folder / "begun" / f"{number}-{steps}"
            if steps:
                shutil.copytree(folder / "begun" / f"{number}-{steps - 1}", out)
            with contextlib.suppress(LimitReached):
                prepare(inputs, out=out, **going_on(folder, number), max_time=1e-9)
        whole = folder / "whole" / str(number)
        prepare(inputs, out=whole, **going_on(folder, number))


RUN: dict[str, Any] = {
    "shard_tokens": 1500, "check": 0.0, "threads": 1, "checkpoint_seconds": 0.0,
    "engine": "tiktoken",
}  # fmt: skip
UNFINISHED = [("a.txt", 3), ("c.jsonl", 3), ("d.jsonl", 2), ("b.txt", 2)]


def small(folder: Path) -> dict[str, Any]:
    """A vocabulary that is loaded in no time."""
    return {"tokenizer": str(folder / "small.tiktoken"), "pattern": "gpt2"}


def finished(folder: Path, name: str) -> dict[str, Any]:
    """The options of a finished dataset; modded-nanogpt's loader knows gpt2's ids only."""
    return RUN | {"format": name} | ({} if name == "modded-nanogpt" else small(folder))


def going_on(folder: Path, number: int) -> dict[str, Any]:
    """The options of an unfinished run."""
    kinds: list[dict[str, Any]] = [
        {"format": "build-nanogpt"},
        {"format": "nanogpt", "shard_tokens": None, "val_fraction": 0.2},
        {"format": "llm.c", "on_bad": "quarantine", "special_text": "error"},
        {"format": "nanogpt", "documents": "line", "val_tokens": 2000},
    ]
    return RUN | small(folder) | kinds[number]


# --- inputs ------------------------------------------------------------------------------------

CHOICES: dict[str, list[Any]] = {
    "on_bad": ["stop", "quarantine", "quarantine"],
    "invalid_utf8": ["error", "error", "replace"],
    "special_text": ["text", "text", "error", "token"],
    "documents": ["file", "line", "blank-line", "separator:\n\n", "separator:<|endoftext|>"],
}


def options_of(rng: random.Random) -> dict[str, Any]:
    """Options that decide how inputs are read."""
    return {name: rng.choice(values) for name, values in CHOICES.items()}


@dataclass
class Reading:
    """What the blocks of some inputs give; ``ends`` is where each ended."""

    documents: list[bytes] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    ends: list[Any] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)


def read(plan: Plan, start: Position = START) -> Reading:
    """All blocks from a place on; what goes on from one block to the next stays in pieces."""
    found, going_on = Reading(), None
    corpus = plan.corpus()
    for block in corpus.blocks(start):
        found.ends.append(block.end)
        found.steps.append((len(found.documents), len(found.bad)))
        batch = corpus.read(block)
        if batch.documents and going_on not in (None, batch.continues):
            raise Broken("a document goes on that was not left open, or the other way round")
        if batch.documents:
            going_on = batch.unfinished
        found.documents += batch.documents
        found.bad += batch.bad
        found.counts.add(batch.counts)
    return found


def mutant(case: Case, *kinds: str) -> Path:
    """A mutated file of one of the kinds, in the case's folder."""
    pool = sorted(path for kind in kinds for path in (case.fixtures / kind).iterdir())
    chosen = case.rng.choice(pool)
    others = [chosen, case.rng.choice(pool), case.rng.choice(pool)]
    data = mutations.bytes_of(case.rng, chosen.read_bytes(), [o.read_bytes() for o in others])
    path = case.folder / chosen.name
    path.write_bytes(data)
    return path


Oracle = Callable[[Path, Reading, dict[str, Any]], None]


def check_reading(case: Case, path: Path, oracle: Oracle) -> None:
    """Read it all; ask the oracle; read again from the middle; draw a sample."""
    options = options_of(case.rng)
    options["val_fraction"] = case.rng.choice((0.0, 0.3))
    spec = Spec.of(options)  # type: ignore[arg-type]
    plan = make_plan([str(path)], spec, "tiktoken", sizes=SMALL)
    found = read(plan)
    for document in found.documents:
        if not is_text(document):
            raise Broken("a document is not UTF-8")
    if options["on_bad"] == "stop" and found.bad:
        raise Broken("a bad record without --on-bad quarantine")
    oracle(path, found, options)
    if found.ends:
        index = case.rng.randrange(len(found.ends))
        rest = read(plan, found.ends[index])
        after = [*found.steps, (len(found.documents), len(found.bad))][index + 1]
        if rest.documents != found.documents[after[0] :] or rest.bad != found.bad[after[1] :]:
            raise Broken("going on from a block's end gives something else")
    source = open_source(plan.inputs.files[0], plan.source_options())
    source.sample(case.rng.random(), 4096)


def is_text(document: bytes) -> bool:
    """Is it UTF-8, by Python's own decoder?"""
    try:
        document.decode()
    except UnicodeDecodeError:
        return False
    return True


def no_oracle(path: Path, found: Reading, options: dict[str, Any]) -> None:
    """Where nothing more is known."""


def every_byte(path: Path, found: Reading, options: dict[str, Any]) -> None:
    """Text: what is not in a document is in a bad range."""
    if options["documents"] != "file" or options["invalid_utf8"] == "replace":
        return
    raw = path.read_bytes()
    mark = [(0, 3)] if found.counts.byte_order_marks else []
    ranges = [(r.offset, r.offset + r.length) for r in found.bad if r.offset is not None]
    if sorted(ranges) != ranges:
        raise Broken("bad ranges out of order")
    if b"".join(found.documents) != utf8.without(raw, utf8.join_ranges(mark + ranges, 0)):
        raise Broken("bytes in are not bytes out and bad ranges")


def every_line(path: Path, found: Reading, options: dict[str, Any]) -> None:
    """JSONL: a line is a document, a null, blank, or a bad record."""
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = sum(bool(line.strip(b" \t\r\n")) for line in raw.split(b"\n"))
    told = len(found.documents) + len(found.bad) + found.counts.null_documents
    if lines != told:
        raise Broken("a line is lost, or comes twice")


def by_kind(path: Path, found: Reading, options: dict[str, Any]) -> None:
    """The oracle of a plain file."""
    (every_line if path.suffix == ".jsonl" else every_byte)(path, found, options)


DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress,
}  # fmt: skip


def whole_or_told(path: Path, found: Reading, options: dict[str, Any]) -> None:
    """Compressed: unless damage is told, Python's own module reads the same text."""
    if path.suffix not in DECOMPRESS or any(r.reason == CORRUPT_COMPRESSION for r in found.bad):
        return
    try:
        raw = DECOMPRESS[path.suffix](path.read_bytes())
    except Exception as error:  # noqa: BLE001
        raise Broken(f"read without a word, but {type(error).__name__}: {error}") from None
    plain = path.with_suffix("")
    plain.write_bytes(raw)
    by_kind(plain, found, options)


def attack_plain(case: Case) -> None:
    check_reading(case, mutant(case, "plain"), by_kind)


def attack_compressed(kind: str) -> Callable[[Case], None]:
    def attack(case: Case) -> None:
        check_reading(case, mutant(case, kind), whole_or_told)

    return attack


def attack_parquet(case: Case) -> None:
    check_reading(case, mutant(case, "parquet"), no_oracle)


def attack_prepare(case: Case) -> None:
    """The whole run over a mutated input, with all that stands around the reading."""
    kind = case.rng.choice(("plain", "plain", "gz", "zst", "bz2", "xz", "parquet"))
    path, options = mutant(case, kind), options_of(case.rng)
    engine = case.rng.choice(("tiktoken", "gigatoken"))
    out = case.folder / "victims" / "out"
    options |= small(case.fixtures) | {"engine": engine, "check": 0.5}
    with untouched(out):
        prepare(path, out=out, **RUN | options)
    problems = list(verify(out))
    if [problem for problem in problems if problem.name != "quarantine.jsonl"]:
        raise Broken(f"verify finds: {problems[0]}")


# --- output folders ----------------------------------------------------------------------------


@contextlib.contextmanager
def untouched(out: Path) -> Iterator[None]:
    """Nothing beside ``out`` may change: there are files that beg for it."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("victim", "victim.partial", "sentinel"):
        (out.parent / name).write_text(name)
    before = listing(out)
    try:
        yield
    finally:
        evil = list(Path("/tmp").glob("tokenmill-victim*"))
        if listing(out) != before or evil:
            raise Broken("a file outside the output folder was touched")


def listing(out: Path) -> dict[str, str]:
    """Everything beside ``out``, with its content."""
    beside = [path for path in out.parent.rglob("*") if out not in (path, *path.parents)]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in beside if p.is_file()}


def snapshot(out: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def attack_dataset(case: Case) -> None:
    """A changed manifest, or changed files around it: verify, inspect, and another prepare."""
    done = case.rng.choice(sorted((case.fixtures / "done").iterdir()))
    out = case.folder / "victims" / "out"
    shutil.copytree(done, out)
    manifest = out / "manifest.json"
    kind = case.rng.random()
    if kind < 0.65:
        manifest.write_bytes(mutations.json_of(case.rng, json.loads(manifest.read_bytes())))
    elif kind < 0.8:
        manifest.write_bytes(mutations.bytes_of(case.rng, manifest.read_bytes(), []))
    else:
        change_entry(case, case.rng.choice(sorted(out.iterdir())))
    with untouched(out):
        look_at(case, out)
        if case.rng.random() < 0.3:
            source = case.fixtures / "plain" / "c.jsonl"
            more = {"overwrite": case.rng.random() < 0.3}
            prepare(source, out=out, **finished(case.fixtures, done.name) | more)


def change_entry(case: Case, path: Path) -> None:
    """Something else in the place of a file: other bytes, a folder, a pipe, a device."""
    data = path.read_bytes()
    path.unlink()
    kind = case.rng.randrange(7)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(case.rng.choice(("/dev/zero", "/dev/null", "../victim", path.name)))
    elif kind == 3:
        path.touch()
        os.truncate(path, 1024**3)
    else:
        path.write_bytes(mutations.bytes_of(case.rng, data, []))


def look_at(case: Case, out: Path) -> None:
    """Verify and inspect, each for itself."""
    with contextlib.suppress(TokenmillError):
        list(verify(out, quick=True))
    with contextlib.suppress(TokenmillError):
        list(verify(out))
    with contextlib.suppress(TokenmillError):
        load_manifest(out).shard_tokens()
    for split in ("train", "val"):
        for number in (0, 3, case.rng.choice((10**4, 2**63))):
            with contextlib.suppress(TokenmillError):
                text_at_token(DatasetReader.at(out), number, split)
            with contextlib.suppress(TokenmillError):
                text_of_document(DatasetReader.at(out), number, split)
    with contextlib.suppress(TokenmillError):
        about = describe(DatasetReader.at(out))
        json.dumps(about)
        "".join(f"{value:,} {name}" for name, value in about["counts"].items() if value)


def attack_journal(case: Case) -> None:
    """A changed journal, signed again or not, and a run that goes on from it."""
    begun = case.rng.choice(sorted((case.fixtures / "begun").iterdir()))
    number = int(begun.name.partition("-")[0])
    out = case.folder / "victims" / "out"
    shutil.copytree(begun, out)
    journal = out / ".tokenmill" / "journal"
    is_signed = case.rng.random() < 0.6
    if is_signed:
        journal.write_bytes(signed_mutant(case, journal.read_bytes()))
    elif case.rng.random() < 0.7:
        journal.write_bytes(mutations.bytes_of(case.rng, journal.read_bytes(), []))
    else:
        change_entry(case, case.rng.choice([p for p in out.rglob("*") if p.is_file()]))
    kept = [path.name for path in out.iterdir() if not path.is_file()]
    with untouched(out):
        source = case.fixtures / "plain" / UNFINISHED[number][0]
        prepare(source, out=out, **going_on(case.fixtures, number))
    whole = snapshot(case.fixtures / "whole" / str(number))
    # Who can sign a journal can tell lies in it; but not those of a disk.
    if is_signed or kept != [".tokenmill"] or snapshot(out) == whole:
        return
    # A whole shard that changed and kept its size is not read again: verify finds it.
    if "changed" not in {problem.kind for problem in verify(out)}:
        raise Broken("the run went on to other bytes")


def signed_mutant(case: Case, journal: bytes) -> bytes:
    """One entry changed, most often the last, which counts; with the right checksum for it."""
    lines = journal.splitlines()
    index = case.rng.choice((-1, -1, -1, case.rng.randrange(len(lines))))
    text = mutations.json_of(case.rng, json.loads(lines[index].partition(b" ")[2]))
    lines[index] = xxhash.xxh3_64_hexdigest(text).encode() + b" " + text
    return b"".join(line + b"\n" for line in lines)


# --- vocabularies, shards, options -------------------------------------------------------------


def small_vocabulary() -> bytes:
    """The head of GPT-2's ranks: all bytes and a few merges."""
    return b"".join(GPT2_RANKS.read_bytes().splitlines(keepends=True)[:700])


def attack_vocabulary(case: Case) -> None:
    """A mutated .tiktoken file, and now and then a run with it."""
    lines = small_vocabulary().splitlines(keepends=True)
    if case.rng.random() < 0.5:
        for _ in range(case.rng.choice((1, 2, 5))):
            low, high = case.rng.randrange(len(lines)), case.rng.randrange(len(lines))
            first, second = lines[low].split(b" "), lines[high].split(b" ")
            lines[low], lines[high] = (
                b" ".join((second[0], first[-1])), b" ".join((first[0], second[-1]))
            )  # fmt: skip
        if case.rng.random() < 0.5:
            del lines[case.rng.randrange(len(lines))]
            tokens = [line.split(b" ")[0] for line in lines]
            lines = [b"%s %d\n" % (token, rank) for rank, token in enumerate(tokens)]
        data = b"".join(lines)
    else:
        data = mutations.bytes_of(case.rng, b"".join(lines), [])
    path = case.folder / "mine.tiktoken"
    path.write_bytes(data)
    vocabulary = load_vocabulary(str(path), case.rng.choice(("gpt2", "cl100k_base", "o200k_base")))
    _ = vocabulary.token_bytes, vocabulary.describe()
    out = case.folder / "victims" / "out"
    engine = case.rng.choice(("tiktoken", "gigatoken"))
    with untouched(out):
        prepare(
            case.fixtures / "plain" / "a.txt", out=out, tokenizer=str(path),
            pattern=vocabulary.pattern, **RUN | {"engine": engine, "check": 1.0},
        )  # fmt: skip


def attack_shard(case: Case) -> None:
    """Mutated shards, opened by every format."""
    pool = [p for p in (case.fixtures / "done").rglob("*") if p.suffix in (".bin", ".npy")]
    shards = sorted(p for p in pool if p.is_file())
    head = case.rng.choice(shards).read_bytes()[:3000]
    others = [case.rng.choice(shards).read_bytes()[:2000]]
    path = case.folder / "shard"
    head = head[: case.rng.choice((200, 1300, 3000))]
    path.write_bytes(mutations.bytes_of(case.rng, head, others))
    for layout in FORMATS.values():
        with contextlib.suppress(ShardDamage):
            shard = layout.reader({path.name: LocalFile(path)})
            size = shard.head_bytes + shard.tokens * {"uint16": 2, "uint32": 4}[shard.dtype]
            if shard.head_bytes < 0 or shard.tokens < 0 or size != path.stat().st_size:
                raise Broken(f"{layout.name}: tokens outside of the file")
    raise ShardTold("looked at")


class ShardTold(TokenmillError):
    """Counts a shard among the refused: whether it was depends on the format."""


WORDS = ["1", "9", "0", "_", ".", "K", "M", "GiB", "B", "-", "+", "e", " ", "\u0663", "\0", "d",
         "h", "m", "s", "inf", "nan", "1h30m", "512MB", "\u00b2", "\ud800", "1" * 30, "9" * 320,
         "0" * 5000, "9" * 5000]  # fmt: skip


def attack_options(case: Case) -> None:
    """Texts for numbers, and odd values for every option of the spec."""
    text = "".join(case.rng.choice(WORDS) for _ in range(case.rng.randint(0, 6)))
    for parse in (quantities.parse_bytes, quantities.parse_count):
        with contextlib.suppress(TokenmillError):
            count = parse(text)
            if count < 0:
                raise Broken("a negative number")
    with contextlib.suppress(TokenmillError):
        quantities.parse_seconds(text)
    options: dict[str, Any] = {}
    for name in case.rng.sample(sorted(SPEC_VALUES), case.rng.randint(1, 4)):
        options[name] = SPEC_VALUES[name](case.rng, text)
    with contextlib.suppress(TokenmillError):
        spec = Spec.of(options)  # type: ignore[arg-type]
        spec.layout.check(spec.shard_tokens, "uint16", 50256)
        spec.layout.files(spec.name, "train", 0)
    run: dict[str, Any] = {"memory": text} if case.rng.random() < 0.5 else {"max_time": text}
    if case.rng.random() < 0.5:
        run = {"threads": case.rng.choice((0, -1, 1, 2**40))}
    out = case.folder / "victims" / "out"
    with untouched(out):
        chosen = {k: v for k, v in RUN.items() if k != "shard_tokens"}
        chosen |= small(case.fixtures) | options | run
        prepare(case.fixtures / "plain" / "b.txt", out=out, **chosen)


def _text(rng: random.Random, text: str) -> Any:
    return rng.choice([text, *mutations.TEXTS])


def _number(rng: random.Random, text: str) -> Any:
    return rng.choice([n for n in mutations.NUMBERS if isinstance(n, int)])


def _share(rng: random.Random, text: str) -> Any:
    return rng.choice([float("nan"), float("inf"), -0.1, 0.999999, 1e-300, 1.0, 0.5, 0.0])


SPEC_VALUES: dict[str, Callable[[random.Random, str], Any]] = {
    "format": lambda rng, text: rng.choice([*FORMATS, text]),
    "tokenizer": _text, "pattern": _text, "text_key": _text, "name": _text, "eot": _text,
    "documents": lambda rng, text: rng.choice(["line", "separator:" + _text(rng, text), text]),
    "shard_tokens": _text, "val_tokens": _text, "special_text": _text, "on_bad": _text,
    "invalid_utf8": _text, "val_shards": _number, "seed": _number, "val_fraction": _share,
}  # fmt: skip

TARGETS = [
    Target("plain", attack_plain),
    *(Target(kind, attack_compressed(kind), 0.5) for kind in ("gz", "zst", "bz2", "xz")),
    Target("parquet", attack_parquet, 1.5),
    Target("prepare", attack_prepare),
    Target("dataset", attack_dataset),
    Target("journal", attack_journal, 1.5),
    Target("vocabulary", attack_vocabulary, 0.5),
    Target("shard", attack_shard, 0.2),
    Target("options", attack_options, 0.5),
]
