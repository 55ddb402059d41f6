"""The second look: what can be known of the inputs before the first token, in one look a file.

Its beginning (decompressed, where its name says so) is held against what its name, or ``--kind``,
says: what cannot be what it is taken for is an error that names it; a ``.json`` file that was
merely found in a folder, and holds no lines, is passed over, and told, as it was before ``.json``
was read at all. Its footer, header and first line tell whether it can be read, and what it needs
of memory meanwhile (footers, windows of decompressors). So a run that would end with an error in
its fortieth file ends before it began, with all such files named.

Of local files one is looked at at a time, of remote ones a few; nothing is kept but numbers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.kinds.content import Content, contradiction, is_lines
from tokenmill.sources import source_of
from tokenmill.sources.inputs import InputList
from tokenmill.sources.source import Look, SourceOptions
from tokenmill.stores import InputFile, Selection
from tokenmill.stores.readahead import in_background, result_by

_AT_ONCE = 8
_SHOWN = 5


@dataclass(frozen=True)
class Head:
    """What one file needs while it is read, in bytes, or why it cannot be; ``page`` is what it
    needs for a moment, while no other file needs the like: for a page of parquet."""

    file: InputFile
    needs: int = 0
    fault: TokenmillError | None = None
    page: int = 0


_Seen = tuple[InputFile, Look]


def look_at(
    inputs: InputList,
    arguments: Iterable[str],
    selection: Selection,
    options: SourceOptions,
    deadline: float | None = None,
) -> list[Head]:
    """The heads of all inputs, in their order; those that are passed over are taken off the list.

    Raises InputError for the first input that is not what it is taken for; what is no fault of a
    file: of the network; and LimitReached at ``deadline``, of the monotonic clock."""
    arguments = list(arguments)
    patterns = [os.path.basename(argument) for argument in arguments]
    heads = []
    for file, look in _looks(inputs.files, partial(_look, options=options), deadline):
        text = look.text
        found = None if text is None else _speaks_against(file, text, look.is_whole, selection)
        if _is_mere_json(file, patterns, selection):
            is_document = text is not None and not is_lines(text, options.text_key)
            if found is not None or is_document:
                what = found.name if found else "a JSON document of its own"
                inputs.notes.append(f"ignored: {file.path} is {what}, no JSON Lines")
                continue
        if found is not None:
            raise _error(file, found, selection)
        heads.append(Head(file, look.needs, look.fault, look.page))
    if not heads and inputs.files:
        raise InputError(
            "no input files",
            ", ".join(arguments),
            f"{inputs.files[0].path} is JSON, but no JSON Lines with a field {options.text_key!r}",
            "write an object a line (jq -c), name the text's field with --text-key, or name the "
            "files themselves",
        )
    inputs.files = [head.file for head in heads]
    return heads


def refuse_unusable(heads: list[Head], quarantines: bool) -> None:
    """Raise UsageError for all files that cannot be read, or InputError where the first of them is
    damaged or cannot be had: each is counted, the first few are named.

    Those that are going to be left out are none, unless no file would be left: then it is not the
    files that are at fault but what is looked for in them."""
    faults = [head.fault for head in heads if head.fault is not None]
    if not faults or (quarantines and len(faults) < len(heads)):
        return
    if len(faults) == 1:
        raise faults[0]
    shown = [f"{fault.where}: {fault.what}" for fault in faults[:_SHOWN]]
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    first = faults[0].fix or "correct them"
    kind = InputError if isinstance(faults[0], InputError) else UsageError
    raise kind(
        f"{len(faults)} of {len(heads)} input files cannot be read as they are",
        "; ".join(shown) + more,
        faults[0].why,
        f"{first}; or leave them out, each as a record: --on-bad quarantine",
    )


def needs_at_once(heads: list[Head], window: int, most: int, block: int) -> int:
    """The memory that files take at the same time where ``window`` blocks of ``block`` bytes are in
    flight, in bytes.

    A file's footer is held until its last block was read; meanwhile the next files are opened. A
    file, or a page, that needs more than ``most`` is not counted: it is refused or left out.
    """
    held: deque[tuple[int, int]] = deque()  # blocks at least, needs
    blocks = total = largest = 0
    for head in heads:
        if head.needs > most:
            continue
        held.append((max(1, head.file.size // block), head.needs))
        blocks, total = blocks + held[-1][0], total + head.needs
        # The first and the last of them may be held for one block each.
        while len(held) > 2 and blocks - held[0][0] - held[-1][0] >= window:
            gone_blocks, gone = held.popleft()
            blocks, total = blocks - gone_blocks, total - gone
        largest = max(largest, total)
    return largest + max((head.page for head in heads if head.page <= most), default=0)


def _looks(
    files: Iterable[InputFile], look: Callable[[InputFile], _Seen], deadline: float | None
) -> Iterator[_Seen]:
    waiting: deque[Future[_Seen] | _Seen] = deque()

    def first() -> _Seen:
        head = waiting.popleft()
        return result_by(head, deadline) if isinstance(head, Future) else head

    for file in files:
        remote = file.store.is_remote
        waiting.append(in_background(partial(look, file)) if remote else look(file))
        if len(waiting) >= _AT_ONCE or not remote:
            yield first()
    while waiting:
        yield first()


def _look(file: InputFile, options: SourceOptions) -> _Seen:
    if not file.store.is_replayable:
        return file, Look()  # it was looked at when it was opened
    return file, source_of(file.kind).look(file, options)


def _speaks_against(
    file: InputFile, text: bytes, is_whole: bool, selection: Selection
) -> Content | None:
    found = contradiction(file.kind, text, is_whole)
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
