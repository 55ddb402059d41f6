"""Tokenizers of every kind: the engine chosen, law 1 whole and cut, the delimiter, the dtype.

The contract tests run on every kind in `tests/kit/trained.py`, with every engine that can use it.
"""

from __future__ import annotations

import functools
import json
import random
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokenmill
from tests.conftest import Run
from tests.kit import corpora, oracles, texts, trained
from tests.kit.outcome import Outcome, prepare
from tests.kit.shared import ARTICLES, CORPORA, GPT2_RANKS, corpus_documents
from tests.laws.test_exact import TEXTS
from tokenmill.dataset.identity import fingerprint, identity
from tokenmill.dataset.spec import Spec
from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.memory import Budget
from tokenmill.sizes import Sizes
from tokenmill.text import cuts
from tokenmill.text.cuts import NOWHERE, CutRule
from tokenmill.tokenizers import engines, selftest
from tokenmill.tokenizers.choose import choose
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.tokenizer_json import TokenizerJson

SIZE = 3000
ENGINES = [
    (name, engine)
    for name, kind in trained.KINDS.items()
    for engine in dict.fromkeys((kind.engine, kind.reference))
]
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def vocabulary_of(name: str) -> Any:
    return load_vocabulary(str(trained.path(name)), None, trained.KINDS[name].eot)


def run(inputs: corpora.Corpus | Path, out: Path, name: str, **options: Any) -> Outcome:
    """Prepare with a trained tokenizer, everything in one training file."""
    options = {"format": "llm.c", "val_shards": 0, "shard_tokens": "500M"} | options
    with trained.tried_once():
        return prepare(inputs, out, **{**trained.options(name), **options})


def assert_exact(outcome: Outcome, documents: Sequence[str], name: str) -> None:
    got = oracles.split_before(outcome.tokens("train"), trained.eot(name))
    assert len(got) == len(documents)
    for text, ids in zip(documents, got, strict=True):
        assert ids == trained.encode(text, name), f"differs for {text[:80]!r}"


# --- which engine, and where texts are cut -----------------------------------------------------


@pytest.mark.parametrize("name", trained.KINDS)
def test_the_engine_and_the_cuts_are_what_the_tokenizer_allows(name: str) -> None:
    kind, vocabulary = trained.KINDS[name], vocabulary_of(name)
    choice = choose("auto", vocabulary)
    assert choice.engine == kind.engine, choice.why
    assert vocabulary.pattern == kind.pattern
    assert (choice.cuts != NOWHERE) == kind.is_cut, choice.why_cuts
    assert choice.cuts.seams == (kind.is_cut and name != "qwen")
    assert vocabulary.end_of_text == trained.eot(name)


@pytest.mark.parametrize("name", trained.KINDS)
def test_the_run_says_which_engine_and_why(name: str, tmp_path: Path) -> None:
    told: list[str] = []
    plan = tokenmill.plan(str(ARTICLES), **trained.options(name), format="llm.c")
    told.append(plan.engine_line())
    assert trained.KINDS[name].engine in told[0]
    assert ("self-test" in told[0]) or "is not used: " in told[0]
    outcome = run(ARTICLES, tmp_path / "out", name)
    check = outcome.manifest["check"]
    assert check["reference"] == trained.KINDS[name].reference
    is_slow = trained.KINDS[name].reference == "tokenizers" != trained.KINDS[name].engine
    assert check["share"] == (0.00005 if is_slow else 0.0002)


