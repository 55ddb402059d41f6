"""Law 1 for each kind of tokenizer on a sample of each shared corpus; `make test` has a third."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit import trained
from tests.kit.shared import CORPORA
from tests.tokenizers.test_tokenizers import sample_is_exact


@pytest.mark.parametrize("name", trained.KINDS)
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_sample_of_the_shared_corpora(corpus: str, name: str, tmp_path: Path) -> None:
    sample_is_exact(name, corpus, tmp_path)
