"""What is told: warnings before and after, figures with their units, errors for programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, command_environment
from tests.kit import corpora, runs, texts
from tests.kit.shared import REPOSITORY
from tokenmill.cli import prepare
from tokenmill.commands.workers import EXECUTORS
from tokenmill.dataset.spec import DELIMITERS, INVALID_UTF8, ON_BAD, SPECIAL_TEXT, Spec
from tokenmill.extras import install_extra, requirements_of
from tokenmill.formats import FORMATS
from tokenmill.tokenizers.engines import ENGINES, make_engine
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

DOCUMENTS = [f"{n} {texts.prose(4000)[: 40 * (n % 7) + 3]}" for n in range(60)]


def write(path: Path, documents: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "in" / "corpus.jsonl", DOCUMENTS)


# --- --val-docs ----------------------------------------------------------------------------------


def ids_of(folder: Path, split: str) -> list[int]:
    found: list[int] = np.fromfile(folder / f"{split}.bin", np.uint16).tolist()
    return found


@pytest.mark.parametrize("eot", ["before", "after", "none"])
@pytest.mark.parametrize("count", [1, 17, 59])
def test_the_first_documents_are_validation(
    count: int, eot: str, corpus: Path, tmp_path: Path
) -> None:
    """Token for token those of the documents alone, in blocks of every size."""
    out, reference = tmp_path / "out", make_engine("tiktoken", load_vocabulary("gpt2"))
    done = runs.run("prepare", corpus, "--out", out, "--val-docs", count, "--eot", eot, block=512)
    assert done.rc == 0, done.stderr
    expected: dict[str, list[int]] = {"val": [], "train": []}
    for number, text in enumerate(DOCUMENTS):
        ids = reference.encode_piece(text.encode())
        ids = {"before": [50256, *ids], "after": [*ids, 50256], "none": ids}[eot]
        expected["val" if number < count else "train"] += ids
    for split, ids in expected.items():
        assert ids_of(out, split) == ids
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["spec"]["val_docs"] == count
    assert [s["documents"] for s in manifest["shards"]] == [count, 60 - count]


@pytest.mark.parametrize("kind", ["jsonl", "one.txt"])
def test_val_docs_interrupted_and_repaired(kind: str, tmp_path: Path, tokenmill: Run) -> None:
    """Many documents, and one; `torture/test_splits.py` has every kind of input."""
    interrupt_and_repair(kind, tmp_path, tokenmill)


def interrupt_and_repair(kind: str, tmp_path: Path, tokenmill: Run) -> None:
    """A run stopped again and again writes the same bytes, and a shard made again is the same."""
    source = runs.write_corpus(tmp_path / "in", kind, 12).path
    options = [*runs.OPTIONS, "--val-docs", "1" if kind == "one.txt" else "5"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert runs.run("prepare", source, "--out", whole, *options).rc == 0
    for _ in range(60):
        done = runs.run("prepare", source, "--out", out, *options, "--max-time", "0.001")
        if done.rc == 0:
            break
        assert done.rc == 10, done.stderr
    names = [shard["name"] for shard in json.loads((out / "manifest.json").read_text())["shards"]]
    assert [(out / name).read_bytes() for name in names] == [
        (whole / name).read_bytes() for name in names
    ]
    for name in (names[0], names[-1]):
        (out / name).write_bytes(b"")
    assert runs.run("prepare", source, "--out", out, *options, "--repair").rc == 0
    assert [(out / name).read_bytes() for name in names] == [
        (whole / name).read_bytes() for name in names
    ]
    done = tokenmill("verify", out, "--against", source, "--share", 1)
    assert done.rc == 0, done.stdout + done.stderr


def test_a_spec_without_val_docs_is_what_it_was() -> None:
    assert "val_docs" not in Spec.of({}).as_dict()
    assert Spec.of({}).differences(Spec.of({}).as_dict()) == []
    assert Spec.of({"val_docs": 3}).differences(Spec.of({}).as_dict())[-1:] == [
        "--val-docs is 3, was 0"
    ]
    restored = Spec.restored(Spec.of({"val_docs": 3}).as_dict())
    assert restored == Spec.of({"val_docs": 3})


@pytest.mark.parametrize(
    "options",
    [["--val-docs", "x"], ["--val-docs", "-1"], ["--val-docs", "3", "--val-fraction", "0.1"]],
)
def test_wrong_val_docs(options: list[str], corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("prepare", corpus, "--out", tmp_path / "out", *options)
    assert done.rc == 2 and "fix:" in done.stderr


# --- validation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 12, 45, 200])
def test_advice_for_an_empty_split_works(count: int, tmp_path: Path, tokenmill: Run) -> None:
    """It is told before and after; and whoever follows the advice has a validation split."""
    corpus = write(tmp_path / "in.jsonl", [f"{n} " + texts.prose(700) for n in range(count)])
    done = tokenmill("prepare", corpus, "--out", tmp_path / "a")
    assert done.rc == 0 and (tmp_path / "a" / "val.bin").stat().st_size == 0
    assert done.stderr.count("the validation split may be empty") == 1
    assert done.stderr.count("the validation split is empty: none of") == 1
    assert "val.bin" not in done.stderr
    advice = re.search(r"validation split is empty.*fix: (--[\w-]+ [\d.]+)", done.stderr)
    assert advice is not None, done.stderr
    again = tokenmill("prepare", corpus, "--out", tmp_path / "b", *advice[1].split())
    assert again.rc == 0 and (tmp_path / "b" / "val.bin").stat().st_size > 0
    assert (tmp_path / "b" / "train.bin").stat().st_size > 0
    assert "split is empty" not in again.stderr


def test_a_small_split_is_told_once_and_its_advice_works(tmp_path: Path, tokenmill: Run) -> None:
    corpus = write(tmp_path / "in.jsonl", [f"{n} " + texts.prose(100) for n in range(200)])
    done = tokenmill("prepare", corpus, "--out", tmp_path / "a", "--val-fraction", "0.05")
    assert done.stderr.count("cannot draw blocks") == 1, done.stderr
    advice = re.search(r"fix: (--val-tokens \d+)", done.stderr)
    assert advice is not None
    again = tokenmill("prepare", corpus, "--out", tmp_path / "b", *advice[1].split())
    assert again.rc == 0 and "cannot draw" not in again.stderr


def test_a_split_of_one_source_is_told(tmp_path: Path, tokenmill: Run) -> None:
    wiki = write(tmp_path / "wiki.jsonl", [texts.prose(3000)] * 50)
    books = write(tmp_path / "books.jsonl", [texts.prose(3000)] * 50)
    options = ["--format", "llm.c", "--shard-tokens", "5K"]
    done = tokenmill("plan", wiki, books, *options)
    assert f"all of it comes from {wiki}, one of 2 sources; fix: --val-fraction 0." in done.stderr
    parts = [write(tmp_path / f"part-{n:05d}.jsonl", [texts.prose(3000)] * 50) for n in range(2)]
    for inputs, more in ((parts, options), ([wiki, books], [*options, "--val-fraction", "0.1"])):
        assert "sources" not in tokenmill("plan", *inputs, *more).stderr


# --- figures -------------------------------------------------------------------------------------


def test_the_budget_is_told_as_it_was_asked(corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    options = ["--memory", "1GB", "--workers", "1"]
    done = tokenmill("prepare", corpus, "--out", tmp_path / "out", *options)
    assert "1.0 GB of memory" in done.stderr and " of 1.0 GB; " in done.stderr
    assert "1 worker, " in done.stderr and "983" not in done.stderr
    assert tokenmill("plan", corpus, *options, "--json").lines[0]["memory"] == 10**9


def test_done_tells_time_memory_and_place(corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    out = tmp_path / "out"
    first = tokenmill("prepare", corpus, "--out", out, "--json")
    told = (
        r"^done: 60 documents, .*; [\d.]+ s, .*; peak memory [\d.]+ MB .*; the dataset is in (.*)$"
    )
    found = re.search(told, first.stderr, re.MULTILINE)
    assert found is not None and found[1] == str(out), first.stderr
    done = first.lines[-1]
    assert done["type"] == "done" and done["out"] == str(out) and done["has_worked"] is True
    assert done["seconds"] > 0 and 50e6 < done["peak_memory"] < done["memory_budget"]
    again = tokenmill("prepare", corpus, "--out", out, "--json").lines[-1]
    assert again["has_worked"] is False and again["counts"] == done["counts"]


def test_speed_is_that_of_the_text(tmp_path: Path, tokenmill: Run) -> None:
    """Of a file that compresses a hundredfold, too."""
    path = tmp_path / "a.parquet"
    corpora.write_parquet(path, ["the same words again. " * 4000] * 60)
    done = tokenmill("prepare", path, "--out", tmp_path / "out", "--val-fraction", "0")
    found = re.search(r"; ([\d.]+) s, ([\d.]+) (kB|MB)/s of text", done.stderr)
    assert found is not None, done.stderr
    text = 60 * 88_000
    unit = 1e6 if found[3] == "MB" else 1e3
    seconds, speed = (rounded(found[1]), rounded(found[2]))
    assert seconds[0] * speed[0] * unit <= text <= seconds[1] * speed[1] * unit, done.stderr


def rounded(shown: str) -> tuple[float, float]:
    """Between which figures lies what was rounded to this (0.2: from 0.15 to 0.25)."""
    half = 0.5 * 10.0 ** -len(shown.partition(".")[2])
    return float(shown) - half, float(shown) + half


def test_one_is_one(tmp_path: Path, tokenmill: Run) -> None:
    (tmp_path / "a.txt").write_text("word " * 3000)
    out = tmp_path / "out"
    done = tokenmill("prepare", tmp_path / "a.txt", "--out", out, "--val-fraction", "0")
    shown = done.stderr + tokenmill("inspect", out).stdout + tokenmill("status", out).stdout
    assert "1 document, " in shown and "1 document begins in it" in shown
    assert not re.search(r"\b1 (documents|files|shards|workers|records|times)\b", shown)


def test_the_engine_is_told_in_few_words(corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("prepare", corpus, "--out", tmp_path / "out")
    line = next(line for line in done.stderr.splitlines() if line.startswith("engine: "))
    assert len(line) < 60
    assert "large documents are cut" in tokenmill("plan", corpus).stdout
    slow = tokenmill("prepare", corpus, "--out", tmp_path / "b", "--engine", "tiktoken")
    assert "asked for" in slow.stderr or "--engine" in slow.stderr


# --- plan ----------------------------------------------------------------------------------------


def test_plan_of_many_files_is_short(tmp_path: Path, tokenmill: Run) -> None:
    for folder in ("a", "b"):
        for number in range(150):
            write(tmp_path / "in" / folder / f"{number:03d}.jsonl", ["text"])
    write(tmp_path / "in" / "b" / "one.txt", ["text"])
    for number in range(30):
        (tmp_path / "in" / f"{number}.docx").write_text("x")
    done = tokenmill("plan", tmp_path / "in")
    assert done.rc == 0 and len(done.stdout.splitlines()) < 12, done.stdout
    assert f"{tmp_path}/in/a/: 150 files, the first 000.jsonl" in done.stdout
    assert "one.txt" in done.stdout
    assert "ignored: 25 more files of no known kind" in done.stderr
    found = tokenmill("plan", tmp_path / "in", "--json").lines[0]
    assert len(found["inputs"]) == 301 and len(found["ignored"]) == 30


# --- errors and choices --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prepare", "missing.txt", "--out", "o"], 1, "missing.txt"),
        (["plan", "missing.txt"], 1, "missing.txt"),
        (["prepare", "--out", "o"], 2, "INPUT"),
        (["status", "."], 13, "no run"),
        (["inspect", "missing"], 13, "missing"),
        (["verify", "missing"], 13, "missing"),
        (["inspect", "missing", "--split", "test"], 2, "train, val"),
        (["preapre", "x"], 2, "did you mean prepare?"),
        (["prepare", "x", "--out", "o", "--formt", "x"], 2, "--format"),
        (["prepare", "x", "--out", "o", "--format", "llmc"], 2, "did you mean llm.c?"),
        (["prepare", "x", "--out", "o", "--on-bad", "quarantin"], 2, "did you mean quarantine?"),
        (["prepare", "x", "--out", "o", "--eot", "befor"], 2, "did you mean before?"),
        (["prepare", "x", "--out", "o", "--documents", "blankline"], 2, "did you mean blank-line"),
        (["prepare", "x", "--out", "o", "--engine", "Tiktoken"], 2, "did you mean tiktoken?"),
        (["prepare", "x", "--out", "o", "--workers", "two"], 2, "two"),
    ],
)
def test_errors_are_json_under_json(
    arguments: list[str], code: int, words: str, tmp_path: Path, tokenmill: Run
) -> None:
    done = tokenmill(*arguments, "--json", cwd=tmp_path)
    assert done.rc == code, done.stderr
    error = done.lines[-1]
    assert error["type"] == "error" and error["exit_code"] == code and error["fix"]
    assert set(error) == {"type", "what", "where", "why", "fix", "exit_code"}
    assert words in " ".join(str(value) for value in error.values()), error
    assert done.stderr.startswith("error: ") and words in done.stderr


def test_an_error_of_the_parent_is_json_too(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ["deadly"])
    done = runs.run(
        "prepare", tmp_path / "in.jsonl", "--out", tmp_path / "out", "--json",
        die={"gigatoken": "abort", "tiktoken": "abort"}, marker="deadly",
    )  # fmt: skip
    assert done.rc == 1
    assert done.lines[-1]["type"] == "error" and done.lines[-1]["fix"]


@pytest.fixture(scope="module")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    corpus = write(folder / "in.jsonl", DOCUMENTS)
    assert runs.run("prepare", corpus, "--out", folder / "out", "--val-docs", 1).rc == 0
    return folder / "out"


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "../in.jsonl", "--json"],
        ["verify", "."],
        ["status", ".", "--json"],
        ["inspect", "."],
        ["inspect", ".", "--doc", "3"],
        ["doctor", "--json"],
        ["--version"],
        ["prepare", "-h"],
    ],
    ids=" ".join,
)
def test_an_answer_that_cannot_be_printed_is_an_error(
    arguments: list[str], small_dataset: Path
) -> None:
    """Standard output is a full disk: no defect of ours, and no success."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tokenmill", *arguments],
            cwd=small_dataset, env=command_environment(), stdout=full, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    assert done.returncode == 9, done.stderr
    shown = done.stderr[done.stderr.index("error: ") :].splitlines()
    assert shown[0] == "error: cannot print the answer"
    assert shown[1:3] == ["  where: standard output", "  why: No space left on device"]
    assert shown[3].startswith("  fix: free space there") and len(shown) == 4


