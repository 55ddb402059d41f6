"""`prepare --out s3://...`: the bytes of the local run, nothing seen before it is whole, and runs
that are killed, refused, taken over and gone on with."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Result, Run
from tests.kit import corpora, runs, stores
from tests.kit.stores import BUCKET, Request, Store
from tests.stores.test_store import server, store
from tokenmill.errors import OutputInUse
from tokenmill.output.journal import read_journal
from tokenmill.output.lease import Lease
from tokenmill.output.place import working_folder
from tokenmill.output.uploads import MOST_WAITING
from tokenmill.splits import TRAIN
from tokenmill.stores.bucket import Bucket, ObjectChanged
from tokenmill.stores.retry import RetryPolicy

__all__ = ["server", "store"]  # fixtures
URL = f"s3://{BUCKET}/data/set"
FINAL = {
    "SHA256SUMS",
    "manifest.json",
    "edufineweb_val_000000.npy",
    *(f"edufineweb_{TRAIN}_{number:06}.npy" for number in range(1, 5)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's runs work."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corpus(store: Store, tmp_path: Path) -> corpora.Corpus:
    return runs.write_corpus(tmp_path / "corpus", "jsonl")


@pytest.fixture
def whole(corpus: corpora.Corpus, tmp_path: Path) -> dict[str, str]:
    """What an undisturbed run leaves in a folder."""
    assert runs.run(*command(corpus, tmp_path / "whole")).rc == 0
    return runs.snapshot(tmp_path / "whole")


def command(corpus: corpora.Corpus, out: object = URL, *more: object) -> list[object]:
    return ["prepare", *corpus.arguments(), *runs.OPTIONS, "--quiet", *more, "--out", out]


def seen(store: Store, prefix: str = "data/set/") -> set[str]:
    """What stands under the prefix, the run's state left out."""
    names = (key.removeprefix(prefix) for key in store.listed(prefix))
    return {name for name in names if not name.startswith(".tokenmill/")}


def state(store: Store) -> set[str]:
    prefix = "data/set/.tokenmill/"
    return {key.removeprefix(prefix) for key in store.listed(prefix)}


def assert_whole(store: Store, whole: dict[str, str], folder: Path) -> None:
    """The prefix holds what a local run writes, and nothing else."""
    assert runs.snapshot(store.fetch("data/set", folder)) == whole
    assert store.uploads() == []
    left = working_folder(URL)
    assert not left.exists(), list(left.rglob("*"))


