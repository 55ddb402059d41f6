"""``status`` tells what a run has done, from its files alone, and does not disturb it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, kill
from tests.kit import corpora, runs, texts
from tests.kit.outcome import prepare
from tokenmill.commands.status import status_of
from tokenmill.errors import DamageFound

OPTIONS = ["--format", "llm.c", "--shard-tokens", "10K", "--threads", "1", "--check", "0"]
PAUSE = 0.1
"""In each of the small blocks of `runs`: some seconds of waiting, and little work."""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "c.jsonl"
    path.write_bytes(corpora.jsonl([f"{n} {texts.prose(4000)}" for n in range(60)]))
    return path


def wait_for_checkpoint(out: Path, process: Any) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if out.exists():
            try:
                if status_of(out).get("tokens"):
                    return
            except DamageFound:  # it has not begun
                pass
        time.sleep(0.02)
    raise AssertionError("no checkpoint came")


def test_a_running_a_stopped_and_a_finished_run(
    corpus: Path, tmp_path: Path, tokenmill: Run
) -> None:
    out = tmp_path / "out"
    command = ["prepare", corpus, "--out", out, *OPTIONS]
    process = runs.start(*command, pause=PAUSE)
    try:
        wait_for_checkpoint(out, process)
        os.killpg(process.pid, signal.SIGSTOP)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        running = tokenmill("status", out, "--json").lines[0]
        shown = tokenmill("status", out)
        assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    finally:
        kill(process)
    assert (running["type"], running["state"]) == ("status", "running")
    assert running["holder"].split()[0].isdigit()
    assert 0 < running["bytes"] < running["total_bytes"] == corpus.stat().st_size
    assert running["documents"] and running["tokens"] and running["seconds"] >= 0
    assert running["began"] and running["checkpoint"]
    assert shown.rc == 0 and "running, by process" in shown.stdout

    stopped = tokenmill("status", out, "--json").lines[0]
    assert (stopped["state"], stopped["holder"]) == ("stopped", None)
    assert stopped["bytes"] >= running["bytes"]
    assert stopped["command"] == " ".join(map(str, ["tokenmill", *command]))
    assert f"to go on: {stopped['command']}" in tokenmill("status", out).stdout

    assert runs.run(*stopped["command"].split()[1:]).rc == 0
    finished = tokenmill("status", out, "--json").lines[0]
    assert (finished["state"], finished["documents"], finished["damaged"]) == ("finished", 60, [])
    assert "finished" in tokenmill("status", out).stdout


def test_a_run_in_its_way_is_not_disturbed(corpus: Path, tmp_path: Path) -> None:
    """Asked all the time, from before it begins until it is done."""
    out = tmp_path / "out"
    process = runs.start("prepare", corpus, "--out", out, *OPTIONS, pause=PAUSE / 5)
    seen = set()
    try:
        while process.poll() is None:
            try:
                seen.add(status_of(out)["state"])
            except DamageFound:
                seen.add("nothing")
            time.sleep(0.001)
        assert process.returncode == 0
    finally:
        kill(process)
    assert "running" in seen and status_of(out)["state"] == "finished"


def test_a_finished_dataset_tells_what_is_missing(tmp_path: Path) -> None:
    out = prepare(corpora.write(tmp_path, "jsonl", ["one", "two"]), tmp_path / "out").folder
    (out / "train.bin").unlink()
    found = status_of(out)
    assert (found["state"], found["damaged"]) == ("finished", ["train.bin"])
    (out / "manifest.json").write_text("{")
    with pytest.raises(DamageFound, match="damaged"):
        status_of(out)


@pytest.mark.parametrize("kind", ["no folder", "empty", "a file", "foreign files"])
def test_where_there_is_nothing_it_says_so(kind: str, tmp_path: Path, tokenmill: Run) -> None:
    place = tmp_path / "place"
    if kind == "a file":
        place.write_text("mine")
    elif kind != "no folder":
        place.mkdir()
    if kind == "foreign files":
        (place / "train.bin").write_bytes(b"mine")
    done = tokenmill("status", place)
    assert (done.rc, done.stdout) == (13, "")
    assert "fix:" in done.stderr
    assert not (place / ".tokenmill").exists()


def test_a_torn_journal_is_told_as_far_as_it_goes(
    corpus: Path, tmp_path: Path, tokenmill: Run
) -> None:
    out = tmp_path / "out"
    process = runs.start("prepare", corpus, "--out", out, *OPTIONS, "--overwrite", pause=PAUSE)
    try:
        wait_for_checkpoint(out, process)
    finally:
        kill(process)
    journal = out / ".tokenmill" / "journal"
    os.truncate(journal, journal.read_bytes().index(b"\n") + 20)
    found = tokenmill("status", out, "--json").lines[0]
    assert (found["state"], found["bytes"], found["checkpoint"]) == ("stopped", 0, None)
    assert "--overwrite" not in found["command"]
