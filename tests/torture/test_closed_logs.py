"""Every way in which a log cannot be written, for both kinds of log; five are in `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit import corpora
from tests.output.test_resume import inputs, log_cannot_be_written, undisturbed

__all__ = ["inputs", "undisturbed"]  # fixtures


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("where", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_a_log_that_cannot_be_written_stops_no_run(
    where: str,
    more: list[str],
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    log_cannot_be_written(where, more, inputs["jsonl"], undisturbed["jsonl"], tmp_path)
