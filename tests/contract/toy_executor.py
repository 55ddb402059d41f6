"""An executor that does the work where it is asked for: one block at a time, for a debugger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic

from tokenmill.executors.executor import Item, Result, RunningMap


class InlineMap(RunningMap[Result], Generic[Item, Result]):
    """A map that is under way; whatever fails is raised in its turn."""

    is_finished = False

    def __init__(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        is_over: Callable[[], bool],
    ) -> None:
        self.make = make
        self.items = items
        self.is_over = is_over

    def __iter__(self) -> Iterator[Result]:
        function = self.make()
        for item in self.items:
            if self.is_over():
                return
            yield function(item)
        self.is_finished = True

    def close(self, seconds: float | None = None) -> int:
        return 0  # no thread works any more, for there was none


class InlineExecutor:
    def __init__(self, workers: int) -> None:
        """However many are wanted, there is one."""

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        *,
        window: int,
        weigh: Callable[[Item], int] = lambda item: 1,
        is_over: Callable[[], bool] = lambda: False,
    ) -> InlineMap[Item, Result]:
        return InlineMap(make, items, is_over)
