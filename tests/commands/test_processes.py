"""`prepare` in worker processes: the bytes of threads, whatever happens to a worker.

In this process, on small blocks, with the real executor: a run of half a second each.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.encoding.test_recipe import written
from tests.kit import corpora, runs, sized
from tests.kit.outcome import Outcome
from tokenmill.commands import options, prepare
from tokenmill.commands.workers import choose_workers
from tokenmill.errors import UsageError
from tokenmill.executors import processes
from tokenmill.executors.executor import WorkerDied
from tokenmill.memory import Budget, Needs

SMALL = sized.shrunk(runs.BLOCK)
KINDS = ("txt", "one.txt", "txt.gz", "jsonl", "jsonl.zst", "parquet", "giant.parquet")
OPTIONS: dict[str, Any] = {"val_fraction": 0.3, "shard_tokens": "20K", "check": 0.2}


def prepared(corpus: corpora.Corpus, out: Path, **options: Any) -> Outcome:
    """A dataset, and what its manifest says but for the threads' own business."""
    chosen = {**OPTIONS, **corpus.options, **options}
    sized.prepare(corpus.path, out=out, sizes=SMALL, **chosen)
    return Outcome(out)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_give_the_bytes_of_threads(kind: str, tmp_path: Path) -> None:
    corpus = written(kind, tmp_path)
    mine = prepared(corpus, tmp_path / "threads", executor="threads", workers=2)
    for workers in (1, 7) if kind == "txt" else (2,):
        out = tmp_path / f"processes{workers}"
        theirs = prepared(corpus, out, executor="processes", workers=workers)
        assert theirs.hashes == mine.hashes
        assert theirs.manifest["counts"] == mine.manifest["counts"]
        assert theirs.manifest["check"] == mine.manifest["check"]


def test_what_is_left_out_is_the_same(tmp_path: Path) -> None:
    lines = [f'{{"text": "line {n}"}}' if n % 7 else f"no JSON {n}" for n in range(3000)]
    packed = corpora.COMPRESSORS[".gz"]("\n".join(lines).encode())
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(packed[:-9])
    corpus = corpora.Corpus(path, {"on_bad": "quarantine"})
    mine = prepared(corpus, tmp_path / "threads", executor="threads")
    theirs = prepared(corpus, tmp_path / "processes", executor="processes", workers=2)
    assert theirs.hashes == mine.hashes
    assert theirs.manifest["quarantine"] == mine.manifest["quarantine"] != {}


def test_an_error_is_that_of_threads(tmp_path: Path, tokenmill: Run) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "fine"}\n' * 9 + "no JSON\n" + '{"text": "fine"}\n')
    found = []
    for executor in ("threads", "processes"):
        more = ["--executor", executor, "--workers", 2, "--out", tmp_path / executor]
        done = tokenmill("prepare", path, *more)
        assert done.rc == 1
        found.append(done.stderr.partition("error: ")[2])
    assert found[0] == found[1]


