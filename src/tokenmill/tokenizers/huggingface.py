"""The engine ``tokenizers``: the reference implementation for ``tokenizer.json`` files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tokenmill.errors import TokenmillError
from tokenmill.memory import return_free_memory
from tokenmill.tokenizers.engine import Tokens, joined
from tokenmill.tokenizers.tokenizer_json import TokenizerJson
from tokenmill.tokenizers.vocabulary import Vocabulary


class HuggingFaceEngine:
    """Hugging Face's library. One tokenizer serves all threads, and releases the lock."""

    name = "tokenizers"

    def __init__(self, vocabulary: Vocabulary) -> None:
        assert isinstance(vocabulary, TokenizerJson)
        self._vocabulary = vocabulary
        self._tokenizer = vocabulary.tokenizer

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        # One at a time: of a batch, all encodings would be held at once.
        return joined(
            (self._encode(document.decode()) for document in documents),
            self._vocabulary.end_of_text,
        )

    def _encode(self, text: str) -> list[int]:
        with self._panics_told():
            found = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = found[0].ids
        return ids

    def encode_piece(self, text: bytes) -> list[int]:
        with self._panics_told():
            found = self._tokenizer.encode(text.decode(), add_special_tokens=False)
        ids: list[int] = found.ids
        return ids

    @contextmanager
    def _panics_told(self) -> Iterator[None]:
        """A pattern that would be tried for ever ends in a panic, which is no Exception."""
        try:
            yield
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise TokenmillError(
                "the tokenizer gave up on a document",
                self._vocabulary.name,
                str(error).split("\n")[0],
                "its split pattern takes too long for this text: divide the text (--documents), "
                "or use another tokenizer",
            ) from error

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        """Its cache is bounded; what the last call left goes back to the system."""
        return_free_memory()
