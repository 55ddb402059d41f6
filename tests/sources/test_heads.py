"""What can be known before the first token: footers, columns, first lines, windows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tokenmill
from tests.kit import outcome
from tokenmill.errors import TokenmillError, UsageError


def corpus(folder: Path, bad: pa.Table) -> Path:
    """Five parquet files, of which the third is another."""
    folder.mkdir()
    for number in range(5):
        table = bad if number == 2 else pa.table({"text": [f"document {number}"]})
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


@pytest.mark.parametrize("values", [[1, 2], [["a"]], [{"a": 1}]], ids=["int", "list", "struct"])
def test_a_bad_file_among_many_is_named_before_the_first_token(
    values: list[object], tmp_path: Path
) -> None:
    folder = corpus(tmp_path / "in", pa.table({"text": values}))
    with pytest.raises(UsageError, match="not text"):
        tokenmill.plan(folder)
    with pytest.raises(UsageError, match=r"2\.parquet"):
        tokenmill.prepare(folder, out=tmp_path / "out")
    found = outcome.prepare(folder, tmp_path / "kept", on_bad="quarantine", val_fraction=0)
    assert found.manifest["quarantine"]["reasons"] == {"no-text": 1}
    assert found.manifest["counts"]["documents"] == 4


def test_all_bad_files_are_counted_in_one_error_before_the_first_token(tmp_path: Path) -> None:
    """Samples, which the estimate takes, would meet the first of them, or none."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        column = "words" if number in (17, 33) else "text"
        table = pa.table({column: [f"document {number}"]})
        pq.write_table(table, folder / f"{number:02}.parquet")
    for call in (lambda: tokenmill.plan(folder), lambda: tokenmill.prepare(folder, out=out)):
        with pytest.raises(UsageError, match="2 of 40 input files cannot be read") as caught:
            call()
        assert "17.parquet" in str(caught.value) and "33.parquet" in str(caught.value)
    found = outcome.prepare(folder, tmp_path / "kept", on_bad="quarantine", val_fraction=0)
    assert found.manifest["quarantine"]["reasons"] == {"no-text": 2}
    assert found.manifest["counts"]["documents"] == 38


def test_a_column_of_type_null_holds_null_documents(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in", pa.table({"text": pa.nulls(3)}))
    found = outcome.prepare(folder, tmp_path / "out", val_fraction=0)
    assert found.manifest["counts"]["null_documents"] == 3


def test_the_very_name_goes_before_the_way_into_a_struct(tmp_path: Path) -> None:
    both = pa.table({"meta": [{"text": "inside"}], "meta.text": ["literal"]})
    pq.write_table(both, tmp_path / "both.parquet")
    pq.write_table(both.select(["meta"]), tmp_path / "inside.parquet")
    options = {"text_key": "meta.text", "val_fraction": 0}
    wanted = {"both": b"literal", "inside": b"inside"}
    for name, text in wanted.items():
        path = tmp_path / f"{name}.parquet"
        made = outcome.prepare(path, tmp_path / name, **options)
        plain = tmp_path / f"{name}.txt"
        plain.write_bytes(text)
        same = outcome.prepare(plain, tmp_path / f"{name}-plain", val_fraction=0)
        assert made.tokens("train").tolist() == same.tokens("train").tolist()


def test_two_columns_of_one_name_are_refused_in_words(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    pq.write_table(table, tmp_path / "two.parquet")
    with pytest.raises(TokenmillError, match="2 columns that 'text' may mean"):
        tokenmill.plan(tmp_path / "two.parquet")


def test_a_dotted_key_reaches_into_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"meta": {"text": "a"}}\n{"meta.text": "b", "meta": 1}\n')
    found = outcome.prepare(path, tmp_path / "out", text_key="meta.text", val_fraction=0)
    assert found.manifest["counts"]["documents"] == 2
