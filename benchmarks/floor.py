"""How near a run comes to its floor: the time of its slowest stage alone.

Each stage runs by itself, in a fresh process, with the threads of the whole run, and is timed
inside, without start-up:

* `read`: every block is read, decompressed and decoded to documents, and dropped;
* `encode`: documents that are in memory already are encoded, delimited and dropped;
* `write`: tokens that are in memory already are written, hashed and synced;
* `run`: all of it, `tokenmill.prepare`, with planning, publishing and manifest.

The share that a run reaches is the longest stage over the run; 1 would mean that everything but
that stage is free. On a machine where all cores encode, reading and writing also take cores, so
the sum of the stages' CPU seconds over the cores is printed too: the time no overlap can beat.

    python benchmarks/floor.py --work WORK --size 2GB
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpora
from corpora import grow, parse_size, place_of
from measure import machine, prepare_cache, say, table_head, table_row
from tokenmill.batches import START, DocumentBatch, TokenBatch
from tokenmill.commands.plan import Plan, make_plan
from tokenmill.commands.progress import Status
from tokenmill.dataset.spec import Spec
from tokenmill.encoding.encoder import BlockEncoder
from tokenmill.encoding.reference import Reference
from tokenmill.encoding.rules import EncodingRules
from tokenmill.executors.threads import OrderedMap
from tokenmill.output.journal import Journal
from tokenmill.output.writer import DatasetWriter
from tokenmill.stores.durable import STATE_FOLDER
from tokenmill.tokenizers.engines import make_engine

STAGES = ("read", "encode", "write", "run")
REQUIRED = 0.85


@dataclass
class Held:
    """A block that was read already."""

    batch: DocumentBatch
    size: int
    where: str
    seam_before: int | None = None
    seam_after: int | None = None


def consume(plan: Plan, make_function: Callable[[], Callable[[Any], Any]], items: Any) -> None:
    mapped = OrderedMap(make_function, items, plan.budget.threads, plan.budget.window)
    for _ in mapped:
        pass
    mapped.close()  # threads that still hold a parquet file at the interpreter's exit abort it


def held_blocks(plan: Plan) -> Iterator[Held]:
    corpus = plan.corpus()
    for block in corpus.blocks():
        batch = corpus.read(block)
        yield Held(batch, block.size, block.where, block.seam_before, block.seam_after)


def held_batch(block: Any) -> DocumentBatch:
    batch: DocumentBatch = block.batch
    return batch


def encoders(plan: Plan) -> Callable[[], Callable[[Any], TokenBatch]]:
    spec, vocabulary = plan.spec, plan.vocabulary
    rules = EncodingRules(
        spec.eot,
        plan.dtype,
        vocabulary.end_of_text,
        vocabulary.largest_id,
        plan.split_rule,
        spec.seed,
        spec.special_text,
        0.0,
    )
    reference = Reference(vocabulary)
    return lambda: (
        BlockEncoder(rules, make_engine(plan.engine, vocabulary), reference, held_batch).encode
    )


def stage_seconds(stage: str, source: Path, out: Path) -> float:
    """One stage, timed in this process."""
    if stage == "run":
        import tokenmill

        began = time.perf_counter()
        tokenmill.prepare(source, out=out)
        return time.perf_counter() - began
    plan = make_plan([str(source)], Spec.of({}))
    if stage == "read":
        began = time.perf_counter()
        corpus = plan.corpus()
        consume(plan, lambda: lambda block: corpus.read(block) and None, corpus.blocks())
        return time.perf_counter() - began
    held = list(held_blocks(plan))
    if stage == "encode":
        began = time.perf_counter()
        consume(plan, encoders(plan), iter(held))
        return time.perf_counter() - began
    batches = list(OrderedMap(encoders(plan), iter(held), plan.budget.threads, len(held)))
    del held
    (out / STATE_FOLDER).mkdir(parents=True)
    began = time.perf_counter()
    writer = DatasetWriter(out, plan.spec, plan.dtype, Journal(out))
    for batch in batches:
        writer.write(batch, START)
    writer.finish(Status(0, 0, 1).counted())
    writer.close()
    return time.perf_counter() - began


def fresh(stage: str, source: Path, work: Path) -> tuple[float, float]:
    """(seconds, CPU seconds) of one stage in a process of its own, input in the page cache."""
    prepare_cache([source], "warm")
    out = work / "floor-out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--stage", stage, str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out, ignore_errors=True)
    told = json.loads(done.stdout)
    return told["seconds"], told["cpu"]


def run_stage(stage: str, source: str, out: str) -> None:
    before = os.times()
    seconds = stage_seconds(stage, Path(source), Path(out))
    after = os.times()
    cpu = after.user - before.user + after.system - before.system
    print(json.dumps({"seconds": seconds, "cpu": cpu}))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=parse_size, default="2GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", choices=corpora.CORPORA, action="append")
    parser.add_argument("--kind", choices=("txt", "jsonl", "parquet"), action="append")
    corpora.add_place_options(parser)
    options = parser.parse_args()
    if options.stage:
        run_stage(*options.stage)
        return 0
    say(machine())
    headers = ("corpus", "input", *(f"{stage}, s" for stage in STAGES), "share", "required")
    say(table_head(headers))
    met = True
    with place_of(options) as place:
        for corpus in options.corpus or corpora.CORPORA:
            for kind in options.kind or ("txt", "jsonl", "parquet"):
                source = grow(place, corpus, kind, options.size).path
                rounds = [
                    {stage: fresh(stage, source, place.work)[0] for stage in STAGES}
                    for _ in range(options.rounds)
                ]
                middle = {
                    stage: sorted(one[stage] for one in rounds)[len(rounds) // 2]
                    for stage in STAGES
                }
                shares = sorted(
                    max(one[stage] for stage in STAGES[:3]) / one["run"] for one in rounds
                )
                share = shares[len(shares) // 2]
                met = met and share >= REQUIRED
                cells = [f"{middle[stage]:.2f}" for stage in STAGES]
                say(table_row([corpus, kind, *cells, f"{share:.2f}", f">= {REQUIRED}"]))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
