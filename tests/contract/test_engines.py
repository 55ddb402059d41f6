"""What every engine promises, those of the table and a toy in a file of its own.

Its ids are the reference's or it is refused; it encodes in the thread that calls it; what it keeps
is bounded, or dropped when it is asked to; and prepare runs with it by its name.
"""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tokenmill
from tests.contract import toy_engines
from tests.contract.yours import yours
from tests.kit import texts, trained
from tests.kit.outcome import Outcome
from tests.kit.shared import BOOKS, tokenizer_argument
from tokenmill.errors import UsageError
from tokenmill.memory import MIB, resident_bytes, return_free_memory
from tokenmill.tokenizers import engines
from tokenmill.tokenizers.choose import choose
from tokenmill.tokenizers.engines import ENGINES, make_engine, needs_of, readers
from tokenmill.tokenizers.engines.differences import different
from tokenmill.tokenizers.engines.engine import Engine, NotInstalled, Tokens
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

MINE = yours(lambda entry: callable(getattr(entry, "encode_piece", None)))
TOYS_AND_MINE = {kind.name: kind for kind in (toy_engines.Remembering, *MINE.values())}
TABLE = [*ENGINES, *TOYS_AND_MINE]
EVERY = pytest.mark.parametrize("name", TABLE)
PLACES = ("ranks", "llama3", "qwen", "metaspace", "sentencepiece bpe")
"""One vocabulary of each kind, and of those kinds that are told apart."""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    name, real = toy_engines.Remembering.name, different
    for each, kind in TOYS_AND_MINE.items():
        monkeypatch.setitem(ENGINES, each, kind)
    # It has the very tables of its reference, which it would take seconds to find out.
    monkeypatch.setattr(engines, "different", lambda *all: () if name in all else real(*all))


@functools.cache
def vocabulary_of(place: str) -> Vocabulary:
    if place in ("ranks", "cl100k_base"):
        return load_vocabulary(tokenizer_argument(place.replace("ranks", "gpt2")))
    return load_vocabulary(str(trained.path(place)), None, trained.KINDS[place].eot)


def usable(name: str) -> list[Vocabulary]:
    """Those that the engine reads and does not refuse."""
    found = [vocabulary for vocabulary in map(vocabulary_of, PLACES) if name in readers(vocabulary)]
    found = [vocabulary for vocabulary in found if ENGINES[name].refusal(vocabulary) is None]
    assert found
    try:
        make_engine(name, found[0])
    except NotInstalled:
        pytest.skip(f"{name} is not installed")
    return found


def parts(tokens: Tokens, count: int, end_of_text: int) -> list[list[int]]:
    """The ids of each document."""
    assert tokens.ids.ndim == 1
    assert tokens.ids.dtype in (np.uint16, np.uint32)
    assert tokens.marks.dtype == np.int64
    assert len(tokens.marks) == count - 1
    assert (tokens.ids[tokens.marks] == end_of_text).all()
    found = np.split(tokens.ids, tokens.marks)
    return [part[int(index > 0) :].tolist() for index, part in enumerate(found)]


def encoded(engine: Engine, vocabulary: Vocabulary, documents: list[bytes]) -> list[list[int]]:
    return parts(engine.encode(documents), len(documents), vocabulary.end_of_text)


def new_words(seed: int, size: int) -> bytes:
    """Words that were never seen."""
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz    ", np.uint8)
    return np.random.default_rng(seed).choice(letters, size).tobytes()


@EVERY
def test_it_declares_what_it_reads_and_takes(name: str) -> None:
    kind = ENGINES[name]
    assert kind.name == name
    assert kind.reads
    assert all(issubclass(each, Vocabulary) for each in kind.reads)
    for vocabulary in map(vocabulary_of, PLACES):
        assert (name in readers(vocabulary)) == isinstance(vocabulary, kind.reads)
    for vocabulary in usable(name):
        needs = needs_of(name, vocabulary)
        assert needs.vocabulary > 0 and needs.engine > 0 and needs.factor > 0


@EVERY
def test_its_ids_are_the_reference_s(name: str) -> None:
    documents = [text.encode() for text in [*texts.adversarial_documents(600), "", "one", ""]]
    for vocabulary in usable(name):
        engine = make_engine(name, vocabulary)
        reference = make_engine(vocabulary.reference, vocabulary)
        expected = [reference.encode_piece(document) for document in documents]
        assert encoded(engine, vocabulary, documents) == expected
        engine.drop_caches()
        assert encoded(engine, vocabulary, documents) == expected
        assert [engine.encode_piece(document) for document in documents[:9]] == expected[:9]


@EVERY
@pytest.mark.parametrize("documents", [[b""], [b"", b""], [b"a"], [b"", b"a", b"", b""]])
def test_empty_documents_have_their_places(name: str, documents: list[bytes]) -> None:
    for vocabulary in usable(name):
        reference = make_engine(vocabulary.reference, vocabulary)
        expected = [reference.encode_piece(document) for document in documents]
        assert encoded(make_engine(name, vocabulary), vocabulary, documents) == expected


