"""Small tokenizers of every kind, trained here on the examples, and what they must give.

`encode` owes nothing to tokenmill: it is the libraries' own call, as the contract names it. One
line in `KINDS` is one kind: how it is made, which engine must be chosen, and whether texts may be
cut. All are made once a session, in a folder that goes with it.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit import texts
from tests.kit.shared import ARTICLES, BOOKS
from tokenmill.tokenizers import choose, selftest
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

tokenizers: Any = pytest.importorskip("tokenizers", reason="needs the library tokenizers")
spm: Any = pytest.importorskip("sentencepiece", reason="needs the library sentencepiece")

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIZE = 1500


@functools.cache
def corpus() -> list[str]:
    """What they are trained on: the books, some articles, and the hard short texts."""
    books = [path.read_text() for path in sorted(BOOKS.glob("*.txt"))]
    lines = ARTICLES.read_text().splitlines()[:100]
    return [*books, *(json.loads(line)["text"] for line in lines), *texts.short_texts()]


def _byte_level(
    split: str | None,
    specials: list[str],
    *,
    nfc: bool = False,
    added: tuple[str, ...] = (),
    normalized: bool = False,
    **model: Any,
) -> Any:
    t = tokenizers
    made = t.Tokenizer(t.models.BPE(**model))
    made.normalizer = t.normalizers.NFC() if nfc else None
    byte_level = t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    steps = [t.pre_tokenizers.Split(t.Regex(split), "isolated")] if split else []
    made.pre_tokenizer = t.pre_tokenizers.Sequence([*steps, byte_level]) if split else byte_level
    made.decoder = t.decoders.ByteLevel()
    alphabet = t.pre_tokenizers.ByteLevel.alphabet()
    trainer = t.trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(corpus(), trainer)
    made.add_tokens([t.AddedToken(text, normalized=normalized) for text in added])
    return made


def _sentencepiece_like(prefix: bool) -> Any:
    """BPE with byte fallback; with the space before the first word as the normalizer or as the
    pre-tokenizer puts it."""
    t = tokenizers
    made = t.Tokenizer(t.models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = t.pre_tokenizers.Metaspace()
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = t.trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=specials, show_progress=False, limit_alphabet=300
    )
    made.train_from_iterator(corpus(), trainer)
    plain = json.loads(made.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]  # the bytes are no added tokens
    if prefix:
        plain["pre_tokenizer"] = None
        space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        steps = [{"type": "Prepend", "prepend": "▁"}, space]
        plain["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return t.Tokenizer.from_str(json.dumps(plain))


def _unigram() -> Any:
    t = tokenizers
    made = t.Tokenizer(t.models.Unigram())
    made.normalizer = t.normalizers.NFKC()
    made.pre_tokenizer = t.pre_tokenizers.Metaspace()
    trainer = t.trainers.UnigramTrainer(
        vocab_size=SIZE, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(corpus()[:80], trainer)
    return made


def _word_piece() -> Any:
    t = tokenizers
    made = t.Tokenizer(t.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = t.normalizers.BertNormalizer()
    made.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
    made.decoder = t.decoders.WordPiece()
    trainer = t.trainers.WordPieceTrainer(
        vocab_size=SIZE, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    made.train_from_iterator(corpus(), trainer)
    made.post_processor = t.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made


def _model(kind: str, **options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        lines = (line for text in corpus() for line in text.splitlines() if line.strip())
        spm.SentencePieceTrainer.train(
            sentence_iterator=lines, model_prefix=str(path.with_suffix("")), vocab_size=SIZE,
            model_type=kind, byte_fallback=True, minloglevel=2, character_coverage=0.99, **options,
        )  # fmt: skip

    return make


def _json(make: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda path: make().save(str(path))


@dataclass(frozen=True)
class Kind:
    """How a tokenizer is made, and what tokenmill must make of it."""

    make: Callable[[Path], None]
    engine: str
    pattern: str
    is_cut: bool
    file: str = "tokenizer.json"
    eot: str | None = None

    @property
    def reference(self) -> str:
        return "tokenizers" if self.file == "tokenizer.json" else "sentencepiece"


def _raw(**options: Any) -> dict[str, Any]:
    """Without normalization, as Llama 2's model is."""
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    return {**plain, **options}


