"""``prepare``: the main job, from a corpus to a finished dataset.

Plan, lock the folder, go on from what an interrupted run left, map ``encode`` over the blocks,
write in order, publish, manifest last. A run that fails or is stopped keeps what is durable, and
the same command goes on from there; nothing stands under a final name before all is done.
"""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from tokenmill.batches import START, Position, TokenBatch
from tokenmill.commands.messages import closing_lines, manifest_of, outcome_of
from tokenmill.commands.options import (
    DEFAULT_CHECKPOINT_SECONDS,
    PrepareOptions,
    RunOptions,
    default_check,
    divided,
)
from tokenmill.commands.plan import Plan, make_plan
from tokenmill.commands.progress import Nothing, Reporter, Status, script_display
from tokenmill.commands.repair import repair
from tokenmill.commands.signature import checked, command_words, described, path_of, paths_of
from tokenmill.commands.workers import THREADS, check_executor
from tokenmill.dataset.manifest import QUARANTINE, Input, Manifest, Shard
from tokenmill.dataset.spec import Spec, SpecOptions
from tokenmill.encoding.calls import NeedsAllMemory
from tokenmill.encoding.crash_isolation import SuspectReader, careful
from tokenmill.encoding.encoder import BlockEncoder
from tokenmill.encoding.recipe import Encode, ProcessMaker, Task, encoding
from tokenmill.errors import (
    EngineMismatch,
    InputError,
    Interrupted,
    LimitReached,
    NoSpace,
    TemporaryFailure,
    TokenmillError,
    UsageError,
    WrongContent,
)
from tokenmill.executors.executor import RunningMap, WorkerDied
from tokenmill.executors.processes import ProcessExecutor
from tokenmill.executors.supervisor import Hand
from tokenmill.executors.threads import ThreadExecutor
from tokenmill.formats.format import row_bytes
from tokenmill.kinds import KINDS
from tokenmill.memory import give_back_large_buffers
from tokenmill.output import open_output, resume
from tokenmill.output.journal import VERSION as JOURNAL_VERSION
from tokenmill.output.journal import Encoded, Journal, Log, RunBegun
from tokenmill.output.output import Removal
from tokenmill.output.place import is_store, output_place, working_folder
from tokenmill.output.shards import in_order
from tokenmill.output.uploads import Uploads
from tokenmill.output.writer import DatasetWriter
from tokenmill.quantities import parse_bytes
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.sources.block import Block
from tokenmill.sources.inputs import Selection, finalized
from tokenmill.stores.digest import Hasher
from tokenmill.stores.durable import STATE_FOLDER, free_bytes
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.units import (
    format_bytes,
    format_count,
    format_files,
    format_seconds,
    numbered,
)
from tokenmill.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Unpack

_GRACE_SECONDS = 1.0
"""For the blocks in hand to come to an end, when the run is over."""
_CAREFUL_BLOCKS = 64
"""More than are ever in flight: by then, a careful run has passed what killed the others."""


Running = RunningMap[tuple[TokenBatch, Position]]


class PastTrouble(TokenmillError):
    """A careful run has come past what killed the runs before it."""


def hand_path(out: Path) -> Path:
    """Where a careful run notes what it has in hand."""
    return out / STATE_FOLDER / "in-hand"


@described
def prepare(
    inputs: str | Path | Iterable[str | Path], *, out: str | Path, **options: Unpack[PrepareOptions]
) -> Manifest:
    """Turn a corpus into token shards in ``out``, a folder or ``s3://BUCKET/PREFIX``; returns the
    manifest.

    The options are those of the command line with underscores (``val_fraction=0.01``). A folder
    that holds the finished dataset already is left as it is, an interrupted run is gone on with.
    What the command line tells goes to the logger ``tokenmill``. Raises TokenmillError.
    """
    return prepare_sized(inputs, out, options, DEFAULT_SIZES)


def prepare_sized(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    options: PrepareOptions,
    sizes: Sizes,
) -> Manifest:
    """The same with blocks of other sizes, which is for tests: no one else has a use for it."""
    where, paths, given = output_place(path_of("out", out)), paths_of(inputs), checked(options)
    display = script_display(given.get("progress"))
    run, spec = divided(given, display, command_words(paths, where, given))
    run = replace(run, sizes=sizes)
    with run.policy:  # a run that ended, however, asks for nothing any more
        return Preparation(plan_run(paths, run, spec, where), where, run).run()


