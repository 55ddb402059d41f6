"""The processes of ``executors.processes``: one that forks, and those that work.

The first is started with nothing but Python, loads what workers need, and forks one of itself for
each; so libraries are in memory once, and a new worker costs milliseconds. It has one thread, so
that a fork of it is whole. Every process here ends when the one that started all does, however
that ends: its sockets close.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from mmap import mmap
from typing import Any

_LENGTH = struct.Struct("<Q")
ALIGNMENT = 64
FORKED, ENDED = "forked", "ended"


def send(channel: socket.socket, message: object, fds: tuple[int, ...] = ()) -> None:
    """One pickled message, with open files beside it. Raises OSError where nobody listens."""
    body = pickle.dumps(message, protocol=5)
    head = _LENGTH.pack(len(body))
    if fds:
        socket.send_fds(channel, [head], list(fds))
    else:
        channel.sendall(head)
    channel.sendall(body)


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
    return b"".join(parts)


def serve(channel: socket.socket) -> None:
    """Fork workers until the other end closes; tell how each ended. Never returns."""
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
                _, (fd,) = receive(channel, with_fds=True)
                _fork(channel, fd, children)
    except (EOFError, OSError, ValueError):
        pass
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os._exit(0)


def _fork(channel: socket.socket, fd: int, children: set[int]) -> None:
    pid = os.fork()
    if not pid:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.close()
        with contextlib.suppress(BaseException):
            work(socket.socket(fileno=fd))
        os._exit(0)
    os.close(fd)
    children.add(pid)
    send(channel, (FORKED, pid, 0))


def _reap(channel: socket.socket, children: set[int]) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(pid)
            send(channel, (ENDED, pid, status))


def work(channel: socket.socket) -> None:
    """The loop of a worker: a recipe first, then items, each with the memory for its result."""
    function: Callable[[Any], Any] | None = None
    make, _ = receive(channel)
    while True:
        try:
            (index, item), (fd,) = receive(channel, with_fds=True)
        except EOFError:
            return
        answer: tuple[int, tuple[bytes, list[int]] | None, bytes | None]
        try:
            function = function or pickle.loads(make)()
            answer = index, _packed(function(pickle.loads(item)), fd), None
        except BaseException as error:  # noqa: BLE001  raised again in the other process
            answer = index, None, _carried(error)
        finally:
            os.close(fd)
            del item
        send(channel, answer)
        del answer


def _packed(result: object, fd: int) -> tuple[bytes, list[int]]:
    """A result pickled, its buffers in the shared memory, one after another: their sizes."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    total = sum(map(padded, sizes))
    if total:
        if os.fstat(fd).st_size < total:
            os.ftruncate(fd, total)
        with mmap(fd, total) as memory:
            start = 0
            for view in views:
                memory[start : start + view.nbytes] = view
                start += padded(view.nbytes)
    return body, sizes


def padded(size: int) -> int:
    """The room that a buffer of ``size`` bytes takes, so that the next one is aligned."""
    return -(-size // ALIGNMENT) * ALIGNMENT


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the other process that decides
    modules, _ = receive(channel)
    for module in modules:
        importlib.import_module(module)
    sys.stdout.flush()
    serve(channel)
