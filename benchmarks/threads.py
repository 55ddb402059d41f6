"""Does the default number of workers serve well? CPU seconds of the default against the best.

    python benchmarks/threads.py CORPUS [--memory 230MB,512MB] [--cores 1,2,4,8,16] [--runs 3]

For each memory and each number of cores (told to the command in place of this machine's) it asks
``plan`` for the default, and runs ``prepare`` with that and with every power of two that the cores
allow. Of several runs the one of the least CPU seconds (user and system, whole process tree)
counts, for on a busy machine they only grow. The ratio is default to best, the best being the
choice of the least CPU seconds. Wall time cannot be had for cores that are not there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MEMORIES = "200MB,230MB,300MB,512MB,1GB,2GB,4GB"
CORES = "1,2,4,8,16"
MOST_SECONDS = 120.0
WORTHLESS = 3
"""Beyond a number of workers that takes so many times the least, no more are tried."""
FORCED = (
    "import sys, tokenmill.memory as memory\n"
    "cores = int(sys.argv.pop(1))\n"
    "memory.available_cores = lambda: cores\n"
    "from tokenmill.cli.main import main\n"
    "main()\n"
)
"""The command on so many cores. Affinity and cgroups can only make them fewer than there are."""


def tokenmill(cores: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, as if there were so many cores."""
    command = [sys.executable, "-c", FORCED, str(cores), *arguments, "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)


def default_workers(corpus: str, memory: str, cores: int) -> int | None:
    """What it chooses; None where the memory is too little for one."""
    done = tokenmill(cores, "plan", corpus, "--memory", memory)
    if done.returncode == 2:
        return None
    done.check_returncode()
    return int(json.loads(done.stdout.splitlines()[-1])["workers"])


def cpu_seconds(corpus: str, out: Path, memory: str, workers: int, runs: int) -> float:
    """The least of so many runs; infinite for one that is refused or takes too long."""
    options = ["--memory", memory, "--workers", str(workers)]
    least = float("inf")
    for _ in range(runs):
        shutil.rmtree(out, ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = tokenmill(workers, "prepare", corpus, "--out", str(out), *options)
        except subprocess.TimeoutExpired:
            return least
        if done.returncode:
            return least
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        least = min(least, spent)
        if spent > MOST_SECONDS / 4:
            break  # as slow as that needs no exact figure
    return least


def main() -> None:
    """Print a table, a line a memory and number of cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--memory", default=MEMORIES)
    parser.add_argument("--cores", default=CORES)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    size = os.path.getsize(arguments.corpus)
    print(f"{Path(arguments.corpus).name}, {size / 1e6:.0f} MB, {os.cpu_count()} real cores")
    print("| memory | cores | default | CPU s | best | CPU s | ratio | all choices: CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for memory in arguments.memory.split(","):
            known: dict[int, float] = {}
            for cores in map(int, arguments.cores.split(",")):
                default = default_workers(arguments.corpus, memory, cores)
                if default is None:
                    print(f"| {memory} | {cores} | refused | | | | | |", flush=True)
                    continue
                for workers in sorted({default, *(n for n in (1, 2, 4, 8, 16) if n <= cores)}):
                    if workers > default and max(known.values()) > WORTHLESS * min(known.values()):
                        break  # more workers have still less memory each
                    if workers not in known:
                        known[workers] = cpu_seconds(
                            arguments.corpus, Path(work) / "out", memory, workers, arguments.runs
                        )
                choices = {n: spent for n, spent in known.items() if n <= cores}
                best = min(choices, key=lambda workers: choices[workers])
                each = ", ".join(f"{n}: {spent:.1f}" for n, spent in sorted(choices.items()))
                print(
                    f"| {memory} | {cores} | {default} | {choices[default]:.2f} | {best} | "
                    f"{choices[best]:.2f} | {choices[default] / choices[best]:.2f} | {each} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
