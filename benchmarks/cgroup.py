"""A real memory limit for a command: a memory cgroup of its own, version 1 or 2.

Promises:

* the limit covers the command and everything it starts, from before its first instruction, page
  cache and swap included;
* what comes back says whether the kernel's OOM killer struck, the highest memory sampled, and a
  bound of the peak that no short peak escapes;
* where such a group cannot be made (no root, no controller, swap that would not be counted),
  entering raises CgroupUnavailable with the reasons: a run without a limit is never passed off as
  one with it.

    with MemoryCgroup(512_000_000) as group:
        result = group.run(["python", "-m", "tokenmill", "prepare", ...])
    assert result.exit_code == 0 and result.oom_kills == 0

To be honest about an input file, drop it from the page cache first (`measure.drop_from_cache`):
pages that another process read stay charged to that process, and the limit would not see them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from measure import HighWater, captured, reporting, shell_exit_code, watch

SAMPLE_SECONDS = 0.02
SECONDS_TO_CLEAR = 10.0
# The shell joins the group and then becomes the command, so that not one page of the command is
# charged elsewhere, and nothing of this Python process is charged to the group.
JOIN_AND_BECOME = 'echo $$ > "$1" && shift && exec "$@"'
_numbers = itertools.count()


class CgroupUnavailable(Exception):
    """No memory cgroup can be made here; the message says what was tried."""


@dataclass(frozen=True)
class GroupResult:
    """What one command did inside its group. Sizes in bytes, times in seconds."""

    command: tuple[str, ...]
    exit_code: int
    """As a shell gives it: 137 for a process that SIGKILL ended."""
    oom_kills: int
    """Processes of the group that the kernel killed for memory during this run."""
    peak_rss: int
    """Highest sample of anonymous memory (v1 `total_rss`, v2 `anon`), fifty times a second."""
    peak_tree: int
    """At most so much was resident in all processes together: the sum of their high-water marks,
    see `measure.HighWater`. Unlike a sample, it misses no short peak."""
    peak_usage: int
    """All that was ever charged to the group at once, page cache included: on large inputs it is
    about the limit, which shows that the limit was in force."""
    seconds: float
    stdout: str
    stderr: str


class MemoryCgroup:
    """A memory cgroup with a hard limit, for as long as the `with` block lasts."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._path: Path | None = None
        self._version = 0

    @property
    def path(self) -> Path:
        if self._path is None:
            raise RuntimeError("the group exists only inside the with block")
        return self._path

    def __enter__(self) -> MemoryCgroup:
        name = f"tokenmill-{os.getpid()}-{next(_numbers)}"
        reasons = []
        for version, parent in parents():
            path = parent / name
            try:
                make(path, version, self.limit_bytes)
            except (OSError, CgroupUnavailable) as error:
                reasons.append(f"{parent}: {error}")
                with contextlib.suppress(OSError):
                    path.rmdir()
                continue
            self._path, self._version = path, version
            return self
        raise CgroupUnavailable(
            "no memory cgroup could be made: "
            + ("; ".join(reasons) or "no cgroup file system with a memory controller is mounted")
            + ". It takes root, or a delegated cgroup v2 subtree"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        path, self._path = self.path, None
        remove(path)

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> GroupResult:
        """Runs the command inside the group; with `timeout`, kills it after so many seconds."""
        kills = oom_kills(self.path, self._version)
        samples, marks = [0], HighWater()
        start = time.perf_counter()

        def sample() -> None:
            samples.append(anonymous(self.path, self._version))
            marks.sample(processes(self.path))
            if timeout is not None and time.perf_counter() - start > timeout:
                kill_all(self.path)

        with captured() as said, tempfile.TemporaryFile() as report:
            number = report.fileno()
            process = subprocess.Popen(
                reporting(number, joining(self.path, command)),
                stdout=said.out,
                stderr=said.err,
                cwd=cwd,
                env=env,
                pass_fds=[number],
            )
            try:
                watch(process.pid, SAMPLE_SECONDS, sample)
                seconds = time.perf_counter() - start
            except BaseException:
                kill_all(self.path)
                raise
            finally:
                process.wait()
            stdout, stderr = said.texts()
            peak_tree = marks.peak(os.pread(number, 20, 0))
        return GroupResult(
            command=tuple(command),
            exit_code=shell_exit_code(process.returncode),
            oom_kills=oom_kills(self.path, self._version) - kills,
            peak_rss=max(samples),
            peak_tree=peak_tree,
            peak_usage=peak_usage(self.path, self._version),
            seconds=seconds,
            stdout=stdout,
            stderr=stderr,
        )


def oom_kills(path: Path, version: int) -> int:
    return counter(path / ("memory.oom_control" if version == 1 else "memory.events"), "oom_kill")


def anonymous(path: Path, version: int) -> int:
    return counter(path / "memory.stat", "total_rss" if version == 1 else "anon")


def peak_usage(path: Path, version: int) -> int:
    return int(
        (path / ("memory.max_usage_in_bytes" if version == 1 else "memory.peak")).read_text()
    )


def joining(group: Path, command: Sequence[str]) -> list[str]:
    """The command, run by a shell that has entered the group first."""
    return ["/bin/sh", "-c", JOIN_AND_BECOME, "sh", str(group / "cgroup.procs"), *command]


def parents() -> Iterator[tuple[int, Path]]:
    """The groups under which one of ours might be made, the likeliest first, with their version."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4])
        kind, _, options = after.split()[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            yield 1, mount
            mine = next((p for c, p in own.items() if "memory" in c.split(",")), "")
            if mine:
                yield 1, mount / mine
        elif kind == "cgroup2":
            yield 2, mount
            # A v2 group that holds processes cannot hand a controller on: try beside it, not in it.
            if own.get(""):
                yield 2, (mount / own[""]).parent


def make(path: Path, version: int, limit: int) -> None:
    """Makes the group, sets its limits and checks that a process can enter it."""
    if version == 2:
        hand_on_memory_controller(path.parent)
    path.mkdir()
    if version == 1:
        # In this order: the limit with swap may never be below the one without.
        set_limit(path / "memory.limit_in_bytes", limit)
        swap, swap_limit = path / "memory.memsw.limit_in_bytes", limit
    else:
        set_limit(path / "memory.max", limit)
        swap, swap_limit = path / "memory.swap.max", 0
    if swap.exists():
        set_limit(swap, swap_limit)
    elif machine_has_swap():
        raise CgroupUnavailable(f"{swap.name} is missing and the machine has swap")
    # An old kernel could not tell us of a kill, nor of what was used: then better no group at all.
    oom_kills(path, version)
    peak_usage(path, version)
    entered = subprocess.run(joining(path, ["true"]), capture_output=True, text=True, check=False)
    if entered.returncode:
        raise CgroupUnavailable(
            f"`true` run in it ended with {shell_exit_code(entered.returncode)} {entered.stderr}"
        )


def hand_on_memory_controller(parent: Path) -> None:
    if "memory" not in (parent / "cgroup.controllers").read_text().split():
        raise CgroupUnavailable("has no memory controller")
    control = parent / "cgroup.subtree_control"
    if "memory" not in control.read_text().split():
        control.write_text("+memory")


def set_limit(file: Path, value: int) -> None:
    """Sets a limit and reads it back: the kernel rounds to pages, but must not ignore it."""
    file.write_text(str(value))
    found = file.read_text().strip()
    if not found.isdigit() or int(found) > value:
        raise CgroupUnavailable(f"{file.name} is {found} after {value} was written to it")


def counter(file: Path, key: str) -> int:
    """One number of a file of `key value` lines."""
    for line in file.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    raise CgroupUnavailable(f"{file} does not tell {key}")


def machine_has_swap() -> bool:
    return counter_kib(Path("/proc/meminfo"), "SwapTotal") > 0


def counter_kib(file: Path, key: str) -> int:
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    return 0


def kill_all(path: Path) -> None:
    """Kills the group's processes, all of them started here: nothing else is ever put into it."""
    for pid in processes(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes(path: Path) -> list[int]:
    """The processes in the group."""
    return [int(pid) for pid in (path / "cgroup.procs").read_text().split()]


def remove(path: Path) -> None:
    """Removes the group, with what a command may have left running in it."""
    deadline = time.monotonic() + SECONDS_TO_CLEAR
    while True:
        kill_all(path)
        try:
            path.rmdir()
            return
        except OSError as error:
            # The kernel may need a moment to take leave of the last process.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.05)
