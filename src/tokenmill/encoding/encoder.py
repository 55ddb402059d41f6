"""One block, start to finish: read, divide, encode, delimit, assign to splits.

``BlockEncoder.encode`` is a function of the spec and the block alone (its engine's caches change
the speed only), so blocks may be encoded by any number of threads, in any order, on any machine.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from tokenmill.batches import (
    RAW_BYTES,
    TOO_LARGE,
    BadRecord,
    DocumentBatch,
    QuarantineLines,
    TokenBatch,
    TokenRun,
)
from tokenmill.encoding.calls import Calls
from tokenmill.encoding.reference import CHECK_BYTES, Reference, checked_part, drawn, same_ids
from tokenmill.encoding.rules import EncodingRules
from tokenmill.errors import EngineMismatch, InputError
from tokenmill.memory import TooLarge
from tokenmill.sources.block import Block
from tokenmill.splits import TRAIN, VAL
from tokenmill.text.cuts import EVERYWHERE, NOWHERE, BytesView, CutRule, find_cut, provable_cut
from tokenmill.tokenizers.engines.engine import Engine, Tokens
from tokenmill.tokenizers.vocabularies.vocabulary import END_OF_TEXT
from tokenmill.units import format_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tokenmill.tokenizers.engines.engine import Ids

LARGE_PIECE = 512 * 1024
"""Of a text, encoded at once: an engine's caches are dropped after it."""


