"""What a person sees at a terminal: a live block while the run works, and nothing of it after."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, command_environment
from tests.kit import runs
from tokenmill.console import ERASE

pytest.importorskip("pyte")
from tests.kit.terminal import Terminal, at_terminal

COLUMNS = (50, 80, 120)
PAUSE = 0.15
"""Seconds that each call of the engine takes longer: two threads work for about four seconds."""
ROWS_OF_BLOCK = ("read", "documents", "tokens", "text", "time left", "memory", "busy")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_corpus(tmp_path_factory.mktemp("corpus"), "jsonl").path


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    """A slow run, of many blocks."""
    options = [*runs.OPTIONS, "--check", "0", *more]
    return [sys.executable, str(runs.TROUBLED), "prepare", str(corpus), "--out", str(out), *options]


def environment(pause: float = PAUSE, **more: str) -> dict[str, str]:
    trouble = json.dumps(runs.SMALL | {"pause": pause})
    env = command_environment({"TROUBLE": trouble, "TERM": "xterm-256color", **more})
    if "NO_COLOR" not in more:
        env.pop("NO_COLOR", None)
    del env["COLUMNS"]
    return env


def is_drawn(terminal: Terminal) -> bool:
    """Is there a whole block, with some of the work done? Once all of it has come, the cursor is
    back on its bar."""
    row = terminal.screen.display[terminal.screen.cursor.y].rstrip()
    if terminal.screen.cursor.x or not re.fullmatch("[#-]+", row):
        return False
    return any(re.match(r"tokens +[1-9]", row) for row in terminal.lines())


def has_bar(width: int, terminal: Terminal) -> bool:
    """Is there a bar that wide, with all the rows below it?"""
    bars = [row for row in terminal.lines() if len(row) == width and set(row) <= set("#-")]
    return bool(bars) and is_drawn(terminal)


def assert_whole_block(terminal: Terminal, columns: int) -> None:
    """Bar and rows, each as it should be, nothing cut and nothing drawn twice."""
    rows = terminal.lines()
    bars = [row for row in rows if re.fullmatch(r"#*-*", row) and row]
    assert [len(bar) for bar in bars] == [columns - 1], terminal.text()
    block = rows[rows.index(bars[0]) + 1 :]
    labels = [row[:11].strip() for row in block if row[:11].strip()]
    assert labels == list(ROWS_OF_BLOCK), terminal.text()
    words = re.sub(r"\s+", " ", " ".join(row[11:].strip() for row in block))
    for end in ("/s mean", "tokens/s now", "; bottleneck:"):
        assert end in words, terminal.text()
    assert re.search(r"bottleneck: (read|encode|write)$", words), terminal.text()
    assert not terminal.is_cursor_hidden


def assert_nothing_left(terminal: Terminal) -> None:
    text = terminal.text()
    for word in ("time left", "bottleneck", "----", "####"):
        assert word not in text, text
    assert not terminal.is_cursor_hidden
    assert terminal.screen.cursor.x == 0, text


def unwrapped(terminal: Terminal) -> str:
    """The screen's text as one line: where it was wrapped is the terminal's doing."""
    return "".join(terminal.screen.display).replace(" ", "")


@pytest.mark.parametrize("columns", COLUMNS)
def test_block_is_drawn_and_goes(columns: int, corpus: Path, tmp_path: Path) -> None:
    with at_terminal(command(corpus, tmp_path / "out"), columns, environment()) as terminal:
        terminal.wait_for(is_drawn)
        assert_whole_block(terminal, columns)
        assert terminal.finish() == 0
        assert_nothing_left(terminal)
        assert "done:" in terminal.text()


@pytest.mark.parametrize("columns", COLUMNS)
def test_one_ctrl_c(columns: int, corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    out = tmp_path / "out"
    with at_terminal(command(corpus, out), columns, environment()) as terminal:
        terminal.wait_for(is_drawn)
        terminal.type(b"\x03")
        assert terminal.finish() == 130
        assert_nothing_left(terminal)
        assert "error: stopped by Ctrl-C" in terminal.text()
        assert f"togoon,runthesamecommandagain:tokenmillprepare{corpus}" in unwrapped(terminal)
    assert tokenmill("status", out, "--json").lines[0]["state"] == "stopped"


@pytest.mark.parametrize("columns", COLUMNS)
def test_two_ctrl_c(columns: int, corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    """The second comes while the first waits for blocks that take long."""
    out = tmp_path / "out"
    slow = environment(pause=1.0)
    with at_terminal(command(corpus, out), columns, slow) as terminal:
        terminal.wait_for(is_drawn)
        terminal.type(b"\x03")
        terminal.read(0.3)
        terminal.read(0.3)
        terminal.type(b"\x03")
        assert terminal.finish() == 130
        assert_nothing_left(terminal)
        assert "came a second time" in re.sub(r"\s+", " ", terminal.text())
        assert f"togoon,runthesamecommandagain:tokenmillprepare{corpus}" in unwrapped(terminal)
    assert tokenmill("status", out, "--json").lines[0]["state"] == "stopped"


def test_killed_worker_leaves_nothing(corpus: Path, tmp_path: Path) -> None:
    with at_terminal(command(corpus, tmp_path / "out"), 80, environment()) as terminal:
        terminal.wait_for(is_drawn)
        os.kill(runs.workers(terminal.pid)[0], signal.SIGKILL)
        assert terminal.finish() == 0
        assert_nothing_left(terminal)
        assert "warning: the working process was killed by signal 9" in terminal.text()
        before = terminal.output.partition(b"warning: the working process")[0]
        assert before.endswith(ERASE.encode())  # the next block may be long in coming


def test_a_line_is_printed_above_the_block() -> None:
    code = (
        "import sys\n"
        "from tokenmill.console import print_line, show_block\n"
        "for text in ('warning', 'note'):\n"
        "    show_block(['#' * 40, 'tokens     1'], sys.stderr)\n"
        "    print_line(text, sys.stderr)\n"
        "show_block(['#' * 40, 'tokens     2'], sys.stderr)\n"
    )
    with at_terminal([sys.executable, "-c", code], 50, environment()) as terminal:
        assert terminal.finish() == 0
        assert terminal.lines() == ["warning", "note", "#" * 40, "tokens     2"]


def test_window_is_resized(corpus: Path, tmp_path: Path) -> None:
    """Narrower and wider: the next block has the new width, and nothing is left of the old one."""
    with at_terminal(command(corpus, tmp_path / "out"), 120, environment(0.3)) as terminal:
        terminal.wait_for(is_drawn)
        for columns in (60, 100):
            terminal.resize(columns)
            terminal.wait_for(functools.partial(has_bar, columns - 1))
            assert_whole_block(terminal, columns)
        assert terminal.finish() == 0
        assert_nothing_left(terminal)


def test_few_rows(corpus: Path, tmp_path: Path) -> None:
    """A terminal lower than the block shows its first rows, and scrolls nothing away."""
    shown = command(corpus, tmp_path / "out")
    with at_terminal(shown, 80, environment(), rows=5) as terminal:
        terminal.wait_for(is_drawn)
        assert sum(row.startswith("tokens") for row in terminal.lines()) == 1
        assert terminal.finish() == 0
        assert_nothing_left(terminal)


@pytest.mark.parametrize(
    ("more", "env"),
    [((), {"TERM": "dumb"}), (("--quiet",), {}), (("--json",), {})],
    ids=["dumb", "quiet", "json"],
)
def test_no_block(more: tuple[str, ...], env: dict[str, str], corpus: Path, tmp_path: Path) -> None:
    shown = command(corpus, tmp_path / "out", *more)
    with at_terminal(shown, 80, environment(0, **env)) as terminal:
        assert terminal.finish() == 0
        assert b"\x1b" not in terminal.output


def test_stderr_in_a_file(corpus: Path, tmp_path: Path) -> None:
    """stdout at a terminal and stderr in a file: no escape codes in the file, nothing at all on
    the terminal."""
    log, shown = tmp_path / "log", command(corpus, tmp_path / "out")
    with at_terminal(shown, 80, environment(0), redirect={2: str(log)}) as terminal:
        assert terminal.finish() == 0
        assert terminal.output == b""
    assert "done:" in log.read_text() and "\x1b" not in log.read_text()


def test_colours_and_none(corpus: Path, tmp_path: Path) -> None:
    both: list[tuple[dict[str, Any], bool]] = [({}, True), ({"NO_COLOR": "1"}, False)]
    for env, has_colours in both:
        shown = command(corpus, tmp_path / f"out{has_colours}")
        with at_terminal(shown, 80, environment(**env)) as terminal:
            terminal.wait_for(is_drawn)
            assert (b"\x1b[32m" in terminal.output) is has_colours
            assert bool(re.search(rb"\x1b\[[0-9;]*m", terminal.output)) is has_colours
