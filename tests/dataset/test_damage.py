"""Every damage to a finished dataset is found and named, in a folder and in a bucket; an undamaged
one has none.

Damage is done to a folder. Where the dataset is one in a bucket, the bucket gets what the folder
has before it is verified: its regular files, and an object in each of its folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.kit import corpora, texts
from tests.kit.outcome import Outcome, prepare
from tests.kit.stores import BUCKET, Store
from tests.stores.test_store import server
from tokenmill import verify
from tokenmill.dataset.manifest import load_manifest
from tokenmill.errors import DamageFound

__all__ = ["server"]  # a fixture
FORMATS: dict[str, dict[str, Any]] = {
    "nanogpt": {"val_fraction": 0.2},
    "build-nanogpt": {"format": "build-nanogpt", "shard_tokens": "3K"},
    "llm.c": {"format": "llm.c", "shard_tokens": "3K", "val_fraction": 0.2},
    "modded-nanogpt": {"format": "modded-nanogpt", "shard_tokens": "3K", "val_shards": 2},
}
IN_BUCKET = "llm.c in a bucket"
Damage = Callable[[Path], object]


class Mirror:
    """A prefix that is made to hold what a folder does."""

    def __init__(self, store: Store) -> None:
        self.url = f"s3://{BUCKET}/damaged/set"
        self._store = store
        self._there: dict[str, bytes] = {}

    def take(self, folder: Path) -> None:
        wanted: dict[str, bytes] = {}
        for path in folder.iterdir():
            if path.is_file() and not path.is_symlink():
                wanted[path.name] = path.read_bytes()
            elif path.is_dir():
                wanted[f"{path.name}/object"] = b""
        for name in self._there.keys() - wanted.keys():
            self._store.client.delete_object(Bucket=BUCKET, Key=f"damaged/set/{name}")
        for name, content in wanted.items():
            if self._there.get(name) != content:
                self._store.put(f"damaged/set/{name}", content)
        self._there = wanted


MIRRORS: dict[Path, Mirror] = {}
"""Of the datasets that are to be in a bucket."""


def place(folder: Path) -> str | Path:
    """Where the dataset of a folder is to be verified."""
    if folder not in MIRRORS:
        return folder
    MIRRORS[folder].take(folder)
    return MIRRORS[folder].url


@pytest.fixture(scope="module", params=[*FORMATS, IN_BUCKET])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A small finished dataset of each format, made once; and one in a bucket."""
    folder, layout = tmp_path_factory.mktemp("whole"), request.param.partition(" ")[0]
    documents = [f"{n} {texts.prose(900)}" for n in range(60)]
    corpus = corpora.write(folder, "jsonl", documents)
    out = prepare(corpus, folder / "out", **FORMATS[layout]).folder
    with pytest.MonkeyPatch.context() as patch:
        if request.param == IN_BUCKET:
            store = request.getfixturevalue("server")
            MIRRORS[out] = Mirror(store)
            for name, value in store.env.items():
                patch.setenv(name, value)
        yield out
        MIRRORS.pop(out, None)


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, to be damaged at will."""
    copy = Path(shutil.copytree(whole, tmp_path / "out"))
    if whole in MIRRORS:
        MIRRORS[copy] = MIRRORS[whole]
    yield copy
    MIRRORS.pop(copy, None)


def shards(folder: Path) -> list[Path]:
    return [folder / shard["name"] for shard in Outcome(folder).manifest["shards"]]


def found(folder: Path, **options: Any) -> set[tuple[str, str]]:
    return {(problem.kind, problem.name) for problem in verify(place(folder), **options)}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and keep it one that can be read."""
    manifest = Outcome(folder).manifest
    change(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text)


def swap(folder: Path) -> None:
    first, second = shards(folder)[:2]
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)


