"""Inputs from the Hub and from the web, against a real server on the loopback interface.

The documents must be those of the same files on disk, whatever goes wrong on the way: a fault gives
the right bytes, or an error that names it. The client that lists and pins is the Hub's own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tokenmill as package
from tests.conftest import Run
from tests.kit import oracles, runs
from tests.kit.corpora import zst
from tests.kit.fake_hub import Blob, FakeHub, Fault, Handler, Repository
from tests.kit.outcome import Outcome
from tokenmill.errors import InputError, TemporaryFailure, TokenmillError, UsageError
from tokenmill.memory import Listing
from tokenmill.sources.inputs import Selection, find_inputs
from tokenmill.stores import dataset_card, http

NAME = "HuggingFaceFW/fineweb-edu"
CARD = """---
license: odc-by
configs:
- config_name: default
  default: true
  data_files:
  - split: train
    path: data/*/*
- config_name: sample-10BT
  data_files:
  - split: train
    path: sample/10BT/*
- config_name: CC-MAIN-2013-20
  data_files:
  - split: train
    path: data/CC-MAIN-2013-20/*
---
# FineWeb-Edu
"""
FORMAT = ["--format", "build-nanogpt", "--shard-tokens", "20K", "--threads", "2"]
SHARD = 20_000
PATIENCE = 20.0


def write_fineweb(path: Path, documents: list[str], rows: int = 1000) -> None:
    """A file with FineWeb-Edu's columns."""
    count = len(documents)
    table = pa.table(
        {
            "text": documents,
            "id": [f"<urn:uuid:{number:036}>" for number in range(count)],
            "dump": ["CC-MAIN-2013-20"] * count,
            "url": [f"https://example.org/{number}" for number in range(count)],
            "file_path": ["s3://commoncrawl/crawl-data/CC-MAIN-2013-20/x.warc.gz"] * count,
            "language": ["en"] * count,
            "language_score": [0.9] * count,
            "token_count": [len(oracles.encode(text)) for text in documents],
            "score": [3.0] * count,
            "int_score": [3] * count,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows, compression="snappy", use_dictionary=["dump"])


@pytest.fixture(scope="session")
def fineweb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository laid out as FineWeb-Edu is."""
    folder = tmp_path_factory.mktemp("fineweb")
    (folder / "README.md").write_text(CARD)
    documents = runs.documents()
    for number in range(2):
        some = documents[number * 15 : number * 15 + 15]
        write_fineweb(folder / f"sample/10BT/{number:03}_00000.parquet", some, rows=4)
    write_fineweb(folder / "data/CC-MAIN-2013-20/train-00000-of-00001.parquet", documents[30:])
    (folder / "data/CC-MAIN-2013-20/.hidden.parquet").write_bytes(b"never read")
    (folder / "loader.py").write_text("open('/tmp/tokenmill-was-here', 'w')")
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub for this process and those that it starts."""
    with FakeHub() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", server.url)  # read when it was imported
        monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", PATIENCE)
        yield server


@pytest.fixture
def repository(fake: FakeHub, fineweb: Path) -> Repository:
    return fake.add(NAME, fineweb)


def local(fineweb: Path, out: Path, *names: str) -> Outcome:
    """The run over the same files on disk."""
    paths = [fineweb / name for name in names]
    package.prepare(paths, out=out, format="build-nanogpt", shard_tokens=SHARD)
    return Outcome(out)


# --- what is read ------------------------------------------------------------------------------


def test_a_config_gives_the_bytes_of_the_local_run_and_of_the_rule(
    repository: Repository, fake: FakeHub, fineweb: Path, tmp_path: Path, tokenmill: Run
) -> None:
    done = tokenmill("prepare", NAME, "--config", "sample-10BT", *FORMAT, "--out", tmp_path / "a")
    assert done.rc == 0, done.stderr
    assert "config sample-10BT, split train, 2 files, commit" in done.stderr
    found = Outcome(tmp_path / "a")
    assert found.hashes == local(fineweb, tmp_path / "b", "sample/10BT").hashes
    documents = runs.documents()[:30]
    assert found.files == oracles.build_nanogpt_files(oracles.encode_all(documents), SHARD)
    sha = repository.branches["main"]
    assert [entry["path"] for entry in found.manifest["inputs"]] == [
        f"hf://datasets/{NAME}@{sha}/sample/10BT/{number:03}_00000.parquet" for number in range(2)
    ]
    assert found.manifest["revisions"] == {f"hf://datasets/{NAME}@main": sha}
    told = sum(len(oracles.encode(text)) for text in documents)
    assert f"token_count of the dataset: {told:,}; ours, without end-of-text: {told:,} (equal)" in (
        done.stderr
    )
    sent = [one for one in fake.log if one.path.endswith((".py", ".hidden.parquet"))]
    assert not sent and not Path("/tmp/tokenmill-was-here").exists()


def test_only_the_column_of_the_text_travels(
    repository: Repository, fake: FakeHub, tmp_path: Path
) -> None:
    path = tmp_path / "repo" / "wide.parquet"
    path.parent.mkdir()
    texts = runs.documents(200)
    wide = [text[::-1] * 3 for text in texts]
    pq.write_table(pa.table({"before": wide, "text": texts, "after": wide}), path, 10)
    fake.add("org/wide", path.parent)
    package.prepare("org/wide", out=tmp_path / "out", shard_tokens=SHARD, format="build-nanogpt")
    metadata = pq.read_metadata(path)
    groups = range(metadata.num_row_groups)
    needed = sum(metadata.row_group(g).column(1).total_compressed_size for g in groups)
    # The footer, and what the estimate reads.
    assert fake.moved(".parquet") < 3 * 65536 + 1.2 * needed < path.stat().st_size / 2


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt"])
def test_other_kinds_of_files_are_read_too(
    suffix: str, fake: FakeHub, tmp_path: Path, tokenmill: Run
) -> None:
    from tests.kit import corpora

    folder = tmp_path / "repo"
    folder.mkdir()
    corpus = corpora.write(folder, suffix.lstrip("."), runs.documents())
    fake.add("org/name", folder)
    run = ("--out", tmp_path / "far", *FORMAT, *corpus.arguments()[1:])
    done = tokenmill("prepare", f"hf://datasets/org/name/*{suffix}", *run)
    assert done.rc == 0, done.stderr
    near = tokenmill(
        "prepare", folder, "--out", tmp_path / "near", *FORMAT, *run[2 + len(FORMAT) :]
    )
    assert near.rc == 0, near.stderr
    assert Outcome(tmp_path / "far").hashes == Outcome(tmp_path / "near").hashes
    assert "checked by SHA-256" in done.stderr


def find(argument: str, config: str | None = None) -> list[str]:
    """The files of an argument, from the root of the repository."""
    files = find_inputs([argument], Selection(config)).files
    return [file.path.partition("@")[2].partition("/")[2] for file in files]


def test_globs_folders_files_and_revisions(fake: FakeHub, tmp_path: Path) -> None:
    for name in ("a/1.txt", "a/b/2.txt", "a/b/c/3.txt", "z.txt", "10.txt", "9.txt", "a/_x/q.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    repository = fake.add("org/name", tmp_path)
    selection = Selection(listing=Listing(-995 * 850))
    assert find_inputs(["hf://datasets/org/name/**"], selection).too_many > 5 * 850
    one = repository.commit({"only.txt": Blob(tmp_path / "z.txt")}, "refs/convert/parquet")
    address = "hf://datasets/org/name"
    assert find(f"{address}/*.txt") == ["10.txt", "9.txt", "z.txt"]
    assert find(f"{address}/a/**/*.txt") == ["a/1.txt", "a/_x/q.txt", "a/b/2.txt", "a/b/c/3.txt"]
    assert find(f"{address}/a/b") == ["a/b/2.txt", "a/b/c/3.txt"]
    assert find(f"{address}/a/*/[0-9].txt") == ["a/b/2.txt"]
    assert find(f"{address}/a/?.txt") == ["a/1.txt"]
    assert find(f"{address}/z.txt") == ["z.txt"]
    assert find(f"{address}@refs/convert/parquet/*") == ["only.txt"]
    assert find(f"{address}@refs%2Fconvert%2Fparquet/*") == ["only.txt"]
    assert find(f"{address}@{one}/*") == ["only.txt"]
    with pytest.raises(InputError, match="no such revision"):
        find(f"{address}@nowhere/*")
    for pattern in ("nothing/*.txt", "*.zip", "missing.txt"):
        with pytest.raises(InputError, match="no file of the dataset matches"):
            find(f"{address}/{pattern}")


