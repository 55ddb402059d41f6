"""A dataset in a bucket is read as one in a folder is: by every command, by range, and told when it
changes meanwhile.

What damage is found is in `test_damage.py`, for both.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokenmill as package
from tests.conftest import Run
from tests.kit import corpora, runs, stores, texts
from tests.kit.outcome import prepare
from tests.kit.stores import BUCKET, Request, Store
from tests.stores.test_store import server, store
from tokenmill import verify
from tokenmill.commands.status import status_of
from tokenmill.dataset.files import FileReplaced, files_at
from tokenmill.dataset.reader import DatasetReader
from tokenmill.errors import DamageFound, TemporaryFailure
from tokenmill.output.place import working_folder
from tokenmill.stores.bucket import PART_BYTES

__all__ = ["server", "store"]  # fixtures
URL = f"s3://{BUCKET}/data/set"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path: Path) -> corpora.Corpus:
    documents = [f"{n} {texts.prose(900)}" for n in range(60)]
    return corpora.write(tmp_path, "jsonl", documents)


@pytest.fixture
def folder(corpus: corpora.Corpus, store: Store, tmp_path: Path) -> Path:
    """A dataset in a folder, and the same in the bucket."""
    options = {"format": "llm.c", "shard_tokens": "3K", "val_fraction": 0.2}
    out = prepare(corpus, tmp_path / "out", **options).folder
    for path in out.iterdir():
        store.put(f"data/set/{path.name}", path)
    return out


@pytest.mark.parametrize("more", [[], ["--doc", 3], ["--token", 4000], ["--split", "val"]])
def test_inspect_shows_the_same(more: list[object], folder: Path, tokenmill: Run) -> None:
    for form in ([], ["--json"]):
        near, far = (tokenmill("inspect", at, *more, *form) for at in (folder, URL))
        assert near.rc == far.rc == 0, far.stderr
        assert near.stdout == far.stdout


def test_inspect_reads_little(folder: Path, store: Store, tokenmill: Run) -> None:
    """Of a shard its header, and the ids that are shown."""
    with stores.troubled(store) as proxy:
        done = tokenmill("inspect", URL, "--token", 4000, env=proxy.env)
    assert done.rc == 0, done.stderr
    assert proxy.reads("data/set/fineweb") <= 1024 + 64 * 2


def test_status_of_a_finished_dataset(folder: Path, store: Store, tokenmill: Run) -> None:
    assert status_of(URL) == status_of(folder)
    name = package.load_manifest(URL).shards[1].name
    store.put(f"data/set/{name}", b"short")
    found = status_of(URL)
    assert (found["state"], found["damaged"]) == ("finished", [name])
    shown = tokenmill("status", f"{URL}/")
    assert shown.rc == 0 and shown.stdout.startswith(f"{URL}: finished"), shown.stdout
    assert name in shown.stdout
    nothing = tokenmill("status", f"{URL}/none")
    assert nothing.rc == 13 and "fix:" in nothing.stderr


def test_status_of_a_run(store: Store, tmp_path: Path, tokenmill: Run) -> None:
    """By the local folder's journal; without it, by what is stored."""
    corpus = runs.write_corpus(tmp_path / "corpus", "jsonl")
    command = ["prepare", *corpus.arguments(), *runs.OPTIONS, "--out", URL]
    with runs.running(*command, pause=0.2, alone=True) as process:
        runs.wait_for(lambda: "data/set/.tokenmill/journal" in store.listed(), "the state")
        process.send_signal(signal.SIGSTOP)
        running = tokenmill("status", URL, "--json").lines[0]
        process.send_signal(signal.SIGKILL)
        runs.finish(process)
    runs.wait_until_free(working_folder(URL))
    assert running["state"] == "running" and running["holder"].split()[0] == str(process.pid)
    assert 0 < running["bytes"] <= running["total_bytes"] and running["folder"] == URL
    before = {key: store.get(key) for key in store.listed()}
    stopped = status_of(URL)
    assert (stopped["state"], stopped["holder"]) == ("stopped", None), "it died on this machine"
    assert stopped["bytes"] >= running["bytes"] and stopped["checkpoint"]
    shutil.rmtree(working_folder(URL))
    elsewhere = status_of(URL)  # nobody can know whether it lives
    assert elsewhere["state"] == "running" and elsewhere["holder"] == running["holder"]
    assert 0 < elsewhere["bytes"] <= stopped["bytes"] and elsewhere["shards_whole"]
    assert {key: store.get(key) for key in store.listed()} == before


