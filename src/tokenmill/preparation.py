"""``prepare``: the main job, from a corpus to a finished dataset.

Plan, lock the folder, map ``encode`` over the blocks, write in order, publish, manifest last. On
any failure everything that was written is removed, and nothing stands under a final name.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenmill import __version__
from tokenmill.batches import TokenBatch
from tokenmill.encode import BlockEncoder, EncodingRules, Reference
from tokenmill.errors import DamageFound, InputError, SpecMismatch, TokenmillError, UsageError
from tokenmill.formats import Layout
from tokenmill.inputs import check_unchanged
from tokenmill.manifest import (
    MANIFEST,
    SHA256SUMS,
    VERSION,
    Input,
    Manifest,
    Shard,
    load_manifest,
)
from tokenmill.memory import MIB, Budget, peak_resident_bytes, resident_bytes
from tokenmill.pipeline import OrderedMap
from tokenmill.planning import Plan, make_plan
from tokenmill.progress import Reporter, Status
from tokenmill.quantities import format_bytes, format_count, format_seconds, parse_bytes
from tokenmill.sources.block import BLOCK_BYTES, Block
from tokenmill.spec import Spec, SpecOptions
from tokenmill.storage import (
    PARTIAL,
    STATE_FOLDER,
    locked,
    make_folder,
    publish,
    remove_state,
    write_durably,
)
from tokenmill.tokenizers import make_engine
from tokenmill.writer import DatasetWriter

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_CHECK = 0.0002
"""Measured: tiktoken takes about 70 ms for a MB, the whole run 2 to 6; this share costs 1 %."""
_WORTH_DROPPING = 8 * MIB
_RUN = "run.json"


class PrepareOptions(SpecOptions, total=False):
    """All options of ``prepare``: the spec's, and those that change no byte."""

    memory: int | str | None
    threads: int | None
    engine: str
    check: float


@dataclass(frozen=True)
class RunOptions:
    """What changes no byte: budget, engine, share of documents checked, and what is shown.

    ``tell`` gets the lines meant for a person.
    """

    memory: int | str | None = None
    threads: int | None = None
    engine: str = "auto"
    check: float = DEFAULT_CHECK
    quiet: bool = True
    as_json: bool = False
    tell: Callable[[str], None] = lambda line: None


def prepare(
    inputs: str | Path | Iterable[str | Path], *, out: str | Path, **options: Unpack[PrepareOptions]
) -> Manifest:
    """Turn a corpus into token shards in the folder ``out``; returns the manifest.

    ``options`` are those of the command line with underscores (``val_fraction=0.01``). A folder
    that holds the finished dataset already is left as it is. Raises TokenmillError.
    """
    run, spec = _divide(options)
    return Preparation(plan_run(_paths(inputs), run, spec), Path(out), run).run()


def plan(inputs: str | Path | Iterable[str | Path], **options: Unpack[PrepareOptions]) -> Plan:
    """What ``prepare`` would do with the same arguments, with estimates; writes nothing."""
    run, spec = _divide(options)
    found = plan_run(_paths(inputs), run, spec)
    found.estimate = found.make_estimate()
    return found


def plan_run(paths: list[str], run: RunOptions, options: SpecOptions) -> Plan:
    """The plan of a run, not yet estimated."""
    if not 0 <= run.check <= 1:
        raise UsageError(f"--check {run.check} is no share", fix="give a number from 0 to 1")
    total = None if run.memory is None else parse_bytes(run.memory)
    return make_plan(paths, Spec.of(options), run.engine, total, run.threads)


def _paths(inputs: str | Path | Iterable[str | Path]) -> list[str]:
    return [str(path) for path in ([inputs] if isinstance(inputs, str | Path) else inputs)]


def _divide(options: PrepareOptions) -> tuple[RunOptions, SpecOptions]:
    """The options that change no byte, and those of the spec."""
    mine = PrepareOptions.__annotations__.keys() - SpecOptions.__annotations__.keys()
    run: Any = {name: value for name, value in options.items() if name in mine}
    spec: Any = {name: value for name, value in options.items() if name not in mine}
    return RunOptions(**run), spec


