"""Google's and Azure's stores, faked, with their real clients: as input and as output."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenmill
from tests.conftest import Run
from tests.kit import corpora, fake_stores, runs, stores
from tests.kit.fake_stores import BUCKET, FakeStore
from tests.kit.outcome import Outcome
from tests.output.test_store_output import check_conditions
from tokenmill.errors import InputError
from tokenmill.sources.inputs import find_inputs
from tokenmill.stores import bucket as bucket_module
from tokenmill.stores.bucket import Bucket
from tokenmill.stores.retry import RetryPolicy


@pytest.fixture(params=["gs", "az"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeStore]:
    """A store as this process's environment names it, and a folder of this test's runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 20.0)
    with fake_stores.served(request.param, tmp_path) as store:
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)
        yield store


@pytest.fixture
def corpus(tmp_path: Path) -> corpora.Corpus:
    return runs.write_corpus(tmp_path / "corpus", "jsonl")


@pytest.fixture
def whole(corpus: corpora.Corpus, tmp_path: Path) -> dict[str, str]:
    """What an undisturbed run leaves in a folder."""
    assert runs.run(*command(corpus, tmp_path / "whole")).rc == 0
    return runs.snapshot(tmp_path / "whole")


def command(corpus: corpora.Corpus, out: object) -> list[object]:
    return ["prepare", *corpus.arguments(), *runs.OPTIONS, "--out", out]


@pytest.mark.parametrize("kind", ["txt", "jsonl.gz", "parquet"])
def test_the_bytes_are_those_of_the_local_run(
    kind: str, store: FakeStore, tmp_path: Path, tokenmill: Run
) -> None:
    corpus = corpora.write(tmp_path, kind, runs.documents())
    for part in range(4):  # more than one page of a listing
        store.put(f"in/{part}.{kind}", corpus.path.read_bytes())
        (tmp_path / "near").mkdir(exist_ok=True)
        (tmp_path / "near" / f"{part}.{kind}").write_bytes(corpus.path.read_bytes())
    _, *options = corpus.arguments()
    options += runs.OPTIONS
    near = tokenmill("prepare", tmp_path / "near", "--out", tmp_path / "a", *options)
    far = tokenmill("prepare", store.url(f"in/*.{kind}"), "--out", tmp_path / "b", *options)
    assert (near.rc, far.rc) == (0, 0), near.stderr + far.stderr
    expected = Outcome(tmp_path / "a").hashes
    assert expected and Outcome(tmp_path / "b").hashes == expected


def test_an_object_that_is_stored_encoded_is_read_as_it_is_stored(
    store: FakeStore, tmp_path: Path
) -> None:
    """Google sends it decompressed to whoever does not take gzip, and counts the stored bytes."""
    text = "".join(f"line {number} of the text\n" for number in range(2000))
    store.put("x.txt.gz", gzip.compress(text.encode()), encoding="gzip")
    (tmp_path / "x.txt").write_text(text)
    for place, out in ((store.url("x.txt.gz"), "far"), (tmp_path / "x.txt", "near")):
        tokenmill.prepare(place, out=tmp_path / out, documents="line", val_fraction=0)
    assert Outcome(tmp_path / "far").hashes == Outcome(tmp_path / "near").hashes


def test_an_object_that_changes_is_named(store: FakeStore) -> None:
    store.put("a.txt", b"0123456789")
    (file,) = find_inputs([store.url("a.txt")]).files
    content = file.store.open(file)
    assert content.read(2, 5) == b"234"
    store.put("a.txt", b"0123456789")  # another write, the same bytes
    with pytest.raises(InputError, match="changed while it was read"):
        content.read(5, 7)


def test_conditions_of_writes(store: FakeStore) -> None:
    bucket = Bucket(store.scheme, BUCKET, RetryPolicy())
    check_conditions(bucket)
    bucket.remove(["x/none", "x/manifest.json"])
    assert bucket.fetch("x/manifest.json") is None and bucket.objects("x") == []


def test_a_large_object_is_invisible_until_it_is_whole(store: FakeStore) -> None:
    bucket = Bucket(store.scheme, BUCKET, RetryPolicy())
    content = random.Random(5).randbytes(20_000_000)
    seen: list[bool] = []

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 3_000_000):
            seen.append("x/large" in store.objects)
            yield content[start : start + 3_000_000]

    digest = hashlib.sha256(content).hexdigest()
    done = bucket.put("x/large", pieces, len(content), digest)
    assert bucket.sign("x/large") == (done, digest)
    assert (done.size, store.objects["x/large"].content) == (len(content), content)
    assert len(seen) > 3 and not any(seen) and not store.parts


def test_a_bucket_that_is_not_there_is_named(store: FakeStore, corpus: corpora.Corpus) -> None:
    done = runs.run(*command(corpus, f"{store.scheme}://no-such-bucket/x"))
    assert done.rc == 1 and "no such bucket" in done.stderr, done.stderr


def test_the_prefix_holds_what_a_folder_would(
    store: FakeStore, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path, tokenmill: Run
) -> None:
    url = store.url("data/set")
    done = runs.run(*command(corpus, url))
    assert done.rc == 0, done.stderr
    assert runs.snapshot(store.fetch("data/set", tmp_path / "got")) == whole
    again = runs.run(*command(corpus, url))
    assert again.rc == 0 and "nothing to do" in again.stderr
    assert tokenmill("verify", url).rc == 0
    name = min(key for key in store.objects if key.endswith(".npy"))
    store.put(name, store.objects[name].content[:-1])
    damaged = tokenmill("verify", url)
    assert damaged.rc == 13 and f"truncated: {name.rpartition('/')[2]}" in damaged.stdout


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_requests_and_gone_on_with(
    seed: int, store: FakeStore, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """Killed at three writes, while the store carries them out."""
    chance, url, killed = random.Random(seed), store.url("data/set"), 0
    for _ in range(3):
        writes = chance.randint(1, 8)
        with runs.running(*command(corpus, url), lease=0.3, alone=True) as process:

            def kill(method: str, path: str, at: int = writes) -> bool:
                written = [line for line in store.requests if line.startswith("PUT")]
                if len(written) >= at:
                    process.kill()
                return False

            store.requests.clear()
            store.lose = kill
            process.wait(runs.SECONDS)
        store.lose = lambda method, path: False
        killed += process.returncode == -9
        assert "data/set/manifest.json" not in store.objects or process.returncode == 0
    assert killed
    done = runs.run(*command(corpus, url), lease=0.3)
    assert done.rc == 0, f"seed {seed}: {done.stderr}"
    assert runs.snapshot(store.fetch("data/set", tmp_path / "got")) == whole, f"seed {seed}"


def test_answers_that_never_come(
    store: FakeStore, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """Every third request is carried out, and the run does not learn of it."""
    store.lose = lambda method, path: len(store.requests) % 3 == 0
    done = runs.run(*command(corpus, store.url("data/set")))
    assert done.rc == 0, done.stderr
    assert runs.snapshot(store.fetch("data/set", tmp_path / "got")) == whole


def test_plain_http_away_from_this_machine_needs_leave(
    corpus: corpora.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable, and the variable helps."""
    monkeypatch.setattr(bucket_module, "_LOOPBACK", ())
    with stores.served() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match="set AWS_ALLOW_HTTP=true"):
            Bucket("s3", stores.BUCKET, RetryPolicy()).head("x")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        assert Bucket("s3", stores.BUCKET, RetryPolicy()).head("x") is None
