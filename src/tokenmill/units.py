"""Numbers as people read them: ``512 MB``, ``1.2M``, ``2,000 documents``, ``3 min 20 s``."""

from __future__ import annotations

from collections.abc import Callable


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
