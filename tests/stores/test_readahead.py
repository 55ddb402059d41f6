"""Reading ahead: the bytes that are read one by one, in few and large requests."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit import texts
from tokenmill.errors import InputError, LimitReached
from tokenmill.sources import open_source
from tokenmill.sources.corpus import opened_ahead
from tokenmill.sources.inputs import find_inputs
from tokenmill.sources.source import SourceOptions
from tokenmill.sources.stream import Ahead
from tokenmill.stores import InputFile
from tokenmill.stores.local import LocalReader, LocalStore
from tokenmill.stores.readahead import MOST_WASTE, ReadAhead, result_by
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary

CONTENT = random.Random(5).randbytes(5000)


class Counted:
    """Reads of CONTENT, counted."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def read(self, start: int, stop: int) -> bytes:
        with self.lock:
            self.requests.append((start, stop))
        return CONTENT[start:stop]


@settings(deadline=None)  # each example has threads
@given(
    st.lists(st.integers(0, 5000), min_size=2, max_size=20, unique=True),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.booleans()), max_size=20),
    st.integers(1, 3000),
    st.integers(1, 4),
)
def test_any_reads_in_any_order_give_the_bytes(
    borders: list[int], reads: list[tuple[int, int, bool]], chunk_bytes: int, chunks: int
) -> None:
    borders.sort()
    ranges = list(zip(borders[::2], borders[1::2], strict=False))
    ahead = ReadAhead(Counted().read, ranges, chunk_bytes, chunks)
    for start, stop, releases in reads:
        assert ahead.read(start, stop) == CONTENT[start:stop]
        if releases:
            ahead.release(start, stop)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=2, max_size=40, unique=True), st.integers(100, 2000))
def test_what_is_wanted_is_fetched_once_and_little_else(
    borders: list[int], chunk_bytes: int
) -> None:
    borders.sort()
    ranges = list(zip(borders[::2], borders[1::2], strict=False))
    counted = Counted()
    ahead = ReadAhead(counted.read, ranges, chunk_bytes, 3)
    for low, high in ranges:
        for at in range(low, high, 97):
            stop = min(high, at + 97)
            assert ahead.read(at, stop) == CONTENT[at:stop]
            ahead.release(at, stop)
    moved = sum(stop - start for start, stop in counted.requests)
    wanted = sum(high - low for low, high in ranges)
    assert moved <= wanted * (1 + 1 / MOST_WASTE)
    assert all(stop - start <= chunk_bytes for start, stop in counted.requests)


def test_no_more_is_held_than_was_allowed() -> None:
    counted = Counted()
    ahead = ReadAhead(counted.read, [(0, 5000)], 100, 3)
    ahead.read(0, 50)
    assert sorted(counted.requests) == [(0, 100), (100, 200), (200, 300)]
    ahead.release(0, 99)
    assert len(counted.requests) == 3
    ahead.release(99, 100)
    ahead.read(300, 301)
    assert sorted(counted.requests)[3:] == [(300, 400)]


def test_an_error_is_raised_where_the_bytes_are_wanted() -> None:
    def read(start: int, stop: int) -> bytes:
        if start:
            raise InputError("gone", "there", "why", "fix")
        return CONTENT[start:stop]

    ahead = ReadAhead(read, [(0, 5000)], 100, 3)
    assert ahead.read(0, 100) == CONTENT[:100]
    with pytest.raises(InputError, match="gone"):
        ahead.read(0, 101)


class DistantStore(LocalStore):
    """This machine's files, as if they were remote; what is moved is counted."""

    is_remote = True
    has_paths = False

    def __init__(self) -> None:
        self.requests: list[int] = []

    def open(self, file: InputFile) -> LocalReader:
        content = LocalReader(file)
        read = content.read

        def counted(start: int, stop: int) -> bytes:
            self.requests.append(stop - start)
            return read(start, stop)

        content.read = counted  # type: ignore[method-assign]
        return content