def link(path: Path) -> None:
    shutil.move(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


OF_A_SHARD: dict[str, tuple[Damage, str]] = {
    "missing": (lambda path: path.unlink(), "missing"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 2), "truncated"),
    "emptied": (lambda path: os.truncate(path, 0), "truncated"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0\0"), "longer"),
    "a link": (link, "changed"),
    "a folder": (folder_instead, "changed"),
    "a pipe": (pipe_instead, "changed"),
    "first bit": (lambda path: flip(path, 0), "changed"),
    "a bit": (lambda path: flip(path, path.stat().st_size // 2), "changed"),
    "last bit": (lambda path: flip(path, -1), "changed"),
}
ONLY_BY_HASH = {"first bit", "a bit", "last bit"}
NO_FILES = {"a link", "a folder", "a pipe"}
"""Of which a bucket has none: there the object is missing."""


def kind_of(damage: str, kind: str, dataset: Path) -> str:
    """What a damage is called where the dataset lies."""
    return "missing" if damage in NO_FILES and dataset in MIRRORS else kind


def test_nothing_is_wrong_with_a_whole_dataset(whole: Path) -> None:
    assert found(whole) == set()
    assert found(whole, quick=True) == set()


@pytest.mark.parametrize("name", OF_A_SHARD)
def test_damage_to_any_shard_is_found(name: str, dataset: Path) -> None:
    damage, kind = OF_A_SHARD[name]
    kind = kind_of(name, kind, dataset)
    for path in (shards(dataset)[0], shards(dataset)[-1]):
        damage(path)
        assert (kind, path.name) in found(dataset)
        if name not in ONLY_BY_HASH:
            assert (kind, path.name) in found(dataset, quick=True)
    assert len(found(dataset)) == 2, "two damages are two problems"


def test_a_flipped_header_is_found_by_quick_too(dataset: Path) -> None:
    path = shards(dataset)[-1]
    if Outcome(dataset).manifest["format"] != "nanogpt":
        flip(path, 0)
        assert ("changed", path.name) in found(dataset, quick=True)


def test_swapped_shards_are_named_with_each_other(dataset: Path) -> None:
    first, second = (path.name for path in shards(dataset)[:2])
    swap(dataset)
    problems = {problem.name: problem for problem in verify(place(dataset))}
    assert set(problems) == {first, second}
    assert {problem.kind for problem in problems.values()} == {"swapped"}
    assert f"swapped with {second}" in problems[first].detail


STRAYS: dict[str, Damage] = {
    "extra.bin": lambda path: path.write_bytes(b"x"),
    "manifest.json.partial": lambda path: path.write_bytes(b"x"),
    "edufineweb_train_999999.npy.partial": lambda path: path.write_bytes(b""),
    "quarantine.jsonl": lambda path: path.write_bytes(b""),
    "folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/nowhere"),
    ".hidden": lambda path: path.write_bytes(b"x"),
    ".tokenmill": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("quick", [False, True])
def test_every_stray_is_named(quick: bool, dataset: Path) -> None:
    for name, make in STRAYS.items():
        make(dataset / name)
    names = STRAYS.keys() - ({"link"} if dataset in MIRRORS else set())
    assert found(dataset, quick=quick) == {("stray", name) for name in names}


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a count": lambda manifest: manifest["counts"].update(documents=1),
    "a count that nothing else tells": lambda m: m["counts"].update(text_bytes=1),
    "an origin": lambda manifest: manifest["shards"][-1]["origin"].update(skip=77),
    "a hash": lambda manifest: manifest["shards"][0].update(sha256="0" * 64),
    "a name": lambda manifest: manifest["shards"][0].update(name="other.bin"),
    "tokens": lambda manifest: manifest["shards"][0].update(tokens=5),
    "a shard less": lambda manifest: manifest["shards"].pop(),
    "the seed": lambda manifest: manifest["spec"].update(seed=9),
    "the fingerprint": lambda manifest: manifest.update(fingerprint="0"),
    "a new key": lambda manifest: manifest.update(new="key"),
    "an input": lambda manifest: manifest["inputs"][0].update(path="other.jsonl"),
    "a quarantine": lambda m: m.update(
        quarantine={"reasons": {"crash": 1}, "bytes": 3, "sha256": "0" * 64}
    ),
}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_manifest_is_named(name: str, quick: bool, dataset: Path) -> None:
    edit(dataset, EDITS[name])
    assert "manifest.json" in {name for _, name in found(dataset, quick=quick)}


def test_an_edit_that_changes_only_spaces_is_found(dataset: Path) -> None:
    path = dataset / "manifest.json"
    path.write_text(path.read_text() + "\n")
    assert ("changed", "manifest.json") in found(dataset)


SUMS: dict[str, tuple[Damage, str]] = {
    "missing": (lambda path: path.unlink(), "missing"),
    "a link": (link, "changed"),
    "empty": (lambda path: os.truncate(path, 0), "changed"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 20), "changed"),
    "a line less": (lambda p: p.write_bytes(p.read_bytes().split(b"\n", 1)[1]), "changed"),
    "a line more": (lambda path: path.write_bytes(path.read_bytes() + b"0  x\n"), "changed"),
    "a bit": (lambda path: flip(path, 3), "changed"),
}


@pytest.mark.parametrize("name", SUMS)
def test_damaged_sums_are_named(name: str, dataset: Path) -> None:
    damage, kind = SUMS[name]
    damage(dataset / "SHA256SUMS")
    assert found(dataset) == {(kind_of(name, kind, dataset), "SHA256SUMS")}


def test_a_wrong_hash_of_the_manifest_names_both_files(dataset: Path) -> None:
    """Which of the two was edited cannot be told."""
    path = dataset / "SHA256SUMS"
    flip(path, path.read_bytes().rindex(b"\n", 0, -1) + 1)
    problem = next(iter(verify(place(dataset))))
    assert problem.name == "manifest.json" and "SHA256SUMS" in problem.detail


def test_many_damages_at_once_are_all_named(dataset: Path, tokenmill: Run) -> None:
    first, last = shards(dataset)[0], shards(dataset)[-1]
    flip(first, -1)
    last.unlink()
    (dataset / "SHA256SUMS").unlink()
    (dataset / "notes.md").write_text("mine")
    expected = {
        ("changed", first.name), ("missing", last.name), ("missing", "SHA256SUMS"),
        ("stray", "notes.md"),
    }  # fmt: skip
    assert found(dataset) == expected
    done = tokenmill("verify", place(dataset), "--json")
    assert done.rc == 13, done.stderr
    problems = [line for line in done.lines if line["type"] == "problem"]
    assert {(line["kind"], line["name"]) for line in problems} == expected


def quarantined(folder: Path) -> Path:
    """Make a dataset look as if records had been left out of it."""
    lines = [{"reason": reason, "detail": "d"} for reason in ("crash", "crash", "json")]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / "quarantine.jsonl").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    about = {"reasons": {"crash": 2, "json": 1}, "bytes": len(content), "sha256": digest}
    edit(folder, lambda m: (m.update(quarantine=about), m["counts"].update(quarantined=3)))
    (folder / "SHA256SUMS").write_bytes(load_manifest(folder).sha256sums())
    return folder / "quarantine.jsonl"


