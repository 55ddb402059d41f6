"""Hostile input: mutated inputs, manifests, journals, vocabularies, shards and options.

    MINUTES=30 make fuzz
    python -m tests.torture.fuzz --target parquet --seed 7 --case 1234

Whatever is in a file, only a TokenmillError may come of it (or a right result): no other
exception, no crash of native code, no hang, no growing memory, no file outside the output folder.
Each case is a function of the seed, the target's name and its number, and runs in a child
process, so that a crash is found and attributed. What was found is kept under ``build/fuzz``.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.shared import REPOSITORY
from tests.torture import targets
from tests.torture.targets import TARGETS, Broken, Case, Target
from tokenmill.errors import TokenmillError

FOUND = REPOSITORY / "build" / "fuzz"
MIB = 1024 * 1024
ADDRESS_SPACE = 6 * 1024 * MIB
SLICE_SECONDS = 20.0


@dataclass
class Tally:
    """What came of one target."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, list[int]] = field(default_factory=dict)
    following: int = 0
    seconds: float = 0.0
    largest_growth: int = 0


def case_of(target: Target, seed: int, number: int, folder: Path, fixtures: Path) -> Case:
    """The case, in an empty folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return Case(random.Random(f"{seed} {target.name} {number}"), folder, fixtures)


def judged(target: Target, case: Case) -> str:
    """Run it: "result" or "refused", or what is wrong with it."""
    try:
        target.run(case)
    except TokenmillError as error:
        str(error).encode("utf-8", "backslashreplace")
        return "refused"
    except Broken as error:
        return f"BROKEN {error}"
    except BaseException as error:  # noqa: BLE001  that is what is looked for
        return f"ESCAPED {_signature(error)}"
    return "result"


def _signature(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tokenmill/" in frame.filename] or frames
    last = ours[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}:{last.lineno}"


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def run_one(target: Target, case: Case) -> tuple[str, int]:
    """The outcome, and by how much memory grew meanwhile."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew
    before = _resident("VmRSS")
    faulthandler.dump_traceback_later(target.seconds, exit=True)
    outcome = judged(target, case)
    faulthandler.cancel_dump_traceback_later()
    growth = _resident("VmHWM") - before
    if growth > target.growth and outcome in ("result", "refused"):
        outcome = "MEMORY grew beyond the target's limit"
    return outcome, growth


def child(target: Target, seed: int, first: int, until: float, folder: Path, pipe: int) -> None:
    """Run cases one after the other, and tell of each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    targets.make_small()
    number = first
    fixtures = folder.parent / "fixtures"
    while time.monotonic() < until and number < first + 5000:
        os.write(pipe, f"begin {number}\n".encode())
        case = case_of(target, seed, number, folder, fixtures)
        outcome, growth = run_one(target, case)
        if outcome not in ("result", "refused"):
            keep(target, number, outcome, folder)
        os.write(pipe, f"end {number} {growth} {outcome}\n".encode())
        number += 1


def keep(target: Target, number: int, outcome: str, folder: Path) -> None:
    """Copy a case's folder to where a person finds it."""
    place = FOUND / f"{target.name}-{number}"
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(folder, place, symlinks=True, dirs_exist_ok=True, ignore=_special)
        (place / "outcome.txt").write_text(outcome + "\n")


def _special(folder: str, names: list[str]) -> list[str]:
    """What cannot be copied: pipes and the like, and what is larger than a disk may like."""
    paths = [Path(folder, name) for name in names]
    fine = [p for p in paths if p.is_symlink() or p.is_dir() or p.is_file()]
    small = {p.name for p in fine if p.lstat().st_size < 64 * MIB}
    return [name for name in names if name not in small]


def slice_of(target: Target, seed: int, tally: Tally, folder: Path, until: float) -> None:
    """One child's cases; what it died of belongs to the case that it had begun."""
    reading, writing = os.pipe()
    log = folder.parent / "child.log"
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        os.close(reading)
        silence(log)
        code = 70
        with contextlib.suppress(BaseException):
            child(target, seed, tally.following, until, folder, writing)
            code = 0
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        begun = _count(pipe.read().decode().splitlines(), tally)
    _, status = os.waitpid(process, 0)
    tally.seconds += time.monotonic() - began
    if begun is not None or status:
        code = os.waitstatus_to_exitcode(status)
        cause = signal.Signals(-code).name if code < 0 else f"exit {code}: a hang, or out of memory"
        number = tally.following if begun is None else begun
        outcome = f"DIED {cause} {_last_frame(log)}"
        tally.outcomes["died"] += 1
        tally.findings.setdefault(outcome, []).append(number)
        keep(target, number, outcome + "\n" + log.read_text(errors="replace")[-4000:], folder)
        tally.following = number + 1


