"""Two runs in one process: each stops, fails and ends for itself alone.

One run fetches from a server that holds a request back and then refuses it, so that it must be made
again. Meanwhile another one ends, fails or is stopped: the first gives the bytes that it gives
alone, and tells of its own requests.
"""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tokenmill
from tests.kit import texts
from tests.kit.outcome import Outcome
from tests.stores.test_transport import answering, plain
from tokenmill.errors import InputError, LimitReached, TemporaryFailure
from tokenmill.stores import Selection
from tokenmill.stores.http import HttpStore
from tokenmill.stores.retry import RetryPolicy

LONG = 60.0
OPTIONS: dict[str, Any] = {"val_fraction": 0, "documents": "line", "threads": 1}
TEXT = texts.prose(30_000).encode()
Answer = tuple[int, bytes, dict[str, str]]


class Server:
    """Answers one file; holds back the request after ``before`` others, then refuses it."""

    def __init__(self, before: int) -> None:
        self._before = before
        self._lock = threading.Lock()
        self.asked = 0
        self.is_held, self.may_go = threading.Event(), threading.Event()

    def __call__(self, stored: bytes, low: int, high: int) -> Answer:
        with self._lock:
            self.asked += 1
            number = self.asked
        if number != self._before + 1:
            return plain(stored, low, high)
        self.is_held.set()
        assert self.may_go.wait(LONG)
        return 503, b"", {}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The dataset of the text on disk, and its hashes."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "x.txt").write_bytes(TEXT)
    tokenmill.prepare(folder / "x.txt", out=folder / "out", **OPTIONS)
    return folder / "out", Outcome(folder / "out").hashes


def ends(folder: Path) -> None:
    (folder / "a.txt").write_bytes(TEXT)
    tokenmill.prepare(folder / "a.txt", out=folder / "ends", **OPTIONS)


def fails(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": 3}\n')
    with pytest.raises(InputError):
        tokenmill.prepare(folder / "a.jsonl", out=folder / "fails", threads=1)


def is_stopped(folder: Path) -> None:
    lines = [json.dumps({"text": texts.prose(3000)}) for _ in range(1500)]
    (folder / "b.jsonl").write_text("\n".join(lines))
    with pytest.raises(LimitReached):
        tokenmill.prepare(folder / "b.jsonl", out=folder / "stopped", max_time=0.01, threads=1)


def loses_patience(folder: Path) -> None:
    def refuse(stored: bytes, low: int, high: int) -> Answer:
        return 503, b"", {}

    with answering(TEXT, refuse) as address, pytest.raises(TemporaryFailure, match="for 0"):
        out = folder / "impatient"
        tokenmill.prepare(f"{address}/x.txt", out=out, network_patience=0.1, **OPTIONS)


def verifies(folder: Path) -> None:
    """And looks at no more than the first problem."""
    ends(folder)
    shard = next((folder / "ends").glob("*.bin"))
    shard.write_bytes(shard.read_bytes()[:-2])
    problems = tokenmill.verify(folder / "ends", against=[folder / "a.txt"])
    assert next(problems).kind == "truncated"
    problems.close()  # type: ignore[attr-defined]


@contextmanager
def holding(before: int) -> Iterator[tuple[Server, str]]:
    """A server that holds a request back, until the end at most; its address."""
    server = Server(before)
    with answering(TEXT, server) as address:
        try:
            yield server, f"{address}/x.txt"
        finally:
            server.may_go.set()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 5.0)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "beside") as pool:
        yield pool


@pytest.mark.parametrize("other", [ends, fails, is_stopped, loses_patience, verifies])
def test_a_run_that_fetches_is_not_disturbed_by_another(
    other: Callable[[Path], None],
    alone: tuple[Path, dict[str, str]],
    beside: ThreadPoolExecutor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for before in (1, 3):  # while it plans, and while it works
        out = tmp_path / f"out{before}"
        caplog.clear()
        with holding(before) as (server, address), caplog.at_level(logging.INFO, "tokenmill"):
            run = beside.submit(tokenmill.prepare, address, out=out, **OPTIONS)
            assert server.is_held.wait(LONG), run.exception()
            (folder := tmp_path / str(before)).mkdir()
            other(folder)
            assert not run.done(), "it was given up together with the other"
            server.may_go.set()
            run.result(LONG)
        assert Outcome(out).hashes == alone[1]
        network = [r for r in caplog.records if r.getMessage().startswith("network: ")]
        mine = [r.getMessage() for r in network if str(r.threadName).startswith("beside")]
        # The two for size and ETag are no requests for bytes, nor is the one that was refused.
        assert f" in {server.asked - 3} requests, 1 made again" in mine[-1]
        assert other is loses_patience or not [r for r in network if r.threadName == "MainThread"
                                               and "requests" in r.getMessage()]  # fmt: skip


@pytest.mark.parametrize("other", [ends, fails])
def test_a_verify_that_fetches_is_not_disturbed_by_a_prepare(
    other: Callable[[Path], None],
    alone: tuple[Path, dict[str, str]],
    beside: ThreadPoolExecutor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    with answering(TEXT, plain) as address:
        tokenmill.prepare(f"{address}/x.txt", out=out, **OPTIONS)
    with holding(2) as (server, address), caplog.at_level(logging.INFO, "tokenmill"):
        found = beside.submit(lambda: list(tokenmill.verify(out, against=[address])))
        assert server.is_held.wait(LONG), found.exception()
        other(tmp_path)
        assert not found.done(), "it was given up together with the other"
        server.may_go.set()
        assert found.result(LONG) == []
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("network: the server answers 503") for line in told)
    assert any("followed through the shards" in line for line in told)


def test_what_a_run_left_unread_is_given_up_with_it(tmp_path: Path) -> None:
    """No thread of a run that failed while it was planned asks the server any more."""
    with holding(1) as (server, address), answering(b"\x89PNG\r\n\x1a\n" * 9, plain) as picture:
        with pytest.raises(InputError, match="a picture"):
            tokenmill.prepare([f"{picture}/x.jsonl", address], out=tmp_path / "out", **OPTIONS)
        assert server.is_held.wait(LONG)
        server.may_go.set()
        time.sleep(1.0)  # it would be asked again after half a second at most
        assert server.asked == 2


def test_a_policy_is_pickled_without_what_belongs_to_its_process() -> None:
    policy = RetryPolicy(12.0, log=lambda line: None)
    policy.request(lambda: 1, "https://host/x")
    policy.count(5)
    place = pickle.loads(pickle.dumps(HttpStore(policy)))
    assert (place.policy.patience, place.policy.requests) == (12.0, 0)


def test_two_selections_share_nothing() -> None:
    one, two = Selection(), Selection()
    assert one.policy is not two.policy and one.listing is not two.listing
