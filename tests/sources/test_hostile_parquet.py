"""Parquet made to be expensive stays within the budget: pages, dictionaries, footers."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tokenmill as mill
from tests.laws.test_hostile_memory import MB, run_with
from tokenmill.commands.plan import make_plan
from tokenmill.dataset.spec import Spec
from tokenmill.errors import InputError
from tokenmill.memory import Budget
from tokenmill.sources.pages import Steps, pages_of
from tokenmill.sources.parquet import ParquetBlock

ONE_PAGE = {
    "use_dictionary": False,
    "data_page_size": 1 << 30,
    "max_rows_per_page": 1 << 30,
    "row_group_size": 1 << 30,
    "write_batch_size": 1 << 30,
}
BAD = ("--on-bad", "quarantine")


def write_page(path: Path, **options: object) -> str:
    """A row group of 90 MB in a single page."""
    pq.write_table(pa.table({"text": ["word " * 18_000] * 1000}), path, **ONE_PAGE, **options)
    return str(path)


@pytest.mark.parametrize(("version", "options"), [("1.0", ()), ("2.0", BAD)])
def test_a_page_that_memory_cannot_hold_ends_before_the_first_token(
    version: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    name = write_page(tmp_path / "a.parquet", data_page_version=version, compression="zstd")
    code, peak, stderr = run_with(tmp_path, 230, name, *options)
    assert peak < 230 * MB
    if options:
        assert code in (1, 3), stderr  # of a file with nothing else no document is left
    else:
        assert (code, "a page of" in stderr, "fix: --memory" in stderr) == (2, True, True), stderr


def test_rows_that_are_each_a_whole_dictionary_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    indices = pa.array([0] * 8 + [1] * 2000, pa.int32())
    text = pa.DictionaryArray.from_arrays(indices, pa.array(["word " * 600_000, "a"]))
    options = {"use_dictionary": True, "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet", **options)
    code, peak, stderr = run_with(tmp_path, 260, str(tmp_path / "a.parquet"))
    assert code == 0, stderr
    assert peak < 260 * MB
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["documents"] == 2008


def test_a_block_has_no_more_pieces_and_text_than_memory_has_room_for(tmp_path: Path) -> None:
    """A long text in the dictionary: of the short ones, too, only four rows are read at a time."""
    indices = pa.array([1] * 20_000 + [0] * 12, pa.int32())
    text = pa.DictionaryArray.from_arrays(indices, pa.array(["word " * 100_000, "a"]))
    options = {"use_dictionary": True, "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet", **options)
    plan = make_plan([str(tmp_path / "a.parquet")], Spec.of({}), "tiktoken", 240 * MB, 1)
    blocks = [block.pieces for block in plan.corpus().blocks() if isinstance(block, ParquetBlock)]
    assert sum(piece.rows for pieces in blocks for piece in pieces or ()) == 20_012
    assert 1000 < max(len(pieces or ()) for pieces in blocks) <= 2048
    assert max(sum(piece.array.nbytes for piece in pieces or ()) for pieces in blocks) < 2.7 * MB


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_a_row_of_a_dictionary_is_no_larger_than_its_longest_text(
    codec: str, tmp_path: Path
) -> None:
    texts = [f"{number} words" for number in range(20_000)] + ["word " * 100]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression=codec)
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0)
    content = (tmp_path / "a.parquet").read_bytes()

    def steps(content: bytes) -> Steps:
        stop = 4 + column.total_compressed_size
        pages = pages_of(lambda low, high: content[low:high], 4, stop, column.compression)
        return Steps(pages, MB, 100 * MB)

    assert steps(content).next(1000) == 1000
    assert steps(content).next(20_000) == MB // 500
    spoiled = content[:100] + b"\xff" * 4000 + content[4100:]
    assert steps(spoiled).next(1000) < 10


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def write_footer(path: Path, groups: int, columns: int, claimed: int | None = None) -> str:
    """A file of nothing but a footer, whose columns take three bytes each."""
    schema = b"\x48\x06schema\x15\x02\x00" + b"\x15\x0c\x25\x02\x18\x04text\x25\x00\x00"
    count = columns if claimed is None else claimed
    group = b"\x19\xfc" + varint(count) + b"\x26\x00\x00" * columns + b"\x16\x00\x16\x00\x00"
    footer = b"\x15\x02\x19\x2c" + schema + b"\x16\x00\x19\xfc" + varint(groups) + group * groups
    footer += b"\x00"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return str(path)


def test_a_footer_counts_as_what_it_lists(tmp_path: Path) -> None:
    name = write_footer(tmp_path / "a.parquet", 1000, 300)
    code, peak, stderr = run_with(tmp_path, 230, name)
    assert (code, "footer takes" in stderr, "fix: --memory" in stderr) == (2, True, True), stderr
    assert peak < 230 * MB
    name = write_footer(tmp_path / "b.parquet", 1, 1, claimed=1_000_000)
    with pytest.raises(InputError, match="footer"):
        mill.plan(name, memory="230MB")


def test_what_the_inputs_need_is_kept_free(tmp_path: Path) -> None:
    """An engine's caches may not grow into what is reserved, until readers hold it."""
    free = Budget.of(512 * MB, 1)
    kept = Budget.of(512 * MB, 1, reserved=200 * MB)
    resident = 330 * MB
    assert not free.is_reached(resident)
    assert kept.is_reached(resident)
    kept.in_hand.tell("a page", 200 * MB)
    assert not kept.is_reached(resident)
