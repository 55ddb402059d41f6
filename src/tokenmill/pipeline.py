"""Ordered, bounded map over blocks: the one place where there are threads.

``ordered_map`` keeps at most ``window`` items taken and not yet consumed: that window times the
size of a block is the memory contract. Results come in the order of the items, and so do errors:
what fails is raised when its turn comes, after all results before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedMap(Generic[Item, Result]):
    """An iterator over ``function(item)`` for each item, computed by threads, in order.

    ``make_function`` is called once in each thread. ``waiting_for_input`` and ``waiting_for_room``
    count the seconds that threads waited, for the progress display.
    """

    def __init__(
        self,
        make_function: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        threads: int,
        window: int,
    ) -> None:
        self._make_function = make_function
        self._items = items
        self._taking = threading.Lock()
        self._room = threading.Semaphore(window)
        self._changed = threading.Condition()
        self._results: dict[int, tuple[Result | None, BaseException | None]] = {}
        self._taken = 0
        self._end: int | None = None
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"tokenmill-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        function: Callable[[Item], Result] | None = None
        while True:
            self._room.acquire()
            with self._taking:
                if self._stopping or self._end is not None:
                    self._room.release()
                    return
                index = self._taken
                try:
                    item = next(self._items)
                except StopIteration:
                    self._finish(index)
                    return
                except BaseException as error:  # noqa: BLE001  raised again in its turn
                    self._put(index, None, error)
                    self._finish(index + 1)
                    return
                self._taken += 1
            try:
                function = function or self._make_function()
                self._put(index, function(item), None)
            except BaseException as error:  # noqa: BLE001  raised again in its turn
                self._put(index, None, error)
            del item

    def _put(self, index: int, result: Result | None, error: BaseException | None) -> None:
        with self._changed:
            self._results[index] = (result, error)
            self._changed.notify_all()

    def _finish(self, end: int) -> None:
        with self._changed:
            self._end = end
            self._changed.notify_all()
        self._room.release()

    def __iter__(self) -> Iterator[Result]:
        index = 0
        while True:
            with self._changed:
                while index not in self._results and self._end != index:
                    self._changed.wait(0.2)
                if index not in self._results:
                    return
                result, error = self._results.pop(index)
            if error is not None:
                raise error
            self._room.release()
            index += 1
            yield result  # type: ignore[misc]
            del result

    @property
    def backlog(self) -> int:
        """Results that wait for the consumer."""
        return len(self._results)

    def close(self) -> None:
        """Stop the threads and wait for them."""
        self._stopping = True
        for _ in self._threads:
            self._room.release()
        for thread in self._threads:
            thread.join()
