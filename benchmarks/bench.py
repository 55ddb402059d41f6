"""The speed measurements that tokenmill is held to, each printed as a Markdown table.

Promises:

* every contender is a fresh process and contenders take turns (see `measure.py`);
* every figure stands next to what is required of it, and says whether that is met;
* both contenders' token counts stand in the row, so that it shows if one of them did less work;
* rows are printed as they are measured, and the exact commands after them.

| command | measures |
|---|---|
| `speed` | every corpus and kind of input against gigatoken's `encode_files`, time and memory |
| `peers` | English against a tiktoken loop, a tiktoken process pool and datatrove |
| `scaling` | time and memory from 1/150 of the size to the size itself (100 MB to 15 GB) |
| `budgets` | what `--memory` costs |
| `checkpoints` | what it costs to lose no work |
| `threads` | what `--threads` brings |

    python benchmarks/bench.py speed --work WORK              # as required: 2 GB, three rounds
    python benchmarks/bench.py speed --work WORK --size 50MB  # does it work at all?
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import corpora
from corpora import Grown, Place, grow, parse_size, size_name
from measure import (
    CommandFailed,
    Contender,
    NotCold,
    Run,
    Spread,
    files_under,
    interleave,
    machine,
    ratios,
    say,
    table_head,
    table_row,
)
from peers import VOCABULARY

PEERS = Path(__file__).with_name("peers.py")
REQUIRED_AGAINST_GIGATOKEN = {"txt": 0.9, "jsonl": 0.9, "parquet": 1.2}
REQUIRED_MEMORY_SHARE = 1 / 3
REQUIRED_AGAINST_PEERS = {"tiktoken-loop": 20.0, "tiktoken-pool": 10.0, "datatrove": 40.0}
# Sizes of `scaling`, as parts of the largest: 100 MB, 500 MB, 2 GB and 15 GB of 15 GB.
SCALING_PARTS = (1 / 150, 1 / 30, 2 / 15, 1.0)
BUDGETS = ("512MB", "1GB", "2GB")
# Bytes before the first token; the other shards have no header.
SHARD_HEADERS = {".npy": 128, ".bin": 0, ".ds": 0}


@dataclass
class Bench:
    """What the measurements share: where things are, how often to run, and what was run."""

    place: Place
    tokenmill: tuple[str, ...]
    python: str
    datatrove_python: str
    vocabulary: Path
    size: int
    rounds: int
    cache: str
    commands: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def prepare(self, name: str, source: Path, *options: str, hashed: bool = False) -> Contender:
        """tokenmill on an input; its output lies in the work folder, on the disk to measure."""
        output = self.place.work / "out-tokenmill"
        command = (*self.tokenmill, "prepare", str(source), "--out", str(output), "--quiet")
        look = hash_shards if hashed else written_tokens
        return self._note(
            Contender(name, (*command, *options), (source,), output, lambda run: look(output))
        )

    def peer(self, name: str, source: Path, *options: str) -> Contender:
        """A peer that writes a data set."""
        output = self.place.work / f"out-{name}"
        python = self.datatrove_python if name == "datatrove" else self.python
        command = (python, str(PEERS), name, str(source), str(output))
        vocabulary = f"--vocab={self.vocabulary}"
        return self._note(
            Contender(
                name,
                (*command, *options, vocabulary),
                (source,),
                output,
                lambda run: written_tokens(output),
            )
        )

    def yardstick(self, source: Path) -> Contender:
        """gigatoken's encode_files, which writes nothing."""
        name, vocabulary = "gigatoken-files", f"--vocab={self.vocabulary}"
        command = (self.python, str(PEERS), name, str(source), vocabulary)
        return self._note(Contender(name, command, (source,), evidence=reported_tokens))

    def _note(self, contender: Contender) -> Contender:
        shown = shlex.join(contender.command)
        names = {
            str(self.place.work): "WORK",
            str(self.place.shared): "SHARED",
            str(PEERS.parent): "benchmarks",
            str(corpora.REPOSITORY): ".",
            self.datatrove_python: "python",
            self.python: "python",
            sys.executable: "python",
        }
        for long, short in sorted(names.items(), key=lambda item: -len(item[0])):
            shown = shown.replace(long, short)
        if shown not in self.commands:
            self.commands.append(shown)
        return contender

    def run(self, *contenders: Contender) -> list[list[Run]]:
        runs = interleave(contenders, self.rounds, self.cache)
        return [runs[contender.name] for contender in contenders]

    def verdict(self, what: str, met: bool) -> str:
        if not met:
            self.missed.append(what)
        return "met" if met else "**missed**"


# ------------------------------------------------------------------- what a run has left behind


