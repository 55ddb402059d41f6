"""File systems that lack something: locks, folders that can be synced, hard links, or all of it.

strace makes the real system calls fail as they do there: Lustre without its option and NFS without
its lock daemon (``flock``), network shares and FUSE (``fsync`` of a folder), FAT, exFAT, AFS and
shares (``link``). The run warns of what is lost there, stops, goes on, and gives the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import kill
from tests.kit import runs
from tests.kit.injection import Scene, arguments, need_strace
from tokenmill.errors import OutputInUse
from tokenmill.stores import durable, lock
from tokenmill.stores.claims import create_own, is_own

KERNELS_OWN = 524
"""ENOTSUPP, the kernel's own, which some network file systems let out; C libraries name it not."""
LACKS = (
    ("ENOSYS", "EINVAL", "EPERM"),
    ("ENOLCK", str(KERNELS_OWN), "EXDEV"),
)
LOST = ("has no locks", "cannot sync files", "cannot sync folders", "has no hard links")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    need_strace()
    return Scene.make(tmp_path_factory.mktemp("scene"), "jsonl", 20)


def lacking(log: Path, locks: str = "", syncs: str = "", links: str = "") -> tuple[str, ...]:
    """The strace command under which these calls fail, everywhere."""
    failing = {"flock": locks, "fsync,fdatasync": syncs, "link,linkat": links}
    failing = {calls: error for calls, error in failing.items() if error}
    injected = [
        part for calls, error in failing.items() for part in ("-e", f"inject={calls}:error={error}")
    ]
    trace = f"trace={','.join(failing)}"
    return ("strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", trace, *injected)


