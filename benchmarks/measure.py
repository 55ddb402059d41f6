"""Measures commands: each one a fresh process, several of them in turn.

Promises:

* the time of a run is that of the process alone, from its start to its end, and does not wait for a
  sampling interval to pass;
* CPU time counts every process that the command started, those that it left to themselves included;
* peak memory is that of the whole process tree, sampled twenty times a second, beside the
  kernel's own high-water mark of the largest single process;
* contenders take turns (A B A B ...), so that a noisy neighbour meets them all, and ratios are
  formed pair by pair, given as median, lowest and highest;
* a cold run starts with nothing of its input in the page cache, or not at all.

Linux only. From the command line, contenders are quoted commands, and the first is the one that
the others are compared with:

    python benchmarks/measure.py --rounds 3 --warm big.txt "wc -l big.txt" "grep -c a big.txt"
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import mmap
import os
import platform
import select
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

SAMPLE_SECONDS = 0.05
PAGE = mmap.PAGESIZE
PR_SET_CHILD_SUBREAPER = 36
SECONDS_TO_END_ALONE = 10.0
COLD_SHARE = 0.01
KEPT_OUTPUT = 64 << 10
REPORTING = """
import os, sys
descriptor = int(sys.argv[1])
os.set_inheritable(descriptor, False)
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
os.write(descriptor, b"%d" % usage.ru_maxrss)
code = os.waitstatus_to_exitcode(status)
os._exit(code if code >= 0 else 128 - code)
"""


class CommandFailed(Exception):
    """A measured command ended with an exit code other than 0, so its figures mean nothing."""


class NotCold(Exception):
    """A file could not be dropped from the page cache, so no run would be a cold one."""


@dataclass(frozen=True)
class Run:
    """What one run of one command took. Sizes in bytes, times in seconds."""

    command: tuple[str, ...]
    seconds: float
    cpu_seconds: float
    peak_rss: int
    """Resident memory of the process tree, shared and file pages included: the highest sample, or
    `largest_process` where that is more, for a peak may fall between two samples."""
    peak_anonymous: int
    """The part of it that no file stands behind: what the kernel cannot simply drop."""
    largest_process: int
    """ru_maxrss: exact, but of one process, and never below the size of this harness (20 MB)."""
    exit_code: int
    """As a shell gives it: 128 + the signal's number for a killed process."""
    stdout: str
    stderr: str
    """The last 64 KiB of what it printed, as of stdout."""
    evidence: str = ""
    """What the contender's own check said about the output before it was removed."""


@dataclass(frozen=True)
class Contender:
    """A command to measure, what it reads, and the folder it writes, removed after each run."""

    name: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    output: Path | None = None
    evidence: Callable[[Run], str] | None = None
    """Looks at what a run printed or wrote, before that is removed."""


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of a figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


# ------------------------------------------------------------------------------- process trees


