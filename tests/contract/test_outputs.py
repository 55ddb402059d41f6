"""What every output promises, in a folder and in a bucket: one suite, run on both.

To add an output: a class with the methods of `Backend` here, and an entry in `BACKENDS`.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.conftest import Result
from tests.kit import corpora, runs, stores
from tests.kit.fake_hub import Blob, FakeHub
from tests.kit.stores import BUCKET, Store
from tests.stores.test_store import server, store
from tokenmill import plan
from tokenmill.commands.plan import Plan
from tokenmill.errors import DamageFound, SpecMismatch, TokenmillError
from tokenmill.output import lease as lease_module
from tokenmill.output import open_output, resume
from tokenmill.output.bucket_prefix import BucketPrefix
from tokenmill.output.folder import Folder
from tokenmill.output.lease import LEASE, Lease
from tokenmill.output.output import Output
from tokenmill.output.place import working_folder
from tokenmill.stores.bucket import Bucket
from tokenmill.stores.lock import locked
from tokenmill.stores.retry import RetryPolicy

__all__ = ["server", "store"]  # fixtures
OPTIONS = ["--format", "build-nanogpt", "--shard-tokens", "4K", "--threads", "2", "--check", "0"]
MINE = b"nobody's business"
SLOW: dict[str, Any] = {"pause": 0.2, "alone": True, "lease": 0.2}
"""A run that is seen while it is under way, on a busy machine too."""


class Backend(Protocol):
    """An output as the tests see it from outside."""

    where: str

    def files(self) -> dict[str, bytes]:
        """All that lies there by name, the run's state too."""

    def put(self, name: str, content: bytes, is_ours: bool = False) -> None:
        """Put something there, as another program would, or as tokenmill did."""

    def remove(self, name: str) -> None:
        """Take a file away."""

    def living(self) -> Any:
        """Another run at work there, while the context lasts."""


class InFolder:
    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "out"
        self.where = str(self.folder)

    def files(self) -> dict[str, bytes]:
        paths = sorted(self.folder.rglob("*")) if self.folder.exists() else []
        is_mine = [path for path in paths if path.is_file() and path.name != "lock"]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in is_mine}

    def put(self, name: str, content: bytes, is_ours: bool = False) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    @contextmanager
    def living(self) -> Iterator[None]:
        with locked(self.folder):
            yield


class InBucket:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.where = f"s3://{BUCKET}/data/set"

    def files(self) -> dict[str, bytes]:
        keys = self.store.listed("data/set/")
        return {key.removeprefix("data/set/"): self.store.get(key) for key in keys}

    def put(self, name: str, content: bytes, is_ours: bool = False) -> None:
        sign = {"tokenmillsha256": hashlib.sha256(content).hexdigest()} if is_ours else {}
        key = f"data/set/{name}"
        self.store.client.put_object(Bucket=BUCKET, Key=key, Body=content, Metadata=sign)

    def remove(self, name: str) -> None:
        self.store.client.delete_object(Bucket=BUCKET, Key=f"data/set/{name}")

    @contextmanager
    def living(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease_module, "BEAT_SECONDS", 0.1)
            bucket = Bucket("s3", BUCKET, RetryPolicy())
            held = Lease(bucket, f"data/set/.tokenmill/{LEASE}", "another machine", "other")
            held.take(lambda line: None)
            yield
            held.renew()  # raises where the prefix was lost
            held.remove()


BACKENDS = ("folder", "bucket")


@pytest.fixture(params=BACKENDS)
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Store
) -> Backend:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        return InFolder(tmp_path)
    return InBucket(request.getfixturevalue("store"))


@pytest.fixture
def corpus(tmp_path: Path) -> corpora.Corpus:
    return runs.write_corpus(tmp_path / "corpus", "jsonl", 16)


def command(corpus: corpora.Corpus, where: str, *more: object) -> list[object]:
    return ["prepare", *corpus.arguments(), *OPTIONS, "--out", where, *more]


def run(corpus: corpora.Corpus, backend: Backend, *more: object, **trouble: Any) -> Result:
    return runs.run(*command(corpus, backend.where, *more), lease=0.2, **trouble)


def asked(corpus: corpora.Corpus, **options: Any) -> Plan:
    return plan(corpus.path, format="build-nanogpt", shard_tokens="4K", **options)


