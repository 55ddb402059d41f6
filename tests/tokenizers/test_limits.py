"""What a tokenizer's file declares decides: which engine may run, and is text lost?"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.kit import corpora, random_tokenizers, trained
from tests.kit.shared import GPT2_RANKS
from tokenmill.errors import TokenmillError, UsageError
from tokenmill.tokenizers.choose import choose
from tokenmill.tokenizers.engines import ENGINES, make_engine
from tokenmill.tokenizers.engines.gigatoken_limits import refusal
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import PATTERNS, Ranks

Settings = dict[str, Any]


def written(settings: Settings, folder: Path) -> str:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(settings))
    return str(path)


def changed(name: str, folder: Path, change: Callable[[Settings], object]) -> str:
    """The trained tokenizer.json after a change."""
    settings: Settings = json.loads(trained.path(name).read_text())
    change(settings)
    return written(settings, folder)


def added(text: str, **flags: bool) -> Callable[[Settings], object]:
    """Add a token to the file."""

    def change(settings: Settings) -> None:
        size = max(settings["model"]["vocab"].values()) + 1
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        settings["added_tokens"].append({"id": size, "content": text, **plain, **flags})

    return change


def model(**options: Any) -> Callable[[Settings], object]:
    return lambda settings: settings["model"].update(options)


def put(**options: Any) -> Callable[[Settings], object]:
    return lambda settings: settings.update(options)


def _without_split(settings: Settings) -> None:
    settings["model"]["unk_token"], settings["pre_tokenizer"] = "!", None


SPLIT = {"type": "Split", "pattern": {"Regex": trained.LLAMA3}, "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def sequence(*steps: Settings) -> Settings:
    return {"type": "Sequence", "pretokenizers": list(steps)}


REFUSED: list[tuple[str, Callable[[Settings], object], str]] = [
    ("llama3", added("<t>", single_word=True), "is single_word"),
    ("llama3", added("<t>", lstrip=True), "is lstrip"),
    ("llama3", added("<t>", rstrip=True), "is rstrip"),
    ("qwen", added("<t>", normalized=True), "is looked for in normalized text"),
    ("llama2", added("<t>", normalized=True), "is looked for in normalized text"),
    ("llama3", added("<|end"), "overlaps another added token"),
    ("llama3", added("\x1d"), "cannot be told from what divides documents"),
    (
        "llama3",
        model(continuing_subword_prefix="##", unk_token="!", merges=[]),
        "has a continuing_subword_prefix",
    ),
    ("llama3", model(end_of_word_suffix="</w>", unk_token="!"), "has a end_of_word_suffix"),
    ("llama3", lambda s: s["model"]["merges"].append(s["model"]["merges"][0]), "a merge twice"),
    ("llama3", put(normalizer={"type": "Lowercase"}), "it normalizes text (Lowercase)"),
    ("llama2", model(ignore_merges=True), "ignores merges"),
    ("llama2", put(normalizer={"type": "NFKC"}), "it normalizes text (NFKC)"),
    ("metaspace", lambda s: s["pre_tokenizer"].update(prepend_scheme="first"), "(first)"),
    (
        "llama3",
        put(pre_tokenizer=sequence({**SPLIT, "behavior": "MergedWithNext"}, LEVEL)),
        "splits text in a way of its own",
    ),
    (
        "llama3",
        put(
            pre_tokenizer=sequence(
                {**SPLIT, "behavior": "Isolated"}, {"type": "Punctuation"}, LEVEL
            )
        ),
        "splits text in a way of its own",
    ),
    ("gpt2", put(pre_tokenizer=LEVEL), "splits text in a way of its own"),
    ("llama3", _without_split, "splits text in a way of its own"),
]


@pytest.mark.parametrize(("name", "change", "why"), REFUSED, ids=[why for *_, why in REFUSED])
def test_what_is_declared_and_not_promised_is_refused_by_rule(
    name: str, change: Callable[[Settings], object], why: str, tmp_path: Path
) -> None:
    vocabulary = load_vocabulary(changed(name, tmp_path, change))
    assert why in (refusal(vocabulary) or "")
    assert choose("auto", vocabulary).engine == "tokenizers"
    with pytest.raises(UsageError, match="gigatoken is not exact for") as caught:
        choose("gigatoken", vocabulary)
    assert "--engine tokenizers" in str(caught.value.fix)


@pytest.mark.parametrize("place", [0, 1, 100, 101, 200])
def test_every_added_token_is_tried(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the self-test, too: the rules are switched off here."""

    def change(settings: Settings) -> None:
        for number in range(201):
            added(f"qx{number:03}", single_word=number == place)(settings)
            settings["added_tokens"][-1]["id"] += number

    path = changed("llama3", tmp_path, change)
    monkeypatch.delitem(ENGINES, "fastokens")  # which is right with these, rule or no rule
    for kind in ENGINES.values():
        monkeypatch.setattr(kind, "refusal", lambda vocabulary: None)
    choice = choose("auto", load_vocabulary(path))
    assert choice.engine == "tokenizers"
    assert "it differs from tokenizers for" in choice.why


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"user_defined_symbols": ["<sep>"]}, "user-defined symbols ('<sep>')"),
        ({"treat_whitespace_as_suffix": True}, "treats spaces in a way of its own"),
        ({"remove_extra_whitespaces": True}, "removes white space"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalizes text"),
        ({"control_symbols": ["q"]}, "control pieces is a single character ('q')"),
        ({"byte_fallback": False}, "no byte fallback"),
    ],
)
def test_a_models_settings_are_read_from_its_file(
    options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    plain = {"byte_fallback": True, "remove_extra_whitespaces": False}
    everything = {"normalization_rule_name": "identity", **plain, **options}
    path = tmp_path / "tokenizer.model"
    lines = [line for text in trained.corpus()[:1] for line in text.splitlines() if line.strip()]
    trained.spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(path.with_suffix("")), vocab_size=500,
        model_type="bpe", minloglevel=2, hard_vocab_limit=False, **everything,
    )  # fmt: skip
    vocabulary = load_vocabulary(str(path))
    assert why in (refusal(vocabulary) or "")
    choice = choose("auto", vocabulary)
    assert choice.engine == "sentencepiece"
    processor = trained.spm.SentencePieceProcessor(model_file=str(path))
    found = make_engine(choice.engine, vocabulary).encode_piece(b"the<sep> fox q  x")
    assert found == processor.encode("the<sep> fox q  x")


