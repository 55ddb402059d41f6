"""Tokenizers that would lose text without a word are refused when they are loaded.

A model that has no token for some character makes its unknown token of it, which is counted. One
that has no unknown token either drops the character (BPE), or the library fails in the middle of a
corpus (the others). Whether it can happen is told by the file: no text is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tokenmill.errors import UsageError
from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS
from tokenmill.tokenizers.vocabularies.vocabulary import plain, steps_of

_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
_PIECE = "<0x{:02X}>"


def refuse_lost_text(settings: Mapping[str, Any], name: str) -> None:
    """Raise UsageError where text that the model has no token for would be lost uncounted."""
    model = plain(settings.get("model"))
    lost = _lost(settings, model)
    if lost is None:
        return
    raise UsageError(
        f"{name} would lose text without a word",
        why=f"its model has no token for {lost}, and no unknown token to stand for it",
        fix="use a tokenizer that covers all text; or give its file an unknown token (unk_token or "
        "unk_id, and an entry for it in the vocabulary): that is counted, and told at the end",
    )


def _lost(settings: Mapping[str, Any], model: dict[str, Any]) -> str | None:
    """What has no token; None where everything has one, or an unknown token stands for it."""
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    vocab = model.get("vocab")
    if kind == "Unigram":
        pieces = {str(entry[0]) for entry in vocab or [] if isinstance(entry, list) and entry}
        has_unknown = isinstance(model.get("unk_id"), int)
    else:
        pieces = set(plain(vocab))
        # WordPiece and WordLevel have a default for the name.
        default = {"WordPiece": "[UNK]", "WordLevel": "<unk>"}.get(str(kind))
        has_unknown = model.get("unk_token", default) in pieces
    if has_unknown or kind is None:
        return None
    if kind in ("WordPiece", "WordLevel"):
        return "words that it does not list"
    if model.get("byte_fallback"):
        missing = [
            byte
            for byte in _needed()
            if _PIECE.format(byte) not in pieces and not (byte < 128 and chr(byte) in pieces)
        ]
        return f"the byte 0x{missing[0]:02x}" if missing else None
    if kind == "BPE" and _writes_bytes(settings):
        letters = {byte: letter for letter, byte in BYTE_LETTERS.items()}
        missing = [byte for byte in _needed() if not _has_letter(letters[byte], model, pieces)]
        return f"the byte 0x{missing[0]:02x}" if missing else None
    return "characters that it does not list"


def _needed() -> list[int]:
    return [byte for byte in range(256) if byte not in _NEVER_IN_UTF8]


def _has_letter(letter: str, model: dict[str, Any], pieces: Collection[str]) -> bool:
    """Has a letter its token wherever it stands in a word? The model may mark all letters but the
    first, and the last one."""
    inside = str(model.get("continuing_subword_prefix") or "") + letter
    end = str(model.get("end_of_word_suffix") or "")
    return all(text in pieces for text in (letter, letter + end, inside, inside + end))


def _writes_bytes(settings: Mapping[str, Any]) -> bool:
    """Does the model get letters that stand for bytes?"""
    steps = [
        *steps_of(settings.get("normalizer"), "normalizers"),
        *steps_of(settings.get("pre_tokenizer"), "pretokenizers"),
    ]
    return any(step.get("type") == "ByteLevel" for step in steps)
