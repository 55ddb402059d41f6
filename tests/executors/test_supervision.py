"""What kills the working process is found, told in plain words, and costs no other document.

Real deaths in native code, of one document among many, and of the kernel's out-of-memory killer
in a real memory cgroup. One of each kind here, each in another kind of input; `torture/` has every
death in every kind.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from cgroup import CgroupUnavailable, MemoryCgroup
from tests.conftest import command_environment
from tests.kit import corpora, runs
from tests.kit.runs import OPTIONS, snapshot
from tokenmill.executors.supervisor import MOST_DEATHS

MARKER = "this one kills"
VICTIM = 23
BOTH = ("gigatoken", "tiktoken")


def with_victim() -> list[str]:
    documents = list(runs.documents())
    documents[VICTIM] += MARKER
    return documents


@pytest.fixture(scope="module")
def corpus(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> corpora.Corpus:
    return corpora.write(tmp_path_factory.mktemp("deadly"), request.param, with_victim())


@pytest.fixture(scope="module")
def undisturbed(corpus: corpora.Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = runs.run("prepare", *corpus.arguments(), "--out", out, *OPTIONS)
    assert done.rc == 0, done.stderr
    return snapshot(out)


def reference_takes_over(
    how: str, name: str, corpus: corpora.Corpus, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["prepare", *corpus.arguments(), "--out", out, *OPTIONS]
    done = runs.run(*arguments, marker=MARKER, die={"gigatoken": how})
    assert done.rc == 0, done.stderr
    assert snapshot(out) == undisturbed
    told = [line for line in done.stderr.splitlines() if name in line]
    assert told
    assert all("the working process was killed by signal" in line for line in told)
    assert all("native code crashed" in line for line in told)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("corpus", "how", "name"),
    [("jsonl", "abort", "SIGABRT"), ("parquet", "segfault", "SIGSEGV")],
    indirect=["corpus"],
)
def test_a_document_that_kills_the_fast_engine_is_encoded_by_the_reference(
    how: str, name: str, corpus: corpora.Corpus, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    reference_takes_over(how, name, corpus, undisturbed, tmp_path)


def place_of(corpus: corpora.Corpus, stderr: str) -> None:
    """The error names the file, and a place in it that is before the victim and near it."""
    where = re.search(rf"where: {re.escape(str(corpus.path))}, (\w+) (\d+)", stderr)
    assert where, stderr
    assert f"document {VICTIM}" in stderr or "document " in stderr


def run_stops_with_the_place(
    corpus: corpora.Corpus, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["prepare", *corpus.arguments(), "--out", out, *OPTIONS]
    done = runs.run(*arguments, marker=MARKER, die=dict.fromkeys(BOTH, "abort"))
    assert done.rc == 1, done.stderr
    place_of(corpus, done.stderr)
    assert "kills the process that works on it" in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr
    runs.assert_nothing_finished(out)
    # With the engines mended (or the machine another one), what is done was not lost.
    again = runs.run(*arguments)
    assert again.rc == 0, again.stderr
    assert snapshot(out) == undisturbed


@pytest.mark.parametrize("corpus", ["txt"], indirect=True)
def test_a_document_that_kills_both_engines_stops_the_run_with_its_place(
    corpus: corpora.Corpus, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    run_stops_with_the_place(corpus, undisturbed, tmp_path)


def is_left_out_when_asked(corpus: corpora.Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["prepare", *corpus.arguments(), "--out", out, *OPTIONS]
    dying = dict.fromkeys(BOTH, "abort")
    done = runs.run(*arguments, "--on-bad", "quarantine", marker=MARKER, die=dying)
    assert done.rc == 3, done.stderr
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["crash"]
    assert str(corpus.path) in json.dumps(lines[0])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"]["documents"] == len(runs.documents()) - 1
    assert manifest["counts"]["quarantined"] == 1


@pytest.mark.parametrize("corpus", ["jsonl.zst"], indirect=True)
def test_a_document_that_kills_both_engines_is_left_out_when_asked(
    corpus: corpora.Corpus, tmp_path: Path
) -> None:
    is_left_out_when_asked(corpus, tmp_path)


def test_deaths_from_outside_are_never_blamed_on_the_input(tmp_path: Path) -> None:
    """Killed again and again without any progress, the parent gives up, and nothing is lost."""
    corpus = runs.write_corpus(tmp_path / "in", "jsonl")
    out = tmp_path / "out"
    arguments = ["prepare", *corpus.arguments(), "--out", out, *OPTIONS]
    process = runs.start(*arguments, pause=20)
    killed: set[int] = set()
    deadline = time.monotonic() + runs.SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for worker in set(runs.workers(process.pid)) - killed:
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
        time.sleep(0.005)
    done = runs.finish(process)
    assert len(killed) == MOST_DEATHS
    assert done.rc == 1
    assert "died again and again" in done.stderr
    assert "fix: " in done.stderr
    assert "kills the process that works on it" not in done.stderr
    again = runs.run(*arguments)
    assert again.rc == 0, again.stderr


def test_the_out_of_memory_killer_is_named_and_the_work_goes_on_with_less(tmp_path: Path) -> None:
    corpus = corpora.write(tmp_path, "jsonl", with_victim())
    arguments = ["prepare", *corpus.arguments(), *OPTIONS]
    plain = runs.run(*arguments, "--out", tmp_path / "plain")
    assert plain.rc == 0, plain.stderr
    out = tmp_path / "out"
    command = [sys.executable, str(runs.TROUBLED), *arguments, "--memory", "500MB", "--out", out]
    trouble = runs.SMALL | {"marker": MARKER, "die": {"gigatoken": "hog"}}
    env = command_environment({"TROUBLE": json.dumps(trouble)})
    try:
        with MemoryCgroup(600_000_000) as group:
            done = group.run([str(part) for part in command], env=env, timeout=60)
    except CgroupUnavailable as reason:
        pytest.skip(f"no memory cgroup: {reason}")
    assert done.exit_code == 0, done.stderr
    assert done.oom_kills >= 1
    assert "out-of-memory killer took it (memory limit 600 MB)" in done.stderr
    assert snapshot(out) == snapshot(tmp_path / "plain")
