"""What tokenmill did not write stays as it is, whatever its name: as a campaign.

Things of somebody else's (files, empty, read-only and hard-linked ones, links, folders, pipes) are
put under names that tokenmill uses, into its output and its inputs; each command is killed at
system calls, and gone on with: the same command, and what its ``fix:`` advises, until it is done.
The names are those that watched runs make, and those of all formats.

TOKENMILL_SEED draws all of it; TOKENMILL_POINTS is the number of kills, of which only those count
that hit a running process.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import random
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kit.sized import shrunk
from tests.kit.troubled import Remade
from tests.torture import syscalls
from tests.torture.syscalls import Outcome
from tokenmill.cli import main
from tokenmill.cli import prepare as cli_prepare
from tokenmill.commands import estimate, plan, prepare
from tokenmill.executors.supervisor import Attempt
from tokenmill.formats import FORMATS
from tokenmill.stores.durable import FOUND_FOLDER, PARTIAL, STATE_FOLDER
from tokenmill.stores.side_files import SIDE_FILES
from tokenmill.tokenizers import engines
from tokenmill.tokenizers.engines.tiktoken import TiktokenEngine
from tokenmill.tokenizers.vocabularies import loading

SEED = int(os.environ.get("TOKENMILL_SEED", random.SystemRandom().randrange(10**9)))
POINTS = int(os.environ.get("TOKENMILL_POINTS", "4000"))
SECONDS = 20
FOREIGN = b"nobody's business\n"
QUARANTINE = ["--on-bad", "quarantine", "--engine", "tiktoken", "--threads", "1"]
DONE = (0, 3)
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Scene:
    """A command, and what it finds: a folder to be copied, in which it runs at ``cwd``; ``out`` is
    its output folder, relative to that."""

    name: str
    command: list[str]
    template: Path
    out: str = "out"
    cwd: str = "."
    looks_only: bool = False


@dataclass
class Foreign:
    """A thing of somebody else's, as it was put there."""

    path: Path
    kind: str
    inode: int
    seen: tuple[Any, ...] = field(default=(), repr=False)

    def is_there(self) -> bool:
        return os.path.lexists(self.path) and self.path.lstat().st_ino == self.inode


def described(path: Path) -> tuple[Any, ...]:
    """All of a thing that must not change."""
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:  # what is put into it is no change of what is there
        return (kind, *(described(below) for below in sorted(path.glob("mine*"))))
    content: object = None
    if kind == stat.S_IFREG:
        content = path.read_bytes()
    elif kind == stat.S_IFLNK:
        target = path.parent / os.readlink(path)
        content = (os.readlink(path), target.read_bytes() if target.is_file() else None)
    return (status.st_ino, status.st_mode, status.st_mtime_ns, content)


def put(path: Path, kind: str, aside: Path) -> Foreign:
    """Put a thing under a name, in the place of what has it."""
    if os.path.lexists(path):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    mine = aside / f"mine-{len(list(aside.iterdir()))}"
    mine.write_bytes(FOREIGN)
    if kind in ("file", "read-only", "empty"):
        path.write_bytes(b"" if kind == "empty" else FOREIGN)
        path.chmod(0o444 if kind == "read-only" else 0o644)
    elif kind == "hard link":
        os.link(mine, path)
    elif kind == "link":
        path.symlink_to(mine)
    elif kind == "link to nothing":
        path.symlink_to(aside / "nothing")
    elif kind == "link to a folder":
        (aside / "folder").mkdir(exist_ok=True)
        path.symlink_to(aside / "folder")
    elif kind == "folder":
        path.mkdir()
        (path / "mine.txt").write_bytes(FOREIGN)
    elif kind == "pipe":
        os.mkfifo(path)
    return Foreign(path, kind, path.lstat().st_ino, described(path))


KINDS = (
    "file", "read-only", "empty", "hard link", "link", "link to nothing", "link to a folder",
    "folder", "pipe",
)  # fmt: skip


