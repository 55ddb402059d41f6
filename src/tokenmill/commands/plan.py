"""The plan: what will be done, made from the spec and the inputs; it writes nothing.

A plan knows the files, the vocabulary, the dtype and how the validation split is drawn, and it
estimates documents, tokens and disk space from a small encoded sample. ``corpus()`` is the work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenmill.commands.estimate import SAMPLES, Estimate, estimate_of, samples_of
from tokenmill.commands.fastest import fastest
from tokenmill.commands.workers import PROCESSES, THREADS, Workers, choose_workers
from tokenmill.dataset.identity import fingerprint, identity
from tokenmill.dataset.spec import Spec
from tokenmill.encoding.calls import Calls
from tokenmill.encoding.encoder import SeamEngine
from tokenmill.encoding.recipe import Recipe, Worker, calls_of
from tokenmill.encoding.rules import EncodingRules
from tokenmill.errors import NoSpace, UsageError
from tokenmill.formats import Layout
from tokenmill.formats.format import row_bytes
from tokenmill.kinds import KINDS
from tokenmill.kinds.compression import WindowRoom
from tokenmill.memory import (
    SMALL_READER,
    Budget,
    available_cores,
    check_vocabulary_file,
    floor_bytes,
    listed_bytes,
    listing_of,
    return_free_memory,
    roomy_bytes,
)
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.sources.block import Block, Tails
from tokenmill.sources.corpus import Corpus
from tokenmill.sources.heads import look_at, needs_at_once, refuse_unusable
from tokenmill.sources.inputs import InputList, Selection, find_inputs
from tokenmill.sources.source import SourceOptions
from tokenmill.sources.stream import Ahead, open_stream
from tokenmill.sources.text import divider_of
from tokenmill.splits import TRAIN, VAL, SplitRule, one_sided
from tokenmill.stores import InputFile
from tokenmill.stores.durable import free_bytes
from tokenmill.text.cuts import NOWHERE, CutRule
from tokenmill.tokenizers.choose import Choice, check_engine, choose
from tokenmill.tokenizers.engines import DEFAULT_ENGINE, make_engine, readers
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.libraries import library
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary
from tokenmill.units import format_bytes, format_count, format_files, format_seconds, numbered

FETCHES = 4
"""Requests under way, or fetched and not yet read, of each remote file."""
REFERENCE_COST = 20
"""Of a byte that the reference encodes, in bytes that the fast engine does: tiktoken, measured; the
tokenizers library takes more."""
MOST_LISTED = 20
"""Files, or folders of files, that ``plan`` lists one by one; ``--json`` has all."""
MOST_NAMED = 5
"""Of the files that are passed over: the others are counted."""
STAGED_SHARDS = 7
"""On the disk of a run that stores its shards elsewhere, at most: two open, the others
being synced or waiting."""


@dataclass(repr=False)
class Plan:
    """A run, decided in every detail."""

    spec: Spec
    inputs: InputList
    arguments: list[str]
    vocabulary: Vocabulary
    choice: Choice
    dtype: str
    budget: Budget
    split_rule: SplitRule
    """That of the spec, with the border where the corpus is one document."""
    estimate: Estimate | None = None
    workers: Workers = field(default_factory=lambda: Workers(1))
    told: list[str] = field(default_factory=list)
    """Warnings that were told before the run."""
    tails: Tails = field(default_factory=Tails)
    sizes: Sizes = DEFAULT_SIZES
    _calls: Calls | None = None

    def __repr__(self) -> str:
        told = "not yet estimated" if self.estimate is None else self.summary()
        return f"<Plan {self.spec.format}, {self.vocabulary.name}: {told}>"

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self.choice.engine

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs on disk."""
        return sum(file.size for file in self.inputs.files)

    def identities(self) -> Iterator[dict[str, Any]]:
        """What identifies the inputs, one by one: there may be a million."""
        for file in self.inputs.files:
            yield {
                "path": file.path,
                "kind": file.kind,
                "compression": file.compression,
                "size": file.size,
                "modified": file.modified,
                "probe": file.probe,
            }

    def fingerprint(self, spec: Spec | None = None) -> str:
        """SHA-256 over all that decides the bytes; with another spec in this one's place."""
        tokenizer = identity(self.vocabulary.describe())
        return fingerprint(spec or self.spec, tokenizer, self.identities())

    def libraries(self) -> dict[str, dict[str, str]]:
        """The libraries that may decide its ids, as they are installed: of the reference, of the
        engine, and of the one that most runs take."""
        used = (DEFAULT_ENGINE, self.engine, self.vocabulary.reference)
        names = [name for name in readers(self.vocabulary) if name in used]
        found = {name: library(name) for name in names}
        return {name: dict(entry) for name, entry in found.items() if entry is not None}

    def corpus(self) -> Corpus:
        """The blocks of all inputs, to be walked through once."""
        return Corpus(self.inputs.files, self.source_options())

    def recipe(self, check: float) -> Recipe:
        """How its blocks become tokens, as plain data; ``check`` is the share that is checked."""
        rules, files, options = self.rules(check), self.inputs.files, self.source_options()
        return Recipe(rules, self.vocabulary, self.engine, self.budget, files, options)

    def worker(self, check: float) -> Worker:
        """What does that in this process."""
        return Worker(self.recipe(check), self.calls)

    def choose_workers(self, executor: str, asked: int | None) -> None:
        """Settle who does the work: once the budget is, before anything is told. ``asked`` is how
        many were asked for. Raises UsageError."""
        text = _likely_text(self.inputs)
        needs, why_threads = self.choice.needs, self._why_threads()
        self.workers = choose_workers(executor, asked, self.budget, needs, text, why_threads)

    def _why_threads(self) -> str | None:
        """Why its blocks cannot be read by other processes; None where they can."""
        if not self.inputs.are_replayable:
            return "what comes through a pipe cannot be read again where one of them dies"
        return None

    def weight(self, block: Block) -> int:
        """How many blocks of the usual size one is."""
        return max(1, block.text_bytes // self.sizes.block)

    def rules(self, check: float) -> EncodingRules:
        """What encoding needs to know, with the share of the documents that is checked."""
        spec, vocabulary = self.spec, self.vocabulary
        return EncodingRules(
            delimiter=spec.eot,
            dtype=self.dtype,
            end_of_text=vocabulary.end_of_text,
            largest_id=vocabulary.largest_id,
            split=self.split_rule,
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
            sizes=self.sizes,
            grown_bytes=vocabulary.grown_bytes,
        )

    @property
    def calls(self) -> Calls:
        """Who may call an engine when, for all threads; made once the budget is settled."""
        budget = self.budget
        if self._calls is None or self._calls.room != budget.room_alone:
            self._calls = calls_of(budget)
        return self._calls

    def make_engine(self) -> Engine:
        """The chosen engine, for one thread."""
        return make_engine(self.engine, self.vocabulary, self.choice.cuts, self.budget)

    def source_options(self) -> SourceOptions:
        """What the sources need to know."""
        seams: list[SeamEngine] = []

        def seam_encoder() -> SeamEngine:
            if not seams:
                seams.append(SeamEngine(self.make_engine(), self.calls))
            return seams[0]

        special = self.vocabulary.special_text.encode()
        return SourceOptions(
            self.spec.documents,
            self.spec.text_key,
            seam_encoder,
            (special,) if special else (),
            self.budget.record_bytes,
            self.split_rule.border,
            self.spec.on_bad == "quarantine",
            self.spec.invalid_utf8 == "replace",
            special or None if self.spec.special_text == "error" else None,
            Ahead(self.budget.fetch_bytes, FETCHES),
            self.choice.cuts,
            self.vocabulary.describe()["name"] == "gpt2",
            self.budget.reader_bytes,
            self.budget.asked,
            self.budget.page_bytes,
            self.budget.in_hand,
            self.budget.threads,
            self.tails,
            self.sizes,
            self.workers.are_processes,
        )

    def engine_name(self) -> str:
        """Which engine runs, in a few words; why, where it is not the fastest there is, or cuts
        nothing."""
        choice = self.choice
        if (self.engine != DEFAULT_ENGINE and not choice.speeds) or choice.cuts == NOWHERE:
            return self.engine_line()
        return f"engine: {choice.named()} for {self.vocabulary.name}"

    def engine_line(self) -> str:
        """Which engine runs and why, and where texts are cut, in a line."""
        choice = self.choice
        cuts = "nowhere" if choice.cuts == NOWHERE else "where that is safe"
        return (
            f"engine: {choice.named()} for {self.vocabulary.name}: {choice.why}; "
            f"large documents are cut {cuts}: {choice.why_cuts}"
        )

    def make_estimate(self, spare: list[Engine] | None = None) -> Estimate:
        """Encode a small sample from all over the inputs. ``spare`` is where the engine goes, as
        it is loaded, when memory is not tight."""
        engine = self.make_engine()
        at_once = 2 if self.budget.is_tight else SAMPLES
        sampled = estimate_of(
            samples_of(self.inputs, self.source_options(), at_once),
            max(1, self.input_bytes),
            len(self.inputs.files) if self._one_document_files() else None,
            min(self.workers.count, available_cores()),
            engine,
            self.spec.eot != "none",
            self.vocabulary.grown_bytes,
        )
        if spare is None or self.budget.is_tight:
            engine.drop_caches()
        else:
            spare.append(engine)
        return_free_memory()  # what the sample took is none of the run's
        lost = self.budget.seconds_dropping(sampled.text_bytes)
        return replace(sampled, first_seconds=sampled.first_seconds + lost)

    def _one_document_files(self) -> bool:
        kinds = {file.kind for file in self.inputs.files}
        return kinds == {"text"} and self.spec.documents == "file"

    def layout(self) -> Layout:
        """The dataset's outline, as estimated."""
        assert self.estimate is not None
        spec, tokens = self.spec, self.estimate.tokens
        val = self.split_rule.expected(tokens, self.estimate.documents)
        shards = {TRAIN: _shards(tokens - val, spec.shard_tokens)}
        if self.split_rule.has_validation:
            shards[VAL] = _shards(val, spec.shard_tokens)
        return Layout(shards, self.vocabulary.end_of_text, exact=False)

    def check_disk(self, out: Path, is_passing: bool = False, freed: int = 0) -> list[str]:
        """Raise NoSpace when the dataset surely does not fit; warn when it may not. ``is_passing``:
        its shards stay there only until they are stored elsewhere; ``freed`` bytes will be free
        before it begins."""
        assert self.estimate is not None
        need, free = self.estimate.output_bytes(self.dtype), free_bytes(out) + freed
        if is_passing and self.spec.shard_tokens is not None:
            need = min(need, row_bytes(STAGED_SHARDS * self.spec.shard_tokens, self.dtype))
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

    def notes(self) -> list[str]:
        """What was passed over among the inputs, and what their places tell."""
        inputs = self.inputs
        lines = [f"ignored: {path} is of no known kind" for path in inputs.ignored[:MOST_NAMED]]
        if len(inputs.ignored) > MOST_NAMED:
            more = numbered(len(inputs.ignored) - MOST_NAMED, "more file")
            lines.append(f"ignored: {more} of no known kind")
        lines += [f"named twice, read once: {path}" for path in inputs.repeated]
        return lines + inputs.notes

    def warnings(
        self, out: Path | None = None, is_passing: bool = False, freed: int = 0
    ) -> list[str]:
        """What will go wrong, as far as the estimate tells; with a fix each. ``freed`` bytes are
        removed before it begins. Raises NoSpace."""
        found = [] if out is None else self.disk_warnings(out, is_passing, freed)
        assert self.estimate is not None
        layout = self.layout()
        found += self._memory_warnings()
        others = self._split_warnings(layout) + self.spec.layout.warnings(layout)
        return found + [f"warning: {each}" for each in others]

    def _memory_warnings(self) -> list[str]:
        budget = self.budget
        if not budget.is_cramped:
            return []
        workers = numbered(budget.threads, "worker")
        others = budget.floor - floor_bytes(budget.threads, self.choice.needs)
        roomy = roomy_bytes(budget.threads, self.choice.needs) + others
        return [
            f"warning: {format_bytes(budget.asked)} is too little for {workers} to keep their "
            "caches of words: these are dropped again and again, and the run may take many times "
            f"as long; fix: --workers {budget.served}, or --memory {-(-roomy // 10**6)}MB"
        ]

    def worker_notes(self) -> list[str]:
        """That more memory would have more workers."""
        workers, needs = self.workers, self.choice.needs
        if not workers.limited:
            return []
        enough = self.budget.asked - self.budget.total
        enough += self.budget.roomy_for_processes(workers.limited, needs)
        return [
            f"note: {format_bytes(self.budget.asked)} serve {workers.count} of "
            f"{workers.limited} workers; fix: --memory {-(-enough // 10**6)}MB for all of them"
        ]

    def _split_warnings(self, layout: Layout) -> list[str]:
        """What is wrong with the validation split, as far as the estimate tells."""
        assert self.estimate is not None
        doubt = self.split_rule.doubt(max(1, self.estimate.documents))
        found = [doubt] if doubt else []
        if self.split_rule.is_head and 0 < layout.tokens(VAL) < layout.tokens():
            share = layout.tokens(VAL) / layout.tokens()
            first = self.inputs.files[0]
            sources = len({_source(file.path) for file in self.inputs.files})
            if sources > 1 and share * self.input_bytes <= first.size:
                found.append(one_sided(share, first.path, sources))
        return found

    def disk_warnings(self, out: Path, is_passing: bool = False, freed: int = 0) -> list[str]:
        """Those of the disk alone. Raises NoSpace."""
        return [f"warning: {warning}" for warning in self.check_disk(out, is_passing, freed)]

    def as_dict(self) -> dict[str, Any]:
        """What ``plan --json`` prints of it."""
        assert self.estimate is not None
        estimate = self.estimate
        return {
            "inputs": list(self.identities()),
            "ignored": self.inputs.ignored,
            "repeated": self.inputs.repeated,
            "documents": estimate.documents,
            "tokens": estimate.tokens,
            "spread": estimate.spread,
            "text_bytes": estimate.text_bytes,
            "output_bytes": estimate.output_bytes(self.dtype),
            "memory": self.budget.asked,
            "workers": self.workers.count,
            "threads": self.workers.count,
            "executor": PROCESSES if self.workers.are_processes else THREADS,
            "bytes_per_second": estimate.bytes_per_second,
            "seconds": estimate.seconds,
            "split": self.split_rule.words(),
            "engine": self.engine,
            "engine_because": self.choice.why,
            "engine_speeds": {name: round(speed) for name, speed in self.choice.speeds.items()},
            "cuts_because": self.choice.why_cuts,
        }

    def lines(self, free: int) -> list[str]:
        """What ``plan`` prints for a person, where ``free`` bytes are left on the disk."""
        assert self.estimate is not None
        need = self.estimate.output_bytes(self.dtype)
        return [
            *self._listing(),
            self.engine_line(),
            self.summary(),
            f"disk: {format_bytes(need)} needed, {format_bytes(free)} free",
            f"validation: {self.split_rule.words()}",
        ]

    def _listing(self) -> list[str]:
        """The files; of many, how many there are of each kind in each folder."""
        files = self.inputs.files
        if len(files) <= MOST_LISTED:
            return [_listed(file.size, _kind(file), file.path) for file in files]
        groups: dict[tuple[str, str], list[InputFile]] = {}
        for file in files:
            groups.setdefault((file.path.rpartition("/")[0], _kind(file)), []).append(file)
        lines = []
        for (folder, kind), members in list(groups.items())[:MOST_LISTED]:
            size = sum(file.size for file in members)
            name = members[0].path.removeprefix(folder).lstrip("/")
            many = f"{folder or '.'}/: {format_files(len(members))}, the first {name}"
            lines.append(_listed(size, kind, many if len(members) > 1 else members[0].path))
        if len(groups) > MOST_LISTED:
            rest = list(groups.values())[MOST_LISTED:]
            many = numbered(len(rest), "more folder")
            lines.append(f"{'':>10}  {many} with {format_files(sum(map(len, rest)))} (--json)")
        return lines

    def summary(self) -> str:
        """One line."""
        workers = self.workers.words()
        if not self.inputs.are_replayable:
            kinds = ", ".join(f.kind for f in self.inputs.files if not f.store.is_replayable)
            return (
                f"standard input, read as {kinds}, of a size not known; {self.dtype}; "
                f"{workers}, {format_bytes(self.budget.asked)} of memory; "
                "a pipe is read once: if the run stops, nothing of it is kept"
            )
        assert self.estimate is not None
        estimate = self.estimate
        return (
            f"{format_files(len(self.inputs.files))}, {format_bytes(self.input_bytes)}; about "
            f"{numbered(estimate.documents, 'document', format_count)}, "
            f"{format_count(estimate.tokens)} tokens (±{estimate.spread:.0%}), "
            f"{format_bytes(estimate.output_bytes(self.dtype))} of {self.dtype} to write; "
            f"{workers}, {format_bytes(self.budget.asked)} of memory, "
            f"about {format_seconds(estimate.seconds)}"
        )


def make_plan(
    arguments: list[str],
    spec: Spec,
    engine: str = "auto",
    memory: int | None = None,
    threads: int | None = None,
    selection: Selection | None = None,
    commit: str | None = None,
    is_stored: bool = False,
    deadline: float | None = None,
    check: float = 0.0,
    sizes: Sizes = DEFAULT_SIZES,
) -> Plan:
    """Decide everything but the bytes; ``commit`` is that of a tokenizer on the Hub, where a run
    goes on, ``is_stored``: the output goes to an object store, ``deadline``: until when, by the
    monotonic clock, inputs may be waited for, ``check``: the share that is encoded twice,
    ``sizes``: how large blocks are. Raises InputError, UsageError or LimitReached; writes
    nothing."""
    divider_of(spec.documents)
    check_engine(engine)
    fits = partial(check_vocabulary_file, total=memory)
    vocabulary = load_vocabulary(spec.tokenizer, spec.pattern, spec.eot_token, commit, fits)
    layout = spec.layout
    dtype = layout.dtype(vocabulary.largest_id)
    layout.check(spec.shard_tokens, dtype, vocabulary.end_of_text)
    selection = replace(selection or Selection(), kinds=spec.kind_rules, listing=listing_of(memory))
    inputs = find_inputs(arguments, selection)
    choice = choose(engine, vocabulary)
    budget = partial(
        Budget.of,
        memory,
        vocabulary_size=vocabulary.largest_id + 1,
        needs=choice.needs,
        is_remote=inputs.are_remote or is_stored,
        listed=inputs.too_many or listed_bytes([file.path for file in inputs.files]),
        text_bytes=_likely_work(inputs, check),
        reads_parquet=any(KINDS[file.kind].uses_arrow for file in inputs.files),
    )
    rule, first = spec.split_rule, budget(threads=threads)
    found = Plan(spec, inputs, arguments, vocabulary, choice, dtype, first, rule, sizes=sizes)
    found.budget = _with_room_for_files(
        found, selection, partial(budget, threads=threads), threads, deadline
    )
    room = found.source_options().room
    found.split_rule = split_rule_of(spec, inputs.files, choice.cuts, room)
    if engine == "auto":
        again = partial(budget, threads=threads, reserved=found.budget.reserved)
        samples = partial(samples_of, inputs, found.source_options(), 1)
        work = _likely_work(inputs, 0.0)
        found.choice, found.budget = fastest(choice, found.budget, vocabulary, work, again, samples)
    return found


def _with_room_for_files(
    plan: Plan,
    selection: Selection,
    budget: Callable[..., Budget],
    threads: int | None,
    deadline: float | None,
) -> Budget:
    """The budget with what the files take while they are read, by their footers and headers.

    Fewer threads leave more for a file, where their number was not asked for (``threads`` None).
    Raises the errors of all files that cannot be read, unless they are to be left out, and
    InputError for one that is not what it is taken for.
    """
    least = budget(threads=1) if threads is None else plan.budget
    options = replace(plan.source_options(), reader_bytes=least.reader_bytes, threads=least.threads)
    heads = look_at(plan.inputs, plan.arguments, selection, options, deadline)
    refuse_unusable(heads, options.quarantines)
    return_free_memory()
    window = plan.budget.window
    while True:
        need = needs_at_once(heads, window, least.reader_bytes, plan.sizes.block)
        if need <= SMALL_READER:
            return plan.budget
        try:
            found = budget(reserved=need - SMALL_READER)
        except UsageError as error:
            if window == 1:
                why = f"{error.why}, {format_bytes(need)} of it to hold what the files need"
                raise UsageError(error.what, error.where, why, error.fix) from None
        else:
            if found.window <= window:
                return found
        window -= 1


def split_rule_of(spec: Spec, files: list[InputFile], cuts: CutRule, room: WindowRoom) -> SplitRule:
    """That of the spec; with the border where train ends when the corpus is one document: a hash
    cannot divide it, and neither can this where documents are never cut. To decompress it may
    take the memory of ``room``."""
    one = len(files) == 1 and files[0].kind == "text" and spec.documents == "file"
    if not one or not spec.val_fraction or cuts == NOWHERE:
        return spec.split_rule
    if not files[0].store.is_replayable:
        raise UsageError(
            "the end of a pipe cannot be the validation split",
            files[0].path,
            "it is one document of text, of a length not known",
            "--val-fraction 0 or --val-tokens, or say how it divides: --documents blank-line",
        )
    size = files[0].size
    if files[0].compression is not None:
        size = _text_size(files[0], spec.on_bad == "quarantine", room)
    return replace(spec.split_rule, border=spec.split_rule.border_in(size))


def _text_size(file: InputFile, keeps_damaged: bool, room: WindowRoom) -> int:
    """Bytes of a compressed text, by decompressing it once."""
    stream, position, step = open_stream(file, keeps_damaged, None, room), 0, 4 * 1024 * 1024
    while length := len(stream.peek(position, position + step)):
        position += length
        stream.release(position)
    return position


def _likely_text(inputs: InputList) -> int:
    """The bytes of text in the inputs, about, by their sizes alone: compressed, it is likely three
    times as much. Nothing of a pipe."""
    packed = [file for file in inputs.files if file.compression or KINDS[file.kind].uses_arrow]
    return sum(file.size for file in inputs.files) + 2 * sum(file.size for file in packed)


def _likely_work(inputs: InputList, check: float) -> int | None:
    """The same, where what the reference encodes too counts for more. None where it is not known,
    or where the network is what takes time."""
    if inputs.are_remote or not inputs.are_replayable:
        return None
    return round(_likely_text(inputs) * (1 + check * REFERENCE_COST))


def _source(path: str) -> str:
    """What files of one source have in common: the folder, and the name but for its numbers."""
    return re.sub(r"[0-9a-f]{6,}|\d+", "#", path)


def _kind(file: InputFile) -> str:
    return file.kind + (file.compression or "")


def _listed(size: int, kind: str, what: str) -> str:
    return f"{format_bytes(size):>10}  {kind:12} {what}"


def _shards(tokens: int, shard_tokens: int | None) -> list[int]:
    if shard_tokens is None:
        return [tokens]
    full, rest = divmod(tokens, shard_tokens)
    return [shard_tokens] * full + ([rest] if rest else [])
