"""Runs into a prefix of an object store, killed at every request and at every system call.

Several at a time, each with a prefix, a local folder and a proxy of its own. Every third goes on
without its local folder, as another machine would; of every four, one is killed again while it goes
on. Environment variables: TOKENMILL_SEED (of the order), TOKENMILL_STORE_POINTS (at most so many
kills of each sort).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit import runs, stores
from tests.kit.injection import Scene, need_strace, points_of
from tests.kit.stores import BUCKET, Request, Store
from tests.output.test_store_output import FINAL, seen, stored_too_early
from tests.stores.test_store import server, store
from tests.torture.test_kills import SEED, Trial, campaign
from tokenmill.output.place import working_folder

__all__ = ["server", "store"]  # fixtures
MOST = int(os.environ.get("TOKENMILL_STORE_POINTS", "500"))


@dataclass(frozen=True)
class Place:
    """The prefix of one run, and the local folder it works in."""

    store: Store
    name: str
    staging: Path
    scene: Scene

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.name}"

    @property
    def folder(self) -> Path:
        return working_folder(self.url, str(self.staging))

    @property
    def command(self) -> list[object]:
        inputs = self.scene.corpus.arguments()
        return ["prepare", *inputs, *runs.OPTIONS, "--staging", self.staging, "--out", self.url]

    def too_early(self) -> str | None:
        """What is wrong at the instant of a death, in words. Not for a journal that came back from
        the store, which names the stored shards before its one checkpoint."""
        journal = runs.journal(self.folder)
        if journal.exists() and (early := stored_too_early(journal.read_bytes())):
            return f"stored before a checkpoint called them whole: {early}"
        visible, whole = seen(self.store, f"{self.name}/"), self.scene.undisturbed
        if "manifest.json" in visible and visible != FINAL:
            return f"a manifest without {FINAL - visible}"
        got = runs.snapshot(self.store.fetch(self.name, self.staging / "visible"))
        wrong = [name for name in visible if got.get(name) != whole[name]]
        return f"visible and not whole: {wrong}" if wrong else None

    def move(self) -> None:
        """To another machine: what was local is gone."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def killed_at(self, number: int, how: str, **trouble: Any) -> bool:
        """Run it through a proxy, and kill it when that request comes. Did it come?"""
        with (
            stores.troubled(self.store) as proxy,
            runs.running(*self.command, env=proxy.env, **trouble) as process,
        ):

            def deadly(request: Request) -> str | None:
                if request.number != number:
                    return None
                process.kill()
                return how

            proxy.trouble = deadly
            runs.finish(process)
        return process.returncode == -signal.SIGKILL

    def outcome(self, what: str) -> str | None:
        """Go on, and compare; None when all is well."""
        done = runs.run(*self.command, lease=0.3, alone=True)
        if done.rc != 0:
            return f"{what}: exit code {done.rc} afterwards: {done.stderr}"
        got = runs.snapshot(self.store.fetch(self.name, self.staging / "got"))
        if got != self.scene.undisturbed:
            return f"{what}: other bytes: {sorted(set(got) ^ set(self.scene.undisturbed))}"
        if self.folder.exists():
            return f"{what}: left: {sorted(self.folder.rglob('*'))}"
        shutil.rmtree(self.staging)
        return None


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene.make(tmp_path / "scene", "jsonl")


def trouble(index: int) -> dict[str, Any]:
    """Every other run has a disk so slow that a shard ends before the last checkpoint is noted."""
    slow = {"pause": 0.1, "slow_checkpoint": 0.05} if index % 2 else {"pause": 0.02}
    return {**slow, "alone": True, "lease": 0.3}


def test_killed_at_every_request(
    store: Store, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was asked for in the moment of death is carried out, or not."""
    with stores.troubled(store) as proxy:
        place = Place(store, "whole", tmp_path / "whole", scene)
        done = runs.run(*place.command, env=proxy.env, **trouble(0))
        assert done.rc == 0, done.stderr
    # The beats of the lease and the mirrors of the state differ in number: some come too late.
    points = [(number, how) for number in range(len(proxy.requests)) for how in ("drop", "lost")]
    points = points * 2  # with a slow disk, too
    random.Random(SEED).shuffle(points)

    def trial(index: int) -> Trial:
        number, how = points[index]
        place = Place(store, f"request-{index}", tmp_path / f"request-{index}", scene)
        what, has_hit = f"request {number}, {how}", place.killed_at(number, how, **trouble(index))
        if (wrong := place.too_early()) is not None:
            return Trial(has_hit, f"{what}: {wrong}")
        if index % 3 == 0:
            place.move()
        if index % 4 == 0:  # mostly while it looks what is there
            again = random.Random(f"{SEED} {index}").randrange(16)
            place.killed_at(again, how, **trouble(index))
            what += f", then {again}"
            if index % 3 and (wrong := place.too_early()) is not None:
                return Trial(has_hit, f"{what}: {wrong}")
        return Trial(has_hit, place.outcome(what))

    wanted = min(MOST, int(0.7 * len(points)))
    campaign("into a prefix, at requests", wanted, trial, len(points), capsys)


def test_killed_at_every_local_system_call(
    store: Store, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_strace()
    place, log = Place(store, "whole", tmp_path / "whole", scene), tmp_path / "points.log"
    done = runs.run(*place.command, prefix=scene.tracing(place.folder, log), **trouble(0))
    assert done.rc == 0, done.stderr
    points = points_of(log)
    random.Random(SEED).shuffle(points)

    def trial(index: int) -> Trial:
        call, number = points[index]
        place = Place(store, f"call-{index}", tmp_path / f"call-{index}", scene)
        inject = ("-e", f"inject={call}:signal=KILL:when={number}")
        prefix = scene.tracing(place.folder, tmp_path / f"{index}.log", *inject)
        died = []
        for _ in range(2 if index % 4 == 0 else 1):
            done = runs.run(*place.command, prefix=prefix, **trouble(index))
            died.append(done.rc == -signal.SIGKILL)
            is_first_look = len(died) == 1 or index % 3
            if is_first_look and (wrong := place.too_early()) is not None:
                return Trial(died[0], f"{call} {number}: {wrong}")
            if index % 3 == 0:
                place.move()
        return Trial(died[0], place.outcome(f"{call} {number}"))

    wanted = min(MOST, int(0.7 * len(points)))
    campaign("into a prefix, at system calls", wanted, trial, len(points), capsys)