class Commands:
    """Runs of the command in forks of this process, in which all is loaded."""

    def __init__(self) -> None:
        self._vocabulary = loading.load_vocabulary("gpt2")
        self._engine = TiktokenEngine(self._vocabulary)
        self._engine.encode([b"warm"])
        assert estimate and prepare  # loaded here, and not in each fork

    def call(self, command: list[str]) -> Callable[[], None]:
        def be_the_command() -> None:
            signal.alarm(SECONDS)
            vars(cli_prepare)["_supervised"] = lambda *_: Attempt()
            vars(plan)["load_vocabulary"] = lambda *_: self._vocabulary
            engines.ENGINES["tiktoken"] = Remade(TiktokenEngine, lambda _: self._engine)
            vars(prepare)["DEFAULT_CHECKPOINT_SECONDS"] = 0
            sys.argv = ["tokenmill", *command]
            main.main(shrunk(8 * 1024))

        return be_the_command

    def run(self, command: list[str], folder: Path) -> Outcome:
        return syscalls.run_untraced(self.call(command), folder)

    def traced(self, command: list[str], folder: Path, at: int | None, every: bool) -> Outcome:
        return syscalls.run(self.call(command), folder, at, every)


def write_inputs(folder: Path) -> None:
    """Two files of texts, one of them with records that cannot be used."""
    folder.mkdir(parents=True)
    words = random.Random(1)
    text = "".join(words.choice("abc de\n") for _ in range(5000))
    (folder / "a.txt").write_text(text * 3)
    lines = [f'{{"text": "document {number}"}}\n' for number in range(20)]
    (folder / "b.jsonl").write_text("".join([*lines, '{"other": 1}\n', *lines]))


def copy(template: Path, folder: Path) -> None:
    subprocess.run(["cp", "-a", str(template), str(folder)], check=True)  # keeps hard links


def scenes(root: Path, commands: Commands) -> list[Scene]:
    """Every command in every state in which it is met."""
    fresh, finished, unfinished, damaged = (
        root / name for name in ("fresh", "finished", "unfinished", "damaged")
    )
    write_inputs(fresh / "in")
    (fresh / "out").mkdir()
    (fresh / "in/out").mkdir()
    prepare = ["prepare", "in", "--out", "out", *QUARANTINE]
    inside = ["prepare", "in", "--out", "in/out", *QUARANTINE]
    here = ["prepare", ".", "--out", ".", *QUARANTINE]
    copy(fresh, finished)
    assert commands.run(prepare, finished).rc == 3
    copy(finished, damaged)
    with (damaged / "out/train.bin").open("r+b") as file:
        file.write(b"damage")
    (damaged / "out/SHA256SUMS").unlink()
    copy(fresh, unfinished)
    assert commands.traced(prepare, unfinished, 60, False).was_killed
    assert (unfinished / "out/.tokenmill/journal").stat().st_size
    over = ["--overwrite"]
    other = ["--format", "build-nanogpt", "--shard-tokens", "4K"]
    found = [
        Scene("prepare", prepare, fresh),
        Scene("prepare with shards", [*prepare, *other], fresh),
        Scene("prepare --overwrite, nothing there", [*prepare, *over], fresh),
        Scene("prepare, done before", prepare, finished),
        Scene("prepare --overwrite, a dataset there", [*prepare, *over], finished),
        Scene("prepare --overwrite, another dataset there", [*prepare, *over, *other], finished),
        Scene("prepare --overwrite, damaged", [*prepare, *over], damaged),
        Scene("prepare, unfinished", prepare, unfinished),
        Scene("prepare --overwrite, unfinished", [*prepare, *over], unfinished),
        Scene("prepare --repair", [*prepare, "--repair"], damaged),
        Scene("prepare . --out .", here, fresh, ".", "in"),
        Scene("prepare . --out . --overwrite", [*here, *over], fresh, ".", "in"),
        Scene("prepare, the output in the inputs", inside, fresh, "in/out"),
    ]
    looking = {
        "plan": ["plan", "in", *QUARANTINE],
        "verify": ["verify", "out"],
        "verify --quick": ["verify", "out", "--quick"],
        "verify --against": ["verify", "out", "--against", "in", "--share", "1"],
        "status": ["status", "out"],
        "inspect": ["inspect", "out"],
        "doctor": ["doctor", "--out", "out"],
    }
    for name, command in looking.items():
        for template in (finished, unfinished):
            found.append(Scene(f"{name}, {template.name}", command, template, looks_only=True))
    return found


