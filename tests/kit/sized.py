"""Blocks of other sizes, handed to a whole run in this process: small corpora with many blocks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.kit.troubled import shrunk as shrunk
from tokenmill.commands.prepare import prepare_sized
from tokenmill.dataset.manifest import Manifest
from tokenmill.sizes import Sizes


def prepare(
    inputs: str | Path | Iterable[str | Path], *, out: str | Path, sizes: Sizes, **options: Any
) -> Manifest:
    """What `tokenmill.prepare` does, in blocks of these sizes."""
    chosen: Any = options
    return prepare_sized(inputs, out, chosen, sizes)
