"""``-``, and other pipes such as ``<(zcat x.gz)``: what comes through is read once.

A pipe is read from front to back; it has no size, and nothing to go on from. So a run over it
keeps nothing when it stops, and says so when it begins. What is in it, JSON Lines or text, is told
by ``--kind``, or guessed from its first line; a guess that the second line speaks against is
refused. How much came through, and a hash of it, are known at the end.
"""

from __future__ import annotations

import json
import os
import select
import stat
import threading
from dataclasses import replace

import xxhash

from tokenmill.errors import InputError, TemporaryFailure, UsageError, unreadable
from tokenmill.kinds import KINDS
from tokenmill.kinds.content import COMPRESSED, contradiction, looks_like_lines
from tokenmill.stores.store import Found, InputFile, RangeReader, Selection, Store

PATH = "-"
_STDIN = 0
_HEAD = 1024 * 1024
_COMMANDS = {".gz": "zcat", ".zst": "zstdcat", ".bz2": "bzcat", ".xz": "xzcat"}
_POLL_SECONDS = 0.2


class Pipe(Store):
    """Standard input or a pipe by its path, as a store of one file. It belongs to the process that
    opened it: pickled and read back, it is one that nothing comes through (``fd`` None)."""

    has_paths = True
    is_replayable = False

    def __init__(self, fd: int | None, path: str = PATH) -> None:
        self._fd = fd
        self._path = path
        self._head = b""
        self._hash = xxhash.xxh3_64()
        self._is_over = threading.Event()
        self.position = 0

    def __reduce__(self) -> tuple[type[Pipe], tuple[None, str]]:
        return Pipe, (None, self._path)

    def once(self, file: InputFile) -> Pipe:
        return self

    def peek(self) -> bytes:
        """The first two lines, or as much as tells what they are; nothing is lost by it."""
        while self._head.lstrip().count(b"\n") < 2 and len(self._head) < _HEAD:
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
        if self._fd is None:
            raise InputError(
                "a pipe is read only by the process that opened it", self._path, None,
                "write it to a file",
            )  # fmt: skip
        # A writer may be silent for hours, and whoever stops the run does not wait for it.
        try:
            while not select.select([self._fd], [], [], _POLL_SECONDS)[0]:
                if self._is_over.is_set():
                    raise TemporaryFailure(
                        "given up", self._path, "the run is being stopped", "again"
                    )
            return os.read(self._fd, size)
        except OSError as error:
            raise InputError(
                "cannot read the pipe",
                f"{self._path}, byte {self.position}",
                error.strerror,
                "look at the command that writes into the pipe",
            ) from error

    def close(self) -> None:
        self._is_over.set()

    def open(self, file: InputFile) -> RangeReader:
        raise InputError(
            "a pipe can be read only from front to back", self._path, None, "write it to a file"
        )

    def check_unchanged(self, file: InputFile) -> None:
        """It is gone."""

    def finalized(self, file: InputFile) -> InputFile:
        return replace(file, size=self.position, probe=self._hash.hexdigest())


def expand(argument: str, selection: Selection) -> Found:
    """A pipe as the one file that it is. Raises InputError or UsageError."""
    fd = _STDIN if argument == PATH else _opened(argument)
    if stat.S_ISCHR(os.fstat(fd).st_mode) and os.isatty(fd):
        raise UsageError(
            "standard input is a terminal",
            PATH,
            None,
            "pipe the corpus into tokenmill: cat corpus.jsonl | tokenmill prepare - ...",
        )
    pipe = Pipe(fd, argument)
    head = pipe.peek()
    if not head:
        raise InputError(
            "nothing came through the pipe",
            argument,
            "it ended before the first byte",
            "look at the command that writes into the pipe",
        )
    for suffix, command in _COMMANDS.items():
        if head.startswith(COMPRESSED[suffix]):
            raise InputError(
                "what comes through the pipe is compressed",
                argument,
                None,
                f"decompress it on the way: {command} FILE | tokenmill prepare - ...",
            )
    return Found([InputFile(argument, _kind(head, argument, selection), None, 0, 0, "", pipe)])


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unreadable(path, error) from error


def _kind(head: bytes, path: str, selection: Selection) -> str:
    rule = selection.told_kind(path)
    if rule is not None and not KINDS[rule.kind].is_sequential:
        raise UsageError(
            f"{rule.kind} cannot come through a pipe",
            path,
            "its index is at its end",
            "name the file",
        )
    guessed = rule.kind if rule is not None else _guess(head)
    is_whole = len(head) < _HEAD and head.lstrip().count(b"\n") < 2
    found = contradiction(guessed, head, is_whole)
    if found is None and rule is None and guessed == "text":
        found = contradiction("jsonl", head, is_whole) if head.lstrip()[:1] in b"[{" else None
    if found is not None and not (rule and rule.kind == "text" and found.could_be_text):
        raise InputError(
            f"what comes through the pipe is {found.name}",
            path,
            f"it was taken for {guessed}, by {'--kind' if rule else 'its first line'}",
            found.advice("FILE"),
        )
    if rule is None and guessed == "text" and looks_like_lines(head):
        raise InputError(
            "cannot tell whether what comes through the pipe is JSON Lines or text",
            path,
            "its first line is no JSON object, but it looks as if it or the next were meant so",
            "say what it is: --kind jsonl (then that line is named, or left out by --on-bad "
            "quarantine), or --kind text",
        )
    return guessed


def _guess(head: bytes) -> str:
    line, end, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not end and len(head) >= _HEAD:
        return "jsonl" if line.startswith(b"{") else "text"
    try:
        return "jsonl" if isinstance(json.loads(line), dict) else "text"
    except (ValueError, RecursionError):
        return "text"
