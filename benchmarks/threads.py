"""Does the default number of threads serve well? CPU seconds of the default against each choice.

    python benchmarks/threads.py CORPUS [--memory 230MB,512MB] [--cores 1,2,4,8,16]

For each memory and each number of cores (told to the command in place of this machine's) it runs
``prepare`` with the default and with every smaller power of two. Wall time cannot be had for cores
that are not there: of each choice, the CPU seconds divided by its threads stand for it, and the
best choice is the one with the least of that. The ratio is that of CPU seconds, default to best.
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
FORCED = (
    "import sys, tokenmill.memory as memory\n"
    "memory.available_cores = lambda: int(sys.argv.pop(1))\n"
    "cores = memory.available_cores()\n"
    "memory.available_cores = lambda: cores\n"
    "from tokenmill.cli import main\n"
    "main()\n"
)


def measured(corpus: str, out: Path, memory: str, cores: int, *more: str) -> tuple[float, int]:
    """CPU seconds of one run in a process of its own, and its threads; infinite seconds for one
    that is refused or takes too long."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", FORCED, str(cores), "prepare", corpus, "--out", str(out)]
    command += ["--memory", memory, "--json", *more]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return float("inf"), 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return float("inf"), 0
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, _threads(corpus, memory, cores, more)


def _threads(corpus: str, memory: str, cores: int, more: tuple[str, ...]) -> int:
    command = [sys.executable, "-c", FORCED, str(cores), "plan", corpus, "--memory", memory]
    done = subprocess.run([*command, "--json", *more], capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["threads"])


def main() -> None:
    """Print a table, a line a memory and number of cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--memory", default=MEMORIES)
    parser.add_argument("--cores", default=CORES)
    arguments = parser.parse_args()
    print(f"{arguments.corpus}, {os.cpu_count()} real cores")
    print("memory  cores  default: threads, CPU s   best: threads, CPU s   ratio")
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out"
        for memory in arguments.memory.split(","):
            known: dict[int, float] = {}
            for cores in map(int, arguments.cores.split(",")):
                seconds, threads = measured(arguments.corpus, out, memory, cores)
                known[threads] = min(seconds, known.get(threads, seconds))
                for count in (1, 2, 4, 8, 16):
                    if count <= cores and count not in known:
                        forced = ("--threads", str(count))
                        known[count] = measured(arguments.corpus, out, memory, cores, *forced)[0]
                choices = {n: cost for n, cost in known.items() if n and n <= cores}
                best = min(choices, key=lambda count: choices[count] / count)
                ratio = seconds / choices[best]
                print(
                    f"{memory:>6} {cores:6} {threads:8} {seconds:12.1f} {best:12} "
                    f"{choices[best]:12.1f} {ratio:10.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
