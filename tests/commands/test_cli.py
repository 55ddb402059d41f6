"""The command line keeps its contract: exit codes, streams, help, and what the folder may hold.

All of it through real processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, kill, start
from tests.kit import corpora, oracles, texts
from tests.kit.outcome import Outcome
from tests.kit.shared import ARTICLES, BOOKS, tokenizer_argument

COMMANDS = ["prepare", "plan", "verify", "inspect", "status", "doctor"]
ARTICLE_TEXTS = [json.loads(line)["text"] for line in ARTICLES.read_text().splitlines()]


def numbered(out: Path) -> list[object]:
    return ["prepare", ARTICLES, "--out", out, "--format", "build-nanogpt", "--shard-tokens", "8K"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished dataset of numbered shards, made once."""
    out = tmp_path_factory.mktemp("template") / "out"
    process = start(*numbered(out))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return out


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> Outcome:
    """A copy of it, to be damaged at will."""
    return Outcome(Path(shutil.copytree(template, tmp_path / "out")))


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder: modification time and hash."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- help and usage ----------------------------------------------------------------------------


def test_help_names_the_commands(tokenmill: Run) -> None:
    done = tokenmill("--help")
    assert done.rc == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, tokenmill: Run) -> None:
    done = tokenmill(command, "--help")
    assert done.rc == 0
    assert command in done.stdout


CONTRACT_OPTIONS = (
    *("--out", "--format", "--tokenizer", "--text-key", "--documents", "--shard-tokens"),
    *("--val-fraction", "--val-tokens", "--val-shards", "--seed", "--name", "--eot"),
    *("--special-text", "--memory", "--workers", "--engine", "--check"),
)


def test_prepare_has_the_options_of_the_contract(tokenmill: Run) -> None:
    shown = tokenmill("prepare", "--help").stdout
    missing = [option for option in CONTRACT_OPTIONS if option not in shown]
    assert not missing


WRONG: dict[str, list[str]] = {
    "an unknown option": ["--no-such-option"],
    "an unknown format": ["--format", "nonsense"],
    "an unknown tokenizer": ["--tokenizer", "no-such-tokenizer"],
    "a tokenizer file that is not there": ["--tokenizer", "nowhere.tiktoken"],
    "a malformed size": ["--memory", "lots"],
    "a malformed count": ["--shard-tokens", "1.5x"],
    "a shard of nothing": ["--shard-tokens", "0", "--format", "llm.c"],
    "a fraction over one": ["--val-fraction", "1.5"],
    "a negative fraction": ["--val-fraction", "-0.1"],
    "two ways to split": ["--val-fraction", "0.1", "--val-tokens", "100"],
    "an unknown way to divide": ["--documents", "paragraph"],
    "an empty separator": ["--documents", "separator:"],
    "no workers": ["--workers", "0"],
    "no threads": ["--threads", "0"],
    "two numbers of workers": ["--workers", "1", "--threads", "2"],
    "an unknown engine": ["--engine", "steam"],
    "an unknown side": ["--eot", "middle"],
    "a check over one": ["--check", "2"],
    "too little memory": ["--memory", "10MB"],
    "a name that is a path": ["--format", "llm.c", "--name", "../up"],
}


PLANNED = ["an unknown format", "a malformed size", "two ways to split", "two numbers of workers"]
CALLS = [("prepare", name) for name in WRONG] + [("plan", name) for name in PLANNED]


@pytest.mark.parametrize(("command", "name"), CALLS)
def test_wrong_usage_ends_with_2_and_writes_nothing(
    command: str, name: str, tmp_path: Path, tokenmill: Run
) -> None:
    out = tmp_path / "out"
    where = ["--out", out] if command == "prepare" else []
    done = tokenmill(command, ARTICLES, *where, *WRONG[name], cwd=tmp_path)
    assert done.rc == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not out.exists() or not list(out.iterdir())


