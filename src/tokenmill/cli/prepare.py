"""``tokenmill prepare``: in a process of its own, which its parent watches."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokenmill.cli.options import CONTEXT, make_run, run_options, spec_of, spec_options
from tokenmill.cli.show import print_error, tell
from tokenmill.cli.signals import hearing_signals, leave
from tokenmill.console import print_or_forget, to_json
from tokenmill.errors import Interrupted, TokenmillError
from tokenmill.output.place import output_place, working_folder

if TYPE_CHECKING:
    from tokenmill.executors.supervisor import Attempt
    from tokenmill.sizes import Sizes


QUARANTINED = 3


@click.command(context_settings=CONTEXT)
@spec_options
@run_options
@click.option("--out", required=True, metavar="DIR", help="The folder, or s3://BUCKET/PREFIX.")
@click.option("--staging", metavar="DIR", help="Where to work when --out is a URL.")
@click.option("--max-time", help="Stop cleanly after this long, such as 8h, to go on later.")
@click.option("--max-bad", type=int, help="Stop when more records than this are left out (10000).")
@click.option("--checkpoint-seconds", type=float, hidden=True)
@click.option("--overwrite", is_flag=True, help="Begin anew; tells what it removes.")
@click.option("--repair", is_flag=True, help="Make only the damaged shards of DIR again.")
@click.pass_obj
def prepare(sizes: Sizes, /, out: str, inputs: tuple[str, ...], **options: Any) -> None:
    """Turn a corpus into token shards. Running it again goes on, or says that it is done.

    \b
    tokenmill prepare train_fineweb.txt --out data/fineweb
    tokenmill prepare corpus/ --format llm.c --out fineweb10B --memory 4GB
    """
    out = output_place(out)
    attempt = _supervised(working_folder(out, options["staging"]), options)
    from tokenmill.commands.prepare import PastTrouble, Preparation, plan_run
    from tokenmill.executors.supervisor import AGAIN

    run = make_run(options, sizes, attempt)
    with hearing_signals(run):
        try:
            preparation = Preparation(plan_run(list(inputs), run, spec_of(options), out), out, run)
            manifest = preparation.run()
        except PastTrouble:
            leave(AGAIN)
        if options["as_json"]:
            done = {"type": "done", **preparation.outcome(manifest)}
            print_or_forget(to_json(done), sys.stdout)
        if preparation.has_worked and manifest.counts["quarantined"]:
            leave(QUARANTINED)


def _supervised(out: Path, options: dict[str, Any]) -> Attempt:
    """Go on in a process of its own, watched by this one."""
    from tokenmill.executors.supervisor import Watch, in_hand, supervise

    def fail(error: TokenmillError) -> None:
        if isinstance(error, Interrupted):
            from tokenmill.output.journal import continuing_command

            command = continuing_command(sys.argv[1:])
            error.fix = f"to go on, run the same command again: {command}"
        print_error(error, options["as_json"])

    state = out / ".tokenmill"
    watch = Watch(lambda: _progress(out), lambda: in_hand(state / "in-hand"))
    return supervise(watch, lambda line: tell(line, options["quiet"]), fail, out)


def _progress(out: Path) -> str:
    """Something that differs when a checkpoint came in between; cheap where there is none."""
    if not os.path.exists(out / ".tokenmill" / "journal"):
        return ""
    from tokenmill.output.journal import read_journal

    log = read_journal(out)
    at = log.checkpoint if log is not None else None
    return "" if at is None else f"{at.file} {at.state}"
