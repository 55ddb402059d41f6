"""Law 5, end to end: what is left out is in `quarantine.jsonl`, counted, and told by exit code 3.

`test_quarantine.py` has what is left out and why; here it is followed to the output folder.
"""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import tokenmill
from tests.conftest import Run
from tests.kit import texts
from tests.kit.outcome import Outcome, prepare
from tokenmill.errors import InputError, SpecMismatch
from tokenmill.sizes import Sizes

BAD_LINES = {
    30: b'{"text": 5}',
    90: b"{nonsense",
    91: b'{"text": "\xff\xfe"}',
    240: b'{"other": 1}',
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    lines = [json.dumps({"text": f"{n} {texts.prose(900)}"}).encode() for n in range(300)]
    for number, line in BAD_LINES.items():
        lines[number] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.fixture
def without(tmp_path: Path, corpus: Path) -> Path:
    """The same corpus without the bad lines."""
    lines = corpus.read_bytes().splitlines(keepends=True)
    path = tmp_path / "good.jsonl"
    path.write_bytes(b"".join(line for n, line in enumerate(lines) if n not in BAD_LINES))
    return path


@pytest.fixture
def small_blocks() -> Sizes:
    return Sizes(block=8192)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def test_the_command_leaves_out_counts_and_exits_with_3(
    corpus: Path, without: Path, tmp_path: Path, tokenmill: Run
) -> None:
    out = tmp_path / "out"
    arguments = ["prepare", corpus, "--out", out, "--on-bad", "quarantine"]
    done = tokenmill(*arguments)
    assert done.rc == 3, done.stderr
    assert "4 records were left out" in done.stderr
    manifest = Outcome(out).manifest
    assert manifest["counts"]["quarantined"] == 4
    assert manifest["quarantine"]["reasons"] == {"invalid-utf8": 1, "no-text": 2, "not-json": 1}
    found = records(out)
    assert [record["line"] for record in found] == [number + 1 for number in BAD_LINES]
    content = corpus.read_bytes()
    for record, line in zip(found, BAD_LINES.values(), strict=True):
        assert base64.b64decode(record["raw"]) == line
        assert content[record["offset"] : record["offset"] + record["length"]] == line
        assert record["file"] == str(corpus)
    good = prepare(without, tmp_path / "good")
    shards = {name: data for name, data in Outcome(out).files.items() if name.endswith(".bin")}
    assert shards == good.files
    again = tokenmill(*arguments)
    assert again.rc == 0, "running it again says that it is done"
    assert tokenmill("verify", out).rc == 0


def test_a_run_that_stopped_may_go_on_and_leave_out(
    small_blocks: Sizes, corpus: Path, tmp_path: Path
) -> None:
    """All that was done before the first bad record is what leaving out would have written."""
    out, other = tmp_path / "out", tmp_path / "other"
    with pytest.raises(InputError, match="not a string"):
        prepare(corpus, out, on_bad="stop", shard_tokens=2000, sizes=small_blocks)
    with pytest.raises(SpecMismatch, match="--seed is 1, was 0"):
        prepare(corpus, out, on_bad="quarantine", shard_tokens=2000, seed=1, sizes=small_blocks)
    assert (out / ".tokenmill" / "journal").exists()
    went_on = prepare(corpus, out, on_bad="quarantine", shard_tokens=2000, sizes=small_blocks)
    whole = prepare(corpus, other, on_bad="quarantine", shard_tokens=2000, sizes=small_blocks)
    assert went_on.hashes == whole.hashes
    assert went_on.manifest["counts"] == whole.manifest["counts"]
    assert went_on.manifest["quarantine"] == whole.manifest["quarantine"]
    assert went_on.manifest["fingerprint"] == whole.manifest["fingerprint"]


def test_a_run_that_drowns_stops_and_can_go_on(
    small_blocks: Sizes, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="more than 2 records") as caught:
        prepare(corpus, out, on_bad="quarantine", max_bad=2, sizes=small_blocks)
    assert "--max-bad" in (caught.value.fix or "")
    went_on = prepare(corpus, out, on_bad="quarantine", max_bad=4, sizes=small_blocks)
    whole = prepare(corpus, tmp_path / "other", on_bad="quarantine", sizes=small_blocks)
    assert went_on.hashes == whole.hashes


def test_the_same_records_for_any_threads(
    small_blocks: Sizes, corpus: Path, tmp_path: Path
) -> None:
    found = [
        prepare(
            corpus, tmp_path / str(n), on_bad="quarantine", threads=n, sizes=small_blocks
        ).hashes
        for n in (1, 2, 7)
    ]
    assert found[0] == found[1] == found[2]


def test_what_is_replaced_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"caf\xe9 and na\xefve\n" * 10)
    manifest = tokenmill.prepare([str(path)], out=str(tmp_path / "out"), invalid_utf8="replace")
    assert manifest.counts["replaced"] == 20
    assert manifest.counts["quarantined"] == 0


def test_a_file_of_nothing_but_bad_lines_is_few_records(tmp_path: Path) -> None:
    """A block of the shortest bad lines has a million: neighbours are then one record."""
    path = tmp_path / "bad.jsonl"
    good = b'{"text": "the good one"}\n'
    path.write_bytes(good + b"x\n" * 400_000 + good)
    outcome = prepare(path, tmp_path / "out", on_bad="quarantine")
    found = records(outcome.folder)
    assert 1000 <= len(found) <= 1001
    assert outcome.manifest["counts"]["documents"] == 2
    places = [(record["offset"], record["offset"] + record["length"]) for record in found]
    assert places[0] == (len(good), len(good) + 1)
    assert all(low == before + 1 for (_, before), (low, _) in itertools.pairwise(places))
    assert places[-1][1] == path.stat().st_size - len(good) - 1, "nothing is missing"
    assert "and the lines after it" in found[-1]["detail"]
