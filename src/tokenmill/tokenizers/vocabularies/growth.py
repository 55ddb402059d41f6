"""By how much a ``tokenizer.json`` makes a text longer before it looks for tokens.

Memory is counted by the byte of what a tokenizer works on, which is not what stands in the file:
NFKC makes 33 bytes of the three of U+FDFA, and a few nested replacements in a kilobyte of rules
make thousands of one. What the rules can do at most is read from them; where that might be too
much for a document, it is normalized a little at a time, and measured.
"""

from __future__ import annotations

from typing import Any

from tokenmill.tokenizers.vocabularies.vocabulary import plain

MOST = 1024.0
"""A tokenizer whose rules may make more bytes of one is refused: not even its self-test would be
sure to fit. By these rules, NFKC with a Replace and a Prepend of U+2581 comes to 132."""
_NORMALIZERS = {
    "NFKC": 11.0, "NFKD": 11.0, "Precompiled": 11.0, "NFC": 3.0, "NFD": 3.0, "Lowercase": 1.5,
    "BertNormalizer": 5.0, "ByteLevel": 2.0, "Strip": 1.0, "StripAccents": 1.0, "Nmt": 1.0,
}  # fmt: skip
"""Unicode 16: U+FDFA grows most under NFKC and NFKD, U+1D160 under NFC, U+0390 under NFD."""
_UNKNOWN = 4.0
_USUAL = 100
"""Bytes of memory for each byte of text that the names of unknown tokens and of prefixes are
compared with: these are written for each token, whatever its length in the text."""


def of_normalizers(steps: list[dict[str, Any]]) -> float:
    """Bytes that a normalizer's steps make of one, at most."""
    growth = 1.0
    for step in steps:
        kind = step.get("type")
        if kind == "Replace":
            pattern, content = plain(step.get("pattern")), _size(step.get("content"))
            literal = pattern.get("String")
            growth *= max(1.0, content / max(1, _size(literal))) if literal else content + 1
        elif kind == "Prepend":  # again before each piece between two added tokens
            growth *= 1 + _size(step.get("prepend"))
        else:
            growth *= _NORMALIZERS.get(str(kind), _UNKNOWN)
    return growth


def of_pre_tokenizers(steps: list[dict[str, Any]]) -> float:
    """The same of a pre-tokenizer's; the first step that writes text anew is the usual one, and
    what it takes is measured with the engine."""
    writing = [step for step in steps if step.get("type") in ("ByteLevel", "Metaspace")]
    return 4.0 ** len(writing[1:])


def of_model(model: dict[str, Any]) -> float:
    """The same of a model that writes texts of its own beside the tokens'."""
    names = ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    return 1 + max(0, sum(_size(model.get(name)) for name in names) - _USUAL) / _USUAL


def _size(text: Any) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0


def measured(normalizer: Any, text: bytes, most: float, limit: int) -> int:
    """The bytes that the library's ``normalizer`` makes of ``text``; more than ``limit``, and it
    looks no further. ``most`` is what it may make of one."""
    size, start = 0, 0
    step = max(16, int(1024 * 1024 / most))
    while start < len(text) and size <= limit:
        piece = text[start : start + step].decode("utf-8", "ignore")
        size += len(normalizer.normalize_str(piece).encode())
        start += max(1, len(piece.encode()))
    return size