def test_prepare_without_input_or_out_ends_with_2(tmp_path: Path, tokenmill: Run) -> None:
    assert tokenmill("prepare", "--out", tmp_path / "out").rc == 2
    assert tokenmill("prepare", ARTICLES, cwd=tmp_path).rc == 2


def test_too_little_memory_names_the_least(tmp_path: Path, tokenmill: Run) -> None:
    """At most 256 MB for two threads, says the contract."""
    options = ["--out", tmp_path / "a", "--threads", "2"]
    done = tokenmill("prepare", ARTICLES, *options, "--memory", "10MB")
    assert done.rc == 2
    assert "MB" in done.stderr
    enough = tokenmill("prepare", ARTICLES, *options, "--memory", "256MB")
    assert enough.rc == 0, enough.stderr


# --- streams -----------------------------------------------------------------------------------


def test_json_is_lines_with_a_type(tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("prepare", ARTICLES, "--out", tmp_path / "out", "--json")
    assert done.rc == 0, done.stderr
    assert done.lines
    assert all("type" in line for line in done.lines)


@pytest.mark.parametrize("command", ["plan", "verify", "inspect", "status", "doctor"])
def test_every_command_speaks_json(command: str, finished: Outcome, tokenmill: Run) -> None:
    target = {"plan": [ARTICLES], "doctor": []}.get(command, [finished.folder])
    done = tokenmill(command, *target, "--json")
    assert done.rc == 0, done.stderr
    assert done.lines
    assert all("type" in line for line in done.lines)


def test_an_error_in_json_mode_keeps_stdout_to_json(tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("prepare", "nowhere.txt", "--out", tmp_path / "out", "--json")
    assert done.rc == 1
    assert all("type" in line for line in done.lines)
    assert "nowhere.txt" in done.stderr + done.stdout


def test_quiet_says_nothing(tmp_path: Path, tokenmill: Run) -> None:
    options = ["--quiet", "--val-fraction", "0.3", "--out", tmp_path / "out"]
    done = tokenmill("prepare", ARTICLES, *options)
    assert (done.rc, done.stdout, done.stderr) == (0, "", "")


def test_prepare_tells_its_plan_first_and_no_escape_codes(tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("prepare", BOOKS, "--out", tmp_path / "out")
    assert done.rc == 0
    assert re.search(
        r"^plan: \d+ files?, [\d.]+ kB; about \d+ documents, ", done.stderr, re.MULTILINE
    )
    assert re.search(r"^done: .* tokens in \d files?; ", done.stderr, re.MULTILINE)
    assert "\x1b" not in done.stderr + done.stdout


def test_debug_shows_the_traceback(tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("prepare", "nowhere.txt", "--out", tmp_path / "out", "--debug")
    assert done.rc == 1
    assert "Traceback" in done.stderr


def test_a_reader_that_goes_away_is_no_disaster(finished: Outcome, tokenmill: Run) -> None:
    """`tokenmill inspect DIR | head -1` ends without a traceback."""
    process = start("inspect", finished.folder, "--doc", "0")
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert "Traceback" not in stderr


# --- plan, inspect, doctor ---------------------------------------------------------------------


def test_plan_writes_nothing_and_estimates_well(tmp_path: Path, tokenmill: Run) -> None:
    corpus = corpora.write(tmp_path, "jsonl", ARTICLE_TEXTS * 5)
    before = snapshot(tmp_path)
    done = tokenmill("plan", *corpus.arguments(), cwd=tmp_path)
    assert done.rc == 0, done.stderr
    assert snapshot(tmp_path) == before
    assert "corpus.jsonl" in done.stdout + done.stderr


def test_plan_accepts_out(tmp_path: Path, tokenmill: Run) -> None:
    done = tokenmill("plan", ARTICLES, "--out", tmp_path / "out")
    assert done.rc == 0, done.stderr
    assert not (tmp_path / "out").exists()


def test_inspect_shows_the_text(finished: Outcome, tokenmill: Run) -> None:
    shown = tokenmill("inspect", finished.folder)
    assert shown.rc == 0, shown.stderr
    assert all(shard["name"] in shown.stdout for shard in finished.manifest["shards"])
    first = ["--split", "val"]
    document = tokenmill("inspect", finished.folder, "--doc", "0", *first)
    assert ARTICLE_TEXTS[0] in document.stdout
    token = tokenmill("inspect", finished.folder, "--token", "5", *first)
    assert token.rc == 0, token.stderr
    assert ARTICLE_TEXTS[0][30:60] in token.stdout


@pytest.mark.parametrize("place", [["--doc", "999999"], ["--token", "99999999"]])
def test_inspect_beyond_the_end_is_an_error(
    place: list[str], finished: Outcome, tokenmill: Run
) -> None:
    done = tokenmill("inspect", finished.folder, *place)
    assert done.rc in (1, 2)
    assert "Traceback" not in done.stderr


def test_doctor_is_well(tokenmill: Run) -> None:
    done = tokenmill("doctor")
    assert done.rc == 0, done.stderr
    assert "gigatoken" in done.stdout and "tiktoken" in done.stdout
    found = tokenmill("doctor", "--json").lines[0]
    assert found["limited_by"] == "RAM" or Path(found["limited_by"]).exists()


# --- verify ------------------------------------------------------------------------------------


def test_verify_finds_a_sound_dataset_sound(finished: Outcome, tokenmill: Run) -> None:
    assert tokenmill("verify", finished.folder).rc == 0
    assert tokenmill("verify", finished.folder, "--quick").rc == 0
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=finished.folder, capture_output=True
    )
    assert checked.returncode == 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Any] = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 2),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0\0"),
    "emptied": lambda path: os.truncate(path, 0),
    "changed": flip,
    "stray": lambda path: shutil.copy(path, path.with_name("edufineweb_train_999999.npy")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_damage_and_names_it(damage: str, finished: Outcome, tokenmill: Run) -> None:
    name = finished.manifest["shards"][1]["name"]
    DAMAGES[damage](finished.folder / name)
    done = tokenmill("verify", finished.folder)
    assert done.rc == 13, done.stdout + done.stderr
    named = "edufineweb_train_999999.npy" if damage == "stray" else name
    assert named in done.stdout + done.stderr
    quick = tokenmill("verify", finished.folder, "--quick")
    assert quick.rc == (0 if damage == "changed" else 13)


@pytest.mark.parametrize("command", ["verify", "inspect", "status"])
@pytest.mark.parametrize("state", ["no folder", "no manifest", "broken manifest"])
def test_a_folder_without_a_dataset_is_an_error(
    command: str, state: str, tmp_path: Path, tokenmill: Run
) -> None:
    folder = tmp_path / "some"
    if state != "no folder":
        folder.mkdir()
    if state == "broken manifest":
        (folder / "manifest.json").write_text('{"format": ')
    done = tokenmill(command, folder)
    assert done.rc not in (0, 120) and done.rc < 128
    assert "Traceback" not in done.stderr


# --- a folder that holds something already -----------------------------------------------------


def test_a_second_run_says_it_is_done(finished: Outcome, tokenmill: Run) -> None:
    before = snapshot(finished.folder)
    done = tokenmill(*numbered(finished.folder))
    assert done.rc == 0
    assert snapshot(finished.folder) == before
    assert done.stdout + done.stderr


@pytest.mark.parametrize(
    "changed",
    [
        ["--shard-tokens", "9K"],
        ["--seed", "7"],
        ["--val-shards", "2"],
        ["--eot", "after"],
        ["--format", "llm.c"],
        ["--name", "other"],
        ["--special-text", "token"],
    ],
    ids=lambda options: options[0],
)
def test_another_spec_ends_with_12(changed: list[str], finished: Outcome, tokenmill: Run) -> None:
    before = snapshot(finished.folder)
    done = tokenmill(*numbered(finished.folder), *changed)
    assert done.rc == 12, done.stderr
    assert snapshot(finished.folder) == before
    assert "fix:" in done.stderr


@pytest.mark.parametrize(
    "free", [["--threads", "1"], ["--memory", "300MB"], ["--engine", "tiktoken"]], ids=str
)
def test_options_that_change_no_byte_are_no_other_spec(
    free: list[str], finished: Outcome, tokenmill: Run
) -> None:
    assert tokenmill(*numbered(finished.folder), *free).rc == 0


def test_another_tokenizer_ends_with_12(tmp_path: Path, tokenmill: Run) -> None:
    options = ["prepare", ARTICLES, "--out", tmp_path / "out", "--format", "llm.c"]
    assert tokenmill(*options).rc == 0
    done = tokenmill(*options, "--tokenizer", tokenizer_argument("cl100k_base"))
    assert done.rc == 12, done.stderr


@pytest.mark.parametrize("change", ["longer", "another file", "same size"])
def test_other_inputs_end_with_12(change: str, tmp_path: Path, tokenmill: Run) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(corpora.jsonl(["one", "two"]))
    assert tokenmill("prepare", path, "--out", tmp_path / "out").rc == 0
    if change == "another file":
        path = path.rename(tmp_path / "d.jsonl")
    path.write_bytes(corpora.jsonl(["one", "too"] if change == "same size" else ["one", "three"]))
    os.utime(path, ns=(1, 1))
    done = tokenmill("prepare", path, "--out", tmp_path / "out")
    assert done.rc == 12, done.stderr


def test_a_foreign_file_is_never_overwritten(tmp_path: Path, tokenmill: Run) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.bin").write_bytes(b"precious")
    done = tokenmill("prepare", ARTICLES, "--out", out)
    assert done.rc not in (0, 120) and done.rc < 128, done.stderr
    assert "train.bin" in done.stderr
    assert (out / "train.bin").read_bytes() == b"precious"
    assert not (out / "manifest.json").exists()


def test_a_harmless_foreign_file_is_left_alone(tmp_path: Path, tokenmill: Run) -> None:
    """A note in the folder: whatever is decided about it, it stays as it is."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.md").write_text("mine")
    done = tokenmill("prepare", ARTICLES, "--out", out)
    assert done.rc == 0 or "notes.md" in done.stderr
    assert (out / "notes.md").read_text() == "mine"


def test_out_that_is_a_file_is_an_error(tmp_path: Path, tokenmill: Run) -> None:
    (tmp_path / "out").write_text("mine")
    done = tokenmill("prepare", ARTICLES, "--out", tmp_path / "out")
    assert done.rc in (1, 2)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


def wait_for(path: Path, process: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def slow_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So much text that one tiktoken thread needs several seconds; nobody writes to it."""
    path = tmp_path_factory.mktemp("slow") / "large.jsonl"
    path.write_bytes(corpora.jsonl([texts.prose(40_000)] * 1500))
    return path


def test_a_second_run_at_the_same_time_ends_with_11(
    slow_corpus: Path, tmp_path: Path, tokenmill: Run
) -> None:
    out = tmp_path / "out"
    options = ["--out", out, "--engine", "tiktoken", "--threads", "1", "--check", "0"]
    first = start("prepare", slow_corpus, *options)
    try:
        wait_for(out / ".tokenmill", first)
        time.sleep(0.5)
        os.killpg(first.pid, signal.SIGSTOP)
        second = tokenmill("prepare", slow_corpus, *options)
        assert second.rc == 11, second.stderr
        assert str(first.pid) in second.stderr or "fix:" in second.stderr
    finally:
        kill(first)
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize(("number", "rc"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_soon(
    number: int, rc: int, slow_corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--out", out, "--engine", "tiktoken", "--threads", "2", "--check", "0"]
    process = start("prepare", slow_corpus, *options)
    try:
        wait_for(out / ".tokenmill", process)
        time.sleep(0.5)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=15)
    finally:
        kill(process)
    assert process.returncode == rc, stderr
    assert "Traceback" not in stderr
    assert not (out / "manifest.json").exists()
    assert not list(out.glob("*.bin"))


# --- tokenizers by name and by file ------------------------------------------------------------


def test_a_file_of_ranks_is_recognised_by_its_hash(tmp_path: Path, tokenmill: Run) -> None:
    path = tmp_path / "whatever.tiktoken"
    shutil.copy(oracles.ranks_file("gpt2"), path)
    done = tokenmill("prepare", ARTICLES, "--out", tmp_path / "file", "--tokenizer", path)
    assert done.rc == 0, done.stderr
    assert tokenmill("prepare", ARTICLES, "--out", tmp_path / "name").rc == 0
    assert Outcome(tmp_path / "file").hashes == Outcome(tmp_path / "name").hashes


def test_an_unknown_file_of_ranks_needs_a_pattern(tmp_path: Path, tokenmill: Run) -> None:
    path = tmp_path / "small.tiktoken"
    lines = oracles.ranks_file("gpt2").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2000]))
    options = ["prepare", ARTICLES, "--tokenizer", path, "--format", "llm.c"]
    without = tokenmill(*options, "--out", tmp_path / "without")
    assert without.rc == 2, without.stderr
    assert "--pattern" in without.stderr
    done = tokenmill(*options, "--out", tmp_path / "with", "--pattern", "gpt2", "--eot", "none")
    assert done.rc == 0, done.stderr
    assert Outcome(tmp_path / "with").all_tokens().max() < 2000


@pytest.mark.parametrize("damage", ["truncated", "not base64", "a rank twice", "empty"])
def test_a_damaged_file_of_ranks_is_an_error(damage: str, tmp_path: Path, tokenmill: Run) -> None:
    lines = oracles.ranks_file("gpt2").read_bytes().splitlines(keepends=True)
    broken = {
        "truncated": b"".join(lines[:1000]) + lines[1000][:3],
        "not base64": b"".join(lines[:1000]) + b"!!!! 1000\n",
        "a rank twice": b"".join(lines[:1000]) + lines[1000].split()[0] + b" 999\n",
        "empty": b"",
    }[damage]
    path = tmp_path / "broken.tiktoken"
    path.write_bytes(broken)
    out = tmp_path / "out"
    options = ["--tokenizer", path, "--pattern", "gpt2", "--out", out]
    done = tokenmill("prepare", ARTICLES, *options)
    assert done.rc in (1, 2), done.stderr
    assert "broken.tiktoken" in done.stderr and "Traceback" not in done.stderr


def test_python_takes_the_options_of_the_command_line(tmp_path: Path) -> None:
    """The same nouns and option names in Python, those that change no byte included."""
    import tokenmill

    call: Any = tokenmill.prepare
    manifest = call(
        str(ARTICLES),
        out=str(tmp_path / "out"),
        memory="512MB",
        workers=1,
        engine="tiktoken",
        check=0.5,
    )
    assert manifest.counts["documents"] == 200


@pytest.mark.parametrize("out", ["hf://datasets/a/b", "https://h/x", "S3://b/k", "file:///tmp/x"])
def test_an_address_that_cannot_be_written_is_no_folder(
    out: str, tmp_path: Path, tokenmill: Run
) -> None:
    for command in ("prepare", "plan"):
        refused = tokenmill(command, BOOKS, "--out", out, cwd=tmp_path)
        assert refused.rc == 2 and "no dataset can be written there" in refused.stderr
        assert "s3://BUCKET/KEY" in refused.stderr
    assert not list(tmp_path.iterdir())