def names_used(all_scenes: list[Scene], commands: Commands, root: Path) -> list[str]:
    """Every name that watched runs make in the output folder, and those of all formats. What is in
    a folder of claims is told by nothing but that folder's name, which is random."""
    found = {FOUND_FOLDER, STATE_FOLDER, *SIDE_FILES}
    for number, scene in enumerate(all_scenes):
        trial = root / f"watched-{number}"
        copy(scene.template, trial)
        done = commands.traced(scene.command, trial / scene.cwd, None, False)
        assert done.rc in (*DONE, 13), (scene.name, done.stderr)
        out = (trial / scene.cwd / scene.out).resolve()
        for name in done.names:
            place = Path(os.path.normpath(trial.resolve() / scene.cwd / name))
            if out in place.parents and not _ID.search(place.parent.name):
                found.add(_ID.sub("0" * 32, str(place.relative_to(out))))
        shutil.rmtree(trial)
    for layout in FORMATS.values():
        for split, index in itertools.product(("train", "val"), (None, 0, 1)):
            found |= {*layout.files(layout.default_name, split, index)}
    found |= {name.removesuffix(PARTIAL) for name in found}
    found |= {name + PARTIAL for name in found if "." in name and not name.endswith(PARTIAL)}
    found |= {os.path.join(os.path.dirname(n), os.path.basename(n).swapcase()) for n in found}
    return sorted(found)


