"""Hugging Face ``tokenizer.json``: a whole tokenizer in one file.

The reference is ``tokenizers.Tokenizer.encode(text, add_special_tokens=False)``: what the file's
post-processor would add is never added. Two things differ from the library's defaults, so that no
input is lost and text stays text. Truncation and padding that the file asks for are turned off.
Special tokens written in a document are text, as everywhere in tokenmill
(``encode_special_tokens``); added tokens that are not special are found in the text, as the
reference does.

Where it may be cut is read from the file: byte-level BPE whose split pattern is a known one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from tokenmill.errors import TokenmillError, UsageError
from tokenmill.text.cuts import NOWHERE, CutRule
from tokenmill.tokenizers.vocabularies import growth, huggingface_library
from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS
from tokenmill.tokenizers.vocabularies.huggingface_library import HuggingFaceTokenizer
from tokenmill.tokenizers.vocabularies.lost_text import refuse_lost_text
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import PATTERNS
from tokenmill.tokenizers.vocabularies.vocabulary import (
    END_OF_TEXT,
    Vocabulary,
    chosen_token,
    no_end_of_text,
    plain,
    steps_of,
)

_USUAL_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>")
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the pre-tokenizer ByteLevel splits by, by itself."""
_KNOWN_SPLITS = {
    GPT2_SPLIT: "gpt2",
    **{text: name for name, text in PATTERNS.items()},
}
"""Split patterns whose safe cuts are known; docs/decisions/2026-11-21-tokenizers.md has why."""