def test_an_engine_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left as they are, registered tokens are found in the text: the self-test must see it."""
    content = trained.path("llama3").read_bytes()
    monkeypatch.setattr(TokenizerJson, "without_specials", lambda self, specials: content)
    monkeypatch.delitem(engines.ENGINES, "fastokens")  # it can be told, and is right all the same
    choice = choose("auto", vocabulary_of("llama3"))
    assert choice.engine == "tokenizers"
    assert "differs from tokenizers for" in choice.why
    with pytest.raises(UsageError, match="gigatoken is not exact for"):
        choose("gigatoken", vocabulary_of("llama3"))


@pytest.mark.parametrize("name", ["metaspace", "wordpiece", "unknown pattern"])
def test_a_rule_that_is_wrong_is_not_followed(name: str) -> None:
    """Were a text of these cut as byte-level BPE is, ids would differ: the self-test sees it."""
    vocabulary = vocabulary_of(name)
    vocabulary.cuts = cuts.EVERYWHERE
    choice = choose("auto", vocabulary)
    assert choice.cuts == NOWHERE
    assert "a cut changed an id" in choice.why_cuts


def test_an_engine_for_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="the engine tiktoken cannot use"):
        choose("tiktoken", vocabulary_of("llama3"))
    with pytest.raises(UsageError, match="the engine tokenizers cannot use gpt2"):
        choose("tokenizers", load_vocabulary("gpt2"))
    with pytest.raises(UsageError, match="there is no engine"):
        choose("fast", load_vocabulary("gpt2"))


# --- law 1 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_every_engine_gives_the_reference_ids(name: str, engine: str) -> None:
    documents = [*texts.adversarial_documents(SIZE), "\x1c\x1d\x1e\x1f in the text", ""]
    vocabulary = vocabulary_of(name)
    maker = make_engine(engine, vocabulary)
    for group in (documents, documents[:-2], [""], ["", ""], ["one"]):
        tokens = maker.encode([text.encode() for text in group])
        assert (tokens.ids[tokens.marks] == vocabulary.end_of_text).all()
        parts = np.split(tokens.ids, tokens.marks)
        assert len(parts) == len(group)
        for index, (text, part) in enumerate(zip(group, parts, strict=True)):
            found = part[1 if index else 0 :].tolist()
            assert found == trained.encode(text, name), f"differs for {text[:60]!r}"
            assert maker.encode_piece(text.encode()) == found


@pytest.mark.parametrize("name", trained.KINDS)
def test_adversarial_documents(name: str, tmp_path: Path) -> None:
    documents = texts.adversarial_documents(SIZE)
    corpus = corpora.write(tmp_path, "jsonl", documents)
    assert_exact(run(corpus, tmp_path / "out", name, check=0.2), documents, name)


@pytest.mark.parametrize("name", trained.KINDS)
def test_each_adversary_as_a_file_in_small_blocks(
    small_blocks: Sizes, name: str, tmp_path: Path
) -> None:
    """Where texts may be cut they are, at the real rules; else each file is one block."""
    (tmp_path / "in").mkdir()
    documents = []
    for index, (kind, make) in enumerate(texts.ADVERSARIES.items()):
        documents.append(make(5_000).removeprefix("\ufeff"))
        (tmp_path / "in" / f"{index:03d}_{kind}.txt").write_bytes(documents[-1].encode())
    options = {"check": 0.3, "kind": "text"}  # one of them looks like binary data
    assert_exact(
        run(tmp_path / "in", tmp_path / "out", name, **options, sizes=small_blocks), documents, name
    )


@pytest.mark.parametrize("name", trained.KINDS)
def test_documents_longer_than_blocks_are_divided_right(
    small_blocks: Sizes, name: str, tmp_path: Path
) -> None:
    documents = [texts.prose(size) for size in (10, 20_000, 3, 0, 9_000, 30_000)]
    corpus = corpora.write(tmp_path, "txt", documents)
    assert_exact(run(corpus, tmp_path / "out", name, sizes=small_blocks), documents, name)


def test_a_document_that_is_never_cut_ends_its_block(
    small_blocks: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the file is not held with it: together they are more than memory allows."""
    monkeypatch.setattr(Budget, "record_bytes", 20_000)
    documents = [texts.prose(size) for size in (15_000, 12_000, 15_000, 14_000)]
    corpus = corpora.write(tmp_path, "txt", documents)
    assert_exact(run(corpus, tmp_path / "out", "llama2", sizes=small_blocks), documents, "llama2")


