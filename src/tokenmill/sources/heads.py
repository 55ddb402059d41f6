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
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.kinds.compression import too_large
from tokenmill.kinds.content import HEAD_BYTES, Content, contradiction, is_lines
from tokenmill.sources.inputs import InputList
from tokenmill.sources.jsonl import FIRST_LINE_BYTES, JsonlSource
from tokenmill.sources.parquet import ParquetSource, page_too_large
from tokenmill.sources.source import SourceOptions
from tokenmill.sources.stream import Beginning, read_head
from tokenmill.stores import InputFile, Selection
from tokenmill.stores.readahead import in_background, result_by

_AT_ONCE = 8
_SHOWN = 5
_SMALL_BYTES = 4096
"""Of a remote parquet file, which begins with a mark and ends with all that tells of it, the
beginning is fetched only where the file is so small that it is hardly parquet."""


@dataclass(frozen=True)
class Head:
    """What one file needs while it is read, in bytes, or why it cannot be; ``page`` is what it
    needs for a moment, while no other file needs the like: for a page of parquet."""

    file: InputFile
    needs: int = 0
    fault: TokenmillError | None = None
    page: int = 0


@dataclass(frozen=True)
class _Look:
    """A head, and how the content begins (None where that is not known); ``is_whole``: it has no
    more."""

    head: Head
    text: bytes | None = None
    is_whole: bool = False


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
    for look in _looks(inputs.files, partial(_look, options=options), deadline):
        file, text = look.head.file, look.text
        found = None if text is None else _speaks_against(file, text, look.is_whole, selection)
        if _is_mere_json(file, patterns, selection):
            is_document = text is not None and not is_lines(text, options.text_key)
            if found is not None or is_document:
                what = found.name if found else "a JSON document of its own"
                inputs.notes.append(f"ignored: {file.path} is {what}, no JSON Lines")
                continue
        if found is not None:
            raise _error(file, found, selection)
        heads.append(look.head)
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
    files: Iterable[InputFile], look: Callable[[InputFile], _Look], deadline: float | None
) -> Iterator[_Look]:
    waiting: deque[Future[_Look] | _Look] = deque()

    def first() -> _Look:
        head = waiting.popleft()
        return result_by(head, deadline) if isinstance(head, Future) else head

    for file in files:
        remote = file.store.is_remote
        waiting.append(in_background(partial(look, file)) if remote else look(file))
        if len(waiting) >= _AT_ONCE or not remote:
            yield first()
    while waiting:
        yield first()


def _look(file: InputFile, options: SourceOptions) -> _Look:
    if not file.store.is_replayable:
        return _Look(Head(file))  # it was looked at when it was opened
    if file.kind == "parquet":
        return _look_at_parquet(file, options)
    begins = Beginning(file, options.quarantines, options.room)
    try:
        need = begins.needs.memory
        if need > options.reader_bytes:
            assert file.compression is not None
            room = replace(options.room, threads=0)  # it is taken into account from now on
            error = too_large(file.compression, need, room)
            refusal = UsageError(error.what, file.path, error.why, error.fix)
            return _Look(Head(file, need, refusal))
        text, is_whole = begins.read(HEAD_BYTES)
    except (InputError, UsageError) as error:
        return _Look(Head(file, fault=error))
    fault: TokenmillError | None = None
    if file.kind == "jsonl" and not options.quarantines:
        try:
            if not JsonlSource(file, options).check_first_line(text, is_whole):
                longer = begins.read(FIRST_LINE_BYTES)
                JsonlSource(file, options).check_first_line(*longer)
        except (InputError, UsageError) as error:
            fault = error
    return _Look(Head(file, need, fault), text or None, is_whole)


def _look_at_parquet(file: InputFile, options: SourceOptions) -> _Look:
    text = None
    if file.size and not (file.store.is_remote and file.size > _SMALL_BYTES):
        text = read_head(file, 0, HEAD_BYTES)
    try:
        source = ParquetSource(file, options)
        page, most = source.page_needs(), options.reader_bytes
        if page > most and not options.quarantines:
            raise page_too_large(file, page, most, options.budget_bytes + page - most)
        head = Head(file, source.footer_needs, source.fault, page)
    except (InputError, UsageError) as error:
        head = Head(file, fault=error)
    return _Look(head, text, file.size <= HEAD_BYTES)


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
