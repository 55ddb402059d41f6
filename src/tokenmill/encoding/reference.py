"""The check by the reference: which documents it encodes again, and what is compared."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from tokenmill.errors import EngineMismatch
from tokenmill.text.cuts import EVERYWHERE, CutRule, provable_cut
from tokenmill.tokenizers.engines import shared_reference
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenmill.tokenizers.engines.engine import Ids

CHECK_BYTES = 64 * 1024
"""Of a long document, the reference encodes about this much."""


class Reference:
    """The reference engine, made when it is first needed, shared by all threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def encode(self, text: bytes) -> Ids:
        """The reference's ids of one text. No list of them: a text of 500 kB that is a token a
        byte takes 16 MB as one."""
        return shared_reference(self._vocabulary).encode([text]).ids


def drawn(pieces: list[bytes], share: float, seed: str) -> list[int]:
    """Which pieces the reference encodes too: by the seed, not by chance.

    The seed has the file's number and the place in it, not the block's words for them, as it had:
    a path is typed in many ways, and of five ways for one file three drew nothing.
    """
    if share <= 0:
        return []
    draw = random.Random(seed)
    units = max(len(pieces), sum(map(len, pieces)) // CHECK_BYTES)
    count = min(len(pieces), int(share * units + draw.random()))
    return sorted(draw.sample(range(len(pieces)), count))


def checked_part(piece: bytes, rule: CutRule = EVERYWHERE) -> int | None:
    """How much of a piece the reference encodes: up to a cut that changes no id; None if there is
    none near."""
    if len(piece) <= 2 * CHECK_BYTES:
        return len(piece)
    return provable_cut(piece, CHECK_BYTES, 2 * CHECK_BYTES, rule)


def same_ids(found: Ids, expected: Ids, where: str, index: int, reference: str) -> None:
    """Raises EngineMismatch, with the first difference, unless the ids of a document are those of
    the reference."""
    shorter = min(len(found), len(expected))
    differing = np.flatnonzero(found[:shorter] != expected[:shorter])
    if not len(differing) and len(found) == len(expected):
        return
    at = int(differing[0]) if len(differing) else shorter
    raise EngineMismatch(
        "the engine and the reference implementation give different ids",
        f"{where}, document {index} from there, token {at}",
        f"engine {found[at : at + 5].tolist()}, reference {expected[at : at + 5].tolist()}",
        f"run it again with --engine {reference}, and please report the text",
    )
