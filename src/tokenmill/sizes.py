"""How large things are that a corpus is divided into: one value, handed down from the run.

The defaults decide where blocks end, and with that which documents the reference checks and where
an unfinished run stands: they never follow from threads or memory, and to change one is to change
what is written. No option sets them. Tests hand in smaller ones, so that a small corpus has many
blocks; a ``Sizes`` is plain data, and travels to other processes as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True)
class Sizes:
    """In bytes of text, unless said otherwise."""

    block: int = 2 * MIB
    """Text in one block, about. Measured: from 1 to 2 MiB is fastest, for the text and its ids then
    stay in the processor's caches; more costs up to a fifth, less costs Python time."""
    least_block: int = 64 * KIB
    """A block of very short documents is made no smaller than this."""
    most_documents: int = 128 * KIB
    """In a block of text, about. Measured: ten million empty lines took 450 MB in blocks of two
    million of them."""
    most_records: int = 50_000
    """Of a block of text that become bad records one by one: with more, it is hardly UTF-8 at all,
    and what is near goes, too. A block of 300,000 lines with a fault each took 150 MB."""
    hashed: int = MIB
    """A document that goes on in the next block has at least this much in its first one; so much
    of it decides its split."""
    reach: int = MIB
    """So far behind the place where a block should end a divider is looked for."""
    line_step: int = 64 * KIB
    """Looked at in one step, when the end of a line is looked for."""

    window: int = 64 * KIB
    """Looked at in one step of the search for a provable cut."""
    seam_context: int = 4 * KIB
    run_ahead: int = KIB
    """How far a run must go on after a seam: many times the longest token, since the ids near the
    end of what was looked at are those of a shorter run."""

    large_row_group: int = 6 * MIB
    """A row group whose text is larger than this is streamed instead of read by one thread.
    Measured: with 12 MiB, groups of 11 MB filled the window one by one, and a second thread had
    nothing to do."""
    batch: int = 512 * KIB
    """Rows decoded at once have about this much text, ..."""
    batch_rows: int = 1024
    """... and are no more than so many."""
    dictionary_rows: int = 4
    """Rows that are as large as their whole dictionary, which may be in hand at a time."""
    dictionary_batch_rows: int = 64
    dictionary_batch: int = 32 * MIB


DEFAULT_SIZES = Sizes()
