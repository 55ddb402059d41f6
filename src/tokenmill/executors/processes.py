"""Maps over items in worker processes: every core at work, whatever holds the interpreter's lock.

What crosses the border is pickled; large buffers (texts, arrays) travel in shared memory that is
used again, and those of results are not copied in this process. A worker that dies, by a signal or
by an engine that aborts, costs its item and not the map: the item goes to another worker, a new
worker is forked, and only the third death over one item is an error. ``ProcessPoolExecutor`` loses
all pending work then, and ``multiprocessing.Pool`` waits for ever (both measured).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from tokenmill.executors.executor import Item, Result, RunningMap, WorkerDied
from tokenmill.executors.fork_server import ForkServer, ServerDied
from tokenmill.executors.obituary import obituary, oom_kills
from tokenmill.executors.slots import Slot, padded, put
from tokenmill.executors.worker import packed, receive, send

MOST_DEATHS = 3
_AHEAD = 2
"""Items that a worker has: one in hand, and the next, so that it does not wait for this process."""


class ProcessExecutor:
    """Runs maps in so many worker processes.

    ``modules`` are loaded once, before the workers are forked; ``tell`` hears of each death.
    Whoever calls ``begin`` must call ``close``; a map without it has a server of its own.
    """

    def __init__(
        self,
        workers: int,
        modules: Sequence[str] = (),
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._workers = workers
        self._modules = list(modules)
        self._tell = tell
        self._begun: tuple[object, ForkServer] | None = None

    def begin(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        """Start what loads what workers need, for the maps with this ``make`` that follow: it
        takes some tenths of a second, in which the caller may do something else."""
        self.close()
        self._begun = make, ForkServer(pickle.dumps(make, protocol=5), self._modules)

    def fork(self, target: str) -> socket.socket:
        """A process beside the workers, which calls the function of a channel that ``target``
        names (``tokenmill.a.b:function``), until ``close``: the other end of the channel."""
        assert self._begun is not None, "nothing was begun"
        return self._begun[1].fork(target)[1]

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        *,
        window: int,
        weigh: Callable[[Item], int] = lambda item: 1,
        is_over: Callable[[], bool] = lambda: False,
    ) -> ProcessMap[Item, Result]:
        """See ``Executor``. ``make`` may have a method ``preload``, called once before workers are
        forked: what it loads is in memory once."""
        is_mine = self._begun is not None and self._begun[0] is make
        if self._begun is not None and is_mine:
            server = self._begun[1]
        else:
            server = ForkServer(pickle.dumps(make, protocol=5), self._modules)
        return ProcessMap(
            server, items, self._workers, window, weigh, is_over, self._tell, not is_mine
        )

    def close(self) -> None:
        """End what was begun."""
        if self._begun is not None:
            self._begun[1].close()
            self._begun = None


@dataclass(eq=False)
class _Task:
    """An item on its way, pickled; its buffers are in the slot, and so will be its result's."""

    index: int
    body: bytes | None
    sizes: list[int]
    slot: Slot
    deaths: list[str] = field(default_factory=list)

    @property
    def result_at(self) -> int:
        return sum(map(padded, self.sizes))


@dataclass(eq=False)
class _Worker:
    number: int
    channel: socket.socket
    tasks: deque[_Task] = field(default_factory=deque)


