"""SHA-256 of what is written, computed by another process.

It is the bytes handed to the writing that are hashed, not those that a file gives back: a disk that
keeps other ones is found by whoever verifies. They go through shared memory, in chunks that are
used again; who writes waits only where all of them are full. Measured: hashing takes 0.6 to
0.9 s of a core for the tokens of a gigabyte of text.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import tempfile
import threading
from mmap import mmap
from typing import Protocol

_CHUNK = 1024 * 1024
_CHUNKS = 8
_MESSAGE = struct.Struct("<BIII")
"""What, which digest, which chunk, how many bytes of it."""
_UPDATE, _DIGEST, _DONE = 1, 2, 3
_ANSWER = struct.Struct("<BI32s")
"""What, which chunk, the digest."""


class Digest(Protocol):
    """As ``hashlib`` has it."""

    def update(self, data: memoryview | bytes, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Of all that was added."""


class HasherDied(OSError):
    """The process that hashes ended: what it was given is to be read and hashed again."""


class Hasher:
    """The process that hashes, as seen by the one that writes; ``channel`` leads to it, where
    ``serve`` runs. By any thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._count = 0
        self._free = list(range(_CHUNKS))
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("tokenmill-hash", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())
        os.ftruncate(self._fd, _CHUNK * _CHUNKS)
        self._ring = mmap(self._fd, _CHUNK * _CHUNKS)
        self._failure: HasherDied | None = None
        try:
            socket.send_fds(channel, [b"h"], [self._fd])
        except OSError as error:
            self._failure = HasherDied(str(error))

    def digest(self) -> RemoteDigest:
        """A new one, of nothing yet."""
        with self._lock:
            self._count += 1
            return RemoteDigest(self, self._count)

    def update(self, number: int, data: memoryview) -> None:
        """Add bytes to a digest. Raises HasherDied."""
        with self._lock:
            for start in range(0, len(data), _CHUNK):
                part = data[start : start + _CHUNK]
                while not self._free:
                    self._hear()
                chunk = self._free.pop()
                self._ring[chunk * _CHUNK : chunk * _CHUNK + len(part)] = part
                self._send(_UPDATE, number, chunk, len(part))

    def hexdigest(self, number: int) -> str:
        """Of all that was added. Raises HasherDied."""
        with self._lock:
            self._send(_DIGEST, number, 0, 0)
            while (found := self._hear()) is None:
                pass
            return found.hex()

    def _send(self, what: int, number: int, chunk: int, size: int) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._channel.sendall(_MESSAGE.pack(what, number, chunk, size))
        except OSError as error:
            self._failure = HasherDied(str(error))
            raise self._failure from None

    def _hear(self) -> bytes | None:
        """Take in an answer: a chunk that is free again, or the digest that was asked for."""
        answer = b""
        try:
            while self._failure is None and len(answer) < _ANSWER.size:
                part = self._channel.recv(_ANSWER.size - len(answer))
                if not part:
                    raise OSError("the process that hashes ended")
                answer += part
        except OSError as error:
            self._failure = HasherDied(str(error))
        if self._failure is not None:
            raise self._failure
        what, chunk, digest = _ANSWER.unpack(answer)
        if what == _DONE:
            self._free.append(chunk)
            return None
        return bytes(digest)

    def close(self) -> None:
        """No more is hashed."""
        self._channel.close()
        self._ring.close()
        os.close(self._fd)


class RemoteDigest:
    """One of a ``Hasher``'s."""

    def __init__(self, hasher: Hasher, number: int) -> None:
        self._hasher = hasher
        self._number = number

    def update(self, data: memoryview | bytes, /) -> None:
        """Add bytes. Raises HasherDied."""
        self._hasher.update(self._number, memoryview(data).cast("B"))

    def hexdigest(self) -> str:
        """Of all that was added. Raises HasherDied."""
        return self._hasher.hexdigest(self._number)


def serve(channel: socket.socket) -> None:
    """The loop of the process that hashes; it ends when the other end closes."""
    _, (fd,), _, _ = socket.recv_fds(channel, 1, 1)
    ring = memoryview(mmap(fd, _CHUNK * _CHUNKS))
    digests: dict[int, hashlib._Hash] = {}
    stream = channel.makefile("rb")
    while message := stream.read(_MESSAGE.size):
        what, number, chunk, size = _MESSAGE.unpack(message)
        digest = digests.setdefault(number, hashlib.sha256())
        if what == _UPDATE:
            digest.update(ring[chunk * _CHUNK : chunk * _CHUNK + size])
            channel.sendall(_ANSWER.pack(_DONE, chunk, b""))
        else:
            channel.sendall(_ANSWER.pack(_DIGEST, 0, digest.digest()))
