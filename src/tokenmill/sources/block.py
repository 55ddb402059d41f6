"""What every source gives: blocks, and the options that decide how they divide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from tokenmill.batches import Position, State
from tokenmill.errors import TokenmillError


class Tails:
    """The ends of remote files, of the first few that are asked for: a footer is needed to look at
    the file, to estimate, and to read it, and is fetched once."""

    def __init__(self, most: int = 4 * 1024 * 1024) -> None:
        self._kept: dict[str, bytes] = {}
        self._left = most

    def of(self, path: str, fetch: Callable[[], bytes]) -> bytes:
        """The end of a file; by any thread."""
        if (tail := self._kept.get(path)) is None:
            tail = fetch()
            if len(tail) <= self._left:
                self._left -= len(tail)
                self._kept[path] = tail
        return tail


def resumed(state: State | None, first: State) -> State:
    """The state to go on from: ``state``, or ``first`` where a file begins.

    Raises TokenmillError when it has not the shape of ``first``: it comes from a file.
    """
    if state is None:
        return first
    wrong = [
        name for name, value in first.items()
        if name not in state
        or type(state[name]) not in {type(value), int if value is None else type(value)}
        or (type(value) is int and not 0 <= state[name] < 1 << 62)
    ]  # fmt: skip
    if wrong and "ended" not in state:
        raise TokenmillError(
            "the journal of the unfinished run makes no sense",
            None,
            f"{', '.join(wrong)} cannot be what it is in {str(state)[:200]}",
            "run the same command with --overwrite, which starts anew",
        )
    return state


@dataclass(kw_only=True)
class Block(ABC):
    """A piece of input that can be encoded alone; ``size`` is its share of the file on disk.

    It is plain data, and holds no source, so that it may go to another process: the source that
    made it reads it, or any other of the same file. What only the one who walks through the file
    can read is in it, and is let go when it is read: a block is read once.

    ``after`` is the state from which its source goes on with the next block, ``file_number`` the
    place of its file among the inputs. ``seam_before`` and ``seam_after`` are the tokens that must
    stand at its ends, where it was cut inside an unbroken run.
    """

    size: int
    after: State
    file_number: int = 0
    seam_before: int | None = None
    seam_after: int | None = None

    @property
    def end(self) -> Position:
        """Where the next block begins."""
        return Position(self.file_number, self.after)

    @property
    @abstractmethod
    def where(self) -> str:
        """The file and the place in it, for messages."""

    @property
    @abstractmethod
    def text_bytes(self) -> int:
        """About how much text it holds."""
