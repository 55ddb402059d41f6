"""Inputs, names and clocks that mean harm: nothing is executed, overrun or written elsewhere."""

from __future__ import annotations

import ast
import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Run, command_environment
from tests.kit import corpora
from tests.kit.outcome import Outcome, prepare
from tests.kit.shared import ARTICLES, REPOSITORY, SOURCE
from tests.laws.test_memory import peak_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MODULES = sorted(SOURCE.rglob("*.py"))
EXECUTING = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
BETWEEN_PROCESSES = {"executors/processes.py", "executors/worker.py"}
"""What these unpickle came over a socket without a name, which only a run and its own children
hold; inputs come that way as bytes in what was pickled here, and are not unpickled again."""
BOMB = 100_000_000
BUDGET = 320_000_000


# --- code in data -------------------------------------------------------------------------------


def test_no_module_can_execute_what_it_reads() -> None:
    executing = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in MODULES
        if path.relative_to(SOURCE).as_posix() not in BETWEEN_PROCESSES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call) and executes(node)
    ]
    assert not executing, ", ".join(executing)


def executes(node: ast.Import | ast.ImportFrom | ast.Call) -> bool:
    """Can what it imports or calls run code that is in data?"""
    if isinstance(node, ast.Import):
        return bool({name.name.partition(".")[0] for name in node.names} & EXECUTING)
    if isinstance(node, ast.ImportFrom):
        if {alias.name for alias in node.names} == {"PickleBuffer"}:
            return False  # it marks what a pickle is to leave beside it, and reads nothing
        return (node.module or "").partition(".")[0] in EXECUTING
    if isinstance(node.func, ast.Name):
        return node.func.id in {"eval", "exec", "compile", "__import__"}
    if isinstance(node.func, ast.Attribute) and node.func.attr == "load":
        of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        if of in ("np", "numpy"):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            allowed = given.get("allow_pickle")
            return not isinstance(allowed, ast.Constant) or allowed.value is not False
    return False


@pytest.mark.parametrize(
    ("code", "is_bad"),
    [
        ("import pickle", True),
        ("from pickle import loads", True),
        ("from pickle import PickleBuffer, loads", True),
        ("from pickle import PickleBuffer", False),
        ("eval('1')", True),
        ("np.load(file)", True),
        ("np.load(file, allow_pickle=True)", True),
        ("np.load(file, allow_pickle=False)", False),
        ("import json", False),
    ],
)
def test_what_executes_is_known(code: str, is_bad: bool) -> None:
    assert is_bad == any(
        executes(node)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
    )


def test_a_shard_with_a_pickle_inside_is_never_loaded(tmp_path: Path, tokenmill: Run) -> None:
    """Its hash may even be right: the header alone condemns it."""
    out = prepare(ARTICLES, tmp_path / "out", format="build-nanogpt", shard_tokens="10K").folder
    victim = next(out.glob("*.npy"))
    evil = np.array([Evil(str(tmp_path / "executed"))], dtype=object)
    np.save(victim, evil, allow_pickle=True)
    for command in (["verify"], ["verify", "--quick"], ["inspect"], ["inspect", "--doc", "0"]):
        tokenmill(command[0], out, *command[1:])
        assert not (tmp_path / "executed").exists(), command


