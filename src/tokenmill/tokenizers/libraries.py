"""The libraries that decide ids, as they are installed: which release, which Unicode.

A letter that is new in one release is a sign in another, and its neighbours get other ids. So a
dataset records the libraries that may decide its ids, and a run goes on, and a
dataset counts as done, only with the same ones. The level of Unicode is found by asking the
library itself whether it takes letters of each version for letters: a table would be right only
for releases that somebody has looked at.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from tokenmill.errors import TokenmillError
from tokenmill.tokenizers.vocabularies import huggingface_library
from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS

LETTERS = {
    "11": "\U00010d00", "12": "\U00010fe0", "13": "\U00010e80", "14": "\U00012f90",
    "15": "\U00011f04", "15.1": "\U0002ebf0", "16": "\U00010d4a", "17": "\U00016ea0",
}  # fmt: skip
"""One letter that is new in each version of Unicode."""
Library = Mapping[str, str]
"""``version``, and ``unicode``: the level of its tables, where it splits by classes of letters."""


@functools.cache
def library(name: str) -> Library | None:
    """What is installed of a library; None where it is not."""
    try:
        found = {"version": metadata.version(name)}
    except metadata.PackageNotFoundError:
        return None
    level = _level(name)
    return found if level is None else {**found, "unicode": level}


def _level(name: str) -> str | None:
    """The newest version whose letter, and all before, it takes for a letter."""
    takes = _PROBES.get(name)
    if takes is None:
        return None
    level = "before 11"
    try:
        knows = takes()
        for version, letter in LETTERS.items():
            if not knows(letter):
                break
            level = version
    except (TokenmillError, ValueError, RuntimeError, KeyError, AttributeError, ImportError):
        return None  # the version still tells them apart
    return level


def told(name: str, entry: Library) -> str:
    """One of them in words: ``tiktoken 0.14.0 (Unicode 16)``."""
    level = f" (Unicode {entry['unicode']})" if "unicode" in entry else ""
    return f"{name} {entry.get('version', '?')}{level}"


def differences(now: Mapping[str, Library], before: Mapping[str, Library]) -> list[str]:
    """How the libraries of both differ, in words; what only one of them has does not count."""
    return [
        f"the ids are now of {told(name, entry)}, they were of {told(name, before[name])}"
        for name, entry in now.items()
        if name in before and dict(before[name]) != dict(entry)
    ]


def advice(now: Mapping[str, Library], before: Mapping[str, Library]) -> str:
    """How to have the libraries of before."""
    wanted = [
        f"'{name}=={before[name].get('version')}'"
        for name, entry in now.items()
        if name in before and dict(before[name]) != dict(entry)
    ]
    return f"python3 -m pip install {' '.join(wanted)}"


# --- is it a letter? ---------------------------------------------------------------------------


def _of_tiktoken() -> Callable[[str], bool]:
    import tiktoken

    ranks = {bytes([byte]): byte for byte in range(256)}
    probe = tiktoken.Encoding(
        "probe", pat_str=r"\p{L}+", mergeable_ranks=ranks, special_tokens={}
    )  # what the pattern does not match is left out
    return lambda letter: bool(probe.encode_ordinary(letter))


def _byte_level(letters: list[str]) -> dict[str, Any]:
    """GPT-2's split, and one merge: of a letter's last byte with an ``a`` behind it, which a split
    between the two prevents."""
    written = {byte: letter for letter, byte in BYTE_LETTERS.items()}
    tokens = [written[byte] for byte in range(256)]
    lasts = sorted({written[letter.encode()[-1]] for letter in letters})
    vocab = [*tokens, *(last + "a" for last in lasts)]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False, "vocab": {text: token for token, text in enumerate(vocab)},
        "merges": [[last, "a"] for last in lasts],
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": step, "post_processor": None, "decoder": None,
        "model": model,
    }  # fmt: skip


def _of_gigatoken() -> Callable[[str], bool]:
    from gigatoken import gigatoken_rs

    settings = json.dumps(_byte_level(list(LETTERS.values()))).encode()
    probe = gigatoken_rs.load_hf_json(settings)
    return lambda letter: len(probe.encode(f"{letter}a".encode())) == 4


def _of_tokenizers() -> Callable[[str], bool]:
    settings = _byte_level(list(LETTERS.values()))
    probe = huggingface_library.load(json.dumps(settings).encode(), settings, "probe")
    return lambda letter: len(probe.encode(f"{letter}a")) == 4


def _of_fastokens() -> Callable[[str], bool]:
    from fastokens import Tokenizer

    probe = Tokenizer.from_json_str(json.dumps(_byte_level(list(LETTERS.values()))))
    return lambda letter: len(probe.encode(f"{letter}a").ids) == 4


_PROBES: dict[str, Callable[[], Callable[[str], bool]]] = {
    "tiktoken": _of_tiktoken,
    "gigatoken": _of_gigatoken,
    "fastokens": _of_fastokens,
    "tokenizers": _of_tokenizers,
}
"""sentencepiece splits by nothing: what it normalizes by is in the model."""
