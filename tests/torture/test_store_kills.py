"""Ten seeds of runs over objects, and of runs into a prefix, killed three times each; see
`tests/test_store.py` and `tests/test_store_output.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import corpora, test_store, test_store_output
from tests.stores import Store
from tests.test_store_output import cache, corpus, server, store, whole

__all__ = ["cache", "corpus", "server", "store", "whole"]  # fixtures


@pytest.mark.parametrize("seed", range(10))
def test_killed_over_objects(seed: int, store: Store, tmp_path: Path) -> None:
    test_store.kill_and_go_on(seed, store, tmp_path)


@pytest.mark.parametrize("seed", range(10))
def test_killed_into_a_prefix(
    seed: int, store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    test_store_output.kill_and_go_on(seed, store, corpus, whole, tmp_path / "got")
