"""Records made to be expensive: lines of JSON and plain texts, from a seed, without end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.torture.hostile_case import Case

MB = 1_000_000
Shape = Callable[[random.Random, int], bytes]
"""Of about so many bytes."""


def _filled(unit: bytes, size: int) -> bytes:
    return unit * (size // len(unit) + 1)


def _text(unit: bytes, end: bytes = b"") -> Shape:
    """A line whose text is one unit again and again."""
    return lambda rng, size: b'{"text":"' + _filled(unit, size) + end + b'"}\n'


def _beside(unit: bytes, last: bytes = b"0", text: bytes = b'"a"') -> Shape:
    """A line with a list beside its text."""
    return lambda rng, size: (
        b'{"text":' + text + b',"x":[' + _filled(unit + b",", size) + last + b"]}\n"
    )


def _noise(rng: random.Random, size: int) -> bytes:
    return b'{"text":"' + rng.randbytes(size).translate(None, b'\n"\\') + b'"}\n'


def _new_keys(rng: random.Random, size: int) -> bytes:
    keys = (f'"{number:x}":0' for number in range(size // 9))
    return ("{" + ",".join(keys) + rng.choice([',"text":"a"}', ',"text":"\\ud800"}', "}"])).encode()


def _long_key(rng: random.Random, size: int) -> bytes:
    key = _filled(rng.choice([b"k", b"\xc3\xa9", b"\\u00e9", b"\xff", b"\\n"]), size)
    return b'{"' + key + rng.choice([b'":1}\n', b'":1,"text":"a"}\n', b'":"\n'])


def _many_lines(unit: bytes) -> Shape:
    """Not of all the size: millions of bad lines take minutes, and a block has two megabytes."""
    return lambda rng, size: _filled(unit + b"\n", min(size, MB))


def _one_large_among_small(rng: random.Random, size: int) -> bytes:
    small = b'{"text":"a small one"}\n' * 1000
    return small + _text(b"word ")(rng, size) + small


_TEXTS = (
    b"\xff", b"a\xff", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"ab\xff\xef\xbf\xbd",
    b"\xed\xa0\x80",
    b"\\ud800", b"a\\udfff", b"\\u0000", b"\\ud83d\\ude00", b'\\"', b"\\\\", b"\\n", b"\\u00e9",
    b"\xf0\x9f\x98\x80", b"\xef\xb7\xba", b"\xe2\x80\x8d", b"\xcc\x81", b"a", b" ", b"!?", b"7",
    b"ab\xc3\xa9 ", b"\xe6\xbc\xa2", b"aA", b"\xe0\xa2\x8fA", b"<|endoftext|>",
    b"\x1c\x1d\x1e\x1f", b"<|endof", b"\\x",
)  # fmt: skip
_VALUES = (
    b"0", b"1.5", b"[]", b"{}", b"[1]", b'{"a":1}', b'""', b'"ab"', b"null", b'"\xc3\xa9"',
    b'"\xff"',
    b"-1e5", b"12345678901234567890", b"true", b'"\\ud800"', b'{"text":"a"}', b"[[[]]]",
)  # fmt: skip
_LINES: dict[str, Shape] = {
    "noise": _noise,
    "new-keys": _new_keys,
    "long-key": _long_key,
    "one-large": _one_large_among_small,
    "emoji-at-end": _text(b"word ", b"\xf0\x9f\x98\x80"),
    "half-at-end": _text(b"word ", b"\\ud800"),
    "open-text": lambda rng, size: b'{"text":"' + _filled(b"a", size) + b"\n",
    "deep-lists": lambda rng, size: b'{"text":"a","x":' + b"[" * size + b"]" * size + b"}\n",
    "deep-objects": lambda rng, size: _filled(b'{"a":', size) + b"\n",
    "digits": lambda rng, size: b'{"text":"a","x":' + b"7" * size + b"}\n",
    "text-of-digits": lambda rng, size: b'{"text":' + b"7" * size + b"}\n",
    "same-key": lambda rng, size: b"{" + _filled(b'"text":"a",', size) + b'"text":"b"}\n',
    "a-list": lambda rng, size: b"[" + _filled(b"1,", size) + b"1]\n",
    "a-list-of-lists": lambda rng, size: b"[" + _filled(b"[],", size) + b"1]\n",
    "nan-beside": lambda rng, size: b'{"text":"a","x":[' + _filled(b"NaN,", size) + b"1]}\n",
    "no-text": lambda rng, size: b'{"x":[' + _filled(b'{"a":1},', size) + b"1]}\n",
    "bad-at-end": lambda rng, size: b'{"text":"a","x":[' + _filled(b"[],", size) + b"1]]}\n",
    "nothing": lambda rng, size: b"\0" * size,
    "no-line-end": lambda rng, size: rng.randbytes(1) * size,
    "commas": lambda rng, size: _filled(b",", size),
    "quotes": lambda rng, size: _filled(b'"', size),
}
for _unit in _TEXTS:
    _LINES[f"text-{_unit!r}"] = _text(_unit)
for _unit in _VALUES:
    _LINES[f"beside-{_unit!r}"] = _beside(_unit)
    _LINES[f"beside-half-{_unit!r}"] = _beside(_unit, text=b'"\\ud800"')
    _LINES[f"beside-wrong-{_unit!r}"] = _beside(_unit, last=b"}")
for _unit in (b"", b"x", b"{}", b"[]", b'{"text":""}', b'{"text":1}', b"\xff", b'{"text":"\xff"}',
              b'{"text":null}', b" ", b"{", b'{"text":"<|endoftext|>"}'):  # fmt: skip
    _LINES[f"lines-{_unit!r}"] = _many_lines(_unit)

_PLAIN = (
    b"\n", b"\r\n", b"X", b"aX", b"\n\n", b"a\n\n", b"\xff", b"a\xff", b"\xff\n", b"\xe2\x82 ",
    b"\x80",
    b"\xef\xb7\xba", b"\xe2\x80\x8d", b"\xcc\x81", b"a", b" ", b"<|endoftext|>", b"<|endof",
    b"\0",
    b"\xf0\x9f\x98\x80", b"\xe6\xbc\xa2", b"\xe0\xa2\x8fA", b"ab\xff" * 300 + b"\n",
    b"\x1c\x1d\x1e\x1f", b"!",
    b"aA", b"'s",
    b"\xed\xa0\x80", b"7", b"\xc3\xa9", b"\xef\xbf\xbd\xff", b"word and word ", b"\t", b"\r",
)  # fmt: skip


def _nested_specials(rng: random.Random, size: int) -> bytes:
    count = size // 13
    return b"<|endof" * count + b"<|endoftext|>" + b"text|>" * count


def _write(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def _choices(rng: random.Random) -> list[str]:
    """Options, most of them one of few."""
    options = ["--on-bad", "quarantine"] if rng.random() < 0.6 else []
    if rng.random() < 0.35:
        options += ["--invalid-utf8", "replace"]
    if rng.random() < 0.4:
        options += ["--special-text", rng.choice(["token", "error", "text"])]
    if rng.random() < 0.3:
        options += ["--format", rng.choice(["build-nanogpt", "llm.c"]), "--shard-tokens", "1M"]
    return options


def _jsonl(shape: Shape, size: int, times: int, seed: int, folder: Path) -> list[str]:
    rng = random.Random(seed)
    content = b"".join(shape(rng, size) for _ in range(times))
    return [_write(folder, "a.jsonl", content), *_choices(rng)]


def _plain(unit: bytes, size: int, seed: int, folder: Path) -> list[str]:
    rng = random.Random(seed)
    ways = ("file", "line", "blank-line", "separator:X", "separator:<|endoftext|>")
    content = _filled(unit, size) if unit else _nested_specials(rng, size)
    if rng.random() < 0.2:
        content = content[:1000] + b"Some words come before it. " + content
    where = _write(folder, "a.txt", content)
    return [where, "--kind", "text", "--documents", rng.choice(ways), *_choices(rng)]


def cases(seed: int) -> Iterator[Case]:
    """Lines and texts of 10 kB to 24 MB, most of a few megabytes."""
    rng = random.Random(seed)
    sizes = (0.01, 0.1, 0.5, 1, 2, 3, 4, 6, 9, 14, 24)
    shapes = sorted(_LINES)
    while True:
        each = rng.randrange(1 << 40)
        size = int(rng.choice(sizes) * MB * rng.uniform(0.7, 1))
        if rng.random() < 0.6:
            name = rng.choice(shapes)
            times = rng.choice([1, 1, 1, 2, 5]) if size < 5 * MB else 1
            make = partial(_jsonl, _LINES[name], size, times, each)
            yield Case(f"jsonl {name} {times} x {size}, {each}", make)
        else:
            unit = rng.choice((*_PLAIN, b""))
            about = repr(unit[:20]) if unit else "nested specials"
            yield Case(f"text {about} {size}, {each}", partial(_plain, unit, size, each))
