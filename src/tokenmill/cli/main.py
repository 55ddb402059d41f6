"""The command line: parse, call, print, exit. Everything heavy is imported where it is used.

Data goes to stdout, all else to stderr. Exit codes are those of ``tokenmill.errors``.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from tokenmill.cli.doctor import doctor
from tokenmill.cli.inspect import inspect
from tokenmill.cli.options import CONTEXT
from tokenmill.cli.plan import plan
from tokenmill.cli.prepare import prepare
from tokenmill.cli.show import print_error, unprintable
from tokenmill.cli.signals import leave
from tokenmill.cli.status import status
from tokenmill.cli.verify import verify
from tokenmill.errors import Interrupted, TokenmillError, UsageError, nearest
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.system import check_system
from tokenmill.version import __version__

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


@click.group(context_settings=CONTEXT, cls=_Commands)
@click.version_option(__version__, prog_name="tokenmill")
@click.option("--debug", is_flag=True, help="Show tracebacks (anywhere on the line).")
def cli(debug: bool) -> None:
    """Any text corpus to token shards for LLM pretraining: fast, bounded, exact.

    \b
    tokenmill prepare train_fineweb.txt --out data/fineweb
    tokenmill prepare 'fineweb/*.parquet' --format build-nanogpt --out edu_fineweb10B
    """


for _command in (prepare, plan, verify, inspect, status, doctor):
    cli.add_command(_command)


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


def main(sizes: Sizes = DEFAULT_SIZES) -> NoReturn:
    """Run the command line and leave with its exit code; ``sizes`` are those of blocks, which no
    option sets."""
    _hold_standard_streams()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        if not _PRINTED_BY_CLICK & set(arguments):
            check_system()
        cli.main(arguments, prog_name="tokenmill", standalone_mode=False, obj=sizes)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except (click.ClickException, click.Abort, Exception) as problem:
        if debug and not isinstance(problem, click.ClickException | click.Abort):
            raise
        error = _as_error(problem, arguments)
        print_error(error, "--json" in arguments)
        leave(error.exit_code)
    sys.exit(0)


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
        return unprintable(problem)
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
