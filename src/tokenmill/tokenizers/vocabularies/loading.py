"""From a ``--tokenizer`` option to a vocabulary: a name, a file, a folder, or a Hub id."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path

from tokenmill.errors import UsageError, unreadable
from tokenmill.tokenizers.vocabularies import hub, tiktoken_ranks
from tokenmill.tokenizers.vocabularies.sentencepiece_model import SentencePieceModel
from tokenmill.tokenizers.vocabularies.tokenizer_json import TokenizerJson
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

Check = Callable[[str], None]
_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json")
_MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def _any(path: str) -> None:
    """No file is too large."""


def load_vocabulary(
    choice: str,
    pattern: str | None = None,
    eot: str | None = None,
    commit: str | None = None,
    check: Check = _any,
) -> Vocabulary:
    """The vocabulary for a ``--tokenizer`` option; ``pattern`` and ``eot`` are ``--pattern`` and
    ``--eot-token``. Of what lies on the Hub ``commit`` is taken, if given, whatever the branch
    that was named holds today. ``check`` is called with the path of each file before it is read.
    Raises UsageError or TokenmillError."""
    if choice in tiktoken_ranks.NAMES:
        return tiktoken_ranks.load_published(choice, pattern, eot)
    if os.path.isfile(choice):  # pathlib raises when the name is too long
        return _from_file(Path(choice), pattern, eot, check)
    if os.path.isdir(choice):
        path = Path(choice)
        return _from_folder(path, path.resolve().name, pattern, eot, None, check)
    if hub.is_hub_id(choice):
        name = choice.partition("@")[0]
        folder, commit = hub.fetch(f"{name}@{commit}" if commit else choice)
        return _from_folder(folder, name, pattern, eot, commit, check)
    raise UsageError(
        f"there is no tokenizer {choice!r}",
        why="it is neither a known name, nor a file or folder, nor a Hub id (ORG/NAME)",
        fix=f"use {', '.join(tiktoken_ranks.NAMES)}, or the path of a .tiktoken, tokenizer.json or "
        "SentencePiece .model file",
    )


def _from_file(path: Path, pattern: str | None, eot: str | None, check: Check) -> Vocabulary:
    content = _read(path, check)
    if content.lstrip()[:1] == b"{":
        _refuse_pattern(pattern, path)
        return TokenizerJson(path.name, content, {}, eot)
    if path.suffix == ".model" and not _looks_like_ranks(content):
        _refuse_pattern(pattern, path)
        return SentencePieceModel(path.name, content, eot)
    return tiktoken_ranks.load_ranks(path, content, pattern, eot)


def _from_folder(
    folder: Path,
    name: str,
    pattern: str | None,
    eot: str | None,
    commit: str | None,
    check: Check,
) -> Vocabulary:
    """A folder as models are published in: ``tokenizer.json`` if it has one, else the model."""
    path = folder / "tokenizer.json"
    if path.is_file():
        _refuse_pattern(pattern, path)
        beside = {
            file: _read(folder / file, check) for file in _COMPANIONS if (folder / file).is_file()
        }
        return TokenizerJson(name, _read(path, check), beside, eot, commit)
    for file in _MODELS:
        path = folder / file
        if path.is_file():
            content = _read(path, check)
            if _looks_like_ranks(content):
                return tiktoken_ranks.load_ranks(path, content, pattern, eot)
            _refuse_pattern(pattern, path)
            return SentencePieceModel(name, content, eot, commit)
    raise UsageError(
        f"there is no tokenizer in {name}",
        str(folder),
        f"it has neither tokenizer.json nor {', '.join(_MODELS)}",
        "name another folder, or the tokenizer's file itself",
    )


def _read(path: Path, check: Check) -> bytes:
    check(str(path))
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(str(path), error) from error


def _looks_like_ranks(content: bytes) -> bool:
    """Is its first line a token in base64 and a rank? (Llama 3 calls such a file a .model.)"""
    parts = content[:200].split(b"\n", 1)[0].split()
    try:
        return (
            len(parts) == 2
            and bool(base64.b64decode(parts[0], validate=True))
            and (parts[1].isdigit())
        )
    except binascii.Error:
        return False


def _refuse_pattern(pattern: str | None, path: Path) -> None:
    if pattern is not None:
        raise UsageError(
            "--pattern is for .tiktoken files only",
            str(path),
            "this tokenizer's file says itself how text is split",
            "leave --pattern out",
        )