class Evil:
    """Unpickling this makes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


# --- bombs --------------------------------------------------------------------------------------


def write_bomb(compress: Callable[[bytes], bytes], flush: Callable[[], bytes], path: Path) -> None:
    # bzip2 is slow to write what repeats itself, but for runs of one byte.
    words = b"a bomb of words\n" if path.suffix != ".bz2" else b"w" * 250 + b"\n"
    chunk = words * (1_600_000 // len(words))
    with path.open("wb") as file:
        for _ in range(BOMB // len(chunk)):
            file.write(compress(chunk))
        file.write(flush())


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_a_bomb_stays_within_memory(suffix: str, tmp_path: Path) -> None:
    """100 MB of text from a file of kilobytes: refused or read, in bounded memory."""
    path = tmp_path / f"bomb.txt{suffix}"
    makers: dict[str, Any] = {
        ".gz": lambda: gzip.zlib.compressobj(9, wbits=31),  # type: ignore[attr-defined]
        ".xz": lzma.LZMACompressor,
        ".bz2": bz2.BZ2Compressor,
        ".zst": zstd.ZstdCompressor,
    }
    made = makers[suffix]()
    write_bomb(made.compress, made.flush, path)
    assert path.stat().st_size < 2_000_000
    command = [sys.executable, "-m", "tokenmill", "prepare", str(path), "--check", "0"]
    out = tmp_path / "out"
    code, peak = peak_of([*command, "--out", str(out), "--memory", str(BUDGET), "--threads", "1"])
    assert code in (0, 1)
    assert code == 0 or not (out / "manifest.json").exists()
    assert peak < BUDGET, f"{peak / 1e6:.0f} MB resident"


def test_a_zstd_window_over_the_limit_is_refused(tmp_path: Path, tokenmill: Run) -> None:
    """Made with --long=31, it asks for 2 GB to be decompressed at all."""
    path = tmp_path / "wide.txt.zst"
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 31}
    packer = zstd.ZstdCompressor(options=options)
    path.write_bytes(packer.compress(b"some text\n" * 1000) + packer.flush())
    done = tokenmill("prepare", path, "--out", tmp_path / "out", "--memory", "1GB")
    assert done.rc == 2, done.stderr
    assert str(path) in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_parquet_page_that_claims_gigabytes(tmp_path: Path) -> None:
    """The size in its page header is not believed."""
    path = corpora.write_parquet(
        tmp_path / "liar.parquet", ["one text", "two texts"], compression="gzip",
        use_dictionary=False, write_statistics=False,
    )  # fmt: skip
    content = path.read_bytes()
    found = 0
    for place in range(4, 40):  # the page header is near the beginning, its sizes are varints
        damaged = bytearray(content)
        damaged[place : place + 1] = b"\xfe\xff\xff\xff\x0f"
        path.write_bytes(bytes(damaged))
        command = [sys.executable, "-m", "tokenmill", "prepare", str(path), "--memory"]
        out = tmp_path / f"out-{place}"
        if place % 6:
            continue
        found += 1
        code, peak = peak_of([*command, str(BUDGET), "--threads", "1", "--out", str(out)])
        assert code in (0, 1), f"exit code {code} with byte {place} changed"
        assert peak < BUDGET, f"{peak / 1e6:.0f} MB resident with byte {place} changed"
    assert found > 4


# --- links, pipes, devices ----------------------------------------------------------------------


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("one")
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (tmp_path / "outside.txt").write_text("two")
    (folder / "b.txt").symlink_to(tmp_path / "outside.txt")
    os.link(folder / "deep" / "a.txt", folder / "hard.txt")
    out = prepare(folder, tmp_path / "out", val_fraction=0)
    # A hard link is another file, as far as anyone can tell; a symbolic link is not.
    assert out.manifest["counts"]["documents"] == 3


@pytest.mark.parametrize("name", ["dangling.txt", "loop.txt"])
def test_a_link_that_leads_nowhere_is_an_error(name: str, tmp_path: Path, tokenmill: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.txt").write_text("text")
    (folder / name).symlink_to(folder / ("loop.txt" if name == "loop.txt" else "gone.txt"))
    done = tokenmill("prepare", folder, "--out", tmp_path / "out")
    assert done.rc == 1, done.stderr
    assert name in done.stderr
    assert "fix: " in done.stderr


@pytest.mark.parametrize("kind", ["device", "device by link", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(
    kind: str, tmp_path: Path, tokenmill: Run
) -> None:
    path = tmp_path / "in.txt"
    if kind == "device by link":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    target = Path("/dev/zero") if kind == "device" else path
    done = tokenmill("prepare", target, "--out", tmp_path / "out", timeout=20)
    assert done.rc == 1, done.stderr
    assert str(target) in done.stderr
    assert "fix: " in done.stderr


def test_the_same_file_twice_is_read_once_and_told(tmp_path: Path, tokenmill: Run) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(ARTICLES)
    done = tokenmill("prepare", ARTICLES, ARTICLES, link, "--out", tmp_path / "out")
    assert done.rc == 0
    assert done.stderr.count("named twice, read once") == 2
    assert Outcome(tmp_path / "out").manifest["counts"]["documents"] == 200


# --- names --------------------------------------------------------------------------------------

ODD_NAMES = [
    "a\nb.txt", "quote'\".txt", "-rf.txt", "--out.txt", " .txt", "*.txt", "[a].txt", "ü好🙂.txt",
    "x" * 251 + ".txt", "\x1b[31mred.txt", "$(touch owned).txt", "%s%n.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_odd_names_of_inputs(name: str, tmp_path: Path, tokenmill: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_text("some text")
    done = tokenmill("prepare", folder, "--out", tmp_path / "out", cwd=tmp_path)
    assert done.rc == 0, done.stderr
    inputs = json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"]
    assert [Path(entry["path"]).name for entry in inputs] == [name]
    assert not (tmp_path / "owned").exists()


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path, tokenmill: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/b\xffd.txt")).write_text("text")
    done = tokenmill("prepare", folder, "--out", tmp_path / "out")
    assert done.rc == 1
    assert "not UTF-8" in done.stderr
    assert "b\\xffd.txt" in done.stderr


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..", ""])
def test_a_manifest_that_names_files_elsewhere_is_refused(
    name: str, tmp_path: Path, tokenmill: Run
) -> None:
    out = prepare(ARTICLES, tmp_path / "out").folder
    path = out / "manifest.json"
    plain = json.loads(path.read_text())
    plain["shards"][0]["name"] = name
    path.write_text(json.dumps(plain))
    for command in ("verify", "inspect"):
        done = tokenmill(command, out)
        assert done.rc == 13, done.stderr
        assert "outside its folder" in done.stderr


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "x\0y"])
def test_a_prefix_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    from tokenmill.errors import UsageError

    with pytest.raises(UsageError):
        prepare(ARTICLES, tmp_path / "out", format="build-nanogpt", name=name)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_under_a_shards_name_is_not_written_through(tmp_path: Path, tokenmill: Run) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious").write_text("mine")
    (out / "train.bin.partial").symlink_to(tmp_path / "precious")
    tokenmill("prepare", ARTICLES, "--out", out)
    assert (tmp_path / "precious").read_text() == "mine"


# --- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 10**9, 4 * 10**9])
def test_the_time_of_a_file_decides_nothing(seconds: int, tmp_path: Path, tokenmill: Run) -> None:
    """Before 1970's end, in 2001, in 2096: the shards are the same."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(ARTICLES.read_bytes())
    os.utime(path, (seconds, seconds))
    done = tokenmill("prepare", path, "--out", tmp_path / "out", env={"TZ": "Pacific/Kiritimati"})
    assert done.rc == 0, done.stderr
    plain = prepare(ARTICLES, tmp_path / "plain")
    assert Outcome(tmp_path / "out").hashes == plain.hashes


