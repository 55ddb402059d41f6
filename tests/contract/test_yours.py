"""A class of somebody's own is held to the suites, by its name alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import command_environment
from tests.kit.shared import REPOSITORY

MINE = """
from tests.contract import shelves, toy_engines, toy_executor, toy_format
from tests.contract.source_cases import REC as CASE

class Mine(toy_format.Owl):
    name = "mine"

class Shelf(shelves.ZipShelf): ...
class Slow(toy_executor.InlineExecutor): ...

class Echo(toy_engines.Remembering):
    name = "echo"

class Lost(toy_format.Owl):
    name = "lost"

    def header(self, tokens, dtype):
        return toy_format.HEAD.pack(toy_format.MAGIC, 0)

MINE, LOST = Mine(), Lost()
"""


def pytest_with(folder: Path, named: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "my_own.py").write_text(MINE)
    path = f"{folder}:{REPOSITORY}:{REPOSITORY / 'src'}"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        env=command_environment({"PYTHONPATH": path, "CONTRACT": named}),
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )


def test_what_is_named_runs_in_its_suite(tmp_path: Path) -> None:
    named = "my_own:MINE,my_own:CASE,my_own:Shelf,my_own:Slow,my_own:Echo"
    suites = [f"tests/contract/test_{seam}.py" for seam in
              ("formats", "sources", "stores", "executors", "engines")]  # fmt: skip
    listed = pytest_with(tmp_path, named, "--collect-only", *suites).stdout
    entries = ("mine", "my_own.CASE", "my_own.Shelf", "my_own.Slow", "echo")
    for suite, entry in zip(suites, entries, strict=True):
        mine = [line for line in listed.splitlines() if line.startswith(suite) and entry in line]
        assert len(mine) >= 5, (suite, mine)
        assert not [line for line in listed.splitlines() if entry in line and suite not in line]


def test_a_class_that_does_not_keep_it_fails(tmp_path: Path) -> None:
    run = pytest_with(tmp_path, "my_own:LOST", "tests/contract/test_formats.py", "-k",
                      "lost and read_back")  # fmt: skip
    assert run.returncode == 1 and "the header tells 0 tokens" in run.stdout, run.stdout
