"""Inputs at the end of what there is, each in a real memory cgroup of 512 MB, ending as documented.

Skipped, loudly, where no memory cgroup can be made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgroup import CgroupUnavailable, GroupResult, MemoryCgroup
from measure import drop_from_cache
from tests.kit import oracles, texts
from tests.kit.outcome import Outcome

LIMIT = 512_000_000
MANY = 10_000_000
LONG = 45_000_000


def limited(source: Path, out: Path, *options: str) -> GroupResult:
    """`prepare` in a group of its own, with a cold input."""
    drop_from_cache(source)
    command = [sys.executable, "-m", "tokenmill", "prepare", str(source), "--out", str(out)]
    try:
        with MemoryCgroup(LIMIT) as group:
            result = group.run([*command, "--memory", "512MB", "--threads", "2", *options])
    except CgroupUnavailable as reason:
        pytest.skip(f"no memory cgroup: {reason}")
    assert result.oom_kills == 0
    print(f"\npeak {result.peak_rss / 1e6:.0f} MB, {result.seconds:.1f} s, rc {result.exit_code}")
    return result


@pytest.mark.parametrize("name", ["one_letter", "base64_text", "hanzi", "no_spaces"])
def test_a_long_document_without_a_space(name: str, tmp_path: Path) -> None:
    text = texts.ADVERSARIES[name](LONG if name != "hanzi" else LONG // 3)
    path = tmp_path / "long.txt"
    path.write_text(text)
    assert path.stat().st_size >= LONG * 0.99
    assert " " not in text
    result = limited(path, tmp_path / "out", "--val-fraction", "0")
    assert result.exit_code == 0
    expected = oracles.encode(text, "gpt2")
    tokens = Outcome(tmp_path / "out").tokens("train")
    assert np.array_equal(tokens[:-1], np.array(expected, np.uint16))


def lines(path: Path) -> list[str]:
    path.write_bytes(b"\n" * MANY)
    return ["--documents", "line"]


def json_lines(path: Path) -> list[str]:
    path.write_bytes(b'{"text": ""}\n' * MANY)
    return []


def rows(path: Path) -> list[str]:
    pq.write_table(pa.table({"text": [""] * MANY}), path)
    return []


@pytest.mark.parametrize(
    ("suffix", "write"), [(".txt", lines), (".jsonl", json_lines), (".parquet", rows)]
)
def test_ten_million_empty_documents(
    suffix: str, write: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    path = tmp_path / f"empty{suffix}"
    options = write(path)
    result = limited(path, tmp_path / "out", *options, "--val-fraction", "0.01")
    assert result.exit_code == 0
    counts = Outcome(tmp_path / "out").manifest["counts"]
    assert counts["documents"] == counts["empty_documents"] == counts["tokens"] == MANY


@pytest.fixture(scope="module")
def giant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good lines around one of 1 GB."""
    path = tmp_path_factory.mktemp("giant") / "giant.jsonl"
    good = b'{"text": "a good line"}\n'
    with path.open("wb") as file:
        file.write(good * 1000 + b'{"text": "')
        for _ in range(1000):
            file.write(b"many words " * 90_910)
        file.write(b'"}\n' + good * 1000)
    return path


def test_a_giant_line_stops_the_run(giant: Path, tmp_path: Path) -> None:
    assert limited(giant, tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_giant_line_is_left_out(giant: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert limited(giant, out, "--on-bad", "quarantine").exit_code == 3
    manifest = Outcome(out).manifest
    assert manifest["quarantine"]["reasons"] == {"too-large": 1}
    assert manifest["counts"]["documents"] == 2000
