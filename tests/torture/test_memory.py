"""Law 3 under the kernel's own limit: large inputs in a real memory cgroup, cold page cache.

A 3 GB form of `benchmarks/memory.py`. Skipped, loudly, where no memory cgroup can be made.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cgroup import CgroupUnavailable, MemoryCgroup
from tests.kit.shared import shared_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("case", ["txt", "jsonl", "one-group"])
def test_three_gigabytes_in_half_a_gigabyte(case: str, tmp_path: Path) -> None:
    shared = shared_file("corpus/en.parquet").parents[1]
    try:
        with MemoryCgroup(512_000_000):
            pass
    except CgroupUnavailable as reason:
        pytest.skip(f"no memory cgroup: {reason}")
    size = "2GB" if case == "one-group" else "3GB"
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--case", case]
    command += ["--size", size, "--shared", str(shared), "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
