"""The command line: parse, call, print, exit. Everything heavy is imported where it is used.

Data goes to stdout, all else to stderr. Exit codes are those of ``tokenmill.errors``.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tokenmill.console import last_words, one_line, print_line, print_or_forget, to_json
from tokenmill.errors import Interrupted, NoSpace, TokenmillError, UsageError, choose_from, nearest
from tokenmill.executors.threads import MAP_THREADS
from tokenmill.output.output import output_place, working_folder
from tokenmill.system import check_system
from tokenmill.units import numbered
from tokenmill.version import __version__

if TYPE_CHECKING:
    from tokenmill.commands.options import RunOptions
    from tokenmill.executors.supervisor import Attempt

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_Command = Callable[..., None]
_Decorator = Callable[[_Command], _Command]
QUARANTINED = 3
SPLITS = ("train", "val")
_PRINTED_BY_CLICK = {"--version", "--help", "-h"}
"""With one of these click prints, and nothing else is done."""


class _Commands(click.Group):
    """The commands; one that is misspelled is answered with the one most like it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:  # click would make an error of the whole help
            raise self._error("a command is missing", "tokenmill --help")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if not name.startswith("-") and name not in self.commands:
            fix = nearest(name, self.commands) or "tokenmill --help"
            raise self._error(f"there is no command {name!r}", fix)
        return super().resolve_command(ctx, args)

    def _error(self, what: str, fix: str) -> UsageError:
        return UsageError(what, None, f"the commands are {', '.join(self.commands)}", fix)


@click.group(context_settings=_CONTEXT, cls=_Commands)
@click.version_option(__version__, prog_name="tokenmill")
@click.option("--debug", is_flag=True, help="Show tracebacks (anywhere on the line).")
def cli(debug: bool) -> None:
    """Any text corpus to token shards for LLM pretraining: fast, bounded, exact.

    \b
    tokenmill prepare train_fineweb.txt --out data/fineweb
    tokenmill prepare 'fineweb/*.parquet' --format build-nanogpt --out edu_fineweb10B
    """


