"""Ordered, bounded map over blocks: the one place where there are threads.

``OrderedMap`` keeps items of at most ``window`` in weight taken and not yet consumed (a heavier
one alone): that window times the size of a block is the memory contract. One thread takes the
items (walking through the inputs, and decoding what can only be decoded in sequence), others
compute. Results come in the order of the items, and so do errors: what fails is raised when its
turn comes, after all before it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic

from tokenmill.executors.executor import Item, Result, RunningMap

MAP_THREADS = "tokenmill-map-"
"""With that begin the names of the threads."""


class ThreadExecutor:
    """Runs maps in so many threads of this process."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        *,
        window: int,
        weigh: Callable[[Item], int] = lambda item: 1,
        is_over: Callable[[], bool] = lambda: False,
    ) -> OrderedMap[Item, Result]:
        """See ``Executor``."""
        return OrderedMap(make, items, self._workers, window, weigh, is_over)


class OrderedMap(RunningMap[Result], Generic[Item, Result]):
    """An iterable of ``function(item)`` for each item, computed by threads, in order.

    ``make_function`` is called once in each thread. It ends early when ``is_over`` says so. Close
    it when done.
    """

    def __init__(
        self,
        make_function: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        threads: int,
        window: int,
        weigh: Callable[[Item], int] = lambda item: 1,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make_function = make_function
        self._items = items
        self._window = window
        self._weigh = weigh
        self._is_over = is_over
        self._weights: dict[int, int] = {}
        self._taken: SimpleQueue[tuple[int, Item] | None] = SimpleQueue()
        self._changed = threading.Condition()
        self._results: dict[int, tuple[Result | None, BaseException | None]] = {}
        self._end: int | None = None
        self._stopping = False
        self.is_finished = False
        """Did all results come?"""
        self._workers = [self._start(self._work) for _ in range(threads)]
        self._feeder = self._start(self._feed)

    @staticmethod
    def _start(target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=MAP_THREADS + target.__name__, daemon=True)
        thread.start()
        return thread

    def _feed(self) -> None:
        index = 0
        while not self._stopping:
            try:
                item = next(self._items)
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001  raised again in its turn
                self._put(index, None, error)
                index += 1
                break
            self._wait_for_room(index, self._weigh(item))
            self._taken.put((index, item))
            index += 1
            del item
        with self._changed:
            self._end = index
            self._changed.notify_all()
        for _ in self._workers:
            self._taken.put(None)

    def _wait_for_room(self, index: int, weight: int) -> None:
        with self._changed:
            while self._weights and sum(self._weights.values()) + weight > self._window:
                if self._stopping:
                    return
                self._changed.wait(0.2)
            self._weights[index] = weight

    def _work(self) -> None:
        function: Callable[[Item], Result] | None = None
        while (taken := self._taken.get()) is not None and not self._stopping:
            index, item = taken
            try:
                function = function or self._make_function()
                self._put(index, function(item), None)
            except BaseException as error:  # noqa: BLE001  raised again in its turn
                self._put(index, None, error)
            del item, taken

    def _put(self, index: int, result: Result | None, error: BaseException | None) -> None:
        with self._changed:
            self._results[index] = (result, error)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Result]:
        index = 0
        while True:
            with self._changed:
                while index not in self._results and self._end != index and not self._is_over():
                    self._changed.wait(0.2)
                if index not in self._results or self._is_over():
                    self.is_finished = self._end == index
                    return
                result, error = self._results.pop(index)
                self._weights.pop(index, None)
                self._changed.notify_all()
            if error is not None:
                raise error
            index += 1
            yield result  # type: ignore[misc]
            del result

    def close(self, seconds: float | None = None) -> int:
        """Stop the threads and wait for them, so long at most; returns how many still work, in
        native code that cannot be interrupted. What they give when they are done goes nowhere."""
        self._stopping = True
        threads = [self._feeder, *self._workers]
        end = None if seconds is None else time.monotonic() + seconds
        for thread in threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return sum(thread.is_alive() for thread in threads)
