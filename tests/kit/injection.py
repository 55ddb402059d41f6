"""System calls on the output folder, seen, failed and made deadly with strace.

strace counts `when=` for each thread by itself, from the thread's start; only calls on the paths
given with `-P` are seen and counted. Signals are not injected under `--seccomp-bpf`.
"""

from __future__ import annotations

import collections
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Result
from tests.kit import corpora, runs
from tests.kit.runs import snapshot

CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "openat", "ftruncate", "unlink",
    "unlinkat", "mkdir", "rmdir",
)  # fmt: skip


def need_strace() -> None:
    """Skip, with the reason, where strace cannot be used."""
    if shutil.which("strace") is None:
        pytest.skip("NOT TESTED: strace is missing, so no system call can be seen or failed")


@dataclass(frozen=True)
class Scene:
    """An input, and the folder that an undisturbed run over it gives."""

    kind: str
    corpus: corpora.Corpus
    undisturbed: dict[str, str]

    @classmethod
    def make(cls, folder: Path, kind: str, documents: int = 40) -> Scene:
        corpus = runs.write_corpus(folder / "in", kind, documents)
        done = runs.run(*arguments(corpus, folder / "undisturbed"))
        assert done.rc == 0, done.stderr
        assert runs.run("verify", folder / "undisturbed").rc == 0
        return cls(kind, corpus, snapshot(folder / "undisturbed"))

    def tracing(self, out: Path, log: Path, *more: str) -> tuple[str, ...]:
        """The strace command for all that happens in `out`."""
        state = out / ".tokenmill"
        names = ("journal", "lock", "token", "token.partial")
        paths = [out, state, *(state / name for name in names)]
        paths += [out / (name + end) for name in self.undisturbed for end in ("", ".partial")]
        watched = [part for path in paths for part in ("-P", str(path))]
        fast = [] if any("signal=" in part for part in more) else ["--seccomp-bpf"]
        command = ["strace", "-f", "-y", "-qq", "-s", "8", *fast, "-o", str(log)]
        return (*command, "-e", f"trace={','.join(CALLS)}", *watched, *more)

    def run(self, out: Path, *prefix: str, **trouble: Any) -> Result:
        """The command, alone (no parent watches it) unless the trouble says otherwise."""
        wanted = {"alone": True, "pause": 0.01, **trouble}
        return runs.run(*arguments(self.corpus, out), prefix=prefix, **wanted)

    def points(self, folder: Path) -> list[tuple[str, int]]:
        """Every call by name and number, such as the third write of a thread."""
        log = folder / "points.log"
        out = folder / "points"
        done = self.run(out, *self.tracing(out, log))
        assert done.rc == 0, done.stderr
        assert snapshot(out) == self.undisturbed
        return points_of(log)


def points_of(log: Path) -> list[tuple[str, int]]:
    """The calls that strace noted, by name and number."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in log.read_text().splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match:
            counts[match[1], match[2]] += 1
    most: dict[str, int] = {}
    for (_, call), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    return [(call, number + 1) for call in CALLS for number in range(most.get(call, 0))]


def arguments(corpus: corpora.Corpus, out: Path) -> list[object]:
    """TOKENMILL_EXECUTOR, in the environment, says what workers are: `processes`."""
    executor = os.environ.get("TOKENMILL_EXECUTOR", "auto")
    return ["prepare", *corpus.arguments(), "--out", out, "--executor", executor, *runs.OPTIONS]