def _with(options: Sequence[_Decorator], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def _spec_options(command: _Command) -> _Command:
    """The options that change the bytes."""
    return _input_options(_dataset_options(command))


def _input_options(command: _Command) -> _Command:
    """What is read, and how it divides into documents."""
    options = [
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        click.option(
            "--format",
            default="nanogpt",
            metavar="nanogpt|build-nanogpt|llm.c|modded-nanogpt",
            help="Who will read it; default nanogpt.",
        ),
        click.option(
            "--tokenizer",
            default="gpt2",
            help="gpt2 (default), cl100k_base, o200k_base; a .tiktoken, tokenizer.json or "
            "SentencePiece .model file; a folder with one; or a Hub id, ORG/NAME[@REVISION].",
        ),
        click.option(
            "--pattern",
            help="Split pattern of a .tiktoken file that is not a known "
            "one: gpt2, cl100k_base, o200k_base.",
        ),
        click.option(
            "--kind",
            multiple=True,
            metavar="KIND[=GLOB]",
            help="What the inputs are, where name or guess are wrong: text, jsonl, parquet "
            "(text.gz: compressed); with =GLOB, those whose name matches. Repeatable.",
        ),
        click.option("--text-key", default="text", help="JSONL field or parquet column."),
        click.option(
            "--documents",
            default="file",
            metavar="file|line|blank-line|separator:STRING",
            help="How plain text divides; default: each file is one document.",
        ),
    ]
    return _with(options, command)


def _dataset_options(command: _Command) -> _Command:
    """What becomes of the documents."""
    options = [
        click.option("--shard-tokens", help="Tokens in a shard, such as 100M."),
        click.option("--val-fraction", type=float, help="Share of the documents for validation."),
        click.option("--val-tokens", help="Tokens for validation, from the head of the corpus."),
        click.option("--val-shards", type=int, help="Shards for validation, the first ones."),
        click.option("--val-docs", help="Documents for validation, the first ones."),
        click.option("--seed", type=int, default=0, help="Seed of the split and the checks."),
        click.option("--name", help="Prefix of the shards' names."),
        click.option(
            "--eot",
            metavar="before|after|none",
            help="End-of-text id: before or after each document, or none.",
        ),
        click.option(
            "--eot-token", help="Which token that is, by name or id; default: the tokenizer's own."
        ),
        click.option(
            "--special-text",
            metavar="text|token|error",
            help="What the end-of-text token written in a document becomes: "
            "text (default; counted), token, error.",
        ),
        click.option(
            "--on-bad",
            metavar="stop|quarantine",
            help="What cannot become tokens: stop (default), or quarantine: "
            "go on without it, and keep it with its place and reason.",
        ),
        click.option(
            "--invalid-utf8",
            metavar="error|replace",
            help="Bytes that are not UTF-8: error (default), or replace by U+FFFD, counted.",
        ),
    ]
    return _with(options, command)


def _run_options(command: _Command) -> _Command:
    """The options that change no byte."""
    options = [
        click.option("--config", help="Which config of a dataset on the Hub, such as sample-10BT."),
        click.option(
            "--network-patience",
            help="How long a request that fails is made again, such as 10m; default 1h.",
        ),
        click.option(
            "--memory",
            help="Budget for the whole process, such as 512MB; default "
            "half of what there is, at most 2 GiB.",
        ),
        click.option(
            "--workers",
            type=int,
            help="Threads that read and encode; default: as many as there are cores, the "
            "memory serves well and the text is worth. Older name: --threads.",
        ),
        click.option("--threads", type=int, hidden=True),
        click.option(
            "--engine",
            default="auto",
            metavar="auto|gigatoken|tiktoken|tokenizers|sentencepiece",
            help="Default: auto, the fastest that is exact.",
        ),
        click.option(
            "--check",
            type=float,
            help="Share of the documents that the reference encodes a second time; 0 for none.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout."),
        click.option("--quiet", is_flag=True, help="Say nothing but warnings and errors."),
    ]
    return _with(options, command)


@cli.command(context_settings=_CONTEXT)
@_spec_options
@_run_options
@click.option("--out", required=True, metavar="DIR", help="The folder, or s3://BUCKET/PREFIX.")
@click.option("--staging", metavar="DIR", help="Where to work when --out is a URL.")
@click.option("--max-time", help="Stop cleanly after this long, such as 8h, to go on later.")
@click.option("--max-bad", type=int, help="Stop when more records than this are left out (10000).")
@click.option("--checkpoint-seconds", type=float, hidden=True)
@click.option("--overwrite", is_flag=True, help="Begin anew; tells what it removes.")
@click.option("--repair", is_flag=True, help="Make only the damaged shards of DIR again.")
def prepare(out: str, inputs: tuple[str, ...], **options: Any) -> None:
    """Turn a corpus into token shards. Running it again goes on, or says that it is done.

    \b
    tokenmill prepare train_fineweb.txt --out data/fineweb
    tokenmill prepare corpus/ --format llm.c --out fineweb10B --memory 4GB
    """
    out = output_place(out)
    attempt = _supervised(working_folder(out, options["staging"]), options)
    from tokenmill.commands.prepare import PastTrouble, Preparation, plan_run
    from tokenmill.executors.supervisor import AGAIN

    run = _make_run(options, attempt)
    with _hearing_signals(run):
        try:
            preparation = Preparation(plan_run(list(inputs), run, _spec(options), out), out, run)
            manifest = preparation.run()
        except PastTrouble:
            _leave(AGAIN)
        if options["as_json"]:
            done = {"type": "done", **preparation.outcome(manifest)}
            print_or_forget(to_json(done), sys.stdout)
        if preparation.has_worked and manifest.counts["quarantined"]:
            _leave(QUARANTINED)


@cli.command(context_settings=_CONTEXT)
@_spec_options
@_run_options
@click.option("--out", default=".", metavar="DIR", help="The folder whose disk is looked at.")
def plan(out: str, inputs: tuple[str, ...], **options: Any) -> None:
    """Tell what prepare would do with the same options; writes nothing."""
    from tokenmill.commands.prepare import plan_run, refuse_pipe
    from tokenmill.stores.durable import free_bytes

    place = Path(output_place(out))
    run = _make_run(options)
    with _hearing_signals(run):
        found = plan_run(list(inputs), run, _spec(options))
        refuse_pipe(found)
        found.estimate = found.make_estimate()
    free, notes, warnings = free_bytes(place), found.notes(), found.warnings()
    for note in notes:
        run.tell(note)
    if options["as_json"]:
        _print_json("plan", **found.as_dict(), free_bytes=free, notes=notes, warnings=warnings)
    else:
        for line in found.lines(free):
            _show(line)
    for warning in found.disk_warnings(place) + warnings:
        run.tell(warning)


@cli.command(context_settings=_CONTEXT)
@click.argument("folder", metavar="DIR")
@click.argument("more", nargs=-1, metavar="")
@click.option("--quick", is_flag=True, help="Sizes and headers only.")
@click.option(
    "--against",
    multiple=True,
    metavar="INPUT...",
    help="Compare with these inputs, the dataset's own: a sample is encoded again "
    "by the reference.",
)
@click.option("--config", help="With --against: which config of a dataset on the Hub.")
@click.option("--share", type=float, help="Share of the documents in that sample (0.01).")
@click.option("--seed", type=int, default=0, help="Seed of that sample.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def verify(
    folder: str,
    more: tuple[str, ...],
    quick: bool,
    against: tuple[str, ...],
    config: str | None,
    share: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Is the dataset what its manifest says? Exit code 13 if not."""
    from tokenmill.commands.verify import DEFAULT_SHARE
    from tokenmill.commands.verify import verify as find_problems
    from tokenmill.errors import DamageFound

    if more and not against:
        raise UsageError("verify takes one folder", fix="name inputs after --against")
    count = 0
    inputs: list[str | Path] | None = [*against, *more] or None
    problems = find_problems(
        folder,
        quick=quick,
        against=inputs,
        share=DEFAULT_SHARE if share is None else share,
        seed=seed,
        config=config,
        tell=lambda line: print_or_forget(one_line(line), sys.stderr),
    )
    for problem in problems:
        count += 1
        if as_json:
            _print_json("problem", **vars(problem))
        else:
            _show(one_line(str(problem)))
    if count:
        raise DamageFound(
            f"{numbered(count, 'problem')} found",
            folder,
            None,
            "run the command that prepared it again, with --repair: it makes only damaged shards",
        )
    if as_json:
        _print_json("verified", folder=folder, quick=quick, problems=0)
    else:
        _show(f"{folder}: sizes{'' if quick else ', counts and hashes'} are as they should be")


@cli.command(context_settings=_CONTEXT)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--doc", type=int, help="Show this document's text, counted from 0.")
@click.option("--token", type=int, help="Show the text from this token on.")
@click.option(
    "--split", default="train", metavar="train|val", help="Of which split; default train."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def inspect(folder: Path, doc: int | None, token: int | None, split: str, as_json: bool) -> None:
    """Show headers, counts and decoded text."""
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}", fix=choose_from(split, SPLITS))
    from tokenmill.commands.inspect import describe, text_at_token, text_of_document
    from tokenmill.dataset.reader import Dataset

    dataset = Dataset.at(folder)
    if doc is not None or token is not None:
        shown = (
            text_of_document(dataset, doc, split)
            if doc is not None
            else text_at_token(dataset, token or 0, split)
        )
        _print_json("text", **shown) if as_json else _show(shown["text"])
        return
    about = describe(dataset)
    if as_json:
        _print_json("dataset", **about)
        return
    _show(f"{about['format']}, {about['tokenizer']}, end-of-text {about['delimiter']}")
    _show(f"validation split: {about['split']}")
    counts = [(value, name.replace("_", " ")) for name, value in about["counts"].items() if value]
    _show(", ".join(f"{n:,} {name.removesuffix('s') if n == 1 else name}" for n, name in counts))
    for shard in about["shards"]:
        _show(
            f"{shard['name']}: {numbered(shard['tokens'], 'token')} of {shard['dtype']} after "
            f"{shard['header_bytes']} bytes of header, {numbered(shard['documents'], 'document')} "
            f"{'begins' if shard['documents'] == 1 else 'begin'} in it"
        )


@cli.command(context_settings=_CONTEXT)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def status(folder: Path, as_json: bool) -> None:
    """Show what a running, stopped or finished run has done, from its files alone."""
    from tokenmill.commands.status import status_of

    found = status_of(folder)
    if as_json:
        _print_json("status", folder=str(folder), **found)
        return
    holder = f", by process {found['holder']}" if found["holder"] else ""
    _show(f"{folder}: {found['state']}{holder}")
    for line in _status_lines(found):
        _show(line)


def _status_lines(found: dict[str, Any]) -> list[str]:
    """What a person is told of a run or a dataset, if it has got that far."""
    from tokenmill.units import format_bytes, format_seconds

    lines: list[str] = []
    if "began" in found:
        share = found["bytes"] / max(1, found["total_bytes"])
        done = f"{format_bytes(found['bytes'])} of {format_bytes(found['total_bytes'])}"
        lines.append(f"began {found['began']}, worked {format_seconds(found['seconds'])}")
        lines.append(f"done: {done} ({share:.0%})" + ", all is encoded" * found["is_encoded"])
    if "documents" in found:
        documents = numbered(found["documents"], "document")
        lines.append(f"{documents}, {numbered(found['tokens'], 'token')}")
        lines.append(f"{numbered(found['shards_whole'], 'shard')} whole")
    if found.get("shards_open"):
        lines.append(f"being filled: {', '.join(found['shards_open'])}")
    if found.get("damaged"):
        lines.append(f"missing or of another size: {', '.join(found['damaged'])}")
    if found.get("quarantined"):
        reasons = ", ".join(f"{count} {reason}" for reason, count in found["quarantined"].items())
        lines.append(f"left out: {reasons}")
    if found.get("checkpoint"):
        lines.append(f"last checkpoint: {found['checkpoint']}")
    if "command" in found and found["state"] == "stopped":
        lines.append(f"to go on: {found['command']}")
    return lines


@cli.command(context_settings=_CONTEXT)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="The folder whose disk is measured.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def doctor(out: Path, as_json: bool) -> None:
    """Show versions, processors, the memory limit seen, the disk's speed, and the engines."""
    from tokenmill.commands.doctor import diagnose, told_lines

    found = diagnose(out)
    if as_json:
        _print_json("doctor", **found)
        return
    for line in told_lines(found):
        _show(line)


def _spec(options: dict[str, Any]) -> Any:
    return {name: value for name, value in options.items() if name not in _RUN_NAMES}


_RUN_NAMES = {
    "memory", "workers", "threads", "engine", "check", "max_time", "max_bad", "overwrite", "repair",
    "checkpoint_seconds", "as_json", "quiet", "staging", "config", "network_patience",
}  # fmt: skip


def _supervised(out: Path, options: dict[str, Any]) -> Attempt:
    """Go on in a process of its own, watched by this one."""
    from tokenmill.executors.supervisor import Watch, in_hand, supervise

    def fail(error: TokenmillError) -> None:
        if isinstance(error, Interrupted):
            from tokenmill.output.journal import continuing_command

            command = continuing_command(sys.argv[1:])
            error.fix = f"to go on, run the same command again: {command}"
        _print_error(error, options["as_json"])

    state = out / ".tokenmill"
    watch = Watch(lambda: _progress(out), lambda: in_hand(state / "in-hand"))
    return supervise(watch, lambda line: _tell(line, options["quiet"]), fail, out)


def _progress(out: Path) -> str:
    """Something that differs when a checkpoint came in between; cheap where there is none."""
    if not os.path.exists(out / ".tokenmill" / "journal"):
        return ""
    from tokenmill.output.journal import read_journal

    log = read_journal(out)
    at = log.checkpoint if log is not None else None
    return "" if at is None else f"{at.file} {at.state}"


def _tell(line: str, is_quiet: bool) -> None:
    """A line for a person, to stderr; a log that cannot be written stops no run."""
    if not is_quiet or line.startswith(("warning", "error")):
        print_or_forget(one_line(line), sys.stderr)


def _make_run(options: dict[str, Any], attempt: Attempt | None = None) -> RunOptions:
    from tokenmill.commands.options import DEFAULT_MAX_BAD, RunOptions, workers_of
    from tokenmill.commands.progress import command_display
    from tokenmill.commands.stop import StopRequest
    from tokenmill.executors.supervisor import Attempt

    quiet, max_bad = options["quiet"], options.get("max_bad")
    return RunOptions(
        memory=options["memory"],
        workers=workers_of(options["workers"], options["threads"]),
        engine=options["engine"],
        check=options["check"],
        max_time=options.get("max_time"),
        max_bad=DEFAULT_MAX_BAD if max_bad is None else max_bad,
        overwrite=bool(options.get("overwrite")),
        checkpoint_seconds=options.get("checkpoint_seconds"),
        repair=bool(options.get("repair")),
        staging=options.get("staging"),
        config=options.get("config"),
        network_patience=options.get("network_patience"),
        display=command_display(quiet, options["as_json"]),
        tell=lambda line: _tell(line, quiet),
        stop=StopRequest(),
        attempt=attempt or Attempt(),
        arguments=sys.argv[1:],
        ends_process=True,
    )


@contextmanager
def _hearing_signals(run: RunOptions) -> Iterator[None]:
    """While it lasts, signals stop the run; afterwards it is over, whatever comes."""
    with run.stop.heard():
        _catch_signals(run)
        try:
            yield
        finally:
            run.stop.defer(True)


def _catch_signals(run: RunOptions) -> None:
    """The first signal stops the run, durably; the second ends it at once, which is safe too, and
    says so."""
    from tokenmill.executors.supervisor import Repeats

    repeats = Repeats()
    fix = f"to go on, run the same command again: {run.command}"

    def handle(number: int, frame: object) -> None:
        is_second = repeats.is_second()
        if is_second:
            error = Interrupted.by_signal(
                number, None, "it came a second time: what the last checkpoint holds is kept", fix
            )
            last_words(f"error: {error}")
            os._exit(error.exit_code)
        if is_second is False:
            run.stop.ask(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, handle)


def _show(text: str) -> None:
    """Data, to stdout: what was asked for, so that a command that cannot print it has failed."""
    try:
        print_line(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unprintable(error) from error


def _unprintable(error: OSError) -> TokenmillError:
    """The error where standard output cannot be written, though somebody is there to read it."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (NoSpace if is_full else TokenmillError)(
        "cannot print the answer",
        "standard output",
        error.strerror or str(error),
        f"{'free space there, or ' if is_full else ''}send it to another file, then run this again",
    )


def _print_json(type_: str, **fields: Any) -> None:
    _show(to_json({"type": type_, **fields}))


def _print_error(error: TokenmillError, as_json: bool) -> None:
    """Tell a person, and with ``--json`` a program too."""
    print_or_forget(f"error: {error}", sys.stderr)
    if as_json:
        print_or_forget(to_json({"type": "error", **error.as_dict()}), sys.stdout)


def _hold_standard_streams() -> None:
    """A stream that was closed leads nowhere: else the next file opened would get its number, and
    what native code prints would land in a shard."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            os.dup2(fd, number)
            if fd != number:
                os.close(fd)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    _hold_standard_streams()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        if not _PRINTED_BY_CLICK & set(arguments):
            check_system()
        cli.main(arguments, prog_name="tokenmill", standalone_mode=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except (click.ClickException, click.Abort, Exception) as problem:
        if debug and not isinstance(problem, click.ClickException | click.Abort):
            raise
        error = _as_error(problem, arguments)
        _print_error(error, "--json" in arguments)
        _leave(error.exit_code)
    sys.exit(0)


def _leave(code: int) -> NoReturn:
    """Exit; past the interpreter's own end where a thread is still deep in native code, for then
    that aborts the process."""
    if any(thread.name.startswith(MAP_THREADS) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _as_error(problem: Exception, arguments: list[str]) -> TokenmillError:
    """What went wrong as one of our errors. One that nobody foresaw is told as such, with its
    place in the code, for whoever can mend it."""
    if isinstance(problem, TokenmillError):
        return problem
    if isinstance(problem, click.Abort):  # Ctrl-C, where nothing had begun
        return Interrupted.by_signal(signal.SIGINT)
    if isinstance(problem, click.ClickException):
        command = next((word for word in arguments if word in cli.commands), "")
        fix = f"tokenmill {command} --help" if command else "tokenmill --help"
        return UsageError(problem.format_message().rstrip("."), fix=fix)
    if isinstance(problem, OSError) and _PRINTED_BY_CLICK & set(arguments):
        return _unprintable(problem)
    return TokenmillError(
        f"something happened that nobody foresaw: {type(problem).__name__}: {problem}",
        _place_of(problem),
        "this is a defect of tokenmill's; what is durable stays so",
        f"run it with --debug, and report what it shows: {_again(arguments)}",
    )


def _place_of(problem: Exception) -> str | None:
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else None


def _again(arguments: list[str]) -> str:
    return shlex.join(["tokenmill", *arguments, "--debug"])