class ProcessMap(RunningMap[Result], Generic[Item, Result]):
    """A map that is under way in processes. See ``RunningMap``.

    One thread takes items from the iterator, which may fetch and decompress; one speaks to the
    workers; whoever iterates unpickles the results in their order.
    """

    def __init__(
        self,
        server: ForkServer,
        items: Iterator[Item],
        workers: int,
        window: int,
        weigh: Callable[[Item], int],
        is_over: Callable[[], bool],
        tell: Callable[[str], None],
        ends_server: bool,
    ) -> None:
        self._ends_server = ends_server
        self._items, self._window, self._weigh = items, window, weigh
        self._is_over, self._tell = is_over, tell
        self._changed = threading.Condition()
        self._weights: dict[int, int] = {}
        self._waiting: deque[_Task] = deque()
        self._results: dict[int, tuple[Any, BaseException | None, _Task | None]] = {}
        self._free: list[Slot] = []
        self._slots: list[Slot] = []
        self._workers: list[_Worker] = []
        self._failure: BaseException | None = None
        self._end: int | None = None
        self._stopping = False
        self.is_finished = False
        self._oom_kills = oom_kills()
        self._server = server
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(server.control, selectors.EVENT_READ)
        for _ in range(workers):
            self._fork()
        self._threads = [self._start(self._feed), self._start(self._speak)]

    @property
    def pids(self) -> list[int]:
        """Of all processes that work for it, those included that died."""
        return [self._server.pid, *self._server.pids]

    def _start(self, target: Callable[[], None]) -> threading.Thread:
        name = f"tokenmill-processes-{target.__name__}"
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _fork(self) -> None:
        worker = _Worker(*self._server.fork())
        self._workers.append(worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)

    # --- the thread that takes items

    def _feed(self) -> None:
        index = 0
        while not self._stopping:
            try:
                item = next(self._items)
                if not self._has_room(index, self._weigh(item)):
                    break
                task = self._task(index, item)
                del item
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001  raised again in its turn
                self._put(index, None, error, None)
                index += 1
                break
            with self._changed:
                self._waiting.append(task)
            index += 1
            self._wake()
        with self._changed:
            self._end = index
            self._changed.notify_all()

    def _has_room(self, index: int, weight: int) -> bool:
        with self._changed:
            while self._weights and sum(self._weights.values()) + weight > self._window:
                if self._stopping:
                    return False
                self._changed.wait(0.2)
            self._weights[index] = weight
            return not self._stopping

    def _task(self, index: int, item: Item) -> _Task:
        body, buffers = packed(item)
        with self._changed:
            slot = self._free.pop() if self._free else None
        if slot is None:
            slot = Slot()
            self._slots.append(slot)
        return _Task(index, body, put(slot.fd, 0, buffers), slot)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"1")

    # --- the thread that speaks to the workers

    def _speak(self) -> None:
        try:
            while not self._stopping:
                self._hand_out()
                for key, _ in self._selector.select(1.0):
                    if key.fileobj is self._woken:
                        with contextlib.suppress(BlockingIOError):
                            self._woken.recv(4096)
                    elif key.fileobj is self._server.control:
                        self._server.hear()
                    else:
                        self._hear(key.data)
        except ServerDied as error:
            self._fail(WorkerDied(-1, [str(error)]))
        except BaseException as error:  # noqa: BLE001  it would be waited for otherwise
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _hand_out(self) -> None:
        """To who has nothing first: else the first would have two items, and the last none."""
        for depth in range(_AHEAD):
            for worker in self._workers:
                if len(worker.tasks) == depth and self._waiting:
                    with self._changed:
                        task = self._waiting.popleft()
                    worker.tasks.append(task)
                    with contextlib.suppress(OSError):  # it died; that is heard, too
                        send(worker.channel, (task.index, task.body, task.sizes), (task.slot.fd,))

    def _hear(self, worker: _Worker) -> None:
        try:
            (index, body, sizes, failure), _ = receive(worker.channel)
        except (EOFError, OSError):
            if not self._stopping:
                self._bury(worker)
            return
        task = worker.tasks.popleft()
        assert task.index == index
        error = pickle.loads(failure) if failure is not None else None
        self._put(index, (body, sizes), error, task)

    def _bury(self, worker: _Worker) -> None:
        """A worker died: its items go to others, in front of all; the first was in its hand."""
        how = self._how(worker)
        self._selector.unregister(worker.channel)
        self._workers.remove(worker)
        worker.channel.close()
        with self._changed:
            self._waiting.extendleft(reversed(worker.tasks))
        if worker.tasks:
            task = worker.tasks[0]
            task.deaths.append(how)
            if len(task.deaths) >= MOST_DEATHS:
                with self._changed:
                    self._waiting.remove(task)
                self._put(task.index, None, WorkerDied(task.index, task.deaths), task)
        self._tell(f"warning: {how}; its block goes to another one")
        self._fork()

    def _how(self, worker: _Worker) -> str:
        status = self._server.how(worker.number)
        if status is None:
            return "a worker process ended, nobody can say how"
        if not os.WIFSIGNALED(status):
            return f"a worker process ended with {os.waitstatus_to_exitcode(status)}"
        number, kills = os.WTERMSIG(status), oom_kills()
        was_oom, self._oom_kills = kills > self._oom_kills, max(kills, self._oom_kills)
        return obituary("a worker process", number, was_oom and number == signal.SIGKILL)

    # --- results

    def _put(
        self, index: int, result: Any, error: BaseException | None, task: _Task | None
    ) -> None:
        with self._changed:
            self._results[index] = result, error, task
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Result]:
        index = 0
        while True:
            with self._changed:
                while not (index in self._results or self._end == index or self._failure):
                    if self._is_over():
                        break
                    self._changed.wait(0.2)
                if self._failure and index not in self._results and self._end != index:
                    raise self._failure
                if index not in self._results or self._is_over():
                    self.is_finished = self._end == index
                    return
                result, error, task = self._results.pop(index)
            if error is not None:
                raise error
            assert task is not None
            yield self._unpacked(task, *result)
            task.slot.release()
            with self._changed:
                self._free.append(task.slot)
                self._weights.pop(index, None)
                self._changed.notify_all()
            index += 1

    @staticmethod
    def _unpacked(task: _Task, body: bytes | None, sizes: list[int]) -> Any:
        views = task.slot.views(task.result_at, sizes)
        if body is None:
            return pickle.loads(views[0], buffers=views[1:])
        return pickle.loads(body, buffers=views)

    def close(self, seconds: float | None = None) -> int:
        """End all workers at once, in native code, too; returns how many threads still work."""
        self._stopping = True
        self._wake()
        with self._changed:
            self._changed.notify_all()
        for worker in self._workers:  # whoever waits for an answer hears that there is none
            with contextlib.suppress(OSError):
                worker.channel.shutdown(socket.SHUT_RDWR)
            self._server.kill(worker.number)
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        left = sum(thread.is_alive() for thread in self._threads)
        if self._ends_server and not self._server.is_closed:
            self._server.close()
        if not left:
            self._let_go()
        return left

    def _let_go(self) -> None:
        """Of all that the threads here use."""
        self._selector.close()
        for channel in (self._waker, self._woken, *(each.channel for each in self._workers)):
            channel.close()
        for slot in self._slots:
            slot.close()
        self._slots.clear()
