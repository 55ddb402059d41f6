"""Validation by the number of documents, in every kind of input: interrupted, and repaired."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.test_told import interrupt_and_repair
from tests.conftest import Run
from tests.kit import runs


@pytest.mark.parametrize("kind", runs.KINDS)
def test_val_docs_interrupted_and_repaired(kind: str, tmp_path: Path, tokenmill: Run) -> None:
    interrupt_and_repair(kind, tmp_path, tokenmill)