def test_pages_of_listings_are_all_read(fake: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    blob = Blob(tmp_path / "x.txt")
    repository = fake.repositories["org/many"] = Repository()
    repository.commit({f"data/{number:05}.txt": blob for number in range(2500)})
    assert len(find("org/many")) == 2500


@pytest.mark.parametrize(
    ("card", "config", "expected"),
    [
        ("", None, ["data/train-0.jsonl", "data/train-1.jsonl"]),
        ("---\nlicense: mit\n---\n", None, ["data/train-0.jsonl", "data/train-1.jsonl"]),
        ("configs:\n- config_name: x\n  data_files: '*.jsonl'", None, ["other.jsonl"]),
        ("configs:\n- data_files: [b/*, data/*1.jsonl]", None, ["b/b.jsonl", "data/train-1.jsonl"]),
        ("configs:\n- config_name: one\n  data_dir: b", "one", ["b/b.jsonl"]),
        ("configs:\n- config_name: one\n  data_dir: b\n  data_files: '*'", "one", ["b/b.jsonl"]),
        (
            "configs:\n- config_name: a\n  data_files:\n  - {split: test, path: data/test*}\n"
            "  - {split: train, path: [data/train-1*, b/*]}\n- config_name: c\n  data_dir: b",
            "a",
            ["data/train-1.jsonl", "b/b.jsonl"],
        ),
        ("configs:\n- config_name: 1\n  data_files: {eval: b/*}", "1", ["b/b.jsonl"]),
    ],
)
def test_configs_of_cards(
    card: str, config: str | None, expected: list[str], fake: FakeHub, tmp_path: Path
) -> None:
    names = ["data/train-0.jsonl", "data/train-1.jsonl", "data/test-0.jsonl", "b/b.jsonl"]
    for name in [*names, "other.jsonl"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    head = f"---\n{card}\n---\n" if card.startswith("configs") else card
    (tmp_path / "README.md").write_text(head + "# A dataset\n")
    fake.add("org/name", tmp_path)
    assert find("org/name", config) == expected


def test_configs_that_make_no_sense_are_named(
    repository: Repository, fake: FakeHub, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"has no config 'sample-9'.*\n.*\n.*sample-10BT"):
        find(NAME, "sample-9")
    with pytest.raises(UsageError, match="--config is for a dataset as a whole"):
        find(f"hf://datasets/{NAME}/data", "default")
    with pytest.raises(UsageError, match="--config is for a dataset on the Hub"):
        find(str(tmp_path), "default")
    for text in ("configs: 7", "configs: [7]", "configs: [{data_files: 7}]", "configs: [", "a: *b"):
        with pytest.raises(InputError, match="the dataset's card makes no sense"):
            dataset_card.configs_of(f"---\n{text}\n---\n", "there")
    (tmp_path / "x.txt").write_text("x")
    fake.add("org/plain", tmp_path)
    with pytest.raises(UsageError, match="has no configs, so none is called 'x'"):
        find("org/plain", "x")


def test_what_is_here_is_meant_before_what_is_on_the_hub(
    repository: Repository, fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "x.txt").write_text("x")
    assert [file.path for file in find_inputs([NAME]).files] == [f"{NAME}/x.txt"]
    assert not fake.log
    with pytest.raises(InputError, match="no such file or folder, and the Hub has no such dataset"):
        find("corpus/missing")
    with pytest.raises(InputError, match="no such file or folder"):
        find("corpus/missing.txt")


@pytest.mark.parametrize("name", ["../x.txt", "/etc/x.txt", "a/../../x.txt", "a\nb.txt", "a\0.txt"])
def test_hostile_names_in_a_listing_are_refused(name: str, fake: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    repository = fake.repositories["org/name"] = Repository()
    repository.commit({name: Blob(tmp_path / "x"), "good.txt": Blob(tmp_path / "x")})
    with pytest.raises(TokenmillError) as told:
        find("hf://datasets/org/name/**")
    assert name not in str(told.value) or name.isprintable()
    assert find("hf://datasets/org/name/good.txt") == ["good.txt"]


# --- private, gated, expired -------------------------------------------------------------------


def test_who_may_not_read_is_told_what_to_do(
    fake: FakeHub, fineweb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add("org/private", fineweb, is_private=True)
    fake.add("org/gated", fineweb, is_gated=True)
    assert len(find("org/private", "sample-10BT")) == 2
    with pytest.raises(InputError, match=r"(?s)gated.*accept its terms at .*hf auth login"):
        find("org/gated")
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(InputError, match=r"(?s)private.*hf auth login"):
        find("org/private")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError, match=r"(?s)private.*hf auth login"):
        find("org/private")


def test_offline_means_offline(
    repository: Repository, fake: FakeHub, tmp_path: Path, tokenmill: Run
) -> None:
    done = tokenmill("prepare", NAME, "--out", tmp_path, env={"HF_HUB_OFFLINE": "1"})
    assert done.rc == 1 and "HF_HUB_OFFLINE is set" in done.stderr, done.stderr
    assert not fake.log


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install 'huggingface-hub>="):
        find("org/name")
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(UsageError, match=r"pip install 'urllib3>="):
        find("https://127.0.0.1/x.txt")


# --- faults ------------------------------------------------------------------------------------

Act = Callable[[Handler], bool]


def answering(status: int, body: bytes = b"", **headers: str) -> Act:
    def act(handler: Handler) -> bool:
        handler.answer(status, body, **headers)
        return False

    return act


def date_in(seconds: float) -> Act:
    """429 until a time of the server's clock, which is an hour wrong."""

    def act(handler: Handler) -> bool:
        now = time.time() - 3600
        handler.send_response_only(429)
        handler.send_header("Date", formatdate(now, usegmt=True))
        handler.send_header("Retry-After", formatdate(now + seconds, usegmt=True))
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return False

    return act


def cut(handler: Handler) -> bool:
    handler.send_blob(handler.blob(), most=1000)
    return False


def stall(handler: Handler) -> bool:
    blob = handler.blob()
    low, high = handler.span(blob) or (0, blob.size)
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {low}-{high - 1}/{blob.size}")
    handler.send_header("Content-Length", str(high - low))
    handler.end_headers()
    handler.wfile.write(blob.path.read_bytes()[low : low + 100])
    handler.wfile.flush()
    handler.hub.stalled.wait(60)
    handler.close_connection = True
    return False


def hang_up(handler: Handler) -> bool:
    handler.close_connection = True
    return False


def whole_file(handler: Handler) -> bool:
    blob = handler.blob()
    handler.send_range(blob, 0, blob.size, 200)
    return False


def other_range(more: int, less: int) -> Act:
    def act(handler: Handler) -> bool:
        blob = handler.blob()
        low, high = handler.span(blob) or (0, blob.size)
        handler.send_range(blob, min(low + more, high - 1), max(low + 1, high - less), 206)
        return False

    return act


def larger_file(handler: Handler) -> bool:
    blob = handler.blob()
    low, high = handler.span(blob) or (0, blob.size)
    handler.answer(206, b"x" * (high - low), Content_Range=f"bytes {low}-{high - 1}/{10**9}")
    return False


def other_file(handler: Handler) -> bool:
    repository, _, rest = handler.path.removeprefix("/datasets/").partition("/resolve/")
    location = f"{handler.hub.cdn}/{repository}/{rest}"
    handler.answer(302, b"", X_Linked_Etag=f'"{"0" * 64}"', Location=location)
    return False


PASS = r"the network does not give what is asked for"
FAULTS: dict[str, tuple[Act, str, bool]] = {
    # what happens, what the run says when it never ends, and whether that is told at once
    "429 ratelimit": (answering(429, ratelimit='"resolvers";r=0;t=0'), PASS, False),
    "429 Retry-After": (answering(429, Retry_After="0"), PASS, False),
    "429 Retry-After, a date": (date_in(0), PASS, False),
    "429 bare": (answering(429), PASS, False),
    "500": (answering(500, b"oh"), PASS, False),
    "503": (answering(503), PASS, False),
    "cut": (cut, "", False),
    "stall": (stall, PASS, False),
    "hang up": (hang_up, PASS, False),
    "200 for a range": (whole_file, "ignores which bytes are asked for", True),
    "short range": (other_range(0, 300), PASS, False),
    "another range": (other_range(300, 0), PASS, False),
    "206 without a range": (answering(206, b"x" * 100), PASS, False),
    "the file became larger": (larger_file, "was changed while it was read", True),
    "416": (answering(416), "was changed while it was read", True),
    "404": (answering(404), "the input is gone", True),
    "403 of a signed address": (answering(403), PASS, False),
    "redirects for ever": (answering(302, Location="/x"), PASS, False),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience, and little of everything else that takes time."""
    from tokenmill.stores import retry

    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(http, "READ_SECONDS", 1.0)
    monkeypatch.setattr(retry, "DEFAULT_PATIENCE", 2.5)


@pytest.fixture(scope="module")
def expected(fineweb: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return local(fineweb, tmp_path_factory.mktemp("local") / "out", "sample/10BT").hashes


def fetch(out: Path, **options: Any) -> dict[str, str]:
    """A run over the sample; its shards' hashes."""
    defaults = {"config": "sample-10BT", "format": "build-nanogpt", "shard_tokens": SHARD}
    every: dict[str, Any] = {**defaults, **options}
    package.prepare(NAME, out=out, **every)
    return Outcome(out).hashes


def test_worker_processes_are_handed_what_comes_from_the_network(
    repository: Repository, fake: FakeHub, expected: dict[str, str], tmp_path: Path
) -> None:
    """The same bytes and counts, the dataset's own count of tokens included, by no more requests:
    a worker process asks for nothing."""
    found = {}
    for executor in ("threads", "processes"):
        before = len(fake.log)
        out = tmp_path / executor
        assert fetch(out, executor=executor, workers=2) == expected
        found[executor] = Outcome(out).manifest["counts"], len(fake.log) - before
    assert found["threads"] == found["processes"]
    assert found["processes"][0]["told_tokens"] > 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gives_the_right_bytes_or_its_name(
    name: str,
    repository: Repository,
    fake: FakeHub,
    expected: dict[str, str],
    tmp_path: Path,
    quick: None,
) -> None:
    act, told, is_final = FAULTS[name]
    for after in (0, 2, 3):  # the footers, the estimate, the text
        out = tmp_path / str(after)
        with fake.trouble(Fault(act, ".parquet", times=2, after=after)) as fault:
            if is_final:
                with pytest.raises(InputError, match=told):
                    fetch(out)
            else:
                assert fetch(out) == expected
        assert fault.struck > after, "never struck"
        assert fetch(out) == expected
    if told == PASS:
        with fake.trouble(Fault(act, "001_00000.parquet", times=10**9)):
            with pytest.raises(TemporaryFailure, match=told) as failure:
                fetch(tmp_path / "never")
            assert failure.value.exit_code == 5
        assert fetch(tmp_path / "never") == expected


def test_a_server_that_is_asked_too_often_gets_time(
    repository: Repository, fake: FakeHub, expected: dict[str, str], tmp_path: Path, quick: None
) -> None:
    for number, act in enumerate(
        [answering(429, ratelimit='"resolvers";r=0;t=1'), answering(429, Retry_After="1"),
         date_in(1)]
    ):  # fmt: skip
        times: list[float] = []

        def noted(handler: Handler, act: Act = act, times: list[float] = times) -> bool:
            times.append(time.monotonic())
            return act(handler)

        def let_pass(handler: Handler, times: list[float] = times) -> bool:
            times.append(time.monotonic())
            return True

        one = "001_00000.parquet"  # others are asked for at the same time
        faults = [Fault(noted, one), Fault(let_pass, one)]
        with fake.trouble(faults[0]), fake.trouble(faults[1]):
            assert fetch(tmp_path / str(number), network_patience=20) == expected
        assert len(times) == 2 and times[1] - times[0] > 0.9
    with fake.trouble(Fault(answering(429, Retry_After="7200"), ".parquet")):
        began = time.monotonic()
        with pytest.raises(TemporaryFailure, match=r"429 \(too many requests\)"):
            fetch(tmp_path / "long", network_patience=20)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["500", "429 bare", "429 ratelimit", "hang up"])
def test_faults_of_the_listing_pass_too(
    name: str,
    repository: Repository,
    fake: FakeHub,
    expected: dict[str, str],
    tmp_path: Path,
    quick: None,
) -> None:
    with fake.trouble(Fault(FAULTS[name][0], "", 1, on_api=True)):
        assert fetch(tmp_path / "out", network_patience=20) == expected


def test_another_file_under_the_same_name_is_noticed(
    repository: Repository, fake: FakeHub, expected: dict[str, str], tmp_path: Path, quick: None
) -> None:
    with (
        fake.trouble(Fault(other_file, "001_00000.parquet", on_api=True)),
        pytest.raises(InputError, match="was changed while it was read"),
    ):
        fetch(tmp_path / "out")
    assert fetch(tmp_path / "out") == expected


def test_a_token_that_expires_is_named_and_the_run_goes_on_with_a_new_one(
    repository: Repository,
    fake: FakeHub,
    expected: dict[str, str],
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def expire(handler: Handler) -> bool:
        fake.token = "hf_another"
        return True

    with (
        fake.trouble(Fault(expire, "001_00000.parquet")),
        pytest.raises(InputError, match=r"(?s)does not let us read.*401.*hf auth login"),
    ):
        fetch(tmp_path / "out")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert fetch(tmp_path / "out") == expected


def test_a_branch_that_moves_changes_nothing_of_a_run_that_has_begun(
    repository: Repository,
    fake: FakeHub,
    fineweb: Path,
    expected: dict[str, str],
    tmp_path: Path,
    quick: None,
) -> None:
    sha = repository.branches["main"]
    other = {"README.md": Blob(fineweb / "README.md")}
    data = Blob(fineweb / "data/CC-MAIN-2013-20/train-00000-of-00001.parquet")
    other |= {f"sample/10BT/{number:03}_00000.parquet": data for number in range(2)}

    def move(handler: Handler) -> bool:
        repository.commit(other)
        return True

    out = tmp_path / "out"
    with (
        fake.trouble(Fault(move, "001_00000.parquet")),
        fake.trouble(Fault(answering(404), "001_00000.parquet")),
        pytest.raises(InputError, match="the input is gone"),
    ):
        fetch(out, checkpoint_seconds=0)
    assert repository.branches["main"] != sha
    assert fetch(out) == expected
    assert fetch(out) == expected, "finished, and still what it was"
    assert Outcome(out).manifest["revisions"] == {f"hf://datasets/{NAME}@main": sha}
    anew = fetch(out, overwrite=True)
    assert anew != expected
    assert Outcome(out).manifest["revisions"] == {
        f"hf://datasets/{NAME}@main": repository.branches["main"]
    }
    from tokenmill.errors import SpecMismatch

    with pytest.raises(SpecMismatch, match="is new"):
        package.prepare(
            f"hf://datasets/{NAME}@{sha}/sample/10BT/*", out=out, format="build-nanogpt",
            shard_tokens=SHARD,
        )  # fmt: skip


def listed_otherwise(fake: FakeHub, tmp_path: Path, suffix: str) -> str:
    """A text whose listing tells another hash."""
    path = tmp_path / f"x{suffix}"
    text = "\n".join(runs.documents()).encode()
    path.write_bytes(zst(text) if suffix.endswith(".zst") else text)
    repository = fake.repositories["org/wrong"] = Repository()
    repository.commit({path.name: Blob(path, told=hashlib.sha256(b"other").hexdigest())})
    return "hf://datasets/org/wrong/" + path.name


@pytest.mark.parametrize("suffix", [".txt", ".txt.zst"])
def test_a_file_that_is_not_what_the_listing_says_is_not_used(
    suffix: str, fake: FakeHub, tmp_path: Path, quick: None
) -> None:
    argument, out = listed_otherwise(fake, tmp_path, suffix), tmp_path / "out"
    for _ in range(2):  # nothing of the first attempt is gone on with
        with pytest.raises(TokenmillError, match="not the one that is listed"):
            package.prepare(argument, out=out, documents="line", checkpoint_seconds=0)
        assert not list(out.iterdir())


def test_a_signal_ends_a_stalled_run_soon(
    repository: Repository, fake: FakeHub, fineweb: Path, tmp_path: Path
) -> None:
    arguments = [*FORMAT, "--out", tmp_path / "out", "--config", "sample-10BT"]
    with (
        fake.trouble(Fault(stall, "001_00000.parquet", times=10**9)) as fault,
        runs.running("prepare", NAME, *arguments) as process,
    ):
        runs.wait_for(lambda: fault.struck, "the stalled request")
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        done = runs.finish(process)
        assert done.rc == 130, done.stderr
        assert time.monotonic() - began < 10  # on a busy machine; a stall lasts 30 s
    assert runs.run("prepare", NAME, *arguments).rc == 0


def test_nobody_there_is_exit_code_5(tmp_path: Path, tokenmill: Run) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    patience = ("--network-patience", "1s", "--out", tmp_path)
    for argument in ("org/name", "http://127.0.0.1:9/x.txt", "https://127.0.0.1:9/x.txt"):
        done = tokenmill("prepare", argument, *patience, env=env)
        assert done.rc == 5, done.stderr
        assert "fix: run the same command again" in done.stderr
    done = tokenmill("prepare", "http://no.such.host.invalid/x.txt", *patience, env=env)
    assert done.rc == 5, done.stderr


def test_a_run_out_of_time_stops_though_the_network_hangs(
    repository: Repository, fake: FakeHub, tmp_path: Path, tokenmill: Run
) -> None:
    arguments = ("prepare", NAME, "--config", "sample-10BT", *FORMAT, "--out", tmp_path / "out")
    with fake.trouble(Fault(stall, "001_00000.parquet", times=10**9)) as fault:
        done = tokenmill(*arguments, "--max-time", "3s")
    assert fault.struck
    assert done.rc == 10, done.stderr
    assert tokenmill(*arguments).rc == 0


def test_plan_verify_and_repair_know_the_hub(
    repository: Repository, fake: FakeHub, fineweb: Path, tmp_path: Path, tokenmill: Run
) -> None:
    out, argument = tmp_path / "out", (NAME, "--config", "sample-10BT")
    planned = tokenmill("plan", *argument, *FORMAT)
    assert planned.rc == 0 and "001_00000.parquet" in planned.stdout, planned.stderr
    assert tokenmill("prepare", *argument, *FORMAT, "--out", out).rc == 0
    repository.commit({"README.md": Blob(fineweb / "README.md")})  # and nothing else any more
    compared = tokenmill(
        "verify", out, "--share", "0.5", "--config", argument[2], "--against", NAME
    )
    assert compared.rc == 0, compared.stdout + compared.stderr
    (out / "edufineweb_train_000001.npy").write_bytes(b"damage")
    repaired = tokenmill("prepare", *argument, *FORMAT, "--out", out, "--repair")
    assert repaired.rc == 0, repaired.stderr
    assert tokenmill("verify", out).rc == 0


# --- the web -----------------------------------------------------------------------------------


def test_a_file_behind_an_address(fake: FakeHub, fineweb: Path, tmp_path: Path) -> None:
    path = fineweb / "sample/10BT/000_00000.parquet"
    sha = fake.add(NAME, fineweb).branches["main"]
    address = f"{fake.cdn}/{NAME}/{sha}/sample/10BT/000_00000.parquet"
    options: dict[str, Any] = {"format": "build-nanogpt", "shard_tokens": SHARD}
    package.prepare(address, out=tmp_path / "far", **options)
    package.prepare(path, out=tmp_path / "near", **options)
    assert Outcome(tmp_path / "far").hashes == Outcome(tmp_path / "near").hashes
    (entry,) = Outcome(tmp_path / "far").manifest["inputs"]
    assert entry["path"] == address and entry["size"] == path.stat().st_size
    assert entry["probe"] == f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"'


def test_a_server_that_cannot_prove_who_it_is(
    fineweb: Path, tmp_path: Path, tokenmill: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: openssl is missing, so no certificate can be made")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
         certificate, "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with FakeHub(certificate=(certificate, key)) as server:
        sha = server.add(NAME, fineweb).branches["main"]
        address = f"{server.cdn}/{NAME}/{sha}/sample/10BT/000_00000.parquet"
        run = ("--out", tmp_path / "out", "--network-patience", "5s", *FORMAT)
        env = {"NO_PROXY": "127.0.0.1"}
        done = tokenmill("prepare", address, *run, env=env)
        assert done.rc == 1 and "cannot prove who it is" in done.stderr, done.stderr
        plain = tokenmill("prepare", address.replace("https:", "http:"), *run, env=env)
        assert plain.rc == 5, plain.stderr
        done = tokenmill("prepare", address, *run, env=env | {"SSL_CERT_FILE": str(certificate)})
        assert done.rc == 0, done.stderr


def test_an_address_whose_file_changes(
    fake: FakeHub, fineweb: Path, tmp_path: Path, quick: None
) -> None:
    repository = fake.add(NAME, fineweb)
    sha = repository.branches["main"]
    address = f"{fake.cdn}/{NAME}/{sha}/sample/10BT/000_00000.parquet"
    other = Blob(fineweb / "sample/10BT/001_00000.parquet")

    def change(handler: Handler) -> bool:
        repository.commits[sha]["sample/10BT/000_00000.parquet"] = other
        return True

    with (
        fake.trouble(Fault(change, "000_00000.parquet", after=3)),
        pytest.raises(InputError, match="was changed while it was read"),
    ):
        package.prepare(address, out=tmp_path / "out")


def test_what_no_address_can_give_is_said(fake: FakeHub, fineweb: Path) -> None:
    sha = fake.add(NAME, fineweb).branches["main"]
    address = f"{fake.cdn}/{NAME}/{sha}/sample/10BT/000_00000.parquet"
    with (
        fake.trouble(Fault(whole_file, ".parquet")),
        pytest.raises(InputError, match="does not send parts of a file"),
    ):
        find(address)
    with pytest.raises(InputError, match="cannot tell what kind"):
        find(f"{fake.cdn}/x.zip")
    with pytest.raises(InputError, match="the input is gone"):
        find(f"{fake.url}/x.txt")
    with pytest.raises(UsageError, match="a password in an address") as told:
        find("https://me:secret@127.0.0.1/x.txt")
    assert "secret" not in str(told.value)
    for wrong in ("hf://models/a/b", "hf://datasets/x", "http:///x.txt"):
        with pytest.raises(UsageError, match=r"no dataset on the Hub|no address"):
            find(wrong)
