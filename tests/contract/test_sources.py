"""What every source keeps: blocks in order, which any worker reads, and from any of which to go on.

And a kind of input that is one file and one line, `toy_source.py`, is prepared, killed, gone on
with and verified as those of the package are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tokenmill
from tests.conftest import command_environment
from tests.contract.source_cases import CASES, REC, SourceCase, lines_of
from tests.contract.yours import registered, yours
from tests.encoding.test_recipe import plan_of
from tests.kit import runs, sized
from tests.kit.runs import snapshot
from tests.kit.shared import REPOSITORY
from tests.output.test_resume import SMALL, die_after
from tokenmill.batches import DocumentBatch, State
from tokenmill.errors import InputError
from tokenmill.kinds import KINDS
from tokenmill.sources import open_source, source_of
from tokenmill.sources.block import Block
from tokenmill.sources.source import Source
from tokenmill.sources.stream import Ahead, open_stream

ALL: dict[str, SourceCase] = CASES | yours(lambda entry: isinstance(entry, SourceCase))
EVERY = pytest.mark.parametrize("case", ALL.values(), ids=list(ALL))
DOCUMENTS = [document.encode() for document in runs.documents(60, 8000)]
BAD = 40
BROKEN = b"a text that is no \xff UTF-8 at all"


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered(KINDS, lines_of(ALL)):
        yield


def source(case: SourceCase, path: Path, **options: Any) -> Source:
    """A new one, as a run would open it; ``options`` of the source's own replace the run's."""
    given = {name: options.pop(name) for name in ("on_bad", "invalid_utf8") if name in options}
    plan = plan_of(path, **case.options, **given)
    chosen = dataclasses.replace(plan.source_options(), **options)
    return open_source(plan.inputs.files[0], chosen)


def batch_of(batch: DocumentBatch) -> list[Any]:
    """All that a batch holds, to compare and to hash."""
    bad = [record.as_dict() for record in batch.bad]
    flags = batch.continues, batch.unfinished, batch.split
    return [batch.documents, *flags, sorted(vars(batch.counts).items()), bad]


def walked(source: Source, state: State | None = None) -> list[Any]:
    """The rest of a file: each block's place, extent, state and content."""
    found = []
    for block in source.blocks(state):
        told = (block.where, block.size, block.after, block.seam_before, block.seam_after)
        found.append((told, batch_of(source.read(block))))
    return found


def joined(batches: list[DocumentBatch]) -> list[bytes]:
    documents: list[bytes] = []
    going_on = False
    for batch in batches:
        assert batch.continues == going_on
        for number, document in enumerate(batch.documents):
            if number == 0 and batch.continues:
                documents[-1] += document
            else:
                documents.append(document)
        going_on = batch.unfinished
    assert not going_on
    return documents


@EVERY
def test_the_documents_are_those_that_were_written(case: SourceCase, tmp_path: Path) -> None:
    opened = source(case, path := case.file(tmp_path, DOCUMENTS))
    blocks, batches = [], []
    for block in opened.blocks():
        assert str(path) in block.where and block.text_bytes > 0
        json.dumps(block.after)
        blocks.append(block)
        batches.append(opened.read(block))
    expected = [b"\n".join(DOCUMENTS)] if case.is_one else DOCUMENTS
    assert joined(batches) == expected
    assert len(blocks) > 10, "a test of blocks needs some"
    assert len({block.where for block in blocks}) == len(blocks)
    assert 0.9 < sum(block.size for block in blocks) / path.stat().st_size < 1.1


@EVERY
def test_it_is_gone_on_with_from_any_block(case: SourceCase, tmp_path: Path) -> None:
    path = case.file(tmp_path, DOCUMENTS)
    whole = walked(source(case, path))
    assert walked(source(case, path)) == whole
    ends = {0, len(whole) - 1, *random.Random(case.name).sample(range(len(whole)), 3)}
    for number in ends:
        state = json.loads(json.dumps(whole[number][0][2]))  # as the journal keeps it
        assert walked(source(case, path), state) == whole[number + 1 :]


