"""A hostile input: what the campaign on memory runs the command on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """``make`` writes files into a folder and returns the command's arguments."""

    name: str
    make: Callable[[Path], list[str]]
