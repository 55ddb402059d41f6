"""One hostile case: files that somebody made to be expensive, and the command that reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """``make`` writes files into a folder and returns the arguments after ``prepare`` or ``plan``,
    without ``--memory`` and ``--out``."""

    name: str
    make: Callable[[Path], list[str]]
