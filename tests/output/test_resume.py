"""Law 4: whatever ends a run, the same command goes on from what is durable, to the same bytes.

The whole folder is compared, manifest included. Real processes with small blocks where signals
are at stake; in this process where only files are.
"""

from __future__ import annotations

import contextlib
import errno
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

from tests.kit import corpora, runs, sized
from tests.kit.runs import OPTIONS, snapshot
from tokenmill.commands import prepare
from tokenmill.errors import LimitReached, SpecMismatch, TokenmillError
from tokenmill.output import journal
from tokenmill.output.journal import read_journal
from tokenmill.output.writer import DatasetWriter

SMALL = sized.shrunk(runs.BLOCK)
"""In this process, what `troubled.py` hands in to its own."""
SPEC: dict[str, Any] = {
    "format": "build-nanogpt", "shard_tokens": "20K", "check": 0.1, "sizes": SMALL,
    "checkpoint_seconds": 0,
}  # fmt: skip
KILLED_PAUSE = 0.15


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, corpora.Corpus]:
    folder = tmp_path_factory.mktemp("inputs")
    return {kind: runs.write_corpus(folder / kind, kind) for kind in runs.KINDS}


@pytest.fixture(scope="module")
def undisturbed(
    inputs: dict[str, corpora.Corpus], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    """What an undisturbed run gives, file by file, for each kind of input."""
    found = {}
    for kind, corpus in inputs.items():
        out = tmp_path_factory.mktemp("undisturbed") / kind.replace(".", "-")
        sized.prepare(corpus.path, out=out, **corpus.options, **SPEC)
        found[kind] = snapshot(out)
        assert len(found[kind]) >= 6, "several shards are needed"
    return found


def command(corpus: corpora.Corpus, out: Path, *more: object) -> list[object]:
    return ["prepare", *corpus.arguments(), "--out", out, *OPTIONS, *more]


class Death(BaseException):
    """Stands for a death: nothing in the package catches it."""


def die_after(blocks: int, corpus: corpora.Corpus | Path, out: Path, **options: Any) -> None:
    """Prepare in this process, and die when so many blocks are written."""
    if isinstance(corpus, Path):
        corpus = corpora.Corpus(corpus)
    count = 0
    write = DatasetWriter.write

    def dying(writer: Any, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > blocks:
            raise Death
        write(writer, *arguments)
        wait_for_notes(writer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetWriter, "write", dying)
        with pytest.raises(Death):
            sized.prepare(corpus.path, out=out, **corpus.options, **{**SPEC, **options})


def wait_for_notes(writer: Any) -> None:
    """So that there is a checkpoint after each block."""
    runs.wait_for(lambda: not writer.is_checkpointing, "the checkpoint")


def resume(corpus: corpora.Corpus | Path, out: Path, **options: Any) -> None:
    if isinstance(corpus, Path):
        corpus = corpora.Corpus(corpus)
    sized.prepare(corpus.path, out=out, **corpus.options, **{**SPEC, **options})


# --- killed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", runs.KINDS)
def test_killed_three_times(
    kind: str,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    """First the worker, of which its parent makes a new one; then the parent; then both."""
    out = tmp_path / "out"
    arguments = command(inputs[kind], out)
    with runs.running(*arguments, pause=KILLED_PAUSE) as process:
        runs.wait_for_checkpoints(out, 2)
        runs.end(process, "worker")
        seen = runs.checkpoints(out)
        runs.wait_for_checkpoints(out, seen + 2)
        runs.end(process, "parent")
        runs.wait_until_free(out)
    runs.assert_nothing_finished(out)
    with runs.running(*arguments, pause=KILLED_PAUSE) as process:
        runs.wait_for_checkpoints(out, runs.checkpoints(out) + 1)
        runs.end(process, "both")
    runs.assert_nothing_finished(out)
    done = runs.run(*arguments)
    assert done.rc == 0, done.stderr
    assert "going on: " in done.stderr
    assert snapshot(out) == undisturbed[kind]


def test_a_killed_worker_is_replaced_and_the_user_told(
    inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = runs.start(*command(inputs["jsonl"], out), pause=KILLED_PAUSE)
    runs.wait_for_checkpoints(out, 2)
    runs.end(process, "worker")
    done = runs.finish(process)
    assert done.rc == 0, done.stderr
    assert "killed by signal 9 (SIGKILL)" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(out) == undisturbed["jsonl"]


def test_a_death_when_all_is_encoded_costs_no_encoding(
    inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = command(inputs["jsonl"], out)
    died = runs.run(*arguments, manifest="kill")
    assert died.rc == -signal.SIGKILL, died.stderr
    assert b'"type":"encoded"' in runs.journal(out).read_bytes()
    assert not (out / "manifest.json").exists()
    runs.wait_until_free(out)
    # With this marker both engines die of every text, even the empty one.
    dying = {"gigatoken": "abort", "tiktoken": "abort"}
    done = runs.run(*arguments, marker="", die=dying)
    assert done.rc == 0, done.stderr
    assert snapshot(out) == undisturbed["jsonl"]


# --- stopped -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "rc"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_soon_and_tells_how_to_go_on(
    number: int,
    rc: int,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = command(inputs["parquet"], out)
    process = runs.start(*arguments, pause=KILLED_PAUSE)
    runs.wait_for_checkpoints(out, 2)
    began = time.monotonic()
    process.send_signal(number)
    stopped = runs.finish(process)
    assert time.monotonic() - began < 2
    assert stopped.rc == rc, stopped.stderr
    assert f"tokenmill {' '.join(map(str, arguments))}" in stopped.stderr.replace("\n", " ")
    assert "are done and kept" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    runs.assert_nothing_finished(out)
    done = runs.run(*arguments)
    assert done.rc == 0, done.stderr
    assert "are done and kept" in done.stderr
    assert snapshot(out) == undisturbed["parquet"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_work_is_not_taken_for_a_failure_of_native_code(
    number: int,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    """In one of ten runs stopped within the first second, gigatoken was said to have failed."""
    out = tmp_path / "out"
    stopped = runs.run(*command(inputs["jsonl"], out), signal=number)
    assert stopped.rc == 128 + number, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert re.search(r"error: stopped by .*\n  fix: run the same", stopped.stderr)
    assert not runs.journal(out).exists()
    assert runs.run(*command(inputs["jsonl"], out)).rc == 0
    assert snapshot(out) == undisturbed["jsonl"]


def test_ctrl_c_at_a_terminal_reaches_worker_and_parent_and_is_one(
    inputs: dict[str, corpora.Corpus], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = runs.start(*command(inputs["jsonl"], out), pause=KILLED_PAUSE)
    runs.wait_for_checkpoints(out, 2)
    os.killpg(process.pid, signal.SIGINT)
    stopped = runs.finish(process)
    assert stopped.rc == 130
    assert "to go on" in stopped.stderr


@pytest.mark.parametrize(("number", "rc"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once_and_loses_nothing(
    number: int,
    rc: int,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = command(inputs["jsonl"], out, "--threads", "1")
    process = runs.start(*arguments, pause=4)
    runs.wait_for(lambda: runs.journal(out).exists(), "the journal")
    time.sleep(0.5)
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None, "the first is still waiting for the engine"
    process.send_signal(number)
    stopped = runs.finish(process, 1)
    assert stopped.rc == rc, stopped.stderr
    done = runs.run(*command(inputs["jsonl"], out))
    assert done.rc == 0, done.stderr
    assert snapshot(out) == undisturbed["jsonl"]


def test_nohup_goes_on_when_the_terminal_goes(
    inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = runs.start(*command(inputs["jsonl"], out), prefix=("nohup",), pause=0.05)
    runs.wait_for_checkpoints(out, 1)
    os.killpg(process.pid, signal.SIGHUP)
    done = runs.finish(process)
    assert done.rc == 0, done.stderr
    assert snapshot(out) == undisturbed["jsonl"]


# Each stream closed and full, where something is written to it; `make torture` has all.
@pytest.mark.parametrize(
    ("where", "more"),
    [
        ("2>&-", []),
        ("2>/dev/full", []),
        (">&- 2>&-", []),
        (">&-", ["--json"]),
        (">/dev/full", ["--json"]),
    ],
)
def test_a_log_that_cannot_be_written_stops_no_run(
    where: str,
    more: list[str],
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    log_cannot_be_written(where, more, inputs["jsonl"], undisturbed["jsonl"], tmp_path)


def log_cannot_be_written(
    where: str, more: list[str], corpus: corpora.Corpus, undisturbed: dict[str, str], folder: Path
) -> None:
    out = folder / "out"
    shell = ("sh", "-c", f'exec "$@" {where}', "sh")
    done = runs.run(*command(corpus, out, *more), prefix=shell)
    assert "Traceback" not in done.stderr
    assert done.rc == 0, done.stderr
    assert snapshot(out) == undisturbed


def test_a_reader_that_leaves_does_not_end_in_a_traceback(
    inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """`tokenmill prepare --json | head -1`: it goes on, or stops cleanly and can go on."""
    out = tmp_path / "out"
    arguments = command(inputs["jsonl"], out, "--json")
    with runs.running(*arguments, pause=0.2) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        stderr = process.stderr.read()
        process.wait(runs.SECONDS)
    assert "Traceback" not in stderr
    done = runs.run(*arguments)
    assert done.rc == 0, done.stderr
    assert snapshot(out) == undisturbed["jsonl"]


@pytest.mark.parametrize("kind", ["one.txt", "jsonl.zst", "giant.parquet"])
def test_max_time_again_and_again(
    kind: str,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    """Stopped after every single block, it comes to an end all the same."""
    out, stops = tmp_path / "out", 0
    while not (out / "manifest.json").exists():
        with contextlib.suppress(LimitReached):
            resume(inputs[kind], out, max_time=1e-9)
        runs.assert_nothing_finished(out)
        stops += 1
        assert stops < 100
    assert stops > 4
    assert snapshot(out) == undisturbed[kind]


def test_max_time_ends_with_10(
    inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stopped = runs.run(*command(inputs["txt"], out, "--max-time", "0.001s"))
    assert stopped.rc == 10, stopped.stderr
    assert "to go on, run the same command again: tokenmill prepare" in stopped.stderr
    done = runs.run(*command(inputs["txt"], out))
    assert done.rc == 0, done.stderr
    assert snapshot(out) == undisturbed["txt"]


# --- what may change between two runs, and what may not ----------------------------------------


@pytest.mark.parametrize(
    "options", [{"threads": 1}, {"threads": 3, "memory": "1GB"}, {"engine": "tiktoken"}]
)
def test_what_changes_no_byte_may_change(
    options: dict[str, Any],
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    die_after(4, inputs["jsonl"], out, threads=2)
    resume(inputs["jsonl"], out, **options)
    assert snapshot(out) == undisturbed["jsonl"]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("shard_tokens", "10K", "--shard-tokens is 10000, was 20000"),
        ("val_fraction", 0.2, "--val-fraction is 0.2, was 0"),
        ("seed", 2, "--seed is 2, was 0"),
        ("seed", 1, "--seed is 1, was 0"),
        ("eot", "after", "--eot is after, was before"),
        ("format", "llm.c", "--format is llm.c, was build-nanogpt"),
    ],
)
def test_another_spec_is_refused_by_name(
    option: str, value: Any, told: str, inputs: dict[str, corpora.Corpus], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    die_after(3, inputs["jsonl"], out)
    before = snapshot(out)
    with pytest.raises(SpecMismatch) as caught:
        resume(inputs["jsonl"], out, **{option: value})
    assert caught.value.exit_code == 12
    assert told in str(caught.value)
    assert snapshot(out) == before, "nothing was touched"


def append(folder: Path) -> str:
    with (folder / "b.jsonl").open("a") as file:
        file.write('{"text": "more"}\n')
    return "b.jsonl has "


def touch(folder: Path) -> str:
    os.utime(folder / "b.jsonl", ns=(0, 1_700_000_000_000_000_001))
    return "b.jsonl was modified"


def replace(folder: Path) -> str:
    """Another content of the same size and time: only a look at the content tells."""
    path = folder / "b.jsonl"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"1 ", b"9 ", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    return "b.jsonl has another content"


def add(folder: Path) -> str:
    (folder / "c.jsonl").write_text('{"text": "new"}\n')
    return "c.jsonl is new"


def remove(folder: Path) -> str:
    (folder / "b.jsonl").unlink()
    return "b.jsonl is missing"


@pytest.mark.parametrize("change", [append, touch, replace, add, remove], ids=lambda c: c.__name__)
def test_changed_inputs_are_refused_by_name(change: Any, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (folder / name).write_bytes(corpora.jsonl(runs.documents()))
    die_after(3, folder, out)
    told = change(folder)
    before = snapshot(out)
    with pytest.raises(SpecMismatch) as caught:
        resume(folder, out)
    assert caught.value.exit_code == 12
    assert told in str(caught.value)
    assert snapshot(out) == before, "nothing was touched"


def test_another_release_is_refused_by_name(
    inputs: dict[str, corpora.Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "__version__", "0.0.0")
        die_after(3, inputs["jsonl"], out)
    with pytest.raises(SpecMismatch, match=r"tokenmill is .*, was 0\.0\.0"):
        resume(inputs["jsonl"], out)


def test_another_release_of_a_library_is_refused_by_name(
    inputs: dict[str, corpora.Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the ids would be of one release, half of the other."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("tokenmill.commands.plan.library", lambda name: {"version": "0.0.1"})
        die_after(3, inputs["jsonl"], out)
    before = snapshot(out)
    with pytest.raises(SpecMismatch, match=r"they were of tiktoken 0\.0\.1") as caught:
        resume(inputs["jsonl"], out)
    assert caught.value.exit_code == 12
    assert snapshot(out) == before, "nothing was touched"


def test_overwrite_tells_what_it_removes_and_removes_nothing_foreign(
    inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    foreign = {"notes.txt": "mine", "download.zip.partial": "not ours", "train.txt": "text"}
    die_after(6, inputs["jsonl"], out, val_fraction=0.3)
    for name, content in foreign.items():
        (out / name).write_text(content)
    done = runs.run(*command(inputs["jsonl"], out, "--overwrite"))
    assert done.rc == 0, done.stderr
    assert "overwrite: removed " in done.stderr
    assert {name: (out / name).read_text() for name in foreign} == foreign
    for name in foreign:
        (out / name).unlink()
    assert snapshot(out) == undisturbed["jsonl"]


# --- damaged state -----------------------------------------------------------------------------


@pytest.fixture
def interrupted(inputs: dict[str, corpora.Corpus], tmp_path: Path) -> Path:
    """The folder of a run over the jsonl input that ended after nine blocks."""
    out = tmp_path / "interrupted"
    die_after(9, inputs["jsonl"], out)
    assert runs.checkpoints(out) >= 4
    return out


def test_a_journal_cut_anywhere_is_one_of_an_earlier_moment(interrupted: Path) -> None:
    content = runs.journal(interrupted).read_bytes()
    lines = content.splitlines(keepends=True)
    last, earlier = len(content) - len(lines[-1]), len(content) - sum(map(len, lines[-4:]))
    for size in [*range(earlier, last, 13), *range(last, len(content) + 1)]:
        runs.journal(interrupted).write_bytes(content[:size])
        log = read_journal(interrupted)
        whole = content[: content[:size].rfind(b"\n") + 1].splitlines(keepends=True)
        while b'"type":"shard"' in whole[-1]:  # noted after the last checkpoint
            whole.pop()
        assert log is not None
        assert log.size == sum(map(len, whole))
    for size in range(0, len(lines[0]), 7):
        runs.journal(interrupted).write_bytes(content[:size])
        assert read_journal(interrupted) is None


def cut(part: float) -> Any:
    return lambda content: content[: int(len(content) * part)]


def flip(part: float) -> Any:
    def flipped(content: bytes) -> bytes:
        place = min(len(content) - 1, int(len(content) * part))
        return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]

    return flipped


def another_version(content: bytes) -> bytes:
    """As a later release might write it, with a right checksum."""
    import xxhash

    head, _, rest = content.partition(b"\n")
    plain = json.loads(head.partition(b" ")[2])
    changed = json.dumps({**plain, "journal_version": 99}).encode()
    return f"{xxhash.xxh3_64_hexdigest(changed)} ".encode() + changed + b"\n" + rest


DAMAGES: dict[str, Any] = {
    **{f"cut at {part}": cut(part) for part in (0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.99)},
    **{f"bit flipped at {part}": flip(part) for part in (0, 0.01, 0.3, 0.7, 0.9, 1)},
    "garbage appended": lambda content: content + os.urandom(200),
    "zeros appended": lambda content: content + bytes(4096),
    "last line twice": lambda content: content + content.splitlines(keepends=True)[-1],
    "another version": another_version,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_gives_the_same_bytes_or_a_refusal(
    damage: str,
    interrupted: Path,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
) -> None:
    path = runs.journal(interrupted)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if damage == "another version":
        with pytest.raises(TokenmillError, match="fix:"):
            resume(inputs["jsonl"], interrupted)
        return
    resume(inputs["jsonl"], interrupted)
    assert snapshot(interrupted) == undisturbed["jsonl"]


def open_file(out: Path) -> Path:
    """A partial file that the last checkpoint says is being written."""
    log = read_journal(out)
    assert log is not None
    assert log.checkpoint is not None
    return out / (log.checkpoint.open[0].name + ".partial")


def whole_file(out: Path) -> Path:
    """A partial file that is complete."""
    log = read_journal(out)
    assert log is not None
    return out / (log.shards[0].name + ".partial")


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        (open_file, "shorter"),
        (open_file, "gone"),
        (open_file, "changed"),
        (whole_file, "shorter"),
        (whole_file, "gone"),
    ],
)
def test_a_damaged_partial_file_is_a_clear_error(
    damage: str, which: Any, interrupted: Path, inputs: dict[str, corpora.Corpus]
) -> None:
    path = which(interrupted)
    if damage == "shorter":
        os.truncate(path, 200)
    elif damage == "gone":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(150)
            file.write(b"\xff\xff\xff\xff")
    with pytest.raises(TokenmillError) as caught:
        resume(inputs["jsonl"], interrupted)
    assert path.name in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert not (interrupted / "manifest.json").exists()


def test_a_shard_changed_between_two_runs_is_found_by_verify(
    interrupted: Path, inputs: dict[str, corpora.Corpus]
) -> None:
    with whole_file(interrupted).open("r+b") as file:
        file.seek(150)
        file.write(b"\xff\xff\xff\xff")
    resume(inputs["jsonl"], interrupted)
    assert runs.run("verify", interrupted).rc == 13


def test_what_was_written_after_the_last_checkpoint_is_written_again(
    interrupted: Path, inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]]
) -> None:
    with open_file(interrupted).open("ab") as file:
        file.write(os.urandom(5000))
    resume(inputs["jsonl"], interrupted)
    assert snapshot(interrupted) == undisturbed["jsonl"]


def test_a_journal_that_names_a_file_outside_is_refused(
    interrupted: Path, inputs: dict[str, corpora.Corpus]
) -> None:
    import xxhash

    path = runs.journal(interrupted)
    lines = []
    for line in path.read_bytes().splitlines():
        changed = line.partition(b" ")[2].replace(b'"edufineweb_', b'"../edufineweb_')
        lines.append(f"{xxhash.xxh3_64_hexdigest(changed)} ".encode() + changed + b"\n")
    path.write_bytes(b"".join(lines))
    with pytest.raises(TokenmillError, match="outside its folder"):
        resume(inputs["jsonl"], interrupted)
    assert not list(interrupted.parent.glob("edufineweb*"))


@pytest.mark.parametrize("name", ["fsync", "fdatasync"])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_a_sync_that_fails_once_is_not_tried_again_and_called_good(
    name: str,
    number: int,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    out, count, real = tmp_path / "out", 0, getattr(os, name)

    def failing(fd: int) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, failing)
        with pytest.raises(TokenmillError, match="Input/output error"):
            resume(inputs["jsonl"], out)
    runs.assert_nothing_finished(out)
    resume(inputs["jsonl"], out)
    assert snapshot(out) == undisturbed["jsonl"]


def test_a_journal_that_cannot_be_read_is_not_taken_for_none(
    interrupted: Path, inputs: dict[str, corpora.Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(interrupted)

    def failing(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(journal, "read_lines", failing)
        with pytest.raises(TokenmillError, match="journal"):
            resume(inputs["jsonl"], interrupted)
    assert snapshot(interrupted) == before


def test_a_shard_noted_twice_is_one(
    inputs: dict[str, corpora.Corpus], undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """Whole after the last checkpoint, it is made and noted again by the run that goes on."""
    out = tmp_path / "out"
    for blocks, seconds in ((8, 3600), (12, 0)):
        die_after(blocks, inputs["jsonl"], out, checkpoint_seconds=seconds)
    resume(inputs["jsonl"], out)
    assert snapshot(out) == undisturbed["jsonl"]


def test_verify_takes_a_resumed_dataset(
    interrupted: Path, inputs: dict[str, corpora.Corpus]
) -> None:
    resume(inputs["jsonl"], interrupted)
    checked = runs.run("verify", interrupted)
    assert checked.rc == 0, checked.stdout
    sums = ["sha256sum", "--quiet", "-c", "SHA256SUMS"]
    assert subprocess.run(sums, cwd=interrupted, check=False).returncode == 0


def test_copying_an_interrupted_folder_changes_nothing(
    interrupted: Path,
    inputs: dict[str, corpora.Corpus],
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    shutil.copytree(interrupted, tmp_path / "copy")
    resume(inputs["jsonl"], tmp_path / "copy")
    assert snapshot(tmp_path / "copy") == undisturbed["jsonl"]
