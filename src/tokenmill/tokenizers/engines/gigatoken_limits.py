"""What gigatoken promises of a tokenizer, as a rule: a tokenizer that declares more is refused.

A self-test finds a difference only where its text meets it. What a tokenizer's own file declares
can be held against what the library implements, without any text. So these are lists of what is
known to be implemented (release 0.10, ``src/load_tokenizer/hf.rs``, ``src/bpe/``), and all else
is refused; the self-test comes on top. What was refused goes to the reference, which is slower.

A rule may be too strict, never too lax: speed is lost by the one, ids by the other.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenmill.tokenizers.vocabularies import sentencepiece_proto as proto
from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS
from tokenmill.tokenizers.vocabularies.sentencepiece_model import SentencePieceModel
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import Ranks
from tokenmill.tokenizers.vocabularies.tokenizer_json import TokenizerJson
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary, plain, steps_of

MARK = "\x1c\x1d\x1e\x1f"
"""Stands between documents: ASCII's four information separators. It has no two equal characters,
so it never overlaps itself."""
_SPACE = "\u2581"
_BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
_BYTE_LIKE = re.compile(r"<0x[0-9A-Fa-f+].>")
_Merges = list[tuple[str, str]]


def refusal(vocabulary: Vocabulary) -> str | None:
    """Why gigatoken is not to be used, in words; None where all that is declared is promised."""
    if isinstance(vocabulary, Ranks):
        return _refused_ranks(vocabulary)
    if isinstance(vocabulary, SentencePieceModel):
        return _refused_model(vocabulary)
    assert isinstance(vocabulary, TokenizerJson)
    return next(_refused_json(vocabulary), None)


def _refused_ranks(vocabulary: Ranks) -> str | None:
    if vocabulary.is_proven:
        return None
    ranks = vocabulary.ranks
    for token, rank in ranks.items():
        # It keeps a byte's rank in a byte while it rebuilds the merges from the tokens, and ends
        # the process's stderr with a panic where a token is no pair.
        if len(token) == 1 and rank > 255:
            return "its single bytes are not the first 256 ranks"
        if len(token) > 1 and len(parts_of(token, ranks)) != 2:
            return f"its token {rank} is no pair of tokens of lower ranks"
    return None


def parts_of(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The tokens of lower ranks that a token's own bytes are merged into: two, as a rule."""
    rank = ranks[token]
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, rank) for left, right in itertools.pairwise(parts)]
        lowest = min(pairs)
        if lowest >= rank:
            break
        place = pairs.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


# --- SentencePiece models ----------------------------------------------------------------------


def _refused_model(vocabulary: SentencePieceModel) -> str | None:
    model = vocabulary.declared
    if model.model_type != proto.BPE:
        return "it is no BPE"
    if not model.has_byte_fallback:
        return "it has no byte fallback"
    if model.has_charsmap:
        return "it normalizes text by rules of its own"
    if model.removes_extra_whitespaces:
        return "it removes white space"
    if model.puts_space_last or not model.escapes_whitespaces:
        return "it treats spaces in a way of its own"
    for piece in model.pieces:
        if piece.kind == proto.USER_DEFINED:
            return f"it has user-defined symbols ({piece.text!r})"
        if piece.kind == proto.UNUSED:
            return f"it has unused pieces ({piece.text!r})"
        if piece.kind not in (proto.NORMAL, proto.BYTE) and len(piece.text) < 2:
            return f"one of its control pieces is a single character ({piece.text!r})"
    settings = json.loads(vocabulary.without_specials(None))
    scores = {piece.text: piece.score for piece in model.pieces}
    merges = [(left, right) for left, right in settings["model"]["merges"]]
    return _torn_bytes(settings["model"]["vocab"]) or _tie(merges, scores)


# --- tokenizer.json ----------------------------------------------------------------------------


