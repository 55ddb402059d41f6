"""Object stores as inputs: moto's S3 server over loopback, and a bad network before it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.kit import corpora, runs, stores
from tests.kit.outcome import Outcome
from tests.kit.stores import BUCKET, Request, Store
from tokenmill.errors import InputError, TemporaryFailure, UsageError
from tokenmill.memory import Listing, TooManyFiles
from tokenmill.output.journal import read_journal
from tokenmill.sources.inputs import find_inputs
from tokenmill.stores import Selection, expand
from tokenmill.stores import bucket as bucket_module

FOOTER = 64 * 1024
KINDS = ("txt", "jsonl", "jsonl.gz", "jsonl.zst", "parquet")


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with stores.served() as store:
        yield store


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The server with an empty bucket, as this process's environment names it."""
    for key in server.listed():
        server.client.delete_object(Bucket=BUCKET, Key=key)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 30.0)
    return server


def paths(*arguments: str) -> list[str]:
    prefix = f"s3://{BUCKET}/"
    return [file.path.removeprefix(prefix) for file in find_inputs(list(arguments)).files]


def shards(folder: Path) -> dict[str, str]:
    return Outcome(folder).hashes


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_the_local_run(
    kind: str, store: Store, tmp_path: Path, tokenmill: Run
) -> None:
    corpus = corpora.write(tmp_path, kind, runs.documents())
    _, *options = corpus.arguments()
    options += ["--format", "build-nanogpt", "--shard-tokens", "20K", "--check", "0.1"]
    url = store.put(f"in/{corpus.path.name}", corpus.path)
    near = tokenmill("prepare", corpus.path, "--out", tmp_path / "near", *options)
    far = tokenmill("prepare", url, "--out", tmp_path / "far", *options)
    assert (near.rc, far.rc) == (0, 0), near.stderr + far.stderr
    assert shards(tmp_path / "near") == shards(tmp_path / "far")
    (entry,) = Outcome(tmp_path / "far").manifest["inputs"]
    etag = store.client.head_object(Bucket=BUCKET, Key=f"in/{corpus.path.name}")["ETag"]
    assert (entry["path"], entry["probe"], entry["modified"]) == (url, f"etag:{etag}", 0)
    assert entry["size"] == corpus.path.stat().st_size


def test_objects_prefixes_and_globs_in_the_order_of_their_keys(store: Store) -> None:
    names = ["b.txt", "a/é.txt", "a/z.txt", "a/B.txt", "a/b c%20d#1.txt", "a/sub/x.jsonl.gz"]
    hidden = ["a/.tokenmill/state.txt", "a/.hidden.txt"]
    for name in [*names, *hidden, "a/picture.png", "ab.txt"]:
        store.put(name, b"text")
    below = ["a/B.txt", "a/b c%20d#1.txt", "a/sub/x.jsonl.gz", "a/z.txt", "a/é.txt"]
    root = f"s3://{BUCKET}"
    assert paths(f"{root}/a") == paths(f"{root}/a/") == below
    assert paths(root) == paths(f"{root}/") == [*below, "ab.txt", "b.txt"]
    assert paths(f"{root}/a/*.txt") == ["a/B.txt", "a/b c%20d#1.txt", "a/z.txt", "a/é.txt"]
    assert paths(f"{root}/*.txt") == ["ab.txt", "b.txt"]
    assert paths(f"{root}/**/*.gz") == ["a/sub/x.jsonl.gz"]
    assert paths(f"{root}/**") == [*below, "ab.txt", "b.txt"]
    assert paths(f"{root}/a/[zB].txt") == ["a/B.txt", "a/z.txt"]
    assert paths(f"{root}/b.txt", f"{root}/a/z.txt") == ["b.txt", "a/z.txt"]
    assert find_inputs([f"{root}/a"]).ignored == [f"{root}/a/picture.png"]
    assert find_inputs([f"{root}/b.txt"] * 2).repeated == [f"{root}/b.txt"]
    for url in (f"{root}/a", f"{root}/*/*.txt"):
        listing = Listing(-997 * 850)  # three files more than the few that are always held
        with pytest.raises(TooManyFiles):
            expand(url, Selection(listing=listing))
    for file in find_inputs([root]).files:
        assert file.store.open(file).read(1, 3) == b"ex", file.path


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://corpora/none.txt", "no such object or prefix"),
        ("s3://corpora/none/*.txt", "no object matches"),
        ("s3://no-such-bucket/a.txt", "no such bucket"),
        ("s3://no-such-bucket", "no such bucket"),
        ("s3://corpora/picture.png", "cannot tell what kind"),
        ("s3:///key", "no URL of an object store"),
    ],
)
def test_what_is_not_there_is_named(url: str, message: str, store: Store) -> None:
    store.put("picture.png", b"")
    with pytest.raises((InputError, UsageError), match=message) as caught:
        find_inputs([url])
    assert caught.value.fix


def test_an_object_changed_before_during_and_after_is_named(store: Store) -> None:
    url = store.put("a.txt", b"0123456789")
    (file,) = find_inputs([url]).files
    content = file.store.open(file)
    assert content.read(2, 5) == b"234"
    file.store.check_unchanged(file)
    store.put("a.txt", b"abcdefghij")  # of the same size
    with pytest.raises(InputError, match="changed while it was read"):
        content.read(2, 5)
    with pytest.raises(InputError, match="changed while it was read"):
        file.store.check_unchanged(file)
    store.client.delete_object(Bucket=BUCKET, Key="a.txt")
    with pytest.raises(InputError, match="is gone"):
        content.read(2, 5)
    with pytest.raises(InputError, match="is gone"):
        file.store.check_unchanged(file)