@described
def plan(
    inputs: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    **options: Unpack[PrepareOptions],
) -> Plan:
    """What ``prepare`` would do with the same arguments, with estimates; writes nothing.

    Warnings, also of the disk of ``out``, go to the logger ``tokenmill``. Raises TokenmillError.
    """
    paths, given = paths_of(inputs), checked(options)
    run, spec = divided(given, Nothing(), [])
    with run.policy:
        found = plan_run(paths, run, spec)
        refuse_pipe(found)
        found.estimate = found.make_estimate()
    for line in found.notes() + found.warnings(None if out is None else Path(path_of("out", out))):
        run.tell(line)
    return found


def refuse_pipe(found: Plan) -> None:
    """Raises UsageError where the estimate would read what the run then misses."""
    if not found.inputs.are_replayable:
        raise UsageError(
            "plan cannot look into a pipe",
            "-",
            "what it read would be gone",
            "plan from a file",
        )


def plan_run(
    paths: list[str], run: RunOptions, options: SpecOptions, where: str | None = None
) -> Plan:
    """The plan of a run, not yet estimated; at ``where`` may be what it is to go on with."""
    if run.check is not None and not 0 <= run.check <= 1:
        raise UsageError(f"--check {run.check} is no share", fix="give a number from 0 to 1")
    check_executor(run.executor)
    total = None if run.memory is None else parse_bytes(run.memory)
    threads = 1 if run.attempt.is_careful else run.workers
    if run.repair and run.overwrite:
        raise UsageError("--repair and --overwrite exclude one another", fix="give one of them")
    deadline, selection = run.deadline, Selection(run.config, policy=run.policy)
    spec, commit = Spec.of(options), None
    if where is not None and not run.overwrite:
        before = resume.recorded(open_output(where, run.staging, run.policy.patience, run.tell))
        commit = resume.recorded_commit(before, spec.tokenizer)
        if before is not None:  # the same command again means these, wherever revisions moved to
            selection = replace(selection, revisions=before.revisions)
    is_stored = where is not None and is_store(where)
    found = make_plan(
        paths,
        spec,
        run.engine,
        total,
        threads,
        selection,
        commit,
        is_stored,
        deadline,
        run.check or 0.0,
        run.sizes,
    )
    found.budget = found.budget.shrunk(run.attempt.shrink, run.attempt.parent_bytes)
    # Where memory was short, or one document is looked for, one process is surer than several.
    is_surer = run.attempt.is_careful or run.attempt.shrink > 0
    found.choose_workers(THREADS if is_surer else run.executor, run.workers)
    if found.inputs.are_remote and found.budget.is_tight:
        give_back_large_buffers()
    return found


_RESUMABLE = (
    InputError, EngineMismatch, Interrupted, LimitReached, PastTrouble, TemporaryFailure,
    WorkerDied,
)  # fmt: skip
"""After these, what was done up to there is whole, and kept."""


