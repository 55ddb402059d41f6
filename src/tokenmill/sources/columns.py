"""What ``--text-key`` names: a field of JSON objects, or a column of a parquet file.

A key is looked for as it is written, and only then as a way into what is nested: ``meta.text`` is
the field of that name, or else the field ``text`` in ``meta``. A key that could mean two things is
refused in words: which one is read must not be a matter of chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenmill.errors import UsageError

_SHOWN = 20


@dataclass(frozen=True)
class Column:
    """A column of values: ``leaf`` is its number among the file's leaf columns (parquet's own
    count), ``depth`` the structs around it, ``kind`` its Arrow type."""

    leaf: int
    depth: int
    kind: Any


def divided(key: str) -> Iterator[tuple[str, str]]:
    """The ways to take a key as a name and a key inside of what has that name."""
    for at, character in enumerate(key):
        if character == "." and 0 < at < len(key) - 1:
            yield key[:at], key[at + 1 :]


def values_of(record: dict[str, Any], key: str) -> list[Any]:
    """What a key names in an object: one value; none; or several, when its dots can be read in
    several ways and none is the key as it is written."""
    if key in record:
        return [record[key]]
    found: list[Any] = []
    for name, rest in divided(key):
        inner = record.get(name)
        if isinstance(inner, dict):
            found += values_of(inner, rest)
    return found


def find_column(schema: Any, key: str, where: str) -> Column:
    """The column of an Arrow schema that ``key`` names; ``where`` is the file.

    Raises UsageError, with the columns that there are, when none or more than one does, and when
    it holds no text.
    """
    found = _columns(list(schema), key, 0, 0)
    if not found:
        raise UsageError(
            f"there is no column {key!r}",
            where,
            f"the columns are {_names(schema.names)}",
            "name the text's column with --text-key; of a column inside a struct: "
            "--text-key STRUCT.COLUMN",
        )
    if len(found) > 1:
        raise UsageError(
            f"there are {len(found)} columns that {key!r} may mean",
            where,
            f"the columns are {_names(schema.names)}; which one is meant cannot be told",
            "write the file again with one column of that name, or name another with --text-key",
        )
    if not is_text(found[0].kind):
        raise UsageError(
            f"the column {key!r} holds {str(found[0].kind)[:200]}, not text",
            where,
            None,
            "name a string or binary column with --text-key",
        )
    return found[0]


def find_leaf(schema: Any, name: str) -> int:
    """The number of the leaf of the one column of that very name. Raises IndexError."""
    return _columns(list(schema), name, 0, 0)[0].leaf


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:100]) for name in names[:_SHOWN]) + more


def _columns(fields: list[Any], key: str, first: int, depth: int) -> list[Column]:
    """The columns among ``fields`` that a key names; ``first`` is the number of their first leaf.
    One of that very name goes before what a dotted key reaches inside of the others."""
    import pyarrow as pa

    leaves, exact, inner = first, [], []
    ways = dict(divided(key))
    for field in fields:
        if field.name == key:
            exact.append(Column(leaves, depth, field.type))
        elif field.name in ways and pa.types.is_struct(field.type):
            inner += _columns(_children(field.type), ways[field.name], leaves, depth + 1)
        leaves += leaf_count(field.type)
    return exact or inner


def _children(kind: Any) -> list[Any]:
    return [kind.field(number) for number in range(kind.num_fields)]


def leaf_count(kind: Any) -> int:
    """How many columns of parquet a type takes."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return leaf_count(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return leaf_count(kind.value_type)
    if pa.types.is_nested(kind):
        return sum(leaf_count(field.type) for field in _children(kind))
    return 1


def is_text(kind: Any) -> bool:
    """Does a column of this type hold texts? One of nothing but nulls does: they are counted."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_string_view,
        pa.types.is_binary_view,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)
