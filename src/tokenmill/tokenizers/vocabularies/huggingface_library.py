"""The library ``tokenizers`` behind one seam, whichever of its two interfaces is installed.

Up to 0.x a tokenizer is an object with settings that are changed; from 1.0 on it is fixed, every
call tells what it wants, and its vocabulary cannot be asked for. Both are used in one way: no
truncation, no padding, nothing added, special tokens written in the text are text. Their ids are
not always the same; which release made a dataset stands in its manifest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from tokenmill.errors import TokenmillError
from tokenmill.extras import install_extra
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import temporary_file
from tokenmill.tokenizers.vocabularies.vocabulary import plain


class HuggingFaceTokenizer(Protocol):
    """One ``tokenizer.json``, loaded; shared by all threads."""

    def encode(self, text: str) -> list[int]:
        """The ids of one text. Raises what the library raises."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens included."""

    def vocabulary(self) -> Mapping[str, int]:
        """Every token's text and id, added ones included."""

    def token_id(self, text: str) -> int | None:
        """The id of the token that is written so."""

    @property
    def normalizer(self) -> Any:
        """The library's normalizer (``normalize_str``); None where there is none, or it is not
        shown."""


class _Settable:
    """Of 0.x."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        # Not `encode`, which keeps each token's text and place, too.
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def vocabulary(self) -> Mapping[str, int]:
        found: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return found

    def token_id(self, text: str) -> int | None:
        token: int | None = self._tokenizer.token_to_id(text)
        return token

    @property
    def normalizer(self) -> Any:
        return self._tokenizer.normalizer


class _Fixed:
    """Of 1.0 and later, which tell no vocabulary: that is read from the file's settings."""

    def __init__(self, tokenizer: Any, settings: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = _written_vocabulary(settings)

    def encode(self, text: str) -> list[int]:
        found = self._tokenizer.encode(
            text,
            add_special_tokens=False,
            encode_special_tokens=True,
            padding=None,
            truncation=None,
        )
        return list(found.ids)

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def vocabulary(self) -> Mapping[str, int]:
        return self._vocabulary

    def token_id(self, text: str) -> int | None:
        return self._vocabulary.get(text)

    @property
    def normalizer(self) -> Any:
        found = getattr(self._tokenizer, "normalizer", None)
        return found if hasattr(found, "normalize_str") else None


def load(content: bytes, settings: Mapping[str, Any], name: str) -> HuggingFaceTokenizer:
    """The tokenizer in a file's content, which was parsed to ``settings``.

    Raises TokenmillError where the library is missing, and what the library raises.
    """
    # One level of parallelism: blocks. The library's own threads would be another.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise TokenmillError(
            "tokenizer.json files need the library tokenizers",
            name,
            "it is not installed; no id is right or wrong without it",
            install_extra("hf"),
        ) from None
    library: Any = Tokenizer
    if hasattr(library, "from_str"):
        return _Settable(library.from_str(content.decode()))
    with temporary_file(content) as path:
        return _Fixed(library.from_file(path), settings)


def _written_vocabulary(settings: Mapping[str, Any]) -> dict[str, int]:
    """Text to id, as the file has it: a Unigram model's pieces are numbered by their places."""
    model = plain(settings.get("model"))
    vocab = model.get("vocab")
    found: dict[str, int] = {}
    if isinstance(vocab, list):
        found = {str(piece[0]): place for place, piece in enumerate(vocab)}
    elif isinstance(vocab, dict):
        found = {text: int(token) for text, token in vocab.items()}
    for token in settings.get("added_tokens") or []:
        found.setdefault(str(plain(token).get("content")), int(plain(token).get("id", -1)))
    return found
