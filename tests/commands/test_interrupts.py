"""Ctrl-C while a thread is deep in native code: it hears nothing, and nobody waits for it for ever.

At a real terminal; the engine sleeps in C, without and with the interpreter's lock. What is done is
kept, and the same command, with an engine that comes back, makes the same bytes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, command_environment
from tests.kit import corpora, runs

pytest.importorskip("pyte")
from tests.kit.terminal import Terminal, at_terminal

MARKER = "a pattern that tries for ever"
OPTIONS = ["--val-fraction", "0", "--workers", "2", "--check", "0"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of its forty documents the thirtieth is never done."""
    documents = list(runs.documents(40))
    documents[30] += MARKER
    return corpora.write(tmp_path_factory.mktemp("corpus"), "jsonl", documents).path


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    options = [*OPTIONS, *more]
    return [sys.executable, str(runs.TROUBLED), "prepare", str(corpus), "--out", str(out), *options]


def environment(how: str) -> dict[str, str]:
    trouble = {**runs.SMALL, "marker": MARKER, "die": {"gigatoken": how}, "pause": 0.02}
    env = command_environment({"TROUBLE": json.dumps(trouble), "TERM": "xterm-256color"})
    del env["COLUMNS"]
    return env


def has(terminal: Terminal, words: str) -> bool:
    """Are these words on the screen? Where lines were wrapped is the terminal's doing."""
    return words.replace(" ", "") in "".join(terminal.screen.display).replace(" ", "")


def until_it_hangs(terminal: Terminal, out: Path) -> None:
    """No more checkpoints come."""
    seen = 0
    while not seen or runs.checkpoints(out) > seen:
        seen = runs.checkpoints(out)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert terminal.read(), terminal.text()


def assert_clean(terminal: Terminal, corpus: Path) -> None:
    """The cursor is there, on a line of its own; no block; the command that goes on is told."""
    assert not terminal.is_cursor_hidden and terminal.screen.cursor.x == 0, terminal.text()
    for word in ("time left", "bottleneck", "----", "####", "Traceback"):
        assert word not in terminal.text(), terminal.text()
    assert has(terminal, f"to go on, run the same command again: tokenmill prepare {corpus}")


def assert_goes_on(corpus: Path, out: Path, tmp_path: Path, tokenmill: Run) -> None:
    state: dict[str, Any] = tokenmill("status", out, "--json").lines[0]
    assert state["state"] == "stopped" and state["documents"] >= 20
    for folder in (out, tmp_path / "whole"):
        done = runs.run("prepare", corpus, "--out", folder, *OPTIONS)
        assert done.rc == 0, done.stderr
    assert (out / "train.bin").read_bytes() == (tmp_path / "whole" / "train.bin").read_bytes()


def test_a_deaf_thread_is_not_waited_for(corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    """One Ctrl-C is enough, within about two seconds."""
    out = tmp_path / "out"
    with at_terminal(command(corpus, out), 100, environment("deaf")) as terminal:
        until_it_hangs(terminal, out)
        terminal.type(b"\x03")
        asked = time.monotonic()
        assert terminal.finish(20) == 130
        assert time.monotonic() - asked < 10  # on a busy machine
        assert "error: stopped by Ctrl-C" in terminal.text()
        assert has(terminal, "are done and kept")
        assert_clean(terminal, corpus)
    assert_goes_on(corpus, out, tmp_path, tokenmill)


def test_a_deaf_process_is_told_of_and_killed(corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    """With the interpreter's lock held nobody in it hears: the first Ctrl-C tells what is waited
    for, the second ends it."""
    out = tmp_path / "out"
    with at_terminal(command(corpus, out), 100, environment("deaf and dumb")) as terminal:
        until_it_hangs(terminal, out)
        terminal.type(b"\x03")
        terminal.wait_for(lambda shown: has(shown, "native code that hears no signal"), 20)
        assert has(terminal, "press Ctrl-C again")
        terminal.type(b"\x03")
        asked = time.monotonic()
        assert terminal.finish(20) == 130
        assert time.monotonic() - asked < 5
        assert_clean(terminal, corpus)
    assert_goes_on(corpus, out, tmp_path, tokenmill)


def test_the_run_s_own_limit_does_not_wait_either(corpus: Path, tmp_path: Path) -> None:
    command = ["prepare", corpus, "--out", tmp_path / "out", *OPTIONS, "--max-time", "3"]
    done = runs.run(*command, marker=MARKER, die={"gigatoken": "deaf"})
    assert done.rc == 10, done.stderr
    assert "--max-time 3 is over" in done.stderr
