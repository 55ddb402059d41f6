"""A net under the code: inputs, specs, and what the first release made of them.

`corpus/` holds the compressed inputs, `hashes.json` the fingerprint and the shards' SHA-256 of
each spec, `unfinished.tar.gz` the folder of a run that was stopped. Inputs stand under fixed
relative paths with fixed times, for both are in the fingerprint.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kit.shared import EXAMPLES

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
HASHES = HERE / "hashes.json"
UNFINISHED = HERE / "unfinished.tar.gz"
_MODIFIED = 1_700_000_000_000_000_000
_INPUTS = (
    ["corpus/books", "--val-fraction", "0.2"],
    ["corpus/books/genesis.txt"],
    ["corpus/books", "--documents", "blank-line", "--val-fraction", "0.1"],
    ["corpus/genesis.txt.gz", "--documents", "line", "--val-fraction", "0.1"],
    ["corpus/articles.jsonl", "corpus/articles.jsonl.zst", "--val-fraction", "0.1", "--seed", "7"],
    ["corpus/articles.parquet", "--val-fraction", "0.1"],
)
_FORMATS = (
    ["--format", "nanogpt"],
    ["--format", "build-nanogpt", "--shard-tokens", "10k"],
    ["--format", "llm.c", "--shard-tokens", "10k", "--on-bad", "quarantine"],
    ["--format", "modded-nanogpt", "--shard-tokens", "10k", "--special-text", "token"],
)
SPECS = [[*inputs, *layout] for inputs in _INPUTS for layout in _FORMATS]


def lay_out(folder: Path) -> None:
    """The corpus, under `folder`/corpus."""
    corpus = folder / "corpus"
    shutil.copytree(CORPUS, corpus)
    shutil.copytree(EXAMPLES / "books", corpus / "books")
    shutil.copy(EXAMPLES / "articles.jsonl", corpus)
    for path in corpus.rglob("*"):
        os.utime(path, ns=(_MODIFIED, _MODIFIED))


def unfinished_arguments() -> list[str]:
    """Those of the run that was stopped."""
    inputs = ["corpus/articles.parquet", "corpus/articles.jsonl.zst", "corpus/books"]
    layout = ["--format", "build-nanogpt", "--shard-tokens", "10k", "--val-fraction", "0.1"]
    return ["prepare", *inputs, *layout, "--threads", "1", "--out", "unfinished"]


def prepare_arguments(spec: list[str], out: Path) -> list[str]:
    """Those of the whole command, in the folder that has the corpus."""
    return ["prepare", *spec, "--out", str(out), "--quiet", "--threads", "1"]


def figures(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Fingerprint and SHA-256 by name of what a process makes of these arguments in `folder`."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "tokenmill", *prepare_arguments(arguments, out)]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return figures_of(out)


def figures_of(dataset: Path) -> dict[str, Any]:
    """Those of a finished dataset; of SHA256SUMS all but the manifest, which tells of the run."""
    manifest = json.loads((dataset / "manifest.json").read_text())
    lines = (dataset / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    assert sums.pop("manifest.json")
    return {"fingerprint": manifest["fingerprint"], "sha256": sums}
