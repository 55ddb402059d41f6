"""Merge ranks in the ``.tiktoken`` format, with what that file does not hold.

A ``.tiktoken`` file has one line a token, base64 and rank; the split pattern and the special
tokens live in code: tiktoken_ext/openai_public.py, models/llama3/tokenizer.py and
models/llama4/tokenizer.py of meta-llama/llama-models, tokenization_qwen.py beside Qwen's models;
the tables below are from there. They are recognised by the file's SHA-256, whatever its name and
its line ends, else the pattern must be named. GPT-2's ranks ship inside the package (MIT, from
OpenAI), so that the default works offline.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path

from tokenmill.errors import TokenmillError, UsageError
from tokenmill.text.cuts import EVERYWHERE, CutRule
from tokenmill.tokenizers.vocabularies.vocabulary import END_OF_TEXT, Vocabulary, chosen_token

_ENCODINGS_URL = "https://openaipublic.blob.core.windows.net/encodings/"

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
PATTERNS = {
    "gpt2": (
        r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    ),
    "cl100k_base": (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"""
        r"""| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
    ),
    "o200k_base": "|".join(
        [
            r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"""
            r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
            r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"""
            r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
            r"""\p{N}{1,3}""",
            r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
            r"""\s*[\r\n]+""",
            r"""\s+(?!\S)""",
            r"""\s+""",
        ]
    ),
    "llama3": LLAMA3_SPLIT,
    "qwen2": QWEN_SPLIT,
}
"""Split patterns by name, OpenAI's as tiktoken 0.14 has them; safe cuts are known for each."""
_OPENAI = ("gpt2", "cl100k_base", "o200k_base")
_WORD = 256
"""Bytes of a token that the self-test writes beside others, at most: the longest of a published
vocabulary has 128. One of a million took 360 MB."""


@dataclass(frozen=True)
class _Published:
    name: str
    sha256: str
    pattern: str
    end_of_text: int
    largest_id: int
    specials: Mapping[str, int] = field(default_factory=dict)
    """Special tokens that may be the delimiter, by name; ``end_of_text`` is one of them."""

    @property
    def special_names(self) -> dict[str, int]:
        """The specials; <|endoftext|> where none are given."""
        return dict(self.specials) or {END_OF_TEXT: self.end_of_text}


_LLAMA3 = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
_LLAMA4 = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>",
)  # fmt: skip
_QWEN = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")


def _numbered(names: tuple[str, ...], first: int) -> dict[str, int]:
    return {name: first + place for place, name in enumerate(names)}


_PUBLISHED = [
    _Published(
        "gpt2",
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        "gpt2",
        50256,
        50256,
    ),
    _Published(
        "cl100k_base",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        "cl100k_base",
        100257,
        100276,
    ),
    _Published(
        "o200k_base",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "o200k_base",
        199999,
        200018,
    ),
]
_FILES = [
    # tokenizer.model of Llama 3, 3.1, 3.2 and 3.3: models/llama3/ in meta-llama/llama-models.
    _Published(
        "llama3",
        "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
        "llama3",
        128001,
        128255,
        _numbered(_LLAMA3, 128000),
    ),
    # tokenizer.model of Llama 4: models/llama4/ there.
    _Published(
        "llama4",
        "d0bdbaf59b0762c8c807617e2d8ea51420eb1b1de266df2495be755c8e0ed6ed",
        "o200k_base",
        200001,
        202047,
        _numbered(_LLAMA4, 200000),
    ),
    # qwen.tiktoken of Qwen 1, as beside Qwen-72B and in the package dashscope.
    _Published(
        "qwen",
        "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
        "qwen2",
        151643,
        151850,
        _numbered(_QWEN, 151643),
    ),
]
"""Files that are known when they are given; they are not fetched by name."""
_BY_NAME = {entry.name: entry for entry in _PUBLISHED}
_BY_HASH = {entry.sha256: entry for entry in [*_PUBLISHED, *_FILES]}
_BY_NAME["r50k_base"] = _BY_NAME["gpt2"]
NAMES = tuple(_BY_NAME)
"""The published vocabularies."""


