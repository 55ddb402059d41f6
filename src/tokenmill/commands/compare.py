"""``verify --against``: what lies in the shards, held against the inputs that it was made from.

All documents are followed through the shards by their bytes: the ids of a byte-level vocabulary
stand for the very bytes of the text, so that the tokens of a document have its length, and its
delimiter stands where it should. A drawn few are encoded again by the reference implementation
and compared id by id; so is every block whose documents are not where they should be.

The inputs are read once, block by block as ``prepare`` reads them, and the shards beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenmill.batches import CRASH, TOO_LARGE, DocumentBatch
from tokenmill.commands.inspect import vocabulary_of
from tokenmill.commands.plan import Plan, split_rule_of
from tokenmill.dataset.checks import Problem
from tokenmill.dataset.manifest import MANIFEST, Input, Manifest, Shard
from tokenmill.dataset.reader import DatasetReader
from tokenmill.dataset.spec import Spec
from tokenmill.encoding.reference import checked_part, drawn
from tokenmill.errors import DamageFound, SpecMismatch, UsageError
from tokenmill.memory import Budget, memory_limit
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.sources.block import Block
from tokenmill.sources.heads import look_at
from tokenmill.sources.inputs import Selection, finalized, find_inputs
from tokenmill.splits import NAMES, TRAIN, VAL
from tokenmill.stores import InputFile
from tokenmill.stores.retry import RetryPolicy
from tokenmill.tokenizers.choose import choose
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary
from tokenmill.units import format_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_DIFFERENCES = 100
"""After so many, the rest would tell nothing new."""
_SHOWN = 5
_HELD = 1024 * 1024
"""Ids that are read at once, where fewer are asked for: of a bucket each reading is a request."""


@dataclass(frozen=True)
class _Piece:
    """A document of a block, or the part of one that lies in it; ``number`` is its place there."""

    text: bytes
    begins: bool
    ends: bool
    number: int


class _Stream:
    """The tokens of some shards in a row, followed from front to back."""

    def __init__(self, dataset: DatasetReader, shards: list[Shard], vocabulary: Vocabulary) -> None:
        self.shards = shards
        self.position = 0
        self.borders = np.cumsum([0, *(shard.tokens for shard in shards)])
        self.documents = np.zeros(len(shards), np.int64)
        self._held: NDArray[Any] = np.empty(0, np.uint16)
        self._held_from = 0
        self._readers = [dataset.open(shard) for shard in shards]
        self._end_of_text = vocabulary.end_of_text
        table = vocabulary.token_bytes if vocabulary.keeps_bytes else {}
        self._widths = np.ones(max(table, default=0) + 1, np.int64)
        for token, text in table.items():
            self._widths[token] = len(text)
        if vocabulary.keeps_bytes:
            self._widths[vocabulary.end_of_text] = 1

    def peek(self, count: int) -> NDArray[Any]:
        """The next ``count`` ids, fewer at the end."""
        low, high = self.position, min(self.position + count, int(self.borders[-1]))
        begin = low - self._held_from
        if begin < 0 or high > self._held_from + len(self._held):
            self._held, self._held_from, begin = self._read(low, max(high, low + _HELD)), low, 0
        return self._held[begin : begin + high - low]

    def _read(self, low: int, high: int) -> NDArray[Any]:
        """The ids from number ``low`` to before ``high``, fewer at the end."""
        parts: list[NDArray[Any]] = [np.empty(0, np.uint16)]
        start = max(0, int(np.searchsorted(self.borders, low, "right")) - 1)
        for shard, begin in zip(self._readers[start:], self.borders[start:].tolist(), strict=False):
            first, last = max(low, begin), min(high, begin + shard.tokens)
            if begin >= high:
                break
            if first < last:
                parts.append(shard.ids(first - begin, last - begin))
        return np.concatenate(parts)

    def covering(self, size: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The next ids, enough for more than ``size`` bytes of text; and the byte before each, and
        after the last. A delimiter counts as one byte."""
        count = size // 3 + 64
        while True:
            ids = self.peek(count)
            bounds = np.zeros(len(ids) + 1, np.int64)
            np.cumsum(np.take(self._widths, ids, mode="clip"), out=bounds[1:])
            if bounds[-1] > size or len(ids) < count:
                return ids, bounds
            count *= 2

    def delimiters(self, number: int) -> NDArray[np.int64]:
        """Where the next delimiters stand, so many if there are, counted from the position."""
        count = 64 * number + 64
        while True:
            ids = self.peek(count)
            found = np.flatnonzero(ids == self._end_of_text)
            if len(found) >= number or len(ids) < count:
                return found[:number]
            count *= 2

    def count(self, begins: NDArray[np.int64]) -> None:
        """Documents begin at these tokens, counted from the position."""
        places = np.searchsorted(self.borders, begins + self.position, "right") - 1
        inside = places[(places >= 0) & (places < len(self.shards))]
        self.documents += np.bincount(inside, minlength=len(self.shards))

    def place(self, token: int) -> tuple[str, int]:
        """The shard of a token, counted from the position, and its number there."""
        at = self.position + token
        index = int(np.searchsorted(self.borders, at, "right")) - 1
        index = min(max(index, 0), len(self.shards) - 1)
        return self.shards[index].name, at - int(self.borders[index])


