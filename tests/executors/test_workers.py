"""How many workers: as many as cores, memory and text are worth; what is told where it is not so.

Pure functions, with the cores forced, and a few commands. That the number changes no byte is held
by `test_same_bytes.py`; what each choice costs is measured by `benchmarks/threads.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.kit import texts
from tokenmill import memory, plan
from tokenmill.commands import plan as planning
from tokenmill.errors import UsageError
from tokenmill.memory import MIB, Budget, Needs, floor_bytes, roomy_bytes
from tokenmill.tokenizers.engines import needs_of
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

MB = 10**6
MUCH = 10**12
"""Bytes of text that are worth any number of workers."""
GPT2 = Needs.of_ranks(50257)
WITHOUT_CACHES = Needs(16 * MIB, 8 * MIB, 250)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sixteen."""
    monkeypatch.setattr(memory, "available_cores", lambda: 16)
    return monkeypatch


def chosen(total: int, text: int | None = MUCH, needs: Needs = GPT2) -> int:
    return Budget.of(total, None, needs=needs, text_bytes=text).threads


# --- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("megabytes", "workers"),
    [(200, 1), (230, 1), (300, 1), (512, 2), (1000, 5), (2000, 12), (4000, 16)],
)
def test_memory_decides(megabytes: int, workers: int, cores: pytest.MonkeyPatch) -> None:
    """Of sixteen cores: each worker has 96 MiB for its caches beyond what it needs."""
    assert chosen(megabytes * MB) == workers
    spare = megabytes * MB - floor_bytes(workers, GPT2)
    assert workers == 1 or spare >= workers * 96 * MIB


def test_as_many_as_are_served_well_and_no_more(cores: pytest.MonkeyPatch) -> None:
    for workers in range(2, 17):
        enough = roomy_bytes(workers, GPT2)
        assert chosen(enough) == workers and chosen(enough - 1) == workers - 1


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_cores_decide(count: int, cores: pytest.MonkeyPatch) -> None:
    cores.setattr(memory, "available_cores", lambda: count)
    assert chosen(64_000 * MB) == count


@pytest.mark.parametrize(
    ("text", "workers"),
    [(0, 1), (100 * MB, 1), (1024 * MIB - 1, 1), (1024 * MIB, 2), (4000 * MB, 4), (17000 * MB, 16)],
)
def test_text_decides(text: int, workers: int, cores: pytest.MonkeyPatch) -> None:
    """A worker more fills caches of its own: with little text that is most of its work."""
    assert chosen(8000 * MB, text) == workers


def test_unknown_text_and_engines_without_caches_take_all(cores: pytest.MonkeyPatch) -> None:
    assert chosen(8000 * MB, None) == 16
    assert chosen(8000 * MB, 1, WITHOUT_CACHES) == 16
    assert chosen(8000 * MB, 1, needs_of("tiktoken", load_vocabulary("gpt2"))) == 16
    assert chosen(8000 * MB, 1, needs_of("gigatoken", load_vocabulary("gpt2"))) == 1


def test_who_asks_gets_it(cores: pytest.MonkeyPatch) -> None:
    assert Budget.of(1000 * MB, 7, text_bytes=1).threads == 7
    with pytest.raises(UsageError, match="at least 1"):
        Budget.of(1000 * MB, 0)
    with pytest.raises(UsageError, match=r"(?s)16 workers .* need at least .*or fewer --workers"):
        Budget.of(512 * MB, 16)
    with pytest.raises(UsageError, match="1 worker with this tokenizer needs") as caught:
        Budget.of(100 * MB, None)
    assert caught.value.fix is not None and "fewer" not in caught.value.fix


# --- what a cramped one costs --------------------------------------------------------------------


def test_cramped_are_more_than_are_served_with_half_of_their_caches(
    cores: pytest.MonkeyPatch,
) -> None:
    half = floor_bytes(4, GPT2) + 4 * 48 * MIB
    assert Budget.of(half - 1, 4).is_cramped
    assert not Budget.of(half, 4).is_cramped
    assert not Budget.of(floor_bytes(4, WITHOUT_CACHES), 4, needs=WITHOUT_CACHES).is_cramped
    least = Budget.of(floor_bytes(1, GPT2), None)
    assert least.threads == 1 and not least.is_cramped  # nobody insisted: there is no better


