"""The engine ``tokenizers``: the reference implementation for ``tokenizer.json`` files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from tokenmill.errors import TokenmillError
from tokenmill.memory import MIB, Needs, return_free_memory
from tokenmill.tokenizers.engines.engine import Tokens, joined
from tokenmill.tokenizers.vocabularies.tokenizer_json import TokenizerJson
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary


class HuggingFaceEngine:
    """Hugging Face's library. One tokenizer serves all threads, and releases the lock."""

    name = "tokenizers"
    reads: ClassVar[tuple[type[Vocabulary], ...]] = (TokenizerJson,)

    def __init__(self, vocabulary: Vocabulary) -> None:
        assert isinstance(vocabulary, TokenizerJson)
        self._vocabulary = vocabulary
        self._library = vocabulary.library

    @staticmethod
    def refusal(vocabulary: Vocabulary) -> str | None:
        """It is the reference."""
        return None

    @staticmethod
    def needs(vocabulary: Vocabulary) -> Needs:
        """Measured with release 0.23: it keeps each token's text and places, 60 to 180 bytes for
        each byte of text."""
        return Needs(16 * MIB + 1200 * (vocabulary.largest_id + 1), 8 * MIB, 250)

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        # One at a time: of a batch, all encodings would be held at once.
        return joined(map(self.encode_piece, documents), self._vocabulary.end_of_text)

    def encode_piece(self, text: bytes) -> list[int]:
        with self._failures_told(text):
            return self._library.encode(text.decode())

    @contextmanager
    def _failures_told(self, text: bytes) -> Iterator[None]:
        """A text for which the model has no token is an error of the library; a pattern that would
        be tried for ever ends in a panic, which is no Exception."""
        try:
            yield
        except BaseException as error:
            is_panic = type(error).__name__ == "PanicException"
            if not is_panic and not isinstance(error, Exception):
                raise
            fix = "use another tokenizer, or mend its file: its model may have no unknown token"
            if is_panic:
                fix = (
                    "its split pattern takes too long for this text: divide the text "
                    "(--documents), or use another tokenizer"
                )
            raise TokenmillError(
                "the library tokenizers cannot encode a text",
                f"{text[:60].decode(errors='ignore')!r}, with {self._vocabulary.name}",
                str(error).split("\n")[0],
                fix,
            ) from error

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        """Its cache is bounded; what the last call left goes back to the system."""
        return_free_memory()
