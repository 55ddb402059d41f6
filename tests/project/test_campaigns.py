"""`make torture` tells, a line a file, where it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit.shared import REPOSITORY


def test_a_campaign_tells_where_it_is(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "tests" / "torture" / "conftest.py", tmp_path)
    (tmp_path / "test_one.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert False\n"
        "@pytest.mark.skip\ndef test_c(): pass\n"
    )
    (tmp_path / "test_two.py").write_text("def test_a(): pass\n")
    recipe = (REPOSITORY / "Makefile").read_text().partition("\ntorture:")[2].partition("\n\n")[0]
    options = re.findall(r"--quiet|console_output_style=\w+", recipe)
    assert options == ["--quiet", "console_output_style=classic"]
    options.insert(1, "--override-ini")
    command = [sys.executable, "-m", "pytest", tmp_path, *options, "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if re.match(r"\d of \d: ", line)]
    assert told == [
        "1 of 2: test_one.py: 3 to do",
        "1 of 2: test_one.py: 1 passed, 1 failed, 1 skipped; 0 s",
        "2 of 2: test_two.py: 1 to do",
        "2 of 2: test_two.py: 1 passed; 0 s",
    ], done.stdout