_EOT, _LLAMA = ["<|endoftext|>"], ["<|begin_of_text|>", "<|end_of_text|>"]
_TOOLS = ("<tool_call>", "</tool_call>", "<|fim_prefix|>")
GPT2_KIND = Kind(_json(lambda: _byte_level(None, _EOT)), "gigatoken", "gpt2", True)
KINDS = {
    "gpt2": GPT2_KIND,
    "llama3": Kind(_json(lambda: _byte_level(LLAMA3, _LLAMA)), "gigatoken", "llama3", True),
    "qwen": Kind(
        _json(lambda: _byte_level(QWEN, _EOT, nfc=True, added=_TOOLS)), "gigatoken", "qwen2", True
    ),
    "o200k": Kind(_json(lambda: _byte_level(O200K, _EOT)), "gigatoken", "o200k_base", True),
    "unknown pattern": Kind(
        _json(lambda: _byte_level(r"[^\n]+|\n", _EOT)), "tokenizers", "other", False
    ),
    "metaspace": Kind(_json(lambda: _sentencepiece_like(False)), "gigatoken", "other", False),
    "llama2": Kind(_json(lambda: _sentencepiece_like(True)), "gigatoken", "other", False),
    "unigram": Kind(_json(_unigram), "tokenizers", "other", False),
    "wordpiece": Kind(_json(_word_piece), "tokenizers", "other", False, eot="[SEP]"),
    "sentencepiece bpe": Kind(
        _model("bpe", **_raw()), "gigatoken", "other", False, "tokenizer.model"
    ),
    "sentencepiece bpe, normalizing": Kind(
        _model("bpe"), "sentencepiece", "other", False, "tokenizer.model"
    ),
    "sentencepiece unigram": Kind(
        _model("unigram"), "sentencepiece", "other", False, "tokenizer.model"
    ),
}
CUT = [name for name, kind in KINDS.items() if kind.is_cut]


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="tokenmill-trained-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def path(name: str) -> Path:
    """The tokenizer's file, made when first asked for."""
    kind = KINDS[name]
    found = _folder() / name.replace(" ", "-") / kind.file
    found.parent.mkdir(exist_ok=True)
    kind.make(found)
    return found


_found: dict[object, Any] = {}


def _once(test: Callable[..., Any], vocabulary: Vocabulary, *key: object) -> Any:
    key = (vocabulary.fingerprint, vocabulary.end_of_text, *key)
    if key not in _found:
        _found[key] = test()
    return _found[key]


@contextmanager
def tried_once() -> Iterator[None]:
    """In here the self-test of a tokenizer is done once a process, for it is most of a short run:
    for tests that are not about what it finds."""
    exact, cuts = choose._exact_engine, selftest.tried_cuts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            choose, "_exact_engine",
            lambda choice, vocabulary, *given: _once(
                functools.partial(exact, choice, vocabulary, *given), vocabulary, "engine", choice
            ),
        )  # fmt: skip
        patch.setattr(
            choose, "tried_cuts",
            lambda vocabulary, *given: _once(
                functools.partial(cuts, vocabulary, *given), vocabulary, "cuts", vocabulary.cuts
            ),
        )  # fmt: skip
        yield


def options(name: str) -> dict[str, Any]:
    """What to pass to `prepare`."""
    eot = {"eot_token": KINDS[name].eot} if KINDS[name].eot else {}
    return {"tokenizer": str(path(name)), **eot}


@functools.cache
def library(name: str) -> Any:
    """The library's own tokenizer, with special tokens in the text taken as text."""
    if KINDS[name].file == "tokenizer.model":
        return spm.SentencePieceProcessor(model_file=str(path(name)))
    made = tokenizers.Tokenizer.from_file(str(path(name)))
    made.encode_special_tokens = True
    return made


def encode(text: str, name: str) -> list[int]:
    """The ids that the whole text must have: law 1."""
    if KINDS[name].file == "tokenizer.model":
        ids: list[int] = library(name).encode(text)
        return ids
    found: list[int] = library(name).encode(text, add_special_tokens=False).ids
    return found


def eot(name: str) -> int:
    """The delimiter's id."""
    if KINDS[name].file == "tokenizer.model":
        return int(library(name).eos_id())
    names = [KINDS[name].eot, "<|endoftext|>", "<|end_of_text|>", "</s>"]
    found = (library(name).token_to_id(token) for token in names if token)
    return int(next(token for token in found if token is not None))
