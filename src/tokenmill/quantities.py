"""Numbers as people write them: ``512MB``, ``2GiB``, ``100M`` tokens, ``1h30m``.

Bytes take decimal (kB, MB, GB, TB) or binary (KiB, MiB, GiB, TiB) units; counts take K, M, B, T.
Both take underscores and a decimal point. Parsing is exact: ``1.5M`` is 1,500,000.
"""

from __future__ import annotations

import re
from decimal import Decimal

from tokenmill.errors import UsageError

_BYTE_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _BYTE_UNITS[_letter] = _BYTE_UNITS[_letter + "B"] = 1000**_power
    _BYTE_UNITS[_letter + "IB"] = 1024**_power
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_LARGEST = 2**63 - 1
_LONGEST = 100
_COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}


def parse_bytes(text: str | int) -> int:
    """Bytes from ``512MB``, ``2GiB``, ``1_000_000``. Raises UsageError."""
    return _parse(text, _BYTE_UNITS, "a size in bytes", "512MB or 2GiB")


def parse_count(text: str | int) -> int:
    """A count from ``500_000``, ``100M``, ``2B``. Raises UsageError."""
    return _parse(text, _COUNT_UNITS, "a count", "500_000, 100M or 2B")


def parse_seconds(text: str | float) -> float:
    """Seconds from ``90``, ``30m``, ``1h30m``, ``2d``. Raises UsageError."""
    if isinstance(text, int | float):
        return float(text)
    plain = re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", text)
    parts = re.fullmatch(r"\s*(?:\d+(?:\.\d+)?[dhms]\s*)+", text)
    if plain is None and parts is None:
        raise UsageError(f"{text!r} is not a time", fix="write it as 90s, 30m, 8h or 1h30m")
    if plain is not None:
        return float(text)
    found = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    return sum(float(number) * _SECONDS[unit] for number, unit in found)


def _parse(text: str | int, units: dict[str, int], noun: str, example: str) -> int:
    if isinstance(text, int):
        value = Decimal(text)
    else:
        match = None
        if len(text) <= _LONGEST:
            match = re.fullmatch(r"\s*(\d[\d_]*(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
        unit = units.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise UsageError(f"{text!r} is not {noun}", fix=f"write it as {example}")
        value = Decimal(match[1].replace("_", "")) * unit
    if value > _LARGEST:
        raise UsageError(f"{str(text)[:_LONGEST]!r} is too large", fix=f"write it as {example}")
    if value < 0 or value != int(value):
        raise UsageError(f"{text!r} is not a whole number, zero or more", fix=f"write {example}")
    return int(value)
