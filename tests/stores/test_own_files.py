"""What tokenmill did not write is never changed or removed, and what it wrote is no input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run, command_environment, forkserver
from tests.kit import runs

LINES = '{"text": "a first text"}\n{"other": 1}\n{"text": "a second text"}\n'
FOREIGN = b"nobody's business\n"
NAMES = (
    "SHA256SUMS", "quarantine.jsonl", "manifest.json", "train.bin", "val.bin",
    "train.bin.partial", "val.bin.partial", "SHA256SUMS.partial", "manifest.json.partial",
    "quarantine.jsonl.partial",
)  # fmt: skip
COMMANDS = (
    ["prepare", "a.jsonl", "--out", "out", "--on-bad", "quarantine"],
    ["prepare", "a.jsonl", "--out", "out", "--on-bad", "quarantine", "--overwrite"],
    ["prepare", "a.jsonl", "--out", "out", "--on-bad", "quarantine", "--repair"],
    ["plan", "a.jsonl", "--on-bad", "quarantine"],
    ["verify", "out"],
    ["inspect", "out"],
    ["status", "out"],
)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_file_is_left_alone_by_every_command(
    name: str, here: Path, tokenmill: Run
) -> None:
    place = here / "out" / name
    place.write_bytes(FOREIGN)
    for command in COMMANDS[:3]:
        result = tokenmill(*command, cwd=here)
        assert place.read_bytes() == FOREIGN, command
        assert result.rc not in (0, 3), (command, result.stderr)
        assert "fix:" in result.stderr
        assert "Traceback" not in result.stderr
        assert set(os.listdir(here / "out")) - {".tokenmill"} == {name}
    place.unlink()
    assert tokenmill(*COMMANDS[0], cwd=here).rc == 3  # nothing was left that is in the way


def test_commands_that_only_look_change_nothing(here: Path, tokenmill: Run) -> None:
    for name in NAMES:
        (here / "out" / name).write_bytes(FOREIGN)
    for command in COMMANDS[3:]:
        assert "Traceback" not in tokenmill(*command, cwd=here).stderr
    assert {path.read_bytes() for path in (here / "out").iterdir()} == {FOREIGN}


def test_a_foreign_quarantine_file_is_an_input_where_nothing_is_left_out(
    here: Path, tokenmill: Run
) -> None:
    (here / "quarantine.jsonl").write_text('{"text": "my own"}\n')
    (here / "a.jsonl").write_text('{"text": "a first text"}\n')
    assert tokenmill("prepare", ".", "--out", ".", cwd=here).rc == 0
    assert json.loads((here / "manifest.json").read_text())["counts"]["documents"] == 2
    assert (here / "quarantine.jsonl").read_text() == '{"text": "my own"}\n'


def test_what_a_run_wrote_is_not_its_input(here: Path, tokenmill: Run) -> None:
    command = ["prepare", ".", "--out", "out", "--on-bad", "quarantine"]
    assert tokenmill(*command, cwd=here).rc == 3
    again = tokenmill(*command, cwd=here)
    assert again.rc == 0
    assert "nothing to do" in again.stderr
    anew = tokenmill(*command, "--overwrite", cwd=here)
    assert anew.rc == 3
    assert "passed over: out/quarantine.jsonl" in anew.stderr
    assert tokenmill("verify", "out", cwd=here).rc == 0
    beside = tokenmill("prepare", ".", "--out", "other", "--on-bad", "quarantine", cwd=here)
    assert beside.rc == 3
    assert json.loads((here / "other/manifest.json").read_text())["counts"]["documents"] == 2


@pytest.mark.parametrize(
    "broken", [["--text-key", "nowhere"], ["--memory", "60MB"], ["--tokenizer", "none.tiktoken"]]
)
def test_overwrite_removes_nothing_before_the_new_run_can_begin(
    broken: list[str], here: Path, tokenmill: Run
) -> None:
    command = ["prepare", "a.jsonl", "--out", "out", "--on-bad", "quarantine"]
    assert tokenmill(*command, cwd=here).rc == 3
    result = tokenmill(*command, "--overwrite", *broken, cwd=here)
    assert result.rc not in (0, 3), result.stderr
    assert tokenmill("verify", "out", cwd=here).rc == 0


def test_an_input_that_the_run_would_write_is_refused(here: Path, tokenmill: Run) -> None:
    (here / "out" / "train.bin").write_text("text, by its name no more than a binary\n" * 99)
    command = ["prepare", "out/train.bin", "--kind", "text", "--out", "out"]
    result = tokenmill(*command, cwd=here)
    assert result.rc == 2
    assert "an input is a file of the output" in result.stderr


def test_overwrite_that_is_killed_anywhere_can_be_gone_on_with(here: Path, tokenmill: Run) -> None:
    """Killed before each removal of a file; then the same command, with it or without."""
    code = (
        "import os, sys\n"
        "left = int(sys.argv.pop(1))\n"
        "def watch(event, arguments):\n"
        "    global left\n"
        "    if event in ('os.remove', 'os.rename', 'os.link'):\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), 9)\n"
        "from tokenmill.executors.supervisor import Attempt\n"
        "from tokenmill.cli import main as cli, prepare\n"
        "prepare._supervised = lambda *_: Attempt()\n"
        "sys.addaudithook(watch)\n"
        "cli.main()\n"
    )
    command = ["prepare", "a.jsonl", "--out", "out", "--on-bad", "quarantine"]
    (script := here / "killed.py").write_text(code)
    (here / "out" / "mine.txt").write_bytes(FOREIGN)
    kills = 0
    for point in range(0, 60, 3):
        assert tokenmill(*command, "--overwrite", cwd=here).rc == 3
        arguments = [str(script), str(point), *command, "--overwrite"]
        process = forkserver.start(arguments, here, command_environment())
        assert process is not None
        done = runs.finish(process)
        kills += done.rc == -9
        more = ["--overwrite"] if point % 2 else []
        assert tokenmill(*command, *more, cwd=here).rc in (0, 3), (point, done.stderr)
        assert tokenmill("inspect", "out", cwd=here).rc == 0
        assert (here / "out" / "mine.txt").read_bytes() == FOREIGN
        if done.rc != -9:
            break
    assert kills >= 3


def test_names_that_lead_nowhere_are_told_in_words(here: Path, tokenmill: Run) -> None:
    for out in ("", "  ", "a" * 300, "a.jsonl/below"):
        result = tokenmill(*COMMANDS[0][:2], "--on-bad", "quarantine", "--out", out, cwd=here)
        assert result.rc == (1 if "/" in out else 2), (out, result.stderr)
        assert "fix:" in result.stderr
        assert "nobody foresaw" not in result.stderr
        if result.rc == 2:
            assert tokenmill("plan", "a.jsonl", "--out", out, cwd=here).stderr == result.stderr
    assert tokenmill("status", "a" * 300, cwd=here).rc in (1, 2, 13)


def test_a_home_in_quotes_is_what_the_shell_would_make_of_it(here: Path, tokenmill: Run) -> None:
    command = ["prepare", "~/a.jsonl", "--out", "~/data", "--on-bad", "quarantine"]
    assert tokenmill(*command, cwd=here / "out", env={"HOME": str(here)}).rc == 3
    assert (here / "data" / "manifest.json").exists()


def test_few_open_files_are_enough_or_an_error_in_words(here: Path) -> None:
    limited = f"ulimit -n 12; exec {sys.executable} -m tokenmill {' '.join(COMMANDS[0])}"
    done = subprocess.run(
        ["sh", "-c", limited], cwd=here, env=command_environment(), capture_output=True, text=True
    )
    assert "nobody foresaw" not in done.stderr
    assert done.returncode == 3 or "ulimit -n" in done.stderr, done.stderr


def damage(path: Path) -> bytes:
    """Change one byte of a file; returns what it holds now."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("name", ["train.bin", "quarantine.jsonl", "SHA256SUMS", "manifest.json"])
