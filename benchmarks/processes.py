"""What the one process that cannot be divided takes: does a run with worker processes scale?

    python benchmarks/processes.py cpu CORPUS SMALLER [CORPUS SMALLER ...] [--runs 3]
    python benchmarks/processes.py sleep CORPUS [--rate 150MB] [--workers 1,2,4,8,16]
    python benchmarks/processes.py model --parent 0.35 --worker 4.5 [--cores 8,16,64]

``cpu`` runs ``prepare`` with two worker processes on two sizes of the same corpus and gives the CPU
seconds (user and system) of each kind of process, a GB of text: the slope between the two sizes, so
that what a run takes to begin is not in it. Of several runs the least counts, for on a busy machine
they only grow. ``sleep`` puts in the place of the engine one that sleeps, as if it encoded so many
bytes a second, and takes no core: how far does the rest follow? ``model`` says what such figures
give on more cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corpora import parse_size

ROLES = ("parent", "server", "worker", "digest", "supervisor")
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.01
SLEEPING = """
import sleeping
from tokenmill.commands import prepare
plain = prepare.ProcessExecutor
prepare.ProcessExecutor = lambda count, modules, tell: plain(count, [*modules, "sleeping"], tell)
from tokenmill.cli.main import main
main()
"""


def tree(root: int) -> dict[int, tuple[str, float]]:
    """Each process below ``root``: its role, and the CPU seconds that it has taken."""
    found: dict[int, tuple[str, float]] = {}
    waiting = [(root, 0)]
    while waiting:
        pid, depth = waiting.pop()
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if depth == 1:  # its threads start the server
                for task in os.listdir(f"/proc/{pid}/task"):
                    children += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        role = ("supervisor", "parent", "server")[depth] if depth < 3 else name.split("-")[-1]
        found[pid] = role, (int(fields[11]) + int(fields[12])) / TICKS
        waiting += [(int(child), depth + 1) for child in set(children)]
    return found


def measured(command: list[str]) -> tuple[dict[str, float], dict[str, object]]:
    """CPU seconds by role, and what the run tells of itself at its end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last: dict[int, tuple[str, float]] = {}
    while process.poll() is None:
        last.update(tree(process.pid))
        time.sleep(SAMPLE_SECONDS)
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(err)
    by_role = dict.fromkeys(ROLES, 0.0)
    for role, seconds in last.values():
        by_role[role] = by_role.get(role, 0.0) + seconds
    return by_role, json.loads(out.splitlines()[-1])


def prepare(corpus: str, out: Path, *more: str) -> list[str]:
    shutil.rmtree(out, ignore_errors=True)
    given = ["--executor", "processes", "--workers", "2", "--out", str(out), "--json", *more]
    return [sys.executable, "-m", "tokenmill", "prepare", corpus, *given]


def cpu(arguments: argparse.Namespace, folder: Path) -> None:
    """A table of CPU seconds a GB of text, by kind of process."""
    print("| corpus | " + " | ".join(ROLES) + " | all |")
    print("| --- |" + " --- |" * (len(ROLES) + 1))
    for large, small in zip(arguments.corpora[::2], arguments.corpora[1::2], strict=True):
        least, text = [], []
        for corpus in (large, small):
            found = []
            for _ in range(arguments.runs):
                roles, told = measured(prepare(corpus, folder / "out", *arguments.options))
                found.append(roles)
            counts = told["counts"]
            assert isinstance(counts, dict)
            text.append(counts["text_bytes"] / 1e9)
            least.append({role: min(each[role] for each in found) for role in ROLES})
        slope = {role: (least[0][role] - least[1][role]) / (text[0] - text[1]) for role in ROLES}
        cells = [f"{slope[role]:.2f}" for role in ROLES]
        print(
            f"| {Path(large).name} | {' | '.join(cells)} | {sum(slope.values()):.2f} |", flush=True
        )


def sleep(arguments: argparse.Namespace, folder: Path) -> None:
    """Throughput with an engine that takes no core."""
    here = str(Path(__file__).parent)
    environment = {"SLEEPING_RATE": str(parse_size(arguments.rate)), "PYTHONPATH": here}
    for executor in ("threads", "processes"):
        for workers in arguments.workers.split(","):
            shutil.rmtree(folder / "out", ignore_errors=True)
            command = [sys.executable, "-c", SLEEPING, "prepare"]
            command += [arguments.corpora[0], "--out", str(folder / "out"), "--executor", executor]
            command += ["--workers", workers, "--memory", "8GB", "--check", "0", "--json"]
            began = time.monotonic()
            env = {**os.environ, **environment}
            done = subprocess.run(command, capture_output=True, text=True, env=env)
            if done.returncode:
                raise SystemExit(done.stderr)
            told = json.loads(done.stdout.splitlines()[-1])
            seconds, text = told["seconds"], told["counts"]["text_bytes"]
            print(
                f"{executor} {workers}: {text / seconds / 1e6:.0f} MB/s "
                f"({time.monotonic() - began:.1f} s with beginning and end)",
                flush=True,
            )


def model(arguments: argparse.Namespace) -> None:
    """The run is as fast as its workers together, until the parent's own seconds are full."""
    for cores in map(int, arguments.cores.split(",")):
        others = cores / (arguments.worker + arguments.parent + arguments.digest)
        most = min(1 / arguments.parent, 1 / arguments.digest, others)
        print(f"{cores} cores: {1000 * most:.0f} MB/s, {most * arguments.worker:.1f} workers busy")
    bound = 1 / max(arguments.parent, arguments.digest)
    print(f"it ends at {1000 * bound:.0f} MB/s, {bound * arguments.worker:.0f} workers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["cpu", "sleep", "model"])
    parser.add_argument("corpora", nargs="*")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", default="150MB")
    parser.add_argument("--workers", default="1,2,4,8,16")
    parser.add_argument("--parent", type=float, default=1.30)
    parser.add_argument("--digest", type=float, default=0.59)
    parser.add_argument("--worker", type=float, default=7.07)
    parser.add_argument("--cores", default="2,8,16,64")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--options", default="", help="more options of prepare")
    arguments = parser.parse_args()
    arguments.options = re.split(r"\s+", arguments.options) if arguments.options else []
    if arguments.what == "model":
        model(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        (cpu if arguments.what == "cpu" else sleep)(arguments, Path(folder))


if __name__ == "__main__":
    main()
