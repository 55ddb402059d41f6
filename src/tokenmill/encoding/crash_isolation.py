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


@dataclass(kw_only=True)
class SuspectBlock(Block):
    """A block that killed: its records go through the reference engine one by one, noted before,
    and those known to kill are left out."""

    block: Block
    reference: Engine
    hand: Hand
    condemned: set[tuple[str, int | None]]
    is_strict: bool

    @property
    def where(self) -> str:
        return self.block.where

    @property
    def text_bytes(self) -> int:
        return self.block.text_bytes

    def read(self) -> DocumentBatch:
        if (self.where, None) in self.condemned:
            return DocumentBatch([], bad=[self._bad(None, self.text_bytes, b"")])
        self.hand.note(self.where)
        batch = self.block.read()
        kept = []
        for number, document in enumerate(batch.documents):
            if (self.where, number) in self.condemned:
                batch.bad.append(self._bad(number, len(document), document))
                # A piece of a document that goes on in other blocks stays as an empty piece.
                first, last = number == 0, number == len(batch.documents) - 1
                if (first and batch.continues) or (last and batch.unfinished):
                    kept.append(b"")
                continue
            self.hand.note(self.where, number)
            self.reference.encode_piece(document)
            kept.append(document)
        batch.documents = kept
        return batch

    def _bad(self, number: int | None, size: int, text: bytes) -> BadRecord:
        what = "this block" if number is None else f"document {number} of this block"
        if self.is_strict:
            raise InputError(
                f"{what} kills the process that works on it",
                self.where,
                "native code crashed on it every time, in the reference implementation too",
                "remove it, or leave it out with --on-bad quarantine",
            )
        detail = f"{what} kills the process that works on it"
        return BadRecord(CRASH, detail, self.where, None, None, number, size, text[:RAW_BYTES])


def careful(
    encoder: BlockEncoder,
    reference: BlockEncoder,
    engine: Engine,
    attempt: Attempt,
    hand: Hand,
    is_strict: bool,
) -> Callable[[Block], TokenBatch]:
    """Encode as ``encoder`` does, noting every block; suspects with ``reference``, which works
    with ``engine``."""

    def encode(block: Block) -> TokenBatch:
        hand.note(block.where)
        if block.where not in attempt.suspects:
            return encoder.encode(block)
        suspect = SuspectBlock(
            size=block.size,
            after=block.after,
            file_number=block.file_number,
            seam_before=block.seam_before,
            seam_after=block.seam_after,
            block=block,
            reference=engine,
            hand=hand,
            condemned=attempt.condemned,
            is_strict=is_strict,
        )
        return reference.encode(suspect)

    return encode
