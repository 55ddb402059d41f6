"""Standard output and error: the one way by which text reaches a terminal.

What is printed here is shown and never obeyed: names, texts of documents and messages of others
come from files that anybody may have written, so that control characters, which could set a
terminal's title, fill its clipboard or turn a line round, are written out (``\\x1b``). When nobody
reads a stream, or its disk is full, the work goes on.

A block of lines may be redrawn in place below what was printed. The cursor rests on its first
column, and is never hidden: so it is erased by one sequence, whatever the terminal did with the
lines when its size changed, and a run that is killed leaves no terminal without a cursor. (rich's
Live was tried: it hides the cursor until it is stopped, and counts rows upwards, which a narrower
window makes wrong.)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from typing import Any, TextIO

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction of writing
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # line ends, marks, invisible tags
    "\ud800-\udfff]"  # what no encoding can write: bytes of a name that are not UTF-8
)
_SHORT = {"\r": "\\r", "\b": "\\b", "\n": "\\n", "\t": "\\t"}
ERASE = "\r\x1b[J"
"""To the line's begin; erase from there to the end of the screen."""
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_USUAL_SIZE = (80, 24)
_lock = threading.RLock()
_with_block: list[TextIO] = []
"""The terminal on which a block is shown, if any. One for the process, as the terminal is: of two
runs in it each draws its own block over the other's, and no more than what is shown comes of it."""


def visible(text: str) -> str:
    """The text with everything written out that a terminal would obey; newlines and tabs stay."""
    return _OBEYED.sub(_written_out, text)


def one_line(text: str) -> str:
    """The same on one line: a name that holds a line end makes no second line."""
    return visible(text).replace("\n", "\\n")


def _written_out(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else _wide(code)


def _wide(code: int) -> str:
    return f"\\U{code:08x}"


def to_json(fields: dict[str, Any]) -> str:
    """One line of JSON that is as safe to show: what a terminal would obey is escaped, as JSON
    escapes it, so that a reader gets what it was. Letters of all scripts stay as they are."""

    def escaped(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))

    return _OBEYED.sub(escaped, json.dumps(fields, ensure_ascii=False))


def print_line(text: str, stream: TextIO) -> None:
    """Print ``text``, made visible, and a line end to ``stream``. Raises OSError."""
    with _lock:
        if _with_block and is_terminal(stream):
            hide_block()
        stream.write(_encodable(visible(text), stream) + "\n")
        stream.flush()


def print_or_forget(text: str, stream: TextIO) -> None:
    """The same; where it cannot be printed, it and all that follows go nowhere."""
    try:
        print_line(text, stream)
    except (OSError, ValueError):  # a closed stream is a ValueError
        _lead_nowhere(stream)


def show_block(lines: list[str], stream: TextIO) -> None:
    """Draw the block anew, in place of the one that is shown. Its lines are ours, and may hold
    colours; what does not fit the screen is left out."""
    rows = terminal_size(stream)[1]
    lines = lines[: max(1, rows - 1)]
    up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
    drawn = "\r\n".join(_encodable(line, stream) for line in lines)
    with _lock:
        _with_block[:] = [stream]
        _write(f"{ERASE}{_NO_WRAP}{drawn}{_WRAP}\r{up}", stream)


def hide_block() -> None:
    """Erase the block that is shown, if any."""
    with _lock:
        if _with_block:
            _write(ERASE, _with_block.pop())


def last_words(text: str, fd: int = 2) -> None:
    """For a signal's handler, just before the end: erase the block and print ``text``, without
    the streams' buffers and locks, which whoever was interrupted may hold."""
    before = ERASE if _with_block else ""
    with contextlib.suppress(OSError):
        os.write(fd, f"{before}{visible(text)}\n".encode(errors="backslashreplace"))


def is_terminal(stream: TextIO) -> bool:
    """Is it a terminal, and open?"""
    try:
        return stream.isatty()
    except (ValueError, OSError, AttributeError):
        return False


def can_redraw(stream: TextIO) -> bool:
    """Can lines on it be drawn again? On a terminal that is not a dumb one."""
    return is_terminal(stream) and os.environ.get("TERM") not in ("dumb", "unknown")


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal now."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size(_USUAL_SIZE)
    return columns or _USUAL_SIZE[0], rows or _USUAL_SIZE[1]


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _write(text: str, stream: TextIO) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        _lead_nowhere(stream)


def _lead_nowhere(stream: TextIO) -> None:
    """What is left in the stream's buffer would fail once more at the interpreter's exit, which
    then exits with 120: so the stream itself leads nowhere from now on."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def erase_leftover(fd: int = 2) -> None:
    """Erase what a process that was killed may have left below the cursor, without buffers and
    locks; nothing where no terminal is."""
    with contextlib.suppress(OSError):
        if os.isatty(fd) and os.environ.get("TERM") not in ("dumb", "unknown"):
            os.write(fd, ERASE.encode())
