"""The command with trouble built in: `python tests/kit/troubled.py prepare ...`.

The environment variable TROUBLE says which, as a JSON object:

* `block`: bytes of text in a block, so that a small corpus has many of them;
* `checkpoint`: seconds between two checkpoints;
* `pause`: seconds that each call of the fast engine takes longer;
* `die`: {engine: "abort", "segfault" or "hog"}, of a document that contains `marker`; a hog takes
  memory until it is killed, but not where the budget was cut; or "deaf", "deaf and dumb": the
  engine does not come back, without or with the interpreter's lock;
* `manifest`: "kill": worker and parent die when all is encoded and named but the manifest;
* `lease`: seconds between two beats of the lease on a prefix of an object store;
* `slow_checkpoint`: seconds that noting a checkpoint takes longer;
* `bitrot`: each whole shard changes on the disk before it is stored;
* `signal`: one of that number comes during the estimate, while native code calls Python;
* `alone`: no parent watches the work, so that one death is the end of the run.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenmill.cli import main as cli
from tokenmill.cli import prepare as cli_prepare
from tokenmill.commands import prepare
from tokenmill.dataset.manifest import Shard
from tokenmill.executors.supervisor import Attempt
from tokenmill.memory import Budget
from tokenmill.output import folder, journal, lease, uploads
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.stores import durable
from tokenmill.tokenizers import engines
from tokenmill.tokenizers.engines.engine import Engine, EngineKind, Tokens
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

Make = Callable[[Vocabulary], Engine]
_hogs = True


def shrunk(block: int, **others: int) -> Sizes:
    """Blocks of about `block` bytes, and all other sizes of the sources to go with that."""
    sizes = {"hashed": block // 2, "reach": block // 2, "large_row_group": 4 * block,
             "batch": block // 2}  # fmt: skip
    return Sizes(**{"block": block, **sizes, **others})


def hog() -> None:
    """Take memory until the kernel ends it."""
    held = []
    while _hogs:
        held.append(b"x" * 16_000_000)


def sleep_deaf(holds_lock: bool) -> None:
    """In native code for ever, as a pattern that tries for ever: with the interpreter's lock held
    no other thread runs, a signal's handler neither."""
    if threading.current_thread() is not threading.main_thread():  # which only estimates
        (ctypes.PyDLL if holds_lock else ctypes.CDLL)(None).sleep(1000)


DEATHS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "hog": hog,
    "deaf": lambda: sleep_deaf(False),
    "deaf and dumb": lambda: sleep_deaf(True),
}


def panic_at_signal(number: int) -> None:
    """As native code does that calls Python, where the signal's handler raises."""
    try:
        signal.raise_signal(number)
    except BaseException as error:
        raise SystemError("native code got an exception where it expects none") from error


class Troubled:
    """An engine that waits, and dies of a marker."""

    def __init__(
        self,
        engine: Engine,
        pause: float,
        marker: bytes,
        die: Callable[[], object],
        number: int | None,
    ) -> None:
        self.name = engine.name
        self.token_bytes = engine.token_bytes
        self.drop_caches = engine.drop_caches
        self._engine = engine
        self._pause = pause
        self._marker = marker
        self._die = die
        self._signal = number

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        if threading.current_thread() is not threading.main_thread():  # which only estimates
            time.sleep(self._pause)
        elif self._signal is not None:
            panic_at_signal(self._signal)
        if any(self._marker in document for document in documents):
            self._die()
        return self._engine.encode(documents)

    def encode_piece(self, text: bytes) -> list[int]:
        if self._marker in text:
            self._die()
        return self._engine.encode_piece(text)


class Remade:
    """An engine of the table by what it declares, made in another way."""

    def __init__(self, kind: EngineKind, make: Make) -> None:
        self.name, self.reads = kind.name, kind.reads
        self.refusal, self.needs = kind.refusal, kind.needs
        self._make = make

    def __call__(self, vocabulary: Vocabulary) -> Engine:
        return self._make(vocabulary)


def trouble_engines(wanted: dict[str, Any]) -> None:
    """Wrap the engines in ENGINES as wanted."""
    marker = wanted.get("marker", "no marker at all").encode()
    for name, make in list(engines.ENGINES.items()):
        pause = wanted.get("pause", 0) if name == engines.DEFAULT_ENGINE else 0
        die = DEATHS.get(wanted.get("die", {}).get(name), lambda: None)

        def wrapped(
            vocabulary: Vocabulary,
            make: EngineKind = make,
            pause: float = pause,
            die: Callable[[], object] = die,
        ) -> Engine:
            return Troubled(make(vocabulary), pause, marker, die, wanted.get("signal"))

        engines.ENGINES[name] = Remade(make, wrapped)


def spare_small_budgets() -> None:
    """From now on nothing hogs once the budget was cut."""
    shrunk = Budget.shrunk

    def told(budget: Budget, times: int, beside: int) -> Budget:
        global _hogs
        _hogs = not times
        return shrunk(budget, times, beside)

    setattr(Budget, "shrunk", told)  # noqa: B010  mypy knows no such thing


def die_before_manifest() -> None:
    """Worker and parent die when the manifest is to be written."""

    def dying(path: Path, content: bytes) -> None:
        if path.name == "manifest.json":
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        durable.write_durably(path, content)

    vars(folder)["write_durably"] = dying


def rot_whole_shards() -> None:
    """A bit flips in each shard after its hash was noted."""
    add = uploads.Uploads.add

    def rotting(self: uploads.Uploads, shard: Shard) -> None:
        with (self._folder / (shard.name + ".partial")).open("r+b") as file:
            file.seek(1000)
            byte = file.read(1)
            file.seek(1000)
            file.write(bytes([byte[0] ^ 1]))
        add(self, shard)

    setattr(uploads.Uploads, "add", rotting)  # noqa: B010  mypy knows no such thing


def delay_checkpoints(seconds: float) -> None:
    """The disk is slow to sync."""
    append = journal.Journal.append

    def delayed(self: journal.Journal, entry: journal.Entry) -> None:
        if isinstance(entry, journal.Checkpoint):
            time.sleep(seconds)
        append(self, entry)

    setattr(journal.Journal, "append", delayed)  # noqa: B010  mypy knows no such thing


def main() -> None:
    """Make the trouble, then be the command."""
    wanted = json.loads(os.environ.get("TROUBLE", "{}"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "checkpoint" in wanted:
        vars(prepare)["DEFAULT_CHECKPOINT_SECONDS"] = wanted["checkpoint"]
    if "manifest" in wanted:
        die_before_manifest()
    if "lease" in wanted:
        vars(lease)["BEAT_SECONDS"] = wanted["lease"]
    if "slow_checkpoint" in wanted:
        delay_checkpoints(wanted["slow_checkpoint"])
    if wanted.get("bitrot"):
        rot_whole_shards()
    if wanted.get("alone"):
        vars(cli_prepare)["_supervised"] = lambda place, is_quiet: Attempt()
    spare_small_budgets()
    trouble_engines(wanted)
    cli.main(shrunk(wanted["block"]) if "block" in wanted else DEFAULT_SIZES)


if __name__ == "__main__":
    sys.argv[0] = "tokenmill"
    main()