@functools.lru_cache
def cutting_of(name: str) -> tuple[CutRule, Engine]:
    """Where its self-test lets a text be cut, and the engine that looks at the seams: loaded once,
    for that takes longer than all that is cut here."""
    vocabulary = vocabulary_of(name)
    return choose("auto", vocabulary).cuts, make_engine(trained.KINDS[name].reference, vocabulary)


SMALL = Sizes(window=64, seam_context=1024, run_ahead=256)


def _pieces(data: bytes, name: str, seed: int) -> Iterator[bytes]:
    rule, encoder = cutting_of(name)
    generator, view, start = random.Random(seed), cuts.BytesView(data), 0
    while True:
        floor = start + generator.randrange(16, 200)
        target = floor + generator.randrange(1, 200)
        cut = cuts.find_cut(view, start, target, floor, lambda: encoder, rule=rule, sizes=SMALL)
        if cut is None:
            yield data[start:]
            return
        yield data[start : cut.position]
        start = cut.position


def _assert_pieces_give_the_whole(text: str, name: str, seed: int) -> int:
    parts = [part.decode() for part in _pieces(text.encode(), name, seed)]
    assert "".join(parts) == text
    joined = [token for part in parts for token in trained.encode(part, name)]
    assert joined == trained.encode(text, name)
    return len(parts)


@pytest.mark.parametrize("name", trained.CUT)
def test_text_cut_in_many_places_gives_the_ids_of_the_whole(name: str) -> None:
    counts = {
        kind: _assert_pieces_give_the_whole(make(2000), name, 1)
        for kind, make in texts.ADVERSARIES.items()
    }
    assert counts["prose"] > 10
    assert counts["hanzi"] > 10
    generator = random.Random(7)
    items = [*texts.short_texts(), *(make(40) for make in texts.ADVERSARIES.values())]
    for seed in range(2):
        generator.shuffle(items)
        glue = ["", "", " ", "\n", "  ", "\u0301", "<tool_call>", "<|fim_prefix|>"]
        joined = "".join(item + generator.choice(glue) for item in items)
        _assert_pieces_give_the_whole(joined, name, seed)


@pytest.mark.parametrize("name", trained.CUT)
@pytest.mark.parametrize("corpus", CORPORA)
def test_real_documents_cut_in_many_places(corpus: str, name: str) -> None:
    for seed, text in enumerate(corpus_documents(corpus, 4)):
        _assert_pieces_give_the_whole(text[:3000], name, seed)


CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


@pytest.mark.parametrize("kind", ["L", "N", "M", "Lu", "Ll", "Lt", "Lm", "Lo"])
def test_the_reference_agrees_on_every_character_that_is_trusted(kind: str) -> None:
    """The library's tables are of another Unicode than Python's: where they differ, no cut."""
    trusted, split = _trusted(), _removing(rf"\p{{{kind}}}")
    assert split("".join(c for c in trusted if unicodedata.category(c).startswith(kind))) == ""
    outside = "".join(c for c in trusted if not unicodedata.category(c).startswith(kind))
    assert split(outside) == outside


def test_the_reference_takes_no_other_character_for_white_space() -> None:
    dark = "".join(character for character in _trusted() if not character.isspace())
    assert _removing(r"\s")(dark) == dark


@functools.cache
def _trusted() -> list[str]:
    rule = cuts.CutRule(is_stable=True)
    trusted = [character for character in CHARACTERS if rule.trusts(character)]
    assert 90_000 < len(trusted) < len(CHARACTERS)
    return trusted


def _removing(pattern: str) -> Callable[[str], str]:
    """What the library's own patterns leave of a text."""
    library = trained.tokenizers
    split = library.pre_tokenizers.Split(library.Regex(pattern), "removed")
    return lambda text: "".join(piece for piece, _ in split.pre_tokenize_str(text))