def test_a_default_is_never_cramped(cores: pytest.MonkeyPatch) -> None:
    for total in range(170 * MB, 4000 * MB, 10 * MB):
        assert not Budget.of(total, None, text_bytes=MUCH).is_cramped


def test_seconds_of_dropping(cores: pytest.MonkeyPatch) -> None:
    """None with room; more with more text and with less memory."""
    text = 200 * MB
    assert Budget.of(4000 * MB, 8).seconds_dropping(text) == 0
    assert Budget.of(800 * MB, 4, needs=WITHOUT_CACHES).seconds_dropping(text) == 0
    cramped = Budget.of(512 * MB, 8)
    assert cramped.seconds_dropping(2 * text) == pytest.approx(2 * cramped.seconds_dropping(text))
    seconds = [Budget.of(m * MB, 8).seconds_dropping(text) for m in (520, 600, 800, 1200, 1600)]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > 3 and seconds[-1] == 0
    on_one = Budget.of(230 * MB, 2)
    cores.setattr(memory, "available_cores", lambda: 1)
    assert on_one.seconds_dropping(text) > 20  # measured: 45 to 56 s of the processor's time


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": texts.prose(3000)}) for _ in range(300)))
    return path


def test_whoever_insists_is_warned(corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    options = ["--val-fraction", "0", "--memory", "230MB"]
    done = tokenmill("plan", corpus, *options, "--workers", "2", "--json").lines[0]
    assert done["workers"] == done["threads"] == 2
    (warning,) = done["warnings"]
    advice = re.search(r"fix: --workers 1, or --memory (\d+)MB", warning)
    assert warning.startswith("warning: 230 MB is too little for 2 workers") and advice
    for better in (["--workers", "1"], ["--workers", "2", "--memory", f"{advice[1]}MB"]):
        followed = tokenmill("plan", corpus, *options, *better, "--json").lines[0]
        assert followed["warnings"] == []
    by_default = tokenmill("prepare", corpus, "--out", tmp_path / "out", *options)
    assert by_default.rc == 0 and "1 worker, 230 MB" in by_default.stderr
    assert "warning" not in by_default.stderr
    insisting = ["--workers", "2", "--overwrite"]
    insisted = tokenmill("prepare", corpus, "--out", tmp_path / "out", *options, *insisting)
    assert "fix: --workers 1, or" in insisted.stderr


def test_plan_knows_of_it(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts_seen: list[int] = []

    def lost(budget: Budget, text_bytes: int) -> float:
        texts_seen.append(text_bytes)
        return 5000.0

    monkeypatch.setattr(Budget, "seconds_dropping", lost)
    found = plan(corpus, val_fraction=0)
    assert found.as_dict()["seconds"] > 5000
    assert texts_seen == [pytest.approx(900_000, rel=0.1)]


def test_the_older_name(corpus: Path, tokenmill: Run) -> None:
    assert tokenmill("plan", corpus, "--threads", "3", "--json").lines[0]["workers"] == 3
    both = ("--threads", "3", "--workers", "3")
    assert tokenmill("plan", corpus, *both, "--json").lines[0]["workers"] == 3
    shown = " ".join(tokenmill("plan", "--help").stdout.split())  # wherever lines end
    assert "--workers" in shown and "Older name: --threads" in shown


def test_small_input_takes_one_and_checking_it_more(
    corpus: Path, cores: pytest.MonkeyPatch
) -> None:
    cores.setattr(planning, "REFERENCE_COST", 4000)
    for options, workers in (({}, 1), ({"check": 1.0}, 4), ({"engine": "tiktoken"}, 12)):
        found = plan(corpus, memory="2GB", val_fraction=0, **options)
        assert found.budget.threads == workers, options
