"""How hostile input is made: valid bytes, and valid JSON, changed a little."""

from __future__ import annotations

import json
import random
from typing import Any

DEEP = "a value that is replaced by deep nesting"
TEXTS = [
    "", ".", "..", "../victim", "../../victim", "/tmp/tokenmill-victim", "a/b", "a\0b", "a\nb",
    "x" * 300, "x" * 5000, "train.bin", "manifest.json", "SHA256SUMS", ".tokenmill", "lock",
    "quarantine.jsonl", "\u202e\ufeff", "\udc80", "true", "0", "none", "line", "llm.c", "nanogpt",
    "modded-nanogpt", "build-nanogpt", "train", "val", "gpt2", "/dev/zero", "/etc/passwd",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 7, 255, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 2**63,
    2**64 - 1, 2**64, 10**400, 0.5, -0.0, 1e308, 1e-308,
]  # fmt: skip
BYTES = [
    b"\0", b"\xff", b"\xff" * 4, b"\0" * 8, b"\x80" * 9, b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf", b"\n", b"\r\n", b'"', b"\\", b"\\ud800", b"\\u0000", b"{", b"}", b"[" * 300,
    b"<|endoftext|>", b"\x1c\x1d\x1e\x1f", b"PAR1", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9",
    b"\xfd7zXZ\0", b"\x50\x2a\x4d\x18\x04\0\0\0abcd", b"\x93NUMPY", b"NaN", b"1e999", b" ",
]  # fmt: skip


def bytes_of(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """``data`` after one to four mutations; ``others`` lend their parts."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = _mutated(rng, data, rng.choice(others) if others else data)
    return data


def _mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    low, high = sorted((_place(rng, data), _place(rng, data)))
    near = min(len(data), low + rng.choice((1, 2, 4, 16)))
    kind = rng.randrange(9)
    if kind == 0:  # a bit flips
        flipped = bytes([data[low] ^ 1 << rng.randrange(8)]) if low < len(data) else b"\0"
        return data[:low] + flipped + data[low + 1 :]
    if kind == 1:  # the end is missing
        return data[:high]
    if kind == 2:  # a part is missing
        return data[:low] + data[near if rng.random() < 0.5 else high :]
    if kind == 3:  # a part comes twice
        return data[:high] + data[low:]
    if kind == 4:  # a part of another file
        start = _place(rng, other)
        return data[:low] + other[start : start + rng.choice((1, 16, 256, 4096))] + data[high:]
    if kind == 5:  # the header of another file
        size = rng.choice((2, 4, 8, 12, 64))
        return other[:size] + data[size:]
    if kind == 6:  # something nasty put in
        return data[:low] + rng.choice(BYTES) + data[low:]
    if kind == 7:  # something nasty instead
        nasty = rng.choice(BYTES)
        return data[:low] + nasty + data[low + len(nasty) :]
    width = rng.choice((1, 2, 4, 8))  # another number, such as a length
    number: int = int(rng.choice(NUMBERS[:17])) % int(256**width)
    return data[:low] + number.to_bytes(width, "little") + data[low + width :]


def _place(rng: random.Random, data: bytes) -> int:
    """Headers and footers are more interesting than what is between."""
    kind = rng.random()
    if kind < 0.25:
        return rng.randint(0, min(len(data), 64))
    if kind < 0.6:
        return rng.randint(max(0, len(data) - 1200), len(data))
    return rng.randint(0, len(data))


def json_of(rng: random.Random, value: Any) -> bytes:
    """A JSON value after one to three changes to its parts, as bytes."""
    value = json.loads(json.dumps(value))  # a copy
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(rng, value, rng.randint(1, 6))
    text = json.dumps(value)
    depth = rng.choice((100, 900, 1100, 100_000))
    return text.replace(json.dumps(DEEP), "[" * depth + "]" * depth).encode()


def _changed(rng: random.Random, value: Any, depth: int) -> Any:
    if isinstance(value, dict) and value and depth:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.06:
            del value[key]
        elif kind < 0.1:
            value[str(rng.choice(TEXTS))] = value[key]
        else:
            value[key] = _changed(rng, value[key], depth - 1)
        return value
    if isinstance(value, list) and value and depth:
        index = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.06:
            del value[index]
        elif kind < 0.12:
            value.append(json.loads(json.dumps(value[index])))
        else:
            value[index] = _changed(rng, value[index], depth - 1)
        return value
    return hostile(rng, value)


def hostile(rng: random.Random, value: Any) -> Any:
    """Something else in the place of ``value``, most often of the same type."""
    if rng.random() < 0.75:
        if isinstance(value, str):
            return rng.choice(TEXTS)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return rng.choice([*NUMBERS, value + 1, -value, value * 2])
    anything: list[Any] = [None, True, False, [], {}, [[]], {"a": {}}, {"": 1}, DEEP]
    return rng.choice([*anything, *TEXTS, *NUMBERS])