class BlockEncoder:
    """Encodes blocks with one engine, for one thread at a time; ``read`` gives their documents."""

    def __init__(
        self,
        rules: EncodingRules,
        engine: Engine,
        reference: Reference,
        read: Callable[[Block], DocumentBatch],
        after_call: Callable[[BlockEncoder], None] = lambda encoder: None,
        calls: Calls | None = None,
    ) -> None:
        self._rules = rules
        self._read = read
        self._after_call = after_call
        self._engine = engine
        self._calls = calls or Calls()
        self._calls.watch(self.drop_caches)
        self._seams = SeamEngine(engine, self._calls)
        self._reference = reference
        # Every known pattern splits the letters inside from the signs around them, so that their
        # ids stand together wherever the text does. Looking for those ids is ten times faster
        # than looking for the bytes, which happens only when they are found.
        is_split = rules.special == END_OF_TEXT.encode() and rules.cuts == EVERYWHERE
        with self._calls.usual():
            self._special_ids = engine.encode_piece(b"endoftext") if is_split else []
        self._is_due = False
        self.drops = 0
        """Of caches, because memory was short."""
        self.bytes_since_drop = 0

    def drop_caches(self) -> None:
        """Free the engine's caches; the ids stay the same."""
        self._engine.drop_caches()
        self.bytes_since_drop = 0

    def encode(self, block: Block, is_due: bool = False) -> TokenBatch:
        """The block's tokens, delimiters in place. ``is_due``: nothing of the run was checked yet,
        so that the reference has one piece to check, whatever the share; which block's counts is
        decided where blocks come in order: the first. Raises InputError, EngineMismatch."""
        self._is_due, drops = is_due, self.drops
        began = time.perf_counter()
        batch = self._read(block)
        if self._rules.cuts == NOWHERE:
            self._leave_out_too_large(batch, block)
        was_read = time.perf_counter()
        while True:
            try:
                result = self._encoded(batch, block)
            except TooLarge as large:
                self._leave_out(batch, block, large)
            else:
                break
        if batch.bad:
            result.quarantined = QuarantineLines.of(batch.bad)
        result.seconds_reading = was_read - began
        result.seconds_encoding = time.perf_counter() - was_read
        result.cache_drops = self.drops - drops
        return result

    def _encoded(self, batch: DocumentBatch, block: Block) -> TokenBatch:
        counts = batch.counts
        documents = batch.documents
        counts.documents = len(documents) - (batch.continues and bool(documents))
        counts.text_bytes = sum(map(len, documents))
        counts.empty_documents = _whole_empty(batch)
        result = TokenBatch([], counts, block.size)
        if documents:
            self._encode_into(result, batch, block)
        return result

    def _leave_out(self, batch: DocumentBatch, block: Block, large: TooLarge) -> None:
        """A document that is too large for memory where it cannot be cut is no document, or an
        error."""
        index = large.index
        size = len(batch.documents[index])
        what = f"a text of {format_bytes(large.size)} that cannot be cut"
        what += f", in a document of {format_bytes(size)}," * (large.size < size)
        what += " is too large for the memory budget"
        why = "the engine must have it as a whole, for its ids to be right"
        detail = f"{what}; it needs {large.fix}"
        rest = self._in_place_of(
            index, batch, block, InputError(what, None, why, large.fix), detail
        )
        if rest and index == 0 and batch.continues:
            block.seam_before = None
        if rest and index == len(batch.documents) - 1 and batch.unfinished:
            block.seam_after = None
        batch.documents[index : index + 1] = rest

    def _in_place_of(
        self, index: int, batch: DocumentBatch, block: Block, error: InputError, detail: str
    ) -> list[bytes]:
        """What stays of a document that is too large for memory, when ``batch`` has its record.
        Raises ``error``, with its place, unless such records are kept."""
        document = batch.documents[index]
        where = f"{block.where}, document {index} from there"
        if not self._rules.quarantines:
            fix = f"{error.fix}, or divide the document"
            raise InputError(error.what, where, error.why, fix)
        raw = document[:RAW_BYTES]
        batch.bad.append(BadRecord(TOO_LARGE, detail, where, None, None, index, len(document), raw))
        is_head = index == 0 and batch.continues
        is_tail = index == len(batch.documents) - 1 and batch.unfinished
        # A part of a document that goes on in other blocks stays as an empty part.
        return [b""] if is_head or is_tail else []

    def _leave_out_too_large(self, batch: DocumentBatch, block: Block) -> None:
        """What is never cut must fit into memory with all that the engine makes of it."""
        limit, kept = self._rules.document_bytes, []
        for index, document in enumerate(batch.documents):
            size = self._rules.grown_bytes(document, limit)
            if size <= limit:
                kept.append(document)
                continue
            what = f"a document of {format_bytes(len(document))} is too large for the memory budget"
            why = "this tokenizer's text cannot be cut, so that it must be encoded as a whole"
            if size > len(document):
                why += f", and it makes {format_bytes(size)} or more of it"
            error = InputError(
                what, None, why, f"about {size / limit + 0.1:.1f} times the --memory"
            )
            kept += self._in_place_of(index, batch, block, error, f"{what}: {why}")
        batch.documents = kept

    def _encode_into(self, result: TokenBatch, batch: DocumentBatch, block: Block) -> None:
        pieces, borders = self._pieces(batch.documents)
        try:
            tokens = self.encode_pieces(pieces)
        except TooLarge as large:
            index = large.index
            index = index if borders is None else int(np.searchsorted(borders, index))
            raise TooLarge(large.size, large.need, index) from None
        self._check_seams(tokens, block)
        if any(pieces):
            self._compare(result, pieces, tokens, block)
        self._find_special_text(result, batch, tokens, block)
        result.counts.unknown_tokens = self._unknown_tokens(tokens)
        marks = tokens.marks if borders is None else tokens.marks[borders]
        result.runs = self._runs(batch, tokens.ids, marks)
        result.counts.tokens = sum(len(run.ids) for run in result.runs)

    def _pieces(self, documents: list[bytes]) -> tuple[list[bytes], NDArray[np.int64] | None]:
        """What is encoded apart; and which marks divide documents, when not all do.

        With ``--special-text token`` a document divides where the special text stands: the mark
        between two pieces is then the very id that it becomes.
        """
        special = self._rules.special
        if self._rules.special_text != "token" or not special:
            return documents, None
        pieces: list[bytes] = []
        ends: list[int] = []
        for document in documents:
            pieces += document.split(special)
            ends.append(len(pieces) - 1)
        return pieces, np.array(ends[:-1], np.int64)

    def encode_pieces(self, pieces: list[bytes]) -> Tokens:
        """Encode in groups of bounded size, so that the engine's memory is bounded too."""
        large = 2 * self._rules.call_bytes
        groups, first = list(_groups(pieces, self._rules.call_bytes)), 0
        if len(groups) == 1 and len(pieces[0]) <= large:
            return self._call(pieces)
        ids: list[Ids] = []
        marks: list[NDArray[np.int64]] = []
        mark = np.array([self._rules.end_of_text], self._rules.dtype)
        length = 0
        for group in groups:
            if ids:
                ids.append(mark)
                marks.append(np.array([length], np.int64))
                length += 1
            try:
                found = (
                    Tokens(self._encode_large(group[0]), np.empty(0, np.int64))
                    if len(group) == 1 and len(group[0]) > large
                    else self._call(group)
                )
            except TooLarge as piece:
                raise TooLarge(piece.size, piece.need, piece.index + first) from None
            first += len(group)
            ids.append(self._narrowed(found.ids))
            marks.append(found.marks + length)
            length += len(found.ids)
            del found
        return Tokens(_joined(ids), np.concatenate(marks))

    def _narrowed(self, ids: Ids) -> Ids:
        """In the shards' dtype, which may take half the memory. Raises EngineMismatch."""
        self._check_largest(ids)
        return ids.astype(self._rules.dtype, copy=False)

    def _check_largest(self, ids: Ids) -> None:
        rules, largest = self._rules, int(ids.max()) if len(ids) else 0
        if largest > rules.largest_id:
            raise EngineMismatch(
                f"the engine gave id {largest}, larger than the vocabulary's largest, "
                f"{rules.largest_id}",
                fix=f"run it again with --engine {rules.reference}, and report the tokenizer",
            )

    def _call(self, pieces: list[bytes]) -> Tokens:
        """One call of the engine, then a look at the memory. Raises TooLarge."""
        tokens = self._alone(pieces)
        if tokens is None:
            with self._calls.usual():
                tokens = self._engine.encode(pieces)
        self.bytes_since_drop += sum(map(len, pieces))
        self._after_call(self)
        return tokens

    def _alone(self, pieces: list[bytes]) -> Tokens | None:
        """The tokens of pieces of which one is so large, and cannot be cut, that nothing else may
        be under way; None where there is none."""
        index = max(range(len(pieces)), key=lambda index: len(pieces[index]))
        size = len(pieces[index])
        if size <= self._calls.alone_above or _is_divisible(pieces[index], self._rules.cuts):
            return None
        try:
            with self._calls.alone(size):
                tokens = self._engine.encode(pieces)
                self.drop_caches()  # 25 bytes for each byte of a word of megabytes
        except TooLarge as large:
            raise TooLarge(size, large.need, index) from None
        return tokens

    def _encode_large(self, document: bytes) -> Ids:
        """A document too large for one call, cut where it is safe."""
        view, start, seam = BytesView(document), 0, None
        parts: list[Ids] = []
        while True:
            target = start + self._rules.call_bytes
            cut = None
            if self._rules.cuts != NOWHERE:
                middle = (start + target) // 2
                rule, sizes = self._rules.cuts, self._rules.sizes
                cut = find_cut(
                    view, start, target, middle, lambda: self._seams, rule=rule, sizes=sizes
                )
            stop = len(document) if cut is None else cut.position
            ids = self._call([document[start:stop]]).ids
            _check_seam(ids, seam, cut.seam[0] if cut and cut.seam else None, "a large document")
            parts.append(self._narrowed(ids))
            if cut is None:
                return _joined(parts)
            start, seam = stop, cut.seam[1] if cut.seam else None

    @staticmethod
    def _check_seams(tokens: Tokens, block: Block) -> None:
        _check_seam(tokens.ids, block.seam_before, block.seam_after, block.where)

    def _compare(
        self, result: TokenBatch, pieces: list[bytes], tokens: Tokens, block: Block
    ) -> None:
        """Encode a drawn few with the reference and stop at the first difference; one at least,
        while nothing of the run was checked."""
        place = sorted((key, value) for key, value in block.after.items() if key != "disk")
        seed = f"{self._rules.seed}:{block.file_number}:{place}"
        for index in drawn(pieces, self._rules.check, seed):
            result.checked_bytes += self._compare_one(index, pieces, tokens, block)
            result.checked_documents += 1
        if self._is_due and not result.checked_bytes:
            index = random.Random(seed).choice([n for n, piece in enumerate(pieces) if piece])
            result.due_bytes = self._compare_one(index, pieces, tokens, block)

    def _compare_one(self, index: int, pieces: list[bytes], tokens: Tokens, block: Block) -> int:
        """How many bytes of a piece were held against the reference. Raises EngineMismatch."""
        piece = pieces[index]
        cut = checked_part(piece, self._rules.cuts)
        if cut is None:  # never cut: its beginning, as a text of its own, says something, too
            piece = _head(piece)
            with self._calls.usual():
                found = self._engine.encode([piece]).ids
            expected = self._reference.encode(piece)
        else:
            expected = self._reference.encode(piece[:cut])
            start = int(tokens.marks[index - 1]) + 1 if index else 0
            stop = int(tokens.marks[index]) if index < len(tokens.marks) else len(tokens.ids)
            stop = start + len(expected) if cut < len(piece) else stop
            found = tokens.ids[start:stop]
        same_ids(found, expected, block.where, index, self._rules.reference)
        return len(piece) if cut is None else cut

    def _find_special_text(
        self, result: TokenBatch, batch: DocumentBatch, tokens: Tokens, block: Block
    ) -> None:
        """Count the delimiter's text written in documents; refuse it where that was asked."""
        special = self._rules.special
        if not special:
            return
        if self._rules.special_text == "token":
            result.counts.special_text = len(tokens.marks) - (len(batch.documents) - 1)
            return
        if self._special_ids and not _holds(tokens.ids, self._special_ids):
            return
        for index, document in enumerate(batch.documents):
            found = document.count(special)
            if found and self._rules.special_text == "error":
                raise InputError(
                    f"a document contains {special.decode()}",
                    f"{block.where}, document {index} from there, at {document.index(special)}",
                    "--special-text error was asked for",
                    "use --special-text text (keep it as text) or token (make it the id)",
                )
            result.counts.special_text += found

    def _unknown_tokens(self, tokens: Tokens) -> int:
        unknown = self._rules.unknown_id
        if unknown is None:
            return 0
        found = int(np.count_nonzero(tokens.ids == unknown))
        return found - (len(tokens.marks) if unknown == self._rules.end_of_text else 0)

    def _runs(self, batch: DocumentBatch, ids: Ids, marks: NDArray[np.int64]) -> list[TokenRun]:
        """Final dtype, delimiters in place, cut into runs of one split."""
        rules = self._rules
        self._check_largest(ids)
        if rules.delimiter == "none":
            kept = np.delete(ids, marks).astype(rules.dtype, copy=False)
            starts = marks - np.arange(len(marks))
        else:
            kept, starts = self._delimited(batch, ids, marks)
        borders = np.concatenate(([0], starts, [len(kept)])).astype(np.int64)
        if not rules.split.draws_documents:
            split = batch.split or rules.split.default
            return [TokenRun(split, kept, borders[int(batch.continues) : -1])]
        return self._split_runs(batch, kept, borders)

    def _delimited(
        self, batch: DocumentBatch, ids: Ids, marks: NDArray[np.int64]
    ) -> tuple[Ids, NDArray[np.int64]]:
        """The marks stand between documents already; only the batch's own ends are missing."""
        rules = self._rules
        lead = int(rules.delimiter == "before" and not batch.continues)
        tail = int(rules.delimiter == "after" and not batch.unfinished)
        kept = np.empty(lead + len(ids) + tail, rules.dtype)
        kept[lead : lead + len(ids)] = ids
        if lead:
            kept[0] = rules.end_of_text
        if tail:
            kept[-1] = rules.end_of_text
        return kept, marks + (lead if rules.delimiter == "before" else 1)

    def _split_runs(
        self, batch: DocumentBatch, kept: Ids, borders: NDArray[np.int64]
    ) -> list[TokenRun]:
        """The documents of each split as one run, that of the last document last, since it may go
        on; the rest of a continued document stands before them and keeps its split."""
        runs = []
        first = int(batch.continues)
        if first:
            runs.append(TokenRun(None, kept[: borders[1]], np.empty(0, np.int64)))
        sides = np.array([self._rules.is_val(document) for document in batch.documents[first:]])
        lengths = np.diff(borders[first:])
        for side in (not sides[-1], sides[-1]) if len(sides) else ():
            chosen = sides == side
            if not chosen.any():
                continue
            ids = kept[borders[first] :]
            if not chosen.all():
                ids = ids[np.repeat(chosen, lengths)]
            ends = np.cumsum(lengths[chosen])
            begins = np.concatenate(([0], ends[:-1])).astype(np.int64)
            runs.append(TokenRun(VAL if side else TRAIN, ids, begins))
        return runs


