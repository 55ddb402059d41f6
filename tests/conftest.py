"""Fixtures for all tests: the command as a real process, no child left behind, skips told aloud."""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.forkserver import MODULE, Forkserver, hear_signals
from tokenmill.tokenizers.vocabularies import tiktoken_ranks

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


def start(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Any:
    """The command as a process of its own group, to be watched or killed."""
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


def kill(process: subprocess.Popen[Any]) -> None:
    """End a process and its whole group, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


forkserver = Forkserver(command_environment)
vars(tiktoken_ranks)["_parse_ranks"] = functools.lru_cache(maxsize=4)(tiktoken_ranks._parse_ranks)
"""In this process each run would parse the same vocabulary again: a fifth of a short one."""


@pytest.fixture
def tokenmill() -> Run:
    """`tokenmill(*args, cwd=, env=, timeout=)` runs `python -m tokenmill` to its end."""

    def run(
        *args: object,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = SECONDS,
    ) -> Result:
        command = [MODULE, *map(str, args)]
        forked = forkserver.run(command, cwd, command_environment(env), timeout)
        if forked is not None:
            return Result(*forked)
        process = start(*args, cwd=cwd, env=env)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            kill(process)
            raise
        return Result(process.returncode, stdout, stderr)

    return run


def _children() -> set[tuple[int, str]]:
    """The processes whose parent is this one, with their names; empty where /proc is not."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text().rpartition(")")
        except OSError:
            continue
        if int(tail.split()[1]) == os.getpid():
            found.add((int(stat.parent.name), head.partition("(")[2]))
    return found


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """No test may leave a process behind."""
    before = _children()
    yield
    left = {child for child in _children() - before if child[0] != forkserver.pid}
    assert not left, f"processes left behind: {sorted(left)}"


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