def test_control_pieces_are_never_given_for_text(tmp_path: Path) -> None:
    """Their text can be put together of other pieces; the library does not do it."""
    path = tmp_path / "tokenizer.model"
    trained.spm.SentencePieceTrainer.train(
        sentence_iterator=iter(["x[INST a[INST b", "c] d", "oth e th f"] * 50),
        model_prefix=str(path.with_suffix("")), vocab_size=330, model_type="bpe", minloglevel=2,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, control_symbols=["[INST]", "the"],
    )  # fmt: skip
    vocabulary = load_vocabulary(str(path))
    choice = choose("auto", vocabulary)
    assert choice.engine == "gigatoken", choice.why
    processor = trained.spm.SentencePieceProcessor(model_file=str(path))
    engine = make_engine("gigatoken", vocabulary)
    for text in ("[INST]", "the [INST]the", "a[INST] b", "other"):
        assert engine.encode_piece(text.encode()) == processor.encode(text)


# --- text that would be lost -------------------------------------------------------------------


def _without_bytes(settings: Settings) -> None:
    vocab = settings["model"]["vocab"]
    gone = {"Ā", "é", "ħ"}
    settings["model"]["merges"] = [
        pair for pair in settings["model"]["merges"] if not gone & set("".join(pair))
    ]
    settings["model"]["vocab"] = {t: n for t, n in vocab.items() if not gone & set(t)}


LOST: dict[str, tuple[str, Callable[[Settings], object]]] = {
    "the byte 0x00": ("gpt2", _without_bytes),
    "words that it does not list": ("wordpiece", model(unk_token="[GONE]")),
    "characters that it does not list": ("unigram", model(unk_id=None)),
    "the byte 0x80": ("llama2", lambda s: (
        s["model"].update(unk_token=None), s["model"]["vocab"].pop("<0x80>"),
    )),
}  # fmt: skip


@pytest.mark.parametrize("what", LOST)
def test_a_tokenizer_that_would_lose_text_is_refused_at_load(
    what: str, tmp_path: Path, tokenmill: Run
) -> None:
    name, change = LOST[what]
    path = changed(name, tmp_path, change)
    with pytest.raises(UsageError, match="would lose text without a word") as caught:
        load_vocabulary(path, None, trained.KINDS[name].eot)
    assert what in str(caught.value)
    corpus = corpora.write(tmp_path, "jsonl", ["text \U00013000"])
    eot = ["--eot-token", trained.KINDS[name].eot] if trained.KINDS[name].eot else []
    done = tokenmill(
        "prepare", *corpus.arguments(), "--tokenizer", path, *eot, "--out", tmp_path / "out"
    )
    assert done.rc == 2
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["WordLevel", "BPE"])
def test_other_models_without_an_unknown_token_are_refused(kind: str, tmp_path: Path) -> None:
    library = trained.tokenizers
    made = library.Tokenizer(getattr(library.models, kind)())
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    trainer = getattr(library.trainers, "BpeTrainer" if kind == "BPE" else "WordLevelTrainer")
    made.train_from_iterator(["a few words"], trainer(special_tokens=["</s>"]))
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match="would lose text without a word"):
        load_vocabulary(str(tmp_path / "tokenizer.json"))


