"""The spec: exactly the options that change the bytes, and nothing else.

Threads, memory, engine and check are not here. The fingerprint is the SHA-256 of the canonical
JSON of the spec, the tokenizer's fingerprint and the inputs' identities: two runs with the same
one write the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, TypedDict

from tokenmill.errors import UsageError, choose_from
from tokenmill.formats import Format, find_format
from tokenmill.kinds.suffixes import KindRule
from tokenmill.quantities import parse_count
from tokenmill.splits import SplitRule

SPECIAL_TEXT = ("text", "token", "error")
DELIMITERS = ("before", "after", "none")
ON_BAD = ("stop", "quarantine")
INVALID_UTF8 = ("error", "replace")
TOKENIZER_OPTIONS = ("tokenizer", "pattern", "eot_token")
"""Compared by what they chose, which the manifest tells, not by how it was written."""


class SpecOptions(TypedDict, total=False):
    """The spec's options, named as on the command line; what is left out has the default."""

    format: str
    tokenizer: str
    pattern: str | None
    text_key: str
    documents: str
    shard_tokens: int | str | None
    val_fraction: float | None
    val_tokens: int | str | None
    val_shards: int | None
    val_docs: int | str | None
    seed: int
    name: str | None
    eot: str | None
    eot_token: str | None
    special_text: str
    on_bad: str
    invalid_utf8: str
    kind: str | Sequence[str] | None


@dataclass(frozen=True)
class Spec:
    """What was asked, as far as it changes the bytes; every default filled in.

    At most one of ``val_fraction``, ``val_tokens`` and ``val_docs`` is not 0 (``--val-shards`` is
    val_tokens in whole shards). ``shard_tokens`` None is one file a split.
    """

    format: str
    tokenizer: str
    pattern: str | None
    text_key: str
    documents: str
    shard_tokens: int | None
    val_fraction: float
    val_tokens: int
    seed: int
    name: str
    eot: str
    special_text: str
    on_bad: str
    invalid_utf8: str
    eot_token: str | None = None
    kind: list[str] | None = None
    val_docs: int = 0

    @classmethod
    def of(cls, options: SpecOptions) -> Spec:
        """Fill in the defaults of the format. Raises UsageError."""
        unknown = set(options) - set(SpecOptions.__annotations__)
        if unknown:
            raise UsageError(
                f"there is no option {', '.join(sorted(unknown))}",
                fix=f"the options are {', '.join(SpecOptions.__annotations__)}",
            )
        layout = find_format(options.get("format") or "nanogpt")
        shard_tokens = _shard_tokens(options.get("shard_tokens"), layout)
        val_fraction, val_tokens, val_docs = _validation(options, layout, shard_tokens)
        name = options.get("name")
        _check_name(name, layout)
        for text in (
            options.get("text_key"),
            options.get("documents"),
            name,
            options.get("eot_token"),
        ):
            _check_text(text)
        return cls(
            format=layout.name,
            tokenizer=options.get("tokenizer") or "gpt2",
            pattern=options.get("pattern"),
            text_key=options.get("text_key") or "text",
            documents=options.get("documents") or "file",
            shard_tokens=shard_tokens,
            val_fraction=val_fraction,
            val_tokens=val_tokens,
            seed=options.get("seed", 0),
            name=layout.default_name if name is None else name,
            eot=_one_of("eot", options.get("eot") or layout.delimiter, DELIMITERS),
            special_text=_one_of(
                "special_text", options.get("special_text") or "text", SPECIAL_TEXT
            ),
            on_bad=_one_of("on_bad", options.get("on_bad") or "stop", ON_BAD),
            invalid_utf8=_one_of(
                "invalid_utf8", options.get("invalid_utf8") or "error", INVALID_UTF8
            ),
            eot_token=options.get("eot_token"),
            kind=_kinds(options.get("kind")),
            val_docs=val_docs,
        )

    @classmethod
    def restored(cls, plain: dict[str, Any]) -> Spec | None:
        """The spec that ``as_dict`` gave; None when it is none of this release."""
        try:
            spec = cls(**plain)
            find_format(spec.format)
            _ = spec.kind_rules
        except (TypeError, UsageError):
            return None
        return spec

    @property
    def layout(self) -> Format:
        """The format itself."""
        return find_format(self.format)

    @property
    def kind_rules(self) -> tuple[KindRule, ...]:
        """What the inputs are, as ``--kind`` says."""
        return tuple(KindRule.of(text) for text in self.kind or ())

    @property
    def split_rule(self) -> SplitRule:
        """How the validation split is drawn."""
        return SplitRule(self.val_fraction, self.seed, self.val_tokens, self.val_docs)

    def as_dict(self) -> dict[str, Any]:
        """The spec as plain data, for the manifest. What came with a later release is there only
        where it is used: so the others' fingerprints stay what they were."""
        plain = asdict(self)
        for later in ("kind", "val_docs"):
            if not plain[later]:
                del plain[later]
        return plain

    def differences(self, other: dict[str, Any]) -> list[str]:
        """What another spec (as plain data) has otherwise, option by option."""
        found = []
        for entry in fields(self):
            mine = getattr(self, entry.name)
            theirs = other.get(entry.name, None if entry.default is MISSING else entry.default)
            # A tokenizer may be named by its path: its fingerprint is compared elsewhere.
            if mine != theirs and entry.name not in TOKENIZER_OPTIONS:
                option = "--" + entry.name.replace("_", "-")
                found.append(f"{option} is {mine}, was {theirs}")
        return found


