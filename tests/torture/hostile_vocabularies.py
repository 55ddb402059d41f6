"""Vocabularies made to be expensive, with texts that show it: rules that grow a text, long names,
large files, patterns; and files that are none."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.torture.hostile_case import Case

Rules = dict[str, Any]
_EOT = "<|endoftext|>"


def _tokenizer(model: Rules, normalizers: list[Rules], writers: list[Rules]) -> Rules:
    token = {"id": 0, "content": _EOT, "special": True}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [token],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": writers} if writers else None,
        "post_processor": None, "decoder": None, "model": model,
    }  # fmt: skip


def _words(count: int, unknown: str = "[UNK]") -> Rules:
    vocabulary = {_EOT: 0, unknown: 1} | {f"w{n:x}": n + 2 for n in range(count)}
    return {"type": "WordLevel", "vocab": vocabulary, "unk_token": unknown}


def _letters(**more: Any) -> Rules:
    texts = [_EOT, "<unk>", *(chr(n) for n in range(33, 127)), "▁", "é"]
    vocabulary = {text: number for number, text in enumerate(texts)}
    return {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": "<unk>"} | more


def _replace(pattern: Rules, content: str) -> Rules:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _splitter() -> Rules:
    return {"type": "WhitespaceSplit"}


def _rules(kind: str, rng: random.Random) -> Rules:
    """One tokenizer of a kind."""
    times, letters = rng.choice([1, 2, 3, 5, 9, 30]), rng.choice([2, 10, 100, 1000])
    if kind == "nested-replace":
        step = _replace({"String": "a"}, "a" * letters)
        return _tokenizer(_letters(), [step] * times, [])
    if kind == "nested-regex":
        step = _replace({"Regex": rng.choice([".", "\\b", "a", ""])}, "b" * letters)
        return _tokenizer(_letters(), [step] * times, [])
    if kind == "prepend":
        return _tokenizer(_letters(), [{"type": "Prepend", "prepend": "b" * letters}] * times, [])
    if kind == "nfkc":
        names = rng.choices(["NFKC", "NFKD", "NFD", "Lowercase"], k=min(times, 3))
        return _tokenizer(_letters(), [{"type": name} for name in names], [_splitter()])
    if kind == "byte-level":
        step = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": rng.random() < 0.5}
        return _tokenizer(_letters(), [], [step] * times)
    if kind == "long-unknown":
        return _tokenizer(_words(10, "u" * letters), [], [_splitter()])
    if kind == "long-prefix":
        more = {"continuing_subword_prefix": "#" * letters, "end_of_word_suffix": "$" * letters}
        return _tokenizer(_letters(**more), [], [_splitter()])
    if kind == "large":
        return _tokenizer(_words(rng.choice([10**4, 10**5, 4 * 10**5])), [], [_splitter()])
    return _tokenizer(_letters(), [], [])


_KINDS = ("nested-replace", "nested-regex", "prepend", "nfkc", "byte-level", "long-unknown",
          "long-prefix", "large", "plain")  # fmt: skip
_UNITS = (
    b"a",
    b"a ",
    b"\xef\xb7\xba",
    b"\xc3\xa9",
    b"w1 ",
    b"\xf0\x9d\x85\xa0",
    b"\xce\x90",
    b"ab\n",
)


def _make(kind: str, size: int, seed: int, folder: Path) -> list[str]:
    rng = random.Random(seed)
    path = folder / "tokenizer.json"
    if kind == "ranks":
        path = folder / "a.tiktoken"
        tokens = [bytes([n]) for n in range(256)]
        tokens += [b"t%x" % n for n in range(rng.choice([0, 10**4, 3 * 10**5]))]
        tokens += [b"a" * rng.choice([1000, 10**6])]
        lines = (b"%s %d\n" % (base64.b64encode(text), n) for n, text in enumerate(tokens))
        path.write_bytes(b"".join(lines))
    elif kind == "none":
        path = folder / rng.choice(["a.model", "tokenizer.json", "a.tiktoken"])
        unit = rng.choice([b"[", b'{"model":', b"\n\xff", b"YQ== 0\n", b"\x0a\x80"])
        path.write_bytes(unit * (size // len(unit)))
    else:
        path.write_text(json.dumps(_rules(kind, rng), ensure_ascii=False))
    (folder / "a.txt").write_bytes(rng.choice(_UNITS) * (size // 3) + b"\n")
    options = ["--tokenizer", str(path), "--documents", rng.choice(["file", "line"])]
    options += ["--pattern", "gpt2"] if path.suffix == ".tiktoken" else []
    options += ["--on-bad", "quarantine"] if rng.random() < 0.5 else []
    return [str(folder / "a.txt"), *options]


def cases(seed: int) -> Iterator[Case]:
    """Vocabularies of a kilobyte to ten megabytes, texts of a few kilobytes to two megabytes."""
    rng = random.Random(seed)
    while True:
        kind = rng.choice((*_KINDS, "ranks", "none"))
        size, each = int(rng.choice([0.003, 0.03, 0.3, 2]) * 10**6), rng.randrange(1 << 40)
        yield Case(f"vocabulary {kind} text {size}, {each}", partial(_make, kind, size, each))
