"""The engine fastokens: an extra, faster than gigatoken on text in most languages and on code.

How it is used, and why. One tokenizer serves all threads of a process: its tables are read only,
and each thread keeps a table of words of its own, of a bounded size (release 0.3.5: 64 MiB of
words of up to 15 bytes, 32 MiB of longer ones). The library would spread each call over threads of
its own; a run has one for each core already, so it is told once, before its first call, to have
none. Small documents are joined by a mark with the delimiter's id, as for gigatoken, but in groups
of some ten thousand bytes: measured, with short documents that is twice as fast as each by itself,
with megabytes at once a third is lost. All ids come back as one array (``encode_batch_flat``).

It reads a text by a scanner written for the split patterns that it knows, and by a regular
expression for all others, which is slower than gigatoken, reuses what it found in the text before,
and works in parallel: only the former is used. GPT-2's pattern is among them only as that of a
``tokenizer.json``, so GPT-2's ranks are put as one.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tokenmill.errors import TokenmillError
from tokenmill.memory import MIB, Needs, return_free_memory
from tokenmill.tokenizers.engines import gigatoken_limits
from tokenmill.tokenizers.engines.engine import NotInstalled, Tokens
from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import (
    LLAMA3_SPLIT,
    PATTERNS,
    QWEN_SPLIT,
    Ranks,
)
from tokenmill.tokenizers.vocabularies.tokenizer_json import TokenizerJson
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary, plain, steps_of

KNOWN_SPLITS = {
    "tekken": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "qwen3.5": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "deepseek": (
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
}
SCANNED = {(LLAMA3_SPLIT,), (QWEN_SPLIT,), (PATTERNS["o200k_base"],), *KNOWN_SPLITS.values()}
"""The patterns, one behind the other, that it has a scanner for (release 0.3.5, ``src/tiktoken.rs``
and ``src/pre_tokenizers/scan.rs``); GPT-2's is that of a ByteLevel alone. Each is recognised by its
very text. Not cl100k_base's as tiktoken has it, which takes white space at a text's end whole."""
_THREADS = "FASTOKENS_BPE_THREADS"
_SETTINGS = ("FASTOKENS_INPUT_CACHE", "FASTOKENS_SEGMENT_CACHE")
_MARK = gigatoken_limits.MARK.encode()
_GROUP_BYTES = 32 * 1024
_BETWEEN = "a"
"""Every vocabulary that is not refused has one id for it: it has a token for each byte."""
_making = threading.Lock()


def refusal(vocabulary: Vocabulary) -> str | None:
    """Why it is not to be used, in words. What gigatoken does not promise of a vocabulary, which
    rebuilds the same parts of the same references, this one is not trusted with either."""
    cache = next((name for name in _SETTINGS if os.environ.get(name)), None)
    if cache is not None:
        return f"{cache} is set, which makes it remember whole texts"
    if isinstance(vocabulary, Ranks):
        is_scanned = vocabulary.pattern == "gpt2" or (PATTERNS[vocabulary.pattern],) in SCANNED
        if not is_scanned:
            return "it has no scanner for its split pattern"
    else:
        assert isinstance(vocabulary, TokenizerJson)
        settings = json.loads(vocabulary.without_specials(None))
        if plain(settings.get("model")).get("byte_fallback"):
            return "it is no byte-level BPE"
        if not _is_scanned(steps_of(settings.get("pre_tokenizer"), "pretokenizers")):
            return "it has no scanner for its split pattern"
    return gigatoken_limits.refusal(vocabulary)


def _is_scanned(steps: list[dict[str, Any]]) -> bool:
    """ByteLevel alone, or after splits that are known."""
    if not steps or steps[-1].get("type") != "ByteLevel":
        return False
    if steps[-1].get("add_prefix_space", True):
        return False
    if steps[-1].get("use_regex", True):
        return len(steps) == 1
    ways = {(step.get("type"), step.get("behavior"), step.get("invert")) for step in steps[:-1]}
    patterns = tuple(plain(step.get("pattern")).get("Regex") for step in steps[:-1])
    return ways == {("Split", "Isolated", False)} and patterns in SCANNED


def _library() -> Any:
    """Its class of tokenizers, with no threads of its own. Raises NotInstalled."""
    try:
        from fastokens import Tokenizer
    except ImportError as error:
        raise NotInstalled("fastokens", "fastokens") from error
    return Tokenizer


def _without_threads(tokenizer: Any) -> None:
    """Make its first call, at which it reads from the environment how many threads to make."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        tokenizer.encode_batch_flat([_BETWEEN, _BETWEEN])
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


def _loaded(vocabulary: Vocabulary) -> Any:
    """The vocabulary's tokenizer, one for all threads, made when it is first asked for."""
    kept = vars(vocabulary)
    with _making:
        if "_fastokens" not in kept:
            kept["_fastokens"] = _made(vocabulary)
            _without_threads(kept["_fastokens"])
    return kept["_fastokens"]


