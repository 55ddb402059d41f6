"""The shape of the code, as tests: who may import whom, how long things may be, what stays light.

`LAYERS` is the architecture as data: a module may import modules of its own group and of any layer
below, and nothing else. A module that is in no group is an error: put it where it belongs.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import command_environment
from tests.shared import REPOSITORY, SOURCE
from tokenmill import errors

LAYERS: list[dict[str, set[str]]] = [
    {
        "ground": {
            "errors", "quantities", "batches", "cuts", "memory", "storage", "inputs", "compression",
            "supervision", "utf8", "reading", "streams", "places", "readahead", "rangefile",
            "textstream", "network", "staging", "claims", "charset", "content",
            "extras", "system", "side_files",
        }
    },
    {
        "sources": {"sources"},
        "formats": {"formats"},
        "tokenizers": {"tokenizers"},
        "manifest": {"manifest"},
        "spec": {"spec"},
    },
    {
        "machine": {
            "encode", "calls", "pipeline", "writer", "journal", "caches", "care", "lease",
            "uploads",
        },
    },
    {
        "services": {
            "planning", "verification", "inspection", "progress", "dataset", "diagnosis", "folder",
            "repair", "options", "conclusion", "comparison", "status", "prefix", "stored",
            "estimate", "damage", "signature",
        }
    },
    {"preparation": {"preparation"}},
    {"surface": {"cli", "__main__", "__init__"}},
]  # fmt: skip

MAY_ALSO = {("spec", "formats"), ("spec", "tokenizers")}
"""Groups of one layer that may import each other all the same: (who, whom)."""

NEVER_REACHES = {("dataset", "tokenizers")}
"""Not even by way of other modules."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "core", "common", "base", "misc"}
HEAVY = (
    "numpy pyarrow torch ray huggingface_hub urllib3 yaml gigatoken tiktoken datasets tokenizers "
    "sentencepiece rich"
)
LONGEST_FUNCTION, LONGEST_LINE = 70, 100

MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, which several rules look at."""
    return ast.parse(path.read_text())


def named(path: Path) -> str:
    """How offenders are called: from the top of the repository."""
    return str(path.relative_to(REPOSITORY))


def room(path: Path) -> str:
    """`formats` for formats/llmc.py, `cli` for cli.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def is_room(name: str) -> bool:
    """Is it a module or a package of tokenmill, and not merely a name in one?"""
    return bool(name) and ((SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists())


def place(name: str) -> tuple[int, str]:
    """The layer and the group of a room."""
    for level, groups in enumerate(LAYERS):
        for group, rooms in groups.items():
            if name in rooms:
                return level, group
    raise AssertionError(f"tokenmill.{name} has no place in LAYERS of {Path(__file__).name}")


def imported_rooms(path: Path) -> Iterator[str]:
    """The rooms of tokenmill that a module imports, also inside functions and for types only."""
    package = ["tokenmill", *path.relative_to(SOURCE).parent.parts]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            first = rest.partition(".")[0]
            if top == "tokenmill" and is_room(first):
                yield first


def test_imports_point_one_way() -> None:
    offenders = []
    for path in MODULES:
        level, group = place(room(path))
        for name in imported_rooms(path):
            their_level, their_group = place(name)
            fine = their_group == group or their_level < level or (group, their_group) in MAY_ALSO
            if not fine:
                offenders.append(f"{named(path)} ({group}) may not import {name} ({their_group})")
    assert not offenders, "\n".join(offenders)


@functools.cache
def imports_of_rooms() -> dict[str, set[str]]:
    """Each room, and the others that it imports."""
    direct: dict[str, set[str]] = {}
    for path in MODULES:
        direct.setdefault(room(path), set()).update(set(imported_rooms(path)) - {room(path)})
    return direct


def reached_from(start: str) -> set[str]:
    """Every room that one imports, by way of others too; itself only where others lead back."""
    reached, todo = set[str](), [start]
    while todo:
        for name in imports_of_rooms().get(todo.pop(), set()) - reached:
            reached.add(name)
            todo.append(name)
    return reached


def test_some_rooms_never_reach_others() -> None:
    for start, forbidden in NEVER_REACHES:
        assert forbidden not in reached_from(start), f"{start} reaches {forbidden}"


def test_no_imports_run_in_a_circle() -> None:
    circle = sorted(name for name in set(map(room, MODULES)) if name in reached_from(name))
    assert not circle, f"these import one another: {', '.join(circle)}"


def test_every_module_says_what_it_is() -> None:
    offenders = [named(path) for path in MODULES if not ast.get_docstring(parsed(path))]
    assert not offenders, f"a module docstring is missing: {', '.join(offenders)}"


def test_functions_and_lines_are_short() -> None:
    offenders = []
    for path in [*MODULES, *TESTS]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > LONGEST_LINE:
                offenders.append(f"{named(path)}:{number} has {len(line)} characters")
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    offenders.append(f"{named(path)}: {node.name} has {lines} lines")
    assert not offenders, "\n".join(offenders)


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & FORBIDDEN_NAMES


def test_only_storage_renames_files() -> None:
    offenders = []
    for path in MODULES:
        for node in ast.walk(parsed(path)) if path.name != "storage.py" else ():
            if isinstance(node, ast.Attribute):
                of_os = isinstance(node.value, ast.Name) and node.value.id == "os"
                renames = node.attr in {"rename", "renames"} or (of_os and node.attr == "replace")
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                names = {alias.name for alias in node.names}
                renames = bool(names & {"replace", "rename", "renames"})
            else:
                continue
            if renames:
                offenders.append(f"{named(path)}:{node.lineno}")
    assert not offenders, f"renaming belongs in storage.py: {', '.join(offenders)}"


def test_every_error_says_what_to_do() -> None:
    """`fix` is the fourth argument of every error that is raised on purpose."""
    ours = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    offenders = []
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in ours - {"Interrupted"}:
                named_fix = [keyword.value for keyword in node.keywords if keyword.arg == "fix"]
                fix = (named_fix or node.args[3:4] or [ast.Constant(None)])[0]
                if isinstance(fix, ast.Constant) and not fix.value:
                    offenders.append(f"{named(path)}:{node.lineno}: {node.func.id} without a fix")
    assert not offenders, "\n".join(offenders)


def loaded_after(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after `code`."""
    report = f"print('loaded', *sorted(set({HEAVY!r}.split()) & set(sys.modules)))"
    child = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{report}"],
        env=command_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(child.stdout.splitlines()[-1].split()[1:])


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import tokenmill") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["prepare", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import runpy\nsys.argv = ['tokenmill', *{arguments!r}]\n"
        "try:\n    runpy.run_module('tokenmill', run_name='__main__')\n"
        "except SystemExit as exit:\n    assert not exit.code, exit.code\n"
    )
    assert loaded_after(code) == set()
