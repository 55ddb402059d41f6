"""Single worker processes killed at random instants: the run goes on, without starting anew.

For each kind of input, until so many kills have hit (TOKENMILL_KILLS, 200): a run with worker
processes, of which one after another gets SIGKILL, and now and then the one that hashes. The run
must end by itself with success, its bytes must be an undisturbed run's, and nothing may be left:
no process, no shared memory. TOKENMILL_SEED is of the instants and of whom they hit.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kit import runs
from tests.kit.injection import Scene, arguments
from tests.kit.runs import snapshot

SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
KILLS = int(os.environ.get("TOKENMILL_KILLS", "200"))
MOST_A_RUN = 30
MORE = ("--executor", "processes", "--threads", "3")
DOCUMENTS = 1500
"""So that a run takes some seconds: what slows engines in other tests is in one process only."""


@dataclass
class Campaign:
    """What happened so far to runs over one kind of input."""

    kind: str
    workers: int = 0
    hashers: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.workers + self.hashers


def named(parent: int, name: str) -> list[int]:
    """The processes of that name below a process."""
    found, waiting = [], [parent]
    while waiting:
        for child in runs.workers(waiting.pop()):
            waiting.append(child)
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == name:
                    found.append(child)
            except OSError:
                continue
    return found


def below(parent: int) -> list[int]:
    found = []
    waiting = [parent]
    while waiting:
        children = runs.workers(waiting.pop())
        found += children
        waiting += children
    return found


def disturbed(scene: Scene, out: Path, rng: random.Random, campaign: Campaign) -> None:
    """One run, its workers killed; what was wrong is noted."""
    campaign.runs += 1
    what = f"{scene.kind}, run {campaign.runs}"
    seen: set[int] = set()
    with runs.running(*arguments(scene.corpus, out), *MORE) as process:
        hit = 0
        while process.poll() is None and hit < MOST_A_RUN:
            time.sleep(rng.uniform(0.01, 0.15))
            seen |= set(below(process.pid))
            is_hasher = rng.random() < 0.05
            there = named(process.pid, "tm-digest" if is_hasher else "tm-worker")
            if not there:
                continue
            victim = rng.choice(there)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            hit += 1
            campaign.hashers += is_hasher
            campaign.workers += not is_hasher
        done = runs.finish(process)
    if done.rc != 0:
        campaign.wrong.append(f"{what}: exit code {done.rc}: {done.stderr[-500:]}")
    elif "the working process" in done.stderr or "going on:" in done.stderr:
        campaign.wrong.append(f"{what}: it started anew: {done.stderr[-500:]}")
    elif snapshot(out) != scene.undisturbed:
        campaign.wrong.append(f"{what}: other bytes")
    end = time.monotonic() + 5
    while time.monotonic() < end and not all(map(runs.is_dead, seen)):
        time.sleep(0.02)
    left = [pid for pid in seen if not runs.is_dead(pid)]
    if left:
        campaign.wrong.append(f"{what}: processes are left: {left}")


@pytest.mark.parametrize("kind", runs.KINDS)
def test_killed_workers_cost_time_only(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, campaign = Scene.make(tmp_path / "scene", kind, DOCUMENTS), Campaign(kind)
    rng, memory = random.Random(f"{SEED} {kind}"), set(os.listdir("/dev/shm"))
    while campaign.kills < KILLS and campaign.runs < KILLS:
        disturbed(scene, tmp_path / str(campaign.runs), rng, campaign)
    with capsys.disabled():
        print(
            f"\n{kind}, TOKENMILL_SEED={SEED}: {campaign.workers} workers and {campaign.hashers} "
            f"hashers killed in {campaign.runs} runs, {len(campaign.wrong)} wrong"
        )
    assert not campaign.wrong, "\n".join(campaign.wrong[:10])
    assert campaign.kills >= KILLS
    assert set(os.listdir("/dev/shm")) <= memory, "shared memory is left"