@dataclass(frozen=True)
class Ranks(Vocabulary):
    """A loaded ``.tiktoken`` vocabulary.

    ``fingerprint`` is the SHA-256 of the ranks; with ``pattern`` and ``end_of_text`` it decides
    every id.
    """

    name: str
    content: bytes = field(repr=False)
    fingerprint: str
    pattern: str
    end_of_text: int
    largest_id: int
    special_text: str = END_OF_TEXT
    reference: str = "tiktoken"
    cuts: CutRule = EVERYWHERE
    why_cuts: str = "its split pattern is a known one"
    keeps_bytes: bool = True
    specials: Mapping[str, int] = field(default_factory=dict)
    """Special tokens that may be the delimiter."""
    is_proven: bool = False

    @cached_property
    def file(self) -> str:
        """The ranks as a temporary file, for libraries that read only files."""
        return _written(self.content)

    @cached_property
    def ranks(self) -> dict[bytes, int]:
        """Token bytes to id. Built when asked for: it costs megabytes."""
        return _parse_ranks(self.content, self.name)

    @cached_property
    def token_bytes(self) -> dict[int, bytes]:
        """Id to token bytes, the end-of-text token included."""
        table = {rank: token for token, rank in self.ranks.items()}
        table.setdefault(self.end_of_text, (self.special_text or END_OF_TEXT).encode())
        return table

    @property
    def tables(self) -> str:
        return self.pattern

    def probe(self) -> Ranks:
        from tokenmill.tokenizers.vocabularies.probe import probe_tokens

        tokens = probe_tokens()
        lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
        content, fingerprint = b"".join(lines), f"probe of {self.pattern}"
        return Ranks("probe", content, fingerprint, self.pattern, len(tokens), len(tokens))

    def own_texts(self) -> list[str]:
        # Without its own program: a few thousand of its tokens, each of which it must find again.
        tokens = sorted(self.ranks.items(), key=lambda item: item[1] * 2654435761 % 2**32)
        texts = [token.decode(errors="ignore") for token, _ in tokens[:4000] if len(token) <= _WORD]
        return [text for text in texts if text]


@contextmanager
def temporary_file(content: bytes) -> Iterator[str]:
    """The path of a file with that content while it is needed. Raises TokenmillError."""
    name = _written(content)
    try:
        yield name
    finally:
        if name.startswith("/proc/"):
            os.close(int(name.rpartition("/")[2]))
        else:
            _remove(name)


def _written(content: bytes) -> str:
    try:
        handle, name = _temporary_file()
        with os.fdopen(handle, "wb", closefd=not name.startswith("/proc/")) as file:
            file.write(content)
    except OSError as error:
        raise TokenmillError(
            "cannot write a temporary file",
            tempfile.gettempdir(),
            error.strerror,
            "make room there, or set TMPDIR to another folder",
        ) from error
    return name


def _temporary_file() -> tuple[int, str]:
    """Open for writing, and its path; gone with the process, in memory where it can be, so that a
    killed process leaves nothing behind."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("tokenmill")
        return handle, f"/proc/{os.getpid()}/fd/{handle}"
    handle, name = tempfile.mkstemp(prefix="tokenmill-", suffix=".tiktoken")
    atexit.register(_remove, name)
    return handle, name


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def load_published(name: str, pattern: str | None = None, eot: str | None = None) -> Ranks:
    """The vocabulary of a published ``name``: from the package (gpt2), from tiktoken's cache, or
    by tiktoken's own download. Raises UsageError, TokenmillError."""
    _check_pattern(pattern)
    entry = _BY_NAME[name]
    content = _published_content(entry)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise TokenmillError(
            f"the ranks of {entry.name} are not the published ones",
            None,
            f"their SHA-256 is {found}, not {entry.sha256}",
            "install tokenmill again, or clear tiktoken's cache",
        )
    return _with_eot(_published(entry, content, pattern), eot)


def load_ranks(
    path: Path, content: bytes, pattern: str | None = None, eot: str | None = None
) -> Ranks:
    """The vocabulary in a ``.tiktoken`` file, whose split pattern is known by its hash or named
    by ``pattern``. Raises UsageError, TokenmillError."""
    _check_pattern(pattern)
    content = content.replace(b"\r\n", b"\n")  # the same ranks, as git may check them out
    known = _BY_HASH.get(hashlib.sha256(content).hexdigest())
    if known is not None:
        return _with_eot(_published(known, content, pattern), eot)
    return _with_eot(_custom(path, content, pattern), eot)