class TokenizerJson(Vocabulary):
    """One ``tokenizer.json``, with the end-of-text token that goes with it."""

    kind = "tokenizer.json"
    reference = "tokenizers"

    def __init__(
        self,
        name: str,
        content: bytes,
        companions: Mapping[str, bytes],
        eot: str | None = None,
        commit: str | None = None,
    ) -> None:
        """``companions`` are the files beside it by name, which may tell the end-of-text token;
        ``eot`` names it; ``commit`` is the Hub's. Raises TokenmillError, UsageError."""
        self.name = name
        self.commit = commit
        self.fingerprint = hashlib.sha256(content).hexdigest()
        settings = _parsed(content, name)
        self.added_tokens = [t for t in settings.get("added_tokens") or [] if isinstance(t, dict)]
        """The file's added tokens, as it has them."""
        self._refuse_chance(settings)
        self._refuse_growth(settings)
        self.library = self._loaded(content, settings)
        """The library's own tokenizer, as the reference uses it; shared by all threads."""
        refuse_lost_text(settings, name)
        ids = self.library.vocabulary()
        if not ids:
            raise _unusable(name, "it has no token at all")
        largest = max(ids.values())
        del ids
        self.end_of_text = self._end_of_text(largest, companions, eot)
        self.largest_id = max(largest, self.end_of_text)
        self.special_text = self._written(self.end_of_text)
        self.unknown_id = self._unknown_id(settings)
        self.pattern = _KNOWN_SPLITS.get(_split(settings) or "", "other")
        self.is_byte_level = _is_byte_level(settings)
        self._normalizers = _normalizers(settings)
        self._normalizer_steps, self._split_steps = _table_steps(settings)
        self.cuts, self.why_cuts = self._cut_rule()
        # Parsed, a file takes ten times its size: only its text around the added tokens is kept.
        mark = {"added_tokens": hashlib.sha256(content).hexdigest()}
        text = json.dumps({**settings, **mark}, ensure_ascii=False)
        self._head, self._tail = text.encode().split(f'"{mark["added_tokens"]}"'.encode())

    def _loaded(self, content: bytes, settings: dict[str, Any]) -> HuggingFaceTokenizer:
        try:
            return huggingface_library.load(content, settings, self.name)
        except TokenmillError:
            raise
        except BaseException as error:
            # A panic in the library is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise _unusable(self.name, str(error)) from error

    def _unknown_id(self, settings: dict[str, Any]) -> int | None:
        """As the model has it: by its number in Unigram models, else by its name."""
        model = plain(settings.get("model"))
        number, name = model.get("unk_id"), model.get("unk_token")
        if isinstance(number, int):
            return number
        return self.library.token_id(name) if isinstance(name, str) else None

    @property
    def reads_special_text(self) -> bool:
        return self.end_of_text in self.library.encode(self.special_text)

    def token_id(self, text: str) -> int | None:
        """The id that the library gives the token that is written so."""
        return self.library.token_id(text)

    @property
    def keeps_bytes(self) -> bool:
        return self.is_byte_level and not self._normalizers

    @cached_property
    def token_bytes(self) -> Mapping[int, bytes]:
        table = {}
        added = {token.get("content") for token in self.added_tokens}
        for text, token in self.library.vocabulary().items():
            is_coded = text not in added and all(letter in BYTE_LETTERS for letter in text)
            table[token] = bytes(map(BYTE_LETTERS.__getitem__, text)) if is_coded else text.encode()
        return table

    def decode(self, ids: list[int]) -> str:
        if self.is_byte_level:
            return super().decode(ids)
        return str(self.library.decode(ids))

    @property
    def tables(self) -> str:
        parts = (self._normalizer_steps, self._split_steps)
        if self.pattern != "other" and not self._normalizer_steps:
            return self.pattern
        if self.pattern != "other" and self._normalizers == ["NFC"]:
            return f"NFC, {self.pattern}"
        return json.dumps(parts, sort_keys=True) if any(parts) else ""

    def probe(self) -> TokenizerJson:
        return TokenizerJson("probe", _probe(self._normalizer_steps, self._split_steps), {})

    def own_texts(self) -> list[str]:
        return [str(token.get("content")) for token in self.added_tokens]

    def without_specials(self, specials: dict[str, int] | None) -> bytes:
        """The file for an engine that finds every registered special token in the text: with
        ``specials`` only."""
        tokens = [token for token in self.added_tokens if not token.get("special")]
        for text, token in (specials or {}).items():
            entry = {"id": token, "content": text, "special": True, "normalized": False}
            tokens.append(entry | dict.fromkeys(("single_word", "lstrip", "rstrip"), False))
        return self._head + json.dumps(tokens).encode() + self._tail

    def _refuse_chance(self, settings: dict[str, Any]) -> None:
        if plain(settings.get("model")).get("dropout"):
            raise UsageError(
                f"{self.name} encodes by chance",
                why="its model has a dropout, so that the same text gives other ids each time",
                fix='set "dropout" to null in it',
            )

    def _refuse_growth(self, settings: dict[str, Any]) -> None:
        normalizers = steps_of(settings.get("normalizer"), "normalizers")
        writers = steps_of(settings.get("pre_tokenizer"), "pretokenizers")
        self._normal_growth = growth.of_normalizers(normalizers)
        self._other_growth = growth.of_pre_tokenizers(writers)
        self._other_growth *= growth.of_model(plain(settings.get("model")))
        most = self._normal_growth * self._other_growth
        if most > growth.MOST:
            raise UsageError(
                f"{self.name} may make {most:.3g} bytes of one before it looks for tokens",
                why=f"of its rules together; no memory is sure to hold more than {growth.MOST:.0f}",
                fix="use a tokenizer without the nested replacements, prefixes or long names",
            )

    def grown_bytes(self, text: bytes, limit: int) -> int:
        most = self._normal_growth * self._other_growth
        if len(text) * most <= limit or self._normal_growth == 1:
            return int(len(text) * self._other_growth)
        normalizer = self.library.normalizer
        if normalizer is None:  # the library does not show it: the most that it may make
            return int(len(text) * most)
        size = growth.measured(normalizer, text, self._normal_growth, limit)
        return int(max(len(text), size) * self._other_growth)

    def _end_of_text(self, largest: int, companions: Mapping[str, bytes], eot: str | None) -> int:
        known = [str(token.get("content")) for token in self.added_tokens]
        find = self.library.token_id
        if eot is not None:
            return chosen_token(eot, largest, find, known, self.name)
        for name in (*_told_names(companions), *_USUAL_NAMES):
            token = find(name)
            if token is not None:
                return int(token)
        raise no_end_of_text(self.name, known)

    def _written(self, token: int) -> str:
        """How the delimiter is written, if it is a special token."""
        # By name: the library gives ids of its own to added tokens whose ids it finds odd.
        for entry in self.added_tokens:
            text = str(entry.get("content"))
            if entry.get("special") and self.library.token_id(text) == token:
                return text
        return ""

    def _cut_rule(self) -> tuple[CutRule, str]:
        if not self.is_byte_level:
            return NOWHERE, "it is no byte-level BPE"
        if self.pattern == "other":
            return NOWHERE, "its split pattern is not a known one"
        normalizers = self._normalizers
        if normalizers not in ([], ["NFC"]):
            return NOWHERE, f"it normalizes text ({', '.join(normalizers)})"
        texts = tuple(str(token.get("content")).encode() for token in self.added_tokens)
        found = [token for token in self.added_tokens if not token.get("special")]
        if any(token.get(key) for token in found for key in ("lstrip", "rstrip", "single_word")):
            return NOWHERE, "it has added tokens that depend on what stands beside them"
        if normalizers and not all(text.isascii() for text in texts):
            return NOWHERE, "it has added tokens that normalization may change"
        rule = CutRule(
            seams=not normalizers, is_stable=True, is_nfc=bool(normalizers), unbreakable=texts
        )
        noun = "NFC and " if normalizers else ""
        return rule, f"byte-level BPE with {noun}the split pattern {self.pattern}"


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unusable(name, str(error)) from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise _unusable(name, "it has no model")
    return settings


