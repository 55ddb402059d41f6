"""The plan: what will be done, made from the spec and the inputs; it writes nothing.

A plan knows the files, the vocabulary, the dtype and how the validation split is drawn, and it
estimates documents, tokens and disk space from a small encoded sample. ``blocks()`` is the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenmill.cuts import NOWHERE, CutRule
from tokenmill.encode import EncodingRules
from tokenmill.errors import NoSpace, UsageError
from tokenmill.estimate import SAMPLES, Estimate, estimate_of, samples_of
from tokenmill.formats import Layout
from tokenmill.formats.format import item_bytes
from tokenmill.inputs import NO_MORE, InputList, Pipe, Selection, find_inputs
from tokenmill.memory import Budget, return_free_memory
from tokenmill.places import InputFile
from tokenmill.quantities import format_bytes, format_count, format_files, format_seconds
from tokenmill.sources import opened_ahead
from tokenmill.sources.block import START, Block, Position, SourceOptions
from tokenmill.sources.text import divider_of
from tokenmill.spec import Spec, fingerprint
from tokenmill.storage import free_bytes
from tokenmill.textstream import Ahead, open_stream
from tokenmill.tokenizers import (
    Choice,
    Engine,
    Vocabulary,
    check_engine,
    choose,
    identity,
    load_vocabulary,
    make_engine,
)

FETCHES = 4
"""Requests under way, or fetched and not yet read, of each remote file."""
STAGED_SHARDS = 7
"""On the disk of a run that stores its shards elsewhere, at most: two open, the others
being synced or waiting."""


@dataclass
class Plan:
    """A run, decided in every detail."""

    spec: Spec
    inputs: InputList
    arguments: list[str]
    vocabulary: Vocabulary
    choice: Choice
    dtype: str
    budget: Budget
    position_split: int | None
    estimate: Estimate | None = None

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self.choice.engine

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs on disk."""
        return sum(file.size for file in self.inputs.files)

    def identities(self) -> list[dict[str, Any]]:
        """What identifies the inputs."""
        return [
            {
                "path": file.path,
                "kind": file.kind,
                "compression": file.compression,
                "size": file.size,
                "modified": file.modified,
                "probe": file.probe,
            }
            for file in self.inputs.files
        ]

    def fingerprint(self, spec: Spec | None = None) -> str:
        """SHA-256 over all that decides the bytes; with another spec in this one's place."""
        tokenizer = identity(self.vocabulary.describe())
        return fingerprint(spec or self.spec, tokenizer, self.identities())

    def split_rule(self) -> str:
        """How the validation split is drawn, in words, for the manifest."""
        spec = self.spec
        if self.position_split is not None:
            return (
                "by position: one document, val begins at the safe cut at or near byte "
                f"{self.position_split}"
            )
        if spec.val_fraction:
            return f"by document: a seeded hash below {spec.val_fraction} is val"
        if spec.val_tokens:
            return f"by position: the first {spec.val_tokens} tokens are val"
        return "none: all documents are train"

    def blocks(self, start: Position = START) -> Iterator[Block]:
        """All blocks of all inputs from ``start`` on, in order."""
        options = self._source_options()
        files = self.inputs.files[start.file :]
        states = [start.state, *[None] * len(files)]
        sources = opened_ahead(zip(files, states, strict=False), options)
        for number, (source, state) in enumerate(sources, start.file):
            for block in source.blocks(state):
                block.file_number = number
                yield block

    def rules(self, check: float) -> EncodingRules:
        """What encoding needs to know, with the share of the documents that is checked."""
        spec, vocabulary = self.spec, self.vocabulary
        return EncodingRules(
            delimiter=spec.eot,
            dtype=self.dtype,
            end_of_text=vocabulary.end_of_text,
            largest_id=vocabulary.largest_id,
            val_fraction=spec.val_fraction,
            seed=spec.seed,
            special_text=spec.special_text,
            check=check,
            call_bytes=self.budget.call_bytes,
            special=vocabulary.special_text.encode(),
            cuts=self.choice.cuts,
            document_bytes=self.budget.document_bytes,
            quarantines=spec.on_bad == "quarantine",
            reference=vocabulary.reference,
            unknown_id=vocabulary.unknown_id,
        )

    def _source_options(self) -> SourceOptions:
        seams: list[Engine] = []

        def seam_encoder() -> Engine:
            if not seams:
                seams.append(make_engine(self.engine, self.vocabulary, self.choice.cuts))
            seams[0].drop_caches()
            return seams[0]

        special = self.vocabulary.special_text.encode()
        return SourceOptions(
            self.spec.documents,
            self.spec.text_key,
            seam_encoder,
            (special,) if special else (),
            self.budget.record_bytes,
            self.position_split,
            self.spec.on_bad == "quarantine",
            self.spec.invalid_utf8 == "replace",
            special or None if self.spec.special_text == "error" else None,
            Ahead(self.budget.fetch_bytes, FETCHES),
            self.choice.cuts,
            self.vocabulary.describe()["name"] == "gpt2",
        )

    def engine_line(self) -> str:
        """Which engine runs and why, and where texts are cut, in a line."""
        choice = self.choice
        cuts = "nowhere" if choice.cuts == NOWHERE else "where that is safe"
        return (
            f"engine: {choice.engine} for {self.vocabulary.name}: {choice.why}; "
            f"large documents are cut {cuts}: {choice.why_cuts}"
        )

    def make_estimate(self) -> Estimate:
        """Encode a small sample from all over the inputs."""
        at_once = 2 if self.budget.is_tight else SAMPLES
        found = estimate_of(
            samples_of(self.inputs, self._source_options(), at_once),
            max(1, self.input_bytes),
            len(self.inputs.files) if self._one_document_files() else None,
            self.budget.threads,
            make_engine(self.engine, self.vocabulary, self.choice.cuts),
            self.spec.eot != "none",
        )
        return_free_memory()  # what the sample took is none of the run's
        return found

    def _one_document_files(self) -> bool:
        kinds = {file.kind for file in self.inputs.files}
        return kinds == {"text"} and self.spec.documents == "file"

    def layout(self) -> Layout:
        """The dataset's outline, as estimated."""
        assert self.estimate is not None
        spec, tokens = self.spec, self.estimate.tokens
        val = min(tokens, spec.val_tokens or round(tokens * spec.val_fraction))
        if spec.val_fraction and self.position_split is None:
            val = min(val, tokens) if self.estimate.documents * spec.val_fraction >= 1 else 0
        shards = {"train": _shards(tokens - val, spec.shard_tokens)}
        if spec.val_fraction or spec.val_tokens:
            shards["val"] = _shards(val, spec.shard_tokens)
        return Layout(shards, self.vocabulary.end_of_text, exact=False)

    def check_disk(self, out: Path, is_passing: bool = False) -> list[str]:
        """Raise NoSpace when the dataset surely does not fit; warn when it may not. ``is_passing``:
        its shards stay there only until they are stored elsewhere."""
        assert self.estimate is not None
        need, free = self.estimate.output_bytes(self.dtype), free_bytes(out)
        if is_passing and self.spec.shard_tokens is not None:
            need = min(need, STAGED_SHARDS * self.spec.shard_tokens * item_bytes(self.dtype))
        if need * (1 - self.estimate.spread) > free:
            raise NoSpace(
                f"the dataset needs about {format_bytes(need)}",
                str(out),
                f"only {format_bytes(free)} are free there, {format_bytes(need - free)} too few",
                "free some space, or choose an --out on another disk",
            )
        if need * (1 + self.estimate.spread) > free:
            return [f"the dataset needs about {format_bytes(need)}, {format_bytes(free)} are free"]
        return []

    def summary(self) -> str:
        """One line."""
        if self.inputs.pipe is not None:
            kinds = ", ".join(f.kind for f in self.inputs.files if f.place is self.inputs.pipe)
            return (
                f"standard input, read as {kinds}, of a size not known; {self.dtype}; "
                f"{self.budget.threads} threads, {format_bytes(self.budget.total)} of memory; "
                "a pipe is read once: if the run stops, nothing of it is kept"
            )
        assert self.estimate is not None
        estimate = self.estimate
        return (
            f"{format_files(len(self.inputs.files))}, {format_bytes(self.input_bytes)}; about "
            f"{format_count(estimate.documents)} documents, {format_count(estimate.tokens)} tokens "
            f"(±{estimate.spread:.0%}), {format_bytes(estimate.output_bytes(self.dtype))} of "
            f"{self.dtype} to write; {self.budget.threads} threads, "
            f"{format_bytes(self.budget.total)} of memory, about {format_seconds(estimate.seconds)}"
        )


