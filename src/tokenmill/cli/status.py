"""``tokenmill status``: what a run has done, in a few lines."""

from __future__ import annotations

from typing import Any

import click

from tokenmill.cli.options import CONTEXT
from tokenmill.cli.show import print_json, show, tell
from tokenmill.units import numbered


@click.command(context_settings=CONTEXT)
@click.argument("place", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def status(place: str, as_json: bool) -> None:
    """Show what a running, stopped or finished run has done, from its files alone."""
    from tokenmill.commands.status import status_of
    from tokenmill.dataset.files import files_at
    from tokenmill.stores.retry import RetryPolicy

    with RetryPolicy(log=lambda line: tell(line, is_quiet=False)) as policy:
        folder, found = files_at(place).where, status_of(place, policy)
    if as_json:
        print_json("status", folder=folder, **found)
        return
    holder = f", by process {found['holder']}" if found["holder"] else ""
    show(f"{folder}: {found['state']}{holder}")
    for line in _status_lines(found):
        show(line)


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
