"""The command from `forkserver.py` is the command: exit code, streams, files and death."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Result, command_environment, forkserver, spawn
from tests.kit import runs
from tests.kit.forkserver import MODULE
from tests.kit.shared import ARTICLES

DIFFERS_EACH_TIME = (
    r"[\d.]+ [kMG]?B/s of text",
    r"(?<=; )[\d.]+ s\b",
    r"(?<=about )[\d.]+ s\b",
    r"\d+%(?=[,)])",
    r"peak memory [\d.]+ [kMG]?B",
    r'(?<="seconds": )[\d.]+',
    r'(?<="peak_memory": )\d+',
    r"[\d.]+ [kMG]B free",
)


def without_figures(text: str) -> str:
    for pattern in DIFFERS_EACH_TIME:
        text = re.sub(pattern, "#", text)
    return text


def files(folder: Path) -> dict[str, str]:
    """With their hashes; the lock has the process's number in it, and claims a name of chance."""
    found = {
        re.sub(r"claims-\w+", "claims", name): it for name, it in runs.snapshot(folder).items()
    }
    return {name: it for name, it in found.items() if not name.endswith(".tokenmill/lock")}


def forked(*command: object, cwd: Path, env: dict[str, str]) -> Result:
    process = forkserver.start([str(part) for part in command], cwd, env)
    assert process is not None
    return runs.finish(process)


def assert_same(
    tmp_path: Path,
    started: Callable[[Path], subprocess.Popen[str]],
    command: list[object],
    env: dict[str, str],
) -> Result:
    """Both in folders of the same name, one after the other; nothing tells them apart."""
    here, left = tmp_path / "here", []
    for is_forked in (False, True):
        here.mkdir()
        result = forked(*command, cwd=here, env=env) if is_forked else runs.finish(started(here))
        found = result.rc, without_figures(result.stdout), without_figures(result.stderr)
        left.append((found, files(here)))
        shutil.rmtree(here)
    assert left[0] == left[1]
    return result


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["prepare", "--help"],
        ["prepear"],
        ["prepare", ARTICLES, "--out", "out", "--treads", "2"],
        ["prepare", "nowhere.txt", "--out", "out", "--json"],
        ["prepare", ARTICLES, "--out", "out", "--val-fraction", "0.1"],
        ["prepare", ARTICLES, "--out", "out", "--val-fraction", "0.1", "--json", "--quiet"],
        ["plan", ARTICLES, "--memory", "300MB", "--threads", "1"],
        ["verify", "nowhere"],
        ["status", "."],
        ["inspect", "nowhere"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:1] + arguments[2:])),
)
def test_it_is_the_command(arguments: list[object], tmp_path: Path) -> None:
    result = assert_same(
        tmp_path,
        lambda cwd: spawn(*arguments, cwd=cwd),
        [MODULE, *arguments],
        command_environment(),
    )
    assert result.stdout or result.stderr


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ({}, 0),
        ({"die": {"gigatoken": "segfault"}, "alone": True}, -11),
        ({"signal": 15}, 143),
    ],
)
def test_it_ends_as_the_command_does(trouble: dict[str, Any], code: int, tmp_path: Path) -> None:
    """Whole, by the death of the process itself, by a signal."""
    corpus = runs.write_corpus(tmp_path / "in", "jsonl", 8)
    arguments = ["prepare", *corpus.arguments(), "--out", tmp_path / "here" / "out"]
    arguments += [*runs.OPTIONS, "--threads", "1"]
    marked: dict[str, Any] = {"marker": "1 ", **trouble}
    result = assert_same(
        tmp_path,
        lambda _: runs.spawn(*arguments, **marked),
        [runs.TROUBLED, *arguments],
        runs.environment(marked),
    )
    assert result.rc == code


def test_nothing_is_left_of_one_that_takes_too_long(tmp_path: Path) -> None:
    corpus = runs.write_corpus(tmp_path / "in", "jsonl", 8)
    command = [runs.TROUBLED, "prepare", *corpus.arguments(), "--out", tmp_path / "out"]
    env = runs.environment({"pause": 60})
    process = forkserver.start([str(part) for part in command], None, env)
    assert process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        runs.finish(process, 1.0)
    assert forkserver.pid is not None
    runs.wait_for(lambda: not runs.workers(forkserver.pid or 0), "the end of the command")
    runs.wait_until_free(tmp_path / "out")


@pytest.mark.parametrize(
    "changed", [{"PYTHONUTF8": "0"}, {"LC_ALL": "C"}, {"TZ": "Asia/Tokyo"}, {"LD_PRELOAD": "x.so"}]
)
def test_what_is_read_at_the_start_needs_a_process_of_its_own(changed: dict[str, str]) -> None:
    env = command_environment()
    process = forkserver.start([MODULE, "--version"], None, env)
    assert process is not None and runs.finish(process).rc == 0
    assert forkserver.start([MODULE, "--version"], None, env | changed) is None


def test_the_environment_is_the_requests_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests have set meanwhile counts; what was before is gone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    script = tmp_path / "script.py"
    script.write_text("import json, os, sys\nprint(json.dumps([dict(os.environ), sys.argv]))")
    env = command_environment({"HF_HUB_OFFLINE": "1"})
    result = forked(script, "a b", cwd=tmp_path, env=env)
    assert json.loads(result.stdout) == [env, [str(script), "a b"]]
    assert os.environ["XDG_CACHE_HOME"] == env["XDG_CACHE_HOME"]