class TreeMemory:
    """Follows the resident memory of a process and of all that it started.

    A process belongs to the tree when it is in the root's session, or when its parent belongs. That
    is judged once, when it is first seen: it stays in the tree when its parent dies before it, and
    a sample costs little, however many other processes the machine runs.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.peak_rss = 0
        self.peak_anonymous = 0
        self.seen = {root}
        """Every process that ever belonged."""
        self._judged: set[int] = set()
        self.members: set[int] = set()
        """Those that are alive."""

    def sample(self) -> None:
        self._find_members()
        resident = anonymous = 0
        for pid in self.members:
            try:
                fields = Path(f"/proc/{pid}/statm").read_bytes().split()
            except OSError:  # it ended in between
                continue
            resident += int(fields[1])
            anonymous += int(fields[1]) - int(fields[2])
        self.peak_rss = max(self.peak_rss, resident * PAGE)
        self.peak_anonymous = max(self.peak_anonymous, anonymous * PAGE)

    def _find_members(self) -> None:
        alive = {int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()}
        # What has ended is forgotten, for its number may come back as another process.
        self._judged &= alive
        self.members &= alive
        for pid in sorted(alive - self._judged):
            try:
                stat = Path(f"/proc/{pid}/stat").read_bytes()
            except OSError:
                continue
            # The command's name, in brackets, may hold spaces and brackets itself: start after it.
            fields = stat[stat.rindex(b")") + 2 :].split()
            parent, session = int(fields[1]), int(fields[3])
            self._judged.add(pid)
            if session == self.root or parent in self.members:
                self.members.add(pid)
        self.seen |= self.members


def adopt_orphans() -> None:
    """Makes this process the parent of whatever a measured command leaves behind.

    Without it the CPU time of, say, a fork server that outlives its master would go to init and be
    lost to us.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(pids: Iterable[int]) -> float:
    """Waits for those of the processes that are ours now; returns the CPU seconds they took."""
    cpu = 0.0
    deadline = time.monotonic() + SECONDS_TO_END_ALONE
    for pid in pids:
        while True:
            try:
                ended, _, usage = os.wait4(pid, os.WNOHANG)
            except ChildProcessError:  # its own parent has reaped it, or it never was ours
                break
            if ended:
                cpu += usage.ru_utime + usage.ru_stime
                break
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
    return cpu


def run(
    command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Run:
    """Runs the command as a fresh process and measures it."""
    adopt_orphans()
    with captured() as said:
        start = time.perf_counter()
        # A session of its own makes the tree recognisable even after its root has gone.
        process = subprocess.Popen(
            command, stdout=said.out, stderr=said.err, cwd=cwd, env=env, start_new_session=True
        )
        tree = TreeMemory(process.pid)
        try:
            watch(process.pid, SAMPLE_SECONDS, tree.sample)
            end = time.perf_counter()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        orphans_cpu = reap(tree.seen - {process.pid})
        stdout, stderr = said.texts()
    return Run(
        command=tuple(command),
        seconds=end - start,
        cpu_seconds=usage.ru_utime + usage.ru_stime + orphans_cpu,
        peak_rss=max(tree.peak_rss, usage.ru_maxrss * 1024),
        peak_anonymous=tree.peak_anonymous,
        largest_process=usage.ru_maxrss * 1024,
        exit_code=shell_exit_code(process.returncode),
        stdout=stdout,
        stderr=stderr,
    )


class HighWater:
    """Bounds the resident memory of several processes by their own high-water marks (`VmHWM`).

    A mark tells every peak before it, however short, but for what comes after the last sample of a
    process. The kernel's figure at the end (`ru_maxrss` of `REPORTING`) has that for the largest
    process. Pages that two processes share count in both, and peaks of different moments are
    summed: the true peak of the tree is at most this.
    """

    def __init__(self) -> None:
        self.others = 0
        """The most that all but the largest process had, together."""
        self.largest = 0

    def sample(self, pids: Iterable[int]) -> None:
        """Reads the marks of the processes that are alive."""
        marks = [high_water_mark(pid) for pid in pids]
        largest = max(marks, default=0)
        self.others = max(self.others, sum(marks) - largest)
        self.largest = max(self.largest, largest)

    def peak(self, reported: bytes) -> int:
        """In bytes, with what `REPORTING` wrote of the largest process."""
        return self.others + max(self.largest, int(reported or b"0") * 1024)


def high_water_mark(pid: int) -> int:
    """The most that a process had resident so far, in bytes; 0 when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def reporting(descriptor: int, command: Sequence[str]) -> list[str]:
    """The command, run by a small process that then writes its `ru_maxrss` in KiB, or that of the
    largest process below it, to the descriptor: a process's own begins with that of the one which
    started it, and this harness may be large."""
    return [sys.executable, "-I", "-S", "-c", REPORTING, str(descriptor), *command]


def shell_exit_code(returncode: int) -> int:
    """A process killed by signal N has the exit code 128 + N in a shell, and here."""
    return 128 - returncode if returncode < 0 else returncode


def watch(pid: int, interval: float, sample: Callable[[], None]) -> None:
    """Calls `sample` every `interval` seconds and returns as soon as our child has ended."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while not poll.poll(interval * 1000):
            sample()
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Captured:
    """Takes what a command prints, in files and not in pipes: a full pipe would make it wait."""

    out: IO[bytes]
    err: IO[bytes]

    def texts(self) -> tuple[str, str]:
        """The end of both. All of it could make this harness grow, and `ru_maxrss` with it."""
        return last_text(self.out), last_text(self.err)


def last_text(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - KEPT_OUTPUT))
    return file.read().decode("utf-8", "replace")


