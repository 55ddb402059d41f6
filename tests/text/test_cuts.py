"""Cutting one text and encoding the pieces gives the ids of the whole, wherever the cuts fall.

White-box: the windows of `tokenmill.text.cuts` are shrunk so that a short text is cut hundreds of
times.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.kit import oracles, texts
from tests.kit.shared import CORPORA, VOCABULARIES, corpus_documents
from tokenmill.sizes import Sizes
from tokenmill.text import cuts

SIZE = 6_000


class Reference:
    """The seam encoder, by tiktoken."""

    def __init__(self, vocabulary: str) -> None:
        self.encoding = oracles.encoding(vocabulary)

    def encode_piece(self, text: bytes) -> list[int]:
        return self.encoding.encode_ordinary(text.decode())

    def token_bytes(self, token: int) -> bytes:
        return self.encoding.decode_single_token_bytes(token)


SMALL = Sizes(window=64, seam_context=1024, run_ahead=256)
"""Windows of a few hundred bytes, so that texts of a few kilobytes are cut often."""


def pieces(data: bytes, vocabulary: str, generator: random.Random) -> Iterator[bytes]:
    """`data` cut by `find_cut` at targets drawn at random."""
    view, encoder, start = cuts.BytesView(data), Reference(vocabulary), 0
    while True:
        floor = start + generator.randrange(16, 200)
        target = floor + generator.randrange(1, 200)
        cut = cuts.find_cut(view, start, target, floor, lambda: encoder, sizes=SMALL)
        if cut is None:
            yield data[start:]
            return
        assert floor <= cut.position < len(data), "a cut must lie ahead, inside the text"
        yield data[start : cut.position]
        start = cut.position


def assert_pieces_give_the_whole(text: str, vocabulary: str, seed: int) -> None:
    parts = [part.decode() for part in pieces(text.encode(), vocabulary, random.Random(seed))]
    assert "".join(parts) == text
    whole = oracles.encode(text, vocabulary)
    position = 0
    for part in parts:
        ids = oracles.encode(part, vocabulary)
        here = whole[position : position + len(ids)]
        assert ids == here, f"cut around {part[-20:]!r} changes the ids"
        position += len(ids)
    assert position == len(whole)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", texts.ADVERSARIES)
def test_adversarial_text_cut_in_many_places(name: str, vocabulary: str) -> None:
    for seed in range(3):
        assert_pieces_give_the_whole(texts.ADVERSARIES[name](SIZE), vocabulary, seed)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_short_texts_joined_in_random_order(vocabulary: str) -> None:
    """Every kind of text next to every other, with and without a space or a newline between."""
    generator = random.Random(7)
    items = [*texts.short_texts(), *(make(40) for make in texts.ADVERSARIES.values())]
    for seed in range(8):
        generator.shuffle(items)
        joined = "".join(item + generator.choice(["", "", " ", "\n", "  "]) for item in items)
        assert_pieces_give_the_whole(joined, vocabulary, seed)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("corpus", CORPORA)
def test_real_documents_cut_in_many_places(corpus: str, vocabulary: str) -> None:
    for seed, text in enumerate(corpus_documents(corpus, 40)):
        assert_pieces_give_the_whole(text[:5000], vocabulary, seed)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("corpus", CORPORA)
def test_real_documents_without_their_spaces(corpus: str, vocabulary: str) -> None:
    """Nothing but seams: real words with no blank between them."""
    for seed, text in enumerate(corpus_documents(corpus, 40)):
        assert_pieces_give_the_whole("".join(text[:5000].split()), vocabulary, seed)


def test_a_string_that_must_stay_whole_is_never_cut() -> None:
    special = "<|endoftext|>"
    data = (special + " word, " + special).encode() * 200
    view, encoder, start = cuts.BytesView(data), Reference("gpt2"), 0
    for target in range(30, len(data) - 100, 61):
        cut = cuts.find_cut(view, start, target, target, lambda: encoder, (special.encode(),))
        if cut is not None:
            assert special.encode() not in data[cut.position - 12 : cut.position + 12]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("unit", ["\n", " ", "=", "a", "哈"])
def test_a_seam_close_to_the_end_of_what_was_looked_at(unit: str, vocabulary: str) -> None:
    """The search sees the text only so far; what it sees of the last run must not mislead it."""
    floor, encoder = 1000, Reference(vocabulary)
    for seen in [*range(8, 60), *range(60, 320, 13)]:
        digits = floor + SMALL.seam_context - 1 - seen * len(unit.encode())
        text = "1" * digits + "b" + unit * (seen + 29) + "2" * (SMALL.window + floor)
        data = text.encode()
        cut = cuts.find_cut(cuts.BytesView(data), 0, floor + 1, floor, lambda: encoder, sizes=SMALL)
        if cut is not None:
            left, right = data[: cut.position].decode(), data[cut.position :].decode()
            assert oracles.encode(left, vocabulary) + oracles.encode(right, vocabulary) == (
                oracles.encode(text, vocabulary)
            ), f"{seen} seen: cut at {cut} changes the ids"


def test_seams_are_found_where_nothing_else_is() -> None:
    """The tests above would prove nothing if these texts were never cut."""
    for name in ("one_letter", "no_spaces", "one_dash", "one_hanzi", "spaces", "newlines"):
        data = texts.ADVERSARIES[name](SIZE).encode()
        assert len(list(pieces(data, "gpt2", random.Random(0)))) > 5, f"{name} is never cut"


PITFALLS = {
    # Each gave wrong ids with o200k_base under an earlier rule; see docs/decisions on cuts.
    "capitals after letters without case": "亚洲" + "AV" * 1000 + "b end",
    "slashes after a sign and a line end": "!\n" + "/" * 2000 + "*** end",
    "a run of capitals after one small letter": "iPhone" + "AV" * 1000 + "b end",
}


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", PITFALLS)
def test_pitfalls_of_the_split_patterns(name: str, vocabulary: str) -> None:
    for seed in range(5):
        assert_pieces_give_the_whole(PITFALLS[name], vocabulary, seed)


TABLES = {
    "numbers with commas": "12,345,6\n" * 1000,
    "numbers a line": "123456\n789\n" * 1000,
    "columns between tabs": "ab\tcd\t12\n" * 1000,
    "hexadecimal": "00ff3a7b" * 1000,
    "chinese": "我们。你们，" * 1000,
}


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", TABLES)
def test_tables_need_no_seam(name: str, vocabulary: str) -> None:
    """Text without a space is cut where the pattern itself divides it."""
    data = TABLES[name].encode()
    cut = cuts.find_cut(cuts.BytesView(data), 0, 3000, 2000, lambda: Reference(vocabulary))
    assert cut is not None and cut.seam is None
    left, right = data[: cut.position].decode(), data[cut.position :].decode()
    assert oracles.encode(left, vocabulary) + oracles.encode(right, vocabulary) == (
        oracles.encode(TABLES[name], vocabulary)
    )


def test_blanks_that_are_known_to_hold_no_cut_hold_none() -> None:
    """The quick look over a window misses nothing beside a blank that the rules would find."""
    rng, passed = random.Random(7), 0
    letters = ["a", "é", "ß", "无", "ب", "\u0301", "1", "½", "²", "Ⅷ", "_", "-", "€", "'", "\udc80"]
    blanks = [" ", " ", "\t", "\n", "\u00a0", "\u3000", "\x1c", "\x85", "\u200b"]
    for _ in range(20_000):
        few = rng.sample(letters, rng.randint(0, 2)) + rng.sample(blanks, rng.randint(1, 4))
        text = "".join(rng.choice(few) for _ in range(rng.randint(3, 12)))
        if " " in text and not cuts._MAY_HOLD_A_CUT.search(text):
            passed += 1
            assert not [
                (text, index)
                for replacement in ("", "\ufffd")
                for index in range(1, len(text) - 1)
                if cuts._is_provable(text, index, replacement)
            ]
    assert passed > 1000
    assert not cuts._MAY_HOLD_A_CUT.search(" " * 1000)
