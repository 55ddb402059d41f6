"""Ten seeds of runs over objects, killed three times each; see `tests/test_store.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores import Store
from tests.test_store import kill_and_go_on, server, store

__all__ = ["server", "store"]  # fixtures


@pytest.mark.parametrize("seed", range(10))
def test_killed_three_times_and_gone_on_with(seed: int, store: Store, tmp_path: Path) -> None:
    kill_and_go_on(seed, store, tmp_path)