def _check_pattern(pattern: str | None) -> None:
    if pattern is not None and pattern not in PATTERNS:
        raise UsageError(f"there is no split pattern {pattern!r}", fix=f"use {', '.join(PATTERNS)}")


def _with_eot(vocabulary: Ranks, eot: str | None) -> Ranks:
    """The same with another delimiter, where one was asked for."""
    if eot is None:
        return vocabulary

    def find(name: str) -> int | None:
        if name in vocabulary.specials:
            return vocabulary.specials[name]
        return vocabulary.ranks.get(name.encode("utf-8", "surrogateescape"))

    known = list(vocabulary.specials)
    token = chosen_token(eot, vocabulary.largest_id, find, known, vocabulary.name)
    names = {number: name for name, number in vocabulary.specials.items()}
    return replace(vocabulary, end_of_text=token, special_text=names.get(token, ""))


def _published(entry: _Published, content: bytes, pattern: str | None) -> Ranks:
    pattern = pattern or entry.pattern
    names = {number: name for name, number in entry.special_names.items()}
    is_proven = entry in _PUBLISHED and pattern == entry.pattern
    return Ranks(
        entry.name,
        content,
        entry.sha256,
        pattern,
        entry.end_of_text,
        entry.largest_id,
        names[entry.end_of_text],
        cuts=_cuts(pattern),
        specials=entry.special_names,
        is_proven=is_proven,
    )


def _cuts(pattern: str) -> CutRule:
    """Where a text split by a known pattern may be cut (docs/decisions/2026-11-21-tokenizers.md).

    OpenAI's patterns were compared code point by code point; of the others only characters whose
    kind is the same in all versions of Unicode count.
    """
    return EVERYWHERE if pattern in _OPENAI else CutRule(is_stable=True)


def _published_content(entry: _Published) -> bytes:
    if entry.name == "gpt2":
        return (resources.files("tokenmill.tokenizers.vocabularies") / "gpt2.tiktoken").read_bytes()
    from tiktoken.load import read_file_cached

    url = f"{_ENCODINGS_URL}{entry.name}.tiktoken"
    try:
        return read_file_cached(url, entry.sha256)
    except Exception as error:
        raise TokenmillError(
            f"cannot get the ranks of {entry.name}",
            url,
            f"{type(error).__name__}: they are not in tiktoken's cache, and the download failed",
            f"give the path of {entry.name}.tiktoken instead, or set TIKTOKEN_CACHE_DIR",
        ) from error


def _custom(path: Path, content: bytes, pattern: str | None) -> Ranks:
    if pattern is None:
        raise UsageError(
            f"{path.name} is a vocabulary that tokenmill does not know",
            str(path),
            "a .tiktoken file does not say how text is split before it is merged",
            f"name its split pattern: --pattern {' or '.join(PATTERNS)}; documents are then "
            "delimited by <|endoftext|>, the id after the largest (--eot-token is for another)",
        )
    largest = max(_parse_ranks(content, str(path)).values())
    fingerprint = hashlib.sha256(content).hexdigest()
    return Ranks(
        path.name,
        content,
        fingerprint,
        pattern,
        largest + 1,
        largest + 1,
        cuts=_cuts(pattern),
        specials={END_OF_TEXT: largest + 1},
    )


def _parse_ranks(content: bytes, name: str) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenmillError(
                "not a .tiktoken vocabulary",
                f"{name}, line {number}",
                "a line is a token in base64, a space, and its rank",
                "check that the file is whole and of that format",
            ) from error
    if not ranks or sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenmillError(
            "not a usable .tiktoken vocabulary",
            name,
            "the ranks are not 0, 1, 2, ... without a gap",
            "check that the file is whole",
        )
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TokenmillError(
            "not a usable .tiktoken vocabulary",
            name,
            f"there is no token for the byte 0x{missing[0]:02x}: not every text can be encoded",
            "use a vocabulary of byte-level BPE, which has all 256",
        )
    return ranks
