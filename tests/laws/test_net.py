"""What the first release wrote is written by this one: shards, names, fingerprints, to the bit.

A dataset that was begun before an upgrade is finished after it, and one that is finished is still
the one that was asked for. See `tests/net/`, and `tests/kit/make_net.py`, which wrote it.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.net import (
    HASHES,
    SPECS,
    UNFINISHED,
    figures_of,
    lay_out,
    prepare_arguments,
    unfinished_arguments,
)  # fmt: skip

_NET: list[dict[str, Any]] = json.loads(HASHES.read_text())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    lay_out(folder)
    return folder


def test_the_net_holds_every_spec() -> None:
    assert [entry["arguments"] for entry in _NET] == SPECS
    assert len(SPECS) == 24


@pytest.mark.parametrize("entry", _NET, ids=lambda entry: " ".join(entry["arguments"]))
def test_each_spec_gives_the_bytes_and_the_fingerprint_of_the_first_release(
    corpus: Path, entry: dict[str, Any], tmp_path: Path, tokenmill: Run
) -> None:
    result = tokenmill(*prepare_arguments(entry["arguments"], tmp_path / "out"), cwd=corpus)
    assert result.rc == 0, result.stderr
    found = figures_of(tmp_path / "out")
    assert found == {"fingerprint": entry["fingerprint"], "sha256": entry["sha256"]}


def test_a_run_that_the_first_release_began_is_finished(tmp_path: Path, tokenmill: Run) -> None:
    lay_out(tmp_path)
    with tarfile.open(UNFINISHED) as tar:
        tar.extractall(tmp_path, filter="data")
    arguments = unfinished_arguments()
    result = tokenmill(*arguments, cwd=tmp_path)
    assert result.rc == 0, result.stderr
    assert "going on" in result.stderr
    whole = tokenmill(*prepare_arguments(arguments[1:-2], tmp_path / "whole"), cwd=tmp_path)
    assert whole.rc == 0, whole.stderr
    assert figures_of(tmp_path / "unfinished") == figures_of(tmp_path / "whole")
