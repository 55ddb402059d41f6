"""What every store keeps: files listed in order, their bytes by range, whole or an error.

And what crosses a worker's border: a file, pickled and read back in another process, has the same
bytes, and so do the blocks of a remote input and what they are encoded with.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import tokenmill
from tests.conftest import command_environment
from tests.contract.shelves import SHELVES, Shelf
from tests.contract.yours import registered, yours
from tests.encoding.test_recipe import SMALL, digest, plan_of, written
from tests.kit import sized
from tests.kit.outcome import Outcome
from tests.kit.shared import REPOSITORY
from tokenmill.errors import InputError, TokenmillError
from tokenmill.output.place import is_store
from tokenmill.sources.inputs import find_inputs
from tokenmill.stores import SCHEMES, InputFile, Selection, expand
from tokenmill.stores.stdin import Pipe

ALL: dict[str, type[Shelf]] = SHELVES | yours(
    lambda e: isinstance(e, type) and issubclass(e, Shelf)
)
TEXT = random.Random(5).randbytes(30_000).hex().encode()
OTHER = TEXT[::-1]


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered(SCHEMES, {"zip": "tests.contract.toy_store"}):
        yield


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 0.4)


@pytest.fixture(params=ALL)
def shelf(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: ExitStack,
) -> Shelf:
    return ALL[request.param](tmp_path, monkeypatch, opened)


def listed(argument: str) -> InputFile:
    (file,) = expand(argument).files
    return file


def whole(file: InputFile) -> bytes:
    return file.store.open(file).read(0, file.size)


def copied(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing, pickle.HIGHEST_PROTOCOL))


def test_files_are_listed_with_what_they_are(shelf: Shelf) -> None:
    contents = {"b.jsonl.gz": TEXT, "a.txt": OTHER, "c/d.parquet": TEXT[:100], "a.md": b"1"}
    arguments = {name: shelf.put(name, content) for name, content in contents.items()}
    kinds = {"a.txt": ("text", None), "a.md": ("text", None), "b.jsonl.gz": ("jsonl", ".gz"),
             "c/d.parquet": ("parquet", None)}  # fmt: skip
    for name, argument in arguments.items():
        file = listed(argument)
        assert (file.kind, file.compression) == kinds[name]
        assert file.size == len(contents[name])
        assert file.path.endswith(name)
        assert whole(file) == contents[name]
        again = listed(argument)
        assert again == file and hash(again) == hash(file), "the same file has the same identity"
    if shelf.folder is None:
        return
    # The Hub takes the files of one kind where no name is given.
    found = expand(shelf.folder + "/**" if shelf.folder.startswith("hf:") else shelf.folder)
    names = [next(name for name in contents if file.path.endswith(name)) for file in found.files]
    assert names == sorted(contents), "sorted by path, byte by byte"
    shelf.put("unknown.bin", b"?")
    if not shelf.folder.startswith("hf:"):
        assert [path.rpartition("/")[2] for path in expand(shelf.folder).ignored] == ["unknown.bin"]
    with pytest.raises(TokenmillError):
        expand(f"{shelf.folder}/nothing/here.txt")


def test_ranges_are_exact(shelf: Shelf) -> None:
    file = listed(shelf.put("a.txt", TEXT))
    reader, size = file.store.open(file), file.size
    draw = random.Random(1)
    spans = [(0, 0), (0, 1), (0, size), (size - 1, size), (size, size), (1, size - 1)]
    for _ in range(10):
        low, high = sorted(draw.choices(range(size), k=2))
        spans.append((low, high))
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda span: reader.read(*span), spans)
        assert list(read) == [TEXT[low:high] for low, high in spans]


def test_an_empty_file_is_one(shelf: Shelf) -> None:
    try:
        file = listed(shelf.put("a.txt", b""))
    except InputError as error:
        assert error.fix  # a server cannot give a part of nothing
        return
    assert file.size == 0
    assert file.store.open(file).read(0, 0) == b""


def test_too_little_is_an_error(shelf: Shelf) -> None:
    file = listed(shelf.put("a.txt", TEXT))
    reader = file.store.open(file)
    with shelf.short("a.txt"), pytest.raises(TokenmillError) as error:
        reader.read(file.size - 5000, file.size)
    assert file.path in str(error.value.where) and error.value.fix
    assert reader.read(file.size - 5000, file.size) == TEXT[-5000:]


@pytest.mark.parametrize("change", ["content", "longer", "shorter", "gone"])
def test_a_changed_file_is_never_mixed_up(change: str, shelf: Shelf) -> None:
    """Its bytes are those that were found, or there is an error: while it is read, or by
    `check_unchanged`."""
    file = listed(shelf.put("a.txt", TEXT))
    file.store.check_unchanged(file)
    if change == "gone":
        shelf.remove("a.txt")
    else:
        shelf.put("a.txt", {"content": OTHER, "longer": TEXT + b"x", "shorter": TEXT[:-1]}[change])
    seen = failure_of(lambda: file.store.check_unchanged(file), file)
    try:
        data = whole(file)
    except TokenmillError:
        assert seen, "what cannot be read any more is not what it was"
        assert failure_of(lambda: whole(file), file)
    else:
        assert seen or data == TEXT


def failure_of(call: Callable[[], object], file: InputFile) -> bool:
    """Does it fail, in words?"""
    try:
        call()
    except InputError as error:
        assert file.path in str(error.where) and error.fix
        return True
    return False


def test_a_copy_reads_the_same_and_holds_no_secret(shelf: Shelf) -> None:
    file = listed(shelf.put("a.txt", TEXT))
    assert whole(file) == TEXT  # a client was made, perhaps with a token
    packed = pickle.dumps(file)
    for name, value in os.environ.items():
        if name.startswith(("HF_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY")):
            assert value.encode() not in packed
    copy = pickle.loads(packed)
    assert (copy, copy.store.is_remote) == (file, file.store.is_remote)
    assert whole(copy) == TEXT
    copy.store.check_unchanged(copy)


def test_a_store_says_what_it_is(shelf: Shelf) -> None:
    file = listed(shelf.put("a.txt", TEXT))
    store, scheme = file.store, file.path.partition("://")[0]
    assert store.is_replayable
    assert (store.policy is not None) == store.is_remote
    assert store.has_paths == os.path.exists(file.path)
    assert store.can_write == (scheme in SCHEMES and is_store(f"{scheme}://bucket/key"))
    assert store.finalized(file) == file
    with pytest.raises(TypeError):
        store.once(file)
    store.close()
    assert whole(file) == TEXT


def hashes(files: list[InputFile]) -> list[str]:
    return [hashlib.sha256(whole(file)).hexdigest() for file in files]


def elsewhere(function: str, thing: Any) -> list[str]:
    """What a function of this module gives in another process, where everything is fresh."""
    script = (
        "import pickle, sys; from tests.contract import test_stores as here; "
        f"print(*here.{function}(pickle.loads(sys.stdin.buffer.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(thing), capture_output=True,
        check=False, env=command_environment(), cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()


def test_another_process_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 10.0)
    files = []
    for name, make in ALL.items():
        (folder := tmp_path / name).mkdir()
        files.append(listed(make(folder, monkeypatch, opened).put("a.txt", TEXT)))
    assert elsewhere("hashes", files) == [hashlib.sha256(TEXT).hexdigest()] * len(ALL)


def digests(packed: list[tuple[Any, Any]]) -> list[str]:
    return [digest(recipe, blocks) for recipe, blocks in packed]


REMOTE = (("web", "one.txt"), ("hub", "jsonl.zst"), ("web", "parquet"), ("hub", "giant.parquet"),
          ("gs", "parquet"))  # fmt: skip


def test_blocks_of_remote_inputs_are_encoded_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    """As those of the same file on disk are."""
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 10.0)
    packed, expected = [], []
    for store, kind in REMOTE:
        (folder := tmp_path / f"{store}-{kind}").mkdir()
        corpus = written(kind, folder)
        near = plan_of(corpus.path, **corpus.options).worker(check=0.1)
        expected.append(digest(near.recipe, list(near.corpus.blocks())))
        shelf = SHELVES[store](folder, monkeypatch, opened)
        url: Any = shelf.put(corpus.path.name, corpus.path.read_bytes())
        far = plan_of(url, **corpus.options).worker(check=0.1)
        blocks = list(far.corpus.blocks())
        assert far.recipe.files[0].store.is_remote and len(blocks) > 10
        packed.append((far.recipe, blocks))
    assert elsewhere("digests", packed) == expected


# --- a store that is one file and one line


def test_a_line_of_the_table_is_all_that_a_run_needs(tmp_path: Path) -> None:
    """Members of an archive, `toy_store.py`, give what the same files in a folder give."""
    for kind in ("jsonl.zst", "giant.parquet", "one.txt"):
        written(kind, tmp_path / "folder" / kind[0])
    with ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (tmp_path / "folder").rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path / "folder"))
    chosen: dict[str, Any] = {"format": "build-nanogpt", "shard_tokens": "20K", "sizes": SMALL}
    sized.prepare(tmp_path / "folder", out=tmp_path / "near", **chosen)
    url = f"zip://{tmp_path}/all.zip"
    sized.prepare(url, out=tmp_path / "far", **chosen)
    assert len(Outcome(tmp_path / "near").hashes) > 3
    assert Outcome(tmp_path / "far").hashes == Outcome(tmp_path / "near").hashes
    assert not list(tokenmill.verify(tmp_path / "far", against=[url]))


# --- what is read once


def piped(tmp_path: Path, content: bytes) -> InputFile:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    child = subprocess.Popen(["sh", "-c", f"cat > {path}"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(content)
    child.stdin.close()
    (file,) = find_inputs([str(path)], Selection()).files
    assert child.wait() == 0
    return file


def test_a_pipe_is_read_once_and_knows_its_identity_at_the_end(tmp_path: Path) -> None:
    text = b"first line\n" * 3000
    file = piped(tmp_path, text)
    store = file.store
    assert (store.is_replayable, store.is_remote, store.can_write) == (False, False, False)
    with pytest.raises(InputError, match="front to back"):
        store.open(file)
    reader, received = store.once(file), b""
    while data := reader.read(7001):
        received += data
    assert received == text
    store.check_unchanged(file)
    settled = store.finalized(file)
    assert (settled.size, len(settled.probe)) == (len(text), 16)


def test_a_pipe_gives_nothing_to_another_process(tmp_path: Path) -> None:
    """Its blocks hold their text; whoever asks for more is told."""
    file = piped(tmp_path, b"first line\nsecond line\n")
    copy = copied(file)
    assert isinstance(copy.store, Pipe) and not copy.store.is_replayable
    assert copy == file
    with pytest.raises(InputError, match="the process that opened it"):
        copy.store.once(copy).read(1)