class Comparison:
    """One dataset and its inputs."""

    def __init__(
        self,
        dataset: DatasetReader,
        arguments: list[str],
        share: float,
        seed: int,
        config: str | None = None,
        sizes: Sizes = DEFAULT_SIZES,
        policy: RetryPolicy | None = None,
    ) -> None:
        """By ``policy`` the inputs are asked for (None: one of its own). Raises SpecMismatch,
        UsageError, DamageFound, InputError."""
        if not 0 <= share <= 1:
            raise UsageError(f"--share {share} is no share", fix="give a number from 0 to 1")
        self._manifest = manifest = dataset.manifest
        _refuse_incomparable(manifest)
        spec = Spec.restored(manifest.spec)
        if spec is None:
            raise DamageFound(
                f"{MANIFEST} has a spec that is none of this release",
                dataset.files.place(MANIFEST),
                f"it was written by tokenmill {manifest.tokenmill_version}",
                "compare with that release, or prepare the dataset again with --overwrite",
            )
        selection = Selection(
            config, manifest.revisions, spec.kind_rules, policy=policy or RetryPolicy()
        )
        inputs = find_inputs(arguments, selection)
        vocabulary = vocabulary_of(dataset)
        choice = choose("auto", vocabulary)
        # There is no --memory: what a run could read is read here too, where the machine allows.
        most, size = memory_limit() // 2, vocabulary.largest_id + 1
        budget = Budget.of(most, 1, size, choice.needs, inputs.are_remote)
        self._plan = plan = Plan(
            spec,
            inputs,
            arguments,
            vocabulary,
            choice,
            manifest.dtype,
            budget,
            spec.split_rule,
            sizes=sizes,
        )
        look_at(inputs, arguments, selection, plan.source_options())
        _refuse_other_inputs(inputs.files, manifest.inputs, dataset.files.where)
        room = plan.source_options().room
        plan.split_rule = split_rule_of(spec, inputs.files, choice.cuts, room)
        engine = make_engine(vocabulary.reference, vocabulary)
        self._share, self._seed = share, seed
        self._dataset = dataset
        worker = plan.worker(check=0)
        self._rules, self._corpus = worker.recipe.rules, worker.corpus
        self._reference = worker.reference
        self._encoder = worker.slow_encoder(engine)
        self._open = TRAIN
        self.compared = self.compared_bytes = self.documents = 0

    def summary(self) -> str:
        """What was done, in a line."""
        return (
            f"{self.documents:,} documents of the inputs followed through the shards; of "
            f"{self.compared:,} ({format_bytes(self.compared_bytes)}) the ids were compared with "
            f"{self._plan.vocabulary.reference}'s"
        )

    def problems(self) -> Iterator[Problem]:
        """Every difference, up to a number."""
        for count, problem in enumerate(self._differences(), 1):
            yield problem
            if count == MOST_DIFFERENCES:
                detail = f"more than {count} differences: the rest is not compared"
                yield Problem("uncompared", self._dataset.files.where, detail)
                return

    def _differences(self) -> Iterator[Problem]:
        streams = self._streams()
        for number, block in enumerate(self._corpus.blocks()):
            batch = self._corpus.read(block)
            chosen = set(drawn(batch.documents, self._share, f"{self._seed}:{number}"))
            for name, pieces in self._divided(batch, streams).items():
                yield from self._follow(streams[name], pieces, chosen, block)
        for stream in dict.fromkeys(streams.values()):
            yield from _end(stream)
        for file in self._plan.inputs.files:
            finalized(file)

    def _streams(self) -> dict[str, _Stream]:
        """By split; where documents go on from one split to the other, both are one stream."""

        def stream(*splits: str) -> _Stream:
            shards = [shard for split in splits for shard in self._dataset.shards(split)]
            return _Stream(self._dataset, shards, self._plan.vocabulary)

        joined = self._plan.split_rule.joined
        if not joined:
            return {split: stream(split) for split in NAMES}
        return dict.fromkeys(joined, stream(*joined))

    def _divided(
        self, batch: DocumentBatch, streams: dict[str, _Stream]
    ) -> dict[str, list[_Piece]]:
        """The pieces of a block by split; all under one name where there is one stream."""
        pieces: dict[str, list[_Piece]] = {}
        last = len(batch.documents) - 1
        by_document = streams[TRAIN] is not streams[VAL]
        for number, text in enumerate(batch.documents):
            begins, ends = (
                bool(number or not batch.continues),
                number < last or not batch.unfinished,
            )
            if begins and by_document:
                self._open = VAL if self._rules.is_val(text) else TRAIN
            self.documents += begins
            pieces.setdefault(self._open, []).append(_Piece(text, begins, ends, number))
        return pieces

    def _follow(
        self, stream: _Stream, pieces: list[_Piece], chosen: set[int], block: Block
    ) -> Iterator[Problem]:
        """Find the pieces in the stream, compare those chosen, and go on behind them."""
        if not self._plan.vocabulary.keeps_bytes:
            yield from self._follow_delimiters(stream, pieces, chosen, block)
            return
        before, after = (self._rules.delimiter == side for side in ("before", "after"))
        leads = np.array([before and piece.begins for piece in pieces])
        tails = np.array([after and piece.ends for piece in pieces])
        sizes = np.array([len(piece.text) for piece in pieces]) + leads + tails
        borders = np.concatenate(([0], np.cumsum(sizes)))
        ids, bounds = stream.covering(int(borders[-1]))
        places = np.searchsorted(bounds, borders)
        marks = np.sort(np.concatenate((places[:-1][leads], places[1:][tails] - 1)))
        end = int(places[-1])
        fits = end < len(bounds) and (bounds[places] == borders).all()
        found = np.flatnonzero(ids[:end] == self._rules.end_of_text)
        if before and pieces[-1].ends and end < len(ids):
            fits = fits and ids[end] == self._rules.end_of_text
        if not fits or not np.array_equal(found, marks):
            yield from self._compare_all(stream, pieces, block)
            return
        for index, piece in enumerate(pieces):
            if piece.number in chosen:
                low, high = places[index] + leads[index], places[index + 1] - tails[index]
                if not self._is_same(ids[int(low) : int(high)], piece.text):
                    yield from self._compare_all(stream, pieces, block)
                    return
        stream.count(places[:-1][[piece.begins for piece in pieces]])
        stream.position += end

    def _follow_delimiters(
        self, stream: _Stream, pieces: list[_Piece], chosen: set[int], block: Block
    ) -> Iterator[Problem]:
        """The same for a tokenizer whose ids do not tell how many bytes they stand for: only the
        delimiters tell where a document is, and so only whole documents can be found."""
        before = self._rules.delimiter == "before"
        marks = stream.delimiters(len(pieces) + before).tolist()
        ends = marks[1:] if before else [mark + 1 for mark in marks]
        if before and len(ends) == len(pieces) - 1:
            ends.append(int(stream.borders[-1]) - stream.position)
        fits = len(ends) == len(pieces) and all(piece.begins and piece.ends for piece in pieces)
        # An ordinary token as the delimiter may stand in documents, too.
        fits = fits and bool(self._rules.special)
        if not fits or (before and marks[0] != 0):
            yield from self._compare_all(stream, pieces, block)
            return
        begins = [0, *ends[:-1]]
        for piece, low, high in zip(pieces, begins, ends, strict=True):
            if piece.number in chosen:
                ids = stream.peek(high)[low:]
                if not self._is_same(ids[1:] if before else ids[:-1], piece.text):
                    yield from self._compare_all(stream, pieces, block)
                    return
        stream.count(np.array(begins, np.int64))
        stream.position += ends[-1] if ends else 0

    def _is_same(self, ids: NDArray[Any], text: bytes) -> bool:
        """Are these the reference's ids of a text? Of a long one, its beginning only."""
        cut = checked_part(text, self._rules.cuts)
        if cut is None:
            return True
        expected = self._reference.encode(text[:cut])
        self.compared += 1
        self.compared_bytes += cut
        return np.array_equal(ids if cut == len(text) else ids[: len(expected)], expected)

    def _compare_all(
        self, stream: _Stream, pieces: list[_Piece], block: Block
    ) -> Iterator[Problem]:
        """The whole block with the reference's ids; what they are tells where the next one is."""
        rules = self._rules
        tokens = self._encoder.encode_pieces([piece.text for piece in pieces])
        parts = np.split(tokens.ids, tokens.marks)
        mark = np.array([rules.end_of_text])
        low, begins = 0, []
        found = stream.peek(len(tokens.ids) + len(pieces) + 1)
        for index, (piece, part) in enumerate(zip(pieces, parts, strict=True)):
            expected = part[1:] if index else part  # np.split leaves the mark at the head
            if rules.delimiter == "before" and piece.begins:
                expected = np.concatenate((mark, expected))
            if rules.delimiter == "after" and piece.ends:
                expected = np.concatenate((expected, mark))
            there = found[low : low + len(expected)]
            yield from _difference(stream, there, expected, low, piece, block)
            begins += [low] if piece.begins else []
            low += len(expected)
            self.compared += 1
            self.compared_bytes += len(piece.text)
        stream.count(np.array(begins, np.int64))
        stream.position += low


