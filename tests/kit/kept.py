"""Tokenizers of ranks that are made once a process: most of a short run is making them.

`keep` has the engines take, where the same content, pattern and special tokens were loaded before,
what was made then. tiktoken's encoder keeps nothing between calls, so all share one. gigatoken's
has caches, so two engines never have the same one at once; with `again` one that its engine let go
is the next one's, its caches full of other texts, which may change no id, and after so many
engines it goes, too. Where a vocabulary is refused nothing is kept.

In the tests' own process, and in what the forkserver forks: there `fill` has made what a run over
GPT-2's ranks takes, and each is taken once. A process that is started loads all by itself.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

from tokenmill.tokenizers.engines import readers
from tokenmill.tokenizers.engines.gigatoken import GigatokenEngine
from tokenmill.tokenizers.engines.gigatoken_limits import MARK
from tokenmill.tokenizers.engines.tiktoken import TiktokenEngine
from tokenmill.tokenizers.libraries import library
from tokenmill.tokenizers.vocabularies import tiktoken_ranks
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import Ranks

_MOST_ENGINES = 50
_load = GigatokenEngine._load
_make = TiktokenEngine.__init__
_spare: dict[object, list[tuple[Any, int]]] = {}
"""gigatoken's tokenizers that no engine has, with the number of engines that had them."""
_encodings: dict[object, Any] = {}
_is_kept_again = False


def _loaded(engine: GigatokenEngine, special_tokens: dict[str, int] | None) -> Any:
    vocabulary = engine._vocabulary
    if not isinstance(vocabulary, Ranks):
        return _load(engine, special_tokens)
    if give_back := vars(engine).pop("_give_back", None):
        give_back()  # what it had it has let go: text in which its mark stands needs another one
    specials = tuple((special_tokens or {}).items())
    spare = _spare.setdefault((vocabulary.content, vocabulary.pattern, specials), [])
    try:
        tokenizer, engines = spare.pop()
    except IndexError:
        tokenizer, engines = _load(engine, special_tokens), 0
    if _is_kept_again and engines < _MOST_ENGINES:
        returned = weakref.finalize(engine, spare.append, (tokenizer, engines + 1))
        vars(engine)["_give_back"] = returned
    return tokenizer


def _made(engine: TiktokenEngine, vocabulary: Ranks) -> None:
    key = (vocabulary.content, vocabulary.pattern, vocabulary.end_of_text, vocabulary.special_text)
    if key not in _encodings:
        _make(engine, vocabulary)
        _encodings[key] = engine._encoding
    engine._vocabulary, engine._encoding = vocabulary, _encodings[key]


def keep(again: bool) -> None:
    """From now on; ``again``: what one engine had, another one may have."""
    global _is_kept_again
    _is_kept_again = again
    vars(tiktoken_ranks)["_parse_ranks"] = functools.lru_cache(4)(tiktoken_ranks._parse_ranks)
    setattr(GigatokenEngine, "_load", _loaded)  # noqa: B010  mypy knows no such thing
    setattr(TiktokenEngine, "__init__", _made)  # noqa: B010


def fill(engines: int) -> None:
    """Make what so many engines over GPT-2's ranks take, and their reference."""
    vocabulary = load_vocabulary("gpt2")
    assert isinstance(vocabulary, Ranks)
    TiktokenEngine(vocabulary)
    specials = {MARK: vocabulary.end_of_text}
    key = (vocabulary.content, vocabulary.pattern, tuple(specials.items()))
    engine = GigatokenEngine(vocabulary)
    _spare[key] = [(_load(engine, specials), 0) for _ in range(engines)]
    for tokenizer, _ in _spare[key]:
        engine._encode_buffer(tokenizer, b"a")  # which makes room for the caches
    for name in readers(vocabulary):
        library(name)