def silence(log: Path) -> None:
    """Send what a child prints to a file."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(fd, standard)
    faulthandler.enable(fd)


def _count(lines: list[str], tally: Tally) -> int | None:
    """Take in what a child told; the number of the case that has no end, if there is one."""
    begun: int | None = None
    for line in lines:
        verb, number, *rest = line.split(" ", 3)
        if verb == "begin":
            begun = int(number)
            continue
        growth, outcome = int(rest[0]), rest[1]
        begun, tally.following = None, int(number) + 1
        tally.largest_growth = max(tally.largest_growth, growth)
        tally.outcomes[outcome if outcome in ("result", "refused") else "found"] += 1
        if outcome not in ("result", "refused"):
            tally.findings.setdefault(outcome, []).append(int(number))
    return begun


def _last_frame(log: Path) -> str:
    """Where in tokenmill a child died, from faulthandler's report."""
    for line in log.read_text(errors="replace").splitlines():
        if "/tokenmill/" in line:
            return line.strip().rpartition("/")[2]
    return ""


def make_fixtures(folder: Path) -> None:
    """The valid files, written by a child: the parent must stay without threads."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            targets.make_small()
            targets.make_fixtures(folder)
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        os._exit(code)
    if os.waitpid(process, 0)[1]:
        sys.exit("the valid files could not be made")


def campaign(wanted: list[Target], seed: int, minutes: float, work: Path) -> dict[str, Tally]:
    """All targets in turn, a slice of time each, until the time is over."""
    end = time.monotonic() + 60 * minutes
    tallies = {target.name: Tally() for target in wanted}
    told: set[str] = set()
    while time.monotonic() < end:
        for target in wanted:
            until = min(end, time.monotonic() + SLICE_SECONDS * target.share)
            if until <= time.monotonic():
                break
            tally = tallies[target.name]
            slice_of(target, seed, tally, work / "case", until)
            for outcome, numbers in tally.findings.items():
                if f"{target.name} {outcome}" not in told:
                    told.add(f"{target.name} {outcome}")
                    print(f"found: {target.name} case {numbers[0]}: {outcome}", flush=True)
    return tallies


def report(tallies: dict[str, Tally], seed: int, minutes: float) -> None:
    """What ran, and what was found."""
    print(f"seed {seed}, {minutes:g} minutes")
    for name, tally in tallies.items():
        total = sum(tally.outcomes.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.outcomes.items()))
        grew = f"memory grew by {tally.largest_growth // MIB} MiB at most"
        print(f"{name:>12}: {total:7d} cases in {tally.seconds:5.0f} s: {kinds}; {grew}")
        for outcome, numbers in sorted(tally.findings.items()):
            print(f"{'':>14}{len(numbers)} x {outcome}: case {', '.join(map(str, numbers[:5]))}")


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder for the cases, with the valid files in it."""
    with tempfile.TemporaryDirectory(prefix="tokenmill-fuzz-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        os.environ["TMPDIR"] = name
        tempfile.tempdir = name
        make_fixtures(work / "fixtures")
        yield work


def main() -> int:
    """The campaign, or one case of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    number_of = functools.partial(parser.add_argument, type=int)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("MINUTES", "30")))
    parser.add_argument("--target", choices=[target.name for target in TARGETS], action="append")
    number_of("--seed", default=random.SystemRandom().randrange(10**6))
    number_of("--case", help="run only this one, here")
    asked = parser.parse_args()
    wanted = [t for t in TARGETS if asked.target is None or t.name in asked.target]
    print(f"seed {asked.seed}", flush=True)
    with workplace() as work:
        if asked.case is not None:
            targets.make_small()
            case = case_of(wanted[0], asked.seed, asked.case, work / "case", work / "fixtures")
            wanted[0].run(case)
            return 0
        tallies = campaign(wanted, asked.seed, asked.minutes, work)
    report(tallies, asked.seed, asked.minutes)
    return int(any(tally.findings for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