@EVERY
def test_special_tokens_in_the_text_are_text(name: str) -> None:
    for vocabulary in usable(name):
        special = vocabulary.special_text.encode() or b"</s>"
        documents = [special, b"a" + special + b"b" + special, special + special]
        engine = make_engine(name, vocabulary)
        found = encoded(engine, vocabulary, documents)
        reference = make_engine(vocabulary.reference, vocabulary)
        assert found == [reference.encode_piece(document) for document in documents]
        assert all(vocabulary.end_of_text not in ids for ids in found)


@EVERY
def test_tokens_stand_for_the_bytes_of_the_text(name: str) -> None:
    for vocabulary in usable(name):
        if vocabulary.keeps_bytes:
            engine, text = make_engine(name, vocabulary), "naïve café, 漢字 and 12 more\n".encode()
            assert b"".join(map(engine.token_bytes, engine.encode_piece(text))) == text


@EVERY
def test_two_threads_and_two_vocabularies_do_not_disturb_one_another(name: str) -> None:
    """Caches that a library keeps for a thread, or for all, must know whose words they hold."""
    vocabularies = usable(name)[:3]
    documents = [new_words(seed, 3000) for seed in range(40)]
    references = [make_engine(each.reference, each) for each in vocabularies]
    expected = [list(map(each.encode_piece, documents)) for each in references]

    def work(first: int) -> list[list[list[int]]]:
        engines = [make_engine(name, each) for each in vocabularies]
        found: list[list[list[int]]] = [[] for _ in engines]
        for at in range(0, len(documents), 8):
            for index in range(len(engines)):
                place = (first + index) % len(engines)
                some = documents[at : at + 8]
                found[place] += encoded(engines[place], vocabularies[place], some)
        return found

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [expected] * 3


def threads() -> list[str]:
    """The names of all threads of this process, those of libraries too."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]


@EVERY
def test_it_encodes_in_the_thread_that_calls_it(name: str) -> None:
    """A run has a thread, or a process, for each core: an engine's own would be too many."""
    (vocabulary, *_) = usable(name)
    before = len(threads())
    engine, text = make_engine(name, vocabulary), new_words(1, 400_000)
    engine.encode([text[:1000]])
    process, thread = time.process_time(), time.thread_time()
    engine.encode([text, text[:200_000], text[200_000:]])
    own, whole = time.thread_time() - thread, time.process_time() - process
    assert whole < 1.2 * own + 0.05
    assert [own for own in threads() if own.startswith(name)] == []
    assert len(threads()) <= before


@EVERY
def test_what_it_keeps_is_bounded_by_what_it_declares(name: str) -> None:
    """Of text that is ever new, after it was asked to drop what it can."""
    (vocabulary, *_) = usable(name)
    engine = make_engine(name, vocabulary)
    engine.encode([b"a b c"])
    return_free_memory()
    before = resident_bytes()
    for seed in range(3):
        engine.encode([new_words(seed, 400_000)])
    engine.drop_caches()
    return_free_memory()
    assert resident_bytes() - before < needs_of(name, vocabulary).engine + 24 * MIB


@EVERY
def test_what_it_cannot_read_is_refused_in_words(name: str) -> None:
    usable(name)
    others = [each for each in map(vocabulary_of, PLACES) if name not in readers(each)]
    for vocabulary in others:
        with pytest.raises(UsageError, match=f"the engine {name} cannot use") as caught:
            choose(name, vocabulary)
        assert vocabulary.reference in (caught.value.fix or "")


@EVERY
def test_what_it_does_not_promise_is_refused_by_rule(name: str) -> None:
    """Not by an error when it is made, nor in the middle of a corpus."""
    usable(name)
    for vocabulary in map(vocabulary_of, ("cl100k_base", "unigram", "unknown pattern")):
        if name in readers(vocabulary) and (why := ENGINES[name].refusal(vocabulary)) is not None:
            with pytest.raises(UsageError, match=f"the engine {name} is not exact for") as caught:
                choose(name, vocabulary)
            assert caught.value.why == why


def test_prepare_runs_with_an_engine_in_a_file_of_its_own(tmp_path: Path) -> None:
    """Found by its name, exact by the self-test, and of the same bytes as any other."""
    usual = tokenmill.prepare(BOOKS, out=tmp_path / "usual", val_fraction=0.1)
    own = tokenmill.prepare(BOOKS, out=tmp_path / "own", val_fraction=0.1, engine="remembering")
    assert Outcome(tmp_path / "own").hashes == Outcome(tmp_path / "usual").hashes
    assert own.fingerprint == usual.fingerprint
    assert not list(tokenmill.verify(tmp_path / "own"))
    with pytest.raises(UsageError, match="the engine remembering cannot use"):
        tokenmill.plan(BOOKS, tokenizer=str(trained.path("llama3")), engine="remembering")