def test_nfc_joins_nothing_to_a_character_that_is_trusted() -> None:
    rule = cuts.CutRule(is_nfc=True)
    trusted = [character for character in CHARACTERS if rule.trusts(character)]
    assert len(trusted) > 90_000
    before = [*"aeoAZ =<>かカᄀ가각กকেெෙဥᬅ̣́", "a\u0323", "q\u0307"]
    for left in before:
        normal = unicodedata.normalize("NFC", left)
        for character in trusted:
            if unicodedata.normalize("NFC", left + character) != normal + character:
                pytest.fail(f"{left!r} and {character!r} join")


# Each kind on one of the corpora here; `make torture` has all pairs.
@pytest.mark.parametrize(
    ("name", "corpus"), [(name, CORPORA[at % 3]) for at, name in enumerate(trained.KINDS)]
)
def test_a_sample_of_the_shared_corpora(name: str, corpus: str, tmp_path: Path) -> None:
    sample_is_exact(name, corpus, tmp_path)


def sample_is_exact(name: str, corpus: str, folder: Path) -> None:
    documents = [text[:20_000] for text in corpus_documents(corpus, 12)]
    written = corpora.write(folder, "jsonl", documents)
    assert_exact(run(written, folder / "out", name), documents, name)


@pytest.mark.parametrize("name", trained.KINDS)
@settings(max_examples=5, deadline=None, suppress_health_check=QUIET)
@given(documents=st.lists(TEXTS, min_size=1, max_size=40))
def test_random_documents(name: str, documents: list[str]) -> None:
    if vocabulary_of(name).reads_special_text:  # then documents cannot be told apart by it
        documents = [text.replace(vocabulary_of(name).special_text, "") for text in documents]
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpora.write(Path(folder), "jsonl", documents)
        assert_exact(run(corpus, Path(folder, "out"), name), documents, name)


@pytest.mark.parametrize("name", ["llama3", "qwen"])
@settings(max_examples=4, deadline=None, suppress_health_check=QUIET)
@given(pieces=st.lists(st.tuples(TEXTS, st.integers(1, 40)), min_size=10, max_size=80))
def test_random_text_cut_into_blocks(
    small_blocks: Sizes, name: str, pieces: list[tuple[str, int]]
) -> None:
    text = "".join(unit * times for unit, times in pieces)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.txt")
        path.write_bytes(text.encode())
        outcome = run(
            path, Path(folder, "out"), name, kind="text", sizes=small_blocks
        )  # it may look binary
        expected = trained.encode(text.removeprefix("\ufeff"), name)
        assert np.array_equal(outcome.tokens("train")[1:], expected)


def edited(name: str, folder: Path, **changes: Any) -> Path:
    """The trained tokenizer.json with other settings, in a folder of its own."""
    settings = json.loads(trained.path(name).read_text()) | changes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(settings))
    return path