def written_tokens(output: Path) -> str:
    """Tokens in the shards of two bytes a token, delimiters included."""
    shards = [file for file in files_under(output) if file.suffix in SHARD_HEADERS]
    size = sum(file.stat().st_size - SHARD_HEADERS[file.suffix] for file in shards)
    return f"{size // 2:,} tokens"


def reported_tokens(run: Run) -> str:
    """Tokens that a peer says it has in memory, and one more for each delimiter it did not put."""
    said = json.loads(run.stdout.splitlines()[-1])
    return f"{said['tokens'] + said['documents']:,} tokens"


def hash_shards(output: Path) -> str:
    """The first digits of one SHA-256 over names and bytes of all shards."""
    total = hashlib.sha256()
    buffer = bytearray(4 << 20)
    for file in files_under(output):
        if file.suffix in SHARD_HEADERS:
            total.update(file.name.encode())
            with file.open("rb", buffering=0) as handle:
                while count := handle.readinto(buffer):
                    total.update(memoryview(buffer)[:count])
    return total.hexdigest()[:12]


# ------------------------------------------------------------------------------- the tables


def speed_of(runs: Sequence[Run], text_bytes: int) -> Spread:
    """MB of text a second."""
    return Spread.of([text_bytes / run.seconds / 1e6 for run in runs])


def peak_of(runs: Sequence[Run]) -> Spread:
    """Peak resident memory in MB."""
    return Spread.of([run.peak_rss / 1e6 for run in runs])


def times_faster(ours: Sequence[Run], theirs: Sequence[Run]) -> Spread:
    return ratios(theirs, ours, lambda run: run.seconds)


def show(cells: Sequence[str]) -> None:
    print(table_row(cells), flush=True)


def measure_speed(bench: Bench, options: argparse.Namespace) -> None:
    """tokenmill end to end, against encode_files, which writes nothing and keeps everything."""
    headers = ["corpus", "input", "tokenmill, MB/s", "encode_files, MB/s", "speed ratio"]
    headers += ["required", "", "tokenmill, peak MB", "encode_files, peak MB", "memory ratio"]
    print(table_head([*headers, "required", "", "tokens", "its tokens + documents"]))
    for corpus in options.corpus or corpora.CORPORA:
        for kind, required in REQUIRED_AGAINST_GIGATOKEN.items():
            if options.kind and kind not in options.kind:
                continue
            grown = grow(bench.place, corpus, kind, bench.size)
            ours, theirs = bench.run(
                bench.prepare("tokenmill", grown.path, "--format", "nanogpt"),
                bench.yardstick(grown.path),
            )
            faster = times_faster(ours, theirs)
            memory = ratios(ours, theirs, lambda run: run.peak_rss)
            show(
                [
                    corpus,
                    kind,
                    speed_of(ours, grown.text_bytes).text(0),
                    speed_of(theirs, grown.text_bytes).text(0),
                    faster.text(),
                    f"at least {required}",
                    bench.verdict(f"speed {corpus} {kind}", faster.median >= required),
                    peak_of(ours).text(0),
                    peak_of(theirs).text(0),
                    memory.text(),
                    "under 1/3",
                    bench.verdict(f"memory {corpus} {kind}", memory.median < REQUIRED_MEMORY_SHARE),
                    ours[0].evidence,
                    theirs[0].evidence,
                ]
            )


def peer_pairs(
    bench: Bench, corpus: str, kind: str, wanted: Sequence[str]
) -> Iterator[tuple[Grown, Contender, Contender]]:
    """tokenmill and one peer, on the same files and to the same format where there is one."""
    if "tiktoken-loop" in wanted:
        text = grow(bench.place, corpus, "txt", bench.size)
        ours = bench.prepare("tokenmill", text.path, "--format", "nanogpt")
        yield text, ours, bench.peer("tiktoken-loop", text.path)
    if not {"tiktoken-pool", "datatrove"} & set(wanted):
        return
    documents = grow(bench.place, corpus, kind, bench.size)
    if "tiktoken-pool" in wanted:
        ours = bench.prepare("tokenmill", documents.path, "--format", "build-nanogpt")
        yield documents, ours, bench.peer("tiktoken-pool", documents.path)
    if "datatrove" in wanted:
        tokenizer = datatrove_tokenizer(bench, corpus)
        folder = corpora.split(documents, len(os.sched_getaffinity(0)))
        ours = bench.prepare("tokenmill", folder, "--format", "nanogpt")
        yield (
            documents,
            ours,
            bench.peer("datatrove", folder, f"--tokenizer-json={tokenizer}"),
        )


