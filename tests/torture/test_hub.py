"""The Hub at length: killed in the stream at random instants, and gigabytes in half a gigabyte.

Environment variables: TOKENMILL_SEED, TOKENMILL_HUB_KILLS (10), TOKENMILL_HUB_SIZE (of the text for
the runs under a memory limit; 4GB is about 2 GB of parquet).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgroup import CgroupUnavailable, MemoryCgroup
from tests.kit import oracles, runs, texts
from tests.kit.fake_hub import FakeHub
from tests.kit.outcome import Outcome
from tests.kit.runs import snapshot
from tests.kit.shared import CORPORA, corpus_documents, shared_file
from tests.stores.test_hub import CARD, NAME, write_fineweb
from tokenmill.output.journal import read_journal

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
KILLS = int(os.environ.get("TOKENMILL_HUB_KILLS", "10"))
SIZE = os.environ.get("TOKENMILL_HUB_SIZE", "4GB")
THREADS = 2
BLOCK = 2 * 1024 * 1024
OPTIONS = ["--format", "build-nanogpt", "--shard-tokens", "1M", "--threads", str(THREADS)]
OPTIONS += ["--memory", "450MB"]
PATIENCE = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of 12 MB in row groups of about 500 kB."""
    folder = tmp_path_factory.mktemp("repository")
    whole = texts.prose(24_000_000)
    documents = [whole[at : at + 5000] for at in range(0, len(whole), 5000)]
    for number in range(2):
        some = documents[number::2]
        table = pa.table({"text": some, "url": [text[:80] for text in some]})
        pq.write_table(table, folder / f"{number}.parquet", 100, compression="none")
    return folder


def needed_from(folder: Path, file: int, group: int) -> int:
    """Bytes of the text's column from a row group on, to the end of the corpus."""
    total = 0
    for number in range(file, 2):
        metadata = pq.read_metadata(folder / f"{number}.parquet")
        first = group if number == file else 0
        total += sum(
            metadata.row_group(index).column(0).total_compressed_size
            for index in range(first, metadata.num_row_groups)
        )
    return total


def test_killed_in_the_stream(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The resumed run fetches what is not yet kept, and of what is kept no more than a block for
    each thread."""
    trouble: dict[str, Any] = {"block": BLOCK, "checkpoint": 0}
    again = []
    with FakeHub() as hub:
        hub.add("org/name", folder)
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        whole = ("prepare", "org/name", *OPTIONS, "--out", tmp_path / "u")
        undisturbed = runs.finish(runs.start(*whole, **trouble), PATIENCE)
        assert undisturbed.rc == 0, undisturbed.stderr
        expected = snapshot(tmp_path / "u")
        for index in range(KILLS):
            generator = random.Random(f"{SEED} {index}")
            out = tmp_path / str(index)
            arguments = ("prepare", "org/name", *OPTIONS, "--out", out)
            with runs.running(*arguments, pause=0.15, **trouble) as process:
                runs.wait_for_checkpoints(out, 1)
                time.sleep(generator.uniform(0.0, 2.0))
                runs.end(process, generator.choice(["parent", "both"]))
            runs.wait_until_free(out)
            log = read_journal(out)
            assert log is not None and log.checkpoint is not None, "it was too late to kill it"
            at = log.checkpoint
            rest = needed_from(folder, at.file, (at.state or {"group": 0})["group"])
            hub.forget()
            done = runs.finish(runs.start(*arguments, **trouble), PATIENCE)
            assert done.rc == 0, f"seed {SEED}, kill {index}: {done.stderr}"
            assert snapshot(out) == expected, f"seed {SEED}, kill {index}"
            footers = 6 * 65536
            again.append(hub.moved(".parquet") - rest - footers)
            assert again[-1] <= 0.1 * rest + THREADS * BLOCK, f"seed {SEED}, kill {index}"
    with capsys.disabled():
        print(
            f"\nkilled {KILLS} times, TOKENMILL_SEED={SEED}: at most {max(again)} bytes beyond "
            "what was left"
        )


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_whole_corpus_laid_out_as_fineweb_edu(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very files of build-nanogpt's own script, and of the run over the files on disk."""
    documents = list(corpus_documents(corpus))
    repository = tmp_path / "repository"
    half = len(documents) // 2
    for number, some in enumerate((documents[:half], documents[half:])):
        write_fineweb(repository / f"sample/10BT/{number:03}_00000.parquet", some)
    (repository / "README.md").write_text(CARD)
    run = ("--format", "build-nanogpt", "--shard-tokens", "1M", "--out")
    with FakeHub() as hub:
        hub.add(NAME, repository)
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        far = runs.start("prepare", NAME, "--config", "sample-10BT", *run, tmp_path / "far")
        done = runs.finish(far, PATIENCE)
        assert done.rc == 0, done.stderr
        assert "(equal)" in done.stderr
    near = runs.start("prepare", repository / "sample", *run, tmp_path / "near")
    assert runs.finish(near, PATIENCE).rc == 0
    found = Outcome(tmp_path / "far")
    assert found.hashes == Outcome(tmp_path / "near").hashes
    ids = oracles.encode_all(documents)
    assert found.files == oracles.build_nanogpt_files(ids, 1_000_000)


@pytest.mark.parametrize("rows", ["1000", "one"])
def test_gigabytes_of_the_hub_in_half_a_gigabyte(rows: str, tmp_path: Path) -> None:
    shared = shared_file("corpus/en.parquet").parents[1]
    try:
        with MemoryCgroup(512_000_000):
            pass
    except CgroupUnavailable as reason:
        pytest.skip(f"no memory cgroup: {reason}")
    command = [sys.executable, str(ROOT / "benchmarks" / "hub.py"), "--size", SIZE, "--rows", rows]
    command += ["--limit", "512MB", "--rounds", "1", "--without-speed"]
    command += ["--shared", str(shared), "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