@pytest.mark.parametrize(("locks", "syncs", "links"), LACKS)
def test_a_run_warns_stops_goes_on_and_gives_the_same_bytes(
    locks: str, syncs: str, links: str, scene: Scene, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    prefix = lacking(log, locks, syncs, links)
    stopped = runs.run(*arguments(scene.corpus, out), "--max-time", "0.001s", prefix=prefix)
    assert stopped.rc == 10, stopped.stderr
    assert runs.checkpoints(out) >= 1
    for lost in LOST:
        assert stopped.stderr.count(lost) == 1, stopped.stderr
    assert stopped.stderr.count("fix:") >= len(LOST)
    done = runs.run(*arguments(scene.corpus, out), prefix=prefix)
    assert done.rc == 0, done.stderr
    assert runs.snapshot(out) == scene.undisturbed
    assert log.read_text().count("(INJECTED)") > 30


def test_a_killed_run_goes_on_there_and_a_second_one_is_refused(
    scene: Scene, tmp_path: Path
) -> None:
    """Without locks, hard links and syncs: what is written while a run lives is its own."""
    out = tmp_path / "out"
    command = arguments(scene.corpus, out)
    prefix = lacking(tmp_path / "log", *LACKS[0])
    process = runs.start(*command, prefix=prefix, pause=1, alone=True)
    try:
        runs.wait_for_checkpoints(out, 1)
        other = runs.run(*command, prefix=lacking(tmp_path / "other", *LACKS[0]))
        assert other.rc == 11 and "in use by another run" in other.stderr, other.stderr
        holder = int((out / ".tokenmill" / "lock").read_text().split()[0])
    finally:
        kill(process)
    runs.wait_for(lambda: runs.is_dead(holder), "the end of the worker")
    runs.assert_nothing_finished(out)
    foreign = out / "foreign.npy"
    foreign.write_bytes(b"not ours")
    done = runs.run(*command, prefix=prefix)
    assert done.rc == 0, done.stderr
    assert foreign.read_bytes() == b"not ours"
    foreign.unlink()
    assert runs.snapshot(out) == scene.undisturbed
    verified = runs.run("verify", out, prefix=lacking(tmp_path / "verified", *LACKS[0]))
    assert verified.rc == 0, verified.stderr


def test_what_is_in_the_way_stays_as_it_is_there(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    name = next(name for name in scene.undisturbed if name.endswith(".npy"))
    (out / name).write_bytes(b"not ours")
    refused = runs.run(*arguments(scene.corpus, out), prefix=lacking(tmp_path / "log", *LACKS[0]))
    assert refused.rc != 0 and name in refused.stderr and "fix:" in refused.stderr
    assert (out / name).read_bytes() == b"not ours"


def test_only_folders_that_cannot_be_synced(scene: Scene, tmp_path: Path) -> None:
    """Its files can be; and where the disk itself fails, the run ends as it always did."""
    out = tmp_path / "out"
    folders = ("-P", str(out), "-P", str(out / ".tokenmill"))
    prefix = lacking(tmp_path / "log", syncs="EINVAL")
    done = runs.run(*arguments(scene.corpus, out), prefix=(*prefix, *folders))
    assert done.rc == 0, done.stderr
    assert "cannot sync folders" in done.stderr and "cannot sync files" not in done.stderr
    assert runs.snapshot(out) == scene.undisturbed
    prefix = lacking(tmp_path / "log", syncs="EIO")
    again = runs.run(*arguments(scene.corpus, tmp_path / "no"), prefix=prefix)
    assert again.rc == 1 and "Input/output error" in again.stderr, again.stderr


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_another_has(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares (SMB) answer EACCES."""

    def held(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", held)
    monkeypatch.setattr(lock, "_LOCK_PATIENCE", 0)
    with pytest.raises(OutputInUse), lock.locked(tmp_path):
        pass
    assert lock.lock_holder(tmp_path) is not None


@pytest.mark.parametrize(
    ("locks", "syncs", "links"),
    [
        ("ENOSYS", "EINVAL", "EPERM"),
        ("ENOLCK", "EOPNOTSUPP", "EOPNOTSUPP"),
        ("EOPNOTSUPP", "ENOSYS", "EMLINK"),
        ("ENOTSUP", "EBADF", "EXDEV"),
        ("EINVAL", "EACCES", "ENOSYS"),
        ("EPERM", "EISDIR", "EINVAL"),
    ],
)
def test_every_way_of_saying_that_it_is_lacking(
    locks: str, syncs: str, links: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str) -> Callable[..., None]:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError(getattr(errno, name), name)

        return fail

    for module, call, name in (
        (fcntl, "flock", locks), (os, "fsync", syncs), (os, "fdatasync", syncs),
        (os, "link", links),
    ):  # fmt: skip
        monkeypatch.setattr(module, call, failing(name))
    told = list[str]()
    ours, foreign = tmp_path / "ours", tmp_path / "foreign"
    foreign.write_bytes(b"not ours")
    with lock.locked(tmp_path, told.append):
        create_own(ours)
        with pytest.raises(FileExistsError):
            create_own(foreign)
        assert is_own(ours) and not is_own(foreign)
        durable.write_durably(tmp_path / "small", b"content")
    assert [lost for lost in LOST if any(lost in line for line in told)] == list(LOST)
    assert foreign.read_bytes() == b"not ours"


def test_without_locks_two_runs_of_one_process_see_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    monkeypatch.setattr(lock, "_LOCK_PATIENCE", 0)
    out, link = tmp_path / "out", tmp_path / "link"
    out.mkdir()
    link.symlink_to(out)
    (out / "theirs").write_text("so that the lock file stays")
    for _ in range(2):
        with lock.locked(out):
            (out / ".tokenmill" / "journal").write_text("a run is under way")
            for path in (out, link, tmp_path / "link" / ".." / "out"):
                with pytest.raises(OutputInUse, match="in use by another run"), lock.locked(path):
                    pass
                holder = lock.lock_holder(path)
                assert holder is not None and holder.startswith(f"{os.getpid()} on ")
            with lock.locked(tmp_path / "another"):
                pass
            if (child := os.fork()) == 0:  # what it has a copy of is held by its parent
                os._exit(lock._key(out) in lock._held_here or lock.lock_holder(out) is None)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lock.lock_holder(out) is None
    assert not lock._held_here


def test_without_hard_links_a_lock_never_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs begin: the second made its lock file in the moment before the first one's."""
    state, told = tmp_path / ".tokenmill", list[str]()

    def link(_: Any, target: Any, **__: Any) -> None:
        if Path(target) == state / "lock":
            (state / "lock").write_text("1 on another machine\n")
            made.append((state / "lock").stat().st_ino)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    made: list[int] = []
    monkeypatch.setattr(os, "link", link)
    with lock.locked(tmp_path, told.append):
        assert (state / "lock").stat().st_ino == made[0]
    assert len(told) == 1 and "no hard links" in told[0]


def test_a_dead_process_that_nobody_waited_for_holds_nothing() -> None:
    """As a killed run in a container whose first process waits for none."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        runs.wait_for(lambda: runs.is_dead(child), "the end of the child")
        assert lock._started(child) is None
        assert lock._started(os.getpid()) is not None
    finally:
        os.waitpid(child, 0)