class Preparation:
    """One run into one folder, or into one prefix of an object store; ``out`` is the folder it
    works in."""

    def __init__(self, plan: Plan, where: str, options: RunOptions) -> None:
        self.plan = plan
        self.where = where.rstrip("/") if is_store(where) else str(Path(where))
        self.out = working_folder(where, options.staging)
        self.options = options
        self.output = open_output(where, options.staging, options.policy.patience, options.tell)
        budget = plan.budget
        self.status = Status(plan.input_bytes, budget.asked, plan.workers.count, options.policy)
        self._spare: list[Engine] = []
        self._check = default_check(plan) if options.check is None else options.check
        self._worker = plan.worker(self._check)
        self._processes = self._process_executor()
        share, recipe = plan.workers.share, self._worker.recipe
        self._process_maker = ProcessMaker(recipe if share is None else recipe.shared(share))
        self._blocks = self._retries_before = 0
        self.has_worked = False

    def run(self) -> Manifest:
        """Do it, go on with it, or say that it was done before."""
        if not self.plan.inputs.are_replayable:
            self._check_pipe()
        if self.options.repair:
            self._check_local()
            return repair(self.plan, self.out, self.options.tell)
        output, plan = self.output, self.plan
        with output.hold(self.options.tell):
            try:
                resume.check_inputs(output, plan)
                output.take_stock()
                finished, removal, log = self._look()
                if finished is not None:
                    resume.settle(output, plan)
                    self._tell_finished(finished)
                    return finished
                log = log or Log(self._begun())
                # Nothing is removed before all that can be known of the new run is.
                self._announce(log, 0 if removal is None else removal.freed)
                if removal is not None:
                    self._begin_anew(removal)
                manifest = self._work(log)
            except BaseException as error:
                output.leave(resume.keeps(output, plan), isinstance(error, WrongContent))
                raise
            finally:
                if self._processes is not None:
                    self._processes.close()
            output.finish()
            self.has_worked = True
        for line in closing_lines(manifest, self.plan, self.status, self.where):
            self.options.tell(line)
        return manifest

    def _look(self) -> tuple[Manifest | None, Removal | None, Log | None]:
        """The dataset, if all is done; else what is removed first, where a run begins anew; or what
        to go on from."""
        output, plan = self.output, self.plan
        if self.options.overwrite and not self._has_begun_anew():
            return None, self._removal(), None
        if (manifest := resume.finished(output, plan)) is not None:
            return manifest, None, None
        if not plan.inputs.are_replayable and output.journal() is not None:
            self.options.tell("begun anew, for a pipe cannot be gone on with")
            return None, self._removal(), None
        resume.enter(output, plan)
        output.recover()
        log = resume.unfinished(output, plan)
        resume.refuse_foreign(output, plan)
        if log is None:
            output.remove_leftovers()
        return None, None, log

    def _removal(self) -> Removal:
        resume.enter(self.output, self.plan, any_spec=True)
        return resume.removal(self.output, self.plan)

    def _begin_anew(self, removal: Removal) -> None:
        """Remove what is there; but no dataset for inputs in which no document was found so far."""
        estimate, output = self.plan.estimate, self.output
        if estimate is not None and not estimate.documents and not removal.is_empty:
            raise InputError(
                "no document was found in samples of the inputs: nothing was removed",
                ", ".join(self.plan.arguments),
                "the new dataset would be empty",
                "check the inputs, --text-key and --documents; or remove the old dataset yourself",
            )
        if not output.is_as_seen(removal):
            removal = resume.removal(output, self.plan)
        for line in output.remove(removal):
            self.options.tell(f"overwrite: {line}")

    def _has_begun_anew(self) -> bool:
        """Has a worker before this one, which died, removed what was to be overwritten?"""
        if not self.options.attempt.number:
            return False
        try:
            is_there = resume.dataset(self.output, self.plan) is not None
            return not is_there and resume.is_begun(self.output, self.plan)
        except TokenmillError:
            return False

    def outcome(self, manifest: Manifest) -> dict[str, object]:
        """A finished run as plain data, for ``--json``."""
        return outcome_of(manifest, self.status, self.where, self.has_worked)

    def _check_pipe(self) -> None:
        """Refuse what takes a second look at the input."""
        options = self.options
        asked = [("--repair", options.repair), ("--max-time", options.max_time is not None)]
        for name, is_asked in asked:
            if is_asked:
                raise UsageError(
                    f"{name} needs inputs that can be read again",
                    "-",
                    "a pipe cannot",
                    "write what comes through the pipe to a file first",
                )
        if options.attempt.number:
            raise InputError(
                "the run cannot go on: what came through the pipe is gone",
                "-",
                "the working process died",
                "run the whole command again, with more --memory; or from a file, which can be "
                "gone on with",
            )

    def _check_local(self) -> None:
        if is_store(self.where):
            raise UsageError(
                "--repair is for folders",
                self.where,
                "objects are not repaired one by one",
                "prepare again with --overwrite",
            )

    def _tell_finished(self, manifest: Manifest) -> None:
        self.options.tell(
            f"nothing to do: {self.where} holds this dataset, finished, with "
            f"{format_count(manifest.counts['tokens'])} tokens"
        )

    def _begun(self) -> RunBegun:
        plan = self.plan
        return RunBegun(
            JOURNAL_VERSION,
            __version__,
            plan.fingerprint(),
            plan.spec.as_dict(),
            plan.vocabulary.describe(),
            [Input(**entry) for entry in plan.identities()],
            self.options.arguments,
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            plan.inputs.revisions,
            plan.libraries(),
        )

    def _announce(self, log: Log, freed: int) -> None:
        """Tell the plan in a line, what is kept, and everything that will go wrong; before it
        begins ``freed`` bytes are removed."""
        tell, plan = self.options.tell, self.plan
        if self._processes is not None and log.encoded is None:
            self._processes.begin(self._process_maker)
        for note in plan.notes():
            tell(note)
        if not plan.inputs.are_replayable:
            tell(f"plan: {plan.summary()}")
            return
        tell(plan.engine_name())
        if log.checkpoint is not None:
            kept = log.checkpoint.done_bytes
            tell(
                f"going on: {format_bytes(kept)} of {format_bytes(plan.input_bytes)} "
                f"({kept / max(1, plan.input_bytes):.0%}) are done and kept, "
                f"{format_count(log.checkpoint.counts['tokens'])} tokens in "
                f"{format_files(log.checkpoint.shards + len(log.checkpoint.open))}; that saves "
                f"{format_seconds(log.checkpoint.seconds)}"
            )
            return
        if self.options.attempt.number:
            return  # told by the worker that died, perhaps of a document in the estimate's sample
        plan.estimate = plan.make_estimate(self._spare if self._processes is None else None)
        tell(f"plan: {plan.summary()}")
        plan.told = plan.warnings(self.out, is_store(self.where), freed)
        for line in plan.worker_notes() + plan.told:
            tell(line)

    def _work(self, log: Log) -> Manifest:
        journal = Journal(self.out, log.size)
        reporter, is_done = None, False
        try:
            if log.size == 0 or log.run.fingerprint != self.plan.fingerprint():
                journal.append(self._begun())
            self.status.began = time.monotonic()
            uploads = self.output.uploads(log.run)
            if log.checkpoint is not None:
                self.status.restore(log.checkpoint)
            reporter = Reporter(self.status, self.options.display)
            shards = in_order(log.shards)
            if log.encoded is None:
                shards, encoded = self._encode(log, journal, reporter, uploads)
            else:
                encoded = log.encoded
            self.plan.inputs.files = [finalized(file) for file in self.plan.inputs.files]
            manifest = self._publish(shards, encoded)
            is_done = True
            return manifest
        except NoSpace as error:
            raise self._with_missing_bytes(error) from error
        finally:
            if reporter is not None:
                reporter.close(is_done)
            journal.close()

    def _encode(
        self, log: Log, journal: Journal, reporter: Reporter, uploads: Uploads | None
    ) -> tuple[list[Shard], Encoded]:
        """Everything that is not yet encoded, into whole files under partial names."""
        if uploads is not None:
            uploads.is_asked_to_stop = self.options.stop.is_asked
        hasher = self._hasher()
        new_digest = hashlib.sha256 if hasher is None else hasher.digest
        spec, dtype = self.plan.spec, self.plan.dtype
        writer = DatasetWriter(self.out, spec, dtype, journal, uploads, new_digest)
        try:
            start = START
            if log.checkpoint is not None:
                writer.restore(log)
                start = Position(log.checkpoint.file, log.checkpoint.state)
            self._mill(writer, reporter, start)
            if not self.status.counts.documents:
                raise InputError(
                    "the inputs hold no document",
                    ", ".join(self.plan.arguments),
                    f"{self.status.counts.null_documents} of them are null",
                    "check the inputs, --text-key and --documents",
                )
            encoded = writer.finish(self.status.counted())
            return writer.shards(), encoded
        finally:
            writer.close()
            if hasher is not None:
                hasher.close()

    def _hasher(self) -> Hasher | None:
        """The process that hashes what is written, where there are processes."""
        if self._processes is None:
            return None
        return Hasher(self._processes.fork("tokenmill.stores.digest:serve"))

    def _mill(self, writer: DatasetWriter, reporter: Reporter, start: Position) -> None:
        """Encode and write block by block; what is done when it stops is kept."""
        stop, batches = self.options.stop, self._batches(start)
        if self.options.ends_process:
            gc.freeze()  # each collection would look at all of the vocabulary again
        stop.defer(True)
        self._retries_before = self.options.policy.retries
        try:
            try:
                self._consume(batches, writer, reporter)
            except (NeedsAllMemory, WorkerDied) as error:
                self._close(batches)
                self._give_up_processes(error)
                batches = self._batches(writer.position)
                self._consume(batches, writer, reporter)
            if stop.signal is not None:
                raise Interrupted.by_signal(stop.signal, *self._kept())
        except _RESUMABLE:
            writer.checkpoint(self.status.counted(), wait=True)
            raise
        finally:
            self.plan.inputs.close()
            self.options.policy.close()  # what is still fetched is not wanted any more
            try:
                self._close(batches)
            finally:
                self.options.policy.reopen()
                stop.defer(False)

    def _give_up_processes(self, error: NeedsAllMemory | WorkerDied) -> None:
        """The rest is done by threads of this process: with all of the memory, or watched by the
        parent, which finds what kills. In a script there is no parent. Raises WorkerDied."""
        if isinstance(error, NeedsAllMemory):
            self.options.tell(
                f"note: {format_bytes(error.size)} of text in one piece need the memory of all "
                "workers: from here on they are threads, not processes"
            )
        elif not self.options.ends_process:
            raise error
        else:
            self.options.tell(f"warning: {error}; from here on, workers are threads")
        if self._processes is not None:  # their memory is needed
            self._processes.close()
            self._processes = None
        self._worker = self.plan.worker(self._check)

    def _close(self, batches: Running) -> None:
        """Wait for the threads. One may be deep in native code (a pattern that tries for ever):
        a process that ends with the run leaves it there, for all that is done is durable. In a
        script it would end the interpreter badly, so that is said, and waited for."""
        left = batches.close(_GRACE_SECONDS)
        if left and not self.options.ends_process:
            self.options.tell(
                f"warning: stopping waits for {numbered(left, 'thread')} in native code that "
                "cannot be interrupted; what is done is kept; fix: wait, or interrupt it again"
            )
            batches.close()

    def _consume(self, batches: Running, writer: DatasetWriter, reporter: Reporter) -> None:
        # At once where nothing is kept yet; a run that goes on first works for a while, so that
        # a block that kills it is seen to kill it again and again.
        every = self.options.checkpoint_seconds
        every = DEFAULT_CHECKPOINT_SECONDS if every is None else every
        is_first = not self.status.kept_bytes and every < float("inf")
        due = time.monotonic() + (0 if is_first else every)
        for batch, end in batches:
            began = time.perf_counter()
            writer.write(batch, end)
            self.status.add(batch, time.perf_counter() - began)
            self._stop_if_drowning(writer)
            now = time.monotonic()
            self.status.pids = batches.pids
            self.status.sample(now)
            if (now >= due or writer.wants_checkpoint) and not writer.is_checkpointing:
                writer.checkpoint(self.status.counted())
                due = now + every
            reporter.update()
            self._stop_if_past_trouble()
            if self._is_late():
                break
            del batch
        if self._is_late() and not batches.is_finished:
            where, why, fix = self._kept()
            raise LimitReached(f"--max-time {self.options.max_time} is over", where, why, fix)

    def _is_late(self) -> bool:
        deadline = self.options.deadline
        return deadline is not None and time.monotonic() >= deadline

    def _kept(self) -> tuple[str, str, str]:
        """Where, why and fix of an error after which the run can go on."""
        status = self.status
        if not self.plan.inputs.are_replayable:
            return self.where, "nothing of a pipe is kept", "run the whole command again"
        return (
            self.where,
            f"{format_bytes(status.done_bytes)} of {format_bytes(status.total_bytes)} are done "
            "and kept",
            f"to go on, run the same command again: {self.options.command}",
        )

    def _stop_if_past_trouble(self) -> None:
        self._blocks += 1
        if self.options.attempt.is_careful and self._blocks >= _CAREFUL_BLOCKS:
            raise PastTrouble("past what killed", None, None, "go on as usual")

    def _stop_if_drowning(self, writer: DatasetWriter) -> None:
        count = sum(writer.reasons.values())
        if count > self.options.max_bad:
            worst = ", ".join(f"{n} {reason}" for reason, n in writer.reasons.most_common(3))
            raise InputError(
                f"more than {self.options.max_bad} records cannot be used (--max-bad)",
                f"see {self.out / (QUARANTINE + '.partial')}",
                worst,
                "check --text-key, --documents and the inputs; or go on with a larger --max-bad",
            )

    def _spare_engine(self) -> Engine | None:
        """For one thread. To load one takes 0.1 s (gpt2) to 0.5 s (o200k_base), and the estimate
        has loaded one already."""
        try:
            return self._spare.pop()
        except IndexError:
            return None

    def _process_executor(self) -> ProcessExecutor | None:
        workers = self.plan.workers
        if not workers.are_processes:
            return None
        modules = ["numpy", "tokenmill.encoding.recipe", "tokenmill.stores.digest"]
        kinds = [KINDS[name] for name in sorted({file.kind for file in self.plan.inputs.files})]
        modules += [kind.module for kind in kinds]
        if any(kind.uses_arrow for kind in kinds):
            modules.append("pyarrow.parquet")
        return ProcessExecutor(workers.count, modules, self.options.tell)

    def _batches(self, start: Position) -> Running:
        """What encodes the blocks from ``start`` on, begun."""
        is_over = lambda: self.options.stop.is_asked() or self._waits_too_long()  # noqa: E731
        tasks, weigh = self._tasks(start), lambda task: self.plan.weight(task[0])
        if self._processes is not None:
            window, make = self.plan.workers.window, self._process_maker
            return self._processes.map(make, tasks, window=window, weigh=weigh, is_over=is_over)
        budget = self.plan.budget
        window = 1 if self.options.attempt.is_careful else budget.window
        executor = ThreadExecutor(budget.threads)
        return executor.map(self._encode_here, tasks, window=window, weigh=weigh, is_over=is_over)

    def _tasks(self, start: Position) -> Iterator[Task]:
        """The blocks from ``start`` on, and whether the reference is due to check some of each."""
        for block in self._worker.corpus.blocks(start):
            share = self.plan.workers.share if self._processes is not None else None
            if share is not None and block.text_bytes > share.record_bytes:
                raise NeedsAllMemory(block.text_bytes)
            yield block, self._check > 0 and not self.status.is_checked

    def _encode_here(self) -> Encode:
        """What a thread of this process does with a block."""
        encoder = self._worker.encoder(self._spare_engine())
        if self.options.attempt.is_careful:
            return encoding(self._careful(encoder))
        return encoding(encoder.encode)

    def _waits_too_long(self) -> bool:
        """Is the time over while nothing comes? Before the first block only where the network
        fails: else a run of little time would come no further, however often it is begun."""
        has_failed = self.options.policy.retries > self._retries_before
        return self._is_late() and (self._blocks > 0 or has_failed)

    def _careful(self, encoder: BlockEncoder) -> Callable[[Block, bool], TokenBatch]:
        engine = make_engine(self.plan.vocabulary.reference, self.plan.vocabulary)
        attempt, hand = self.options.attempt, Hand(hand_path(self.out))
        is_strict = self.plan.spec.on_bad == "stop"
        read = self._worker.corpus.read
        suspects = SuspectReader(read, engine, hand, attempt.condemned, is_strict)
        return careful(encoder, self._worker.slow_encoder(engine, suspects.read), attempt, hand)

    def _publish(self, shards: list[Shard], encoded: Encoded) -> Manifest:
        """Everything is encoded: name the files, and say so. Can be done again from the middle."""
        manifest = manifest_of(self.plan, shards, encoded, self._check)
        self.output.publish(manifest)
        return manifest

    def _with_missing_bytes(self, error: NoSpace) -> TokenmillError:
        """Say how much more room the rest of the run needs, as far as that can be told."""
        status, dtype = self.status, self.plan.dtype
        share = status.done_bytes / max(1, status.total_bytes)
        written = row_bytes(status.counts.tokens, dtype)
        need = written * (1 - share) / share if share else 0
        missing = max(0, need - free_bytes(self.out))
        about = f"about {format_bytes(missing)} more are needed" if share else error.why
        return NoSpace(error.what, error.where, f"{error.why}; {about}", error.fix)