def test_verify_against_the_inputs(
    folder: Path, store: Store, corpus: corpora.Corpus, tokenmill: Run
) -> None:
    command = ["verify", URL, "--share", "1", "--against", corpus.path]
    done = tokenmill(*command)
    assert done.rc == 0 and "60 documents of the inputs followed" in done.stderr, done.stderr
    dataset = DatasetReader.at(folder)
    shard = dataset.manifest.shards[-1]
    reader = dataset.open(shard)
    ids = np.memmap(folder / shard.name, reader.dtype, "r+", reader.head_bytes, (reader.tokens,))
    ids[100] = 257 if ids[100] != 257 else 314
    ids.flush()
    store.put(f"data/set/{shard.name}", folder / shard.name)
    told = [[str(problem) for problem in verify(at, against=[corpus.path], share=1)]
            for at in (folder, URL)]  # fmt: skip
    assert told[0] == told[1] and {line.split(":")[0] for line in told[0]} >= {"mismatch"}


def test_verify_finds_a_wrong_header_with_the_right_hash(folder: Path, store: Store) -> None:
    """As of a writer with a defect: the hash in the manifest is that of what was written."""
    manifest = package.load_manifest(folder)
    shard = manifest.shards[0]
    content = bytearray((folder / shard.name).read_bytes())
    content[8] ^= 1  # the count of tokens
    (folder / shard.name).write_bytes(content)
    shard.sha256 = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_bytes(manifest.to_json())
    (folder / "SHA256SUMS").write_bytes(manifest.sha256sums())
    for name in (shard.name, "manifest.json", "SHA256SUMS"):
        store.put(f"data/set/{name}", folder / name)
    for at in (folder, URL):
        assert [(p.kind, p.name) for p in verify(at)] == [("changed", shard.name)]
        assert [(p.kind, p.name) for p in verify(at, quick=True)] == [("changed", shard.name)]


def through(store: Store, trouble: Callable[[Request], str | None]) -> Any:
    """What `verify` finds of the URL behind a bad network."""
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.trouble = trouble
        return list(verify(URL))


def test_an_object_that_is_replaced_while_it_is_read_is_named(folder: Path, store: Store) -> None:
    name = package.load_manifest(folder).shards[2].name

    def replace(request: Request) -> None:
        if request.method == "GET" and request.path.endswith(name):
            store.put(f"data/set/{name}", b"x" * (folder / name).stat().st_size)

    (problem,) = through(store, replace)
    assert (problem.kind, problem.name) == ("changed", name) and "while" in problem.detail
    opened = files_at(URL).open(name)
    store.client.delete_object(Bucket=BUCKET, Key=f"data/set/{name}")
    with pytest.raises(FileReplaced, match=name):
        opened.read(0, 10)


def test_a_store_that_fails_is_no_damage(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 1.0)
    with pytest.raises(TemporaryFailure):
        through(store, lambda request: "503" if "fineweb" in request.path else None)


def test_no_object_is_read_as_a_whole(store: Store) -> None:
    """But in pieces of one size, whatever its own."""
    content = bytes(range(256)) * 80_000  # 20 MB
    store.put("data/set/large.bin", content)
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        pieces = list(files_at(URL).stream("large.bin"))
        reads = [r for r in proxy.requests if r.method == "GET" and "large.bin" in r.path]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= PART_BYTES
    assert len(reads) == 3 and all(0 < request.length <= PART_BYTES for request in reads)


def test_a_manifest_that_has_no_reason_to_be_so_large_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is read."""
    monkeypatch.setattr("tokenmill.dataset.files.MOST_BYTES", 1000)
    store.put("data/set/manifest.json", b'"tokenmill_version"' * 1000)
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(DamageFound, match="larger than 1000 bytes"):
            package.load_manifest(URL)
    assert all(request.method == "HEAD" for request in proxy.requests)