@EVERY
def test_blocks_do_not_depend_on_the_machine(case: SourceCase, tmp_path: Path) -> None:
    path = case.file(tmp_path, DOCUMENTS)
    few = {"threads": 1, "budget_bytes": 300 << 20, "ahead": Ahead(4096, 2)}
    many = {"threads": 64, "budget_bytes": 1 << 36, "ahead": Ahead(1 << 20, 4)}
    assert walked(source(case, path, **few)) == walked(source(case, path, **many))


def copied(block: Block) -> Block:
    copy: Block = pickle.loads(pickle.dumps(block, pickle.HIGHEST_PROTOCOL))
    return copy


@EVERY
def test_any_thread_reads_any_block_of_any_source(case: SourceCase, tmp_path: Path) -> None:
    """In whatever order, and a copy gives the same as often as it is made and read."""
    path = case.file(tmp_path, DOCUMENTS)
    mine, other = source(case, path), source(case, path)
    expected, copies = [], []
    for block in mine.blocks():
        copies += [copied(block), copied(block)]
        expected += [batch_of(mine.read(block))] * 2
    order = list(range(len(copies)))
    random.Random(3).shuffle(order)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: batch_of(other.read(copies[n])), order))
    assert found == [expected[n] for n in order]


@EVERY
def test_a_sample_is_some_of_it(case: SourceCase, tmp_path: Path) -> None:
    path = case.file(tmp_path, DOCUMENTS)
    opened, text = source(case, path), b"\n".join(DOCUMENTS)
    for position in (0.0, 0.5, 0.999):
        sample = opened.sample(position, 20_000)
        assert sample.documents and sample.begun >= 0
        assert 0 < sample.disk_bytes <= 1.01 * path.stat().st_size
        assert sample.seen_bytes > 0
        inner = max(sample.documents, key=len)
        assert inner[10:-10] in text
    assert walked(opened) == walked(source(case, path)), "nothing is lost by a look at it"


@EVERY
def test_a_look_finds_nothing_wrong(case: SourceCase, tmp_path: Path) -> None:
    plan = plan_of(case.file(tmp_path, DOCUMENTS), **case.options)
    file, options = plan.inputs.files[0], plan.source_options()
    look = source_of(file.kind).look(file, options)
    assert look.fault is None
    assert 0 <= look.needs < options.reader_bytes and look.page >= 0


@EVERY
def test_a_bad_record_is_told_with_its_place(case: SourceCase, tmp_path: Path) -> None:
    documents = [*DOCUMENTS[:BAD], BROKEN, *DOCUMENTS[BAD:]]
    path = case.file(tmp_path, documents)
    with pytest.raises(InputError, match="UTF-8") as error:
        walked(source(case, path))
    assert str(path) in str(error.value.where) and error.value.fix
    opened = source(case, path, on_bad="quarantine")
    batches = [opened.read(block) for block in opened.blocks()]
    (bad,) = [record for batch in batches for record in batch.bad]
    assert bad.file == str(path) and bad.reason == "invalid-utf8"
    assert b"\xff" in bad.raw and bad.length > 0
    assert (bad.offset, bad.row) != (None, None)
    assert bad.row in (None, BAD) and bad.line in (None, BAD + 1)
    if bad.offset is not None:
        stream = open_stream(opened.file)
        assert stream.peek(bad.offset, bad.offset + len(bad.raw)) == bad.raw
    whole = walked(source(case, path, on_bad="quarantine"))
    middle = json.loads(json.dumps(whole[3][0][2]))
    rest = walked(source(case, path, on_bad="quarantine"), middle)
    assert rest == whole[4:] and bad.as_dict() in [bad for _, batch in rest for bad in batch[-1]]
    kept = joined(batches)
    if len(kept) == len(DOCUMENTS):
        assert kept == DOCUMENTS
    else:  # in plain text what is bad is taken out of its document
        assert b"".join(kept).replace(b"\n", b"") == b"".join(
            documents).replace(b"\xff", b"").replace(b"\n", b"")  # fmt: skip
    opened = source(case, path, invalid_utf8="replace")
    text = b"".join(d for block in opened.blocks() for d in opened.read(block).documents)
    assert text.count("\ufffd".encode()) == 1


