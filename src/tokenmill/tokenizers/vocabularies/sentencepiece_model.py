"""SentencePiece ``.model`` files.

The reference is ``sentencepiece.SentencePieceProcessor.encode(text)``: no bos, no eos. Control
symbols written in a document are text there already. Text is never cut: a piece may reach across
any place, and the first word has a space before it that is not in the text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokenmill.errors import TokenmillError
from tokenmill.extras import install_extra
from tokenmill.text.cuts import NOWHERE
from tokenmill.tokenizers.vocabularies.sentencepiece_proto import (
    BYTE,
    NORMAL,
    ModelFile,
    read_model_file,
)
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary, chosen_token, no_end_of_text

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_SPACE = "\u2581"


class SentencePieceModel(Vocabulary):
    """One ``.model`` file."""

    kind = "sentencepiece"
    reference = "sentencepiece"
    pattern = "other"
    cuts = NOWHERE
    why_cuts = "SentencePiece's pieces may reach across any place"
    keeps_bytes = False

    def __init__(
        self, name: str, content: bytes, eot: str | None = None, commit: str | None = None
    ) -> None:
        """``eot`` names the end-of-text token, ``commit`` is the Hub's. Raises TokenmillError."""
        self.name = name
        self.commit = commit
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._content = content
        processor = self.processor
        self.largest_id = processor.get_piece_size() - 1
        self.end_of_text = self._end_of_text(eot)
        is_control = processor.is_control(self.end_of_text)
        self.special_text = processor.id_to_piece(self.end_of_text) if is_control else ""
        self.unknown_id = processor.unk_id()

    @cached_property
    def processor(self) -> SentencePieceProcessor:
        """The library's own; shared by all threads."""
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise TokenmillError(
                "SentencePiece models need the library sentencepiece",
                self.name,
                "it is not installed; no id is right or wrong without it",
                install_extra("sentencepiece"),
            ) from None
        try:
            return SentencePieceProcessor(model_proto=self._content)
        except Exception as error:
            raise TokenmillError(
                "not a usable SentencePiece model",
                self.name,
                str(error).strip() or type(error).__name__,
                "check that the file is whole",
            ) from error

    @cached_property
    def token_bytes(self) -> Mapping[int, bytes]:
        return {token: self._bytes_of(token) for token in range(self.largest_id + 1)}

    def decode(self, ids: list[int]) -> str:
        # The library passes over control symbols, such as the delimiter.
        parts: list[list[int]] = [[]]
        for token in ids:
            if token == self.end_of_text:
                parts.append([])
            else:
                parts[-1].append(min(token, self.largest_id))
        piece = self.processor.id_to_piece(self.end_of_text)
        return str(piece.join(self.processor.decode(part) for part in parts))

    def own_texts(self) -> list[str]:
        return [piece.text for piece in self.declared.pieces if piece.kind not in (NORMAL, BYTE)]

    def without_specials(self, specials: dict[str, int] | None) -> bytes:
        """The model as a ``tokenizer.json`` with ``specials`` only, for an engine that reads that.

        Raises ValueError for a model that cannot be put so.
        """
        from gigatoken._load.sentencepiece import sentencepiece_to_tokenizer_json

        settings: dict[str, Any] = json.loads(sentencepiece_to_tokenizer_json(self._content))
        # The library gives no control, unknown or unused piece for text, whatever the text. The
        # converted file has them as tokens like others, and merges that lead to them.
        model = settings["model"]
        given = {piece.text for piece in self.declared.pieces if piece.kind in (NORMAL, BYTE)}
        normal = {piece.text for piece in self.declared.pieces if piece.kind == NORMAL}
        model["vocab"] = {text: token for text, token in model["vocab"].items() if text in given}
        model["merges"] = [
            (left, right)
            for left, right in model["merges"]
            if left in normal and right in normal and left + right in normal
        ]
        tokens = []
        for text, token in (specials or {}).items():
            entry = {"id": token, "content": text, "special": True, "normalized": False}
            tokens.append(entry | dict.fromkeys(("single_word", "lstrip", "rstrip"), False))
        return json.dumps({**settings, "added_tokens": tokens}).encode()

    @cached_property
    def declared(self) -> ModelFile:
        """What the file says about itself."""
        return read_model_file(self._content)

    def _end_of_text(self, eot: str | None) -> int:
        processor = self.processor
        known = [
            processor.id_to_piece(token)
            for token in range(self.largest_id + 1)
            if processor.is_control(token)
        ]
        if eot is not None:

            def find(name: str) -> int | None:
                token = int(processor.piece_to_id(name))
                return None if token == processor.unk_id() else token

            return chosen_token(eot, self.largest_id, find, known, self.name)
        if processor.eos_id() >= 0:
            return int(processor.eos_id())
        raise no_end_of_text(self.name, known)

    def _bytes_of(self, token: int) -> bytes:
        piece = self.processor.id_to_piece(token)
        if self.processor.is_byte(token):
            return bytes([int(piece[1:-1], 16)])
        return bytes(piece.replace(_SPACE, " ").encode())
