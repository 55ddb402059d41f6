"""The Python side: what a person in a script or a notebook meets."""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import logging
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tokenmill
from tests.conftest import Run, command_environment
from tests.kit import texts
from tests.kit.shared import BOOKS
from tokenmill.cli import prepare as cli_prepare
from tokenmill.commands.options import PrepareOptions
from tokenmill.commands.signature import HELP
from tokenmill.errors import TokenmillError, UsageError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    prose = texts.prose(60_000)
    path.write_text(
        "\n".join(json.dumps({"text": prose[n : n + 300]}) for n in range(0, 60_000, 300))
    )
    return path


# --- looking at it -------------------------------------------------------------------------------


def test_dir_shows_what_there_is() -> None:
    code = "import tokenmill, sys; print(*dir(tokenmill)); assert 'numpy' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], env=command_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {"prepare", "plan", "verify", "Manifest", "__version__"} <= set(done.stdout.split())


@pytest.mark.parametrize("name", ["prepare", "plan"])
def test_help_shows_every_option(name: str) -> None:
    function = getattr(tokenmill, name)
    shown = pydoc.render_doc(function, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:2] == ["inputs", "out"]
    for option in PrepareOptions.__annotations__:
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"    {option}: " in shown
    assert parameters["on_bad"].default == "stop"


def test_python_has_the_options_of_the_command_line() -> None:
    """The same names, each with a line of help, and the same defaults."""
    assert set(HELP) == set(PrepareOptions.__annotations__)
    options = {parameter.name: parameter for parameter in cli_prepare.prepare.params}
    shown_only = {"inputs", "out", "as_json", "quiet"}
    assert set(options) - shown_only == set(HELP) - {"progress"}
    for name in set(options) & set(HELP):
        default = options[name].default
        if isinstance(default, str | int) and not isinstance(default, bool):
            assert HELP[name][0] == default, name


def test_reprs_are_short(corpus: Path, tmp_path: Path) -> None:
    plan = tokenmill.plan(BOOKS)
    manifest = tokenmill.prepare(corpus, out=tmp_path / "out", check=0)
    for shown in (plan, plan.inputs, manifest):
        assert len(repr(shown)) < 250, repr(shown)
    assert "gpt2" in repr(manifest) and f"{manifest.tokens('train'):,} train" in repr(manifest)


# --- wrong calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memroy": "1GB"}, ["memroy", "did you mean memory?", "workers"]),
        ({"threads": "two"}, ["threads cannot be 'two'", "a whole number"]),
        ({"threads": 2.5}, ["threads cannot be 2.5"]),
        ({"threads": True}, ["threads cannot be True"]),
        ({"workers": "two"}, ["workers cannot be 'two'", "a whole number"]),
        ({"workers": 1, "threads": 2}, ["--workers 1 and --threads 2 differ", "older name"]),
        ({"workers": 0}, ["--workers must be at least 1"]),
        ({"val_fraction": "0.1"}, ["val_fraction", "it is of type str", "a number"]),
        ({"seed": None, "check": []}, ["check cannot be []"]),
        ({"format": 3}, ["format cannot be 3"]),
        ({"format": "nanogtp"}, ["nanogtp", "did you mean nanogpt?"]),
        ({"on_bad": "quarantin"}, ["did you mean quarantine?"]),
        ({"engine": "gigatokn"}, ["did you mean gigatoken?"]),
        ({"documents": "lines"}, ["did you mean line?"]),
        ({"memory": object()}, ["memory cannot be"]),
        ({"overwrite": "yes"}, ["overwrite cannot be 'yes'", "True or False"]),
        ({"progress": "yes"}, ["progress cannot be 'yes'"]),
        ({"max_time": {}}, ["max_time cannot be {}"]),
    ],
)
def test_a_wrong_option_is_told_in_words(
    options: dict[str, Any], words: list[str], corpus: Path, tmp_path: Path
) -> None:
    for call in (tokenmill.prepare, tokenmill.plan):
        with pytest.raises(UsageError) as caught:
            call(corpus, out=tmp_path / "out", **options)
        for word in words:
            assert word in str(caught.value)
        assert caught.value.fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inputs", [None, 3, [None], [3], b"bytes", [], [b"bytes"]])
