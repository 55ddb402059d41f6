"""The memory contract: what this process may use, what it uses, and how the budget is divided.

Peak resident memory stays under the budget because everything that grows with the input is
bounded by it: blocks have a fixed size, only so many are in flight, and the engines' caches of
words are dropped when the process nears the budget. Cache contents never change an id.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenmill.errors import UsageError
from tokenmill.units import format_bytes

MIB = 1024 * 1024
DEFAULT_MAXIMUM = 2 * 1024 * MIB
_BASE = 92 * MIB
_LIBRARIES = 32 * MIB
_BYTES_A_STRING = 620
"""Of a vocabulary or of its merges, while it is loaded: see ``check_vocabulary_file``."""
_BYTES_A_LINE, _BYTES_A_PIECE = 250, 100
_IN_FLIGHT = 16 * MIB
_READERS = 48 * MIB
_FEW_FILES, _LISTED_FILE = 1000, 850
"""From so many inputs on, each is counted, with so many bytes and three times its path: listed,
journaled and in the manifest. Measured: 100,000 with paths of 33 bytes took 100 MB."""
_PASSED_OVER = 200
SMALL_READER = 10 * MIB
"""A file may take so much while it is read without its being asked for: a part of ``_READERS``."""
SMALL_PAGE = 20 * MIB
"""So much a page of a parquet file may take in any run: a part of ``_READERS``, too."""
PAGE_SHARE = 4
"""Of what is left beside the floor, a page that was not seen beforehand may take one part in so
many: the engines' caches may have grown into the rest."""
_RECORD_FACTOR = 10
_RUN_FACTOR = 30
"""Bytes of memory for each byte of a text that an engine cannot divide. Measured with release 0.10
of gigatoken: 21 to 27, for runs of any kind of character; the rest is for the text itself."""
_ARROW = 24 * MIB
"""Measured with release 26 of pyarrow: a run that reads parquet has 28 MB more resident before the
first row than one that does not, 4 MB of which others have as a margin."""
_PARENT = 19 * MIB
"""Of the process beside the working one. Others have a margin for it, a run with Arrow has not."""
_SERVER = 48 * MIB
"""Of the process that forks workers, beside the tokenizer that it loads for all of them. Measured:
NumPy, gigatoken, tiktoken and our own modules 24 MB of its own, pyarrow 5 more."""
_HASHER = 16 * MIB
"""Of the process that hashes, and what is on its way to it."""
_COPIED = 12 * MIB
"""Of what a worker process shares with the others, what it writes to and so has for itself, about;
and what its interpreter takes for a block."""
_REMOTE = 48 * MIB
"""Measured: urllib3 takes 15 MB, the Hub's client 14; the rest is for what is fetched ahead."""
_USUAL_FACTOR = 40
_CACHES = 96 * MIB
"""What the caches of one thread want beyond the floor. Measured with release 0.10 of gigatoken on
200 MB of each corpus: with that much they are hardly ever dropped; with half of it a run takes up
to twice the processor's time, with a tenth of it twenty times."""
_TEXT_A_THREAD = 1024 * MIB
"""Text that is worth another thread of an engine with caches: each thread fills its own. Measured
on 200 and 600 MB of English with room for all: a second thread takes 0.5 and 1.2 s more of the
processors' time, each further one 0.2 to 0.5; one thread takes 1.8 and 4.0 s for all of it. So a
run by default takes at most 1.2 times the least of the processors' time that any choice takes."""
_CRAMPED = 48 * MIB
_SECONDS_A_DROP = 0.08
_BYTES_A_DROP_UNIT = 300 * MIB
"""Text between two drops of a thread's cache is about the square of its share of the memory over
this: 3.6 MB of English with 23 MB of memory, 33 MB with 44; of many languages a tenth of that."""
_LEAST_DOCUMENT = 256 * 1024
"""Of an engine that takes much memory for its text, a call's text, and the least document that can
be encoded where none can be cut; the floor has room for two of it a thread."""


class TooLarge(Exception):
    """A text of ``size`` bytes that cannot be cut takes more memory than there is; a budget of
    ``need`` bytes has it. ``index`` is its place among the texts of the call."""

    def __init__(self, size: int, need: int, index: int = 0) -> None:
        super().__init__(size, need, index)
        self.size = size
        self.need = need
        self.index = index

    @property
    def fix(self) -> str:
        """The budget to try."""
        return f"--memory {-(-self.need // 10**6)}MB or more"


