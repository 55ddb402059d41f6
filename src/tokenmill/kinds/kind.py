"""The seam of kinds: what has to be known of a kind of input before a file of it is opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    ``source`` names the class that reads it, as ``MODULE:CLASS``, which is loaded where a file is
    opened; ``suffixes`` are those of its files, in lower case and with their dot.
    ``is_sequential``: it is read from front to back, so that it may be compressed as a whole, or
    come through a pipe. ``is_text``: its bytes are text in UTF-8, and what looks like binary data
    is none of it. ``uses_arrow``: Arrow reads it, which takes memory, and unpacks what is in it.
    """

    name: str
    source: str
    suffixes: tuple[str, ...]
    is_sequential: bool = True
    is_text: bool = True
    uses_arrow: bool = False

    @property
    def module(self) -> str:
        """Where its source is."""
        return self.source.partition(":")[0]