def _difference(
    stream: _Stream,
    found: NDArray[Any],
    expected: NDArray[Any],
    low: int,
    piece: _Piece,
    block: Block,
) -> Iterator[Problem]:
    """The first token at which they differ, if any; ``found`` begins at token ``low``."""
    if np.array_equal(found, expected):
        return
    length = min(len(found), len(expected))
    differing = np.flatnonzero(found[:length] != expected[:length])
    at = int(differing[0]) if len(differing) else length
    shard, token = stream.place(low + at)
    yield Problem(
        "mismatch",
        shard,
        f"token {token}: {found[at : at + _SHOWN].tolist()}, the reference gives "
        f"{expected[at : at + _SHOWN].tolist()}; {block.where}, document {piece.number} from "
        f"there, its token {at}",
    )


def _end(stream: _Stream) -> Iterator[Problem]:
    """Is nothing left over, and does each shard have the documents that it should?"""
    left = int(stream.borders[-1]) - stream.position
    if left > 0:
        shard, token = stream.place(0)
        detail = f"{left} tokens from token {token} on come after the inputs' last document"
        yield Problem("mismatch", shard, detail)
    for about, documents in zip(stream.shards, stream.documents.tolist(), strict=True):
        if documents != about.documents:
            detail = f"{documents} documents begin in it, the manifest tells {about.documents}"
            yield Problem("miscounted", about.name, detail)