def make_plan(
    arguments: list[str],
    spec: Spec,
    engine: str = "auto",
    memory: int | None = None,
    threads: int | None = None,
    selection: Selection = NO_MORE,
    commit: str | None = None,
    is_stored: bool = False,
) -> Plan:
    """Decide everything but the bytes; ``commit`` is that of a tokenizer on the Hub, where a run
    goes on, ``is_stored``: the output goes to an object store. Raises InputError or UsageError;
    writes nothing."""
    divider_of(spec.documents)
    check_engine(engine)
    vocabulary = load_vocabulary(spec.tokenizer, spec.pattern, spec.eot_token, commit)
    layout = spec.layout
    dtype = layout.dtype(vocabulary.largest_id)
    layout.check(spec.shard_tokens, dtype, vocabulary.end_of_text)
    inputs = find_inputs(arguments, selection)
    choice = choose(engine, vocabulary)
    return Plan(
        spec,
        inputs,
        arguments,
        vocabulary,
        choice,
        dtype,
        Budget.of(
            memory,
            threads,
            vocabulary.largest_id + 1,
            choice.needs,
            inputs.are_remote or is_stored,
        ),
        position_split_of(spec, inputs.files, choice.cuts),
    )


def position_split_of(spec: Spec, files: list[InputFile], cuts: CutRule) -> int | None:
    """Where train ends when the corpus is one document: a hash cannot divide it, and neither can
    this where documents are never cut."""
    one = len(files) == 1 and files[0].kind == "text" and spec.documents == "file"
    if not one or not spec.val_fraction or cuts == NOWHERE:
        return None
    if isinstance(files[0].place, Pipe):
        raise UsageError(
            "the end of a pipe cannot be the validation split",
            files[0].path,
            "it is one document of text, of a length not known",
            "--val-fraction 0 or --val-tokens, or say how it divides: --documents blank-line",
        )
    size = files[0].size
    if files[0].compression is not None:
        size = _text_size(files[0], spec.on_bad == "quarantine")
    return max(1, size - round(size * spec.val_fraction))


def _text_size(file: InputFile, keeps_damaged: bool) -> int:
    """Bytes of a compressed text, by decompressing it once."""
    stream, position, step = open_stream(file, keeps_damaged), 0, 4 * 1024 * 1024
    while length := len(stream.peek(position, position + step)):
        position += length
        stream.release(position)
    return position


def _shards(tokens: int, shard_tokens: int | None) -> list[int]:
    if shard_tokens is None:
        return [tokens]
    full, rest = divmod(tokens, shard_tokens)
    return [shard_tokens] * full + ([rest] if rest else [])
