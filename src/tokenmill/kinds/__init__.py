"""What a file is: its kind and its compression, by its name and by its first bytes.

To add a kind of input: one file with its ``Source``, one line in ``KINDS``
(docs/write-a-source.md).
"""

from __future__ import annotations

from tokenmill.kinds.kind import Kind

__all__ = ["KINDS", "Kind", "names", "suffixes"]

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("text", "tokenmill.sources.text:TextSource", (".txt", ".text", ".md")),
        Kind(
            "jsonl",
            "tokenmill.sources.jsonl:JsonlSource",
            (".jsonl", ".ndjson", ".jsonlines", ".json"),
        ),
        Kind(
            "parquet",
            "tokenmill.sources.parquet:ParquetSource",
            (".parquet", ".pq"),
            is_sequential=False,
            is_text=False,
            uses_arrow=True,
        ),
    )
}
"""By name. Where a repository on the Hub has as many files of one kind as of another, the later
one is read."""


def suffixes() -> dict[str, Kind]:
    """The kinds by the suffixes of their files."""
    return {suffix: kind for kind in KINDS.values() for suffix in kind.suffixes}


def names(form: str = "{}") -> str:
    """Their names, for people: ``text, jsonl or parquet``."""
    *most, last = (form.format(name) for name in KINDS)
    return f"{', '.join(most)} or {last}"
