"""Law 3 against hostile input: generated cases, each in a memory cgroup of its own.

Every module ``hostile_*.py`` here with a function ``cases(seed)`` gives cases in turn. Each is run
with ``prepare`` (some with ``plan``) at 200, 300 or 512 MB; the group's limit is the budget and
``ALLOWANCE``. It must end with a named exit, say what to do where that is no success, and never be
killed; the peak of the process tree must be within the budget.

The peak that is judged is the sum of the high-water marks (VmHWM, ru_maxrss) of all processes that
were there at the same time, file pages and what they share included: see ``measure.HighWater``.
Samples of anonymous memory, ten a second, were tried: peaks of a tenth of a second passed unseen.

TOKENMILL_CASES (1000), TOKENMILL_SEED, TOKENMILL_AT_ONCE (2), TOKENMILL_SECONDS (120) and
TOKENMILL_ONLY (a part of a generator's or a case's name) are environment variables.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from cgroup import CgroupUnavailable, MemoryCgroup
from tests.conftest import command_environment
from tests.torture.hostile_case import Case

CASES = int(os.environ.get("TOKENMILL_CASES", "1000"))
SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
AT_ONCE = int(os.environ.get("TOKENMILL_AT_ONCE", "2"))
ONLY = os.environ.get("TOKENMILL_ONLY", "")
BUDGETS = (200, 300, 512)
ALLOWANCE = 8_000_000
"""For what the kernel charges beside resident memory: page tables, stacks, the shell that enters
the group."""
SECONDS = float(os.environ.get("TOKENMILL_SECONDS", "120"))
"""For one case, by the clock: give it more where other work runs beside the campaign."""
EXITS = {0: "done", 1: "refused", 2: "usage", 3: "quarantined"}


@dataclass(frozen=True)
class Outcome:
    """What became of a case; ``faults`` are the promises that it broke."""

    name: str
    budget: int
    exit_code: int
    peak: int
    seconds: float
    faults: list[str]
    stderr: str


def generators() -> dict[str, Callable[[int], Iterator[Case]]]:
    """The generators beside this file, by name."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("hostile_*.py"))
    modules = {name: importlib.import_module(f"tests.torture.{name}") for name in names}
    return {name: module.cases for name, module in modules.items() if hasattr(module, "cases")}


def in_turn(count: int, seed: int) -> Iterator[Case]:
    """So many cases, of each generator as many; a generator that ends early is an error."""
    running = {name: iter(cases(seed)) for name, cases in generators().items()}
    given = 0
    while given < count:
        for name, cases in running.items():
            case = next(cases, None)
            assert case is not None, f"{name} gave too few cases"
            if given < count and ONLY in f"{name} {case.name}":
                given += 1
                yield case


def run_case(case: Case, seed: int, folder: Path) -> Outcome:
    """Make it, run it, judge it."""
    rng = random.Random(seed)
    budget = rng.choice(BUDGETS)
    folder.mkdir()
    arguments = case.make(folder)
    is_plan = rng.random() < 0.15
    command = [sys.executable, "-m", "tokenmill", "plan" if is_plan else "prepare", *arguments]
    command += ["--memory", f"{budget}MB"]
    if not is_plan:
        command += ["--out", str(folder / "out")]
        command += ["--max-bad", "1000000000"] if rng.random() < 0.5 else []
    command += ["--threads", rng.choice("12")] if budget > 250 else ["--threads", "1"]
    with MemoryCgroup(budget * 1_000_000 + ALLOWANCE) as group:
        done = group.run(command, env=command_environment(), timeout=SECONDS)
    shutil.rmtree(folder)
    return Outcome(
        f"{case.name} [{'plan' if is_plan else 'prepare'} {' '.join(arguments[1:])}]",
        budget,
        done.exit_code,
        done.peak_tree,
        done.seconds,
        faults_of(done.exit_code, done.oom_kills, done.peak_tree, budget, done.stderr),
        done.stderr,
    )


def faults_of(exit_code: int, kills: int, peak: int, budget: int, stderr: str) -> list[str]:
    """What was promised and not kept."""
    faults = []
    if exit_code not in EXITS:
        faults.append(f"exit {exit_code}")
    if exit_code in (1, 2) and "fix:" not in stderr:
        faults.append("no fix")
    if kills:
        faults.append(f"{kills} OOM kills")
    if peak > budget * 1_000_000:
        faults.append(f"peak {peak / 1e6:.0f} MB")
    if "Traceback" in stderr or "killed by signal" in stderr or "different ids" in stderr:
        faults.append("died or differed")
    return faults


def table(outcomes: list[Outcome], seconds: float) -> str:
    """The campaign's figures."""
    codes = Counter(f"{EXITS.get(each.exit_code, each.exit_code)}" for each in outcomes)
    lines = [
        f"TOKENMILL_SEED={SEED}: {len(outcomes)} cases in {seconds:.0f} s",
        "  by exit: " + ", ".join(f"{name} {count}" for name, count in codes.most_common()),
        f"  broken: {sum(bool(each.faults) for each in outcomes)}",
    ]
    for budget in BUDGETS:
        mine = [each for each in outcomes if each.budget == budget]
        if mine:
            worst = max(mine, key=lambda each: each.peak)
            share = worst.peak / budget / 1e6
            lines.append(f"  {budget} MB: {len(mine)} cases, worst {share:.2f}: {worst.name}")
    slowest = max(outcomes, key=lambda each: each.seconds)
    return "\n".join([*lines, f"  slowest {slowest.seconds:.1f} s: {slowest.name}"])


def test_every_generator_gives_cases() -> None:
    found = generators()
    assert {"hostile_records", "hostile_vocabularies", "hostile_listings"} <= found.keys()
    for name, cases in found.items():
        assert next(iter(cases(1)), None) is not None, f"{name} gives nothing"


def test_hostile_input_stays_within_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        with MemoryCgroup(256_000_000):
            pass
    except CgroupUnavailable as reason:
        pytest.skip(f"NOT TESTED: no memory cgroup: {reason}")
    began, outcomes = time.monotonic(), []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        numbered = enumerate(in_turn(CASES, SEED))
        futures = (
            pool.submit(run_case, case, SEED + number, tmp_path / str(number))
            for number, case in numbered
        )
        for future in list(futures):
            outcomes.append(each := future.result())
            if each.faults:
                with capsys.disabled():
                    print(f"\n{each.faults}: {each.budget} MB, {each.seconds:.1f} s, {each.name}")
                    print("   ", each.stderr.strip().replace("\n", "\n    ")[-1000:])
    with capsys.disabled():
        print("\n" + table(outcomes, time.monotonic() - began))
    assert len(outcomes) == CASES
    assert not [each.name for each in outcomes if each.faults]
