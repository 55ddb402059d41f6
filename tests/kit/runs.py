"""Runs that are watched, killed and compared: real processes, with trouble from `troubled.py`.

A test makes a corpus in one of the `KINDS`, runs the command with small blocks and a checkpoint
after each, stops it in some way, and compares the whole folder, manifest included, with that of
an undisturbed run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Result, command_environment, forkserver, kill
from tests.kit import corpora, texts
from tests.kit.forkserver import hear_signals
from tests.kit.shared import REPOSITORY
from tokenmill.stores.lock import lock_holder

TROUBLED = REPOSITORY / "tests" / "kit" / "troubled.py"
KINDS = ("txt", "one.txt", "jsonl", "jsonl.zst", "parquet", "giant.parquet")
BLOCK = 8 * 1024
OPTIONS = ["--format", "build-nanogpt", "--shard-tokens", "20K", "--threads", "2", "--check", "0.1"]
SMALL: dict[str, Any] = {"block": BLOCK, "checkpoint": 0}
SECONDS = 30.0


@functools.lru_cache
def documents(count: int = 40, size: int = 8000) -> list[str]:
    """Documents short and long, ever different."""
    long = texts.prose(count * size)
    return [f"{n} " + long[n * size : (n + 1) * size - n * size // count] for n in range(count)]


def write_corpus(folder: Path, kind: str, count: int = 40) -> corpora.Corpus:
    """So many documents as an input of that kind."""
    folder.mkdir(parents=True, exist_ok=True)
    written = documents(count)
    if kind == "one.txt":
        path = folder / "one.txt"
        path.write_text("\n".join(written))
        return corpora.Corpus(path)
    if kind.endswith("parquet"):
        rows = 1000 if kind == "giant.parquet" else 2
        path = folder / "corpus.parquet"
        corpora.write_parquet(path, written, row_group=rows, use_dictionary=False)
        return corpora.Corpus(path)
    return corpora.write(folder, kind, written)


def environment(trouble: dict[str, Any]) -> dict[str, str]:
    """Where `troubled.py` finds what it is to do."""
    return command_environment({"TROUBLE": json.dumps(SMALL | trouble)})


def start(
    *args: object,
    prefix: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    **trouble: Any,
) -> subprocess.Popen[str]:
    """The troubled command, as the leader of a group of its own."""
    if not prefix:
        command = [str(TROUBLED), *map(str, args)]
        forked = forkserver.start(command, None, environment(trouble) | (env or {}))
        if forked is not None:
            return forked
    return spawn(*args, prefix=prefix, env=env, **trouble)


def spawn(
    *args: object,
    prefix: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    **trouble: Any,
) -> subprocess.Popen[str]:
    """The same, started and not forked."""
    return subprocess.Popen(
        [*prefix, sys.executable, str(TROUBLED), *map(str, args)],
        env=environment(trouble) | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
    )


def finish(process: subprocess.Popen[str], timeout: float = SECONDS) -> Result:
    """Wait for its end."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException:
        kill(process)
        raise
    return Result(process.returncode, stdout, stderr)


def run(
    *args: object,
    prefix: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    **trouble: Any,
) -> Result:
    """The troubled command, to its end."""
    return finish(start(*args, prefix=prefix, env=env, **trouble))


@contextmanager
def running(*args: object, **trouble: Any) -> Iterator[subprocess.Popen[str]]:
    """The same while it runs; whatever is left of it is killed at the end."""
    process = start(*args, **trouble)
    try:
        yield process
    finally:
        kill(process)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    """Until it is true; AssertionError when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.005)


def journal(out: Path) -> Path:
    return out / ".tokenmill" / "journal"


def checkpoints(out: Path) -> int:
    """How many checkpoints the journal has."""
    try:
        return journal(out).read_bytes().count(b'{"type":"checkpoint"')
    except FileNotFoundError:
        return 0


def wait_for_checkpoints(out: Path, count: int) -> None:
    wait_for(lambda: checkpoints(out) >= count, f"checkpoint {count}")


def workers(parent: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            tail = stat.read_text().rpartition(")")[2]
        except OSError:
            continue
        if int(tail.split()[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def is_dead(process: int) -> bool:
    """Is it gone, or a zombie?"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def end(process: subprocess.Popen[str], whom: str) -> None:
    """SIGKILL to the worker, the parent or both."""
    children = workers(process.pid)
    if whom in ("parent", "both"):
        os.kill(process.pid, signal.SIGKILL)
    if whom in ("worker", "both"):
        for child in children:
            os.kill(child, signal.SIGKILL)
    if whom == "worker":
        return
    process.communicate(timeout=SECONDS)
    for child in children:
        wait_for(functools.partial(is_dead, child), "the end of the worker", 2)


def wait_until_free(out: Path, seconds: float = 2) -> None:
    wait_for(lambda: lock_holder(out) is None, "the end of the lock", seconds)


def snapshot(out: Path) -> dict[str, str]:
    """Every file in a folder, with the hash of its content."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def assert_nothing_finished(out: Path) -> None:
    """Before everything is encoded, nothing may stand under a final name."""
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    final = {name for name in names if not name.endswith(".partial")} - {".tokenmill"}
    if final and journal(out).exists():
        assert b'{"type":"encoded"' in journal(out).read_bytes(), f"too early: {final}"
    elif final:
        assert "manifest.json" in final, f"without journal and manifest: {final}"
