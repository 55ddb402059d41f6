"""Object stores at length: killed again and again, and the shared corpora from S3 to S3.

Environment variables: TOKENMILL_SEED (of the instants), TOKENMILL_STORE_KILLS (10 seeds for each
way).
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.kit import corpora, runs
from tests.kit.shared import CORPORA, shared_file
from tests.kit.stores import Store
from tests.output.test_store_output import URL, cache, corpus, seen, whole
from tests.output.test_store_output import kill_and_go_on as kill_into_a_prefix
from tests.stores.test_store import kill_and_go_on as kill_over_objects
from tests.stores.test_store import server, store
from tokenmill.output.place import working_folder

__all__ = ["cache", "corpus", "server", "store", "whole"]  # fixtures
SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
SEEDS = range(SEED, SEED + int(os.environ.get("TOKENMILL_STORE_KILLS", "10")))
BLOCK = 512 * 1024
OPTIONS = ["--format", "build-nanogpt", "--shard-tokens", "1M", "--threads", "2", "--quiet"]


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_over_objects(seed: int, store: Store, tmp_path: Path) -> None:
    kill_over_objects(seed, store, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_into_a_prefix(
    seed: int, store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    kill_into_a_prefix(seed, store, corpus, whole, tmp_path / "got")


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_from_store_to_store(
    name: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed five times: at each death nothing is visible that is not whole, and at the end all is
    what the local run writes."""
    source, chance = shared_file(f"corpus/{name}.parquet"), random.Random(f"{SEED} {name}")
    assert runs.run("prepare", source, *OPTIONS, "--out", tmp_path / "local").rc == 0
    local = {name: (tmp_path / "local" / name).read_bytes() for name in shards(tmp_path / "local")}
    url = store.put(f"in/{name}.parquet", source)
    kills, visible, folder = 0, [], working_folder(URL)
    for _ in range(5):
        with runs.running(
            "prepare", url, *OPTIONS, "--out", URL, block=BLOCK, pause=0.05, alone=True
        ) as process:
            goal = runs.checkpoints(folder) + chance.randint(1, 5)
            while runs.checkpoints(folder) < goal and process.poll() is None:
                time.sleep(0.005)
            kills += process.poll() is None
            process.kill()
            process.wait()
        now = seen(store)
        assert "manifest.json" not in now or process.returncode == 0
        assert all(store.get(f"data/set/{shard}") == local[shard] for shard in now & set(local))
        visible.append(len(now))
    done = runs.run("prepare", url, *OPTIONS, "--out", URL, block=BLOCK, lease=0.3)
    assert done.rc == 0, done.stderr
    got = store.fetch("data/set", tmp_path / "got")
    assert {shard: (got / shard).read_bytes() for shard in shards(got)} == local
    with capsys.disabled():
        print(f"\n{name}: {kills} kills, TOKENMILL_SEED={SEED}; {visible} objects visible at each")
    assert kills >= 2


def shards(folder: Path) -> list[str]:
    """Their names."""
    return sorted(path.name for path in folder.glob("*.npy"))
