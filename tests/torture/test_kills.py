"""Law 4 as a campaign: killed at system calls on the output, killed and stopped at random instants.

Several processes at a time, for most of a trial is waiting. Environment variables:
TOKENMILL_SEED (of instants and of the order of calls), TOKENMILL_KILLS (at so many instants, for
each kind of input), TOKENMILL_POINTS (at so many system calls; the input grows until its run makes
more), TOKENMILL_EXECUTOR (what workers are: `processes`). Only what hit a running process counts.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit import runs
from tests.kit.injection import Scene, arguments, need_strace
from tests.kit.runs import snapshot

SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
KILLS = int(os.environ.get("TOKENMILL_KILLS", "200"))
AT_ONCE = 2 * (os.cpu_count() or 1)
POINTS = int(os.environ.get("TOKENMILL_POINTS", "500"))


@dataclass(frozen=True)
class Trial:
    """Did the kill hit a running process? And what was wrong after it, if anything was."""

    has_hit: bool
    wrong: str | None


def scene_of_points(folder: Path, kind: str) -> tuple[Scene, list[tuple[str, int]]]:
    """An input long enough for more than POINTS system calls on the output, and these, shuffled.

    Threads share the work differently each time: up to a fifth of the calls did not come again.
    """
    documents = 40
    while True:
        scene = Scene.make(folder / f"{documents} documents", kind, documents)
        points = scene.points(folder / f"{documents} documents")
        if len(points) >= 1.3 * POINTS:
            random.Random(SEED).shuffle(points)
            return scene, points
        documents = int(documents * 1.3 * POINTS / len(points)) + 10


def campaign(
    what: str,
    wanted: int,
    trial: Callable[[int], Trial],
    most: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trials by number, a few at a time, until so many kills have hit; at most so many trials."""
    done: list[Trial] = []

    def try_unless_enough(number: int) -> None:
        if sum(one.has_hit for one in done) < wanted:
            done.append(trial(number))

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(try_unless_enough, range(most)))
    hits = [one for one in done if one.has_hit]
    survived = sum(one.wrong is None for one in hits)
    with capsys.disabled():
        print(f"\n{what}, TOKENMILL_SEED={SEED}: {survived} kills survived of {len(hits)} tried")
        print(f"({len(done) - len(hits)} more came too late or too early and hit nothing)")
    wrong = [one.wrong for one in done if one.wrong]
    assert not wrong, "\n".join(wrong[:20])
    assert len(hits) >= wanted


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

    def trial(index: int) -> Trial:
        call, number = points[index]
        out, log = tmp_path / str(index), tmp_path / f"{index}.log"
        inject = ("-e", f"inject={call}:signal=KILL:when={number}")
        died = [
            scene.run(out, *scene.tracing(out, log, *inject)).rc == -signal.SIGKILL
            for _ in range(2 if index % 4 == 0 else 1)
        ]
        return Trial(died[0], outcome(scene, out, f"{kind}, {call} {number}"))

    campaign(f"{kind}, at system calls", POINTS, trial, len(points), capsys)


@pytest.mark.parametrize("kind", runs.KINDS)
def test_killed_at_random_instants(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene.make(tmp_path / "scene", kind)

    def trial(index: int) -> Trial:
        generator = random.Random(f"{SEED} {kind} {index}")
        whom = generator.choice(["worker", "parent", "both"])
        seconds = generator.uniform(0.1, 2.5)
        out = tmp_path / str(index)
        slow = {"slow_checkpoint": 0.1} if index % 2 else {}  # as a disk may be
        with runs.running(*arguments(scene.corpus, out), pause=0.08, **slow) as process:
            time.sleep(seconds)
            has_ended = process.poll() is not None
            is_under_way = out.exists() and not has_ended
            if not has_ended:
                runs.end(process, whom)
        what = f"{kind}, kill {index} of {whom} after {seconds:.3f} s"
        return Trial(is_under_way, outcome(scene, out, what))

    campaign(f"{kind}, at random instants", KILLS, trial, 3 * KILLS, capsys)


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_stopped_at_random_instants(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the start of the process on: the signal's exit code, and no word of anything broken."""
    scene = Scene.make(tmp_path / "scene", kind)

    def trial(index: int) -> Trial:
        generator = random.Random(f"{SEED} {kind} {index}")
        number = generator.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        seconds = generator.uniform(0.1, 2.0)
        out = tmp_path / str(index)
        process = runs.start(*arguments(scene.corpus, out), pause=0.02)
        time.sleep(seconds)
        process.send_signal(number)
        done = runs.finish(process)
        what = f"{kind}, signal {number} after {seconds:.3f} s"
        is_stopped = done.rc == 128 + number and "fix: " in done.stderr
        # Before it listens, a signal simply ends it.
        if not (is_stopped or done.rc == 0 or (done.rc == -number and not out.exists())):
            return Trial(True, f"{what}: exit code {done.rc}: {done.stderr}")
        if "panicked" in done.stderr or (is_stopped and "Traceback" in done.stderr):
            return Trial(True, f"{what}: {done.stderr}")
        return Trial(is_stopped, outcome(scene, out, what))

    campaign(f"{kind}, stopped at random instants", KILLS, trial, 3 * KILLS, capsys)