@EVERY
def test_a_file_without_documents_gives_none(case: SourceCase, tmp_path: Path) -> None:
    plan = plan_of(case.file(tmp_path, []), **case.options)
    opened = open_source(plan.inputs.files[0], plan.source_options())
    found = [document for block in opened.blocks() for document in opened.read(block).documents]
    assert not b"".join(found)
    assert opened.sample(0.5, 1000).documents in ([], [b""])


def digests(packed: list[tuple[Any, Any, list[Block]]]) -> list[str]:
    """Hashes of what blocks give, read where they are now."""
    with registered(KINDS, lines_of(ALL)):
        found = []
        for file, options, blocks in packed:
            opened = open_source(file, options)
            content = repr([batch_of(opened.read(block)) for block in blocks])
            found.append(hashlib.sha256(content.encode()).hexdigest())
    return found


def test_another_process_reads_the_same_blocks(tmp_path: Path) -> None:
    packed = []
    for name, case in ALL.items():
        path = case.file(tmp_path / name, DOCUMENTS)
        worker = plan_of(path, **case.options).worker(check=0)
        recipe = pickle.loads(pickle.dumps(worker.recipe))
        packed.append((recipe.files[0], recipe.options, list(worker.corpus.blocks())))
    travelling = pickle.dumps(packed)
    script = (
        "import pickle, sys; from tests.contract import test_sources as here; "
        "print(*here.digests(pickle.loads(sys.stdin.buffer.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=travelling, capture_output=True, check=False,
        env=command_environment(), cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == digests(packed)


# --- a kind that is one file and one line

RUN: dict[str, Any] = {"format": "build-nanogpt", "shard_tokens": "5K", "check": 0.1,
                       "val_tokens": "7K", "sizes": SMALL}  # fmt: skip


def test_a_line_of_the_table_is_all_that_a_run_needs(tmp_path: Path) -> None:
    """Killed anywhere, gone on with and verified, it gives what the same documents give in
    another kind; and it is one for names, rules and messages."""
    path = REC.file(tmp_path, DOCUMENTS)
    whole, out = tmp_path / "whole", tmp_path / "out"
    sized.prepare(path, out=whole, **RUN)
    for blocks in (3, 9):
        die_after(blocks, path, out, **RUN)
        runs.assert_nothing_finished(out)
    sized.prepare(path, out=out, **RUN)
    assert snapshot(out) == snapshot(whole)
    assert not list(tokenmill.verify(out, against=[path]))
    sized.prepare(CASES["jsonl"].file(tmp_path, DOCUMENTS), out=tmp_path / "lines", **RUN)
    ours = {name for name in snapshot(whole) if name.endswith(".npy")}
    assert len(ours) > 4
    for name in ours:
        assert (tmp_path / "lines" / name).read_bytes() == (whole / name).read_bytes()
    (unnamed := tmp_path / "corpus").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="what kind of input") as error:
        tokenmill.plan(unnamed)
    assert "--kind parquet or --kind rec" in str(error.value.fix) and ".rec" in str(error.value.why)
    assert tokenmill.plan(unnamed, kind="rec").inputs.files[0].kind == "rec"


def test_a_killed_process_leaves_what_another_finishes(tmp_path: Path) -> None:
    path = REC.file(tmp_path, DOCUMENTS)
    script, out = REPOSITORY / "tests" / "contract" / "killed_prepare.py", tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, str(script), "build-nanogpt", str(path), str(out), "5"],
        env=command_environment({"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'src'}"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    options: dict[str, Any] = {name: value for name, value in RUN.items() if name != "check"}
    sized.prepare(path, out=out, **options)
    sized.prepare(path, out=tmp_path / "whole", **options)
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_a_bad_file_of_it_is_told_and_left_out(tmp_path: Path) -> None:
    path = REC.file(tmp_path, DOCUMENTS)
    good = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"no length\nwhat follows")
    with pytest.raises(InputError, match="here begins no record") as error:
        sized.prepare(path, out=tmp_path / "stopped", **RUN)
    assert str(error.value.where) == f"{path}, byte {good}"
    sized.prepare(path, out=tmp_path / "out", on_bad="quarantine", **RUN)
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["offset"] == good
    assert not list(tokenmill.verify(tmp_path / "out"))
