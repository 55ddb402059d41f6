"""The letters that byte-level tokenizers write bytes with (GPT-2's ``bytes_to_unicode``)."""

from __future__ import annotations


def _byte_letters() -> dict[str, int]:
    plain_bytes = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in plain_bytes}
    others = [byte for byte in range(256) if byte not in plain_bytes]
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_LETTERS = _byte_letters()
"""Letter to byte."""