def test_truncation_and_padding_of_the_file_lose_nothing(tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    for name in ("wordpiece", "llama3"):
        path = edited(name, tmp_path / name, truncation=truncation, padding=padding)
        outcome = run(ARTICLES, tmp_path / f"{name}-out", name, tokenizer=str(path))
        documents = [json.loads(line)["text"] for line in ARTICLES.read_text().splitlines()]
        assert_exact(outcome, documents, name)


# --- documents that are never cut --------------------------------------------------------------


@pytest.mark.parametrize("name", ["unigram", "sentencepiece unigram"])
def test_a_document_too_large_to_be_held_is_an_error_or_left_out(name: str, tmp_path: Path) -> None:
    """No cut is known to be safe, so that the document must fit; never a wrong id."""
    documents = ["a first one", texts.prose(3_000_000), "a last one"]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    with pytest.raises(InputError, match="too large for the memory budget"):
        run(corpus, tmp_path / "stop", name, memory="300MB", threads=1)
    outcome = run(
        corpus, tmp_path / "go", name, memory="300MB", threads=1, on_bad="quarantine", check=0
    )
    assert outcome.manifest["quarantine"]["reasons"] == {"too-large": 1}
    left = json.loads((tmp_path / "go" / "quarantine.jsonl").read_text())
    assert left["length"] == 3_000_000
    ids = outcome.tokens("train")
    assert (ids == trained.eot(name)).sum() == 2


def test_one_document_that_is_never_cut_goes_to_one_split(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text(texts.prose(40_000))
    outcome = run(path, tmp_path / "out", "unigram", val_shards=None, val_fraction=0.01)
    assert outcome.manifest["split"].startswith("by document")
    assert_exact(outcome, [texts.prose(40_000)], "unigram")


# --- the delimiter, and ids that need more bits ------------------------------------------------


def test_the_end_of_text_token_is_the_folders_own_unless_named(tmp_path: Path) -> None:
    folder = edited("llama3", tmp_path / "llama3").parent
    find = trained.library("llama3").token_to_id
    assert load_vocabulary(str(folder)).end_of_text == find("<|end_of_text|>")
    config = folder / "tokenizer_config.json"
    for eos in ("<|begin_of_text|>", {"content": "<|begin_of_text|>"}):
        config.write_text(json.dumps({"eos_token": eos}))
        assert load_vocabulary(str(folder)).end_of_text == find("<|begin_of_text|>")
    for damaged in ("[1", '"text"', '{"eos_token": 7}', '{"eos_token": "<nowhere>"}'):
        config.write_text(damaged)
        assert load_vocabulary(str(folder)).end_of_text == find("<|end_of_text|>")
    for named in ("<|begin_of_text|>", str(find("<|begin_of_text|>"))):
        found = load_vocabulary(str(folder), None, named)
        assert found.end_of_text == find("<|begin_of_text|>")
        assert found.special_text == "<|begin_of_text|>"


def test_a_tokenizer_without_end_of_text_asks_for_one(tokenmill: Run, tmp_path: Path) -> None:
    path = trained.path("wordpiece")
    done = tokenmill("prepare", ARTICLES, "--tokenizer", path, "--out", tmp_path / "out")
    assert done.rc == 2
    assert "does not tell its end-of-text token" in done.stderr
    assert "fix: --eot-token NAME, with one of [UNK], [CLS], [SEP]" in done.stderr
    with pytest.raises(UsageError, match="has no token 'nonsense'"):
        load_vocabulary(str(path), None, "nonsense")
    with pytest.raises(UsageError, match="no id from 0 to"):
        load_vocabulary(str(path), None, "999999")


@pytest.mark.parametrize(("named", "token"), [("<|endoftext|>", 50256), ("50256", 50256)])
def test_naming_gpt2s_own_token_changes_nothing(named: str, token: int, tmp_path: Path) -> None:
    plain = prepare(ARTICLES, tmp_path / "plain")
    chosen = prepare(ARTICLES, tmp_path / "named", eot_token=named)
    assert chosen.hashes == plain.hashes
    assert chosen.manifest["fingerprint"] == plain.manifest["fingerprint"]
    assert chosen.manifest["tokenizer"]["end_of_text"] == token


def test_fingerprints_of_datasets_made_before_stay_what_they_were() -> None:
    """The constant is what the release before `--eot-token` gave."""
    found = fingerprint(Spec.of({}), identity(load_vocabulary("gpt2").describe()), [])
    assert found == "0f65048263b5ffc8f22215b078a9a59704a36c853b598da335e6337e7561d61a"
    old = Spec.of({}).as_dict()
    del old["eot_token"]
    assert Spec.restored(old) == Spec.of({})


@pytest.mark.parametrize("engine", ["gigatoken", "tiktoken"])
def test_an_ordinary_token_may_be_the_delimiter(engine: str, tmp_path: Path) -> None:
    """Two line feeds, as some do it: where documents hold it, their ids are the same."""
    documents = ["one\n\ntwo", "three", "\n\n"]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    options: dict[str, Any] = {"val_fraction": 0, "engine": engine, "eot_token": "628"}
    outcome = prepare(corpus, tmp_path / "out", **options)
    expected = [token for text in documents for token in [*oracles.encode(text), 628]]
    assert outcome.tokens("train").tolist() == expected
    assert [*tokenmill.verify(tmp_path / "out", against=[corpus.path], share=1)] == []


def test_another_delimiter_is_another_dataset(tokenmill: Run, tmp_path: Path) -> None:
    command = ["prepare", ARTICLES, "--out", tmp_path / "out"]
    assert tokenmill(*command).rc == 0
    done = tokenmill(*command, "--eot-token", "628")
    assert done.rc == 12
    assert "the tokenizer's end_of_text is 628, was 50256" in done.stderr


def test_nothing_is_added_that_the_post_processor_would_add(tmp_path: Path) -> None:
    outcome = run(ARTICLES, tmp_path / "out", "wordpiece")
    cls = trained.library("wordpiece").token_to_id("[CLS]")
    assert cls not in outcome.tokens("train")


@pytest.mark.parametrize("name", ["wordpiece", "unigram", "sentencepiece bpe", "llama3"])
def test_text_that_has_no_token_is_counted_and_told(
    name: str, tokenmill: Run, tmp_path: Path
) -> None:
    """Law 5: what becomes the unknown token is gone, and nobody would see it in the ids."""
    strange = "".join(map(chr, range(0x13000, 0x13040)))
    corpus = corpora.write(tmp_path, "jsonl", [texts.prose(500), f"{strange} and {strange}", ""])
    unknown = vocabulary_of(name).unknown_id
    arguments = [
        f"--{key.replace('_', '-')}={value}" for key, value in trained.options(name).items()
    ]
    out = tmp_path / "out"
    done = tokenmill("prepare", *corpus.arguments(), *arguments, "--out", out, "--val-fraction", 0)
    assert done.rc == 0, done.stderr
    outcome = Outcome(out)
    count = outcome.manifest["counts"]["unknown_tokens"]
    assert count == int(np.count_nonzero(np.array(outcome.tokens("train")) == unknown))
    assert (count > 0) == (name in ("wordpiece", "unigram"))  # the others fall back to bytes
    assert ("no token for" in done.stderr) == (count > 0)


def test_the_dtype_follows_from_the_largest_id_added_tokens_included(tmp_path: Path) -> None:
    settings = json.loads(trained.path("llama3").read_text())
    settings["model"]["vocab"]["<|far|>"] = 70_000
    far = {**settings["added_tokens"][0], "id": 70_000, "content": "<|far|>", "special": False}
    path = edited(
        "llama3", tmp_path / "far", model=settings["model"],
        added_tokens=[*settings["added_tokens"], far],
    )  # fmt: skip
    documents = ["plain", "with <|far|> in it"]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    with pytest.raises(UsageError, match="ids up to 70000"):
        prepare(corpus, tmp_path / "nanogpt", tokenizer=str(path))
    outcome = run(corpus, tmp_path / "out", "llama3", tokenizer=str(path))
    assert outcome.manifest["dtype"] == "uint32"
    assert 70_000 in outcome.tokens("train")
    assert outcome.manifest["tokenizer"]["largest_id"] == 70_000


@pytest.mark.parametrize("name", ["llama3", "llama2", "sentencepiece unigram"])
def test_the_delimiters_text_in_a_document_is_text(name: str, tmp_path: Path) -> None:
    special = vocabulary_of(name).special_text
    documents = [f"a {special} b{special}", "plain"]
    corpus = corpora.write(tmp_path, "jsonl", documents)
    outcome = run(corpus, tmp_path / "text", name)
    assert_exact(outcome, documents, name)
    assert outcome.manifest["counts"]["special_text"] == 2
    with pytest.raises(InputError, match="a document contains"):
        run(corpus, tmp_path / "error", name, special_text="error")
    token = run(corpus, tmp_path / "token", name, special_text="token")
    expected = [trained.eot(name)]
    for part in ("a ", " b", ""):
        expected += [*trained.encode(part, name), trained.eot(name)]
    assert token.tokens("train").tolist() == [*expected, *trained.encode("plain", name)]


def test_the_delimiters_text_where_the_model_itself_reads_it(
    tmp_path: Path, tokenmill: Run
) -> None:
    """Unigram models have it as a piece: the reference gives its id, and so do we, and say so."""
    assert [name for name in trained.KINDS if vocabulary_of(name).reads_special_text] == ["unigram"]
    document = "a </s> b</s>"
    corpus = corpora.write(tmp_path, "jsonl", [document, "plain"])
    outcome = run(corpus, tmp_path / "out", "unigram")
    ids, eot = trained.encode(document, "unigram"), trained.eot("unigram")
    assert ids.count(eot) == 2
    expected = [eot, *ids, eot, *trained.encode("plain", "unigram")]
    assert outcome.tokens("train").tolist() == expected
    assert outcome.manifest["counts"]["special_text"] == 2
    done = tokenmill(
        "prepare", *corpus.arguments(), "--tokenizer", trained.path("unigram"),
        "--val-fraction", "0", "--out", tmp_path / "told",
    )  # fmt: skip
    assert done.rc == 0, done.stderr
    assert "warning: </s> is written 2 times in the documents, and this tokenizer's" in done.stderr


# --- files that are not what they should be ----------------------------------------------------

BROKEN = {
    "{": "not a usable tokenizer.json",
    "{}": "it has no model",
    '{"model": {"type": "BPE"}}': "not a usable tokenizer.json",
    '{"model": ' + "[" * 100_000: "not a usable tokenizer.json",
}


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenmillError) as caught:
        load_vocabulary(str(tmp_path))
    assert BROKEN[content] in str(caught.value)


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained.path("sentencepiece bpe").read_bytes()[:5000])
    with pytest.raises(TokenmillError, match="not a usable SentencePiece model"):
        load_vocabulary(str(path))
    path.unlink()
    with pytest.raises(UsageError, match="there is no tokenizer in"):
        load_vocabulary(str(tmp_path))