def test_a_damaged_dataset_can_be_overwritten(name: str, here: Path, tokenmill: Run) -> None:
    """What is not as it was written is set aside, for it may be somebody's by now."""
    assert tokenmill(*COMMANDS[0], cwd=here).rc == 3
    place = here / "out" / name
    if name == "manifest.json":
        place.write_bytes(place.read_bytes().replace(b'"format"', b'"fromat"'))
        content = place.read_bytes()
    else:
        content = damage(place)
    done = tokenmill(*COMMANDS[1], cwd=here)
    assert done.rc == 3, done.stderr
    assert f"set aside {name}" in done.stderr
    assert (here / "out/.tokenmill-found" / f"{name}.1").read_bytes() == content
    assert tokenmill("verify", "out", cwd=here).rc == 0


def test_what_took_a_shard_s_name_is_set_aside_as_it_is(here: Path, tokenmill: Run) -> None:
    for kind in ("file", "link", "pipe"):
        assert tokenmill(*COMMANDS[1], cwd=here).rc == 3
        place = here / "out/train.bin"
        place.unlink()
        if kind == "file":
            place.write_bytes(FOREIGN)
        elif kind == "link":
            place.symlink_to("nowhere")
        else:
            os.mkfifo(place)
        inode = place.lstat().st_ino
        assert tokenmill(*COMMANDS[1], cwd=here).rc == 3, kind
        found = {path.lstat().st_ino for path in (here / "out/.tokenmill-found").iterdir()}
        assert inode in found, kind
    place.unlink()
    place.mkdir()
    refused = tokenmill(*COMMANDS[1], cwd=here)
    assert refused.rc == 1 and "train.bin" in refused.stderr, refused.stderr
    assert place.is_dir()
    place.rename(here / "elsewhere")
    assert tokenmill(*COMMANDS[1], cwd=here).rc == 3


