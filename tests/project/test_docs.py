"""The documentation is true: its code runs, and every option it names exists.

The convention for fenced blocks in README.md and docs/*.md:

- an info string `console run` or `bash run`: the commands are run by bash, one block after the
  other of a page, in a folder of that page's own that holds a copy of `examples/`. In a `console`
  block the commands are the lines after `$ ` (and their continuations after `> ` or `\\`), each
  other line must be one that they print;
- `python run`: run by this interpreter, in the same folder;
- `is:PATH` beside that: the block is that file of the repository, and what tests say of the file
  is true of the block;
- any other block, and code in running text that begins with `tokenmill`: read only, to see that
  each `tokenmill COMMAND` and each of its `--options` exists.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import command_environment
from tests.kit.shared import EXAMPLES, REPOSITORY
from tokenmill.cli import prepare
from tokenmill.errors import TokenmillError

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCE = re.compile(r"^(```+|~~~+)([^\n`]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
BENCHMARKS = REPOSITORY / "benchmarks"
LINKING = [*PAGES, REPOSITORY / "CONTRIBUTING.md", *sorted(BENCHMARKS.glob("*.md"))]
INLINE = re.compile(r"`(tokenmill [^`]+)`")
CALL = re.compile(r"(?:^|[\s|;&(])tokenmill[ \t]+([a-z]+)((?:[ \t]+[^\s;&|#`]+)*)")
OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its info string, its text, and where it begins."""

    info: tuple[str, ...]
    text: str
    line: int

    @property
    def runs(self) -> bool:
        return "run" in self.info[1:]

    def script(self) -> str:
        """What bash is to run."""
        if self.info[0] != "console":
            return self.text
        return "\n".join(line.removeprefix("$ ").removeprefix("> ") for line in self._lines(True))

    def output(self) -> list[str]:
        """The lines that a console shows of it."""
        return self._lines(False) if self.info[0] == "console" else []

    def _lines(self, typed: bool) -> list[str]:
        lines, going_on = [], False
        for line in self.text.splitlines():
            is_typed = line.startswith("$ ") or going_on
            going_on = is_typed and line.endswith("\\")
            if is_typed is typed:
                lines.append(line)
        return lines


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(tuple(m[2].split()) or ("",), m[3], text[: m.start()].count("\n") + 1)
        for m in FENCE.finditer(text)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the examples, and commands `tokenmill` and `python` that are the tested ones."""
    shutil.copytree(EXAMPLES, tmp_path / "work" / "examples")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, call in {"tokenmill": '-m tokenmill "$@"', "python": '"$@"'}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}\n')
        (commands / name).chmod(0o755)
    return tmp_path


def run_block(block: Block, folder: Path) -> None:
    """Run one block; its failure shows what it printed."""
    env = command_environment({"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"})
    if block.info[0] == "python":
        command = [sys.executable, "-c", block.text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.script()]
    done = subprocess.run(
        command, cwd=folder / "work", env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, (
        f"the block at line {block.line} ends with {done.returncode}\n{done.stdout}{done.stderr}"
    )
    printed = (done.stdout + done.stderr).splitlines()
    untrue = [line for line in block.output() if line not in printed]
    assert not untrue, f"the block at line {block.line} prints no {untrue}, but {printed}"


def page_name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_blocks_marked_run_do_run(page: Path, folder: Path) -> None:
    for block in blocks(page):
        if block.runs:
            run_block(block, folder)


def test_blocks_that_are_files_are_those_files() -> None:
    shown = 0
    for page in PAGES:
        for block in blocks(page):
            for path in (word[3:] for word in block.info if word.startswith("is:")):
                shown += 1
                assert block.text == (REPOSITORY / path).read_text(), (
                    f"{page.name} has another {path}"
                )
    assert shown >= 4


def test_the_readme_has_blocks_that_run() -> None:
    assert any(block.runs for block in blocks(REPOSITORY / "README.md"))


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """The options that `tokenmill COMMAND --help` shows; empty if there is no such command."""
    call = [sys.executable, "-m", "tokenmill", command, "--help"]
    done = subprocess.run(call, env=command_environment(), capture_output=True, text=True)
    shown = re.findall(r"--[a-z][a-z-]*", done.stdout)
    return frozenset(shown if done.returncode == 0 else [])


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_option_named_exists(page: Path) -> None:
    texts = [block.text for block in blocks(page) if block.info[0] != "python"]
    texts += INLINE.findall(FENCE.sub("", page.read_text()))
    for text in texts:
        for command, rest in CALL.findall(text.replace("\\\n", " ")):
            known = options_of(command)
            assert known, f"`tokenmill {command}` does not exist"
            unknown = set(OPTION.findall(rest)) - known
            assert not unknown, f"`tokenmill {command}` has no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("page", LINKING, ids=page_name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", page.read_text())):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{target} does not exist"


def test_the_results_are_one_page_whose_figures_are_in_the_log() -> None:
    lines = (BENCHMARKS / "RESULTS.md").read_text().splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= 160
    log = (BENCHMARKS / "LOG.md").read_text()
    figures = set(re.findall(r"\d[\d.,]*\d|\d", "\n".join(lines)))
    logged = set(re.findall(r"\d[\d.,]*\d|\d", log))
    assert len(figures) > 150
    assert not figures - logged, f"not in LOG.md: {figures - logged}"


def test_the_benchmarks_page_names_every_script() -> None:
    named = set(re.findall(r"`(\w+\.py)", (BENCHMARKS / "README.md").read_text()))
    assert named == {path.name for path in BENCHMARKS.glob("*.py")}


def test_every_fault_names_tests_that_exist() -> None:
    """`FILE.py`, `FILE.py::TEST`, and `::TEST` of the file named before it."""
    rows = (REPOSITORY / "docs" / "faults.md").read_text().splitlines()
    named = 0
    for row in (row for row in rows if row.startswith("|")):
        content = ""
        for file, test in re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", row):
            if file:
                found = (REPOSITORY / "tests").rglob(file)
                content = min(found, key=lambda path: "torture" in path.parts).read_text()
            assert not test or f"\ndef {test}(" in content, f"{test} is not there: {row}"
            named += bool(file or test)
    assert named > 80


def test_every_exit_code_is_explained() -> None:
    """0, 3 and those of signals; the others are those of the errors."""
    text = (REPOSITORY / "docs" / "cli.md").read_text().partition("## Exit codes")[2]
    rows = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    explained = {int(code) for row in rows for code in row.split(",")}
    found, kinds = set(), [TokenmillError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.exit_code)
        kinds += kind.__subclasses__()
    assert explained == found | {0, prepare.QUARANTINED, 129, 130, 143}
