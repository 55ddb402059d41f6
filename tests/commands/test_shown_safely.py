"""What others wrote is shown and never obeyed: names, texts, manifests, errors, at a terminal."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Result, Run
from tokenmill import load_manifest, prepare
from tokenmill.cli import main
from tokenmill.console import one_line, to_json, visible
from tokenmill.errors import DamageFound

EVIL = "\x1b]0;title\x07\x1b[31m\x1b]52;c;aGk=\x07\x9b2J\u202eabc\u2066\r\x08\x85\u2028\x7f"
"""Title, colour, clipboard, C1's clear, direction, carriage return, backspace, line ends, DEL."""
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\u200e\u200f\ud800-\udfff]"
)


def assert_safe(done: Result) -> None:
    assert not OBEYED.search(done.stdout), repr(done.stdout)
    assert not OBEYED.search(done.stderr), repr(done.stderr)
    assert "Traceback" not in done.stderr and "foresaw" not in done.stderr, done.stderr


@pytest.mark.parametrize("character", [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))])
def test_every_control_character_is_written_out(character: str) -> None:
    if character in "\n\t":
        assert visible(character) == character
    else:
        assert visible(character) in (f"\\x{ord(character):02x}", "\\r", "\\b")
    assert len(one_line(f"a{character}b").split("\n")) == 1
    shown = to_json({"text": character})
    assert json.loads(shown) == {"text": character} and not OBEYED.search(shown)


@pytest.mark.parametrize("text", ["\ud800", "\udcff", "\u202e", "\U000e0041", "\u2028", "\ufeff"])
def test_what_no_terminal_should_get_is_written_out(text: str) -> None:
    assert visible(text).isascii() and json.loads(to_json({"a": text})) == {"a": text}
    assert to_json({"a": text}).isascii()


@pytest.mark.parametrize("text", ["naïve 北京 עברית हिन्दी 👩‍👩‍👧 \t|\n", "عربي", ""])
def test_letters_of_all_scripts_stay(text: str) -> None:
    assert visible(text) == text and text.strip("\t|\n") in to_json({"a": text})


@pytest.fixture
def evil_corpus(tmp_path: Path) -> Path:
    """Files whose names, texts and faults are all hostile."""
    folder = tmp_path / "in"
    folder.mkdir()
    name = EVIL.replace("/", "") + "\n"
    lines = [json.dumps({"text": f"line\n\ttab {EVIL} end"}), json.dumps({"text": EVIL * 3})]
    (folder / f"{name}.jsonl").write_text("\n".join([*lines, f'{{"text": {EVIL}', ""]))
    (folder / f"{name}.unknown").write_text("x")
    return folder


