"""The shape of the code, as tests: who may import whom, how long things may be, what stays light.

`FLOORS` is the architecture as data: a package imports from lower floors, and nothing else.
A package that is on no floor is an error: put it where it belongs.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import command_environment
from tests.kit.shared import REPOSITORY, SOURCE
from tokenmill import errors

FLOORS = (
    "sizes",
    "version console batches text extras units",
    "errors",
    "quantities system",
    "memory kinds splits",
    "stores formats",
    "tokenizers sources executors dataset",
    "encoding output",
    "commands",
    "cli __init__",
    "__main__",
)
"""The packages and the modules beside them, from the bottom up: each imports from lower floors
only, and nobody imports a neighbour on the same floor. A new one gets a place here."""

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""Imports that go up, by module, each with the reason; to be emptied."""

NEVER_REACHES = {("dataset", "tokenizers")}
"""Not even by way of other modules."""


FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "core", "common", "base", "misc"}
HEAVY = (
    "numpy pyarrow torch ray huggingface_hub urllib3 yaml gigatoken tiktoken datasets tokenizers "
    "sentencepiece rich"
)
LONGEST_FUNCTION, LONGEST_LINE = 70, 100
LONGEST_PATH = 9
"""Packages, and modules beside them, that import one another in a row."""

MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, which several rules look at."""
    return ast.parse(path.read_text())


def named(path: Path) -> str:
    """How offenders are called: from the top of the repository."""
    return str(path.relative_to(REPOSITORY))


def dotted(path: Path) -> str:
    """`formats.llmc` for formats/llmc.py, `formats` for its __init__.py."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in MODULES}


def package(module: str) -> str:
    """Where a module is at home on the floors."""
    return module.partition(".")[0]


def floor(module: str) -> int:
    """The floor of a module's package."""
    for level, names in enumerate(FLOORS):
        if package(module) in names.split():
            return level
    raise AssertionError(f"tokenmill.{module} is on no floor of {Path(__file__).name}")


@functools.cache
def imports() -> dict[str, frozenset[str]]:
    """Each module, and those that it imports, also inside functions and for types only."""
    found = {}
    for module, path in NAMES.items():
        there = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module} imports by a relative name"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                top, _, rest = name.partition(".")
                if top == "tokenmill":
                    there.add(rest if rest in NAMES else rest.rpartition(".")[0] or "__init__")
        found[module] = frozenset(there - {module})
    return found


def reached_from(module: str) -> set[str]:
    """Every module that one imports, by way of others too; itself only where others lead back."""
    reached, todo = set[str](), [module]
    while todo:
        for name in imports().get(todo.pop(), frozenset()) - reached:
            reached.add(name)
            todo.append(name)
    return reached


def test_imports_go_down_the_floors() -> None:
    up = {
        (module, name)
        for module, names in imports().items()
        for name in names
        if package(module) != package(name) and floor(name) >= floor(module)
    }
    told = sorted(f"{one} imports {other}" for one, other in up - EXCEPTIONS.keys())
    assert not told, f"from a higher floor, or a neighbour on the same: {'; '.join(told)}"
    assert not EXCEPTIONS.keys() - up, f"no exceptions any more: {EXCEPTIONS.keys() - up}"


def test_no_imports_run_in_a_circle() -> None:
    circle = sorted(module for module in NAMES if module in reached_from(module))
    assert not circle, f"these import one another: {', '.join(circle)}"


def test_no_path_through_the_packages_is_long() -> None:
    below: dict[str, set[str]] = {}
    for module, imported in imports().items():
        there = {package(name) for name in imported} - {package(module)}
        below.setdefault(package(module), set()).update(there)

    @functools.cache
    def longest(start: str) -> tuple[str, ...]:
        return (start, *max(map(longest, below[start]), key=len, default=()))

    path = max(map(longest, below), key=len)
    assert len(path) <= LONGEST_PATH, f"{len(path)} steps: {' → '.join(path)}"


def test_some_packages_never_reach_others() -> None:
    for start, forbidden in NEVER_REACHES:
        for module in NAMES:
            if package(module) == start:
                reached = {package(name) for name in reached_from(module)}
                assert forbidden not in reached, f"{module} reaches {forbidden}"


def test_a_seam_imports_no_implementation() -> None:
    """The seam of the package `stores` is `stores.store`, and so on for all."""
    for module in NAMES:
        name = module.rpartition(".")[2]
        if (seam := f"{module}.{name.removesuffix('s')}") in NAMES and seam != module:
            known = {each for each in imports()[module] if each.startswith(f"{module}.")}
            assert not imports()[seam] & known, f"{seam} imports {imports()[seam] & known}"


def test_every_module_says_what_it_is() -> None:
    offenders = [named(path) for path in MODULES if not ast.get_docstring(parsed(path))]
    assert not offenders, f"a module docstring is missing: {', '.join(offenders)}"


def test_only_splits_knows_the_names_of_the_splits() -> None:
    """What a card on the Hub calls its splits is the Hub's: `stores` reads it."""
    knowing = {
        module
        for module, path in NAMES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and node.value in ("train", "val")
    }
    assert {module for module in knowing if package(module) != "stores"} == {"splits"}


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


def test_only_durable_code_renames_files() -> None:
    offenders = []
    for path in MODULES:
        for node in ast.walk(parsed(path)) if path.name != "durable.py" else ():
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
    assert not offenders, f"renaming belongs in stores/durable.py: {', '.join(offenders)}"


def test_only_the_command_line_reads_what_was_typed() -> None:
    """Elsewhere `sys.argv` is that of somebody's script."""
    guilty = {
        named(path)
        for path in MODULES
        if package(dotted(path)) != "cli"
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.Attribute) and node.attr in ("argv", "orig_argv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "sys"
            and any("argv" in name.name for name in node.names))
    }  # fmt: skip
    assert not guilty, f"these look at sys.argv: {', '.join(sorted(guilty))}"


def test_only_formats_know_where_the_ids_lie() -> None:
    """How wide an id is, what stands before the first one, and where that is."""
    of_records = {  # there `.offset` is the place of a bad record, of damage, or of Arrow's
        "batches", "sources.bad_records", "sources.jsonl", "sources.parquet",
    }  # fmt: skip
    offenders = []
    for module, path in NAMES.items():
        for node in ast.walk(parsed(path)) if package(module) != "formats" else ():
            if isinstance(node, ast.ImportFrom):
                used = {alias.name for alias in node.names} & {"item_bytes"}
            elif isinstance(node, ast.Attribute):
                used = {node.attr} & {"item_bytes", "header", "offset"}
                used -= {"offset"} if module in of_records else set()
            else:
                continue
            offenders += [f"{named(path)}:{node.lineno}: {name}" for name in used]
    assert not offenders, f"this belongs in formats/: {'; '.join(offenders)}"


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
