"""What identifies a dataset: one hash over all that decides its bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from tokenmill.dataset.spec import Spec


def fingerprint(spec: Spec, tokenizer: dict[str, Any], inputs: Iterable[dict[str, Any]]) -> str:
    """SHA-256 over the canonical JSON of all that decides the bytes.

    The inputs, of which there may be a million, go into the hash one by one.
    """
    plain = {**spec.as_dict(), "tokenizer": tokenizer, "inputs": [], "pattern": None}
    del plain["eot_token"]  # what it chose is the tokenizer's end_of_text
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
    # In no string does this stand: there, quotation marks are escaped.
    head, sign, tail = encode(plain).partition('"inputs":[')
    digest = hashlib.sha256((head + sign).encode())
    for number, entry in enumerate(inputs):
        digest.update((("," if number else "") + encode(entry)).encode())
    digest.update(tail.encode())
    return digest.hexdigest()


_PLACES = ("name", "commit")
"""Where a tokenizer was found; not what it is."""


def identity(about: dict[str, str | int]) -> dict[str, str | int]:
    """Of what ``describe`` gave, all that decides the ids: the same content is the same tokenizer,
    wherever it lies. A ``.tiktoken`` vocabulary's name is part of it, as it always was."""
    if "kind" not in about:
        return about
    return {key: value for key, value in about.items() if key not in _PLACES}