@contextlib.contextmanager
def captured() -> Iterator[Captured]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        yield Captured(out, err)


# ---------------------------------------------------------------------------------- page cache


def files_under(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def drop_from_cache(path: Path) -> None:
    """Leaves none of the file (or of the folder's files) in the page cache.

    Only clean pages can be dropped, hence the fsync.
    """
    for file in files_under(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_into_cache(path: Path) -> None:
    buffer = bytearray(4 << 20)
    for file in files_under(path):
        with file.open("rb", buffering=0) as handle:
            while handle.readinto(buffer):
                pass


def cached_share(path: Path) -> float:
    """The share of the file (or of the folder's files) that is in the page cache, 0 to 1."""
    pages = cached = 0
    for file in files_under(path):
        flags = page_flags(file)
        pages += len(flags)
        cached += len(flags) - flags.count(0)
    return cached / pages if pages else 0.0


def page_flags(file: Path) -> bytes:
    """One byte for each page of the file, its lowest bit set when the page is in memory."""
    size = file.stat().st_size
    if not size:
        return b""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    flags = ctypes.create_string_buffer(-(-size // PAGE))
    with file.open("rb") as handle:
        # Mapping a file reads none of it.
        start = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle.fileno(), 0)
        if start == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"mmap failed on {file}")
        try:
            if libc.mincore(start, size, flags):
                raise OSError(ctypes.get_errno(), f"mincore failed on {file}")
        finally:
            libc.munmap(start, size)
    return flags.raw


def prepare_cache(paths: Iterable[Path], state: str) -> None:
    """Brings the files into the asked state, `cold` or `warm`; raises NotCold where it cannot."""
    for path in paths:
        if state == "warm":
            read_into_cache(path)
            continue
        drop_from_cache(path)
        share = cached_share(path)
        if share > COLD_SHARE:
            raise NotCold(
                f"{share:.0%} of {path} stays in the page cache: it lies in memory (tmpfs), "
                "or another process holds it"
            )


# ----------------------------------------------------------------------------------- contenders


def interleave(
    contenders: Sequence[Contender], rounds: int, cache: str = "warm"
) -> dict[str, list[Run]]:
    """Runs the contenders in turn, `rounds` times; each run starts from the same state."""
    runs: dict[str, list[Run]] = {c.name: [] for c in contenders}
    for number in range(rounds):
        for contender in contenders:
            say(f"round {number + 1} of {rounds}: {contender.name} ...", end=" ")
            result = run_contender(contender, cache)
            runs[contender.name].append(result)
            say(
                f"{result.seconds:.2f} s, CPU {result.cpu_seconds:.2f} s, "
                f"peak {result.peak_rss / 1e6:.0f} MB {result.evidence}"
            )
    return runs


def run_contender(contender: Contender, cache: str) -> Run:
    """One run; raises CommandFailed when the command fails."""
    clear(contender.output)
    prepare_cache(contender.inputs, cache)
    try:
        result = run(contender.command)
    except OSError as error:
        raise CommandFailed(f"{shlex.join(contender.command)}: {error}") from error
    try:
        if result.exit_code:
            raise CommandFailed(
                f"exit code {result.exit_code} from: {shlex.join(contender.command)}\n"
                f"{result.stderr[-3000:]}"
            )
        if contender.evidence:
            result = replace(result, evidence=contender.evidence(result))
    finally:
        # Also keeps what it left unwritten from being written during the next contender's run.
        clear(contender.output)
    return result


def clear(folder: Path | None) -> None:
    if folder is not None and folder.exists():
        shutil.rmtree(folder)


def ratios(top: Sequence[Run], bottom: Sequence[Run], figure: Callable[[Run], float]) -> Spread:
    """The figure of each run of `top` divided by that of the run of `bottom` in the same round."""
    return Spread.of([figure(a) / figure(b) for a, b in zip(top, bottom, strict=True)])


# ------------------------------------------------------------------------------------- printing


def say(text: str, end: str = "\n") -> None:
    """Progress goes to stderr, so that stdout holds just what is to be kept."""
    print(text, end=end, file=sys.stderr, flush=True)


def table_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def table_head(headers: Sequence[str]) -> str:
    """The two lines that a Markdown table begins with."""
    return table_row(headers) + "\n" + table_row(["---"] * len(headers))


def machine() -> str:
    """The machine in one line, with how busy others keep it right now."""
    facts = dict(key_values(Path("/proc/cpuinfo")))
    memory = int(dict(key_values(Path("/proc/meminfo")))["MemTotal"].split()[0]) * 1024
    cores = len(os.sched_getaffinity(0))
    return (
        f"{facts.get('model name', platform.machine())}, {cores} of {os.cpu_count()} cores, "
        f"{memory / 2**30:.1f} GiB RAM, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.2f}"
    )


def key_values(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            yield key.strip(), value.strip()


def input_line(path: Path) -> str:
    """Name and size of an input, the folder left out, for it differs from machine to machine."""
    size = sum(file.stat().st_size for file in files_under(path))
    return f"{path.name} ({size:,} bytes)"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commands", nargs="+", help="each one quoted; the first is the yardstick")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cold", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--warm", type=Path, action="append", default=[], metavar="FILE")
    options = parser.parse_args()
    if options.cold and options.warm:
        parser.error("--cold and --warm exclude each other")
    cache = "cold" if options.cold else "warm"
    inputs = tuple(options.cold or options.warm)
    contenders = [
        Contender(f"{chr(65 + i)}", tuple(shlex.split(text)), inputs)
        for i, text in enumerate(options.commands)
    ]
    print(f"machine: {machine()}")
    for path in inputs:
        print(f"input: {input_line(path)}, {cache}")
    for contender in contenders:
        print(f"{contender.name}: {shlex.join(contender.command)}")
    try:
        runs = interleave(contenders, options.rounds, cache)
    except (CommandFailed, NotCold) as error:
        say(f"error: {error}")
        return 1
    print("\n" + comparison(runs))
    return 0


def comparison(runs: Mapping[str, Sequence[Run]]) -> str:
    """The contenders side by side; ratios are against the first."""
    first = next(iter(runs.values()))
    headers = [
        "",
        "seconds",
        "CPU seconds",
        "peak RSS, MB",
        "anonymous, MB",
        "time / A",
        "memory / A",
    ]
    rows = [
        [
            name,
            Spread.of([r.seconds for r in own]).text(),
            Spread.of([r.cpu_seconds for r in own]).text(),
            Spread.of([r.peak_rss / 1e6 for r in own]).text(0),
            Spread.of([r.peak_anonymous / 1e6 for r in own]).text(0),
            ratios(own, first, lambda r: r.seconds).text(),
            ratios(own, first, lambda r: r.peak_rss).text(),
        ]
        for name, own in runs.items()
    ]
    return "\n".join([table_head(headers), *map(table_row, rows)])


if __name__ == "__main__":
    sys.exit(main())
