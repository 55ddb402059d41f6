"""The errors that tokenmill raises on purpose, each with its exit code.

    TokenmillError                1   something failed: the message says what, where, why
    ├── InputError                1   an input cannot be read as what it claims to be
    │   └── WrongContent          1   its hash is not the one that was told: begin anew
    ├── EngineMismatch            1   the fast engine and the reference implementation disagree
    ├── UsageError                2   the options make no sense together, or a value is malformed
    ├── TemporaryFailure          5   the network or a server failed for too long; run it again
    ├── LimitReached             10   the run's own limit (--max-time) is reached; it can go on
    ├── NoSpace                   9   the disk is, or would become, full
    ├── OutputInUse              11   another run holds the output folder
    ├── SpecMismatch             12   the folder holds another spec's or other inputs' dataset
    ├── DamageFound              13   verify found problems
    └── Interrupted         130/143   SIGINT or SIGTERM asked the run to stop

Anything else that escapes is a bug, and is shown as one.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

from tokenmill.console import one_line


class TokenmillError(Exception):
    """A failure that the user can understand and act on.

    Args:
        what: one sentence: what went wrong.
        where: file, byte offset, line or row.
        why: the cause, when it is known.
        fix: what to do about it, a command where one helps.
    """

    exit_code = 1

    def __init__(
        self, what: str, where: str | None = None, why: str | None = None, fix: str | None = None
    ) -> None:
        # All positional, so that the default pickling of exceptions keeps every part.
        super().__init__(what, where, why, fix)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        parts = [one_line(self.what)]
        for label, text in (("where", self.where), ("why", self.why), ("fix", self.fix)):
            if text:
                parts.append(f"  {label}: {one_line(text)}")
        return "\n".join(parts)

    def as_dict(self) -> dict[str, str | int | None]:
        """The error as plain data, for ``--json``."""
        return {
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }


class InputError(TokenmillError):
    """An input file is missing, damaged, or not what its name says."""


class WrongContent(InputError):
    """A file was read to its end and is not what its place says it is: nothing of it is kept."""


def nearest(value: str, names: Iterable[str]) -> str | None:
    """``did you mean NAME?`` of the name most like ``value``, where one is like it."""
    by_lower = {name.lower(): name for name in names}
    found = difflib.get_close_matches(value.lower(), by_lower, 1, 0.6)
    return f"did you mean {by_lower[found[0]]}?" if found else None


def choose_from(value: str, names: Iterable[str]) -> str:
    """The fix for a value that is none of the names: which there are, and the one most like it."""
    names = list(names)
    hint = nearest(value, names)
    return f"use {', '.join(names)}" + (f"; {hint}" if hint else "")


def unreadable(where: str, error: OSError) -> InputError:
    """The error for an input that the system does not let us read."""
    what, fix = "cannot read the input", "check the disk and the file's permissions"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        what, fix = "too many files are open", "raise that limit (ulimit -n 1024)"
    return InputError(what, where, error.strerror, f"{fix}, then run this again")


def too_many_files(where: str | None, error: OSError) -> TokenmillError:
    """The error where the system does not let this process open one more file."""
    return TokenmillError(
        "too many files are open",
        where,
        f"{error.strerror}: a limit of the shell (ulimit -n) or of the machine",
        "raise that limit (ulimit -n 1024), then run this again",
    )


class EngineMismatch(TokenmillError):
    """The engine gave other ids than the reference implementation."""


class UsageError(TokenmillError):
    """The command as written cannot be carried out."""

    exit_code = 2


class TemporaryFailure(TokenmillError):
    """Something outside failed that may work later; what is done is kept."""

    exit_code = 5


class NoSpace(TokenmillError):
    """The output file system has too little room."""

    exit_code = 9


class LimitReached(TokenmillError):
    """A limit that was set for this run is reached; the same command goes on."""

    exit_code = 10


class OutputInUse(TokenmillError):
    """Another run holds the lock on the output folder."""

    exit_code = 11


class SpecMismatch(TokenmillError):
    """The output folder belongs to another spec or to other inputs."""

    exit_code = 12


class DamageFound(TokenmillError):
    """The dataset is not what its manifest says."""

    exit_code = 13


class Interrupted(TokenmillError):
    """A signal asked the run to stop."""

    def __init__(
        self, what: str, where: str | None = None, why: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what, where, why, fix)
        self.exit_code = 130

    @classmethod
    def by_signal(
        cls,
        number: int,
        where: str | None = None,
        why: str | None = None,
        fix: str = "run the same command again",
    ) -> Interrupted:
        """The error for signal ``number``; its exit code is 128 + number."""
        name = {1: "SIGHUP", 2: "Ctrl-C (SIGINT)", 15: "SIGTERM"}.get(number, f"signal {number}")
        error = cls(f"stopped by {name}", where, why, fix)
        error.exit_code = 128 + number
        return error