class Trial:
    """One command, killed once, and gone on with."""

    def __init__(self, scene: Scene, folder: Path, aside: Path, commands: Commands) -> None:
        self.scene = scene
        self.folder = folder
        self.cwd = folder / scene.cwd
        self.out = self.cwd / scene.out
        self.aside = aside
        self.foreign: list[Foreign] = []
        self.said: list[str] = []
        self._commands = commands

    def place(self, name: str, kind: str) -> None:
        """Put something there, where there is a folder for it."""
        path = self.out / name
        if _ID.search(name) and kind == "folder":
            return  # as good as ours
        if STATE_FOLDER in name.split("/")[:-1] and not os.path.lexists(self.out / STATE_FOLDER):
            path.parent.mkdir()
        if path.parent.is_dir() and not path.parent.is_symlink():
            kept = [one for one in self.foreign if path not in (one.path, *one.path.parents)]
            self.foreign = kept
            self.foreign.append(put(path, kind, self.aside))

    def changed(self) -> str | None:
        """The first foreign thing that is not as it was, in words."""
        for one in self.foreign:
            if not one.is_there():
                found = self.out / FOUND_FOLDER
                places = sorted(found.iterdir()) if found.is_dir() else []
                same = [place for place in places if place.lstat().st_ino == one.inode]
                if not same:
                    return f"{one.path.name} ({one.kind}) is gone"
                one.path = same[0]
            if described(one.path) != one.seen:
                return f"{one.path.name} ({one.kind}) was changed"
        return None

    def go_on(self, *more: str) -> str | None:
        """The same command until it is done, doing what it advises; what is wrong, if anything."""
        without = [word for word in self.scene.command if not more or word != "--overwrite"]
        command = [*without, *more]
        errors: collections.Counter[str] = collections.Counter()
        while True:
            done = self._commands.run(command, self.cwd)
            self.said.append(f"{shlex.join(command)}: {done.rc}\n{done.stderr}")
            if wrong := self.changed() or self._nonsense(done):
                return wrong
            if done.rc in DONE or self.scene.looks_only:
                return None
            following = self._follow(command, done.stderr)
            if following is None:
                return "its advice leads nowhere"
            errors[done.stderr[done.stderr.rfind("error: ") :]] += 1
            if max(errors.values()) > 2:
                return "its advice does not help"
            command = following

    def _nonsense(self, done: Outcome) -> str | None:
        if done.rc < 0 or done.rc == 70:
            return f"exit code {done.rc}"
        if "Traceback" in done.stderr or "nobody foresaw" in done.stderr:
            return "a traceback"
        if done.rc not in (*DONE, 13) and "fix:" not in done.stderr:
            return "no advice"
        return None

    def _follow(self, command: list[str], told: str) -> list[str] | None:
        """The next command, after what the error advises was done."""
        fix = told.rpartition("fix: ")[2]
        if "move" in fix and self._move_away(told):
            return list(command)
        for option in ("--repair", "--overwrite"):
            if option in fix and option not in command:
                both = ("--repair", "--overwrite")
                return [*(word for word in command if word not in both), option]
        if "run the same command without --repair" in fix:
            return [word for word in command if word != "--repair"]
        return list(command) if re.search(r"run (it|this|the same command) again", fix) else None

    def _move_away(self, told: str) -> bool:
        """Move what the error names; was there any of it?"""
        where = told.rpartition("  where: ")[2].partition("\n")[0]
        named = [self.cwd / where, *(self.out / n for n in where.rpartition(": ")[2].split(", "))]
        paths = {Path(os.path.normpath(path)) for path in named}
        found = sorted(path for path in paths if os.path.lexists(path) and path != self.out)
        for path in found:
            place = self.aside / f"moved-{len(list(self.aside.iterdir()))}"
            os.rename(path, place)
            for one in self.foreign:
                if path in (one.path, *one.path.parents):
                    one.path = place / one.path.relative_to(path)
        return bool(found)

    def verify(self) -> str | None:
        """The dataset is whole, and what is stray is foreign. What took the place of a finished
        dataset's file is found only here, and --repair is the advice."""
        for is_repaired in (False, True):
            done = self._commands.run(["verify", self.scene.out], self.cwd)
            self.said.append(f"verify: {done.rc}\n{done.stdout}{done.stderr}")
            bad = [line for line in done.stdout.splitlines() if not line.startswith("stray")]
            if done.rc == 0 or (done.rc == 13 and not bad):
                break
            if is_repaired or "--repair" not in done.stderr:
                return "the dataset is not whole"
            if wrong := self.go_on("--repair"):
                return wrong
        return self.changed()