def _refuse_incomparable(manifest: Manifest) -> None:
    why = None
    if manifest.delimiter == "none":
        why = "its documents have no delimiters between them (--eot none)"
    if manifest.spec.get("special_text") == "token":
        why = "its documents may hold the delimiter inside (--special-text token)"
    if manifest.quarantine.reasons.get(CRASH):
        why = "records that crash the tokenizer were left out of it"
    if manifest.quarantine.reasons.get(TOO_LARGE):
        why = "what that run's --memory could not hold was left out of it"
    if why is not None:
        raise UsageError(
            "this dataset cannot be compared with its inputs",
            None,
            why,
            "verify it without --against; to compare, prepare it again and see if the hashes agree",
        )


def _refuse_other_inputs(found: list[InputFile], recorded: list[Input], where: str) -> None:
    """Where a file lies and when it was written may differ, not what is in it, nor the order."""
    differences = []
    for file, before in zip(found, recorded, strict=False):
        if (file.size, file.probe) != (before.size, before.probe):
            differences.append(f"{file.path} is not what {before.path} was")
        elif (file.kind, file.compression) != (before.kind, before.compression):
            differences.append(f"{file.path} is of another kind than {before.path}")
    differences += [f"{before.path} is missing" for before in recorded[len(found) :]]
    differences += [f"{file.path} is new" for file in found[len(recorded) :]]
    if differences:
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise SpecMismatch(
            "the dataset was made from other inputs",
            where,
            "; ".join(differences[:5]) + more,
            f"name the files that {MANIFEST} lists under inputs, in that order, unchanged",
        )