def test_the_prefix_holds_what_a_folder_would(
    store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    done = runs.run(*command(corpus))
    assert done.rc == 0, done.stderr
    assert set(whole) == FINAL
    assert_whole(store, whole, tmp_path / "got")
    before = store.client.head_object(Bucket=BUCKET, Key="data/set/manifest.json")
    again = runs.run(*[part for part in command(corpus) if part != "--quiet"])
    assert again.rc == 0
    assert f"nothing to do: {URL} holds this dataset, finished" in again.stderr
    after = store.client.head_object(Bucket=BUCKET, Key="data/set/manifest.json")
    assert before["LastModified"] == after["LastModified"]


def test_from_store_to_store(
    store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    url = store.put("in/corpus.jsonl", corpus.path)
    done = runs.run("prepare", url, *runs.OPTIONS, "--quiet", "--out", URL)
    assert done.rc == 0, done.stderr
    got = runs.snapshot(store.fetch("data/set", tmp_path / "got"))
    shards = FINAL - {"SHA256SUMS", "manifest.json"}
    assert {name: got[name] for name in shards} == {name: whole[name] for name in shards}


def test_nothing_is_seen_before_it_is_whole(
    store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """Looked at before every request of the run: what is there has its final size, and the order
    is shards, sums, manifest."""
    sizes = {name: (tmp_path / "whole" / name).stat().st_size for name in whole}
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)

        def look(request: Request) -> None:
            pages = store.client.list_objects_v2(Bucket=BUCKET, Prefix="data/set/")
            there = {
                entry["Key"].removeprefix("data/set/"): entry["Size"]
                for entry in pages.get("Contents", [])
                if "/.tokenmill/" not in entry["Key"]
            }
            assert there.items() <= sizes.items(), there
            if "SHA256SUMS" in there:
                assert {"SHA256SUMS", "manifest.json"} >= sizes.keys() - there.keys()
            assert "manifest.json" not in there or there == sizes

        wrong: list[AssertionError] = []

        def watch(request: Request) -> None:
            try:
                look(request)
            except AssertionError as error:  # raised in the proxy's thread: told here
                wrong.append(error)

        proxy.trouble = watch
        done = runs.run(*command(corpus))
    assert done.rc == 0, done.stderr
    assert not wrong, wrong[0]
    assert_whole(store, whole, tmp_path / "got")


def test_few_shards_are_on_the_local_disk(store: Store, corpus: corpora.Corpus) -> None:
    """Of 24 shards: those open, those being synced, those of one block (as long as two shards
    here), and those that wait for a slow network."""
    local: list[int] = []
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)

        def look(request: Request) -> None:
            local.append(len(list(working_folder(URL).glob("*.npy.partial"))))
            time.sleep(0.02)

        proxy.trouble = look
        done = runs.run(*command(corpus, URL, "--shard-tokens", "4K"))
    assert done.rc == 0, done.stderr
    assert len(seen(store)) == 24 + 2
    assert max(local) <= 1 + 2 + 2 + MOST_WAITING + 1


def test_a_large_shard_is_invisible_until_its_last_part(
    store: Store, tmp_path: Path, tokenmill: Run
) -> None:
    """More than one upload part: while they go up, the key is in no listing."""
    text = tmp_path / "large.txt"
    # Ten tokens a line, of few words: three parts of 8 MiB, quickly encoded, no two alike.
    text.write_text("".join(f"{number % 997} a b c d e f g h\n" for number in range(900_000)))
    during: list[tuple[bool, bool]] = []
    with stores.troubled(store) as proxy:

        def look(request: Request) -> None:
            if request.method == "PUT" and "partNumber" in request.path:
                seen_then = "data/set/train.bin" in store.listed("data/set/")
                during.append((seen_then, "data/set/train.bin" in store.uploads()))

        proxy.trouble = look
        arguments = ["prepare", text, "--val-fraction", "0", "--out"]
        done = tokenmill(*arguments, URL, "--memory", "250MB", env=proxy.env)
    assert done.rc == 0, done.stderr
    assert len(during) >= 3 and all(hidden == (False, True) for hidden in during)
    assert tokenmill(*arguments, tmp_path / "near").rc == 0
    assert store.get("data/set/train.bin") == (tmp_path / "near" / "train.bin").read_bytes()


def killed(corpus: corpora.Corpus, chance: random.Random, *more: object) -> bool:
    """Start a run and kill it at a random moment; False when it was done before."""
    folder = working_folder(URL)
    with runs.running(*command(corpus, URL, *more), pause=0.02, alone=True) as process:
        goal = runs.checkpoints(folder) + chance.randint(0, 6)
        while runs.checkpoints(folder) < goal and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.2)
        is_alive = process.poll() is None
        process.kill()
        process.wait()
    return is_alive