def _refused_json(vocabulary: TokenizerJson) -> Iterator[str]:
    settings = json.loads(vocabulary.without_specials(None))
    model = plain(settings.get("model"))
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("merges"), list):
        yield f"it is no BPE ({model.get('type')})"
        return
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            yield f"its model has a {key}"
    merges = [_pair(merge) for merge in model["merges"]]
    if len(set(merges)) < len(merges):
        yield "it lists a merge twice"
    yield from _refused_added(vocabulary, bool(settings.get("normalizer")))
    if model.get("byte_fallback"):
        yield from _refused_fallback(settings, model)
    else:
        yield from _refused_byte_level(settings, model, merges)


def _refused_fallback(settings: dict[str, Any], model: dict[str, Any]) -> Iterator[str]:
    """BPE over characters, with bytes for those that it has not: as Llama 2's."""
    vocab = plain(model.get("vocab"))
    if model.get("ignore_merges"):
        yield "its model ignores merges and falls back to bytes"
    if (torn := _torn_bytes(vocab)) is not None:
        yield torn
    normalizers = steps_of(settings.get("normalizer"), "normalizers")
    space = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prefix = {"type": "Prepend", "prepend": _SPACE}
    if normalizers not in ([], [space], [prefix, space]):
        yield f"it normalizes text ({_types(normalizers)})"
    pre = steps_of(settings.get("pre_tokenizer"), "pretokenizers")
    gemma = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
        "invert": False,
    }  # fmt: skip
    is_metaspace = len(pre) == 1 and pre[0].get("type") == "Metaspace"
    if is_metaspace:
        scheme = pre[0].get("prepend_scheme")
        if scheme is None:
            scheme = "always" if pre[0].get("add_prefix_space", True) else "never"
        if pre[0].get("replacement", _SPACE) != _SPACE or scheme not in ("always", "never"):
            yield f"its Metaspace puts {pre[0].get('replacement')!r} ({scheme})"
        if normalizers:
            yield "it has both a normalizer and a Metaspace"
    elif pre and not (pre == [gemma] and normalizers):
        yield f"it splits text by {_types(pre)}"


def _refused_byte_level(
    settings: dict[str, Any], model: dict[str, Any], merges: _Merges
) -> Iterator[str]:
    vocab = plain(model.get("vocab"))
    missing = [letter for letter in BYTE_LETTERS if letter not in vocab]
    if missing:
        yield "it has no token for some bytes"
    normalizers = steps_of(settings.get("normalizer"), "normalizers")
    if any(step != {"type": "NFC"} for step in normalizers):
        yield f"it normalizes text ({_types(normalizers)})"
    if not _is_known_split(steps_of(settings.get("pre_tokenizer"), "pretokenizers")):
        yield "it splits text in a way of its own"
    as_bytes = {_bytes_of(token) for token in vocab}
    if len(as_bytes) < len(vocab):
        yield "two of its tokens are the same bytes"
    if model.get("ignore_merges") and not all(set(token) <= BYTE_LETTERS.keys() for token in vocab):
        yield "its model ignores merges, and has tokens that are no bytes"
    ids = [vocab.get(left + right, -1) for left, right in merges]
    if ids == sorted(ids) and (tie := _tie(merges, vocab)) is not None:
        yield tie


def _is_known_split(steps: list[dict[str, Any]]) -> bool:
    """ByteLevel alone, or after regular expressions (which the library knows, or refuses)."""
    if not steps or steps[-1].get("type") != "ByteLevel":
        return False
    if len(steps) == 1:
        return bool(steps[0].get("use_regex", True))
    if steps[-1].get("use_regex", True) or steps[-1].get("add_prefix_space", True):
        return False
    for step in steps[:-1]:
        way = (step.get("behavior"), bool(step.get("invert")))
        is_plain = way == ("Isolated", False) or (way == ("Removed", True) and len(steps) == 2)
        if step.get("type") != "Split" or not is_plain or "Regex" not in plain(step.get("pattern")):
            return False
    return True


