"""``tokenmill verify``: problems one by one, and the exit code that says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenmill.cli.options import CONTEXT
from tokenmill.cli.show import print_json, show
from tokenmill.console import one_line, print_or_forget
from tokenmill.errors import UsageError
from tokenmill.units import numbered

if TYPE_CHECKING:
    from tokenmill.sizes import Sizes


@click.command(context_settings=CONTEXT)
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
@click.pass_obj
def verify(
    sizes: Sizes,
    /,
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
    from tokenmill.commands.verify import DEFAULT_SHARE, verify_sized
    from tokenmill.errors import DamageFound
    from tokenmill.output.place import is_store

    if more and not against:
        raise UsageError("verify takes one folder", fix="name inputs after --against")
    count = 0
    inputs: list[str | Path] | None = [*against, *more] or None
    problems = verify_sized(
        folder,
        sizes,
        quick,
        inputs,
        share=DEFAULT_SHARE if share is None else share,
        seed=seed,
        config=config,
        tell=lambda line: print_or_forget(one_line(line), sys.stderr),
    )
    for problem in problems:
        count += 1
        if as_json:
            print_json("problem", **vars(problem))
        else:
            show(one_line(str(problem)))
    if count:
        raise DamageFound(
            f"{numbered(count, 'problem')} found",
            folder,
            None,
            "run the command that prepared it again, with "
            + ("--overwrite" if is_store(folder) else "--repair: it makes only damaged shards"),
        )
    if as_json:
        print_json("verified", folder=folder, quick=quick, problems=0)
    else:
        show(f"{folder}: sizes{'' if quick else ', counts and hashes'} are as they should be")
