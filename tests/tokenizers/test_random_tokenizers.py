"""Random tokenizers and texts: the chosen engine is exact or the tokenizer is refused.

Some dozens here; a thousand in ``torture/test_random_tokenizers.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="needs the library tokenizers")
pytest.importorskip("sentencepiece", reason="needs the library sentencepiece")

from tests.kit import random_tokenizers

SEEDS = range(24)


def test_an_extra_engine_is_exact_for_random_tokenizers_or_refused(tmp_path: Path) -> None:
    pytest.importorskip("fastokens", reason="needs the extra fastokens")
    tally, faults = random_tokenizers.Tally(), []
    for seed in SEEDS:
        (folder := tmp_path / str(seed)).mkdir()
        faults += random_tokenizers.compare(seed, folder, tally, "fastokens")
    assert faults == []
    assert tally.engines["fastokens"] >= 2, tally
    assert tally.ruled_out >= 5, tally


def test_the_chosen_engine_is_exact_for_random_tokenizers(tmp_path: Path) -> None:
    tally, faults = random_tokenizers.Tally(), []
    for seed in SEEDS:
        (folder := tmp_path / str(seed)).mkdir()
        faults += random_tokenizers.compare(seed, folder, tally)
    assert faults == []
    assert tally.engines["gigatoken"] >= 3, tally
    assert tally.ruled_out >= 5, tally
    assert tally.pairs >= 300, tally
    assert tally.pieces > tally.cut_pairs > 20, tally
