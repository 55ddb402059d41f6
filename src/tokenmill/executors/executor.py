"""The seam of executors: who maps a function over items, in order and bounded.

Whatever does the work, threads or processes, keeps what ``tests/contract/test_executors.py`` says:
results come in the order of the items, and so do errors; items of at most ``window`` in weight are
taken and not yet consumed (a heavier one alone); nothing is left behind when it is closed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from tokenmill.errors import TokenmillError
from tokenmill.units import numbered

Item = TypeVar("Item")
Result = TypeVar("Result")
Running = TypeVar("Running", bound="RunningMap[Any]")


class WorkerDied(TokenmillError):
    """Workers died again and again over the same item; ``index`` is its place among the items (-1:
    what starts them died), ``deaths`` says how each of them ended."""

    def __init__(self, index: int, deaths: list[str]) -> None:
        over = f"{numbered(len(deaths), 'worker')} died over the same block"
        super().__init__(
            over if index >= 0 else "no worker can be started any more",
            why="; ".join(dict.fromkeys(deaths)),
            fix="run it again on the command line with --executor threads: a parent watches that "
            "run, and finds the document that an engine dies of",
        )
        self.index = index
        self.deaths = deaths


class RunningMap(ABC, Generic[Result]):
    """A map that is under way: iterate over its results once, and close it when done.

    What a result holds may be memory that is used again: it is good until the next is asked for.
    ``is_finished``: did all results come?
    """

    is_finished: bool

    @property
    def pids(self) -> list[int]:
        """Of the processes beside this one that work for it."""
        return []

    @abstractmethod
    def __iter__(self) -> Iterator[Result]:
        """The results, in the order of the items. Raises what failed, in its turn."""

    @abstractmethod
    def close(self, seconds: float | None = None) -> int:
        """Stop the work and wait for it, so long at most; returns how many threads still work, in
        native code that cannot be interrupted."""

    def __enter__(self: Running) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Executor(Protocol):
    """Starts maps. ``make`` is called once in each worker and gives the function; where workers
    are processes, it, the items and the results are pickled."""

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        *,
        window: int,
        weigh: Callable[[Item], int] = ...,
        is_over: Callable[[], bool] = ...,
    ) -> RunningMap[Result]:
        """``function(item)`` for each item. It ends early when ``is_over`` says so."""
