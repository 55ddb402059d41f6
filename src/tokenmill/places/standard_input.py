"""``-``: what comes through standard input.

A pipe is read once, from front to back; it has no size, and nothing to go on from. So a run over
it keeps nothing when it stops, and says so when it begins. What is in it, JSON Lines or text, is
told by its first line. How much came through, and a hash of it, are known at the end.
"""

from __future__ import annotations

import json
import os
import select
import stat
import threading
from dataclasses import replace

import xxhash

from tokenmill.compression import Damage
from tokenmill.errors import InputError, TemporaryFailure, UsageError
from tokenmill.places.place import Content, Found, InputFile

PATH = "-"
_STDIN = 0
_HEAD = 1024 * 1024
_MAGIC = {
    b"\x1f\x8b": "zcat",
    b"\x28\xb5\x2f\xfd": "zstdcat",
    b"BZh": "bzcat",
    b"\xfd7zXZ": "xzcat",
}
_POLL_SECONDS = 0.2


class Pipe:
    """Standard input, as a place with one file."""

    is_remote = False

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._head = b""
        self._hash = xxhash.xxh3_64()
        self._is_over = threading.Event()
        self.damage: Damage | None = None
        self.position = 0

    def peek(self) -> bytes:
        """The first line, or as much of it as tells what it is; nothing is lost by it."""
        while b"\n" not in self._head.lstrip() and len(self._head) < _HEAD:
            data = self._take(64 * 1024)
            if not data:
                break
            self._head += data
        return self._head

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes, as they come; b"" at the end. Raises InputError."""
        data = self._head[:size] or self._take(size)
        self._head = self._head[size:]
        self._hash.update(data)
        self.position += len(data)
        return data

    def _take(self, size: int) -> bytes:
        # A writer may be silent for hours, and whoever stops the run does not wait for it.
        try:
            while not select.select([self._fd], [], [], _POLL_SECONDS)[0]:
                if self._is_over.is_set():
                    raise TemporaryFailure("given up", PATH, "the run is being stopped", "again")
            return os.read(self._fd, size)
        except OSError as error:
            raise InputError(
                "cannot read standard input",
                f"byte {self.position}",
                error.strerror,
                "look at the command that writes into the pipe",
            ) from error

    def close(self) -> None:
        """Wait for nothing more."""
        self._is_over.set()

    def open(self, file: InputFile) -> Content:
        raise InputError(
            "standard input can be read only from front to back", PATH, None, "write it to a file"
        )

    def check_unchanged(self, file: InputFile) -> None:
        """It is gone."""

    def settled(self, file: InputFile) -> InputFile:
        """The file, now that all of it was read."""
        return replace(file, size=self.position, probe=self._hash.hexdigest())


def expand(argument: str) -> Found:
    """Standard input as the one file that it is."""
    status = os.fstat(_STDIN)
    if stat.S_ISCHR(status.st_mode) and os.isatty(_STDIN):
        raise UsageError(
            "standard input is a terminal",
            PATH,
            None,
            "pipe the corpus into tokenmill: cat corpus.jsonl | tokenmill prepare - ...",
        )
    pipe = Pipe(_STDIN)
    head = pipe.peek()
    if not head:
        raise InputError(
            "nothing came through the pipe",
            PATH,
            "it ended before the first byte",
            "look at the command that writes into the pipe",
        )
    for magic, command in _MAGIC.items():
        if head.startswith(magic):
            raise InputError(
                "what comes through the pipe is compressed",
                PATH,
                None,
                f"decompress it on the way: {command} FILE | tokenmill prepare - ...",
            )
    return Found([InputFile(PATH, _kind(head), None, 0, 0, "", pipe)])


def _kind(head: bytes) -> str:
    line, end, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not end and len(head) >= _HEAD:
        return "jsonl" if line.startswith(b"{") else "text"
    try:
        return "jsonl" if isinstance(json.loads(line), dict) else "text"
    except (ValueError, RecursionError):
        return "text"