def test_a_dataset_among_the_inputs_is_passed_over_whole(here: Path, tokenmill: Run) -> None:
    """By whatever path it is come to, and whatever --kind says of its files."""
    (here / "a.jsonl").rename(here / "out" / "a.jsonl")
    options = ["--on-bad", "quarantine", "--documents", "line", "--out"]
    assert tokenmill("prepare", "out", *options, "out/one", cwd=here).rc == 3
    (here / "out/linked").symlink_to("one")
    (here / "link").symlink_to("out")
    for place, start in enumerate(["link", "out/../out", "out/**/*"]):
        assert tokenmill("prepare", start, *options, f"out{place}", cwd=here).rc == 3
        manifest = json.loads((here / f"out{place}/manifest.json").read_text())
        assert [Path(file["path"]).name for file in manifest["inputs"]] == ["a.jsonl"]
    as_text = tokenmill("plan", "out", "--kind", "text", cwd=here)
    assert "1 file," in as_text.stdout + as_text.stderr, as_text
    assert "passed over: 2 shards in out/linked" in as_text.stdout + as_text.stderr
    named = tokenmill("plan", "out/one/quarantine.jsonl", *options[:2], cwd=here)
    assert "note: tokenmill wrote out/one/quarantine.jsonl" in named.stdout + named.stderr


def test_sums_over_all_files_make_no_input_one_of_ours(here: Path, tokenmill: Run) -> None:
    """Somebody ran sha256sum over a folder that holds a corpus and a dataset of tokenmill's."""
    corpus = here / "a.jsonl"
    assert tokenmill("prepare", corpus, "--on-bad", "quarantine", "--out", ".", cwd=here).rc == 3
    with (here / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  a.jsonl\n")
    planned = tokenmill("plan", ".", "--on-bad", "quarantine", cwd=here)
    assert "1 file," in planned.stdout, planned


def test_a_whole_file_that_is_lost_before_the_end_is_named(here: Path) -> None:
    """The file of the records left out is needed as the shards are."""
    out = here / "out"
    command = ["prepare", here / "a.jsonl", "--out", out, "--on-bad", "quarantine"]
    died = runs.run(*command, manifest="kill")
    runs.wait_until_free(out)
    assert died.rc == -signal.SIGKILL, died.stderr
    (out / "quarantine.jsonl").unlink()
    done = runs.run(*command)
    assert done.rc == 1 and "quarantine.jsonl" in done.stderr, done.stderr
    assert "an unfinished file is not" in done.stderr
    assert runs.run(*command, "--overwrite").rc == 3
