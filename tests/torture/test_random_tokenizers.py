"""A thousand random tokenizers, twenty texts each: the chosen engine is exact, or it is refused.

``TOKENMILL_SEED`` (1) chooses other ones. What was seen is printed (``-s``).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.kit import random_tokenizers

SEED = int(os.environ.get("TOKENMILL_SEED", "1"))
TOKENIZERS = 1_000


@pytest.mark.parametrize(("engine", "usual"), [("auto", "gigatoken"), ("fastokens", "fastokens")])
def test_the_chosen_engine_is_exact_or_refused(engine: str, usual: str) -> None:
    pytest.importorskip(usual)
    tally, faults, seed = random_tokenizers.Tally(), [], SEED * 1_000_000
    while tally.tokenizers < TOKENIZERS:
        with tempfile.TemporaryDirectory() as folder:
            faults += random_tokenizers.compare(seed, Path(folder), tally, engine)
        seed += 1
    print(tally)
    assert faults == []
    assert tally.engines[usual] > 150, tally
    assert tally.cut_pairs > 2_000, tally


def test_asked_for_by_name_it_is_refused_in_words(tmp_path: Path) -> None:
    for seed in range(SEED * 1_000_000, SEED * 1_000_000 + 100):
        (folder := tmp_path / str(seed)).mkdir()
        assert random_tokenizers.is_refused_or_exact(seed, folder), seed
