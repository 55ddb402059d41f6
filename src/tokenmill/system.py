"""Where tokenmill runs: Linux; on Windows it says so, in a sentence, before anything fails.

Locks, signals, the watch over the working process and the memory contract are POSIX's.
"""

from __future__ import annotations

import sys

from tokenmill.errors import UsageError


def check_system() -> None:
    """Raises UsageError on Windows."""
    if sys.platform == "win32":
        raise UsageError(
            "tokenmill does not run on Windows itself",
            why="its locks, signals and memory limits are those of Linux",
            fix="use WSL 2 (wsl --install), and install and run tokenmill in there",
        )
