"""Law 4: a failed or killed run lies about nothing, and the same command then gives the same bytes.

A run is killed at random moments (the seed is in the test's name), and the steps at its very end
are made to fail one by one. Foreign files in the folder survive all of it. How a run goes on is
tested in test_resume.py.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, kill, start
from tests.kit import corpora, texts
from tests.kit.outcome import Outcome, prepare
from tests.kit.shared import ARTICLES
from tokenmill.commands import prepare as preparation
from tokenmill.errors import InputError, NoSpace, OutputInUse, SpecMismatch
from tokenmill.output import folder, writer
from tokenmill.stores import lock
from tokenmill.stores.durable import write_durably
from tokenmill.stores.lock import locked

OPTIONS = ["--format", "build-nanogpt", "--shard-tokens", "100K", "--check", "0"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> corpora.Corpus:
    """About 8 MB: half a second of tokenizing by gigatoken."""
    documents = [f"{index} {texts.prose(20_000)}" for index in range(400)]
    return corpora.write(tmp_path_factory.mktemp("killed"), "jsonl", documents)


@pytest.fixture(scope="module")
def undisturbed(corpus: corpora.Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    return prepare(corpus, out, format="build-nanogpt", shard_tokens="100K").hashes


def assert_honest(out: Path) -> None:
    """Without a manifest nothing may look finished; with it, everything is."""
    if (out / "manifest.json").exists():
        assert Outcome(out).manifest["shards"]


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_is_begun_again_to_the_same_bytes(
    seed: int,
    corpus: corpora.Corpus,
    undisturbed: dict[str, str],
    tmp_path: Path,
    tokenmill: Run,
) -> None:
    out, generator = tmp_path / "out", random.Random(seed)
    arguments = ["prepare", *corpus.arguments(), "--out", out, *OPTIONS]
    for _ in range(2):
        process = start(*arguments)
        time.sleep(0.1 + 0.5 * generator.random())
        kill(process)
        assert_honest(out)
    done = tokenmill(*arguments)
    assert done.rc == 0, done.stderr
    assert Outcome(out).hashes == undisturbed
    assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["SHA256SUMS", "manifest.json"])
def test_a_failure_at_the_very_end_leaves_whole_shards_and_can_be_repeated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards have their names already when the last small files cannot be written: they are
    whole, there is no manifest, and the next run only writes what is missing."""

    def failing(path: Path, content: bytes) -> None:
        if path.name == name:
            full()
        write_durably(path, content)

    out = tmp_path / "out"
    monkeypatch.setattr(folder, "write_durably", failing)
    with pytest.raises((OSError, NoSpace)):
        prepare(ARTICLES, out)
    monkeypatch.undo()
    left = Outcome(out).hashes
    assert not (out / "manifest.json").exists()
    monkeypatch.setattr(preparation, "ThreadExecutor", None)  # nothing is encoded again
    again = prepare(ARTICLES, out)
    monkeypatch.undo()
    assert again.hashes == left == prepare(ARTICLES, tmp_path / "other").hashes
    assert not (out / ".tokenmill").exists()


def test_a_failure_between_two_renames_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, calls = os.replace, []

    def failing(source: Any, target: Any) -> None:
        if str(target).endswith(".npy"):
            calls.append(target)
            if len(calls) == 3:
                full()
        replace(source, target)

    out, options = tmp_path / "out", {"format": "build-nanogpt", "shard_tokens": "5K"}
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(NoSpace) as caught:
        prepare(ARTICLES, out, **options)
    assert caught.value.exit_code == 9
    monkeypatch.undo()
    left = {name: digest for name, digest in Outcome(out).hashes.items() if name.endswith(".npy")}
    assert len(left) == 2
    again = prepare(ARTICLES, out, **options)
    assert again.hashes == prepare(ARTICLES, tmp_path / "other", **options).hashes
    assert left.items() < again.hashes.items(), "what has a final name was whole"
    assert not list(out.glob("*.partial"))


def test_another_programs_partial_files_are_not_removed(tmp_path: Path) -> None:
    """rclone and others use `.partial` too."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "download.zip.a1b2.partial").write_text("not ours")
    prepare(ARTICLES, out)
    assert (out / "download.zip.a1b2.partial").read_text() == "not ours"


def test_two_interrupts_end_at_once(corpus: corpora.Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(
        "prepare", *corpus.arguments(), "--out", out, "--engine", "tiktoken", "--threads", "1"
    )
    try:
        deadline = time.monotonic() + 30
        while not (out / ".tokenmill").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=5)
    finally:
        kill(process)
    assert process.returncode in (130, -signal.SIGINT), stderr
    assert not (out / "manifest.json").exists()


def test_a_lock_file_that_its_holder_removed_locks_nobody_else(tmp_path: Path) -> None:
    """A run that ends removes the file that another may have opened a moment before."""
    opened = lock._open_lock(tmp_path)
    lock.remove_state(tmp_path)
    assert not lock._is_current(opened, tmp_path)
    with (
        locked(tmp_path),
        pytest.raises(OutputInUse, match=str(os.getpid())),
        locked(tmp_path),
    ):
        pass
    os.close(opened)


def test_the_same_work_twice_at_once_is_done_once(corpus: corpora.Corpus, tmp_path: Path) -> None:
    """Two runs, or more, that begin together: one works, the others are refused or find it done."""
    out = tmp_path / "out"
    arguments = ["prepare", *corpus.arguments(), "--out", out, *OPTIONS]
    processes = [start(*arguments) for _ in range(4)]
    codes = sorted(process.wait(timeout=60) for process in processes)
    for process in processes:
        process.communicate()
    assert codes[0] == 0
    assert set(codes) <= {0, 11}
    other = tmp_path / "other"
    options = {"format": "build-nanogpt", "shard_tokens": "100K"}
    assert Outcome(out).hashes == prepare(corpus, other, **options).hashes


@pytest.mark.parametrize("change", ["append", "touch", "remove"])
def test_an_input_that_changes_during_the_run_is_an_error(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    shutil.copy(ARTICLES, source)
    write = writer.DatasetWriter.write

    def changing(self: Any, *arguments: Any) -> None:
        write(self, *arguments)
        if change == "append":
            with source.open("ab") as file:
                file.write(b'{"text": "more"}\n')
        elif change == "touch":
            os.utime(source, (1, 1))
        else:
            source.unlink(missing_ok=True)

    monkeypatch.setattr(writer.DatasetWriter, "write", changing)
    with pytest.raises(InputError, match=r"changed while it was read|input is gone"):
        prepare(source, out)
    assert not list(out.glob("*.bin"))
    assert not (out / "manifest.json").exists()
    if change != "remove":
        monkeypatch.undo()
        with pytest.raises(SpecMismatch, match=r"in\.jsonl"):
            prepare(source, out)
