"""Writes `tests/net/`: what one commit makes of a few inputs, for `test_net.py` to compare with.

    git stash; git switch --detach COMMIT; .venv/bin/python -m tests.kit.make_net

Run it only to add a spec, at a commit whose bytes are right: a net that is made anew whenever it
tears catches nothing.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from tests.kit.shared import REPOSITORY
from tests.net import CORPUS, HASHES, SPECS, UNFINISHED, figures, lay_out, unfinished_arguments


def write_compressed() -> None:
    """The inputs that a library might write otherwise in its next release: kept as files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from backports import zstd

    CORPUS.mkdir(parents=True, exist_ok=True)
    articles = (REPOSITORY / "examples" / "articles.jsonl").read_bytes()
    (CORPUS / "articles.jsonl.zst").write_bytes(zstd.compress(articles, 19))
    genesis = (REPOSITORY / "examples" / "books" / "genesis.txt").read_bytes()
    (CORPUS / "genesis.txt.gz").write_bytes(gzip.compress(genesis, 9, mtime=0))
    texts = [json.loads(line)["text"] for line in articles.splitlines()]
    table = pa.table({"id": list(range(len(texts))), "text": texts})
    pq.write_table(table, CORPUS / "articles.parquet", row_group_size=30, compression="zstd")


def write_hashes(folder: Path) -> None:
    found = [{"arguments": spec, **figures(folder, spec)} for spec in SPECS]
    HASHES.write_text(json.dumps(found, indent=1) + "\n")


def write_unfinished(folder: Path) -> None:
    """A run with blocks of 8 kB, stopped by SIGTERM after a few checkpoints."""
    trouble = {"block": 8192, "checkpoint": 0, "pause": 0.05}
    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "tests" / "kit" / "troubled.py"),
            *unfinished_arguments(),
        ],
        cwd=folder,
        env=os.environ | {"TROUBLE": json.dumps(trouble), "PYTHONPATH": str(REPOSITORY)},
    )
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143, "it was done, or failed, before it was stopped"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder / "unfinished", "unfinished")
    UNFINISHED.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


if __name__ == "__main__":
    write_compressed()
    with tempfile.TemporaryDirectory() as name:
        lay_out(Path(name))
        write_hashes(Path(name))
        write_unfinished(Path(name))
