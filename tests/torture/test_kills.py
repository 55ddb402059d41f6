"""Law 4 as a campaign: killed at every system call on the output, and at random instants.

Several processes at a time, for most of a trial is waiting. Environment variables:
TOKENMILL_SEED (of the random instants), TOKENMILL_KILLS (how many of them for each kind of
input), TOKENMILL_POINTS (how many system calls for each kind: the input grows until its run makes
so many, and they are spread evenly over it).
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import runs
from tests.injection import Scene, arguments, need_strace
from tests.runs import snapshot

SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
KILLS = int(os.environ.get("TOKENMILL_KILLS", "200"))
AT_ONCE = 2 * (os.cpu_count() or 1)
POINTS = int(os.environ.get("TOKENMILL_POINTS", "540"))  # of which 500 surely come


def scene_of_points(folder: Path, kind: str) -> tuple[Scene, list[tuple[str, int]]]:
    """An input long enough for POINTS system calls on the output, and these."""
    documents = 40
    while True:
        scene = Scene.make(folder / f"{documents} documents", kind, documents)
        points = scene.points(folder / f"{documents} documents")
        if len(points) >= POINTS:
            return scene, [points[len(points) * n // POINTS] for n in range(POINTS)]
        documents = documents * POINTS // len(points) + 10


def campaign(
    what: str, trials: Sequence[Callable[[], str | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Do all, a few at a time; each returns what went wrong, or None."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [found for found in pool.map(lambda trial: trial(), trials) if found]
    with capsys.disabled():
        print(f"\n{what}: {len(trials) - len(wrong)} kills survived of {len(trials)} tried")
    assert not wrong, "\n".join(wrong[:20])


def outcome(scene: Scene, out: Path, what: str) -> str | None:
    """Resume without trouble, and compare; None when all is well."""
    runs.wait_until_free(out)
    try:
        runs.assert_nothing_finished(out)
    except AssertionError as error:
        return f"{what}: {error}"
    done = scene.run(out, alone=False)
    if done.rc != 0:
        return f"{what}: resumed with exit code {done.rc}: {done.stderr}"
    if snapshot(out) != scene.undisturbed:
        return f"{what}: other bytes: {sorted(set(snapshot(out)) ^ set(scene.undisturbed))}"
    shutil.rmtree(out)
    return None


@pytest.mark.parametrize("kind", runs.KINDS)
def test_killed_at_every_system_call(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every fourth point kills the run that goes on, too."""
    need_strace()
    scene, points = scene_of_points(tmp_path, kind)
    deaths: dict[int, int] = {}

    def trial(index: int) -> str | None:
        call, number = points[index]
        out, log = tmp_path / str(index), tmp_path / f"{index}.log"
        inject = ("-e", f"inject={call}:signal=KILL:when={number}")
        for _ in range(2 if index % 4 == 0 else 1):
            died = scene.run(out, *scene.tracing(out, log, *inject))
            deaths[index] = deaths.get(index, 0) + (died.rc != 0)
        return outcome(scene, out, f"{scene.kind}, {call} {number}")

    trials = [functools.partial(trial, index) for index in range(len(points))]
    campaign(f"{kind}, at each of {len(points)} system calls", trials, capsys)
    # Threads share the work a little differently each time, so the last ones may not come.
    reached = sum(count > 0 for count in deaths.values())
    with capsys.disabled():
        print(f"{reached} of these calls came, for {sum(deaths.values())} deaths in all")
    assert reached > 0.9 * len(points)


@pytest.mark.parametrize("kind", runs.KINDS)
def test_killed_at_random_instants(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene.make(tmp_path / "scene", kind)

    def trial(index: int) -> str | None:
        generator = random.Random(f"{SEED} {scene.kind} {index}")
        whom = generator.choice(["worker", "parent", "both"])
        seconds = generator.uniform(0.1, 1.5)
        out = tmp_path / str(index)
        with runs.running(*arguments(scene.corpus, out), pause=0.03) as process:
            time.sleep(seconds)
            runs.end(process, whom)
        return outcome(scene, out, f"seed {SEED}, kill {index} of {whom} after {seconds:.3f} s")

    trials = [functools.partial(trial, index) for index in range(KILLS)]
    campaign(f"{scene.kind}, at random instants, TOKENMILL_SEED={SEED}", trials, capsys)
