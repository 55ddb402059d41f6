"""Law 3 and law 4 together: a large text in a memory cgroup, killed ten times, loses seconds.

TOKENMILL_SIZE (3GB; 15GB is the form that is claimed), TOKENMILL_SEED (of the instants) and
TOKENMILL_WORK (a folder that keeps the text between two calls) are environment variables.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cgroup import CgroupUnavailable, MemoryCgroup, joining, oom_kills
from corpora import Place, grow, parse_size
from measure import prepare_cache
from tests.conftest import command_environment
from tests.kit import runs
from tests.kit.runs import snapshot
from tests.kit.shared import SHARED, shared_file
from tokenmill.output.journal import read_journal

SIZE = os.environ.get("TOKENMILL_SIZE", "3GB")
SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
LIMIT = 512_000_000
KILLS = 10
MOST_LOST = 5.0


@dataclass
class Death:
    """What one kill cost: bytes encoded that no checkpoint had, over the mean speed."""

    after: float
    kept_bytes: int
    lost_seconds: float


def command(source: Path, out: Path) -> list[str]:
    line = [sys.executable, "-m", "tokenmill", "prepare", str(source), "--out", str(out)]
    return [*line, "--memory", str(LIMIT), "--shard-tokens", "100M", "--json", "--quiet"]


def run_and_kill(group: Path, source: Path, out: Path, seconds: float, log: Path) -> Death | None:
    """Kill worker and parent after so long; None when the run was done before."""
    prepare_cache([source], "cold")
    with log.open("w") as stdout:
        process = subprocess.Popen(
            joining(group, command(source, out)),
            stdout=stdout,
            env=command_environment(),
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed = time.time()
            process.wait()
            runs.wait_until_free(out, 5)
            return cost(out, log, killed, seconds)
    assert code == 0
    return None


def cost(out: Path, log: Path, killed: float, seconds: float) -> Death:
    """From the last line of progress, carried on at the mean speed until the kill."""
    journal = read_journal(out)
    at = journal.checkpoint if journal else None
    kept = at.done_bytes if at else 0
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    if not lines:
        return Death(seconds, kept, 0.0)
    speed = max(1.0, lines[-1]["mean_bytes_per_second"])
    reached = lines[-1]["bytes"] + speed * (killed - log.stat().st_mtime)
    return Death(seconds, kept, max(0.0, (reached - kept) / speed))


def test_killed_ten_times_under_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared_file("corpus/en.parquet")
    work = Path(os.environ.get("TOKENMILL_WORK", tmp_path))
    source = grow(Place(SHARED, work), "en", "txt", parse_size(SIZE)).path
    generator = random.Random(SEED)
    deaths: list[Death] = []
    out = tmp_path / "out"
    try:
        with MemoryCgroup(LIMIT) as group:
            prepare_cache([source], "cold")
            plain = group.run(command(source, tmp_path / "plain"), env=command_environment())
            assert plain.exit_code == 0, plain.stderr
            before = oom_kills(group.path, group._version)
            while len(deaths) < KILLS:
                seconds = 3 + generator.uniform(0, 0.15) * plain.seconds
                death = run_and_kill(group.path, source, out, seconds, tmp_path / "log")
                if death is None:
                    break
                deaths.append(death)
            prepare_cache([source], "cold")
            done = group.run(command(source, out), env=command_environment())
            kills = oom_kills(group.path, group._version) - before
    except CgroupUnavailable as reason:
        pytest.skip(f"NOT TESTED: no memory cgroup: {reason}")
    with capsys.disabled():
        print(f"\n{SIZE} in {LIMIT / 1e6:.0f} MB, TOKENMILL_SEED={SEED}, {plain.seconds:.0f} s")
        for death in deaths:
            print(
                f"  killed after {death.after:6.1f} s: {death.kept_bytes / 1e6:8.0f} MB kept, "
                f"{death.lost_seconds:.2f} s of work lost"
            )
    assert done.exit_code == 0, done.stderr
    assert kills == 0, f"{kills} OOM kills"
    assert len(deaths) >= KILLS // 2
    assert snapshot(out) == snapshot(tmp_path / "plain")
    assert max(death.lost_seconds for death in deaths) < MOST_LOST