class Killer(threading.Thread):
    """Kills the workers of the maps that are begun meanwhile, each of them ``times`` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        super().__init__(daemon=True)
        self.maps: list[processes.ProcessMap[Any, Any]] = []
        self.killed = 0
        self.is_over = threading.Event()
        self._times = times
        plain, here = processes.ProcessMap.__init__, self

        def init(self: processes.ProcessMap[Any, Any], *args: Any) -> None:
            plain(self, *args)
            here.maps.append(self)

        monkeypatch.setattr(processes.ProcessMap, "__init__", init)

    def run(self) -> None:
        seen: set[int] = set()
        end = time.monotonic() + 30
        while self.killed < self._times and time.monotonic() < end and not self.is_over.is_set():
            for running in list(self.maps):
                for pid in set(running.pids[1:]) - seen:
                    if self.killed < self._times:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                            self.killed += 1
                        seen.add(pid)
            time.sleep(0.002)


def test_killed_workers_cost_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = written("txt", tmp_path)
    mine = prepared(corpus, tmp_path / "threads", executor="threads")
    monkeypatch.setattr(processes, "MOST_DEATHS", 9)  # all of them may meet the same block
    killer = Killer(monkeypatch, times=5)
    killer.start()
    with caplog.at_level(logging.INFO, "tokenmill"):
        theirs = prepared(corpus, tmp_path / "processes", executor="processes", workers=3)
    killer.join()
    assert killer.killed == 5
    told = [line for line in caplog.messages if "a worker process was killed" in line]
    assert told and "SIGKILL" in told[0] and "goes to another one" in told[0]
    assert theirs.hashes == mine.hashes


@pytest.mark.parametrize("ends_process", [True, False])
def test_a_block_that_workers_die_over_is_left_to_who_finds_what_kills(
    ends_process: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On the command line the working process takes it, whose parent watches; a script would die
    of it, and gets an error instead. What was done is kept."""
    corpus = written("txt", tmp_path)
    mine = prepared(corpus, tmp_path / "threads", executor="threads")
    monkeypatch.setattr(processes, "MOST_DEATHS", 1)

    def divided(*args: Any) -> Any:
        run, spec = plain(*args)
        return replace(run, ends_process=ends_process), spec

    plain = options.divided
    monkeypatch.setattr(prepare, "divided", divided)
    killer, out = Killer(monkeypatch, times=1000), tmp_path / "processes"
    killer.start()
    with caplog.at_level(logging.INFO, "tokenmill"):
        if ends_process:
            theirs = prepared(corpus, out, executor="processes", workers=2)
            assert any("from here on, workers are threads" in line for line in caplog.messages)
        else:
            with pytest.raises(WorkerDied, match="died over the same block"):
                prepared(corpus, out, executor="processes", workers=2)
            theirs = prepared(corpus, out, executor="threads")
    killer.is_over.set()
    killer.join()
    assert theirs.hashes == mine.hashes


def test_text_that_needs_all_memory_is_encoded_by_threads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker has its share; what it has no room for is no error, as long as the run has it."""
    documents = [*runs.documents(), "\u0301" * 1_500_000, *runs.documents()]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    mine = prepared(corpus, tmp_path / "threads", executor="threads", workers=1, memory="500MB")
    with caplog.at_level(logging.INFO, "tokenmill"):
        theirs = prepared(
            corpus, tmp_path / "processes", executor="processes", workers=4, memory="620MB"
        )
    assert any("from here on they are threads" in line for line in caplog.messages)
    assert theirs.hashes == mine.hashes


GPT2 = Needs.of_ranks(50257)


def chosen(executor: str, text: int, memory: int, cores: int, asked: int | None = None) -> Any:
    budget = Budget.of(memory, cores, needs=GPT2)
    return choose_workers(executor, asked, budget, GPT2, text, None)


def test_processes_are_taken_where_they_are_worth_it() -> None:
    gigabyte = 10**9
    assert chosen("auto", 10 * gigabyte, 2 * gigabyte, 4).are_processes
    assert not chosen("auto", 20_000_000, 2 * gigabyte, 4).are_processes, "too little text"
    assert not chosen("auto", 10 * gigabyte, 2 * gigabyte, 3).are_processes, "too few workers"
    assert not chosen("auto", 10 * gigabyte, 600_000_000, 4).are_processes, "too little memory"
    assert not chosen("threads", 10 * gigabyte, 2 * gigabyte, 4).are_processes
    few = chosen("auto", 100 * gigabyte, 2 * gigabyte, 14)
    assert few.are_processes and 4 < few.count < 14 == few.limited


def test_too_little_memory_is_named(tmp_path: Path, tokenmill: Run) -> None:
    path = tmp_path / "c.txt"
    path.write_text("word " * 1000)
    more = ["--executor", "processes", "--workers", 4, "--out", tmp_path / "out"]
    done = tokenmill("prepare", path, *more, "--memory", "400MB")
    assert done.rc == 2
    assert "4 workers with this tokenizer, as processes, need at least" in done.stderr
    need = done.stderr.partition("--memory ")[2].partition("fix: --memory ")[2].partition("MB")[0]
    assert tokenmill("prepare", path, *more, "--memory", f"{need}MB").rc == 0


def test_a_pipe_takes_no_processes() -> None:
    budget = Budget.of(2 * 10**9, 2, needs=GPT2)
    with pytest.raises(UsageError, match="cannot be used here"):
        choose_workers("processes", 2, budget, GPT2, 0, "a pipe")