def datatrove_tokenizer(bench: Bench, corpus: str) -> Path:
    """The tokenizer.json for datatrove, built and compared with tiktoken on the whole corpus."""
    path = bench.place.work / f"gpt2-checked-on-{corpus}.json"
    if not path.exists():
        say(f"building {path.name} ...")
        base = bench.place.shared / "corpus" / f"{corpus}.parquet"
        command = [bench.datatrove_python, str(PEERS), "tokenizer-json", str(path)]
        command += [f"--check={base}", f"--vocab={bench.vocabulary}"]
        interleave([Contender("tokenizer-json", tuple(command))], rounds=1)
    return path


def measure_peers(bench: Bench, options: argparse.Namespace) -> None:
    """tokenmill against what people use today. Splitting the input for datatrove is not timed."""
    headers = ["peer", "input", "tokenmill, MB/s", "peer, MB/s", "times faster", "required", ""]
    headers += ["tokenmill, peak MB", "peer, peak MB", "tokenmill wrote", "peer wrote"]
    print(table_head(headers))
    corpus = (options.corpus or ["en"])[0]
    kind = (options.kind or ["jsonl"])[0]
    for grown, mine, peer in peer_pairs(bench, corpus, kind, options.peer or PEER_NAMES):
        ours, theirs = bench.run(mine, peer)
        faster = times_faster(ours, theirs)
        required = REQUIRED_AGAINST_PEERS[peer.name]
        show(
            [
                peer.name,
                f"{corpus} {grown.path.suffix[1:]}",
                speed_of(ours, grown.text_bytes).text(0),
                speed_of(theirs, grown.text_bytes).text(1),
                faster.text(1),
                f"at least {required:.0f}",
                bench.verdict(peer.name, faster.median >= required),
                peak_of(ours).text(0),
                peak_of(theirs).text(0),
                ours[0].evidence,
                theirs[0].evidence,
            ]
        )


def measure_scaling(bench: Bench, options: argparse.Namespace) -> None:
    """Time must grow linearly and memory stay flat, with `--memory 512MB`: without a budget the
    engines' caches of words grow with the text, up to the default budget.

    A large file does not fit the page cache, so every size starts with a cold one (`--cache`).
    "from the row above" is the speed on the bytes that this row has more: start-up left out, it
    tells whether the time grows linearly.
    """
    headers = ["text", "seconds", "MB/s", "MB/s from the row above", "CPU seconds"]
    print(table_head([*headers, "peak MB", "peak / first row", "tokens"]))
    corpus = (options.corpus or ["en"])[0]
    kind = (options.kind or ["txt"])[0]
    before = (0, 0.0)
    first_peak = 0.0
    for part in SCALING_PARTS:
        grown = grow(bench.place, corpus, kind, round(bench.size * part))
        (runs,) = bench.run(bench.prepare("tokenmill", grown.path, "--memory", "512MB"))
        seconds = Spread.of([run.seconds for run in runs])
        more_bytes, more_time = grown.text_bytes - before[0], seconds.median - before[1]
        first_peak = first_peak or peak_of(runs).median
        show(
            [
                size_name(round(bench.size * part)),
                seconds.text(),
                speed_of(runs, grown.text_bytes).text(0),
                f"{more_bytes / more_time / 1e6:.0f}" if more_time > 0 else "-",
                Spread.of([run.cpu_seconds for run in runs]).text(),
                peak_of(runs).text(0),
                f"{peak_of(runs).median / first_peak:.2f}",
                runs[0].evidence,
            ]
        )
        before = (grown.text_bytes, seconds.median)


def measure_budgets(bench: Bench, options: argparse.Namespace) -> None:
    """What the memory budget costs, each against a budget of all the RAM there is."""
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    budgets = {"unlimited": f"{ram // 10**6}MB", **{budget: budget for budget in BUDGETS}}
    headers = ["--memory", "MB/s", "speed / unlimited", "peak MB", "required", "", "same bytes"]
    compare_options(bench, options, headers, "--memory", budgets, peak_required=True)


def measure_checkpoints(bench: Bench, options: argparse.Namespace) -> None:
    """What the checkpoints cost: every two seconds (the default) and more often, against none."""
    headers = ["--checkpoint-seconds", "MB/s", "speed / none", "peak MB", "same bytes"]
    values = {"none": "inf", "2": "2", "0.5": "0.5"}
    compare_options(bench, options, headers, "--checkpoint-seconds", values, peak_required=False)


def measure_threads(bench: Bench, options: argparse.Namespace) -> None:
    """What more threads bring, each against one thread."""
    cores = len(os.sched_getaffinity(0))
    counts = sorted({n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores} | {cores, 2 * cores})
    headers = ["--threads", "MB/s", "speed / one thread", "peak MB", "same bytes"]
    values = {str(count): str(count) for count in counts}
    compare_options(bench, options, headers, "--threads", values, peak_required=False)


