"""``inspect``: what is in a dataset: headers, counts, document borders, decoded text."""

from __future__ import annotations

from typing import Any

from tokenmill.dataset.identity import identity
from tokenmill.dataset.reader import DatasetReader
from tokenmill.errors import TokenmillError
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

SHOWN_TOKENS = 64


def describe(dataset: DatasetReader) -> dict[str, Any]:
    """The dataset in figures: what the manifest tells and what the files' headers tell."""
    manifest = dataset.manifest
    shards = []
    for shard in manifest.shards:
        reader = dataset.open(shard)
        shards.append(
            {
                "name": shard.name,
                "split": shard.split,
                "dtype": reader.dtype,
                "header_bytes": reader.head_bytes,
                "tokens": reader.tokens,
                "documents": shard.documents,
                "bytes": shard.total_bytes,
            }
        )
    return {
        "format": manifest.format,
        "tokenizer": manifest.tokenizer["name"],
        "delimiter": manifest.delimiter,
        "split": manifest.split,
        "counts": manifest.counts,
        "shards": shards,
    }


def text_at_token(dataset: DatasetReader, token: int, split: str) -> dict[str, Any]:
    """The text from a split's token number ``token`` on."""
    shard, place = dataset.locate(token, split)
    ids = dataset.open(shard).ids(place, min(place + SHOWN_TOKENS, shard.tokens)).tolist()
    return {"split": split, "token": token, "shard": shard.name, "place": place} | _decoded(
        dataset, ids
    )


def text_of_document(dataset: DatasetReader, number: int, split: str) -> dict[str, Any]:
    """The whole text of a split's document ``number``, counted from 0."""
    ids = dataset.document(number, split).tolist()
    return {"split": split, "document": number} | _decoded(dataset, ids)


def _decoded(dataset: DatasetReader, ids: list[int]) -> dict[str, Any]:
    return {"ids": ids, "text": vocabulary_of(dataset).decode(ids)}


def vocabulary_of(dataset: DatasetReader) -> Vocabulary:
    """The vocabulary that the dataset was made with, found again and compared."""
    about, spec = dataset.manifest.tokenizer, dataset.manifest.spec
    # The pattern of a .tiktoken file; other files have their own.
    pattern = None if "kind" in about else str(about["pattern"])
    token = None if spec.get("eot_token") is None else str(about["end_of_text"])
    name = str(spec.get("tokenizer"))
    commit = str(about["commit"]) if "commit" in about else None
    reason: TokenmillError | None = None
    for choice in dict.fromkeys([name, str(about["name"])]):
        try:
            found = load_vocabulary(choice, pattern, token, commit)
        except TokenmillError as error:
            reason = reason or error
            continue
        if identity(found.describe()) == identity(about):
            return found
    raise TokenmillError(
        "cannot find the tokenizer of this dataset again",
        dataset.files.where,
        f"it was made with {name}, SHA-256 {about['sha256']}"
        + (f"; {reason.what}" if reason is not None else ""),
        "put that file back in its place",
    )