def _check_name(name: str | None, layout: Format) -> None:
    if name is None:
        return
    if not re.fullmatch(r"[\w][\w .+-]*", name):
        raise UsageError(
            f"--name {name!r} cannot begin a file's name", fix="use letters, digits, . _ + and -"
        )
    layout.check_name(name)


def _check_text(text: str | None) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not UTF-8", fix="write the option in UTF-8") from None


def _shard_tokens(option: int | str | None, layout: Format) -> int | None:
    if option is None:
        return layout.default_shard_tokens
    count = parse_count(option)
    return count or None


def _validation(
    options: SpecOptions, layout: Format, shard_tokens: int | None
) -> tuple[float, int, int]:
    """(val_fraction, val_tokens, val_docs) from the four options, of which one at most may be
    given."""
    fraction, tokens = options.get("val_fraction"), options.get("val_tokens")
    shards, documents = options.get("val_shards"), options.get("val_docs")
    given = [value for value in (fraction, tokens, shards, documents) if value is not None]
    if len(given) > 1:
        raise UsageError(
            "--val-fraction, --val-tokens, --val-shards and --val-docs exclude one another",
            fix="give one of them",
        )
    if not given:
        fraction, shards = layout.default_val_fraction, layout.default_val_shards
    if fraction is not None and not 0 <= fraction < 1:
        raise UsageError(f"--val-fraction {fraction} is not between 0 and 1", fix="for one, 0.01")
    if shards and shard_tokens is None:
        raise UsageError(
            "--val-shards needs shards", fix="give --shard-tokens too, or use --val-fraction"
        )
    in_tokens = parse_count(tokens) if tokens is not None else (shards or 0) * (shard_tokens or 0)
    if in_tokens < 0:
        raise UsageError("--val-shards cannot be negative", fix="0 is for no validation")
    return fraction or 0.0, in_tokens, parse_count(documents or 0)


def _kinds(option: str | Sequence[str] | None) -> list[str] | None:
    """The rules of ``--kind``, each a valid one. Raises UsageError."""
    rules = [option] if isinstance(option, str) else list(option or ())
    for rule in rules:
        _check_text(rule)
        KindRule.of(rule)
    if sum("=" not in rule for rule in rules) > 1:
        raise UsageError(
            f"--kind {' --kind '.join(rules)}",
            why="only one kind can be that of all inputs",
            fix="say which is for which files: --kind 'jsonl=*.log'",
        )
    return rules or None


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        name = "--" + option.replace("_", "-")
        raise UsageError(f"{name} cannot be {value!r}", fix=choose_from(value, allowed))
    return value
