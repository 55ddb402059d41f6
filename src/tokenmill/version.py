"""The version of tokenmill: in one place, which imports nothing."""

from __future__ import annotations

__version__ = "0.1.0"