def options(ahead: Ahead | None) -> SourceOptions:
    engine = make_engine("gigatoken", load_vocabulary("gpt2"))
    return SourceOptions("blank-line", "text", lambda: engine, ahead=ahead)


def write(path: Path, suffix: str) -> None:
    """About 12 MB; in parquet the text is one of three columns."""
    whole = texts.prose(12_000_000)
    documents = [whole[at : at + 2000].strip() for at in range(0, len(whole), 2000)]
    if suffix == ".txt":
        path.write_text("\n\n".join(documents))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    elif suffix == ".jsonl.gz":
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
        path.write_bytes(gzip.compress(lines.encode(), 1))
    else:
        table = pa.table(
            {
                "id": range(len(documents)),
                "text": documents,
                "url": [text[:90] for text in documents],
            }
        )
        pq.write_table(table, path, row_group_size=100 if suffix == ".parquet" else None)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".jsonl.gz", ".parquet", ".one.parquet"])
def test_a_distant_file_has_the_documents_of_a_near_one(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"corpus{suffix}"
    write(path, suffix)
    (near,) = find_inputs([str(path)]).files
    distant = DistantStore()
    far = dataclasses.replace(near, store=distant)

    def documents(file: InputFile, ahead: Ahead | None) -> list[list[bytes]]:
        source = open_source(file, options(ahead))
        return [source.read(block).documents for block in source.blocks()]

    expected = documents(near, None)
    assert documents(far, Ahead(1024 * 1024, 4)) == expected
    needed = near.size
    if "parquet" in suffix:
        metadata = pq.read_metadata(path)
        groups = range(metadata.num_row_groups)
        needed = sum(metadata.row_group(g).column(1).total_compressed_size for g in groups)
    assert sum(distant.requests) <= 1.1 * needed
    assert len(distant.requests) <= needed / 1024 / 1024 * 1.2 + 5


def test_distant_files_go_on_from_any_block(tmp_path: Path) -> None:
    for suffix in (".txt", ".jsonl", ".parquet", ".one.parquet"):
        path = tmp_path / f"corpus{suffix}"
        write(path, suffix)
        (near,) = find_inputs([str(path)]).files
        far = dataclasses.replace(near, store=DistantStore())
        wanted = options(Ahead(300_000, 3))
        source = open_source(near, wanted)
        blocks = list(source.blocks())
        ends = [block.after for block in blocks]
        expected = [source.read(block).documents for block in blocks]
        at = len(blocks) // 2
        source = open_source(far, wanted)
        found = [source.read(block).documents for block in source.blocks(ends[at])]
        assert found == expected[at + 1 :]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_file_that_was_read_is_not_fetched_again(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"corpus{suffix}"
    write(path, suffix)
    distant = DistantStore()
    (near,) = find_inputs([str(path)]).files
    source = open_source(dataclasses.replace(near, store=distant), options(Ahead(1000, 2)))
    assert list(source.blocks({"ended": True})) == []
    assert distant.requests == []


def test_the_next_files_are_opened_ahead_and_come_in_order(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text(f"text {number}")
    distant = DistantStore()
    near = find_inputs([str(tmp_path)]).files
    files = [(dataclasses.replace(file, store=distant), None) for file in near]
    found = []
    for source, state in opened_ahead(files, options(Ahead(1000, 2))):
        found += [source.read(block).documents for block in source.blocks(state)]
    assert found == [[b"text %d" % number] for number in range(20)]


def test_what_is_waited_for_ends_with_the_runs_time() -> None:
    """By hand: without the deadline it is waited for, for ever."""
    never: Future[int] = Future()
    began = time.monotonic()
    with pytest.raises(LimitReached, match="--max-time is over"):
        result_by(never, began + 0.05)
    assert time.monotonic() - began < 5
    never.set_result(3)
    assert result_by(never, began) == result_by(never, None) == 3
    failed: Future[int] = Future()
    failed.set_exception(TimeoutError("of the call itself"))
    with pytest.raises(TimeoutError, match="of the call itself"):
        result_by(failed, time.monotonic() + 1)
