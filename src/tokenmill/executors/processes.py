"""Maps over items in worker processes: every core at work, whatever holds the interpreter's lock.

What crosses the border is pickled; large buffers of results (arrays) travel in shared memory that
is used again, and are not copied in this process. A worker that dies, by a signal or by an engine
that aborts, costs its item and not the map: the item goes to another worker, a new worker is
forked, and only the third death over one item is an error. ``ProcessPoolExecutor`` loses all
pending work then, and ``multiprocessing.Pool`` waits for ever (both measured).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, Generic

from tokenmill.executors.executor import Item, Result, RunningMap, WorkerDied
from tokenmill.executors.worker import ENDED, FORKED, padded, receive, send

MOST_DEATHS = 3
_BEGIN = (
    "import sys; sys.path[:] = {path!r}\nfrom tokenmill.executors.worker import main; main({fd})"
)


class ProcessExecutor:
    """Runs maps in so many worker processes.

    ``modules`` are loaded once, before the workers are forked; ``tell`` hears of each death.
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

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        *,
        window: int,
        weigh: Callable[[Item], int] = lambda item: 1,
        is_over: Callable[[], bool] = lambda: False,
    ) -> ProcessMap[Item, Result]:
        """See ``Executor``."""
        return ProcessMap(
            make, items, self._workers, window, weigh, is_over, self._modules, self._tell
        )