def _refused_added(vocabulary: TokenizerJson, is_normalizing: bool) -> Iterator[str]:
    """Added tokens: those that are found in the text, and what special ones do to them."""
    found = [token for token in vocabulary.added_tokens if not token.get("special")]
    texts = [str(token.get("content")) for token in found]
    special = {str(token.get("content")) for token in vocabulary.added_tokens} - set(texts)
    for token, text in zip(found, texts, strict=True):
        for key in ("single_word", "lstrip", "rstrip"):
            if token.get(key):
                yield f"its added token {text!r} is {key}"
        if token.get("normalized", True) and is_normalizing:
            yield f"its added token {text!r} is looked for in normalized text"
        if not text or any(letter in MARK for letter in text):
            yield f"its added token {text!r} cannot be told from what divides documents"
        if vocabulary.token_id(text) != token.get("id"):
            yield f"its added token {text!r} has another id than the file says"
    if len(set(texts)) < len(texts):
        yield "it lists an added token twice"
    # The reference passes over a special token and all within it; the engine is not told of it.
    if (hidden := _overlap(special, set(texts))) is not None:
        yield f"its special token {hidden!r} overlaps another added token"
    late = {t for t, token in zip(texts, found, strict=True) if token.get("normalized", True)}
    early = set(texts) - late
    mixed = _overlap(early, late) or _overlap(late, early)
    if mixed is not None:
        yield f"its added token {mixed!r} overlaps one that is looked for at another time"


def _overlap(first: set[str], second: set[str]) -> str | None:
    """One of ``first`` that holds, or ends as, the beginning of one of ``second``."""
    heads = {text[:size] for text in second for size in range(1, len(text) + 1)}
    for text in sorted(first):
        for start in range(len(text)):
            if text[start:] in heads:
                return text
            stops = range(start + 1, len(text) + 1)
            if text[start] in heads and any(text[start:stop] in second for stop in stops):
                return text
    return None


# --- merges ------------------------------------------------------------------------------------


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return str(left), str(right)


def _torn_bytes(vocab: Iterable[str]) -> str | None:
    """A byte that is no piece, if text may need it; or a piece that would be taken for a byte."""
    pieces = set(vocab)
    for byte, piece in enumerate(_BYTE_PIECES):
        if piece not in pieces and not (byte < 128 and chr(byte) in pieces):
            return f"it has no token for the byte 0x{byte:02x}"
    odd = [text for text in pieces if _BYTE_LIKE.fullmatch(text)]
    if any(text not in set(_BYTE_PIECES) for text in odd):
        return "it has pieces that look like bytes"
    return None


def _tie(merges: Sequence[tuple[str, str]], priority: dict[str, Any]) -> str | None:
    """Two merges that overlap, (x, y) and (y, z), of one priority: the engine and the reference may
    take different ones. One of them takes the leftmost, the other has an order of all: so (x, y)
    must come first in it.

    Runs of one character are left out: merged from the left, they never have a shorter piece
    before a longer one but at their end, where there is no z. (Llama 2 has such ties.)
    """
    begins: dict[tuple[str, Any], int] = {}
    for place, (left, right) in enumerate(merges):
        if (made := priority.get(left + right)) is not None and len(set(left + right)) > 1:
            begins.setdefault((left, made), place)
    for place, (left, right) in enumerate(merges):
        other = begins.get((right, priority.get(left + right)), place)
        if other < place and len(set(left + right)) > 1:
            return f"its merges {left!r} {right!r} and {right!r} {merges[other][1]!r} have one rank"
    return None


def _bytes_of(token: str) -> bytes:
    """A token's bytes as the engine takes them: one that is not written in letters for bytes is
    itself."""
    if set(token) <= BYTE_LETTERS.keys():
        return bytes(map(BYTE_LETTERS.__getitem__, token))
    return token.encode("utf-8", "surrogatepass")


def _types(steps: list[dict[str, Any]]) -> str:
    return ", ".join(str(step.get("type")) for step in steps)
