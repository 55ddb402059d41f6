"""The options as a call from Python gives them: their help, their defaults, and what they may be.

``prepare`` and ``plan`` take every option of the command line as a keyword. The signature and the
list that ``help`` shows are made from the same table and types, and a value that cannot be is
refused in words, before anything is read.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar, get_args, get_type_hints

from tokenmill.commands.options import DEFAULT_MAX_BAD, PrepareOptions, workers_of
from tokenmill.errors import UsageError, nearest

_Function = TypeVar("_Function", bound=Callable[..., Any])

HELP: dict[str, tuple[Any, str]] = {
    "format": ("nanogpt", "who will read it: nanogpt, build-nanogpt, llm.c, modded-nanogpt"),
    "tokenizer": ("gpt2", "a name, file, folder or Hub id"),
    "pattern": (None, "split pattern of a .tiktoken file that is not a known one"),
    "kind": (
        None,
        "what the inputs are: text, jsonl, parquet, or KIND=GLOB for those that match; or a list",
    ),
    "text_key": ("text", "JSONL field or parquet column"),
    "documents": ("file", "how plain text divides: file, line, blank-line, separator:STRING"),
    "shard_tokens": (None, "tokens in a shard, such as '100M'; None: as the format has it"),
    "val_fraction": (None, "share of the documents for validation"),
    "val_tokens": (None, "tokens for validation, from the head of the corpus"),
    "val_shards": (None, "shards for validation, the first ones"),
    "val_docs": (None, "documents for validation, the first ones"),
    "seed": (0, "seed of the split and the checks"),
    "name": (None, "prefix of the shards' names"),
    "eot": (None, "end-of-text id: before or after each document, or none"),
    "eot_token": (None, "which token that is; None: the tokenizer's own"),
    "special_text": ("text", "the end-of-text token in a document becomes: text, token, error"),
    "on_bad": ("stop", "what cannot become tokens: stop, quarantine"),
    "invalid_utf8": ("error", "bytes that are not UTF-8: error, replace"),
    "memory": (None, "budget, such as '512MB'; None: half of what there is, at most 2 GiB"),
    "workers": (
        None,
        "who reads and encodes, so many; None: as many as there are cores, the memory "
        "serves well and the text is worth",
    ),
    "threads": (None, "the older name of workers"),
    "executor": ("auto", "what workers are: threads, processes; auto: by how much text there is"),
    "engine": ("auto", "auto (the fastest that is exact), or one by name"),
    "check": (None, "share of the documents that the reference encodes a second time"),
    "max_time": (None, "stop cleanly after so many seconds, or '8h', to go on later"),
    "max_bad": (DEFAULT_MAX_BAD, "stop when more records than this are left out"),
    "overwrite": (False, "begin anew"),
    "checkpoint_seconds": (None, "seconds between two checkpoints"),
    "repair": (False, "make only the damaged shards again"),
    "staging": (None, "where to work when out is a URL"),
    "config": (None, "which config of a dataset on the Hub"),
    "network_patience": (None, "how long a request that fails is made again, such as '10m'"),
    "progress": (
        None,
        "True, False, or a function that gets a dict of figures, four times a second at most; "
        "None: shown on a terminal and in a notebook",
    ),
}
"""Default and help of each option of ``PrepareOptions``."""


def described(function: _Function) -> _Function:
    """Give a function that takes ``**options`` the signature and the docstring with all of them."""
    own = inspect.signature(function)
    kinds = get_type_hints(PrepareOptions)
    named = [
        parameter
        for parameter in own.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(name),
            annotation=kinds[name],
        )
        for name in kinds
    ]
    function.__dict__["__signature__"] = own.replace(parameters=[*named, *options])
    lines = [f"    {name}: {HELP.get(name, ('', ''))[1]} ({_default(name)!r})" for name in kinds]
    function.__doc__ = inspect.cleandoc(function.__doc__ or "") + "\n\nOptions (and defaults):\n"
    function.__doc__ += "\n".join(lines)
    return function


def _default(name: str) -> Any:
    return HELP.get(name, (None, ""))[0]


def checked(options: PrepareOptions) -> PrepareOptions:
    """The options, each of a type it may have; numbers of other libraries become plain ones, paths
    text. Raises UsageError."""
    kinds = get_type_hints(PrepareOptions)
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name not in kinds:
            raise UsageError(
                f"there is no option {name!r}",
                None,
                f"the options are {', '.join(kinds)}",
                nearest(name, kinds) or "help(tokenmill.prepare) lists them",
            )
        found[name] = _plain(name, value, kinds[name])
    found["workers"] = workers_of(found.get("workers"), found.pop("threads", None))
    plain: Any = found
    checked_options: PrepareOptions = plain
    return checked_options


def _plain(name: str, value: Any, kind: Any) -> Any:
    kinds = get_args(kind) or (kind,)
    if value is None and type(None) not in kinds:
        return _default(name)
    if value is None or isinstance(value, bool):
        is_right = value is None or bool in kinds
    elif callable(value):
        is_right = name == "progress"
    elif isinstance(value, Integral) and {int, float} & set(kinds):
        return int(value)
    elif isinstance(value, Real) and float in kinds:
        return float(value)
    elif isinstance(value, os.PathLike) and str in kinds:
        return str(os.fspath(value))
    elif isinstance(value, list | tuple):
        is_right = Sequence[str] in kinds and all(isinstance(each, str) for each in value)
    else:
        is_right = isinstance(value, tuple(each for each in kinds if isinstance(each, type)))
    if is_right:
        return value
    names = [_NAMES.get(each, "a function") for each in kinds if each is not type(None)]
    raise UsageError(
        f"{name} cannot be {_shown(value)}",
        None,
        f"it is of type {type(value).__name__}",
        f"give {' or '.join(dict.fromkeys(names))}" + " or None" * (type(None) in kinds),
    )


_NAMES = {
    Sequence[str]: "a list of texts",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "True or False",
}
_MOST_SHOWN = 60


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def paths_of(inputs: object) -> list[str]:
    """The inputs as texts. Raises UsageError where they are no paths."""
    given = [inputs] if isinstance(inputs, str | os.PathLike | bytes) else inputs
    if not isinstance(given, Iterable):
        raise _no_path("the inputs", inputs)
    found = list(given)
    for path in found:
        path_of("an input", path)
    if not found:
        raise UsageError("there are no inputs", fix="give at least one path or URL")
    return [path_of("an input", path) for path in found]


def path_of(what: str, path: object) -> str:
    """The path or URL as text. Raises UsageError where it is none."""
    if isinstance(path, str | os.PathLike):
        text = os.fspath(path)
        if isinstance(text, str):
            return text
    raise _no_path(what, path)


def _no_path(what: str, value: object) -> UsageError:
    return UsageError(
        f"{what} cannot be {_shown(value)}",
        None,
        f"it is of type {type(value).__name__}",
        "give a path or URL as str, or a pathlib.Path",
    )


def command_words(inputs: list[str], out: str, options: PrepareOptions) -> list[str]:
    """What a person types after ``tokenmill`` to do what this call of ``prepare`` does."""
    words = ["prepare"]
    for name, value in options.items():
        if name == "progress" or value is None or value == _default(name):
            continue
        option = "--" + name.replace("_", "-")
        for each in value if isinstance(value, list | tuple) else [value]:
            words += [option] if each is True else [option, str(each)]
    words += ["--out", out]
    if any(path.startswith("-") and path != "-" for path in inputs):
        words.append("--")
    return words + inputs
