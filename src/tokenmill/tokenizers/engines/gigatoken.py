"""The gigatoken engine: by far the fastest exact one measured.

How it is used, and why. Documents are joined by a mark that is registered as a special token with
the end-of-text id, and encoded in one call as one buffer: the ids come back with the delimiters
in place, and without one Python object a document. If the ids do not hold exactly one mark
between each two documents (a document contains the mark itself), they are encoded one by one with
no special token registered, for the library recognises registered ones in the text.

``encode_batch_padded`` of a ``BytesSource`` is the one call of release 0.10 that releases the
interpreter's lock and needs no awkward array (50 MB and 0.3 s of import); with one row nothing is
padded. Its caches of words are never bounded in that release: ``drop_caches`` makes a new
tokenizer (40 ms), which frees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tokenmill.errors import TokenmillError
from tokenmill.memory import MIB, Needs, return_free_memory
from tokenmill.tokenizers.engines.engine import Tokens
from tokenmill.tokenizers.engines.gigatoken_limits import MARK, refusal
from tokenmill.tokenizers.vocabularies.sentencepiece_model import SentencePieceModel
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import Ranks
from tokenmill.tokenizers.vocabularies.tokenizer_json import TokenizerJson
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MARK = MARK.encode()
_PATTERN_NAMES = {
    "gpt2": "gpt2", "cl100k_base": "gpt4", "o200k_base": "o200k", "llama3": "olmo3",
    "qwen2": "qwen2",
}  # fmt: skip


class GigatokenEngine:
    """One thread's gigatoken tokenizer."""

    name = "gigatoken"
    reads: ClassVar[tuple[type[Vocabulary], ...]] = (Ranks, TokenizerJson, SentencePieceModel)
    refusal = staticmethod(refusal)

    def __init__(self, vocabulary: Vocabulary) -> None:
        from gigatoken import gigatoken_rs

        self._library: Any = gigatoken_rs
        self._vocabulary = vocabulary
        self._options = gigatoken_rs.PadTruncate(0)
        self._marked: Any = None
        self._plain: Any = None

    @staticmethod
    def needs(vocabulary: Vocabulary) -> Needs:
        """Measured with release 0.10, the reference included."""
        size = vocabulary.largest_id + 1
        if isinstance(vocabulary, Ranks):
            return Needs.of_ranks(size)
        is_plain = isinstance(vocabulary, TokenizerJson) and vocabulary.is_byte_level
        return Needs(16 * MIB + 1200 * size, (24 if is_plain else 56) * MIB + 600 * size)

    def _load(self, special_tokens: dict[str, int] | None) -> Any:
        vocabulary = self._vocabulary
        try:
            if isinstance(vocabulary, Ranks):
                pattern = _PATTERN_NAMES[vocabulary.pattern]
                tokenizer = self._library.BPETokenizer.from_tiktoken(
                    vocabulary.file, pattern, special_tokens
                )
            else:
                assert isinstance(vocabulary, TokenizerJson | SentencePieceModel)
                rules = vocabulary.without_specials(special_tokens)
                tokenizer = self._library.load_hf_json(rules)
        except BaseException as error:
            # It panics at ranks that are no order of merges; a panic is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise TokenmillError(
                "gigatoken cannot use this vocabulary",
                vocabulary.name,
                str(error).split("\n")[0],
                f"--engine {vocabulary.reference}, which is slower and takes any",
            ) from error
        # Its first call looks for NumPy in Python code, and panics if the handler of a signal that
        # came meanwhile raises there: so let that call be a short one (1 ms, not 100).
        tokenizer.encode(b"a")
        return tokenizer

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        import numpy as np

        if not self._vocabulary.special_text:
            return self._one_by_one(documents)  # the delimiter is an ordinary token: no mark
        if any(_MARK in document for document in documents):
            return self._one_by_one(documents)
        if self._marked is None:
            self._plain = None  # memory is counted for one
            self._marked = self._load({MARK: self._vocabulary.end_of_text})
        ids = self._encode_buffer(self._marked, _MARK.join(documents))
        marks = np.flatnonzero(ids == self._vocabulary.end_of_text)
        if len(marks) == len(documents) - 1:
            return Tokens(ids, marks)
        return self._one_by_one(documents)

    def _encode_buffer(self, tokenizer: Any, text: bytes) -> NDArray[np.uint32]:
        import numpy as np

        if not text:
            return np.empty(0, np.uint32)
        source = self._library.BytesSource(text)
        matrix, _ = tokenizer.encode_batch_padded(source, self._options, parallel=False)
        row: NDArray[np.uint32] = matrix[0]
        return row

    def _one_by_one(self, documents: Sequence[bytes]) -> Tokens:
        import numpy as np

        if self._plain is None:
            self._marked = None
            self._plain = self._load(None)
        mark = np.array([self._vocabulary.end_of_text], np.uint32)
        parts: list[NDArray[np.uint32]] = []
        for document in documents:
            parts += [self._encode_buffer(self._plain, document), mark]
        lengths = np.array([len(part) for part in parts[:-1]], np.int64)
        return Tokens(np.concatenate(parts[:-1]), np.cumsum(lengths)[:-1:2])

    def encode_piece(self, text: bytes) -> list[int]:
        ids: list[int] = self.encode([text]).ids.tolist()
        return ids

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.token_bytes[token]

    def drop_caches(self) -> None:
        self._marked = self._plain = None
        return_free_memory()
