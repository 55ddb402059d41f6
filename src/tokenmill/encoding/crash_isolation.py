"""Careful work after crashes: one thread that notes what it has in hand, record by record where
needed, so that its parent learns which piece of input kills (``tokenmill.executors.supervisor``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenmill.batches import CRASH, RAW_BYTES, BadRecord, DocumentBatch, TokenBatch
from tokenmill.encoding.encoder import BlockEncoder
from tokenmill.errors import InputError
from tokenmill.executors.supervisor import Attempt, Hand
from tokenmill.sources.block import Block
from tokenmill.tokenizers.engines.engine import Engine


@dataclass(frozen=True)
class SuspectReader:
    """Reads blocks that killed: their records go through the reference engine one by one, noted
    before, and those known to kill are left out."""

    plain: Callable[[Block], DocumentBatch]
    engine: Engine
    hand: Hand
    condemned: set[tuple[str, int | None]]
    is_strict: bool

    def read(self, block: Block) -> DocumentBatch:
        """The documents of a block that do not kill. Raises InputError."""
        where = block.where
        if (where, None) in self.condemned:
            return DocumentBatch([], bad=[self._bad(where, None, block.text_bytes, b"")])
        self.hand.note(where)
        batch = self.plain(block)
        kept = []
        for number, document in enumerate(batch.documents):
            if (where, number) in self.condemned:
                batch.bad.append(self._bad(where, number, len(document), document))
                # A piece of a document that goes on in other blocks stays as an empty piece.
                first, last = number == 0, number == len(batch.documents) - 1
                if (first and batch.continues) or (last and batch.unfinished):
                    kept.append(b"")
                continue
            self.hand.note(where, number)
            self.engine.encode_piece(document)
            kept.append(document)
        batch.documents = kept
        return batch

    def _bad(self, where: str, number: int | None, size: int, text: bytes) -> BadRecord:
        what = "this block" if number is None else f"document {number} of this block"
        if self.is_strict:
            raise InputError(
                f"{what} kills the process that works on it",
                where,
                "native code crashed on it every time, in the reference implementation too",
                "remove it, or leave it out with --on-bad quarantine",
            )
        detail = f"{what} kills the process that works on it"
        return BadRecord(CRASH, detail, where, None, None, number, size, text[:RAW_BYTES])


def careful(
    encoder: BlockEncoder, slow: BlockEncoder, attempt: Attempt, hand: Hand
) -> Callable[[Block, bool], TokenBatch]:
    """Encode as ``encoder`` does, noting every block; suspects with ``slow``, which reads them
    with a ``SuspectReader``."""

    def encode(block: Block, is_due: bool) -> TokenBatch:
        hand.note(block.where)
        return (slow if block.where in attempt.suspects else encoder).encode(block, is_due)

    return encode
