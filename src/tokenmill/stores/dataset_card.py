"""What a dataset card says of configs: the YAML at the head of a README.md, and nothing else of it.

A config has a name and patterns of data files, by split. The YAML is read by a loader that makes
plain data only; what has not the shape of a config is an error that says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tokenmill.errors import InputError

_HEAD = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Config:
    """A config: patterns by split, in the card's order, relative to ``folder`` ("" is the root).

    Without patterns its files are all those of data in the folder.
    """

    name: str
    folder: str
    splits: dict[str, list[str]]
    is_default: bool


def configs_of(card: str, where: str) -> list[Config]:
    """The configs of a card; [] when it names none. Raises InputError when they make no sense."""
    head = _HEAD.match(card)
    if head is None:
        return []
    import yaml

    try:
        said = yaml.safe_load(head[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _senseless(where, str(error).splitlines()[0]) from error
    entries = said.get("configs") if isinstance(said, dict) else None
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise _senseless(where, "its configs are no list")
    return [_config(entry, where) for entry in entries]


def _config(entry: Any, where: str) -> Config:
    if not isinstance(entry, dict):
        raise _senseless(where, f"a config is {str(entry)[:80]!r}")
    name, folder = entry.get("config_name", "default"), entry.get("data_dir") or ""
    if not isinstance(name, str | int | float) or not isinstance(folder, str):
        raise _senseless(where, f"a config is {str(entry)[:80]!r}")
    splits = _splits(entry.get("data_files"), where)
    return Config(str(name), folder.strip("/"), splits, bool(entry.get("default")))


def _splits(said: Any, where: str) -> dict[str, list[str]]:
    """``data_files``: a pattern, some, or for each split one or some."""
    if said is None:
        return {}
    if isinstance(said, dict):
        said = [{"split": split, "path": path} for split, path in said.items()]
    if isinstance(said, list) and any(isinstance(entry, dict) for entry in said):
        splits: dict[str, list[str]] = {}
        for entry in said:
            if not isinstance(entry, dict) or "path" not in entry:
                raise _senseless(where, f"of its data files one is {str(entry)[:80]!r}")
            split = str(entry.get("split", "train"))
            splits.setdefault(split, []).extend(_patterns(entry["path"], where))
        return splits
    return {"train": _patterns(said, where)}


def _patterns(said: Any, where: str) -> list[str]:
    patterns = [said] if isinstance(said, str) else said
    if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
        raise _senseless(where, f"its data files are {str(said)[:80]!r}")
    return patterns


def _senseless(where: str, why: str) -> InputError:
    return InputError(
        "the dataset's card makes no sense", where, why, "name files instead: .../GLOB after it"
    )