class SeamEngine:
    """An engine as the search for seams uses it: megabytes that cannot be cut, each byte a token,
    would take forty bytes for each of them in a list."""

    def __init__(self, engine: Engine, calls: Calls | None = None) -> None:
        self._engine = engine
        self._calls = calls or Calls()

    def encode_piece(self, text: bytes) -> array[int]:
        """The ids of a text. Raises TooLarge."""
        ids, size = array("I"), len(text)
        is_large = size > self._calls.seams_above
        with self._calls.alone(size) if is_large else self._calls.usual():
            ids.frombytes(self._engine.encode([text]).ids.astype(np.uint32).tobytes())
            if size > LARGE_PIECE:
                self._engine.drop_caches()
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        return self._engine.token_bytes(token)


def _head(piece: bytes) -> bytes:
    """The beginning of a long piece, in whole characters."""
    stop = CHECK_BYTES
    while stop < len(piece) and piece[stop] & 0xC0 == 0x80:
        stop -= 1
    return piece[:stop]


def _whole_empty(batch: DocumentBatch) -> int:
    """Empty documents, parts of larger ones left out."""
    documents = batch.documents
    count = documents.count(b"")
    if documents and batch.continues and not documents[0]:
        count -= 1
    if len(documents) > (1 if batch.continues else 0) and batch.unfinished and not documents[-1]:
        count -= 1
    return count


