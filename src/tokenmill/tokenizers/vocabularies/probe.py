"""The tokens of a probe: a vocabulary made to show every border that an engine sees."""

from __future__ import annotations

_NEIGHBOURS = b"aA0!' \n."


def probe_tokens() -> list[bytes]:
    """The tokens of a probe in order of their merges, single bytes first: a neighbour with each
    byte that begins a character and with each that ends one, so that a border changes the ids."""
    tokens = [bytes([byte]) for byte in range(256)]
    for neighbour in _NEIGHBOURS:
        tokens += [bytes([neighbour, byte]) for byte in range(0xC2, 0xF5)]
        tokens += [bytes([byte, neighbour]) for byte in range(0x80, 0xC0)]
    return [*tokens, b"'s", b"a'", b"!\n"]
