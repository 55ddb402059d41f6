"""Ids of a block wait in the shards' dtype, and are not held twice: a token a byte is much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tokenmill.commands.plan import make_plan
from tokenmill.dataset.spec import Spec
from tokenmill.encoding.encoder import _joined


def test_several_calls_give_ids_of_the_shards_dtype(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    plan = make_plan([str(tmp_path / "a.txt")], Spec.of({}), "gigatoken", 240_000_000, 1)
    encoder = plan.worker(0.0).encoder()
    piece = b"one word and another " * 20_000
    assert 2 * len(piece) > plan.rules(0.0).call_bytes
    tokens = encoder.encode_pieces([piece, b"and a last one", piece])
    assert (tokens.ids.dtype, plan.dtype) == (np.dtype("uint16"), "uint16")
    alone = [encoder.encode_pieces([each]).ids for each in (piece, b"and a last one", piece)]
    assert [each.tolist() for each in np.split(tokens.ids, tokens.marks)] == [
        alone[0].tolist(), [50256, *alone[1]], [50256, *alone[2]],
    ]  # fmt: skip


def test_each_part_is_let_go_when_it_is_copied() -> None:
    parts: list[Any] = [np.arange(size, dtype=np.uint16) for size in (3, 0, 5)]
    assert _joined(parts).tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert not parts