def kill_and_go_on(
    seed: int, store: Store, corpus: corpora.Corpus, whole: dict[str, str], folder: Path
) -> None:
    """Kill a run three times at random moments, sometimes with its local folder lost."""
    chance = random.Random(seed)
    for _ in range(3):
        killed(corpus, chance)
        assert "manifest.json" not in seen(store) or seen(store) == FINAL
        if chance.random() < 0.4:
            shutil.rmtree(working_folder(URL), ignore_errors=True)
    done = runs.run(*command(corpus), lease=0.3)
    assert done.rc == 0, f"seed {seed}: {done.stderr}"
    assert runs.snapshot(store.fetch("data/set", folder)) == whole, f"seed {seed}"
    assert state(store) == set()


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_three_times_and_gone_on_with(
    seed: int, store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    kill_and_go_on(seed, store, corpus, whole, tmp_path / "got")


def stored_too_early(journal: bytes) -> list[str]:
    """Shards that were stored, and so removed here, before a checkpoint called them whole."""
    whole: list[str] = []
    covered, early = 0, []
    for line in journal.splitlines():
        entry = json.loads(line.partition(b" ")[2])
        if entry["type"] == "shard":
            whole.append(entry["shard"]["name"])
        elif entry["type"] in ("checkpoint", "encoded"):
            covered = entry.get("at", entry)["shards"]
        elif entry["type"] == "stored" and entry["name"] not in whole[:covered]:
            early.append(entry["name"])
    return early


@pytest.mark.parametrize("stored", [1, 2, 3])
def test_killed_after_an_upload_while_the_disk_is_slow(
    stored: int, store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """What is removed here is never what the last checkpoint goes on with. Two blocks come at
    once, so that a shard ends while the checkpoint before it is under way, then none for long."""
    path = runs.journal(working_folder(URL))
    trouble = {"pause": 0.3, "slow_checkpoint": 0.1, "alone": True}
    with runs.running(*command(corpus), **trouble) as process:

        def count() -> int:
            return path.read_bytes().count(b'"type":"stored"') if path.exists() else 0

        runs.wait_for(lambda: count() >= stored, f"{stored} stored shards")
        process.send_signal(signal.SIGKILL)
    assert stored_too_early(path.read_bytes()) == []
    done = runs.run(*command(corpus), lease=0.3)
    assert done.rc == 0, done.stderr
    assert_whole(store, whole, tmp_path / "got")


def stopped(corpus: corpora.Corpus, store: Store, count: int, how: int) -> Result:
    """A run that is sent a signal when the store has so many shards and the run's state."""
    with runs.running(*command(corpus), pause=0.1, alone=True) as process:
        runs.wait_for(
            lambda: len(seen(store)) >= count and "journal" in state(store), f"{count} shards"
        )
        process.send_signal(how)
        done = runs.finish(process)
    assert "manifest.json" not in seen(store), "it was done before the signal came"
    return done


def requests_for_shards(proxy: stores.Proxy) -> set[str]:
    puts = [request for request in proxy.requests if request.method == "PUT"]
    names = {request.path.partition("?")[0].rpartition("/data/set/")[2] for request in puts}
    return {name for name in names if not name.startswith(".tokenmill")}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_another_machine_goes_on_from_what_is_stored(
    how: int, store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """The local folder is gone: shards that are stored stay, and the rest is made."""
    first = stopped(corpus, store, 2, how)
    assert first.rc == (143 if how == signal.SIGTERM else -9), first.stderr
    kept = seen(store)
    assert kept and "manifest.json" not in kept
    shutil.rmtree(working_folder(URL))
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        loud = [part for part in command(corpus) if part != "--quiet"]
        done = runs.run(*loud, lease=0.3)
    assert done.rc == 0, done.stderr
    assert "going on:" in done.stderr
    assert ("may be writing there" in done.stderr) == (how == signal.SIGKILL)
    assert len(requests_for_shards(proxy) & kept) < len(kept), "no stored shard was kept"
    assert_whole(store, whole, tmp_path / "got")


def test_a_second_run_is_refused_here_and_elsewhere(
    store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    with runs.running(*command(corpus), pause=0.3, lease=0.3) as process:
        runs.wait_for(lambda: "lease" in state(store), "the lease")
        here = runs.run(*command(corpus), lease=0.3)
        elsewhere = runs.run(*command(corpus, URL, "--staging", tmp_path / "other"), lease=0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert here.rc == 11 and "in use by another run" in here.stderr
    assert elsewhere.rc == 11 and f"process {holder(elsewhere)} writes there" in elsewhere.stderr
    runs.wait_until_free(working_folder(URL))
    assert runs.run(*command(corpus), lease=0.3).rc == 0
    assert_whole(store, whole, tmp_path / "got")


def holder(result: Result) -> str:
    return result.stderr.partition("process ")[2].partition(" writes there")[0]


def test_who_lost_the_lease_stops(store: Store) -> None:
    """A run that was silent for too long finds out at its next beat, and before the manifest."""
    bucket = Bucket("s3", BUCKET, RetryPolicy())
    old = Lease(bucket, "x/.tokenmill/lease", "token 1", "fingerprint")
    old.take(lambda line: None)
    record = old.look()
    assert record is not None and record.is_held
    new = Lease(bucket, "x/.tokenmill/lease", "token 1", "fingerprint")
    new.take(lambda line: None)  # of the same local folder: whose lock it must have
    new.record.token = "token 2"
    new.renew()
    with pytest.raises(OutputInUse):
        old.renew()
    with pytest.raises(OutputInUse):
        old.check()
    new.renew()
    old.release()
    new.remove()
    assert store.listed("x/") == []
    new.renew()  # as a beat does that was about to come
    assert store.listed("x/") == []


def test_another_spec_is_refused(store: Store, corpus: corpora.Corpus) -> None:
    first = stopped(corpus, store, 1, signal.SIGTERM)
    assert first.rc == 143
    unfinished = runs.run(*command(corpus, URL, "--seed", "7"))
    assert unfinished.rc == 12 and "seed" in unfinished.stderr, unfinished.stderr
    assert runs.run(*command(corpus)).rc == 0
    finished = runs.run(*command(corpus, URL, "--seed", "7"))
    assert finished.rc == 12 and "seed" in finished.stderr, finished.stderr
    assert seen(store) == FINAL


def test_overwrite_says_what_it_removes(
    store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    other = store.put("data/set/readme.txt", b"mine")
    assert runs.run(*command(corpus, URL, "--seed", "7")).rc == 0
    loud = [part for part in command(corpus, URL, "--overwrite") if part != "--quiet"]
    done = runs.run(*loud)
    assert done.rc == 0, done.stderr
    assert f"overwrite: removed {len(FINAL)} objects" in done.stderr
    assert store.get("data/set/readme.txt") == b"mine", other
    store.client.delete_object(Bucket=BUCKET, Key="data/set/readme.txt")
    assert_whole(store, whole, tmp_path / "got")


def test_foreign_objects_are_not_replaced(store: Store, corpus: corpora.Corpus) -> None:
    store.put("data/set/edufineweb_train_000001.npy", b"mine")
    done = runs.run(*command(corpus))
    assert done.rc == 1 and "would replace" in done.stderr, done.stderr
    assert store.get("data/set/edufineweb_train_000001.npy") == b"mine"
    assert state(store) == set()


MINE = b"nobody's business"


def refused(store: Store, key: str, corpus: corpora.Corpus, *more: object) -> None:
    """The command names a foreign object that is in its way, and leaves it as it is."""
    before = store.client.head_object(Bucket=BUCKET, Key=key)
    content = store.get(key)
    done = runs.run(*command(corpus, URL, *more), lease=0.3)
    assert done.rc == 1 and key.rpartition("/")[2] in done.stderr, done.stderr
    assert "fix:" in done.stderr
    after = store.client.head_object(Bucket=BUCKET, Key=key)
    assert store.get(key) == content
    assert (before["LastModified"], before["ETag"]) == (after["LastModified"], after["ETag"])


@pytest.mark.parametrize("name", [f"edufineweb_{TRAIN}_000003.npy", "SHA256SUMS"])
def test_an_object_that_appears_in_an_unfinished_run_is_not_replaced(
    name: str,
    store: Store,
    corpus: corpora.Corpus,
    whole: dict[str, str],
    tmp_path: Path,
) -> None:
    """The lease is ours by then, and the names under it are not for that."""
    assert stopped(corpus, store, 1, signal.SIGTERM).rc == 143
    key = f"data/set/{name}"
    store.client.delete_object(Bucket=BUCKET, Key=key)
    store.put(key, MINE)
    refused(store, key, corpus)
    refused(store, key, corpus, "--overwrite")
    store.client.delete_object(Bucket=BUCKET, Key=key)
    assert runs.run(*command(corpus), lease=0.3).rc == 0
    assert_whole(store, whole, tmp_path / "got")


def test_a_foreign_object_among_the_state_is_left_alone(
    store: Store, corpus: corpora.Corpus
) -> None:
    assert stopped(corpus, store, 1, signal.SIGTERM).rc == 143
    names = ("journal", f"edufineweb_{TRAIN}_000002.npy.partial", "mine.partial")
    for name in names:
        store.put(f"data/set/.tokenmill/{name}", MINE)
    runs.run(*command(corpus), lease=0.3)  # it needs to store its state, or it does not
    assert {store.get(f"data/set/.tokenmill/{name}") for name in names} == {MINE}


def test_an_object_of_a_shard_s_size_is_not_taken_for_it(
    store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """Neither by a run that goes on, nor by --overwrite; a copy of the very bytes is."""
    assert stopped(corpus, store, 2, signal.SIGTERM).rc == 143
    name = sorted(seen(store))[0]
    key = f"data/set/{name}"
    content = store.get(key)
    store.put(key, content[:-1] + bytes([content[-1] ^ 1]))
    refused(store, key, corpus)
    refused(store, key, corpus, "--overwrite")
    store.put(key, content)  # without the sign
    assert runs.run(*command(corpus), lease=0.3).rc == 0
    assert_whole(store, whole, tmp_path / "got")
    store.put(key, content[:-1] + bytes([content[-1] ^ 1]))
    refused(store, key, corpus, "--overwrite")
    assert seen(store) == FINAL
    store.client.delete_object(Bucket=BUCKET, Key=key)
    assert runs.run(*command(corpus, URL, "--overwrite"), lease=0.3).rc == 0


def test_a_stored_shard_that_vanished_is_named(store: Store, corpus: corpora.Corpus) -> None:
    assert stopped(corpus, store, 2, signal.SIGTERM).rc == 143
    log = read_journal(working_folder(URL))
    assert log is not None
    lost = sorted(log.stored)[0]  # one that is there and not yet noted would be stored again
    store.client.delete_object(Bucket=BUCKET, Key=f"data/set/{lost}")
    done = runs.run(*command(corpus))
    assert done.rc == 1 and lost in done.stderr and "--overwrite" in done.stderr, done.stderr


@pytest.mark.parametrize("trouble", ["503", "drop", "lost"])
def test_a_bad_network_changes_no_byte(
    trouble: str, store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """Every third request fails; or is carried out, and its answer lost."""
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.trouble = lambda request: trouble if request.number % 3 == 1 else None
        done = runs.run(*command(corpus))
    assert done.rc == 0, done.stderr
    assert_whole(store, whole, tmp_path / "got")


def test_a_bucket_that_is_not_there_is_named(store: Store, corpus: corpora.Corpus) -> None:
    done = runs.run(*command(corpus, "s3://no-such-bucket/x"))
    assert done.rc == 1 and "no such bucket" in done.stderr, done.stderr
    repair = runs.run(*command(corpus, URL, "--repair"))
    assert repair.rc == 2 and "--overwrite" in repair.stderr


def check_conditions(bucket: Bucket) -> None:
    """Put if absent: the same content is no conflict, for its answer may have been lost; and put if
    unchanged."""
    tag = bucket.create("x/manifest.json", b"one")
    assert bucket.create("x/manifest.json", b"one") == tag
    with pytest.raises(FileExistsError):
        bucket.create("x/manifest.json", b"two")
    newer = bucket.put_bytes("x/manifest.json", b"two", tag)
    with pytest.raises(ObjectChanged):
        bucket.put_bytes("x/manifest.json", b"three", tag)
    assert bucket.fetch("x/manifest.json") == (b"two", newer)


def test_a_manifest_is_never_replaced(store: Store) -> None:
    check_conditions(Bucket("s3", BUCKET, RetryPolicy()))


def test_damaged_local_bytes_never_appear(
    store: Store, corpus: corpora.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole shard whose file changes before it is sent is refused: its hash is not the one
    noted."""
    assert runs.run(*command(corpus), lease=0.3, bitrot=True).rc == 1
    assert seen(store) == set()


def test_verify_reads_every_object(
    store: Store, corpus: corpora.Corpus, tokenmill: Run, tmp_path: Path
) -> None:
    assert runs.run(*command(corpus)).rc == 0
    assert tokenmill("verify", URL).rc == 0
    names = sorted(FINAL - {"SHA256SUMS", "manifest.json"})
    content = store.get(f"data/set/{names[0]}")
    store.put(f"data/set/{names[0]}", content[:-1] + b"!")
    store.put(f"data/set/{names[1]}", content[:-1])
    store.client.delete_object(Bucket=BUCKET, Key=f"data/set/{names[2]}")
    store.put("data/set/other.bin", b"")
    found = tokenmill("verify", URL)
    assert found.rc == 13
    kinds = [line.partition(": ")[::2] for line in found.stdout.splitlines()]
    assert [(kind, rest.partition(":")[0]) for kind, rest in kinds] == [
        ("changed", names[0]),
        ("truncated", names[1]),
        ("missing", names[2]),
        ("stray", "other.bin"),
    ]
    assert "changed" not in tokenmill("verify", URL, "--quick").stdout
    store.put("data/set/manifest.json", store.get("data/set/manifest.json") + b" ")
    assert "changed: manifest.json" in tokenmill("verify", URL).stdout
    assert tokenmill("verify", f"{URL}/none").rc == 13


@pytest.mark.parametrize("what", ["shard", "lease"])
def test_a_signal_is_heard_while_the_store_is_silent(
    what: str, store: Store, corpus: corpora.Corpus, whole: dict[str, str], tmp_path: Path
) -> None:
    """It ends long before the request does, and what is done is kept."""
    wanted = "/data/set/edu" if what == "shard" else "/.tokenmill/lease"
    with stores.troubled(store) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)

        def is_wanted(request: Request) -> bool:
            return request.method == "PUT" and wanted in request.path

        proxy.trouble = lambda request: "stall" if is_wanted(request) else None
        with runs.running(*command(corpus), pause=0.02) as process:
            runs.wait_for(lambda: any(map(is_wanted, proxy.requests)), "the silent request")
            process.send_signal(signal.SIGTERM)
            stopped = runs.finish(process, timeout=15)
    assert stopped.rc == 143, stopped.stderr
    assert runs.run(*command(corpus), lease=0.3).rc == 0
    assert_whole(store, whole, tmp_path / "got")