class Campaign:
    """All trials: each call of each scene, with things drawn by the seed."""

    def __init__(self, root: Path, aside: Path) -> None:
        self.commands = Commands()
        self.root = root
        self.aside = aside
        self.scenes = scenes(root, self.commands)
        self.names = names_used(self.scenes, self.commands, root)
        self.chance = random.Random(SEED)
        self.hits: collections.Counter[str] = collections.Counter()
        self.reached: dict[str, set[int]] = collections.defaultdict(set)
        self.totals: dict[str, int] = {}
        self.met: set[tuple[str, str]] = set()
        self.wrong: list[str] = []
        self._number = 0
        self._things = self._shuffled_things()

    def _shuffled_things(self) -> Iterator[tuple[str, str]]:
        """Each name with each kind, over and over, each time in another order."""
        pairs = list(itertools.product(self.names, KINDS))
        while True:
            self.chance.shuffle(pairs)
            yield from pairs

    def run(self) -> None:
        for scene in self.scenes:
            trial = self._trial(scene)
            done = self.commands.traced(scene.command, trial.cwd, None, scene.looks_only)
            self.totals[scene.name] = done.calls
            shutil.rmtree(trial.folder)
        while self.hits.total() < POINTS and len(self.wrong) < 8:
            for scene in self.scenes:
                every = scene.looks_only or self.chance.random() < 0.1
                self._try(scene, every)

    def _trial(self, scene: Scene) -> Trial:
        self._number += 1
        folder, aside = self.root / f"trial-{self._number}", self.aside / str(self._number)
        copy(scene.template, folder)
        aside.mkdir()
        return Trial(scene, folder, aside, self.commands)

    def _next_point(self, scene: Scene) -> int:
        total = self.totals[scene.name]
        left = set(range(1, total + 1)) - self.reached[scene.name]
        if left and not scene.looks_only:
            return self.chance.choice(sorted(left))
        return self.chance.randint(1, max(total, 1))

    def _try(self, scene: Scene, every: bool) -> None:
        """A command that ends before the call is tried once more, at one that it makes."""
        things = [next(self._things) for _ in range(self.chance.choice([1, 1, 1, 2, 4]))]
        is_late = not scene.looks_only and self.chance.random() < 0.2
        point = self._next_point(scene)
        if every and not scene.looks_only:
            point = self.chance.randint(1, 3000)
        for _ in range(2):
            trial = self._trial(scene)
            for name, kind in [] if is_late else things:
                trial.place(name, kind)
            done = self.commands.traced(scene.command, trial.cwd, point, every)
            for name, kind in things if is_late else []:
                trial.place(name, kind)
            call = f"call {point}{' of all' if every else ''}"
            what = f"{scene.name}, {call}, {things}{', late' if is_late else ''}"
            self._judge(trial, done, what)
            if done.was_killed:
                self.hits[scene.name] += 1
                self.met.update(things)
                if not every:
                    self.reached[scene.name].add(point)
                return
            if not done.calls:
                return
            point = self.chance.randint(1, done.calls)

    def _judge(self, trial: Trial, done: Outcome, what: str) -> None:
        wrong = trial.changed()
        wrong = wrong or (None if done.was_killed else trial._nonsense(done)) or trial.go_on()
        if wrong is None and not trial.scene.looks_only:
            again = self.commands.run(trial.scene.command, trial.cwd)
            trial.said.append(f"once more: {again.rc}\n{again.stderr}")
            wrong = trial.changed() or trial.verify()
            if again.rc not in DONE and "--repair" not in trial.scene.command:
                wrong = wrong or "it does not succeed once more"
        if wrong is not None:
            dull = ("warning", "plan", "engine", "done")
            lines = [line for said in trial.said for line in said.splitlines()]
            told = "\n".join(line for line in lines if not line.startswith(dull))
            self.wrong.append(f"--- {what}: {wrong}\n{done.stderr[-600:]}\n{told}")
        for folder in (trial.folder, trial.aside):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """In memory where that can be: nothing here is about what a disk keeps."""
    memory = Path("/dev/shm")
    with contextlib.ExitStack() as stack:
        at = memory if os.access(memory, os.W_OK) else None
        yield Path(stack.enter_context(tempfile.TemporaryDirectory(dir=at, prefix="foreign-")))


def test_foreign_files_survive_every_kill(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    syscalls.need_tracing()
    (place / "aside").mkdir()
    campaign = Campaign(place, place / "aside")
    campaign.run()
    calls = sum(campaign.totals[scene.name] for scene in campaign.scenes if not scene.looks_only)
    reached = sum(len(points) for points in campaign.reached.values())
    with capsys.disabled():
        print(f"\nforeign files, TOKENMILL_SEED={SEED}: {campaign.hits.total()} kills hit, "
              f"{len(campaign.wrong)} wrong; {len(campaign.names)} names, {len(KINDS)} kinds, "
              f"{len(campaign.met)} of their pairs, {len(campaign.scenes)} commands; "
              f"{reached} of {calls} calls that change something")  # fmt: skip
        for name, count in sorted(campaign.hits.items()):
            told = f"{len(campaign.reached[name])} of {campaign.totals[name]} calls"
            print(f"  {count:5} {name}: {told}")
    assert not campaign.wrong, "\n\n".join(campaign.wrong[:20])
    assert campaign.hits.total() >= POINTS
