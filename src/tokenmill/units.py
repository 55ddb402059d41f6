"""Numbers as people write them: ``512MB``, ``2GiB``, ``100M`` tokens.

Bytes take decimal (kB, MB, GB, TB) or binary (KiB, MiB, GiB, TiB) units; counts take K, M, B, T.
Both take underscores and a decimal point. Parsing is exact: ``1.5M`` is 1,500,000.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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


def format_bytes(count: float) -> str:
    """``1.5 GB``; decimal units, as disks and ``--memory`` use them."""
    return _format(count, ("B", "kB", "MB", "GB", "TB", "PB"), " ")


def format_count(count: float) -> str:
    """``1.2M``, ``3.4B``; small numbers in full."""
    return _format(count, ("", "K", "M", "B", "T"), "")


def format_files(count: int) -> str:
    """``1 file``, ``12 files``."""
    return numbered(count, "file")


def numbered(
    count: int, noun: str, form: Callable[[float], str] = lambda count: f"{count:,}"
) -> str:
    """``1 document``, ``2,000 documents``; the plural is that of a noun with s."""
    return f"{form(count)} {noun}" if count == 1 else f"{form(count)} {noun}s"


def _format(count: float, units: tuple[str, ...], gap: str) -> str:
    value = float(count)
    for unit in units:
        if abs(value) < 1000 or unit == units[-1]:
            digits = 0 if unit == units[0] or value >= 100 else 1
            return f"{value:.{digits}f}{gap}{unit}".rstrip()
        value /= 1000
    raise AssertionError("unreachable")


def format_seconds(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
