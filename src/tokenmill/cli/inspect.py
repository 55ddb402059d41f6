"""``tokenmill inspect``: what is in a dataset, for a person or a program."""

from __future__ import annotations

from typing import Any

import click

from tokenmill.cli.options import CONTEXT
from tokenmill.cli.show import print_json, show, tell
from tokenmill.errors import UsageError, choose_from
from tokenmill.splits import NAMES, TRAIN
from tokenmill.units import numbered


@click.command(context_settings=CONTEXT)
@click.argument("place", metavar="DIR")
@click.option("--doc", type=int, help="Show this document's text, counted from 0.")
@click.option("--token", type=int, help="Show the text from this token on.")
@click.option(
    "--split",
    default=TRAIN,
    metavar="|".join(reversed(NAMES)),
    help=f"Of which split; default {TRAIN}.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def inspect(place: str, doc: int | None, token: int | None, split: str, as_json: bool) -> None:
    """Show headers, counts and decoded text."""
    if split not in NAMES:
        fix = choose_from(split, NAMES[::-1])
        raise UsageError(f"there is no split {split!r}", fix=fix)
    from tokenmill.commands.inspect import describe, text_at_token, text_of_document
    from tokenmill.dataset.reader import DatasetReader
    from tokenmill.stores.retry import RetryPolicy

    with RetryPolicy(log=lambda line: tell(line, is_quiet=False)) as policy:
        dataset = DatasetReader.at(place, policy)
        if doc is not None:
            shown = text_of_document(dataset, doc, split)
        elif token is not None:
            shown = text_at_token(dataset, token, split)
        else:
            _show_dataset(describe(dataset), as_json)
            return
    print_json("text", **shown) if as_json else show(shown["text"])


def _show_dataset(about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json("dataset", **about)
        return
    show(f"{about['format']}, {about['tokenizer']}, end-of-text {about['delimiter']}")
    show(f"validation split: {about['split']}")
    counts = [(value, name.replace("_", " ")) for name, value in about["counts"].items() if value]
    show(", ".join(f"{n:,} {name.removesuffix('s') if n == 1 else name}" for n, name in counts))
    for shard in about["shards"]:
        show(
            f"{shard['name']}: {numbered(shard['tokens'], 'token')} of {shard['dtype']} after "
            f"{shard['header_bytes']} bytes of header, {numbered(shard['documents'], 'document')} "
            f"{'begins' if shard['documents'] == 1 else 'begin'} in it"
        )