def compare_options(
    bench: Bench,
    options: argparse.Namespace,
    headers: list[str],
    option: str,
    values: dict[str, str],
    *,
    peak_required: bool,
) -> None:
    """tokenmill with each value of one option, the first being the yardstick."""
    print(table_head(headers))
    corpus = (options.corpus or ["en"])[0]
    kind = (options.kind or ["txt"])[0]
    grown = grow(bench.place, corpus, kind, bench.size)
    contenders = [
        bench.prepare(f"{option} {name}", grown.path, option, value, hashed=True)
        for name, value in values.items()
    ]
    runs = bench.run(*contenders)
    reference = runs[0]
    for (name, value), own in zip(values.items(), runs, strict=True):
        cells = [
            name,
            speed_of(own, grown.text_bytes).text(0),
            times_faster(own, reference).text(),
            peak_of(own).text(0),
        ]
        if peak_required:
            budget = parse_size(value)
            met = max(run.peak_rss for run in own) <= budget
            cells += [f"at most {budget / 1e6:.0f}", bench.verdict(f"peak at {name}", met)]
        same = {run.evidence for run in own} == {reference[0].evidence}
        show([*cells, bench.verdict(f"same bytes at {option} {name}", same)])


# ---------------------------------------------------------------------------------- command line

PEER_NAMES = tuple(REQUIRED_AGAINST_PEERS)
Measurement = Callable[[Bench, argparse.Namespace], None]
# Name, what to do, then the defaults of --size, --rounds and --cache.
MEASUREMENTS: tuple[tuple[str, Measurement, str, int, str], ...] = (
    ("speed", measure_speed, "2GB", 3, "warm"),
    ("peers", measure_peers, "2GB", 1, "warm"),
    ("scaling", measure_scaling, "15GB", 1, "cold"),
    ("budgets", measure_budgets, "2GB", 3, "warm"),
    ("checkpoints", measure_checkpoints, "2GB", 5, "warm"),
    ("threads", measure_threads, "2GB", 3, "warm"),
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, action, size, rounds, cache in MEASUREMENTS:
        command = commands.add_parser(name, description=action.__doc__)
        command.set_defaults(action=action)
        corpora.add_place_options(command)
        command.add_argument("--size", type=parse_size, default=size, help="bytes of text")
        command.add_argument("--rounds", type=int, default=rounds)
        command.add_argument("--cache", choices=("warm", "cold"), default=cache)
        command.add_argument("--corpus", choices=corpora.CORPORA, action="append")
        command.add_argument("--kind", choices=("txt", "jsonl", "parquet"), action="append")
        command.add_argument("--vocab", type=Path, default=VOCABULARY, help="GPT-2's ranks")
        command.add_argument(
            "--tokenmill",
            default=shlex.join([sys.executable, "-m", "tokenmill"]),
            help="the command to measure, in one string",
        )
        command.add_argument("--peer-python", default=sys.executable, help="has the peers")
        command.add_argument(
            "--datatrove-python",
            default=os.environ.get("TOKENMILL_DATATROVE_PYTHON"),
            help="has datatrove (default: $TOKENMILL_DATATROVE_PYTHON, else as --peer-python)",
        )
        if name == "peers":
            command.add_argument("--peer", choices=PEER_NAMES, action="append")
    return parser.parse_args()


@contextmanager
def bench_of(options: argparse.Namespace) -> Iterator[Bench]:
    with corpora.place_of(options) as place:
        yield Bench(
            place=place,
            tokenmill=tuple(shlex.split(options.tokenmill)),
            python=options.peer_python,
            datatrove_python=options.datatrove_python or options.peer_python,
            vocabulary=options.vocab,
            size=options.size,
            rounds=options.rounds,
            cache=options.cache,
        )


def main() -> int:
    """Exit code 0: all that is required is met; 1: something is not, or a contender failed."""
    options = parse_arguments()
    with bench_of(options) as bench:
        print(f"### {options.command}: {size_name(bench.size)} of text\n")
        print(f"{machine()}. Page cache {bench.cache}; contenders in turn, rounds: {bench.rounds}.")
        print("Each figure is the median (lowest to highest).\n")
        try:
            options.action(bench, options)
        except (CommandFailed, NotCold) as error:
            say(f"error: {error}")
            bench.missed.append("a contender failed")
        finally:
            print("\n```text")
            print("\n".join(bench.commands))
            print("```\n")
    if bench.missed:
        print(f"Missed: {', '.join(bench.missed)}.")
    return 1 if bench.missed else 0


if __name__ == "__main__":
    sys.exit(main())
