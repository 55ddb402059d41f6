"""What the commands print: data, errors, lines."""

from __future__ import annotations

import errno
import sys
from typing import Any

from tokenmill.console import one_line, print_line, print_or_forget, to_json
from tokenmill.errors import NoSpace, TokenmillError


def tell(line: str, is_quiet: bool) -> None:
    """A line for a person, to stderr; a log that cannot be written stops no run."""
    if not is_quiet or line.startswith(("warning", "error")):
        print_or_forget(one_line(line), sys.stderr)


def show(text: str) -> None:
    """Data, to stdout: what was asked for, so that a command that cannot print it has failed."""
    try:
        print_line(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unprintable(error) from error


def unprintable(error: OSError) -> TokenmillError:
    """The error where standard output cannot be written, though somebody is there to read it."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (NoSpace if is_full else TokenmillError)(
        "cannot print the answer",
        "standard output",
        error.strerror or str(error),
        f"{'free space there, or ' if is_full else ''}send it to another file, then run this again",
    )


def print_json(type_: str, **fields: Any) -> None:
    show(to_json({"type": type_, **fields}))


def print_error(error: TokenmillError, as_json: bool) -> None:
    """Tell a person, and with ``--json`` a program too."""
    print_or_forget(f"error: {error}", sys.stderr)
    if as_json:
        print_or_forget(to_json({"type": "error", **error.as_dict()}), sys.stdout)
