"""Standard output and error: when nobody reads them, or their disk is full, the work goes on."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO


def print_or_forget(line: str, stream: TextIO) -> None:
    """Print a line to ``stream``; where that cannot be, it and all that follows go nowhere.

    What is left in the stream's buffer would fail once more at the interpreter's exit, which then
    exits with 120: so the stream itself leads nowhere from then on.
    """
    try:
        print(line, file=stream, flush=True)
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
