"""``tokenmill doctor``: this machine, in a few lines."""

from __future__ import annotations

from pathlib import Path

import click

from tokenmill.cli.options import CONTEXT
from tokenmill.cli.show import print_json, show


@click.command(context_settings=CONTEXT)
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
        print_json("doctor", **found)
        return
    for line in told_lines(found):
        show(line)