def _unusable(name: str, why: str) -> TokenmillError:
    return TokenmillError(
        "not a usable tokenizer.json",
        name,
        why,
        "check that the file is whole, or install a newer release of tokenizers",
    )


def _told_names(companions: Mapping[str, bytes]) -> Iterator[str]:
    """The end-of-text token's name, as the files beside the tokenizer tell it."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            told = plain(json.loads(companions.get(file, b"{}"))).get("eos_token")
        except (ValueError, RecursionError):
            continue
        name = plain(told).get("content") if isinstance(told, dict) else told
        if isinstance(name, str):
            yield name


def _normalizers(settings: dict[str, Any]) -> list[str]:
    return [str(step.get("type")) for step in steps_of(settings.get("normalizer"), "normalizers")]


def _is_byte_level(settings: dict[str, Any]) -> bool:
    """BPE over bytes, with nothing about it that depends on a token's neighbours."""
    model = plain(settings.get("model"))
    odd = ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "unk_token")
    if model.get("type", "BPE") != "BPE" or "merges" not in model or any(map(model.get, odd)):
        return False
    steps = steps_of(settings.get("pre_tokenizer"), "pretokenizers")
    last = steps[-1] if steps else {}
    vocabulary = plain(model.get("vocab"))
    is_last = last.get("type") == "ByteLevel" and not last.get("add_prefix_space", True)
    return is_last and all(letter in vocabulary for letter in BYTE_LETTERS)


def _table_steps(settings: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The normalizers and pre-tokenizers that may ask which class a character is of."""
    fixed = ("Prepend", "Replace", "Metaspace")
    both = (
        steps_of(settings.get("normalizer"), "normalizers"),
        steps_of(settings.get("pre_tokenizer"), "pretokenizers"),
    )
    normalizers, splits = ([s for s in steps if s.get("type") not in fixed] for steps in both)
    return normalizers, splits


def _probe(normalizers: list[Any], splits: list[Any]) -> bytes:
    """A ``tokenizer.json`` with these steps, whose tokens are those of a probe."""
    from tokenmill.tokenizers.vocabularies.probe import probe_tokens

    letters = {byte: letter for letter, byte in BYTE_LETTERS.items()}
    texts = ["".join(map(letters.__getitem__, token)) for token in probe_tokens()]
    merges = [[text[:1], text[1:]] for text in texts if len(text) == 2]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    end = {"id": len(texts), "content": END_OF_TEXT, "special": True, **flags}
    if not splits or splits[-1].get("type") != "ByteLevel":
        whole = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        splits = [*splits, {"type": "ByteLevel", **whole}]
    model = {"vocab": {text: token for token, text in enumerate(texts)}, "merges": merges}
    settings = {
        "version": "1.0",
        "added_tokens": [end],
        "normalizer": _sequence(normalizers, "normalizers"),
        "pre_tokenizer": _sequence(splits, "pretokenizers"),
        "model": {"type": "BPE", **model},
    }
    return json.dumps(settings).encode()


def _sequence(steps: list[Any], key: str) -> Any:
    return {"type": "Sequence", key: steps} if len(steps) > 1 else (steps or [None])[0]


def _split(settings: dict[str, Any]) -> str | None:
    """The one pattern by which text is split before it is merged; None for any other way."""
    steps = steps_of(settings.get("pre_tokenizer"), "pretokenizers")
    if len(steps) == 1 and steps[0].get("type") == "ByteLevel":
        return GPT2_SPLIT if steps[0].get("use_regex", True) else None
    if [step.get("type") for step in steps] != ["Split", "ByteLevel"]:
        return None
    split, then = steps
    # The patterns match every character, so both ways give the same pieces.
    ways = (("Isolated", False), ("Removed", True))
    if (split.get("behavior"), split.get("invert")) not in ways or then.get("use_regex", True):
        return None
    pattern = plain(split.get("pattern")).get("Regex")
    return pattern if isinstance(pattern, str) else None