def _is_divisible(piece: bytes, rule: CutRule) -> bool:
    """Are there provable cuts all over a piece, a few hundred kilobytes apart at most?"""
    low, step = 0, LARGE_PIECE // 2
    while low + step < len(piece):
        cut = provable_cut(piece, low + 1, low + step, rule)
        if cut is None:
            return False
        low += step
    return True


def _joined(parts: list[Ids]) -> Ids:
    """One array of all. Each part is let go when it is copied, so that megabytes of ids are not
    held twice."""
    whole, start = np.empty(sum(map(len, parts)), parts[0].dtype), 0
    parts.reverse()
    while parts:
        part = parts.pop()
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def _groups(pieces: list[bytes], call_bytes: int) -> Iterator[list[bytes]]:
    """Consecutive pieces of about ``call_bytes`` together; a larger one alone."""
    group: list[bytes] = []
    size = 0
    for piece in pieces:
        if group and size + len(piece) > call_bytes + call_bytes // 2:
            yield group
            group, size = [], 0
        group.append(piece)
        size += len(piece)
    yield group


def _holds(ids: Ids, wanted: list[int]) -> bool:
    """Does ``wanted`` occur in ``ids``, in order and without a gap?"""
    rarest = wanted.index(max(wanted))
    places = np.flatnonzero(ids == wanted[rarest]) - rarest
    places = places[(places >= 0) & (places + len(wanted) <= len(ids))]
    for offset, token in enumerate(wanted):
        places = places[ids[places + offset] == token]
    return len(places) > 0


def _check_seam(ids: Ids, before: int | None, after: int | None, where: str) -> None:
    """A cut inside an unbroken run is right only if the tokens around it are those seen there."""
    first, last = ids[:1].tolist(), ids[-1:].tolist()  # empty where the place is a wrong one
    if (before is not None and first != [before]) or (after is not None and last != [after]):
        raise EngineMismatch(
            "an unbroken run of text does not encode to the same ids in pieces",
            where,
            "its seam did not hold",
            "please report this text; meanwhile divide the run",
        )
