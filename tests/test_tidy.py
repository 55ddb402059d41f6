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
    for node in ast.walk(ast.parse(path.read_text())):
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


def named(path: Path) -> str:
    """How a file is called in the test's name."""
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_one_way(path: Path) -> None:
    level, group = place(room(path))
    for name in imported_rooms(path):
        their_level, their_group = place(name)
        fine = their_group == group or their_level < level or (group, their_group) in MAY_ALSO
        assert fine, f"{room(path)} ({group}) may not import {name} ({their_group})"


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


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module docstring is missing"


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=named)
def test_functions_and_lines_are_short(path: Path) -> None:
    source = path.read_text()
    for number, line in enumerate(source.splitlines(), 1):
        assert len(line) <= LONGEST_LINE, f"{path.name}:{number} has {len(line)} characters"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {lines} lines"


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & FORBIDDEN_NAMES


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_storage_renames_files(path: Path) -> None:
    if path.name == "storage.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            of_os = isinstance(node.value, ast.Name) and node.value.id == "os"
            renames = node.attr in {"rename", "renames"} or (of_os and node.attr == "replace")
            assert not renames, f"{path.name}:{node.lineno}: renaming belongs in storage.py"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"replace", "rename", "renames"}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_error_says_what_to_do(path: Path) -> None:
    """`fix` is the fourth argument of every error that is raised on purpose."""
    ours = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id in ours - {"Interrupted"}:
            named_fix = [keyword.value for keyword in node.keywords if keyword.arg == "fix"]
            fix = (named_fix or node.args[3:4] or [ast.Constant(None)])[0]
            empty = isinstance(fix, ast.Constant) and not fix.value
            assert not empty, f"{path.name}:{node.lineno}: {node.func.id} without a fix"


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
