"""The inputs of a run: the arguments become a list of files, in a stated order.

The order is that of the arguments; each store has an order of its own within one. Each file is
read once however often it is named. How bytes are compressed is told by the last suffix, how they
divide into records by the one before it, or both by ``--kind``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from tokenmill.errors import InputError, UsageError
from tokenmill.kinds import names, suffixes
from tokenmill.memory import TooManyFiles
from tokenmill.stores import InputFile, Selection, expand
from tokenmill.units import format_bytes, format_files

__all__ = ["InputFile", "InputList", "Selection", "finalized", "find_inputs"]


@dataclass(repr=False)
class InputList:
    """The files of a corpus, and what was passed over on the way (to be told, never hidden)."""

    files: list[InputFile]
    ignored: list[str]
    repeated: list[str]
    notes: list[str] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)
    too_many: int = 0
    """Bytes that the list takes, where memory cannot hold it; then it is empty."""

    def __repr__(self) -> str:
        size = sum(file.size for file in self.files)
        return f"<InputList {format_files(len(self.files))}, {format_bytes(size)}>"

    @property
    def are_remote(self) -> bool:
        """Is any of them behind a network?"""
        return any(file.store.is_remote for file in self.files)

    @property
    def are_replayable(self) -> bool:
        """Can all of them be read again? Not what comes through a pipe."""
        return all(file.store.is_replayable for file in self.files)

    def close(self) -> None:
        """Wait for nothing more that comes through a pipe."""
        for file in self.files:
            file.store.close()


def find_inputs(arguments: list[str], selection: Selection | None = None) -> InputList:
    """Expand the arguments to files. Raises InputError when one of them leads nowhere.

    ``selection`` None: nothing is asked for beside them, and the requests that it takes are made
    by a policy of their own."""
    selection = Selection() if selection is None else selection
    found = InputList([], [], [])
    seen: set[str] = set()
    for argument in arguments:
        try:
            there = expand(argument, selection)
        except TooManyFiles:
            return InputList([], [], [], too_many=selection.listing.bytes)
        found.ignored += there.ignored
        found.notes += there.notes
        found.revisions |= there.revisions
        for file in there.files:
            name = os.path.realpath(file.path) if file.store.has_paths else file.path
            if name in seen:
                found.repeated.append(file.path)
                continue
            seen.add(name)
            found.files.append(file)
    if not found.files:
        raise InputError(
            "no input files",
            where=", ".join(arguments) or None,
            why=f"{len(found.ignored)} files there are of no known kind" if found.ignored else None,
            fix=f"name files that end in {', '.join(suffixes())} (also compressed), or say what "
            f"they are: --kind {names()}",
        )
    _check_rules(selection, found.files)
    return found


def _check_rules(selection: Selection, files: list[InputFile]) -> None:
    """Raise UsageError for a rule of ``--kind`` that is for none of the files."""
    for rule in selection.kinds:
        if not any(rule.matches(file.path) for file in files):
            raise UsageError(
                f"--kind {rule.text} is for no input",
                None,
                f"no file of {len(files)} matches {rule.glob}",
                "check the pattern; without a slash it is held against the file's name, with one "
                "against its path",
            )


def finalized(file: InputFile) -> InputFile:
    """The file, now that it was read. Raises InputError if it is no longer what it was when the
    run began."""
    file.store.check_unchanged(file)
    return file.store.finalized(file)
