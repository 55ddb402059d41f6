"""Shows that `--memory` holds: large inputs inside a real memory cgroup of that size.

Promises:

* the limit is the kernel's (`cgroup.py`), page cache included, and the input starts cold: a run
  that needs more is killed, and the table says so;
* beside it stand the same command without the limit, and the command without `--memory`; all three
  must have written the same shards;
* the exit code is 0 only if every run in the group ended well, without an OOM kill, with the same
  bytes, and within the required factor of the time without the limit. Where no group can be made,
  nothing is measured and the exit code says so.

| case | input |
|---|---|
| `txt` | 15 GB of text, one document |
| `jsonl` | 5 GB of JSON lines |
| `one-group` | parquet, one row group with 2 GB of text |

    python benchmarks/memory.py --work WORK                        # all three, as required
    python benchmarks/memory.py --work WORK --case txt --size 3GB  # the short form
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import corpora
from bench import hash_shards
from cgroup import CgroupUnavailable, GroupResult, MemoryCgroup
from corpora import Place, grow, parse_size, size_name
from measure import (
    CommandFailed,
    Contender,
    NotCold,
    Run,
    Spread,
    clear,
    machine,
    prepare_cache,
    run_contender,
    say,
    table_head,
    table_row,
)

CASES = {
    "txt": ("txt", "15GB"),
    "jsonl": ("jsonl", "5GB"),
    "one-group": ("one-group.parquet", "2GB"),
}
REQUIRED_FACTOR = 1.3
HEADERS = (
    "input",
    "exit code",
    "OOM kills",
    "peak RSS in the group, MB",
    "charged at most, MB",
    "seconds",
    "without the limit",
    "factor",
    "required",
    "without --memory",
    "its peak RSS, MB",
    "same bytes",
    "",
)


@dataclass(frozen=True)
class Round:
    """The three runs that belong together."""

    limited: GroupResult
    limited_shards: str
    free: Run
    default: Run

    @property
    def factor(self) -> float:
        return self.limited.seconds / self.free.seconds

    @property
    def same_bytes(self) -> bool:
        return self.limited_shards == self.free.evidence == self.default.evidence


def run_in_group(
    command: Sequence[str], source: Path, output: Path, limit: int
) -> tuple[GroupResult, str]:
    """The command in a group of its own, from a cold cache; and the hash of what it wrote."""
    clear(output)
    prepare_cache([source], "cold")
    try:
        with MemoryCgroup(limit) as group:
            result = group.run(command)
        if result.exit_code:
            say(f"exit code {result.exit_code}: {result.stderr[-3000:]}")
            return result, "nothing"
        return result, hash_shards(output)
    finally:
        clear(output)


def run_round(options: argparse.Namespace, place: Place, source: Path) -> Round:
    output = place.work / "out-memory"
    command = (*shlex.split(options.tokenmill), "prepare", str(source), "--out", str(output))
    command = (*command, "--format", "nanogpt", "--quiet")
    with_budget = (*command, "--memory", size_name(options.limit))
    say(f"in a group of {size_name(options.limit)}: {shlex.join(with_budget)}")
    limited, shards = run_in_group(with_budget, source, output, options.limit)
    say(f"  {limited.seconds:.1f} s, {limited.oom_kills} OOM kills, exit {limited.exit_code}")
    runs = []
    for name, line in (("with --memory", with_budget), ("without --memory", command)):
        contender = Contender(name, line, (source,), output, lambda run: hash_shards(output))
        runs.append(run_contender(contender, "cold"))
        say(f"no group, {name}: {runs[-1].seconds:.1f} s")
    return Round(limited, shards, *runs)


def row(name: str, rounds: list[Round]) -> tuple[list[str], bool]:
    """The row of one case, and whether all that is required of it is met."""
    factor = Spread.of([r.factor for r in rounds])
    codes = {r.limited.exit_code for r in rounds}
    kills = sum(r.limited.oom_kills for r in rounds)
    same = all(r.same_bytes for r in rounds)
    met = codes == {0} and not kills and same and factor.median <= REQUIRED_FACTOR
    cells = [
        name,
        ", ".join(map(str, sorted(codes))),
        str(kills),
        f"{max(r.limited.peak_rss for r in rounds) / 1e6:.0f}",
        f"{max(r.limited.peak_usage for r in rounds) / 1e6:.0f}",
        Spread.of([r.limited.seconds for r in rounds]).text(1),
        Spread.of([r.free.seconds for r in rounds]).text(1),
        factor.text(),
        f"at most {REQUIRED_FACTOR}",
        Spread.of([r.default.seconds for r in rounds]).text(1),
        f"{max(r.default.peak_rss for r in rounds) / 1e6:.0f}",
        "yes" if same else "**no**",
        "met" if met else "**missed**",
    ]
    return cells, met


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    corpora.add_place_options(parser)
    parser.add_argument("--case", choices=tuple(CASES), action="append", help="default: all")
    parser.add_argument("--size", type=parse_size, help="of the text, instead of each case's own")
    parser.add_argument("--limit", type=parse_size, default="512MB", help="of group and --memory")
    parser.add_argument("--corpus", choices=corpora.CORPORA, default="en")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--tokenmill",
        default=shlex.join([sys.executable, "-m", "tokenmill"]),
        help="the command to measure, in one string",
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    print(f"### memory: a cgroup of {size_name(options.limit)}, cold page cache\n")
    print(f"{machine()}; rounds: {options.rounds}.\n")
    print(table_head(HEADERS), flush=True)
    all_met = True
    with corpora.place_of(options) as place:
        for case in options.case or CASES:
            kind, size = CASES[case]
            grown = grow(place, options.corpus, kind, options.size or parse_size(size))
            try:
                rounds = [run_round(options, place, grown.path) for _ in range(options.rounds)]
            except (CgroupUnavailable, CommandFailed, NotCold) as error:
                say(f"error: {case} not measured: {error}")
                return 1
            cells, met = row(grown.path.name, rounds)
            print(table_row(cells), flush=True)
            all_met &= met
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
