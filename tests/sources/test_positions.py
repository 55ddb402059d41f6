"""Blocks from any position on are the same blocks as in the whole: what resuming rests on."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kit import corpora, texts
from tests.kit.shared import ARTICLES
from tokenmill.batches import START, Position
from tokenmill.commands.plan import Plan, make_plan
from tokenmill.dataset.spec import Spec
from tokenmill.sizes import Sizes


def seen(plan: Plan, start: Position) -> list[tuple[Any, ...]]:
    """What can be seen of each block from `start` on."""
    found: list[tuple[Any, ...]] = []
    corpus = plan.corpus()
    for each in corpus.blocks(start):
        batch = corpus.read(each)
        found.append(
            (
                each.where, each.end, each.size, each.seam_before, each.seam_after,
                batch.documents, batch.continues, batch.unfinished, batch.split, batch.counts,
                batch.bad,
            )
        )  # fmt: skip
    return found


SMALL = Sizes(block=4096, hashed=2048, reach=2048)


def check_positions(plan: Plan, step: int = 1) -> None:
    whole = seen(plan, START)
    assert len(whole) > 3
    for index in range(0, len(whole), step):
        end = whole[index][1]
        assert isinstance(end, Position)
        assert json.loads(json.dumps(end.state)) == end.state, "a state is plain data"
        assert seen(plan, end) == whole[index + 1 :]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("parquet", ""), *itertools.product(["txt", "jsonl"], ["", *corpora.COMPRESSORS])],
)
def test_every_position(kind: str, suffix: str, tmp_path: Path) -> None:
    documents = [f"{n} {texts.prose(700)}" for n in range(40)] + ["", "a" * 9000, "b"]
    corpus = corpora.write(tmp_path, kind, documents)
    path = corpus.path
    if suffix:
        path = path.with_name(path.name + suffix)
        path.write_bytes(corpora.COMPRESSORS[suffix](corpus.path.read_bytes()))
    options: Any = corpus.options
    check_positions(make_plan([str(path), str(ARTICLES)], Spec.of(options), sizes=SMALL))


@pytest.mark.parametrize("unbroken", [False, True])
def test_every_position_in_one_document(unbroken: bool, tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("z" * 120_000 if unbroken else texts.prose(40_000))
    check_positions(make_plan([str(path)], Spec.of({"val_fraction": 0.3}), sizes=SMALL), 5)


def test_every_position_in_giant_row_groups_between_small_ones(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes = replace(SMALL, large_row_group=16_000, batch=2000)
    path = tmp_path / "groups.parquet"
    table = pa.table({"text": [f"{n} {texts.prose(300)}" for n in range(200)]})
    with pq.ParquetWriter(path, table.schema, use_dictionary=False) as writer:
        for low, high in [(0, 3), (3, 6), (6, 120), (120, 123), (123, 200)]:
            writer.write_table(table.slice(low, high - low), row_group_size=200)
    plan = make_plan([str(path)], Spec.of({}), sizes=sizes)
    check_positions(plan)
    texts_seen = [document for entry in seen(plan, START) for document in entry[5]]
    assert texts_seen == [value.encode() for value in table["text"].to_pylist()]