def test_no_command_at_all_is_told_in_words(tokenmill: Run) -> None:
    done = tokenmill()
    assert done.rc == 2 and done.stderr.startswith("error: a command is missing\n  why: ")
    assert "prepare, plan, verify" in done.stderr and "fix: tokenmill --help" in done.stderr


def test_help_names_every_choice() -> None:
    """What the help shows is what the code takes."""
    shown = {parameter.name: parameter.metavar for parameter in prepare.prepare.params}
    assert shown["format"] == "|".join(FORMATS)
    assert set(str(shown["engine"]).split("|")) == {"auto", *ENGINES}
    assert shown["executor"] == "|".join(EXECUTORS)
    assert shown["eot"] == "|".join(DELIMITERS)
    assert shown["special_text"] == "|".join(SPECIAL_TEXT)
    assert shown["on_bad"] == "|".join(ON_BAD)
    assert shown["invalid_utf8"] == "|".join(INVALID_UTF8)


def test_doctor_tells_plain_data(tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("doctor", "--out", tmp_path, "--json").lines[0]
    for name in ("cores", "memory_limit", "default_budget", "free_disk", "disk_speed"):
        assert isinstance(done[name], int) and done[name] > 0, name
    assert isinstance(done["libraries"], dict) and isinstance(done["engines"], dict)
    shown = tokenmill("doctor", "--out", tmp_path).stdout
    assert "{" not in shown and re.search(r"^     libraries: gigatoken: \d", shown, re.MULTILINE)


# --- what to install, and where it runs -----------------------------------------------------------


def _by_name(requirements: list[str]) -> dict[str, set[str]]:
    """Name to bounds, whose order the metadata may change."""
    parts = [re.fullmatch(r"([\w-]+)(.*)", text.replace("_", "-")) for text in requirements]
    return {part[1]: set(part[2].split(",")) for part in parts if part is not None}


@pytest.mark.parametrize("extra", ["cloud", "hf", "hub", "sentencepiece", "web"])
def test_advice_names_libraries_that_are_published(extra: str) -> None:
    """The libraries themselves, as the package's metadata requires them, for this interpreter."""
    wanted = re.search(rf"^{extra} = \[(.*)\]$", (REPOSITORY / "pyproject.toml").read_text(), re.M)
    assert wanted is not None
    expected = re.findall(r'"([^"]+)"', wanted[1])
    assert _by_name(requirements_of(extra)) == _by_name(expected)
    advice = install_extra(extra)
    assert advice.startswith(f"{sys.executable} -m pip install ") and "tokenmill[" not in advice


def test_no_text_advises_what_is_not_published() -> None:
    for path in (REPOSITORY / "src").rglob("*.py"):
        assert not re.search(r"pip install '?tokenmill", path.read_text()), path


def as_on(platform: str, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """The command where the system is another one, which lacks what only POSIX has."""
    pretence = (
        f"import sys, click; sys.platform = {platform!r}\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
        "import os, signal\n"
        "for name in ('fork', 'sysconf', 'getuid', 'killpg', 'sched_getaffinity'):\n"
        "    delattr(os, name)\n"
        "for name in ('SIGHUP', 'SIGKILL', 'SIGBUS', 'SIGUSR1'): delattr(signal, name)\n"
    )
    run = (
        f"sys.argv = ['tokenmill', *{list(arguments)!r}]\n"
        "from tokenmill.cli.main import main\nmain()"
    )
    return subprocess.run(
        [sys.executable, "-c", pretence + (code or run)],
        env=command_environment(),
        capture_output=True,
        text=True,
    )


def test_windows_is_refused_in_a_sentence() -> None:
    calls: list[list[str]] = [["prepare", "a.txt", "--out", "o"], ["doctor"], ["status", "x"]]
    for arguments in calls:
        done = as_on("win32", *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: tokenmill does not run on Windows")
        assert "WSL 2" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["prepare", "--help"]])
def test_help_and_version_work_on_windows(arguments: list[str]) -> None:
    done = as_on("win32", *arguments)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_python_on_windows_is_refused_in_a_sentence() -> None:
    code = (
        "import tokenmill\n"
        "try:\n    tokenmill.prepare\n"
        "except tokenmill.TokenmillError as error:\n    print(error)\n"
    )
    done = as_on("win32", code=code)
    assert done.returncode == 0 and "WSL 2" in done.stdout, done.stderr


def test_metadata_claims_what_is_tested() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    assert "Operating System :: POSIX :: Linux" in text
    assert "MacOS" not in text and "Windows" not in text
