"""``tokenmill plan``: what ``prepare`` would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokenmill.cli.options import CONTEXT, make_run, run_options, spec_of, spec_options
from tokenmill.cli.show import print_json, show
from tokenmill.cli.signals import hearing_signals
from tokenmill.output.place import output_place

if TYPE_CHECKING:
    from tokenmill.sizes import Sizes


@click.command(context_settings=CONTEXT)
@spec_options
@run_options
@click.option("--out", default=".", metavar="DIR", help="The folder whose disk is looked at.")
@click.pass_obj
def plan(sizes: Sizes, /, out: str, inputs: tuple[str, ...], **options: Any) -> None:
    """Tell what prepare would do with the same options; writes nothing."""
    from tokenmill.commands.prepare import plan_run, refuse_pipe
    from tokenmill.stores.durable import free_bytes

    place = Path(output_place(out))
    run = make_run(options, sizes)
    with hearing_signals(run):
        found = plan_run(list(inputs), run, spec_of(options))
        refuse_pipe(found)
        found.estimate = found.make_estimate()
    free, notes, warnings = free_bytes(place), found.notes(), found.warnings()
    for note in notes:
        run.tell(note)
    if options["as_json"]:
        print_json("plan", **found.as_dict(), free_bytes=free, notes=notes, warnings=warnings)
    else:
        for line in found.lines(free):
            show(line)
    for warning in found.disk_warnings(place) + warnings:
        run.tell(warning)
