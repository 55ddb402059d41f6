"""The processes of ``executors.processes``: one that forks, and those that work.

The first is started with nothing but Python, loads what workers need, and forks one of itself for
each; so libraries are in memory once, and a new worker costs milliseconds. It has one thread, so
that a fork of it is whole. Every process here ends when the one that started all does, however
that ends: its sockets close.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

from tokenmill.executors.slots import padded, put, taken

_LENGTH = struct.Struct("<Q")
FORK, KILL = "fork", "kill"
"""What the server is asked for: a process that does something, or the end of one."""
FORKED, ENDED = "forked", "ended"
"""What it tells."""
SMALL_BODY = 16 * 1024
"""A larger pickle travels like a buffer: two messages must fit into a socket, so that whoever
sends the second to a busy worker does not wait for it."""


def send(channel: socket.socket, message: object, fds: tuple[int, ...] = ()) -> None:
    """One pickled message, with open files beside it. Raises OSError where nobody listens."""
    body = pickle.dumps(message, protocol=5)
    head = _LENGTH.pack(len(body))
    if fds:
        socket.send_fds(channel, [head], list(fds))
        channel.sendall(body)
    else:
        channel.sendall(head + body)


def receive(channel: socket.socket, with_fds: bool = False) -> tuple[Any, list[int]]:
    """The next message and the open files beside it. Raises EOFError where the other end went."""
    fds: list[int] = []
    if with_fds:
        head, fds, _, _ = socket.recv_fds(channel, _LENGTH.size, 4)
    else:
        head = channel.recv(_LENGTH.size)
    head += _exactly(channel, _LENGTH.size - len(head)) if head else b""
    if not head:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    return pickle.loads(_exactly(channel, length)), fds


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = channel.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def packed(value: object) -> tuple[bytes | None, list[memoryview]]:
    """A value pickled, and its large buffers; None where the pickle is the first of them."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    if len(body) <= SMALL_BODY:
        return body, views
    return None, [memoryview(body), *views]


class Maker:
    """What gives a worker its function: unpickled, and made ready, once for all of them."""

    def __init__(self, modules: list[str], make: bytes) -> None:
        self._failure: BaseException | None = None
        try:
            for module in modules:
                importlib.import_module(module)
            self._make = pickle.loads(make)
            if hasattr(self._make, "preload"):
                self._make.preload()
        except BaseException as error:  # noqa: BLE001  every item raises it, in its turn
            self._failure = error
        gc.collect()
        gc.freeze()  # so that a collection in a worker writes to nothing that all share

    def __call__(self) -> Callable[[Any], Any]:
        if self._failure is not None:
            raise self._failure
        function: Callable[[Any], Any] = self._make()
        return function


def serve(channel: socket.socket, make: Maker) -> None:
    """Fork processes until the other end closes; tell how each ended. Never returns.

    What a process does is the function of a channel that is named like ``tokenmill.a.b:function``;
    without a name it is a worker.
    """
    children: set[int] = set()
    waker, woken = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        while True:
            ready, _, _ = select.select([channel, woken], [], [])
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                _reap(channel, children)
            if channel in ready:
                (what, about), fds = receive(channel, with_fds=True)
                if what == FORK:
                    _fork(channel, fds[0], children, _target(about, make))
                elif about in children:
                    os.kill(about, signal.SIGKILL)
    except (EOFError, OSError, ValueError):
        pass
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:  # so that what they took is counted as this process's children's
            os.waitpid(child, 0)
        os._exit(0)


def _target(name: str | None, make: Maker) -> Callable[[socket.socket], None]:
    if name is None:
        return lambda channel: work(channel, make)
    module, _, function = name.partition(":")
    found: Callable[[socket.socket], None] = getattr(importlib.import_module(module), function)
    return found


def _fork(
    channel: socket.socket, fd: int, children: set[int], target: Callable[[socket.socket], None]
) -> None:
    pid = os.fork()
    if not pid:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.close()
        with contextlib.suppress(BaseException):
            _show_as(target.__module__)
            target(socket.socket(fileno=fd))
        os._exit(0)
    os.close(fd)
    children.add(pid)
    send(channel, (FORKED, pid, 0))


def _show_as(module: str) -> None:
    """For ``ps`` and ``top``: what a process does."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write("tm-" + module.rpartition(".")[2])


def _reap(channel: socket.socket, children: set[int]) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(pid)
            send(channel, (ENDED, pid, status))


def work(channel: socket.socket, make: Callable[[], Callable[[Any], Any]]) -> None:
    """The loop of a worker: items, each with the memory that it lies in, and its result behind."""
    function: Callable[[Any], Any] | None = None
    while True:
        try:
            (index, body, sizes), (fd,) = receive(channel, with_fds=True)
        except EOFError:
            return
        answer: tuple[int, bytes | None, list[int], bytes | None]
        try:
            function = function or make()
            item = _item(fd, body, sizes)
            result, buffers = packed(function(item))
            del item
            answer = index, result, put(fd, sum(map(padded, sizes)), buffers), None
            del buffers, result
        except BaseException as error:  # noqa: BLE001  raised again in the other process
            answer = index, b"", [], _carried(error)
        finally:
            os.close(fd)
        send(channel, answer)
        del answer


def _item(fd: int, body: bytes | None, sizes: list[int]) -> Any:
    buffers = taken(fd, 0, sizes)
    if body is None:
        body = buffers.pop(0)
    return pickle.loads(body, buffers=buffers)


def _carried(error: BaseException) -> bytes:
    """An error pickled; as words where it cannot be."""
    try:
        body = pickle.dumps(error)
        pickle.loads(body)
    except Exception:  # noqa: BLE001  of any kind: an error's class may say anything
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return body


def main(fd: int) -> None:
    """Where a new Python begins: what to load comes first."""
    channel = socket.socket(fileno=fd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they come to all; the other process decides
    try:
        (modules, make), _ = receive(channel)
    except (EOFError, OSError):
        return
    serve(channel, Maker(modules, make))
