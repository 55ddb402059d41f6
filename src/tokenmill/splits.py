"""Which split a document or a token goes to.

The rule by hash is here; the rest follows."""

from __future__ import annotations

from tokenmill.sizes import DEFAULT_SIZES

HASHED_BYTES = DEFAULT_SIZES.hashed
"""A document that goes on in the next block has at least this much in its first one."""
