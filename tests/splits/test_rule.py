"""The rule of the splits as a value: what it says, and that it travels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xxhash

from tokenmill.batches import Counts, TokenBatch, TokenRun
from tokenmill.dataset.spec import Spec
from tokenmill.splits import HASHED_BYTES, TRAIN, VAL, SplitRouter, SplitRule, split_at

RULES = {
    "none": (SplitRule(), (TRAIN,), (VAL, TRAIN), "none: all documents are train"),
    "hash": (SplitRule(0.25, 7), (VAL, TRAIN), (), "by document: a seeded hash below 0.25 is val"),
    "tokens": (
        SplitRule(tokens=9), (VAL, TRAIN), (VAL, TRAIN),
        "by position: the first 9 tokens are val",
    ),
    "documents": (
        SplitRule(documents=2), (VAL, TRAIN), (VAL, TRAIN),
        "by position: the first 2 documents go to val",
    ),
    "border": (
        SplitRule(0.1, border=90), (VAL, TRAIN), (TRAIN, VAL),
        "by position: one document, val begins at the safe cut at or near byte 90",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_says(name: str) -> None:
    rule, names, joined, words = RULES[name]
    assert (rule.names, rule.joined, rule.words()) == (names, joined, words)
    assert rule.has_validation == (VAL in names)
    assert pickle.loads(pickle.dumps(rule)) == rule


def test_the_spec_makes_it() -> None:
    assert Spec.of({"val_fraction": 0.25, "seed": 7}).split_rule == SplitRule(0.25, 7)
    assert Spec.of({"val_tokens": "2K"}).split_rule == SplitRule(tokens=2000)
    assert Spec.of({"val_docs": 3}).split_rule == SplitRule(documents=3)


def test_the_hash_is_of_the_first_mebibyte_and_seeded() -> None:
    long = b"ab" * HASHED_BYTES
    for seed in range(20):
        rule = SplitRule(0.5, seed)
        head = xxhash.xxh3_64_intdigest(long[:HASHED_BYTES], seed)
        assert rule.is_val(long) is rule.is_val(long[:HASHED_BYTES]) is (head < 2**63)
    drawn = [SplitRule(0.1, 3).is_val(b"%d" % number) for number in range(10_000)]
    assert 900 < sum(drawn) < 1100


def test_the_border() -> None:
    assert [split_at(place, 90) for place in (0, 89, 90, 91)] == [TRAIN, TRAIN, VAL, VAL]
    assert split_at(5, None) is None
    assert SplitRule(0.1).border_in(1000) == 900
    assert SplitRule(0.99).border_in(1) == 1
    # Damage behind the border ends a document where it was; nothing else has no split.
    assert SplitRule(0.1, border=90).default is None
    assert SplitRule(tokens=5).default == SplitRule().default == TRAIN


def batch(*sizes: int, continues: bool = False, split: str | None = TRAIN) -> TokenBatch:
    """Documents of so many tokens; where it ``continues``, the first is the rest of one."""
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)[int(continues) :]
    run = TokenRun(split, np.arange(sum(sizes)), starts)
    return TokenBatch([run], Counts(), 0)


def routed(router: SplitRouter, batch: TokenBatch) -> list[tuple[str, int, list[int]]]:
    return [(split, len(ids), starts.tolist()) for split, ids, starts in router.route(batch)]


def test_the_first_tokens_go_to_val() -> None:
    router = SplitRouter(SplitRule(tokens=5))
    assert routed(router, batch(3, 4, 2)) == [(VAL, 5, [0, 3]), (TRAIN, 4, [2])]
    assert routed(router, batch(2)) == [(TRAIN, 2, [0])]
    resumed = SplitRouter(SplitRule(tokens=5), val_left=1)
    assert routed(resumed, batch(2)) == [(VAL, 1, [0]), (TRAIN, 1, [])]


def test_the_first_documents_go_to_val_whole() -> None:
    router = SplitRouter(SplitRule(documents=2))
    assert routed(router, batch(3)) == [(TRAIN, 0, []), (VAL, 3, [0])]
    assert routed(router, batch(1, 4, 2, continues=True)) == [
        (VAL, 1, []), (VAL, 4, [0]), (TRAIN, 2, [0]),
    ]  # fmt: skip


def test_a_document_goes_on_where_it_began() -> None:
    router = SplitRouter(SplitRule(0.5))
    assert routed(router, batch(3, split=VAL)) == [(VAL, 3, [0])]
    assert routed(router, batch(4, continues=True, split=None)) == [(VAL, 4, [])]
    assert routed(SplitRouter(SplitRule(0.5), 0, VAL), batch(1, split=None))[0][0] == VAL


def test_what_is_told_of_an_empty_split() -> None:
    rule = SplitRule(0.01)
    assert "may be empty" in str(rule.doubt(10)) and rule.doubt(10_000) is None
    assert SplitRule(0.01, border=7).doubt(1) is None
    assert "none of 10 documents was drawn" in str(rule.outcome({TRAIN: 9}, 10))
    assert rule.outcome({TRAIN: 9, VAL: 1}, 10) is None and rule.outcome({}, 0) is None
    taken = SplitRule(documents=5).outcome({TRAIN: 0, VAL: 9}, 3)
    assert taken == "there is nothing for training: --val-docs 5 takes all; fix: fewer"
    assert SplitRule(0.001).expected(10**6, 100) == 0
    assert SplitRule(0.1, border=7).expected(1000, 1) == 100
    assert SplitRule(documents=5).expected(1000, 10) == 500
    assert SplitRule(tokens=5000).expected(1000, 10) == 1000
