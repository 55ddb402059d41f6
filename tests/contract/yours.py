"""Entries of your own for the suites: `CONTRACT=MODULE:NAME,... pytest tests/contract`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def yours(is_one: Callable[[Any], bool]) -> dict[str, Any]:
    """What `CONTRACT` names, by its name, as far as it is something for this seam."""
    found = {}
    for named in filter(None, os.environ.get("CONTRACT", "").split(",")):
        module, _, name = named.partition(":")
        entry = getattr(importlib.import_module(module), name)
        if is_one(entry):
            found[named.replace(":", ".")] = entry
    return found


@contextmanager
def registered(table: dict[str, Any], lines: dict[str, Any]) -> Iterator[None]:
    """With these lines in a table; afterwards it is what it was."""
    before = dict(table)
    table.update(lines)
    try:
        yield
    finally:
        table.clear()
        table.update(before)