@dataclass(frozen=True)
class Room:
    """How large a text that cannot be cut may be: ``most`` bytes with a budget of ``budget``, of
    which each byte of text takes ``factor``."""

    most: int = 1 << 62
    budget: int = 0
    factor: int = 0

    def check(self, size: int, index: int = 0) -> None:
        """Raises TooLarge for a text of more bytes, the one at ``index`` of a call."""
        if size > self.most:
            more = (size - self.most) * self.factor
            raise TooLarge(size, self.budget + more + MIB, index)


@dataclass(frozen=True)
class Needs:
    """The memory that a tokenizer takes, in bytes: ``vocabulary`` once, with the reference engine;
    ``engine`` for each thread; ``factor`` for each byte of text in one call. ``has_caches``: does
    the engine remember words, each thread for itself?"""

    vocabulary: int
    engine: int
    factor: int = _USUAL_FACTOR
    has_caches: bool = True

    @classmethod
    def of_ranks(cls, size: int) -> Needs:
        """Of a ``.tiktoken`` vocabulary with so many tokens. Measured with release 0.10 of
        gigatoken: the reference 350 bytes a token, an engine 20 MB and 210 bytes a token."""
        return cls(350 * size, 20 * MIB + 210 * size)

    @property
    def in_call(self) -> int:
        """For the text of a thread's call, beyond what the blocks in flight have room for."""
        return in_call(self.factor)


class InHand:
    """What readers hold just now of what was reserved for them, in bytes: pages of parquet files.
    Each reader tells its own; of any thread."""

    def __init__(self) -> None:
        self._of: dict[object, int] = {}

    def tell(self, reader: object, held: int) -> None:
        """A reader holds so much from now on."""
        if held:
            self._of[reader] = held
        else:
            self._of.pop(reader, None)

    @property
    def bytes(self) -> int:
        """What all of them hold."""
        return sum(list(self._of.values()))