OF_QUARANTINE: dict[str, tuple[Damage, str, bool]] = {
    "missing": (lambda path: path.unlink(), "missing", True),
    "truncated": (lambda path: os.truncate(path, 4), "truncated", True),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"{}\n"), "longer", True),
    "a bit": (lambda path: flip(path, 14), "changed", False),
}


@pytest.mark.parametrize("name", OF_QUARANTINE)
def test_a_damaged_quarantine_is_named(name: str, dataset: Path) -> None:
    path = quarantined(dataset)
    assert found(dataset) == set()
    damage, kind, is_quick = OF_QUARANTINE[name]
    damage(path)
    assert found(dataset) == {(kind, "quarantine.jsonl")}
    assert found(dataset, quick=True) == ({(kind, "quarantine.jsonl")} if is_quick else set())


def test_records_of_other_reasons_are_miscounted(dataset: Path) -> None:
    quarantined(dataset)
    change = {"crash": 1, "json": 2}
    edit(dataset, lambda manifest: manifest["quarantine"].update(reasons=change))
    (dataset / "SHA256SUMS").write_bytes(load_manifest(dataset).sha256sums())
    assert found(dataset) == {("miscounted", "quarantine.jsonl")}


def deep(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest)[:-1] + ', "spec": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}"


NONSENSE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no JSON": lambda manifest: "tokens",
    "cut": lambda manifest: json.dumps(manifest)[:-30],
    "empty": lambda manifest: "",
    "binary": lambda manifest: b"\xff\x00\xfe" * 50,
    "a list": lambda manifest: [],
    "nested deeply": deep,
    "lists nested deeply": lambda manifest: "[" * 1_000_000,
    "no shards": lambda manifest: manifest.pop("shards") and manifest,
    "shards that are text": lambda manifest: {**manifest, "shards": "many"},
    "another version": lambda manifest: {**manifest, "manifest_version": 99},
    "another format": lambda manifest: {**manifest, "format": "papyrus"},
    "no counts": lambda manifest: {**manifest, "counts": {}},
    "a negative count": lambda manifest: {**manifest, "counts": {"documents": -1}},
    "a huge count": lambda manifest: {**manifest, "counts": {"documents": 10**40}},
    "no tokenizer": lambda manifest: {**manifest, "tokenizer": {}},
}
OF_SHARDS: dict[str, dict[str, Any]] = {
    "absolute": {"name": "/etc/passwd"},
    "above": {"name": "../secret"},
    "dots": {"name": ".."},
    "nothing": {"name": ""},
    "NUL": {"name": "a\0b"},
    "itself": {"name": "manifest.json"},
    "negative": {"tokens": -5},
    "negative bytes": {"bytes": -5},
    "half": {"tokens": 0.5},
    "of text": {"documents": "7"},
    "split": {"split": "test"},
    "origin": {"origin": None},
    "below zero": {"origin": {"file": -1, "state": None, "skip": 0, "val_left": 0,
                              "open_split": "train"}},
}  # fmt: skip
for name, change in OF_SHARDS.items():

    def changed(manifest: dict[str, Any], change: dict[str, Any] = change) -> dict[str, Any]:
        return {**manifest, "shards": [{**manifest["shards"][0], **change}]}

    NONSENSE[f"a shard: {name}"] = changed
NONSENSE["a shard twice"] = lambda m: {**m, "shards": [m["shards"][0]] * 2}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_damaged_manifest_is_a_clear_error(name: str, dataset: Path) -> None:
    (dataset.parent / "secret").write_bytes(b"\1\2")
    content = NONSENSE[name](Outcome(dataset).manifest)
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    data = content if isinstance(content, bytes) else content.encode()
    (dataset / "manifest.json").write_bytes(data)
    with pytest.raises(DamageFound) as caught:
        list(verify(place(dataset)))
    assert "manifest.json" in str(caught.value) and "fix:" in str(caught.value)
    assert caught.value.exit_code == 13


def test_a_manifest_that_is_no_file_is_a_clear_error(dataset: Path) -> None:
    (dataset / "manifest.json").unlink()
    os.mkfifo(dataset / "manifest.json")
    why = "there is no such object" if dataset in MIRRORS else "not a regular file"
    with pytest.raises(DamageFound, match=why):
        list(verify(place(dataset)))
