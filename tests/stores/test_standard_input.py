"""`-`: a pipe gives the bytes of the file, and leaves nothing behind when it breaks."""

from __future__ import annotations

import gzip
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Result, command_environment, kill
from tests.kit import runs
from tests.kit.forkserver import hear_signals
from tests.kit.outcome import Outcome
from tokenmill.stores.durable import PARTIAL

DOCUMENTS = runs.documents()
JSONL = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()
LARGE = 20 * JSONL
"""More than one block."""
TEXT = "\n\n".join(text.replace("\n", " ") for text in DOCUMENTS).encode()
OPTIONS = ("--format", "build-nanogpt", "--shard-tokens", "20K", "--threads", "2")


@contextmanager
def piped(*args: object, stdin: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """`prepare -` as a real process, with a pipe to write into."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenmill", "prepare", "-", *map(str, args)],
        env=command_environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=hear_signals,
    )
    try:
        yield process
    finally:
        kill(process)


def prepare(content: bytes, *args: object) -> Result:
    with piped(*args) as process:
        stdout, stderr = process.communicate(content, timeout=60)
        return Result(process.returncode, stdout.decode(), stderr.decode())


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.npy")}


@pytest.mark.parametrize(
    ("suffix", "content", "options"),
    [
        (".jsonl", JSONL, ()),
        (".jsonl", b"\n \n" + JSONL, ()),
        (".txt", TEXT, ("--documents", "blank-line")),
        (".txt", TEXT, ()),
        (".txt", b"{ is how it begins\n\n" + TEXT, ("--documents", "blank-line")),
    ],
    ids=["jsonl", "jsonl after blank lines", "documents", "one document", "like jsonl"],
)
def test_a_pipe_gives_the_shards_of_the_file(
    suffix: str, content: bytes, options: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / f"corpus{suffix}"
    path.write_bytes(content)
    done = runs.run("prepare", path, "--out", tmp_path / "file", *OPTIONS, *options)
    assert done.rc == 0, done.stderr
    found = prepare(content, "--out", tmp_path / "pipe", *OPTIONS, *options)
    assert found.rc == 0, found.stderr
    assert "a pipe is read once" in found.stderr
    assert shards(tmp_path / "pipe") == shards(tmp_path / "file")
    (source,) = Outcome(tmp_path / "pipe").manifest["inputs"]
    assert (source["path"], source["size"]) == ("-", len(content))
    assert runs.run("verify", tmp_path / "pipe").rc == 0


def test_a_broken_run_leaves_nothing_and_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with piped("--out", out, *OPTIONS) as process:
        assert process.stdin is not None
        process.stdin.write(LARGE[:-200_000])
        process.stdin.flush()
        runs.wait_for(lambda: list(out.glob("*" + PARTIAL)), "a partial file")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    runs.wait_until_free(out)
    runs.assert_nothing_finished(out)
    done = prepare(LARGE, "--out", out, *OPTIONS)
    assert done.rc == 0, done.stderr
    assert runs.run("verify", out).rc == 0
    assert Outcome(out).manifest["counts"]["documents"] == 20 * len(DOCUMENTS)
    again = prepare(LARGE, "--out", out, *OPTIONS)
    assert again.rc == 12
    assert "cannot be held against" in again.stderr


def test_a_stopped_run_ends_soon_though_the_pipe_is_silent(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with piped("--out", out, *OPTIONS) as process:
        assert process.stdin is not None
        process.stdin.write(LARGE)
        process.stdin.flush()
        runs.wait_for(lambda: list(out.glob("*" + PARTIAL)), "a partial file")
        os.kill(process.pid, signal.SIGINT)
        process.wait(timeout=20)
        assert process.stderr is not None
        told = process.stderr.read().decode()
    assert process.returncode == 130, told
    assert "nothing of a pipe is kept" in told
    assert not list(out.iterdir())


def test_a_bad_line_stops_it_with_its_place(tmp_path: Path) -> None:
    found = prepare(JSONL + b"{bad\n", "--out", tmp_path / "out", *OPTIONS)
    assert found.rc == 1
    assert f"-:{len(DOCUMENTS) + 1}, byte {len(JSONL) + 1}" in found.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("content", "options", "rc", "told"),
    [
        (b"", OPTIONS, 1, "nothing came"),
        (gzip.compress(JSONL), OPTIONS, 1, "zcat"),
        (TEXT, ("--format", "nanogpt"), 2, "--val-fraction 0"),
        (JSONL, ("--max-time", "1h"), 2, "cannot"),
    ],
    ids=["empty", "compressed", "the end as validation", "--max-time"],
)
def test_what_a_pipe_cannot_do_is_told(
    content: bytes, options: tuple[str, ...], rc: int, told: str, tmp_path: Path
) -> None:
    found = prepare(content, "--out", tmp_path / "out", *options)
    assert (found.rc, "fix:" in found.stderr) == (rc, True), found.stderr
    assert told in found.stderr


def test_a_terminal_is_no_input(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    with piped("--out", tmp_path / "out", stdin=follower) as process:
        _, stderr = process.communicate(timeout=30)
    os.close(leader)
    os.close(follower)
    assert process.returncode == 2
    assert b"terminal" in stderr