def test_a_model_that_holds_ranks_is_read_as_ranks(tmp_path: Path) -> None:
    """Llama 3 calls its ranks tokenizer.model."""
    shutil.copy(GPT2_RANKS, tmp_path / "tokenizer.model")
    assert load_vocabulary(str(tmp_path)).name == "gpt2"
    assert load_vocabulary(str(tmp_path / "tokenizer.model")).name == "gpt2"


def test_a_tokenizer_that_encodes_by_chance_is_refused(tmp_path: Path) -> None:
    model = json.loads(trained.path("llama3").read_text())["model"] | {"dropout": 0.1}
    with pytest.raises(UsageError, match="encodes by chance"):
        load_vocabulary(str(edited("llama3", tmp_path, model=model)))


def test_a_pattern_is_for_ranks_only() -> None:
    with pytest.raises(UsageError, match=r"--pattern is for \.tiktoken files only"):
        load_vocabulary(str(trained.path("llama3")), "gpt2")


@pytest.mark.parametrize(
    ("module", "name"), [("tokenizers", "llama3"), ("sentencepiece", "sentencepiece bpe")]
)
def test_a_missing_library_is_named(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(trained.path(name))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(TokenmillError) as caught:
        load_vocabulary(path)
    assert re.search(rf"-m pip install '{module}[<>]", str(caught.value))


def test_the_self_test_has_what_splitters_differ_on() -> None:
    found = b"\n".join(selftest.documents_for(["<tool_call>"])).decode()
    for part in ("<tool_call>", "e\u0301", "\r\n", "\u1c89", "日本", "😀", "  ", "</s>", "\u3000"):
        assert part in found
    assert b"" in selftest.documents_for([])
