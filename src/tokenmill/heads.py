"""The second look: the head of every input is held against what its name, or ``--kind``, says.

It comes before the first token, in ``plan`` as in ``prepare``: one read of a few KB a file, of the
bytes as stored, decompressed as far as they go. Remote files are looked at several at a time. What
cannot be what it is taken for is an error that names it; a ``.json`` file that was merely found in
a folder, and holds no lines, is passed over, and told, as it was before ``.json`` was read at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tokenmill.compression import COMPRESSIONS, WINDOW_BYTES
from tokenmill.content import COMPRESSED, HEAD_BYTES, Content, contradiction, is_lines
from tokenmill.errors import InputError
from tokenmill.inputs import InputList
from tokenmill.places import InputFile, Selection
from tokenmill.places.standard_input import Pipe
from tokenmill.readahead import in_background, result_by
from tokenmill.textstream import read_head

_AT_ONCE = 16
"""Remote files looked at at a time: as many requests as a run has under way."""
_SMALL_BYTES = 4096
"""Of a remote parquet file, which begins with a mark and ends with all that tells of it, the head
is fetched only where the file is so small that it is hardly parquet."""


@dataclass(frozen=True)
class Head:
    """How the content of a file begins; ``is_whole``: it has no more."""

    text: bytes
    is_whole: bool


def check_heads(
    inputs: InputList,
    arguments: Iterable[str],
    selection: Selection,
    text_key: str,
    deadline: float | None = None,
) -> None:
    """Raise InputError for the first input that is not what it is taken for; those that are passed
    over are taken off the list. Raises LimitReached at ``deadline``, of the monotonic clock."""
    patterns = [os.path.basename(argument) for argument in arguments]
    kept = []
    for file, head in _heads(inputs.files, deadline):
        found = None if head is None else _speaks_against(file, head, selection)
        if _is_mere_json(file, patterns, selection):
            is_document = head is not None and not is_lines(head.text, text_key)
            if found is not None or is_document:
                what = found.name if found else "a JSON document of its own"
                inputs.notes.append(f"ignored: {file.path} is {what}, no JSON Lines")
                continue
        if found is not None:
            raise _error(file, found, selection)
        kept.append(file)
    if not kept and inputs.files:
        raise InputError(
            "no input files",
            ", ".join(arguments),
            f"{inputs.files[0].path} is JSON, but no JSON Lines with a field {text_key!r}",
            "write an object a line (jq -c), name the text's field with --text-key, or name the "
            "files themselves",
        )
    inputs.files = kept


def head_of(file: InputFile) -> Head | None:
    """The head of a file's content; None where it cannot be decompressed: reading it tells why."""
    stored = read_head(file, 0, HEAD_BYTES)
    if file.compression is None:
        return Head(stored, len(stored) == file.size)
    if not stored.startswith(COMPRESSED[file.compression]):
        return None
    member = COMPRESSIONS[file.compression](WINDOW_BYTES)
    try:
        text = member.decompress(stored, HEAD_BYTES)
    except Exception:  # noqa: BLE001  each library has its own errors
        return None
    is_whole = len(stored) == file.size and member.eof and not member.unused_data
    return Head(text, is_whole) if text else None


def _heads(
    files: list[InputFile], deadline: float | None
) -> Iterator[tuple[InputFile, Head | None]]:
    """Each file with its head, in order; remote ones are fetched ahead."""
    waiting: dict[int, Future[Head | None]] = {}
    following = 0
    for number, file in enumerate(files):
        while following < len(files) and len(waiting) < _AT_ONCE:
            if files[following].place.is_remote and _is_looked_at(files[following]):
                waiting[following] = in_background(_looking(files[following]))
            elif following > number + _AT_ONCE:
                break
            following += 1
        if number in waiting:
            yield file, result_by(waiting.pop(number), deadline)
        else:
            yield file, head_of(file) if _is_looked_at(file) else None


def _looking(file: InputFile) -> Callable[[], Head | None]:
    return lambda: head_of(file)


def _is_looked_at(file: InputFile) -> bool:
    if isinstance(file.place, Pipe) or file.size == 0:
        return False  # a pipe's head was looked at when it was opened
    return not (file.place.is_remote and file.kind == "parquet" and file.size > _SMALL_BYTES)


def _speaks_against(file: InputFile, head: Head, selection: Selection) -> Content | None:
    found = contradiction(file.kind, head.text, head.is_whole)
    is_told = selection.told_kind(file.path) is not None
    is_meant = is_told and file.kind == "text" and found is not None and found.could_be_text
    return None if is_meant else found


def _is_mere_json(file: InputFile, patterns: list[str], selection: Selection) -> bool:
    """Is it a ``.json`` that nobody named, neither itself nor by a pattern of such names?"""
    name = os.path.basename(file.path)
    parts = name.lower().split(".")[1:]
    if "json" not in parts[-2:] or selection.told_kind(file.path) is not None:
        return False
    return not any(".json" in pattern and fnmatchcase(name, pattern) for pattern in patterns)


def _error(file: InputFile, found: Content, selection: Selection) -> InputError:
    by = "--kind" if selection.told_kind(file.path) else "its name"
    return InputError(
        f"the input is {found.name}",
        file.path,
        f"it was taken for {file.kind}, by {by}",
        found.advice(file.path),
    )
