"""Law 3 at small size: peak resident memory stays under `--memory`, whatever lies in the input.

The text begins with ever new words, so that an engine's cache of words, left alone, would pass the
budget. The kernel's own high-water mark is read, not what the command says.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenmill.errors import UsageError
from tokenmill.memory import check_vocabulary_file

BUDGET = 300_000_000
"""In which two workers are served well: a cramped one drops caches for most of its time."""
NEW_WORDS, TEXT_BYTES = 14_000_000, 48_000_000


def new_words(size: int) -> str:
    """Text without a repeated word, in lines."""
    generator = np.random.default_rng(3)
    letters = generator.integers(ord("a"), ord("z") + 1, size, np.uint8)
    ends = np.cumsum(generator.integers(5, 15, size // 10))
    ends = ends[ends < size]
    letters[ends] = ord(" ")
    letters[ends[::12]] = ord("\n")
    return letters.tobytes().decode()


@pytest.fixture(scope="module")
def text() -> str:
    """New words, and then old ones, which cost little time, and as much memory if it is held."""
    new = new_words(NEW_WORDS)
    old = new[:100_000]
    return new + old * ((TEXT_BYTES - len(new)) // len(old))


def write_text(path: Path, text: str) -> Path:
    path.with_suffix(".txt").write_text(text)
    return path.with_suffix(".txt")


def write_jsonl(path: Path, text: str) -> Path:
    with path.with_suffix(".jsonl").open("w") as file:
        for start in range(0, len(text), 4000):
            file.write(json.dumps({"text": text[start : start + 4000]}) + "\n")
    return path.with_suffix(".jsonl")


def write_one_row_group(path: Path, text: str) -> Path:
    rows = [text[start : start + 4000] for start in range(0, len(text), 4000)]
    pq.write_table(pa.table({"text": rows}), path.with_suffix(".parquet"), row_group_size=len(rows))
    return path.with_suffix(".parquet")


def peak_of(command: list[str]) -> tuple[int, int]:
    """(exit code, most resident bytes) of a command and all its children together.

    VmHWM begins anew when the command begins; ru_maxrss would keep the size of this process.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to read a process's high-water mark")
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in tree(process.pid):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
                peaks[pid] = max([peaks.get(pid, 0), *found])  # at its end it has none
        time.sleep(0.02)
    return process.returncode, sum(peaks.values())


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


@pytest.mark.parametrize("write", [write_text, write_jsonl, write_one_row_group])
def test_peak_memory_stays_under_the_budget(write: object, text: str, tmp_path: Path) -> None:
    source = write(tmp_path / "corpus", text)  # type: ignore[operator]
    # Arrow takes more for a giant row group. Caches left alone pass either: 340 to 440 MB.
    budget = 380_000_000 if write is write_one_row_group else BUDGET
    command = [sys.executable, "-m", "tokenmill", "prepare", str(source), "--out"]
    options = ["--memory", str(budget), "--threads", "2", "--val-fraction", "0.1"]
    code, peak = peak_of([*command, str(tmp_path / "out"), *options])
    assert code == 0
    assert peak < budget, f"{peak / 1e6:.0f} MB resident of {budget / 1e6:.0f}"


def test_a_vocabulary_costs_its_strings_and_not_its_blanks(tmp_path: Path) -> None:
    """A file that is written over many lines takes hardly more than one that is not."""
    strings = {f"w{number:06x}": number for number in range(100_000)}
    place = tmp_path / "tokenizer.json"
    place.write_text(json.dumps(strings))
    with pytest.raises(UsageError) as caught:
        check_vocabulary_file(str(place), 80_000_000)
    assert "--memory" in (caught.value.fix or "")
    check_vocabulary_file(str(place), 130_000_000)
    place.write_text(json.dumps(strings, indent=4))
    check_vocabulary_file(str(place), 130_000_000)
    ranks = tmp_path / "ranks.tiktoken"
    ranks.write_bytes(b"IQ== 0\n" * 500_000)
    with pytest.raises(UsageError):
        check_vocabulary_file(str(ranks), 150_000_000)
    check_vocabulary_file(str(ranks), 210_000_000)