def opened(backend: Backend) -> Output:
    return open_output(backend.where, None, 30.0, lambda line: None)


def stopped(corpus: corpora.Corpus, backend: Backend, how: int) -> None:
    """A run that is under way and is sent a signal."""
    folder = working_folder(backend.where)
    with runs.running(*command(corpus, backend.where), **SLOW) as one:
        runs.wait_for_checkpoints(folder, 2)
        one.send_signal(how)
        runs.finish(one)
    runs.wait_until_free(folder)


def ask_everything(output: Output, run: Plan) -> list[object]:
    """All questions; what they answer, errors too."""
    answers: list[object] = [output.has_state(), output.other_run([run.fingerprint()])]
    for question in (resume.finished, resume.dataset, resume.unfinished, resume.is_begun):
        try:
            answers.append(question(output, run))
        except TokenmillError as error:
            answers.append(error)
    answers += [resume.recorded(output), output.foreign(lambda name: name.endswith(".npy"))]
    return answers


def test_questions_change_nothing(corpus: corpora.Corpus, backend: Backend) -> None:
    """Of an unfinished run, and of a finished dataset beside which one left its state."""
    stopped(corpus, backend, signal.SIGTERM)
    state = {name: text for name, text in backend.files().items() if name[0] == "."}
    assert state
    mine, other = asked(corpus), asked(corpus, seed=7)
    local = runs.snapshot(working_folder(backend.where))
    before = backend.files()
    for each in (mine, other):
        ask_everything(opened(backend), each)
        assert backend.files() == before
    assert local == runs.snapshot(working_folder(backend.where))
    assert run(corpus, backend).rc == 0
    for name, content in state.items():
        backend.put(name, content, is_ours=True)
    before = backend.files()
    assert resume.finished(opened(backend), mine) is not None
    for each in (mine, other):
        ask_everything(opened(backend), each)
        assert backend.files() == before


def test_no_output_is_made_of_another() -> None:
    """Each is whole by itself: what both do is decided over `Output`."""
    for each in (Folder, BucketPrefix):
        assert each.__mro__ == (each, object)


def test_a_new_output_has_nothing(corpus: corpora.Corpus, backend: Backend) -> None:
    output, mine = opened(backend), asked(corpus)
    with output.hold(lambda line: None):
        output.take_stock()
        assert resume.finished(output, mine) is None
        resume.enter(output, mine)
        assert resume.unfinished(output, mine) is None
        resume.refuse_foreign(output, mine)
        output.leave(keeps=False)
    assert backend.files() == {}


def test_a_killed_run_is_gone_on_with(
    corpus: corpora.Corpus, backend: Backend, tmp_path: Path
) -> None:
    assert runs.run(*command(corpus, str(tmp_path / "whole"))).rc == 0
    whole = InFolder(tmp_path)
    whole.folder = tmp_path / "whole"
    stopped(corpus, backend, signal.SIGKILL)
    assert "manifest.json" not in backend.files()
    log = opened(backend).journal()
    assert log is not None and log.checkpoint is not None
    done = run(corpus, backend)
    assert done.rc == 0 and "going on:" in done.stderr, done.stderr
    assert backend.files() == whole.files()


def test_state_beside_a_finished_dataset_is_cleared_by_the_run(
    corpus: corpora.Corpus, backend: Backend
) -> None:
    """As it is left by a run that was killed between its manifest and its end."""
    stopped(corpus, backend, signal.SIGTERM)
    state = {name: text for name, text in backend.files().items() if name[0] == "."}
    assert run(corpus, backend).rc == 0
    whole = backend.files()
    shutil.rmtree(working_folder(backend.where) / ".tokenmill", ignore_errors=True)
    for name, content in state.items():
        backend.put(name, content, is_ours=True)
    done = run(corpus, backend)
    assert done.rc == 0 and "nothing to do" in done.stderr, done.stderr
    assert backend.files() == whole


def test_the_state_of_a_living_run_is_left_alone(corpus: corpora.Corpus, backend: Backend) -> None:
    """It may be about to replace the dataset that is still there."""
    assert run(corpus, backend).rc == 0
    with backend.living():
        done = run(corpus, backend)
    assert done.rc == 11 and "in use by another run" in done.stderr, done.stderr