def test_a_run_whose_input_changes_stops_and_names_it(
    store: Store, tmp_path: Path, tokenmill: Run
) -> None:
    """It is changed when the first half was read; nothing gets a final name."""
    text = ("a line of text that is long enough\n" * 400_000).encode()
    url = store.put("a.txt", text)
    with stores.troubled(store) as proxy:

        def change(request: Request) -> None:
            if request.length and sum(r.length for r in proxy.requests) > len(text) // 2:
                store.put("a.txt", text.replace(b"text", b"TEXT"))

        proxy.trouble = change
        arguments = [url, "--out", tmp_path / "out", "--memory", "250MB", "--threads", "1"]
        done = tokenmill("prepare", *arguments, env=proxy.env)
    assert done.rc == 1, done.stderr
    assert "changed while it was read" in done.stderr and url in done.stderr
    assert not list((tmp_path / "out").glob("*.bin"))
    again = tokenmill("prepare", *arguments, env=store.env)
    assert again.rc == 12 and "has another content" in again.stderr, again.stderr


@pytest.mark.parametrize("trouble", ["500", "503", "429", "drop", "cut", "whole"])
def test_failures_that_pass_are_tried_again(trouble: str, store: Store, tmp_path: Path) -> None:
    """The client itself tries again what it can, twice; the gate tries again whatever is left."""
    url = store.put("a.txt", bytes(range(256)) * 100)
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        (file,) = find_inputs([url]).files
        content = file.store.open(file)
        calls = len(proxy.requests)
        troubles = 1 if trouble in ("cut", "whole") else 4
        proxy.trouble = lambda request: trouble if request.number < calls + troubles else None
        assert content.read(1000, 1300) == (bytes(range(256)) * 100)[1000:1300]
        assert len(proxy.requests) > calls + troubles


def test_failures_that_stay_end_as_temporary(store: Store) -> None:
    url = store.put("a.txt", b"0123456789")
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 0.5)
        (file,) = find_inputs([url]).files
        proxy.trouble = lambda request: "503"
        with pytest.raises(TemporaryFailure, match="SlowDown") as caught:
            file.store.open(file).read(0, 10)
    assert caught.value.exit_code == 5
    assert re.search(r"a\.txt, byte 0", str(caught.value))


def test_refused_access_is_named_and_not_tried_again(store: Store) -> None:
    url = store.put("a.txt", b"0123456789")
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.trouble = lambda request: "403"
        with pytest.raises(InputError, match="refuses access") as caught:
            find_inputs([url])
        assert len(proxy.requests) == 1
    assert "AWS_ACCESS_KEY_ID" in (caught.value.fix or "")


def test_no_credentials_are_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any the client asks the machine's own service for them, which is not there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="no credentials") as caught:
        find_inputs([f"s3://{BUCKET}/a.txt"])
    assert "AWS_ACCESS_KEY_ID" in (caught.value.fix or "")


def test_a_missing_package_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(UsageError, match="obstore") as caught:
        find_inputs([f"s3://{BUCKET}/a.txt"])
    assert "pip install 'obstore>=" in (caught.value.fix or "")


def kill_and_go_on(seed: int, store: Store, folder: Path) -> None:
    """Kill a run over an object at three random checkpoints, and go on each time: the bytes must
    be those of an undisturbed run, and no more be read again than a block for each thread."""
    chance = random.Random(seed)
    kind = chance.choice(["txt", "one.txt", "jsonl", "parquet"])
    corpus = runs.write_corpus(folder / "corpus", kind)
    _, *options = corpus.arguments()
    url = store.put(f"in/{corpus.path.name}", corpus.path)
    arguments = ["prepare", url, *runs.OPTIONS, *options, "--quiet", "--out"]
    whole, out, size = folder / "whole", folder / "out", corpus.path.stat().st_size
    assert runs.run(*arguments, whole).rc == 0
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for _ in range(3):
            already = runs.checkpoints(out)
            with runs.running(*arguments, out, pause=0.02, alone=True) as process:
                goal = already + chance.randint(1, 5)
                while runs.checkpoints(out) < goal and process.poll() is None:
                    time.sleep(0.005)
                process.kill()
                process.wait()
            log = read_journal(out)
            if log is None:  # it was done before it could be killed
                break
            assert log.checkpoint is not None
        before = len(proxy.requests)
        done = runs.run(*arguments, out)
        assert done.rc == 0, f"seed {seed}: {done.stderr}"
        if log is not None and log.checkpoint is not None:
            read = sum(request.length for request in proxy.requests[before:])
            footer = 3 * FOOTER if kind == "parquet" else 0
            left = size - log.checkpoint.done_bytes
            assert read <= left + 2 * runs.BLOCK + footer, (
                f"seed {seed}, {kind}: {read} bytes read, {left} were left: "
                f"{[r.headers.get('range') for r in proxy.requests[before:]]}, {log}"
            )
    assert runs.snapshot(out) == runs.snapshot(whole), f"seed {seed}"


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_three_times_and_gone_on_with(seed: int, store: Store, tmp_path: Path) -> None:
    kill_and_go_on(seed, store, tmp_path)


def test_all_three_stores_have_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of gs:// and az:// no more is shown here: there is no server of theirs in Python."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for scheme in ("s3", "gs", "az"):
        assert bucket_module._make(scheme, "bucket") is not None
