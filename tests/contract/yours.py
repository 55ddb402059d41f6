"""An entry of your own for a suite: `CONTRACT=MODULE:NAME python -m pytest tests/contract/...`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def yours(seam: type) -> dict[str, Any]:
    """What `CONTRACT` names, by its name, if that is for this seam: an instance or a subclass."""
    named = os.environ.get("CONTRACT", "")
    if not named:
        return {}
    module, _, name = named.partition(":")
    entry = getattr(importlib.import_module(module), name)
    is_class = isinstance(entry, type) and issubclass(entry, seam)
    return {named: entry} if is_class or isinstance(entry, seam) else {}


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
