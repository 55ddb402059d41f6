"""The core of tests/torture/test_hostile_memory.py: records and vocabularies made to be expensive
stay within the budget, and a run deep in native code can be ended."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from base64 import b64encode
from pathlib import Path

import pytest

import measure
import tokenmill as mill
from tests.conftest import command_environment
from tests.kit import sized
from tests.torture.hostile_vocabularies import _letters, _replace, _tokenizer, _words
from tokenmill.batches import TAKEN_OUT, BadRecord, QuarantineLines
from tokenmill.encoding.calls import Calls
from tokenmill.errors import UsageError
from tokenmill.executors.supervisor import Forwarding
from tokenmill.memory import Budget, Room, TooLarge
from tokenmill.sizes import Sizes
from tokenmill.sources import text
from tokenmill.text import utf8
from tokenmill.text.cuts import EVERYWHERE
from tokenmill.tokenizers.engines import make_engine, needs_of, shared_reference
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

MB = 1_000_000
HALF = b'{"text":"\\ud800","x":['
RECORDS = {
    "9 MB of invalid bytes": (b'{"text":"' + b"\xff" * 9 * MB + b'"}\n', 300),
    "small values beside half a pair": (HALF + b"{}," * 2_900_000 + b"1]}\n", 300),
    "small values, then no JSON": (b'{"text":"a","x":[' + b"[]," * 2_900_000 + b"]}\n", 300),
    "a key of megabytes": (b'{"' + b"\xc3\xa9" * 3 * MB + b'":1}\n', 300),
    "the shortest bad lines": (b"{}\n" * 100_000, 200),
}


def run_with(folder: Path, budget: int, *arguments: str) -> tuple[int, int, str]:
    """(exit code, peak of the processes together in bytes, stderr) of ``prepare``."""
    command = [sys.executable, "-m", "tokenmill", "prepare", *arguments, "--threads", "1"]
    command += ["--out", str(folder / "out"), "--memory", f"{budget}MB"]
    return peak_of(command)


def peak_of(command: list[str]) -> tuple[int, int, str]:
    """The same of any command."""
    with tempfile.TemporaryFile() as report, tempfile.TemporaryFile() as said:
        wrapper = subprocess.Popen(
            measure.reporting(report.fileno(), command),
            env=command_environment(),
            stdout=said,
            stderr=said,
            pass_fds=[report.fileno()],
            start_new_session=True,
        )
        tree, marks = measure.TreeMemory(wrapper.pid), measure.HighWater()

        def sample() -> None:
            tree.sample()
            marks.sample(tree.members - {wrapper.pid})

        measure.watch(wrapper.pid, 0.05, sample)
        code = measure.shell_exit_code(wrapper.wait())
        return code, marks.peak(os.pread(report.fileno(), 20, 0)), measure.last_text(said)


def test_no_short_peak_is_missed() -> None:
    child = "b'x' * 120_000_000; os._exit(0)"
    code = f"import os, time\nif not os.fork(): time.sleep(0.2); {child}\nos.wait()"
    exit_code, peak, said = peak_of([sys.executable, "-S", "-c", code])
    assert exit_code == 0, said
    assert 120 * MB < peak < 150 * MB


@pytest.mark.parametrize("name", RECORDS)
def test_a_hostile_line_stays_within_memory(name: str, tmp_path: Path) -> None:
    content, budget = RECORDS[name]
    good = b'{"text":"a good line"}\n'
    (tmp_path / "a.jsonl").write_bytes(good + content + good)
    code, peak, stderr = run_with(
        tmp_path, budget, str(tmp_path / "a.jsonl"), "--on-bad", "quarantine"
    )
    assert code == 3, stderr
    assert peak < budget * MB
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["documents"] == 2


def test_records_that_wait_to_be_written_take_little() -> None:
    records = [
        BadRecord("invalid-utf8", TAKEN_OUT, "/corpus/a.txt", at, None, None, 1, b"\xff")
        for at in range(0, 400_000, 3)
    ]
    lines = QuarantineLines.of(records)
    assert len(lines.compressed) < 2 * MB
    assert max(map(len, lines.chunks())) < MB
    expected = "".join(json.dumps(record.as_dict()) + "\n" for record in records)
    assert b"".join(lines.chunks()) == expected.encode()
    assert lines.reasons == {"invalid-utf8": len(records)}


def test_a_text_of_faults_is_replaced_within_memory(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\xff" * 4 * MB)
    arguments = (str(tmp_path / "a.txt"), "--invalid-utf8", "replace")
    code, peak, stderr = run_with(tmp_path, 300, *arguments)
    assert code == 0, stderr
    assert peak < 300 * MB
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["replaced"] == 4 * MB


def test_a_text_that_cannot_be_cut_names_the_budget_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 1000 + b"aA" * 700_000 + b" end")
    path = str(tmp_path / "a.txt")
    code, peak, stderr = run_with(tmp_path, 200, path)
    told = re.search(r"fix: --memory (\d+)MB", stderr)
    assert code == 1 and told, stderr
    assert peak < 200 * MB
    code, peak, stderr = run_with(tmp_path, int(told[1]), path)
    assert code == 0, stderr
    assert peak < int(told[1]) * MB


def test_a_text_that_cannot_be_cut_is_left_out_alone(tmp_path: Path) -> None:
    long = b'a b<|endoftext|>{"a":' + b"aA" * 700_000
    lines = [b"one", b"two", long, b"three"]
    content = b"".join(json.dumps({"text": line.decode()}).encode() + b"\n" for line in lines)
    (tmp_path / "a.jsonl").write_bytes(content)
    arguments = [str(tmp_path / "a.jsonl"), "--on-bad", "quarantine", "--val-fraction", "0"]
    code, peak, stderr = run_with(tmp_path, 200, *arguments, "--special-text", "token")
    assert code == 3, stderr
    assert peak < 200 * MB
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["documents"] == 3
    assert counts["text_bytes"] == len(b"".join(lines)) - len(long)
    bad = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert bad["reason"] == "too-large"
    assert "--memory" in bad["detail"]


def test_a_text_that_the_reference_must_have_whole_is_counted() -> None:
    vocabulary = load_vocabulary("gpt2")
    budget = Budget.of(200 * MB, 1, needs=needs_of("gigatoken", vocabulary))
    engine = make_engine("gigatoken", vocabulary, EVERYWHERE, budget)
    most = budget.room_beside(55).most
    assert 100_000 < most < 500_000
    run = b"aA" * most
    small = run[: most // 3] + "\u088f".encode() + run[: most // 3]  # other tables know it not
    expected = shared_reference(vocabulary).encode_piece(small)
    assert engine.encode([run, small]).ids[-len(expected) :].tolist() == expected
    with pytest.raises(TooLarge) as caught:
        engine.encode([b"a", run, run + small])
    assert caught.value.index == 2
    roomy = Budget.of(caught.value.need, 1, needs=needs_of("gigatoken", vocabulary))
    assert roomy.room_beside(55).most >= caught.value.size


def test_a_call_made_alone_has_nothing_beside_it() -> None:
    calls = Calls(room=Room(100))
    seen: list[tuple[str, bool]] = []
    dropped: list[int] = []
    calls.watch(lambda: dropped.append(len(seen)))

    def call(is_alone: bool) -> None:
        with calls.alone(50) if is_alone else calls.usual():
            seen.append(("in", is_alone))
            time.sleep(0.01)
            seen.append(("out", is_alone))

    threads = [threading.Thread(target=call, args=(number % 4 == 0,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(dropped) == 4
    for index, step in enumerate(seen):
        if step == ("in", True):
            assert seen[index + 1] == ("out", True)
    with pytest.raises(TooLarge), calls.alone(101):
        pass


def test_line_ends_in_a_row_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    divider = text.divider_of("blank-line")
    assert divider is not None
    tracemalloc.start()
    assert list(divider.spans(b"a\r\n" + b"\r\n" * MB + b"\r")) == [(1, 2 * MB + 3)]
    assert divider.split(b"\n" * 3 * MB) == [b"", b""]
    assert tracemalloc.get_traced_memory()[1] < 8 * MB
    tracemalloc.stop()
    monkeypatch.setattr(text, "_LONG_RUN", 4)
    generator = random.Random(3)
    for _ in range(5000):
        content = bytes(generator.choices(b"\r\n\na", k=generator.randrange(30)))
        start = generator.randrange(len(content) + 1)
        expected = [match.span() for match in divider.pattern.finditer(content, start)]
        assert list(divider.spans(content, start)) == expected
        assert divider.split(content) == divider.pattern.split(content)


def test_a_block_of_faults_has_no_more_records_than_memory_holds(tmp_path: Path) -> None:
    """From some number on, what is near a fault goes with it; each document has a record still."""
    path, faults = tmp_path / "corpus.txt", 40
    path.write_bytes((b"ab\xff" * faults + b"\n") * 30)
    found = {}
    for most in (10**6, 10 * faults):
        out, sizes = tmp_path / str(most), Sizes(most_records=most)
        sized.prepare(
            path, out=out, sizes=sizes, val_fraction=0, documents="line", on_bad="quarantine",
            max_bad=10**6,
        )  # fmt: skip
        found[most] = (out / "quarantine.jsonl").read_text().splitlines()
    assert len(found[10**6]) == 30 * faults
    assert found[10 * faults][: 10 * faults] == found[10**6][: 10 * faults]
    rest = [json.loads(line) for line in found[10 * faults][10 * faults :]]
    assert len(rest) == 20 and all(record["length"] == 3 * faults - 2 for record in rest)


def test_faults_are_replaced_as_the_decoder_does(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(5)
    bytes_ = [0x61, 0x80, 0xBF, 0xC3, 0xE0, 0xA0, 0xED, 0x9F, 0xF0, 0x90, 0xF4, 0xEF, 0xBD, 0xFF]
    for _ in range(2000):
        monkeypatch.setattr(utf8, "_PIECE", generator.choice([1, 3, 8]))
        raw = bytes(generator.choices(bytes_, k=generator.randrange(40)))
        whole = raw.decode("utf-8", "replace")
        assert utf8.replace(raw)[0] == whole.encode()
        assert utf8.repair(raw, "\ud800").replace("\ud800", "\ufffd") == whole
        assert utf8.raw_place(raw, "\ufffd", len(whole.encode())) == len(raw)
        ranges = list(utf8.invalid_ranges(raw))
        assert utf8.without(raw, ranges) == raw.decode("utf-8", "ignore").encode()


def write_tokenizer(folder: Path, normalizers: list[dict[str, object]]) -> str:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(_tokenizer(_letters(), normalizers, [])))
    return str(path)


def test_a_token_of_a_million_bytes_is_not_written_into_the_self_test(tmp_path: Path) -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"a" * 1_000_000]
    lines = (b"%s %d\n" % (b64encode(token), rank) for rank, token in enumerate(tokens))
    (path := tmp_path / "a.tiktoken").write_bytes(b"".join(lines))
    (text := tmp_path / "a.txt").write_text("a few words")
    options = ("--tokenizer", str(path), "--pattern", "gpt2", "--val-fraction", "0")
    exit_code, peak, said = run_with(tmp_path, 200, str(text), *options)
    assert exit_code == 0, said
    assert peak < 200 * MB


def test_rules_that_grow_a_text_without_end_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "a.txt").write_text("a" * 1000)
    name = write_tokenizer(tmp_path, [_replace({"String": "a"}, "a" * 10)] * 9)
    code, _, stderr = run_with(tmp_path, 512, str(tmp_path / "a.txt"), "--tokenizer", name)
    assert (code, "bytes of one" in stderr, "fix:" in stderr) == (2, True, True), stderr


def test_a_document_counts_as_what_its_normalizer_makes_of_it(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "a.txt").write_text("\ufdfa" * 80_000 + "\n" + "word " * 100)
    name = write_tokenizer(tmp_path, [{"type": "NFKC"}])
    arguments = [str(tmp_path / "a.txt"), "--tokenizer", name, "--documents", "line"]
    arguments += ["--engine", "tokenizers", "--on-bad", "quarantine"]
    code, peak, stderr = run_with(tmp_path, 350, *arguments)
    assert code == 3, stderr
    assert peak < 350 * MB
    assert "too-large" in (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_a_pattern_that_is_tried_for_ever_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    pattern = {"Regex": "(a+)+(?=[^a])"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    rules = {**_tokenizer(_letters(), [], []), "pre_tokenizer": split}
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    (tmp_path / "a.txt").write_text("word " + "a" * 100_000)
    name = str(tmp_path / "tokenizer.json")
    code, _, stderr = run_with(tmp_path, 512, str(tmp_path / "a.txt"), "--tokenizer", name)
    assert (code, "fix:" in stderr, "Traceback" in stderr) == (1, True, False), stderr


def test_a_second_signal_ends_a_worker_that_hears_none() -> None:
    # A stand-in: no pattern is known that keeps a release of today busy for long.
    worker = subprocess.Popen(["/bin/sh", "-c", "trap '' INT; exec sleep 30"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    told: list[str] = []
    try:
        time.sleep(0.2)
        with Forwarding(worker.pid, told.append):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            assert worker.poll() is None
            os.kill(os.getpid(), signal.SIGINT)
            assert worker.wait(5) == -signal.SIGKILL
    finally:
        signal.signal(signal.SIGINT, before)
        worker.kill()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.model", b"\x0a\x00" * 2 * MB),
        ("a.tiktoken", b"YQ== 0\n" * MB),
        ("tokenizer.json", b" " * 60 * MB),
        ("tokenizer.txt", b'{"' + b'a":"' * 400_000),
    ],
)
def test_a_file_of_a_tokenizer_is_counted_before_it_is_read(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a word")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / name
    path.write_bytes(content)
    for place in (path, path.parent) if name in ("tokenizer.model", "tokenizer.json") else (path,):
        with pytest.raises(UsageError, match="too little for this tokenizer") as caught:
            mill.plan(tmp_path / "a.txt", tokenizer=str(place), memory="200MB")
        assert "--memory" in str(caught.value)


def test_a_vocabulary_that_memory_cannot_hold_is_refused_before_it_is_loaded(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "a.txt").write_text("a word")
    rules = _tokenizer(_words(400_000), [], [])
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    name = str(tmp_path / "tokenizer.json")
    code, peak, stderr = run_with(tmp_path, 200, str(tmp_path / "a.txt"), "--tokenizer", name)
    assert (code, "fix: --memory" in stderr) == (2, True), stderr
    assert peak < 200 * MB