def test_a_clock_that_jumps_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(4 * 10**9, 0, -(10**7)))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    jumping = prepare(ARTICLES, tmp_path / "out")
    monkeypatch.undo()
    assert jumping.hashes == prepare(ARTICLES, tmp_path / "plain").hashes


def test_no_module_asks_for_the_time_of_day_to_decide() -> None:
    """Only the journal's note of when a run began, for a person, has the time of day."""
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in {"time", "now", "utcnow", "today", "time_ns"}
        and isinstance(node.value, ast.Name)
        and node.value.id in {"time", "datetime", "date"}
    ]
    allowed = [place for place in found if place.startswith("commands/prepare.py:")]
    assert len(allowed) <= 1, allowed
    assert found == allowed


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", ["2147483648", "3B", "5B"])
def test_more_tokens_than_a_header_can_count_are_refused_first(
    count: str, tmp_path: Path, tokenmill: Run
) -> None:
    """llm.c keeps the number in 31 bits."""
    out = tmp_path / "out"
    options = ["--format", "llm.c", "--shard-tokens", count]
    done = tokenmill("prepare", ARTICLES, "--out", out, *options)
    assert done.rc == 2, done.stderr
    assert "fix: " in done.stderr
    assert not list(out.glob("*"))


def test_nothing_here_needs_the_network() -> None:
    """The package works where there is none: a name space without any interface."""
    probe = [
        "unshare", "-n", sys.executable, "-m", "tokenmill", "plan", str(ARTICLES),
    ]  # fmt: skip
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: no network name space can be made")
    done = subprocess.run(
        probe, env=command_environment(), cwd=REPOSITORY, capture_output=True, check=False
    )
    assert done.returncode == 0