def test_every_command_shows_it_safely(evil_corpus: Path, tmp_path: Path, tokenmill: Run) -> None:
    out = tmp_path / f"out{EVIL}"
    prepare = ["prepare", evil_corpus, "--out", out, "--val-fraction", 0]
    stopped = tokenmill(*prepare)
    assert stopped.rc == 1 and "\\x1b]0;title\\x07" in stopped.stderr
    assert_safe(stopped)
    finished = tokenmill(*prepare, "--on-bad", "quarantine")
    assert finished.rc == 3
    for done in (
        finished,
        tokenmill(*prepare, "--on-bad", "quarantine"),
        tokenmill(*prepare, "--json"),
        tokenmill("plan", evil_corpus),
        tokenmill("plan", evil_corpus, "--json"),
        tokenmill("status", out),
        tokenmill("status", out, "--json"),
        tokenmill("verify", out, "--against", evil_corpus),
        tokenmill("inspect", out),
        tokenmill("inspect", out, "--token", 0),
        tokenmill("inspect", out, "--doc", 0, "--json"),
    ):
        assert_safe(done)
    shown = tokenmill("inspect", out, "--doc", 0)
    assert_safe(shown)
    assert shown.stdout.startswith("line\n\ttab \\x1b]0;title\\x07")
    as_json = tokenmill("inspect", out, "--doc", 0, "--json").lines[0]
    assert as_json["text"] == f"line\n\ttab {EVIL} end"


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--{EVIL}"],
        [EVIL],
        ["prepare", EVIL, "--out", "out"],
        ["prepare", "missing", "--out", "out", "--format", EVIL],
        ["prepare", "missing", "--out", "out", "--documents", EVIL],
        ["prepare", "missing", "--out", "out", "--tokenizer", EVIL],
        ["prepare", "missing", "--out", "out", "--memory", EVIL],
        ["prepare", "missing", "--out", "out", "--threads", EVIL],
        ["prepare", "missing", "--out", "out", "--text-key", EVIL],
        ["verify", EVIL],
        ["status", EVIL],
        ["inspect", EVIL],
    ],
)
def test_arguments_are_shown_safely(arguments: list[str], tmp_path: Path, tokenmill: Run) -> None:
    for more in ([], ["--json"]):
        done = tokenmill(*arguments, *more, cwd=tmp_path)
        assert done.rc not in (0, 120)
        assert_safe(done)
        assert done.stderr.startswith("error: ") and "\n  fix: " in done.stderr


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("text " * 500)
    prepare(tmp_path / "a.txt", out=tmp_path / "out", val_fraction=0)
    return tmp_path / "out"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_manifest_is_shown_safely(finished: Path, tokenmill: Run) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    shard = manifest["shards"][0]
    for changes in (
        {"format": EVIL},
        {"split": EVIL, "tokenizer": manifest["tokenizer"] | {"name": EVIL}},
        {"shards": [shard | {"name": EVIL.replace("/", "")}]},
        {"counts": manifest["counts"] | {EVIL: 1}},
        {"quarantine": {"reasons": {EVIL: 1}, "bytes": 1, "sha256": EVIL}},
    ):
        edit(finished, **(manifest | changes))
        for command in ("verify", "status", "inspect"):
            for more in ([], ["--json"]):
                assert_safe(tokenmill(command, finished, *more))


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_a_manifest_nested_to_any_depth_is_damaged(
    bracket: str, finished: Path, tokenmill: Run
) -> None:
    """Not only deeper than its reader's own limit: just less deep, whoever walks it next fails."""
    text = (finished / "manifest.json").read_text()
    for depth in (40, 300, 700, *range(900, 1010, 12), 2000, 100_000):
        close = "]" if bracket == "[" else "}"
        tree = bracket * depth + "0" + close * depth
        evil = text.replace('"spec": {', f'"spec": {{"x": {tree},', 1)
        (finished / "manifest.json").write_text(evil)
        with pytest.raises(DamageFound):
            load_manifest(finished)
    source = str(finished.parent / "a.txt")
    for command in (
        ["verify", finished], ["status", finished], ["inspect", finished],
        ["prepare", source, "--out", finished, "--val-fraction", "0", "--repair"],
    ):  # fmt: skip
        done = tokenmill(*command)
        assert done.rc == 13 and "Traceback" not in done.stderr, done.stderr


def test_a_state_nested_deep_is_damaged_too(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    state: Any = 0
    for _ in range(900):
        state = {"a": state}
    manifest["shards"][0]["origin"]["state"] = {"a": state}
    edit(finished, **manifest)
    with pytest.raises(DamageFound, match="nested"):
        load_manifest(finished)


def test_a_name_that_is_not_utf8(tmp_path: Path, tokenmill: Run) -> None:
    """Python reads its bytes as lone surrogates, which no stream can write."""
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    with open(folder + b"/a\xff\xfe.txt", "wb") as file:
        file.write(b"text " * 100)
    for command in (
        ["plan", tmp_path / "in"],
        ["plan", tmp_path / "in", "--json"],
        ["prepare", tmp_path / "in", "--out", tmp_path / "out"],
        ["prepare", tmp_path / "in", "--out", tmp_path / "out", "--json"],
        ["status", tmp_path / "out"],
        ["verify", tmp_path / "out", "--against", tmp_path / "in"],
    ):
        assert_safe(tokenmill(*command))


def test_what_nobody_foresaw_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RecursionError(EVIL)

    monkeypatch.setattr(main.cli, "main", fail)
    monkeypatch.setattr("sys.argv", ["tokenmill", "status", "x", "--json"])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "foresaw: RecursionError" in shown.err and "--debug" in shown.err
    assert not OBEYED.search(shown.err + shown.out)
    assert json.loads(shown.out)["exit_code"] == 1
