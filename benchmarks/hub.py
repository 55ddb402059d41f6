"""Streaming from the Hub: does the network cost time, and does only the text travel?

Promises:

* the Hub is `tests/kit/fake_hub.py`, on the loopback interface: what is measured is what waiting
for
  answers costs, not anybody's line; every answer, each redirect too, can be delayed;
* the repository is laid out as FineWeb-Edu is: its columns, its row groups of 1,000 rows (or one
  row group a file), a card with configs;
* each run must write the shards of the run over the same files on disk, or it does not count;
* with `--limit`, the runs are in a memory cgroup of that size, the server outside of it.

    python benchmarks/hub.py --work WORK --size 300MB --rounds 3
    python benchmarks/hub.py --work WORK --size 2GB --rows one --limit 512MB --rounds 1
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.kit.fake_hub import FakeHub  # noqa: E402

from bench import hash_shards  # noqa: E402
from cgroup import CgroupUnavailable, MemoryCgroup  # noqa: E402
from corpora import Place, default_shared, grow, parse_size, size_name  # noqa: E402
from measure import Spread, clear, machine, say, table_head, table_row  # noqa: E402

NAME, CONFIG = "HuggingFaceFW/fineweb-edu", "sample-10BT"
FILES = 4
CARD = f"""---
configs:
- config_name: {CONFIG}
  data_files:
  - split: train
    path: sample/10BT/*
---
"""
REQUIRED_SPEED, REQUIRED_BYTES = 0.8, 1.1
HEADERS = (
    "delay of each answer", "seconds", "of the undelayed speed", "bytes moved over needed",
    "requests for content", "peak RSS, MB", "OOM kills", "same bytes as from disk",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One run: its time, what it moved, and whether its shards are the right ones."""

    seconds: float
    moved: int
    requests: int
    peak_rss: int
    oom_kills: int
    shards: str


def lay_out(place: Place, size: int, rows: int) -> Path:
    """The repository's folder, made unless it is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = place.work / f"hub-{size_name(size)}-{rows}"
    if (folder / "README.md").exists():
        return folder
    source = grow(place, "en", "parquet", size)
    writers: list[pq.ParquetWriter] = []
    held: list[pa.Table] = []
    with pq.ParquetFile(source.path) as file:
        batches = -(-file.metadata.num_rows // 1000)
        for number, batch in enumerate(file.iter_batches(1000, columns=["text"])):
            if len(writers) <= number * FILES // batches:
                if held:
                    writers[-1].write_table(pa.concat_tables(held), row_group_size=rows)
                held = []
                path = folder / f"sample/10BT/{len(writers):03}_00000.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                table = _with_columns(batch, number)
                writers.append(pq.ParquetWriter(path, table.schema, compression="snappy"))
            held.append(_with_columns(batch, number))
            if rows <= 1000:
                writers[-1].write_table(held.pop(), row_group_size=rows)
    if held:
        writers[-1].write_table(pa.concat_tables(held), row_group_size=rows)
    for writer in writers:
        writer.close()
    (folder / "README.md").write_text(CARD)
    return folder


def _with_columns(batch: Any, number: int) -> Any:
    """A table of the text, and of what stands beside it in FineWeb-Edu."""
    import pyarrow as pa

    text = batch.column(0)
    count = len(text)
    ids = [
        f"<urn:uuid:{number * 1000 + row:08x}-0000-4000-8000-{row:012x}>" for row in range(count)
    ]
    return pa.table(
        {
            "text": text,
            "id": ids,
            "dump": ["CC-MAIN-2013-20"] * count,
            "url": [f"http://example.org/{number}/{row}.html" for row in range(count)],
            "file_path": [f"s3://commoncrawl/{number}/warc.gz"] * count,
            "language": ["en"] * count,
            "language_score": [0.9 + row / 10**5 for row in range(count)],
            "token_count": pa.array([len(str(value)) // 4 for value in text], pa.int64()),
            "score": [2.5 + row / 10**4 for row in range(count)],
            "int_score": pa.array([3] * count, pa.int64()),
        }
    )


def needed_bytes(folder: Path) -> int:
    """All column chunks of the text."""
    import pyarrow.parquet as pq

    total = 0
    for path in folder.rglob("*.parquet"):
        metadata = pq.read_metadata(path)
        total += sum(
            metadata.row_group(group).column(0).total_compressed_size
            for group in range(metadata.num_row_groups)
        )
    return total


def run(
    hub: FakeHub, command: Sequence[str], output: Path, delay: float, limit: int | None
) -> Outcome:
    """One run against the Hub, with that delay."""
    clear(output)
    hub.forget()
    hub.delay = delay
    os.environ.update(hub.environment)
    with MemoryCgroup(limit) if limit else nullcontext() as group:
        began = time.monotonic()
        if group is not None:
            result = group.run(command)
            rc, peak, kills, stderr = (
                result.exit_code, result.peak_rss, result.oom_kills, result.stderr,
            )  # fmt: skip
        else:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            rc, peak, kills, stderr = done.returncode, 0, 0, done.stderr
        seconds = time.monotonic() - began
    if rc:
        say(f"exit code {rc}: {stderr[-3000:]}")
    shards = "nothing" if rc else hash_shards(output)
    clear(output)
    asked = [one for one in hub.log if one.is_content]
    return Outcome(seconds, hub.moved(), len(asked), peak, kills, shards)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=default_shared())
    parser.add_argument("--size", type=parse_size, default=parse_size("300MB"))
    parser.add_argument("--rows", default="1000", help="rows in a row group, or: one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--limit", type=parse_size)
    parser.add_argument("--without-speed", action="store_true", help="the speed decides nothing")
    parser.add_argument("--tokenmill", default=f"{sys.executable} -m tokenmill")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    place = Place(options.shared, options.work)
    rows = 10**9 if options.rows == "one" else int(options.rows)
    folder = lay_out(place, options.size, rows)
    output = place.work / "out-hub"
    more = ["--format", "build-nanogpt", "--quiet", "--out", str(output)]
    if options.limit:
        more += ["--memory", size_name(options.limit)]
    prepare = [*shlex.split(options.tokenmill), "prepare"]
    clear(output)
    subprocess.run([*prepare, str(folder / "sample"), *more], check=True)
    expected = hash_shards(output)
    needed = needed_bytes(folder)
    found: dict[float, list[Outcome]] = {0.0: [], options.delay: []}
    with FakeHub() as hub:
        hub.add(NAME, folder)
        for round_ in range(options.rounds):
            for delay, outcomes in found.items():
                command = [*prepare, NAME, "--config", CONFIG, *more]
                outcomes.append(run(hub, command, output, delay, options.limit))
                say(f"round {round_ + 1}, delay {delay:g} s: {outcomes[-1].seconds:.1f} s")
    print(machine())
    print(
        f"{size_name(options.size)} of text, {needed / 1e6:.0f} MB of column, rows: {options.rows}"
    )
    print(table_head(HEADERS))
    base = Spread.of([one.seconds for one in found[0.0]])
    met = True
    for delay, outcomes in found.items():
        seconds = Spread.of([one.seconds for one in outcomes])
        speed = base.median / seconds.median
        share = max(one.moved for one in outcomes) / needed
        same = all(one.shards == expected for one in outcomes)
        kills = sum(one.oom_kills for one in outcomes)
        met &= same and not kills and share <= REQUIRED_BYTES
        met &= speed >= REQUIRED_SPEED or options.without_speed
        cells = [
            f"{delay * 1000:g} ms", seconds.text(1), f"{speed:.2f}", f"{share:.3f}",
            str(outcomes[0].requests), f"{max(one.peak_rss for one in outcomes) / 1e6:.0f}",
            str(kills), "yes" if same else "**no**",
        ]  # fmt: skip
        print(table_row(cells))
    print("met" if met else "**missed**")
    return 0 if met else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CgroupUnavailable as reason:
        sys.exit(f"no memory cgroup, so nothing was measured: {reason}")
