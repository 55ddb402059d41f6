"""Random tokenizers, trained small from a seed, and texts to try them with.

Every flag that the libraries tokenizers and sentencepiece write into a file is drawn here, alone
and together, sensible or not. ``compare`` holds tokenmill's choice against the libraries' own
calls, for whole texts and for texts that are cut. Code points that are newer than this Python's
tables, and marks newer than Unicode 3.2, are left out: tables of Unicode are another campaign.
"""

from __future__ import annotations

import base64
import json
import random
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece as spm
import tiktoken

import tokenizers
from tests.kit import texts
from tokenmill.errors import TokenmillError, UsageError
from tokenmill.text import cuts
from tokenmill.text.cuts import NOWHERE
from tokenmill.tokenizers.choose import Choice, choose
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.tiktoken_ranks import PATTERNS
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

TEXTS = 20
T = tokenizers
_TEXT = """
the quick brown fox jumps over lazy dog don't it's WE'LL HTTPServer x1 42 1234567 3.14 naïve café
straße Привет мир Ελληνικά 日本語 テキスト 漢字 한국어 ไทย हिन्दी العربية aaa aaaa abab ababa ---
---- ==== 'tis rock'n'roll <b> </b> <|x|> [INST] snake_case é e\u0301 ﬁne Å ① ² ½ \u00ad \u200b ▁ ▁▁
Ġ ## <unk> <s> </s> <0x41> \U0001f600 \U0001f468\u200d\U0001f469 a
"""
_WORDS = [*_TEXT.split(), "", "\u2028", "\x85", "\x00", "\x1c\x1d\x1e\x1f"]
_BLANKS = ("", "", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\xa0", "\u3000")
_SYMBOLS = (
    "<sep>", "[A]", "<|x|>", "qx", "<tool>", "the", "é", "日本", "\n\n", "ab", "#", "q", "<a",
    "<a><b>", "b><c", " x ", "K;", ">", "---", "▁▁", "1",
)  # fmt: skip


@dataclass
class Made:
    """One random tokenizer: its file, what was drawn, and the symbols that were put into it."""

    path: Path
    kind: str
    drawn: str
    symbols: list[str] = field(default_factory=list)
    pattern: str | None = None
    eot: str | None = None


@dataclass
class Tally:
    """What a campaign saw."""

    tokenizers: int = 0
    pairs: int = 0
    cut_pairs: int = 0
    pieces: int = 0
    engines: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ruled_out: int = 0
    """Refused by rule: gigatoken, or the engine that was named."""
    tested_out: int = 0
    """Let through by the rules, refused by the self-test."""
    unmade: int = 0
    """The libraries themselves would not make or load what was drawn."""


# --- texts -------------------------------------------------------------------------------------


def random_text(draw: random.Random, symbols: list[str], size: int = 60) -> str:
    """Words, blanks, symbols in all neighbourhoods."""
    parts = []
    for _ in range(draw.randrange(1, size)):
        word = draw.choice(symbols) if symbols and draw.random() < 0.2 else draw.choice(_WORDS)
        chance = draw.random()
        if chance < 0.1:
            word = word * draw.randrange(2, 9)
        elif chance < 0.15:
            word = word[: draw.randrange(len(word) + 1)]
        elif chance < 0.2:
            word = word.upper()
        elif chance < 0.25:
            word += draw.choice("\u0301\u0338\u0323\u3099")
        parts.append(word + draw.choice(_BLANKS))
    return without_new("".join(parts))


def without_new(text: str) -> str:
    """Without what differs between the libraries' tables."""
    return "".join(letter for letter in text if not _is_new(letter))


def _is_new(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category == "Cn" or (
        category[0] == "M" and unicodedata.ucd_3_2_0.category(letter) == "Cn"
    )


# --- tokenizer.json ----------------------------------------------------------------------------


def _normalizer(draw: random.Random) -> Any:
    n = T.normalizers
    makes = [
        n.NFC, n.NFC, n.NFKC, n.NFD, n.Lowercase, n.StripAccents, lambda: n.Strip(True, False),
        lambda: n.Prepend("▁"), lambda: n.Replace(" ", "▁"), lambda: n.Replace("a", "bb"),
        lambda: n.Replace(T.Regex(" {2,}"), " "), n.Nmt, n.BertNormalizer,
    ]  # fmt: skip
    chance = draw.random()
    if chance < 0.4:
        return None
    if chance < 0.55:
        return n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")])
    if chance < 0.65:
        return n.Replace(" ", "▁")
    steps = [draw.choice(makes)() for _ in range(draw.randrange(1, 3))]
    return steps[0] if len(steps) == 1 else n.Sequence(steps)


def _pre_tokenizer(draw: random.Random) -> Any:
    p = T.pre_tokenizers
    splits = [
        *PATTERNS.values(), r"\w+|\W", r"\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    ]  # fmt: skip
    behaviors = ["isolated"] * 8 + ["removed", "merged_with_previous", "merged_with_next"]

    def byte_level(regex: bool | None = None) -> Any:
        use = draw.random() < 0.8 if regex is None else regex
        return p.ByteLevel(add_prefix_space=draw.random() < 0.2, use_regex=use)

    def split() -> Any:
        behavior, invert = draw.choice(behaviors), draw.random() < 0.1
        return p.Split(T.Regex(draw.choice(splits)), behavior, invert)

    chance = draw.random()
    if chance < 0.2:
        return byte_level()
    if chance < 0.55:
        last = byte_level(draw.random() < 0.1)
        middle = [p.Digits(individual_digits=True)] if draw.random() < 0.15 else []
        return p.Sequence([split(), *middle, last])
    if chance < 0.8:
        scheme = draw.choice(["always", "always", "never", "first"])
        mark = "▁" if draw.random() < 0.9 else "_"
        return p.Metaspace(replacement=mark, prepend_scheme=scheme, split=draw.random() < 0.7)
    if chance < 0.9:
        return None
    return draw.choice([p.Whitespace, p.BertPreTokenizer, p.Punctuation, p.WhitespaceSplit])()


def _model(draw: random.Random) -> tuple[Any, Any]:
    """A model and its trainer."""
    m, size = T.models, draw.choice([300, 400, 600])
    chance = draw.random()
    unknown = ["<unk>"] if draw.random() < 0.6 else []
    has_bytes = draw.random() < 0.7
    specials = [*unknown, "</s>"]
    alphabet = T.pre_tokenizers.ByteLevel.alphabet() if draw.random() < 0.9 else []
    if chance < 0.85:
        options: dict[str, Any] = {"ignore_merges": draw.random() < 0.2}
        fallback = draw.random() < 0.4
        if fallback:
            options |= {"byte_fallback": True}
            specials += [f"<0x{byte:02X}>" for byte in range(256)] if has_bytes else []
            alphabet = []
        if unknown:
            options |= {"unk_token": unknown[0], "fuse_unk": draw.random() < 0.5}
        extra: dict[str, Any] = {}
        if draw.random() < 0.06:
            options["continuing_subword_prefix"] = extra["continuing_subword_prefix"] = "##"
        if draw.random() < 0.06:
            options["end_of_word_suffix"] = extra["end_of_word_suffix"] = "</w>"
        trainer = T.trainers.BpeTrainer(
            vocab_size=size + len(specials), special_tokens=specials, initial_alphabet=alphabet,
            show_progress=False, limit_alphabet=400, **extra,
        )  # fmt: skip
        return m.BPE(**options), trainer
    unk: dict[str, Any] = {"unk_token": "<unk>"} if unknown else {}
    common: dict[str, Any] = {
        "special_tokens": specials,
        "show_progress": False,
        "vocab_size": size,
    }
    if chance < 0.9:
        return m.WordPiece(**unk), (T.trainers.WordPieceTrainer(**common))
    if chance < 0.94:
        return m.WordLevel(**unk), (T.trainers.WordLevelTrainer(**common))
    return m.Unigram(), T.trainers.UnigramTrainer(**common, **unk)


def _edited(draw: random.Random, plain: dict[str, Any]) -> str:
    """Change the file as people and converters do."""
    model = plain["model"]
    specials = [t for t in plain["added_tokens"] if t["content"].startswith("<0x")]
    plain["added_tokens"] = [t for t in plain["added_tokens"] if t not in specials]
    chance = draw.random()
    merges, vocab = model.get("merges"), model.get("vocab")
    if not merges or not isinstance(vocab, dict) or chance > 0.35:
        return ""
    if chance < 0.07:
        merges.append(draw.choice(merges))
        return "merge twice"
    if chance < 0.14:
        first, second = draw.sample(range(len(merges)), 2)
        merges[first], merges[second] = merges[second], merges[first]
        return "merges in another order"
    if chance < 0.21:
        ids = list(vocab.values())
        words = [w for w in vocab if w not in {t["content"] for t in plain["added_tokens"]}]
        numbers = [vocab[w] for w in words]
        draw.shuffle(numbers)
        vocab.update(zip(words, numbers, strict=True))
        assert sorted(vocab.values()) == sorted(ids)
        return "ids in another order"
    if chance < 0.28:
        del merges[draw.randrange(len(merges)) :]
        return "fewer merges"
    # Every split of every token is a merge, as converters from ranks and models write it.
    made = [
        [word[:size], word[size:]]
        for word in sorted(vocab, key=vocab.__getitem__)
        for size in range(1, len(word))
        if word[:size] in vocab and word[size:] in vocab
    ]
    if made:
        model["merges"] = made
    return "all splits"


def _usual(draw: random.Random) -> tuple[Any, Any]:
    """A byte-level BPE, or one with byte fallback, much as they are published."""
    p, n, size = T.pre_tokenizers, T.normalizers, draw.choice([300, 400, 600])
    if draw.random() < 0.5:
        made = T.Tokenizer(T.models.BPE(ignore_merges=draw.random() < 0.3))
        made.normalizer = draw.choice([None, None, n.NFC()])
        last = p.ByteLevel(add_prefix_space=False, use_regex=False)
        split = p.Split(T.Regex(draw.choice(sorted(PATTERNS.values()))), "isolated")
        alone = p.ByteLevel(add_prefix_space=draw.random() < 0.2)
        made.pre_tokenizer = alone if draw.random() < 0.3 else p.Sequence([split, last])
        options: dict[str, Any] = {"initial_alphabet": p.ByteLevel.alphabet()}
        specials = ["</s>"]
    else:
        made = T.Tokenizer(T.models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        space = n.Replace(" ", "▁")
        made.normalizer = draw.choice([None, space, n.Sequence([n.Prepend("▁"), space])])
        if made.normalizer is None:
            scheme = draw.choice(["always", "never", "first"])
            made.pre_tokenizer = p.Metaspace(prepend_scheme=scheme, split=draw.random() < 0.7)
        specials = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        options = {"limit_alphabet": draw.choice([60, 300])}
    return made, T.trainers.BpeTrainer(
        vocab_size=size + len(specials), special_tokens=specials, show_progress=False, **options
    )


def _json(draw: random.Random, folder: Path, corpus: list[str]) -> Made:
    if draw.random() < 0.5:
        made, trainer = _usual(draw)
    else:
        model, trainer = _model(draw)
        made = T.Tokenizer(model)
        made.normalizer, made.pre_tokenizer = _normalizer(draw), _pre_tokenizer(draw)
    made.train_from_iterator(corpus, trainer)
    symbols = []
    many = draw.choice([0, 0, 1, 2, 3, 5, 230])
    for number in range(many):
        text = draw.choice(_SYMBOLS) if many < 10 else f"<t{number}>"
        flags = {
            key: draw.random() < (0.15 if many < 10 else 0.001)
            for key in ("single_word", "lstrip", "rstrip")
        }
        token = T.AddedToken(
            text, normalized=draw.random() < 0.3, special=draw.random() < 0.3, **flags
        )
        (made.add_special_tokens if token.special else made.add_tokens)([token])
        symbols.append(text)
    plain = json.loads(made.to_str())
    edit = _edited(draw, plain)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(plain, ensure_ascii=False))
    options = {
        key: value for key, value in plain["model"].items() if key not in ("vocab", "merges")
    }
    drawn = f"{options} {made.normalizer} {made.pre_tokenizer} {symbols[:5]} {edit}"
    return Made(path, "tokenizer.json", drawn, symbols, eot="</s>")


# --- sentencepiece -----------------------------------------------------------------------------


def _sentencepiece(draw: random.Random, folder: Path, corpus: list[str]) -> Made:
    kind = draw.choice(["bpe"] * 6 + ["unigram", "char", "word"])
    symbols = draw.sample(_SYMBOLS, draw.choice([0, 0, 0, 1, 3]))
    symbols = [symbol for symbol in symbols if symbol.strip() == symbol]
    half = len(symbols) // 2
    user, control = (symbols, []) if draw.random() < 0.5 else (symbols[:half], symbols[half:])
    options: dict[str, Any] = {
        "model_type": kind,
        "byte_fallback": draw.random() < 0.8,
        "user_defined_symbols": user,
        "control_symbols": control,
        "normalization_rule_name": draw.choice(["identity"] * 4 + ["nmt_nfkc", "nfkc_cf"]),
        "remove_extra_whitespaces": draw.random() < 0.25,
        "add_dummy_prefix": draw.random() < 0.7,
        "treat_whitespace_as_suffix": draw.random() < 0.1,
        "split_by_whitespace": draw.random() < 0.8,
        "split_by_unicode_script": draw.random() < 0.7,
        "split_by_number": draw.random() < 0.7,
        "split_digits": draw.random() < 0.4,
        "allow_whitespace_only_pieces": draw.random() < 0.5,
        "character_coverage": draw.choice([1.0, 0.99, 0.98]),
        "hard_vocab_limit": False,
        "vocab_size": draw.choice([600, 700, 900]),
    }
    path = folder / "tokenizer.model"
    lines = [line for text in corpus for line in text.splitlines() if line.strip()]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(path.with_suffix("")), minloglevel=2,
        num_threads=1, **options,
    )  # fmt: skip
    edit = ""
    if draw.random() < 0.1:
        edit = _unused(draw, path)
    return Made(path, "sentencepiece", f"{options} {edit}", symbols)


def _unused(draw: random.Random, path: Path) -> str:
    """Make one piece unused. An entry of the file is 0x0a, its length, its fields; a normal piece
    has no field for its kind (0x18), so one is put behind the others."""
    content, place, normal = path.read_bytes(), 0, []
    while content[place] == 0x0A and (size := content[place + 1]) < 0x7E:
        entry = content[place + 2 : place + 2 + size]
        if 0x18 not in entry[-2:-1] and entry[1] > 1:
            normal.append(place)
        place += 2 + size
    if not normal:
        return ""
    place = draw.choice(normal)
    size = content[place + 1]
    entry = content[place + 2 : place + 2 + size] + b"\x18\x05"
    path.write_bytes(
        content[:place] + bytes([0x0A, size + 2]) + entry + content[place + 2 + size :]
    )
    return "one unused"


# --- ranks -------------------------------------------------------------------------------------


def _ranks(draw: random.Random, folder: Path, corpus: list[str]) -> Made:
    pattern = draw.choice(sorted(PATTERNS))
    made = T.Tokenizer(T.models.BPE())
    split = T.pre_tokenizers.Split(T.Regex(PATTERNS[pattern]), "isolated")
    made.pre_tokenizer = T.pre_tokenizers.Sequence(
        [split, T.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = T.pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        corpus,
        T.trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False),
    )
    from tokenmill.tokenizers.vocabularies.byte_letters import BYTE_LETTERS

    ordered = sorted(made.get_vocab().items(), key=lambda item: item[1])
    tokens = [bytes(map(BYTE_LETTERS.__getitem__, text)) for text, _ in ordered]
    edit = draw.choice(["", "", "shuffled bytes", "odd token", "late byte"])
    if edit == "shuffled bytes":
        head = tokens[:256]
        draw.shuffle(head)
        tokens[:256] = head
    elif edit == "odd token":
        tokens.append(b"zqxjkvw")
    elif edit == "late byte":
        tokens.append(tokens.pop(draw.randrange(256)))
    path = folder / "own.tiktoken"
    path.write_bytes(
        b"".join(base64.b64encode(t) + f" {n}\n".encode() for n, t in enumerate(tokens))
    )
    return Made(path, "ranks", f"{pattern} {edit}", ["<|endoftext|>"], pattern)


# --- the comparison ----------------------------------------------------------------------------


def make(seed: int, folder: Path) -> Made | None:
    """The tokenizer of that seed, in a folder; None where a library will not make what was
    drawn."""
    draw = random.Random(seed)
    corpus = [random_text(draw, [], 400) for _ in range(6)] + list(texts.short_texts())[:40]
    maker = draw.choice([_json] * 6 + [_sentencepiece] * 3 + [_ranks])
    try:
        return maker(draw, folder, corpus)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return None


def library_ids(made: Made, vocabulary: Vocabulary, text: str) -> list[int]:
    """What the reference gives, by its own call, which owes nothing to tokenmill."""
    if made.kind == "sentencepiece":
        ids: list[int] = spm.SentencePieceProcessor(model_file=str(made.path)).encode(text)
        return ids
    if made.kind == "tokenizer.json":
        library = T.Tokenizer.from_file(str(made.path))
        library.encode_special_tokens = True
        found: list[int] = library.encode(text, add_special_tokens=False).ids
        return found
    ranks = {
        base64.b64decode(token): int(rank)
        for token, rank in map(bytes.split, made.path.read_bytes().splitlines())
    }
    assert made.pattern is not None
    encoding = tiktoken.Encoding(
        "own", pat_str=PATTERNS[made.pattern], mergeable_ranks=ranks, special_tokens={}
    )
    return encoding.encode_ordinary(text)


def compare(seed: int, folder: Path, tally: Tally, engine: str = "auto") -> list[str]:
    """Make a tokenizer and hold what tokenmill does with it against the library; the faults. With
    an ``engine`` by name, what that does where it is not refused."""
    made = make(seed, folder)
    tally.tokenizers += 1
    if made is None:
        tally.unmade += 1
        return []
    try:
        vocabulary = load_vocabulary(str(made.path), made.pattern, made.eot)
    except TokenmillError as error:
        tally.refused[error.what.removeprefix(made.path.name)] += 1
        tally.pairs += TEXTS
        return []
    try:
        choice = choose(engine, vocabulary)
    except UsageError as error:
        is_tested = "it differs from" in (error.why or "")
        tally.tested_out += is_tested
        tally.ruled_out += not is_tested
        return []
    tally.engines[choice.engine] += 1
    if "gigatoken is not used: " in choice.why:
        is_tested = "it differs from" in choice.why
        tally.tested_out += is_tested
        tally.ruled_out += not is_tested
    draw = random.Random(seed + 1)
    documents = [random_text(draw, made.symbols) for _ in range(TEXTS)]
    documents[0] = ""
    faults = _whole(made, vocabulary, choice, documents, tally)
    if choice.cuts != NOWHERE:
        faults += _cut(made, vocabulary, choice, documents, seed, tally)
    where = f"seed {seed}, {choice.engine}, {made.kind}, {made.drawn}: "
    return [where + fault for fault in faults]


def _whole(
    made: Made, vocabulary: Vocabulary, choice: Choice, documents: list[str], tally: Tally
) -> list[str]:
    tokens = make_engine(choice.engine, vocabulary).encode([text.encode() for text in documents])
    borders = [-1, *tokens.marks.tolist(), len(tokens.ids)]
    faults = []
    for index, text in enumerate(documents):
        found = tokens.ids[borders[index] + 1 : borders[index + 1]].tolist()
        tally.pairs += 1
        if found != library_ids(made, vocabulary, text):
            faults.append(f"differs for {text[:80]!r}")
    return faults


def _cut(
    made: Made, vocabulary: Vocabulary, choice: Choice, documents: list[str], seed: int,
    tally: Tally,
) -> list[str]:  # fmt: skip
    """The same texts in pieces, wherever the rule finds a place."""
    draw = random.Random(seed + 2)
    engine = make_engine(choice.engine, vocabulary)
    text = "".join(documents)
    data, start, ids, pieces = text.encode(), 0, [], 0
    low = draw.randrange(1, 40)
    while low < len(data):
        cut = cuts.provable_cut(data, low, low + draw.randrange(4, 60), choice.cuts)
        low += draw.randrange(1, 40)
        if cut is not None and cut > start:
            ids += engine.encode_piece(data[start:cut])
            start, low, pieces = cut, max(low, cut + 1), pieces + 1
    ids += engine.encode_piece(data[start:])
    tally.cut_pairs += len(documents)
    tally.pieces += pieces
    if ids != library_ids(made, vocabulary, text):
        return [f"differs when cut in {pieces}"]
    return []


def is_refused_or_exact(seed: int, folder: Path) -> bool:
    """Is gigatoken, asked for by name, refused in words where it is not chosen?"""
    made = make(seed, folder)
    if made is None:
        return True
    try:
        vocabulary = load_vocabulary(str(made.path), made.pattern, made.eot)
        return choose("gigatoken", vocabulary).engine == "gigatoken"
    except UsageError as error:
        return bool(error.fix)


def sample_texts(seed: int, count: int) -> list[str]:
    """Some random texts."""
    draw = random.Random(seed)
    return [random_text(draw, []) for _ in range(count)]