class _Slot:
    """Shared memory for the buffers of one result; it grows to the largest, and is used again."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("tokenmill", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        self._memory: mmap | None = None

    def views(self, sizes: list[int]) -> list[memoryview]:
        """The buffers that a worker has put there."""
        total = sum(map(padded, sizes))
        if not total:
            return [memoryview(bytearray()) for _ in sizes]
        if self._memory is None or len(self._memory) < total:
            self._memory = mmap(self.fd, total)  # an older one goes with its last view
        whole, start, views = memoryview(self._memory), 0, []
        for size in sizes:
            views.append(whole[start : start + size])
            start += padded(size)
        return views

    def close(self) -> None:
        """Give the memory back, as soon as nobody looks at it."""
        self._memory = None
        os.close(self.fd)


@dataclass
class _Task:
    """An item on its way: pickled, until its result is there."""

    index: int
    body: bytes
    slot: _Slot
    deaths: list[str] = field(default_factory=list)


@dataclass(eq=False)
class _Worker:
    channel: socket.socket
    pid: int = 0
    task: _Task | None = None


class ProcessMap(RunningMap[Result], Generic[Item, Result]):
    """A map that is under way in processes. See ``RunningMap``.

    One thread takes items from the iterator, which may fetch and decompress; one speaks to the
    workers; whoever iterates unpickles the results in their order.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterator[Item],
        workers: int,
        window: int,
        weigh: Callable[[Item], int],
        is_over: Callable[[], bool],
        modules: list[str],
        tell: Callable[[str], None],
    ) -> None:
        self._make = pickle.dumps(make, protocol=5)
        self._items, self._window, self._weigh = items, window, weigh
        self._is_over, self._tell = is_over, tell
        self._changed = threading.Condition()
        self._weights: dict[int, int] = {}
        self._waiting: deque[_Task] = deque()
        self._results: dict[int, tuple[Any, BaseException | None, _Slot | None]] = {}
        self._free: list[_Slot] = []
        self._slots: list[_Slot] = []
        self._workers: list[_Worker] = []
        self._ends: dict[int, int] = {}
        self._failure: BaseException | None = None
        self._end: int | None = None
        self._stopping = False
        self.is_finished = False
        self._control, theirs = socket.socketpair()
        with theirs:
            code = _BEGIN.format(path=sys.path, fd=theirs.fileno())
            command = [sys.executable, "-S", "-c", code]
            self._server = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        send(self._control, modules)
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        for _ in range(workers):
            self._fork()
        self._threads = [self._start(self._feed), self._start(self._speak)]

    def _start(self, target: Callable[[], None]) -> threading.Thread:
        name = f"tokenmill-processes-{target.__name__}"
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        self._workers.append(_Worker(ours))
        with theirs:
            send(self._control, FORKED, (theirs.fileno(),))
        send(ours, self._make)

    # --- the thread that takes items

    def _feed(self) -> None:
        index = 0
        while not self._stopping:
            try:
                item = next(self._items)
                weight, body = self._weigh(item), pickle.dumps(item, protocol=5)
                del item
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001  raised again in its turn
                self._put(index, None, error, None)
                index += 1
                break
            if not self._has_room(index, weight):
                break
            with self._changed:
                self._waiting.append(_Task(index, body, self._slot()))
            index += 1
            del body
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

    def _slot(self) -> _Slot:
        if not self._free:
            self._slots.append(_Slot())
            return self._slots[-1]
        return self._free.pop()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"1")

    # --- the thread that speaks to the workers

    def _speak(self) -> None:
        try:
            while not self._stopping:
                self._hand_out()
                channels = {worker.channel: worker for worker in self._workers}
                ready, _, _ = select.select([self._woken, self._control, *channels], [], [], 1.0)
                if self._woken in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                if self._control in ready:
                    self._hear_server()
                for channel in ready:
                    if worker := channels.get(channel):
                        self._hear(worker)
        except BaseException as error:  # noqa: BLE001  it would be waited for otherwise
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.task is None and self._waiting:
                with self._changed:
                    worker.task = task = self._waiting.popleft()
                with contextlib.suppress(OSError):  # it died; that is heard, too
                    send(worker.channel, (task.index, task.body), (task.slot.fd,))

    def _hear(self, worker: _Worker) -> None:
        try:
            (index, packed, failure), _ = receive(worker.channel)
        except (EOFError, OSError):
            if not self._stopping:
                self._bury(worker)
            return
        task, worker.task = worker.task, None
        assert task is not None and task.index == index
        error = pickle.loads(failure) if failure is not None else None
        self._put(index, packed, error, task.slot)

    def _hear_server(self) -> None:
        try:
            (what, pid, status), _ = receive(self._control)
        except (EOFError, OSError):
            code = self._server.wait()
            raise WorkerDied(-1, [f"the process that starts workers ended with {code}"]) from None
        if what == FORKED:
            next(worker for worker in self._workers if not worker.pid).pid = pid
        elif what == ENDED:
            self._ends[pid] = status

    def _bury(self, worker: _Worker) -> None:
        """A worker died: its item goes to another one, in front of all."""
        how, task = self._how(worker), worker.task
        self._workers.remove(worker)
        worker.channel.close()
        if task is not None:
            task.deaths.append(how)
            if len(task.deaths) >= MOST_DEATHS:
                self._put(task.index, None, WorkerDied(task.index, task.deaths), task.slot)
            else:
                with self._changed:
                    self._waiting.appendleft(task)
        self._tell(f"a worker died: {how}; the run goes on with a new one")
        self._fork()

    def _how(self, worker: _Worker) -> str:
        end = time.monotonic() + 2
        while worker.pid not in self._ends and time.monotonic() < end:
            if select.select([self._control], [], [], 0.1)[0]:
                self._hear_server()
        status = self._ends.get(worker.pid)
        if status is None:
            return "nobody can say how"
        if os.WIFSIGNALED(status):
            return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"it ended with {os.waitstatus_to_exitcode(status)}"

    # --- results

    def _put(
        self, index: int, packed: Any, error: BaseException | None, slot: _Slot | None
    ) -> None:
        with self._changed:
            self._results[index] = packed, error, slot
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
                packed, error, slot = self._results.pop(index)
            if error is not None:
                raise error
            assert slot is not None
            body, sizes = packed
            yield pickle.loads(body, buffers=slot.views(sizes))
            with self._changed:
                self._free.append(slot)
                self._weights.pop(index, None)
                self._changed.notify_all()
            index += 1

    def close(self, seconds: float | None = None) -> int:
        """End all workers at once, in native code, too; returns how many threads still work."""
        self._stopping = True
        self._wake()
        with self._changed:
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # which ends the server, and with it all
        self._server.wait()
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        for channel in (self._control, *(worker.channel for worker in self._workers)):
            channel.close()
        for slot in self._slots:
            slot.close()
        self._slots.clear()
        self._waker.close()
        self._woken.close()
        return sum(thread.is_alive() for thread in self._threads)
