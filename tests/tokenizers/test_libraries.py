"""Which releases of the libraries gave the ids: in the manifest, and asked for by the next run."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import tokenmill
from tests.conftest import Run
from tests.kit.shared import BOOKS
from tokenmill.dataset.manifest import load_manifest
from tokenmill.errors import SpecMismatch
from tokenmill.tokenizers import libraries


def test_the_manifest_tells_release_and_level_of_unicode(tmp_path: Path) -> None:
    manifest = tokenmill.prepare(BOOKS, out=tmp_path / "out", val_fraction=0.1)
    assert set(manifest.libraries) == {"gigatoken", "tiktoken"}
    for name, entry in manifest.libraries.items():
        assert entry["version"] == metadata.version(name)
        assert entry["unicode"] in libraries.LETTERS
    assert load_manifest(tmp_path / "out").libraries == manifest.libraries


@pytest.mark.parametrize("field", ["version", "unicode"])
def test_another_release_of_the_reference_is_exit_code_12(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    tokenmill.prepare(BOOKS, out=out, val_fraction=0.1)
    real = libraries.library

    def other(name: str) -> Any:
        found = dict(real(name) or {})
        return {**found, field: "15.1"} if name == "tiktoken" else found

    monkeypatch.setattr("tokenmill.commands.plan.library", other)
    with pytest.raises(SpecMismatch) as caught:
        tokenmill.prepare(BOOKS, out=out, val_fraction=0.1)
    assert caught.value.exit_code == 12
    assert "tiktoken" in str(caught.value) and "15.1" in str(caught.value)
    assert f"tiktoken=={metadata.version('tiktoken')}" in (caught.value.fix or "")
    anew = tokenmill.prepare(BOOKS, out=out, val_fraction=0.1, overwrite=True)
    assert anew.libraries["tiktoken"][field] == "15.1"


def test_a_manifest_of_before_says_nothing_and_passes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tokenmill.prepare(BOOKS, out=out, val_fraction=0.1)
    path = out / "manifest.json"
    told = json.loads(path.read_text())
    del told["libraries"]
    path.write_text(json.dumps(told))
    assert tokenmill.prepare(BOOKS, out=out, val_fraction=0.1).libraries == {}


def test_doctor_tells_the_level_of_unicode(tokenmill: Run) -> None:
    found = tokenmill("doctor", "--json").lines[0]["libraries"]
    assert "(Unicode " in found["tiktoken"]
    assert "(Unicode " in found["tokenizers"]