class Preparation:
    """One run into one folder."""

    def __init__(self, plan: Plan, out: Path, options: RunOptions) -> None:
        self.plan = plan
        self.out = out
        self.options = options
        self.status = Status(plan.input_bytes, plan.budget.total, plan.budget.threads)

    def run(self) -> Manifest:
        """Do it, or say that it was done before."""
        make_folder(self.out)
        with locked(self.out):
            if (self.out / MANIFEST).exists():
                return self._finished_before()
            try:
                self._clear_leftovers()
                self._announce()
                manifest = self._work()
            finally:
                remove_state(self.out)
        self._conclude(manifest)
        return manifest

    def _finished_before(self) -> Manifest:
        remove_state(self.out)
        manifest = load_manifest(self.out)
        if manifest.fingerprint != self.plan.fingerprint():
            raise SpecMismatch(
                "the folder holds another dataset",
                str(self.out),
                "; ".join(self._differences(manifest)),
                "choose another --out, or remove the folder",
            )
        lost = [shard.name for shard in manifest.shards if not self._is_whole(shard)]
        if lost:
            raise DamageFound(
                "the finished dataset in this folder is damaged",
                f"{self.out}: {', '.join(lost[:5])}",
                "these files are missing or of another size",
                "remove the folder, then run this again",
            )
        self.options.tell(
            f"nothing to do: {self.out} holds this dataset, finished, with "
            f"{format_count(manifest.counts['tokens'])} tokens"
        )
        return manifest

    def _is_whole(self, shard: Shard) -> bool:
        path = self.out / shard.name
        return path.is_file() and path.stat().st_size == shard.bytes

    def _differences(self, manifest: Manifest) -> list[str]:
        """What differs from the dataset in the folder, in words."""
        found = self.plan.spec.differences(manifest.spec)
        if manifest.tokenizer != self.plan.vocabulary.describe():
            mine = self.plan.vocabulary.describe()["name"]
            found.append(f"the tokenizer is {mine}, was {manifest.tokenizer.get('name')}")
        before = {entry.path: entry for entry in manifest.inputs}
        now = {str(file.path): file for file in self.plan.inputs.files}
        found += [f"{path} is new" for path in now if path not in before]
        found += [f"{path} is missing" for path in before if path not in now]
        for path in now.keys() & before.keys():
            if (now[path].size, now[path].modified) != (before[path].size, before[path].modified):
                found.append(f"{path} was changed")
        return found or ["the order of the inputs differs"]

    def _clear_leftovers(self) -> None:
        """Remove what an earlier run of ours left unfinished; refuse to touch anything else."""
        state = self.out / STATE_FOLDER / _RUN
        ours: list[str] = []
        if state.exists():
            try:
                ours = [str(name) for name in json.loads(state.read_text())["names"]]
            except (ValueError, KeyError, TypeError):
                ours = []
        for name in ours:
            if "/" not in name:
                (self.out / name).unlink(missing_ok=True)
        for path in self.out.glob("*" + PARTIAL):
            if self._collides(path.name.removesuffix(PARTIAL)) and path.is_file():
                path.unlink()
        write_durably(state, json.dumps({"names": []}).encode())
        taken = [path.name for path in self.out.iterdir() if self._collides(path.name)]
        if taken:
            raise TokenmillError(
                "the folder holds files that this run would replace",
                f"{self.out}: {', '.join(sorted(taken)[:5])}",
                f"they belong to no dataset of tokenmill's (there is no {MANIFEST})",
                "choose another --out, or move them away",
            )

    def _collides(self, name: str) -> bool:
        layout, spec = self.plan.spec.layout, self.plan.spec
        number = None if spec.shard_tokens is None else 0
        firsts = [layout.file_name(spec.name, split, number) for split in ("train", "val")]
        if number is None:
            return name in firsts
        stem = re.escape(layout.suffix)
        return any(
            re.fullmatch(re.escape(first.rsplit("_", 1)[0]) + r"_\d{6,}" + stem, name)
            for first in firsts
        )

    def _announce(self) -> None:
        """Tell the plan in a line, and everything that will go wrong."""
        tell, plan = self.options.tell, self.plan
        for path in plan.inputs.ignored[:5]:
            tell(f"ignored: {path} is of no known kind")
        if len(plan.inputs.ignored) > 5:
            tell(f"ignored: {len(plan.inputs.ignored) - 5} more files of no known kind")
        for path in plan.inputs.repeated:
            tell(f"named twice, read once: {path}")
        plan.estimate = plan.make_estimate()
        tell(f"plan: {plan.summary()}")
        for warning in plan.check_disk(self.out) + plan.spec.layout.warnings(plan.layout()):
            tell(f"warning: {warning}")

    def _work(self) -> Manifest:
        plan = self.plan
        writer = DatasetWriter(self.out, plan.spec, plan.dtype)
        reporter = Reporter(self.status, self.options.quiet, self.options.as_json)
        self.status.began = time.monotonic()
        self._published: list[str] = []
        try:
            self._mill(writer, reporter)
            if not self.status.counts.documents:
                raise InputError(
                    "the inputs hold no document",
                    ", ".join(plan.arguments),
                    f"{self.status.counts.null_documents} of them are null",
                    "check the inputs, --text-key and --documents",
                )
            return self._publish(writer)
        except BaseException:
            writer.discard()
            for name in self._published:
                (self.out / name).unlink(missing_ok=True)
            raise
        finally:
            reporter.close()

    def _mill(self, writer: DatasetWriter, reporter: Reporter) -> None:
        budget = self.plan.budget
        caches = CacheGovernor(budget, self.status)
        reference = Reference(self.plan.vocabulary)
        rules = self._rules()

        def make_function() -> Callable[[Block], TokenBatch]:
            engine = make_engine(self.plan.engine, self.plan.vocabulary)
            encoder = BlockEncoder(rules, engine, reference, caches.look)
            caches.watch(encoder)
            return encoder.encode

        batches = OrderedMap(
            make_function,
            self.plan.blocks(),
            budget.threads,
            budget.window,
            lambda block: max(1, block.text_bytes // BLOCK_BYTES),
        )
        try:
            for batch in batches:
                began = time.perf_counter()
                writer.write(batch)
                self.status.add(batch, time.perf_counter() - began)
                reporter.update()
                del batch
        finally:
            batches.close()

    def _rules(self) -> EncodingRules:
        plan, spec = self.plan, self.plan.spec
        return EncodingRules(
            delimiter=spec.eot,
            dtype=plan.dtype,
            end_of_text=plan.vocabulary.end_of_text,
            largest_id=plan.vocabulary.largest_id,
            val_fraction=spec.val_fraction,
            seed=spec.seed,
            special_text=spec.special_text,
            check=self.options.check,
            call_bytes=plan.budget.call_bytes,
        )

    def _publish(self, writer: DatasetWriter) -> Manifest:
        """Everything is encoded: complete the shards, name them, and say so."""
        for file in self.plan.inputs.files:
            check_unchanged(file)
        shards = writer.finish()
        names = [shard.name for shard in shards]
        state = self.out / STATE_FOLDER / _RUN
        write_durably(state, json.dumps({"names": names}).encode())
        self._published = [MANIFEST, *names, SHA256SUMS]  # the manifest goes first
        publish(self.out, names)
        plan, status = self.plan, self.status
        counts = {**vars(status.counts), "input_bytes": plan.input_bytes, "quarantined": 0}
        manifest = Manifest(
            manifest_version=VERSION,
            tokenmill_version=__version__,
            fingerprint=plan.fingerprint(),
            format=plan.spec.format,
            dtype=plan.dtype,
            delimiter=plan.spec.eot,
            tokenizer=plan.vocabulary.describe(),
            spec=plan.spec.as_dict(),
            split=plan.split_rule(),
            inputs=[Input(**entry) for entry in plan.identities()],
            shards=shards,
            counts=counts,
            check={
                "reference": "tiktoken",
                "share": self.options.check,
                "documents": status.checked_documents,
                "bytes": status.checked_bytes,
                "differences": 0,
            },
            warnings=[],
        )
        layout = Layout(manifest.shard_tokens(), plan.vocabulary.end_of_text, exact=True)
        manifest.warnings = plan.spec.layout.warnings(layout)
        write_durably(self.out / SHA256SUMS, manifest.sha256sums())
        write_durably(self.out / MANIFEST, manifest.to_json())
        return manifest

    def _conclude(self, manifest: Manifest) -> None:
        tell, status = self.options.tell, self.status
        seconds = time.monotonic() - status.began
        for warning in manifest.warnings:
            tell(f"warning: {warning}")
        if manifest.counts["special_text"] and self.plan.spec.special_text == "text":
            tell(
                f"note: <|endoftext|> is written {manifest.counts['special_text']} times in the "
                "documents and was kept as text (--special-text)"
            )
        busy = ", ".join(f"{stage} {share:.0%}" for stage, share in status.busy().items())
        tell(
            f"done: {manifest.counts['documents']:,} documents, {manifest.counts['tokens']:,} "
            f"tokens in {len(manifest.shards)} files; {format_seconds(seconds)}, "
            f"{format_bytes(self.plan.input_bytes / max(seconds, 1e-9))}/s (busy: {busy}); peak "
            f"memory {format_bytes(peak_resident_bytes())} of {format_bytes(status.budget)}"
            f"{f', caches dropped {status.cache_drops} times' if status.cache_drops else ''}; "
            f"{status.checked_documents or 'no'} documents checked by tiktoken"
            f"{', no difference' if status.checked_documents else ' (too few to draw one)'}"
        )


class CacheGovernor:
    """Drops an engine's caches when the process nears its budget: the fullest ones first."""

    def __init__(self, budget: Budget, status: Status) -> None:
        self._budget = budget
        self._status = status
        self._encoders: list[BlockEncoder] = []
        self._baseline = 0
        self._lock = threading.Lock()

    def watch(self, encoder: BlockEncoder) -> None:
        """Take care of one more encoder, whose caches are empty."""
        with self._lock:
            self._encoders.append(encoder)
            self._baseline = max(self._baseline, resident_bytes())

    def look(self, encoder: BlockEncoder) -> None:
        """Called by an encoder, in its thread, after each call of its engine."""
        resident = resident_bytes()
        near = self._budget.is_near(resident, self._baseline) and self._is_fullest(encoder)
        if near or self._budget.is_reached(resident):
            encoder.drop_caches()
            self._status.cache_drops += 1
            self._learn(resident, resident_bytes())

    def _learn(self, before: int, after: int) -> None:
        """What a drop does not free is no cache: readers' buffers, the allocators' reserves.

        Without this, a parquet reader's 80 MB counted as caches, and a 512 MB budget dropped
        them all the time.
        """
        caches = (before - after) * (len(self._encoders) - 1)
        with self._lock:
            self._baseline = max(self._baseline, after - max(0, caches))

    def _is_fullest(self, encoder: BlockEncoder) -> bool:
        fullest = max(other.bytes_since_drop for other in self._encoders)
        return encoder.bytes_since_drop >= max(_WORTH_DROPPING, fullest // 2)
