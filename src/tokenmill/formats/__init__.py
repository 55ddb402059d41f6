"""On-disk formats, each named after the trainer that reads it; docs/formats.md is normative.

To add a format: one file here, one line in ``FORMATS``; the contract tests of formats then run on
it by themselves.
"""

from __future__ import annotations

from tokenmill.errors import UsageError, choose_from
from tokenmill.formats.build_nanogpt import BUILD_NANOGPT
from tokenmill.formats.format import Bytes, Format, Layout, ShardDamage, ShardReader, ShardWriter
from tokenmill.formats.llmc import LLMC
from tokenmill.formats.modded_nanogpt import MODDED_NANOGPT
from tokenmill.formats.nanogpt import NANOGPT

__all__ = [
    "FORMATS",
    "Bytes",
    "Format",
    "Layout",
    "ShardDamage",
    "ShardReader",
    "ShardWriter",
    "find_format",
]

FORMATS: dict[str, Format] = {
    entry.name: entry for entry in (NANOGPT, BUILD_NANOGPT, LLMC, MODDED_NANOGPT)
}


def find_format(name: str) -> Format:
    """The format for a ``--format`` option. Raises UsageError."""
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}", fix=choose_from(name, FORMATS))
    return FORMATS[name]