@dataclass(frozen=True)
class Budget:
    """How much memory a run may use, and for how many threads that is enough.

    ``floor`` is what the run needs whatever the input: libraries, one engine a thread, and the
    blocks in flight. The rest is for the engines' caches. ``reserved`` of the floor is for what
    the inputs take while they are read: footers and pages of parquet files, windows of
    decompressors.
    """

    total: int
    threads: int
    floor: int
    factor: int = _USUAL_FACTOR
    asked: int = 0
    """What was asked for, and is told; ``total`` is what a worker beside its parent has of it."""
    served: int = 0
    """Of the cores there are, the most threads that this memory serves well."""
    reserved: int = 0
    in_hand: InHand = field(default_factory=InHand, compare=False)
    is_share: bool = False
    """Is it one worker process's part of a run's budget?"""

    @classmethod
    def of(
        cls,
        total: int | None,
        threads: int | None,
        vocabulary_size: int = 50257,
        needs: Needs | None = None,
        is_remote: bool = False,
        reserved: int = 0,
        listed: int = 0,
        text_bytes: int | None = None,
        reads_parquet: bool = False,
    ) -> Budget:
        """The budget for the options as given; None stands for the default of each: of ``needs``,
        what gigatoken needs for a ``.tiktoken`` vocabulary of that size; of ``threads``, as many as
        there are cores, the memory serves well, with their caches, and ``text_bytes`` of text, if
        that is known, are worth. ``listed`` bytes are for the list of many inputs.

        Raises UsageError, naming the minimum, when the budget cannot hold the threads asked for.
        """
        budget = default_budget() if total is None else total
        if threads is not None and threads < 1:
            raise UsageError("--workers must be at least 1", fix="leave --workers out")
        needs = needs or Needs.of_ranks(vocabulary_size)
        beside = reserved + listed + (_REMOTE if is_remote else 0)
        beside += _ARROW if reads_parquet else 0
        served = available_cores()
        while served > 1 and roomy_bytes(served, needs) + beside > budget:
            served -= 1
        worth = served
        if needs.has_caches and needs.factor <= _USUAL_FACTOR and text_bytes is not None:
            worth = min(served, 1 + text_bytes // _TEXT_A_THREAD)
        wanted = worth if threads is None else threads
        floor = floor_bytes(wanted, needs) + beside
        need = floor + (_PARENT if reads_parquet else 0)
        if need > budget:
            who, fewer = "1 worker with this tokenizer needs", ""
            if wanted > 1:
                who, fewer = f"{wanted} workers with this tokenizer need", ", or fewer --workers"
            raise UsageError(
                f"--memory {format_bytes(budget)} is too little for this run",
                why=f"{who} at least {format_bytes(need)}"
                + (f", {format_bytes(listed)} of it for the list of input files" if listed else ""),
                fix=f"--memory {-(-need // 10**6)}MB{fewer}",
            )
        return cls(budget, wanted, floor, needs.factor, budget, served, reserved)

    def processes_need(self, workers: int, needs: Needs) -> int:
        """The least budget for so many worker processes: what this process needs, the one that
        forks them, and what each has for itself."""
        beside = self.floor - floor_bytes(self.threads, needs)
        here = floor_bytes(0, needs) + beside + workers * _IN_FLIGHT
        server = _SERVER + needs.vocabulary + needs.engine + _HASHER
        return here + server + workers * self._share_floor(needs)

    def roomy_for_processes(self, workers: int, needs: Needs) -> int:
        """The least budget that serves so many worker processes well."""
        caches = _CACHES if self.factor <= _USUAL_FACTOR else 0
        return self.processes_need(workers, needs) + workers * caches

    def _share_floor(self, needs: Needs) -> int:
        return needs.engine + needs.in_call + _IN_FLIGHT + _COPIED + self.reserved

    def share(self, workers: int, needs: Needs) -> Budget:
        """The part of one of so many worker processes, for which there is enough."""
        spare = max(0, self.total - self.processes_need(workers, needs))
        floor = self._share_floor(needs)
        total = floor + spare // workers
        return replace(
            self, total=total, threads=1, floor=floor, served=1, in_hand=InHand(), is_share=True
        )

    @property
    def is_cramped(self) -> bool:
        """Are there more threads than the memory has caches for, so that these are dropped again
        and again?"""
        has_caches = self.factor <= _USUAL_FACTOR
        spare = self.total - self.floor
        return has_caches and self.threads > self.served and spare < self.threads * _CRAMPED

    def seconds_dropping(self, text_bytes: int) -> float:
        """What dropping caches, and filling them again, takes on that much text, about; in a run
        whose parent has its part of the memory, as on the command line."""
        share = max(1, (self.total - self.floor - _IN_FLIGHT) // self.threads)
        if self.factor > _USUAL_FACTOR or share >= _CACHES:
            return 0.0
        between = max(self.call_bytes, share * share // _BYTES_A_DROP_UNIT)
        return _SECONDS_A_DROP * text_bytes / between / min(self.threads, available_cores())

    def shrunk(self, times: int, beside: int) -> Budget:
        """Two thirds of it, so many times over, less what a process beside this one needs; but
        never less than the floor, which has a margin for that."""
        left = self.total * 2**times // 3**times - beside
        return replace(self, total=max(self.floor, left))

    def is_reached(self, resident: int) -> bool:
        """Is no more left than what the blocks in flight may take?"""
        spare = self.total - self.floor
        growth = 0 if self._is_roomy else max(0, spare - 32 * MIB) // 3
        in_flight = self.threads * _IN_FLIGHT + _READERS // 2 + self._still_reserved
        return resident + in_flight + growth > self.total

    @property
    def _still_reserved(self) -> int:
        """Of what is reserved, what is not yet part of the resident memory."""
        return max(0, self.reserved - self.in_hand.bytes)

    @property
    def call_bytes(self) -> int:
        """Text given to an engine in one call, after which the memory is looked at.

        A call on text of nothing but new words grows a cache by twenty times its size, so with
        little to spare the calls are small; large ones are a tenth faster.
        """
        if self.factor > _USUAL_FACTOR:
            return _LEAST_DOCUMENT
        return 2 * MIB if self._is_roomy else MIB // 4

    @property
    def document_bytes(self) -> int:
        """The largest document that an engine may encode in one call, where none can be cut: every
        thread may have one at the same time."""
        spare = (self.total - self.floor) // self.threads
        return max(_LEAST_DOCUMENT, spare // self.factor)

    @property
    def alone_bytes(self) -> int:
        """A text of more bytes that cannot be cut is encoded while nothing else is: so much has
        room in each thread beside caches that are half of what they may be."""
        spare = (self.total - self.floor) // self.threads
        return max(_LEAST_DOCUMENT, (spare // 2 + self._for_text) // self._run_factor)

    @property
    def room_alone(self) -> Room:
        """For a text that cannot be cut, and an engine that encodes it while nothing else is."""
        spare = self.total - self.floor + self.threads * self._for_text
        most = max(2 * _LEAST_DOCUMENT, spare // self._run_factor)
        return Room(most, self.asked, self._run_factor)

    def room_beside(self, factor: int) -> Room:
        """The same for the reference, which takes ``factor`` bytes for each byte of it, beside
        the other threads and caches that are half of what they may be."""
        spare = (self.total - self.floor) // self.threads
        most = max(_IN_FLIGHT // 2, spare // 2 + self._for_text) // factor
        return Room(most, self.asked, 2 * self.threads * factor)

    @property
    def _run_factor(self) -> int:
        return self.factor if self.factor > _USUAL_FACTOR else _RUN_FACTOR

    @property
    def _for_text(self) -> int:
        """Of what the floor has for each thread's text, what is left while a block of it waits."""
        return _IN_FLIGHT // 2 + in_call(self.factor)

    @property
    def _is_roomy(self) -> bool:
        return self.total - self.floor >= self.threads * _CACHES

    def is_near(self, resident: int, baseline: int) -> bool:
        """Should caches be dropped now?

        About half of a cache is a hash table that grows by doubling: while it is copied, the old
        one and the new one of twice its size are both there. ``baseline`` is what was resident
        with empty caches and before the first block was read.
        """
        in_flight = self.threads * _IN_FLIGHT
        caches = max(0, resident - baseline - self.in_hand.bytes - in_flight - _READERS)
        return resident + caches + in_flight + self._still_reserved > self.total

    @property
    def record_bytes(self) -> int:
        """The largest record that may be held whole: a JSON line, a parquet cell, a run that
        cannot be cut. Measured: about ten bytes of memory for each byte of such a record."""
        return max(4 * MIB, (self.total - self.floor) // _RECORD_FACTOR)

    @property
    def reader_bytes(self) -> int:
        """What a file may take while it is read, beside its text: a footer, a window."""
        return SMALL_READER + self.reserved + max(0, self.total - self.floor)

    @property
    def page_bytes(self) -> int:
        """What a page of a parquet file may take while it is read."""
        return SMALL_PAGE + self.reserved + max(0, self.total - self.floor) // PAGE_SHARE

    @property
    def fetch_bytes(self) -> int:
        """Bytes of a remote file in one request, of which a few are under way at a time: as many
        as one request is worth on a fast network, if memory allows."""
        return min(32 * MIB, max(MIB, (self.total - self.floor) // 40))

    @property
    def is_tight(self) -> bool:
        """Is there no room for more than is needed to run at full speed?"""
        return self.total - self.floor <= self.threads * 256 * MIB

    @property
    def window(self) -> int:
        """Blocks in flight or waiting to be written, at most; a block of several times the usual
        size (a row group) counts as several, so that with room to spare there may be more."""
        if not self.is_tight:
            return 6 * self.threads + 4
        return 2 * self.threads + 4 if self._is_roomy else self.threads + 1


def in_call(factor: int) -> int:
    """What an engine that takes so much memory for each byte of text has for a call's."""
    return 2 * _LEAST_DOCUMENT * factor if factor > _USUAL_FACTOR else 0


def floor_bytes(threads: int, needs: Needs) -> int:
    """The least ``--memory`` for so many threads, in bytes.

    Measured with release 26 of pyarrow: 64 MB for the libraries.
    """
    return _BASE + needs.vocabulary + threads * (needs.engine + needs.in_call + _IN_FLIGHT)


def check_vocabulary_file(path: str, total: int | None) -> None:
    """Raise UsageError where the budget cannot hold what loading a tokenizer's file takes, before
    it is loaded; the file is read a little at a time.

    What takes memory is the strings of a ``tokenizer.json``, in Python's objects and in the
    library's, not its bytes, of which many may be blanks. Measured with release 0.23 of tokenizers:
    WordLevel of 400,000 tokens, 7.0 MB, 292 MB in all, beside the parent's 22; byte-level BPE of
    100,000 tokens and as many merges, 3.1 MB, 140 MB beside the libraries' 30. A ``.tiktoken`` file
    of 1.5 million lines, 26 MB, took 424 MB, a ``.model`` of 5 million pieces (each begins with a
    line feed), 10 MB, 389 MB.
    """
    budget = default_budget() if total is None else total
    size, strings, lines, is_json = 0, 0, 0, None
    with contextlib.suppress(OSError), open(path, "rb") as file:  # loading it tells what is wrong
        while chunk := file.read(MIB):
            if is_json is None:
                is_json = path.endswith(".json") or chunk.lstrip()[:1] == b"{"
            size += len(chunk)
            strings += chunk.count(b'"') // 2 if is_json else 0
            lines += 0 if is_json else chunk.count(b"\n")
    need = _PARENT + _LIBRARIES + 4 * size + _BYTES_A_STRING * strings
    need += lines * (_BYTES_A_PIECE if path.endswith(".model") else _BYTES_A_LINE)
    if need > budget:
        raise UsageError(
            f"--memory {format_bytes(budget)} is too little for this tokenizer",
            path,
            f"to load its file of {format_bytes(size)} takes about {format_bytes(need)}",
            f"--memory {-(-need // 10**6)}MB or more",
        )


def roomy_bytes(threads: int, needs: Needs) -> int:
    """The least ``--memory`` that serves so many threads well, in bytes: an engine that takes much
    memory for its text keeps no caches of words."""
    caches = 0 if needs.factor > _USUAL_FACTOR else _CACHES
    return floor_bytes(threads, needs) + threads * caches


def listed_bytes(paths: Sequence[str]) -> int:
    """What a list of inputs takes, beyond what there is room for anyway."""
    listing = Listing()
    for path in paths[_FEW_FILES:]:
        listing.add(path)
    return listing.bytes


def listing_of(total: int | None) -> Listing:
    """For inputs that are yet to be found: more than the budget has for anything is not held."""
    return Listing((default_budget() if total is None else total) - _BASE)


class TooManyFiles(Exception):
    """A list of inputs is longer than memory can hold."""


class Listing:
    """What a list of inputs is going to take, counted while it is made, of ``most`` bytes."""

    def __init__(self, most: int = 1 << 62) -> None:
        self._most = most + _FEW_FILES * _LISTED_FILE
        self.bytes = 0

    @property
    def is_over(self) -> bool:
        """Is it more than memory can hold? Then the rest is to be counted, not held."""
        return self.bytes > self._most

    def add(self, path: str, is_input: bool = True) -> bool:
        """Count one more file, an input or one that is passed over. May it be held?"""
        self.bytes += _LISTED_FILE + 3 * len(path) if is_input else _PASSED_OVER + len(path)
        return self.bytes <= self._most

    def check(self) -> None:
        """Raises TooManyFiles."""
        if self.is_over:
            raise TooManyFiles


def default_budget() -> int:
    """Half of the smaller of RAM and cgroup limit, at most 2 GiB."""
    return min(memory_limit() // 2, DEFAULT_MAXIMUM)


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limit() -> int:
    """Bytes of memory this process can ever have: RAM or the tightest cgroup limit above it."""
    return memory_limit_and_place()[0]


def memory_limit_and_place() -> tuple[int, str]:
    """That limit, and what sets it: ``RAM``, or the file of a cgroup."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([(ram, "RAM"), *_cgroup_limits()], key=lambda limit: limit[0])


def _cgroup_limits() -> list[tuple[int, str]]:
    """Every readable limit of cgroup v1 and v2, from this process's group up to the root."""
    limits = []
    for folder in cgroup_folders():
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append((int((folder / name).read_text()), str(folder / name)))
            except (OSError, ValueError):
                continue
    return limits


def cgroup_folders() -> Iterator[Path]:
    """The memory cgroups of this process, v2 and v1, from its own up to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        root = Path("/sys/fs/cgroup")
        if "memory" in controllers.split(","):
            root /= "memory"
        elif controllers:
            continue
        here = root / group.lstrip("/")
        for folder in [here, *here.parents]:
            if folder == root.parent:
                break
            yield folder


def resident_bytes() -> int:
    """Resident memory of this process now."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def anonymous_bytes() -> int:
    """The part of this process's resident memory that no file stands behind, now; where the system
    does not tell it, all of it."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            _, resident, shared, *_ = map(int, statm.read().split())
            return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resident_bytes()


def proportional_bytes(pids: Sequence[int]) -> int:
    """The resident memory of processes, what several share counted once; 0 for each that is gone,
    or where the system does not tell."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def peak_resident_bytes() -> int:
    """The most memory this process ever had resident."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def return_free_memory() -> None:
    """Give freed memory back to the system; without it a dropped cache stays resident (glibc)."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)


def give_back_large_buffers() -> None:
    """From now on, a buffer of 4 MiB or more goes back to the system when it is freed (glibc).

    Measured: what was fetched ahead, each chunk in the heap of its own thread, kept 150 MB resident
    after it was freed; in a budget of 512 MB the engines' caches were dropped 80 times instead of
    once, and a run took twice as long. With memory to spare it costs more than it saves.
    """
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 4 * MIB)


_M_MMAP_THRESHOLD = -3
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