def _made(vocabulary: Vocabulary) -> Any:
    """With no token registered but the mark, and those that the reference finds in text."""
    tokenizers, marks = _library(), {gigatoken_limits.MARK: vocabulary.end_of_text}
    try:
        if isinstance(vocabulary, TokenizerJson):
            return tokenizers.from_json_str(vocabulary.without_specials(marks).decode())
        assert isinstance(vocabulary, Ranks)
        if vocabulary.pattern == "gpt2":
            return tokenizers.from_json_str(json.dumps(_as_json(vocabulary.ranks, marks)))
        return tokenizers.from_tiktoken(vocabulary.file, PATTERNS[vocabulary.pattern], marks)
    except BaseException as error:
        # A panic is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenmillError(
            "fastokens cannot use this vocabulary",
            vocabulary.name,
            str(error).split("\n")[0],
            f"--engine {vocabulary.reference}, which is slower and takes any",
        ) from error


def _as_json(ranks: Mapping[bytes, int], marks: Mapping[str, int]) -> dict[str, Any]:
    """GPT-2's ranks as a ``tokenizer.json``: a token is the merge of the two it was made of.

    Raises ValueError for ranks with a token that is no pair of tokens of lower ranks."""
    letters = {byte: letter for letter, byte in BYTE_LETTERS.items()}
    written = {token: "".join(map(letters.__getitem__, token)) for token in ranks}
    ordered = sorted(ranks, key=ranks.__getitem__)
    pairs = [gigatoken_limits.parts_of(token, ranks) for token in ordered if len(token) > 1]
    merges = [[written[left], written[right]] for left, right in pairs]
    return {
        "added_tokens": [
            {"id": token, "content": text, "special": True, "normalized": False}
            for text, token in marks.items()
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {written[token]: rank for token, rank in ranks.items()},
            "merges": merges,
        },
    }


def _joined(documents: Sequence[bytes]) -> Iterator[str]:
    """Documents in groups, each with a mark behind it."""
    group: list[bytes] = []
    size = 0
    for text in documents:
        group.append(text)
        size += len(text)
        if size >= _GROUP_BYTES:
            yield _MARK.join([*group, b""]).decode()
            group, size = [], 0
    if group:
        yield _MARK.join([*group, b""]).decode()


class FastokensEngine:
    """One thread's part of a tokenizer that all share."""

    name = "fastokens"
    reads: ClassVar[tuple[type[Vocabulary], ...]] = (Ranks, TokenizerJson)
    refusal = staticmethod(refusal)

    def __init__(self, vocabulary: Vocabulary) -> None:
        _library()
        self._vocabulary = vocabulary

    @staticmethod
    def needs(vocabulary: Vocabulary) -> Needs:
        """Measured with release 0.3.5, beside the reference: tables of 330 to 400 bytes a token,
        and 170 more of words that each thread's table begins with; for a thread 36 to 67 MB after
        30 MB of three corpora, and never more than its tables may grow to."""
        size = vocabulary.largest_id + 1
        reference = 350 * size if isinstance(vocabulary, Ranks) else 16 * MIB + 1200 * size
        return Needs(reference + 32 * MIB + 750 * size, 112 * MIB, has_caches=False)

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        import numpy as np

        end_of_text = self._vocabulary.end_of_text
        # Where the delimiter is an ordinary token, its id may stand in a text as well.
        if self._vocabulary.special_text and not any(_MARK in text for text in documents):
            flat, _ = _loaded(self._vocabulary).encode_batch_flat(list(_joined(documents)))
            ids = np.frombuffer(flat, np.uint32)
            marks = np.flatnonzero(ids == end_of_text)
            if len(marks) == len(documents):
                return Tokens(ids[:-1], marks[:-1])
        return self._one_by_one(documents)

    def _one_by_one(self, documents: Sequence[bytes]) -> Tokens:
        """With a letter between each two, whose one id is then overwritten."""
        import numpy as np

        pairs = itertools.chain.from_iterable((text.decode(), _BETWEEN) for text in documents)
        flat, ends = _loaded(self._vocabulary).encode_batch_flat(
            list(pairs)[:-1], split_special_tokens=True
        )
        ids = np.frombuffer(flat, np.uint32).copy()
        marks = np.frombuffer(ends, np.uint64)[1:-1:2].astype(np.int64)
        ids[marks] = self._vocabulary.end_of_text
        return Tokens(ids, marks)

    def encode_piece(self, text: bytes) -> list[int]:
        ids: list[int] = self.encode([text]).ids.tolist()
        return ids

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        """Its tables of words cannot be dropped; what a call left goes back to the system."""
        return_free_memory()