def test_bytes_that_no_text_has_may_be_missing(tmp_path: Path) -> None:
    """UTF-8 never has 0xC0, 0xC1 and 0xF5 to 0xFF."""
    from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS

    letters = {letter for letter, byte in BYTE_LETTERS.items() if byte in (0xC0, 0xC1, 0xFF)}

    def change(settings: Settings) -> None:
        vocab = settings["model"]["vocab"]
        settings["model"]["vocab"] = {t: n for t, n in vocab.items() if t not in letters}

    vocabulary = load_vocabulary(changed("gpt2", tmp_path, change))
    text = "".join(map(chr, range(1, 0x3000)))
    engine = make_engine(choose("auto", vocabulary).engine, vocabulary)
    assert vocabulary.decode(engine.encode_piece(text.encode())) == text


# --- ranks -------------------------------------------------------------------------------------


def ranks_file(path: Path, tokens: list[bytes], end: bytes = b"\n") -> Path:
    lines = (base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(tokens))
    path.write_bytes(b"".join(line + end for line in lines))
    return path


BYTES = [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        ([*BYTES, b"zqx"], "its token 256 is no pair of tokens of lower ranks"),
        ([*BYTES[1:], b"ab", BYTES[0]], "its single bytes are not the first 256 ranks"),
    ],
)
def test_ranks_that_the_engine_cannot_use_go_to_tiktoken(
    tokens: list[bytes], why: str, tmp_path: Path, tokenmill: Run
) -> None:
    path = ranks_file(tmp_path / "tokenizer.model", tokens)
    vocabulary = load_vocabulary(str(path), "llama3")
    choice = choose("auto", vocabulary)
    assert (choice.engine, why in choice.why) == ("tiktoken", True)
    corpus = corpora.write(tmp_path, "jsonl", ["zqx and zqx ab", ""])
    arguments = ["prepare", *corpus.arguments(), "--tokenizer", path, "--pattern", "llama3"]
    done = tokenmill(*arguments, "--val-fraction", 0, "--out", tmp_path / "out")
    assert done.rc == 0, done.stderr
    assert "panicked" not in done.stderr
    done = tokenmill(*arguments, "--engine", "gigatoken", "--out", tmp_path / "named")
    assert (done.rc, "gigatoken is not exact" in done.stderr) == (2, True)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_can_be_named_for_ranks(pattern: str, tmp_path: Path) -> None:
    path = ranks_file(tmp_path / "own.tiktoken", [*BYTES, b"ab", b" a", b"abc", b"\n\n"])
    vocabulary = load_vocabulary(str(path), pattern)
    choice = choose("auto", vocabulary)
    assert choice.engine == "gigatoken", choice.why
    engine, slow = (make_engine(name, vocabulary) for name in ("gigatoken", "tiktoken"))
    for text in random_tokenizers.sample_texts(7, 40):
        assert engine.encode_piece(text.encode()) == slow.encode_piece(text.encode())


def test_ranks_without_a_known_pattern_say_what_to_do(tmp_path: Path) -> None:
    path = ranks_file(tmp_path / "tokenizer.model", [*BYTES, b"ab"])
    with pytest.raises(UsageError) as caught:
        load_vocabulary(str(path))
    assert "--pattern gpt2 or cl100k_base or o200k_base or llama3 or qwen2" in str(caught.value)
    assert "--eot-token" in str(caught.value)


def test_line_ends_do_not_hide_a_known_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(GPT2_RANKS.read_bytes().replace(b"\n", b"\r\n"))
    assert load_vocabulary(str(path)).name == "gpt2"


KNOWN = {"llama3": (128001, "llama3"), "llama4": (200001, "o200k_base"), "qwen": (151643, "qwen2")}


@pytest.mark.parametrize("name", KNOWN)
def test_published_files_have_their_own_delimiter(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are not ours to keep: a small one stands in for each, known by its hash instead."""
    from tokenmill.tokenizers.vocabularies import tiktoken_ranks

    entry = next(entry for entry in tiktoken_ranks._FILES if entry.name == name)
    assert tiktoken_ranks._BY_HASH[entry.sha256] is entry
    path = ranks_file(tmp_path / "tokenizer.model", [*BYTES, b"ab"])
    found = tiktoken_ranks._BY_HASH | {
        __import__("hashlib").sha256(path.read_bytes()).hexdigest(): entry
    }
    monkeypatch.setattr(tiktoken_ranks, "_BY_HASH", found)
    vocabulary = load_vocabulary(str(path))
    assert isinstance(vocabulary, Ranks)
    assert (vocabulary.end_of_text, vocabulary.pattern) == KNOWN[name]
    assert vocabulary.specials[vocabulary.special_text] == vocabulary.end_of_text
    first = next(iter(vocabulary.specials))
    other = load_vocabulary(str(path), None, first)
    assert other.end_of_text == vocabulary.specials[first]
    assert other.special_text == first
    with pytest.raises(TokenmillError, match="has no token"):
        load_vocabulary(str(path), None, "<|no such token|>")