def test_wrong_inputs_are_told_in_words(inputs: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tokenmill.prepare(inputs, out=tmp_path / "out")
    assert caught.value.fix


@pytest.mark.parametrize("out", [None, 3, b"bytes"])
def test_a_wrong_out_is_told_in_words(out: Any, corpus: Path) -> None:
    with pytest.raises(UsageError, match="out cannot be"):
        tokenmill.prepare(corpus, out=out)


def test_numbers_of_numpy_are_numbers(corpus: Path, tmp_path: Path) -> None:
    import numpy as np

    mine = tokenmill.prepare(
        corpus, out=tmp_path / "a", seed=np.int64(3), val_fraction=np.float64(0.2)
    )
    assert mine == tokenmill.prepare(str(corpus), out=str(tmp_path / "b"), seed=3, val_fraction=0.2)


# --- progress ------------------------------------------------------------------------------------


def test_a_function_is_called_with_plain_figures(corpus: Path, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    manifest = tokenmill.prepare(corpus, out=tmp_path / "out", progress=heard.append)
    assert [figures["is_done"] for figures in heard][-1:] == [True]
    last = heard[-1]
    assert last["bytes"] == last["total_bytes"] == corpus.stat().st_size
    assert last["tokens"] == manifest.counts["tokens"]
    assert json.loads(json.dumps(heard)) == heard


def test_what_the_function_raises_stops_the_run_and_it_can_go_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(figures: dict[str, Any]) -> None:
        assert not figures["is_done"]
        raise ZeroDivisionError

    monkeypatch.setattr("tokenmill.commands.progress.Call.seconds", 0.0)  # before all is done
    with pytest.raises(ZeroDivisionError):
        tokenmill.prepare(corpus, out=tmp_path / "out", progress=stop)
    assert not (tmp_path / "out" / "manifest.json").exists()
    again = tokenmill.prepare(corpus, out=tmp_path / "out")
    assert again == tokenmill.prepare(corpus, out=tmp_path / "other")


@pytest.mark.parametrize("progress", [None, False, True])
def test_progress_on_stderr_that_is_no_terminal(
    progress: bool | None, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenmill.prepare(corpus, out=tmp_path / "out", progress=progress)
    shown = capsys.readouterr()
    assert shown.out == ""
    if progress:
        assert "100%|" in shown.err and "tokens]" in shown.err and "\x1b" not in shown.err
    else:
        assert shown.err == ""


def test_progress_at_a_terminal_is_one_line_that_stays(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyte")
    from tests.kit.terminal import at_terminal

    env = command_environment({"TERM": "xterm"})
    for columns in (50, 120):
        out = str(tmp_path / f"out{columns}")
        code = (
            f"import tokenmill; tokenmill.prepare({str(corpus)!r}, out={out!r}, val_fraction=0.2); "
            "print('after')"
        )
        with at_terminal([sys.executable, "-c", code], columns, env) as screen:
            assert screen.finish() == 0
            rows = screen.lines()
            assert rows[0].startswith("tokenmill: 100%|") and rows[0].endswith("]"), screen.text()
            assert rows[1:] == ["after"] and not screen.is_cursor_hidden, screen.text()
            assert screen.output.count(b"tokenmill: ") >= 2  # drawn while it worked


def test_an_executed_notebook_holds_the_last_state(corpus: Path, tmp_path: Path) -> None:
    """A notebook that is executed by Jupyter's own machinery holds one output, the last state."""
    for name in ("nbclient", "nbformat", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("nbclient and ipykernel are not installed")
    out = str(tmp_path / "out")
    cell = f"import tokenmill\ntokenmill.prepare({str(corpus)!r}, out={out!r}, val_fraction=0.2)"
    code = (
        "import nbformat, nbclient, json, sys\n"
        f"book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell({cell!r})])\n"
        "nbclient.NotebookClient(book, kernel_name='python3').execute()\n"
        "print(json.dumps(book.cells[0].outputs))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=command_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    progress, result = json.loads(done.stdout)
    assert progress["output_type"] == "display_data"
    assert "100%|" in progress["data"]["text/plain"]
    assert result["data"]["text/plain"].startswith("<Manifest nanogpt, gpt2: ")


# --- what it tells -------------------------------------------------------------------------------


def test_the_log_hears_what_the_command_line_tells(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tokenmill"):
        tokenmill.prepare(corpus, out=tmp_path / "out")
    assert {record.name for record in caplog.records} == {"tokenmill"}
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("plan: 1 file") for line in told)
    assert any(line.startswith("done: ") for line in told)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert any("validation split may be" in record.getMessage() for record in warned)


@pytest.mark.parametrize("name", ["prepare", "plan"])
def test_the_log_hears_of_the_disk(
    name: str,
    corpus: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tokenmill.commands import plan

    estimate = tokenmill.plan(corpus).estimate
    assert estimate is not None
    need = estimate.output_bytes("uint16")
    monkeypatch.setattr(plan, "free_bytes", lambda place: need)
    getattr(tokenmill, name)(corpus, out=tmp_path / "out")
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("are free" in line for line in warned)


def test_warnings_are_heard_without_any_logging_set_up(corpus: Path, tmp_path: Path) -> None:
    code = f"import tokenmill; tokenmill.prepare({str(corpus)!r}, out={str(tmp_path / 'out')!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=command_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "validation split may be empty" in done.stderr and "plan:" not in done.stderr


def test_status_tells_the_command_of_a_run_that_a_script_began(
    tmp_path: Path, tokenmill: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that command, typed as it is told, makes what the script would have made."""
    corpus = tmp_path / "my corpus.jsonl"
    lines = [json.dumps({"text": texts.prose(3000)}) for _ in range(1500)]
    corpus.write_text("\n".join(lines))
    monkeypatch.setattr(sys, "argv", ["train.py", "--secret-of-the-script"])
    out = tmp_path / "out"
    options: dict[str, Any] = {"val_fraction": 0.25, "seed": 7, "on_bad": "quarantine"}
    with pytest.raises(TokenmillError) as caught:
        prepare([corpus], out=out, max_time=0.01, threads=1, checkpoint_seconds=0, **options)
    assert caught.value.exit_code == 10
    command = tokenmill("status", out, "--json").lines[0]["command"]
    assert command in str(caught.value) and "--secret" not in command
    import shlex

    words = shlex.split(command)
    at = words.index("--max-time")
    del words[at : at + 2]
    assert words[0] == "tokenmill" and tokenmill(*words[1:]).rc == 0
    assert load_manifest(out) == prepare(corpus, out=tmp_path / "other", **options)


def prepare(*args: Any, **options: Any) -> Any:
    import tokenmill as library

    return library.prepare(*args, **options)


def load_manifest(folder: Path) -> Any:
    import tokenmill as library

    return library.load_manifest(folder)


def test_an_error_is_shown_safely() -> None:
    error = TokenmillError("a\x1b]0;title\x07b", "line\nfix: rm -rf /", "\u202e", "do\udcff")
    text = str(error)
    assert text.split("\n") == [
        "a\\x1b]0;title\\x07b",
        "  where: line\\nfix: rm -rf /",
        "  why: \\u202e",
        "  fix: do\\udcff",
    ]
    io.TextIOWrapper(io.BytesIO(), "ascii").write(text)
