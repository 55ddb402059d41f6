"""Who does the work of a run: threads of this process, or worker processes; and how many."""

from __future__ import annotations

from dataclasses import dataclass

from tokenmill.errors import UsageError, choose_from
from tokenmill.memory import Budget, Needs
from tokenmill.units import format_bytes, numbered

AUTO, THREADS, PROCESSES = "auto", "threads", "processes"
EXECUTORS = (AUTO, THREADS, PROCESSES)
_WORTH_BYTES = 64 * 1024 * 1024
"""With less text there are no processes, unless they are asked for: to start them takes some
tenths of a second."""
_WORTH_WORKERS = 4
"""With fewer workers there are none, either. Measured on two cores: processes take a tenth to a
fifth more of the processors' time for what they hand over, and with an engine that costs nothing,
four threads are still faster than two, and eight are slower."""


@dataclass(frozen=True)
class Workers:
    """So many of them; ``share`` is the part of the budget that each process has, None for
    threads. ``limited``: so many there would be if there were more memory."""

    count: int
    share: Budget | None = None
    limited: int = 0

    @property
    def are_processes(self) -> bool:
        """Are they processes of their own?"""
        return self.share is not None

    @property
    def window(self) -> int:
        """Blocks of the usual size in flight, or waiting to be written, at most: of processes, that
        each has one in hand, the next one, and one that waits for its turn."""
        return 3 * self.count + 4

    def words(self) -> str:
        """How many of what."""
        return numbered(self.count, "worker") + (" (processes)" if self.are_processes else "")


def check_executor(name: str) -> None:
    """Raises UsageError for one that there is not."""
    if name not in EXECUTORS:
        raise UsageError(f"there is no executor {name!r}", fix=choose_from(name, list(EXECUTORS)))


def choose_workers(
    executor: str,
    asked: int | None,
    budget: Budget,
    needs: Needs,
    text_bytes: int,
    why_threads: str | None,
) -> Workers:
    """As many as the budget has threads for; as processes where ``executor`` says so, or where
    that is worth it and there is memory for enough of them.

    ``asked`` is how many were asked for, ``text_bytes`` how much text there is, about,
    ``why_threads`` why this run can have no processes. Raises UsageError.
    """
    threads = Workers(budget.threads)
    if executor == THREADS or (executor == AUTO and why_threads):
        return threads
    if executor == PROCESSES:
        return _processes(asked or budget.threads, budget, needs, why_threads)
    if budget.threads < _WORTH_WORKERS or text_bytes < _WORTH_BYTES:
        return threads
    count = budget.threads
    while count >= _WORTH_WORKERS and budget.roomy_for_processes(count, needs) > budget.total:
        count -= 1
    if count < _WORTH_WORKERS or (asked is not None and count < asked):
        return threads
    limited = budget.threads if count < budget.threads else 0
    return Workers(count, budget.share(count, needs), limited)


def _processes(count: int, budget: Budget, needs: Needs, why_threads: str | None) -> Workers:
    if why_threads:
        raise UsageError(
            "--executor processes cannot be used here", None, why_threads, "--executor threads"
        )
    need = budget.processes_need(count, needs)
    if need > budget.total:
        missing = need - budget.total
        raise UsageError(
            f"--memory {format_bytes(budget.asked)} is too little for this run",
            None,
            f"{numbered(count, 'worker')} with this tokenizer, as processes, need at least "
            f"{format_bytes(budget.asked + missing)}",
            f"--memory {-(-(budget.asked + missing) // 10**6)}MB, fewer --workers, or --executor "
            "threads",
        )
    return Workers(count, budget.share(count, needs))
