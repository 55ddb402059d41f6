"""The order in which bytes become durable, from the system calls of whole runs.

Power may fail at any moment: then what was synced is there and the rest may be anything. So
nothing may refer to what is not yet synced: no journal entry, no final name, no manifest.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kit import runs
from tests.kit.injection import Scene, arguments, need_strace

LINE = re.compile(r"(\d+) +(.*)")
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?")
UNFINISHED = re.compile(r"(.*?) *<unfinished \.\.\.>")
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
PLACE = re.compile(r"\d+<([^>]*)>")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """One system call that succeeded: it began and ended at these lines of the log."""

    name: str
    arguments: str
    result: int
    began: int
    ended: int
    opened: str

    @property
    def path(self) -> str:
        match = PLACE.match(self.arguments)
        assert match
        return match[1]

    def strings(self) -> list[str]:
        return [decoded(text) for text in STRING.findall(self.arguments)]


def decoded(text: str) -> str:
    plain: bytes = codecs.escape_decode(text.encode())[0]
    return plain.decode("latin-1")


def calls_of(log: Path) -> list[Call]:
    """The calls that succeeded, by the order in which they ended."""
    found: list[Call] = []
    unfinished: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(log.read_text().splitlines()):
        match = LINE.match(line)
        assert match, line
        thread, text = match.groups()
        began = number
        if stopped := UNFINISHED.fullmatch(text):
            unfinished[thread] = (stopped[1], number)
            continue
        if resumed := RESUMED.match(text):
            head, began = unfinished.pop(thread)
            text = head + resumed[1]
        if (call := CALL.match(text)) and int(call[3]) >= 0:
            found.append(Call(call[1], call[2], int(call[3]), began, number, call[4] or ""))
    return found


@dataclass
class File:
    """What is known of one file: its writes and syncs, as (began, ended, size after it)."""

    writes: list[tuple[int, int]] = field(default_factory=list)
    syncs: list[Call] = field(default_factory=list)

    def durable(self, before: int) -> int:
        """Bytes that were surely on disk before a line of the log."""
        started = [sync.began for sync in self.syncs if sync.ended < before]
        return max((size for end, size in self.writes if started and end < max(started)), default=0)

    def is_clean(self, before: int) -> bool:
        """Was everything that was ever written synced before a line of the log?"""
        last = max((end for end, _ in self.writes), default=-1)
        return any(last < sync.began and sync.ended < before for sync in self.syncs)


class Story:
    """A run, as its system calls tell it."""

    def __init__(self, log: Path, out: Path) -> None:
        self.out = str(out)
        self.journal = str(runs.journal(out))
        self.calls = calls_of(log)
        self.files: dict[str, File] = defaultdict(File)
        self.entries: list[tuple[Call, dict[str, Any]]] = []
        self.renames: list[tuple[Call, str, str]] = []
        self.created: dict[str, int] = {}
        self.removed: list[Call] = []
        sizes: dict[str, int] = defaultdict(int)
        for call in self.calls:
            self._take(call, sizes)

    def _take(self, call: Call, sizes: dict[str, int]) -> None:
        if call.name in ("fsync", "fdatasync"):
            self.files[call.path].syncs.append(call)
        elif call.name == "ftruncate":
            sizes[call.path] = int(call.arguments.rpartition(",")[2])
            self.files[call.path].writes.append((call.ended, sizes[call.path]))
        elif call.name in ("write", "pwrite64"):
            sizes[call.path] += call.result if call.name == "write" else 0
            self.files[call.path].writes.append((call.ended, sizes[call.path]))
            if call.path == self.journal:
                text = call.strings()[0].partition(" ")[2]
                self.entries.append((call, json.loads(text)))
        elif call.name == "openat" and "O_CREAT" in call.arguments:
            self.created.setdefault(call.opened, call.ended)
        elif call.name == "rename":
            source, target = call.strings()
            self.renames.append((call, source, target))
        elif call.name in ("unlink", "unlinkat"):
            self.removed.append(call)

    def folder_synced(self, after: int, before: int) -> bool:
        syncs = self.files[self.out].syncs
        return any(after < sync.began and sync.ended < before for sync in syncs)

    def check_entries(self) -> None:
        """A journal entry refers only to what is durable, and is durable before the next."""
        ends = [call.began for call, _ in self.entries[1:]] + [len(self.calls) * 10]
        for (call, entry), following in zip(self.entries, ends, strict=True):
            syncs = self.files[self.journal].syncs
            assert any(call.ended < sync.began and sync.ended < following for sync in syncs)
            at = entry["at"] if entry["type"] == "encoded" else entry
            for file in at.get("open", []):
                self.check_durable(file["name"], file["bytes"], call.began)
            if entry["type"] == "shard":
                self.check_durable(entry["shard"]["name"], entry["shard"]["bytes"], call.began)
                assert self.files[self.partial(entry["shard"]["name"])].is_clean(call.began)

    def partial(self, name: str) -> str:
        return f"{self.out}/{name}.partial"

    def check_durable(self, name: str, size: int, before: int) -> None:
        path = self.partial(name)
        assert self.files[path].durable(before) >= size, f"{name} was not synced up to {size}"
        if path in self.created:  # else an earlier run made it, and synced its name
            assert self.folder_synced(self.created[path], before), f"{name}: its name is not synced"

    def check_names(self) -> None:
        """Final names: after everything is encoded, of what is durable, the manifest last."""
        kinds = [entry["type"] for _, entry in self.entries]
        assert kinds[-1] == "encoded"
        encoded = self.entries[-1][0]
        noted = next(
            sync.ended for sync in self.files[self.journal].syncs if sync.began > encoded.ended
        )
        for call, source, target in self.renames:
            assert source == f"{target}.partial"
            assert call.began > noted, f"{target} was named before all was encoded"
            assert self.files[source].is_clean(call.began), f"{source} was not synced"
        names = [Path(target).name for _, _, target in self.renames]
        assert names[-2:] == ["SHA256SUMS", "manifest.json"]
        assert len(set(names)) == len(names) > 4
        sums, manifest = self.renames[-2][0], self.renames[-1][0]
        assert self.folder_synced(self.renames[-3][0].ended, sums.began)
        assert self.folder_synced(sums.ended, manifest.began)
        last = [call.began for call in self.removed if call.began > manifest.ended]
        assert last, "the state folder goes when all is done"
        assert self.folder_synced(manifest.ended, min(last))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    need_strace()
    return Scene.make(tmp_path_factory.mktemp("scene"), "jsonl")


def trace(scene: Scene, out: Path, log: Path) -> Story:
    done = scene.run(out, *scene.tracing(out, log, "-s", "1000000"))
    assert done.rc == 0, done.stderr
    assert runs.snapshot(out) == scene.undisturbed
    story = Story(log, out)
    assert len(story.entries) > 8, "several shards and checkpoints are needed"
    return story


def test_nothing_refers_to_what_is_not_durable(scene: Scene, tmp_path: Path) -> None:
    story = trace(scene, tmp_path / "out", tmp_path / "log")
    story.check_entries()
    story.check_names()


def test_nor_in_a_run_that_goes_on(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = runs.run(*arguments(scene.corpus, out), "--max-time", "0.001s")
    assert stopped.rc == 10, stopped.stderr
    assert runs.checkpoints(out) >= 1
    story = trace(scene, out, tmp_path / "log")
    story.check_entries()
    story.check_names()
