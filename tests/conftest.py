"""Fixtures for all tests: the command as a real process, no child left behind, skips told aloud."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit import kept
from tests.kit.forkserver import MODULE, Forkserver, hear_signals
from tokenmill.sizes import Sizes

SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    """What a run of the command gave."""

    rc: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]


Run = Callable[..., Result]


def package_root() -> str:
    """The folder that this process imports tokenmill from."""
    spec = importlib.util.find_spec("tokenmill")
    if spec is None or spec.origin is None:
        raise RuntimeError("tokenmill cannot be imported: install it, or set PYTHONPATH=src")
    return str(Path(spec.origin).parent.parent)


def command_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """A child's environment: the same package, no colours, and no cache of this machine's."""
    paths = [package_root(), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), NO_COLOR="1", COLUMNS="100")
    env.pop("TIKTOKEN_CACHE_DIR", None)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # a fifth of a short run is compiling its modules
    env.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # no test talks to the real one
    return env | (extra or {})


def spawn(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Any:
    """The command as a process of its own group, to be watched or killed, that loads all itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "tokenmill", *map(str, args)],
        cwd=cwd,
        env=command_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
    )


def start(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Any:
    """The same from the forkserver, where it can stand for such a process."""
    forked = forkserver.start([MODULE, *map(str, args)], cwd, command_environment(env))
    return spawn(*args, cwd=cwd, env=env) if forked is None else forked


def kill(process: subprocess.Popen[Any]) -> None:
    """End a process and its whole group, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


forkserver = Forkserver(command_environment)
kept.keep(again=True)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """Blocks of a few kilobytes, so that small texts are cut inside documents."""
    from tokenmill.tokenizers.engines.gigatoken import GigatokenEngine

    # Loading the vocabulary again for every seam is cheap only at the real block size.
    monkeypatch.setattr(GigatokenEngine, "drop_caches", lambda self: None)
    return Sizes(block=4096, hashed=1024, reach=2048, window=512)


@pytest.fixture
def tokenmill() -> Run:
    """`tokenmill(*args, cwd=, env=, timeout=)` runs `python -m tokenmill` to its end."""

    def run(
        *args: object,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = SECONDS,
    ) -> Result:
        process = start(*args, cwd=cwd, env=env)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            kill(process)
            raise
        return Result(process.returncode, stdout, stderr)

    return run


def _children(parent: int) -> set[int]:
    """The processes that a process has started; empty where /proc does not tell."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _left() -> set[int]:
    """What the tests have started so far, and has not ended."""
    started = _children(os.getpid()) - {forkserver.pid}
    return started | (_children(forkserver.pid) if forkserver.pid else set())


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """No test may leave a process behind."""
    before = _left()
    yield
    deadline = time.monotonic() + 2  # for the forkserver to see the end of what was killed
    while (left := _left() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    told = [Path(f"/proc/{child}/cmdline").read_bytes() for child in left]
    assert not told, f"processes left behind: {told}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: many tests wait for a while, for a process, a server or a lock."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_unconfigure() -> None:
    """Nothing that was started outlives the tests."""
    forkserver.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """At the end: how many tests were skipped, and why, grouped by reason."""
    reasons: collections.Counter[str] = collections.Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    total = sum(reasons.values())
    terminalreporter.section("skipped tests", "-")
    terminalreporter.write_line(f"{total} skipped" if total else "none skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:6d}  {reason}")