def test_another_dataset_is_refused(corpus: corpora.Corpus, backend: Backend) -> None:
    stopped(corpus, backend, signal.SIGTERM)
    assert run(corpus, backend, "--seed", 7).rc == 12
    assert run(corpus, backend).rc == 0
    before = backend.files()
    with pytest.raises(SpecMismatch, match="--seed is 7, was 0"):
        resume.finished(opened(backend), asked(corpus, seed=7))
    assert backend.files() == before


def test_damage_is_named_with_what_mends_it(corpus: corpora.Corpus, backend: Backend) -> None:
    assert run(corpus, backend).rc == 0
    name = next(name for name in backend.files() if name.endswith(".npy"))
    backend.put(name, backend.files()[name][:-2])
    with pytest.raises(DamageFound, match=name) as caught:
        resume.finished(opened(backend), asked(corpus))
    fix = str(caught.value.fix).partition("with ")[2].partition(",")[0]
    backend.remove(name)
    assert run(corpus, backend).rc == 13
    assert run(corpus, backend, fix).rc == 0
    assert resume.finished(opened(backend), asked(corpus)) is not None


@pytest.mark.parametrize("name", ["edufineweb_train_000003.npy", "manifest.json", "SHA256SUMS"])
def test_what_is_foreign_is_refused_and_stays(
    name: str, corpus: corpora.Corpus, backend: Backend
) -> None:
    backend.put(name, MINE)
    for more in ((), ("--overwrite",)):
        done = run(corpus, backend, *more)
        assert done.rc == 1 and name in done.stderr and "fix:" in done.stderr, done.stderr
        assert backend.files() == {name: MINE}


def test_overwrite_removes_what_is_its_own(corpus: corpora.Corpus, backend: Backend) -> None:
    backend.put("readme.txt", MINE)
    assert run(corpus, backend).rc == 0
    before = backend.files()
    done = run(corpus, backend, "--seed", 7, "--overwrite")
    assert done.rc == 0 and f"overwrite: removed {len(before) - 1} " in done.stderr, done.stderr
    after = backend.files()
    assert after.keys() == before.keys() and after["readme.txt"] == MINE
    assert after["manifest.json"] != before["manifest.json"]


def test_no_dataset_is_replaced_by_one_without_documents(
    corpus: corpora.Corpus, backend: Backend, tmp_path: Path
) -> None:
    assert run(corpus, backend).rc == 0
    before = backend.files()
    (tmp_path / "empty.jsonl").write_text("\n" * 40)
    empty = corpora.Corpus(tmp_path / "empty.jsonl")
    done = run(empty, backend, "--overwrite")
    assert done.rc == 1 and "nothing was removed" in done.stderr, done.stderr
    assert backend.files() == before


def test_a_bad_network_is_no_reason_to_remove(
    corpus: corpora.Corpus, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer is none that holds nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backend = InBucket(store)
    assert run(corpus, backend).rc == 0
    before = backend.files()
    with stores.troubled(store) as proxy:
        proxy.trouble = lambda request: "503" if request.method == "GET" else None
        done = run(corpus, backend, "--network-patience", "1s", env=proxy.env)
    assert done.rc == 5, done.stderr
    assert backend.files() == before


def test_a_moving_revision_is_what_it_was_for_the_run_on_another_machine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There only the output tells it. (Of a folder: `test_hub.py`.)"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backend = InBucket(store)
    data = tmp_path / "data"
    data.mkdir()
    corpora.write(data, "jsonl", runs.documents(16))
    with FakeHub() as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        repository = hub.add("tokenmill/corpus", data)
        command = ["prepare", "hf://datasets/tokenmill/corpus", *OPTIONS, "--out", backend.where]
        with runs.running(*command, **SLOW) as process:
            journal = ".tokenmill/journal"
            runs.wait_for(lambda: b'"checkpoint"' in backend.files().get(journal, b""), "the state")
            process.send_signal(signal.SIGTERM)
            runs.finish(process)
        shutil.rmtree(working_folder(backend.where))
        repository.commit({"other.jsonl": Blob(data / "corpus.jsonl")})
        done = runs.run(*command, lease=0.2)
        assert done.rc == 0 and "going on:" in done.stderr, done.stderr
        again = runs.run(*command, lease=0.2)
        assert again.rc == 0 and "nothing to do" in again.stderr, again.stderr
