"""The options that several commands have, and what becomes of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tokenmill.cli.show import tell

if TYPE_CHECKING:
    from tokenmill.commands.options import RunOptions
    from tokenmill.executors.supervisor import Attempt
    from tokenmill.sizes import Sizes


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_Command = Callable[..., None]
_Decorator = Callable[[_Command], _Command]


def _with(options: Sequence[_Decorator], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def spec_options(command: _Command) -> _Command:
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


def run_options(command: _Command) -> _Command:
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
            help="Who reads and encodes, so many; default: as many as there are cores, the "
            "memory serves well and the text is worth. Older name: --threads.",
        ),
        click.option(
            "--executor",
            default="auto",
            metavar="auto|threads|processes",
            help="What workers are; default: processes where there are many and much text.",
        ),
        click.option("--threads", type=int, hidden=True),
        click.option(
            "--engine",
            default="auto",
            metavar="auto|gigatoken|fastokens|tiktoken|tokenizers|sentencepiece",
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


def spec_of(options: dict[str, Any]) -> Any:
    return {name: value for name, value in options.items() if name not in _RUN_NAMES}


_RUN_NAMES = {
    "memory", "workers", "threads", "executor", "engine", "check", "max_time", "max_bad",
    "overwrite", "repair", "checkpoint_seconds", "as_json", "quiet", "staging", "config",
    "network_patience",
}  # fmt: skip


def make_run(options: dict[str, Any], sizes: Sizes, attempt: Attempt | None = None) -> RunOptions:
    from tokenmill.commands.options import DEFAULT_MAX_BAD, RunOptions, workers_of
    from tokenmill.commands.progress import command_display
    from tokenmill.commands.stop import StopRequest
    from tokenmill.executors.supervisor import Attempt

    quiet, max_bad = options["quiet"], options.get("max_bad")
    return RunOptions(
        memory=options["memory"],
        workers=workers_of(options["workers"], options["threads"]),
        executor=options["executor"],
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
        tell=lambda line: tell(line, quiet),
        stop=StopRequest(),
        attempt=attempt or Attempt(),
        arguments=sys.argv[1:],
        ends_process=True,
        sizes=sizes,
    )
