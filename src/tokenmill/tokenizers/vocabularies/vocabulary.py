"""What every kind of tokenizer gives, whatever file it comes from.

A vocabulary is the content of a tokenizer's file with everything that follows from it: the ids
that can occur, the delimiter, which engine is the reference, and where a text may be cut. Engines
say themselves which kinds they read. There is one file a kind: ``tiktoken_ranks`` (``.tiktoken``),
``tokenizer_json`` and ``sentencepiece_model``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from tokenmill.errors import UsageError
from tokenmill.text.cuts import CutRule

END_OF_TEXT = "<|endoftext|>"
_MADE = ("_reference", "_fastokens")
"""What engines keep with a vocabulary: one for all threads of a process."""


class Vocabulary(ABC):
    """A loaded tokenizer file.

    ``fingerprint`` is the SHA-256 of the file that decides the ids. ``largest_id`` is the largest
    id that can occur in a dataset, added tokens and delimiter included. ``special_text`` is how
    the delimiter is written, empty when it is no token of its own. ``reference`` is the engine
    whose ids are right by definition.
    """

    name: str
    fingerprint: str
    pattern: str
    """How text is split before it is merged: the name of a known pattern, or ``other``."""
    end_of_text: int
    largest_id: int
    special_text: str
    reference: str
    cuts: CutRule
    """Where a text may be cut, as far as the file tells; the self-test can only forbid more."""
    why_cuts: str
    """Why so, in words."""
    unknown_id: int | None = None
    """The id of all text that it has no token for; None where every text has one."""
    kind: str | None = None
    """Of the file. None for ``.tiktoken``: manifests of before there were others say nothing."""
    commit: str | None = None
    """That of the Hub's repository from which it came."""
    is_proven: bool = False
    """Was every code point compared once with the default engine, so that it needs no self-test?"""

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: its content, without the engine that was made of it."""
        return {name: value for name, value in vars(self).items() if name not in _MADE}

    @property
    def reads_special_text(self) -> bool:
        """Does the model itself, the reference included, give the delimiter's id for its text?"""
        return False

    @property
    @abstractmethod
    def keeps_bytes(self) -> bool:
        """Do the tokens' bytes, joined, give the very text back?"""

    @property
    @abstractmethod
    def token_bytes(self) -> Mapping[int, bytes]:
        """Id to the bytes it stands for, the delimiter included."""

    def describe(self) -> dict[str, str | int]:
        """What identifies the tokenizer, for the manifest."""
        about: dict[str, str | int | None] = {
            "name": self.name,
            "kind": self.kind,
            "sha256": self.fingerprint,
            "pattern": self.pattern,
            "end_of_text": self.end_of_text,
            "largest_id": self.largest_id,
            "commit": self.commit,
        }
        return {key: value for key, value in about.items() if value is not None}

    @property
    def tables(self) -> str:
        """Which classes of characters decide its ids, as text; empty where none does."""
        return ""

    def probe(self) -> Vocabulary:
        """A small vocabulary that splits and normalizes as this one does, and whose tokens show
        where (``differences.probe_tokens``). Only asked for where there are ``tables``."""
        raise NotImplementedError

    @abstractmethod
    def own_texts(self) -> list[str]:
        """What it may look for in a text: all of it is written into the self-test."""

    def grown_bytes(self, text: bytes, limit: int) -> int:
        """The bytes that it makes of a text before it looks for tokens, about; what is more than
        ``limit`` may be any number above it."""
        return len(text)

    def decode(self, ids: list[int]) -> str:
        """The text that ids stand for, for a person to read."""
        text = b"".join(self.token_bytes.get(token, b"\xef\xbf\xbd") for token in ids)
        return text.decode("utf-8", "replace")


def chosen_token(
    choice: str, largest_id: int, find: Callable[[str], int | None], known: list[str], name: str
) -> int:
    """The id for an ``--eot-token`` option: an id, or a token's name. A number is an id, for most
    vocabularies have tokens called 1, 2 and 628, too. Raises UsageError."""
    is_id = choice.isascii() and choice.isdecimal() and len(choice) <= 10
    token = int(choice) if is_id else find(choice)
    if token is not None and token <= largest_id:
        return token
    raise UsageError(
        f"{name} has no token {choice!r}",
        why=f"it is no token's name, and no id from 0 to {largest_id}",
        fix=f"--eot-token with one of {_listed(known)}, or with an id",
    )


def no_end_of_text(name: str, known: list[str]) -> UsageError:
    """The error for a tokenizer that does not tell what stands between two documents."""
    return UsageError(
        f"{name} does not tell its end-of-text token",
        why="it names none, and has none of the usual names",
        fix=f"--eot-token NAME, with one of {_listed(known)}; any token's name or id will do",
    )


def _listed(known: list[str]) -> str:
    shown = ", ".join(known[:20]) or "(it has no added tokens)"
    return f"{shown} and {len(known) - 20} more" if len(known) > 20 else shown


def plain(value: Any) -> dict[str, Any]:
    """``value`` if it is an object, else an empty one: for JSON that anybody may have written."""
    return value if isinstance(value, dict) else {}


def steps_of(part: Any, key: str) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as the list of its steps; ``key`` holds a sequence's."""
    part = plain(part)
    if part.get("type") == "Sequence":
        return [step for inner in part.get(key) or [] for step in steps_of(inner, key)]
    return [part] if part else []
