"""``inspect``: what is in a dataset: headers, counts, document borders, decoded text."""

from __future__ import annotations

from typing import Any

from tokenmill.dataset import Dataset
from tokenmill.errors import TokenmillError
from tokenmill.tokenizers import Vocabulary, load_vocabulary
from tokenmill.tokenizers.vocabulary import PATTERNS

SHOWN_TOKENS = 64


def describe(dataset: Dataset) -> dict[str, Any]:
    """The dataset in figures: what the manifest tells and what the files' headers tell."""
    manifest = dataset.manifest
    shards = []
    for shard in manifest.shards:
        file = dataset.open(shard)
        shards.append(
            {
                "name": shard.name,
                "split": shard.split,
                "dtype": file.dtype,
                "header_bytes": file.offset,
                "tokens": file.tokens,
                "documents": shard.documents,
                "bytes": shard.bytes,
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


def text_at_token(dataset: Dataset, token: int, split: str) -> dict[str, Any]:
    """The text from a split's token number ``token`` on."""
    shard, place = dataset.locate(token, split)
    ids = dataset.ids(shard)[place : place + SHOWN_TOKENS].tolist()
    return {"split": split, "token": token, "shard": shard.name, "place": place} | _decoded(
        dataset, ids
    )


def text_of_document(dataset: Dataset, number: int, split: str) -> dict[str, Any]:
    """The whole text of a split's document ``number``, counted from 0."""
    ids = dataset.document(number, split).tolist()
    return {"split": split, "document": number} | _decoded(dataset, ids)


def _decoded(dataset: Dataset, ids: list[int]) -> dict[str, Any]:
    table = vocabulary_of(dataset).token_bytes
    text = b"".join(table.get(token, b"\xef\xbf\xbd") for token in ids)
    return {"ids": ids, "text": text.decode("utf-8", "replace")}


def vocabulary_of(dataset: Dataset) -> Vocabulary:
    """The vocabulary that the dataset was made with, found again and compared."""
    about, spec = dataset.manifest.tokenizer, dataset.manifest.spec
    pattern = str(about["pattern"])
    for choice in dict.fromkeys([str(spec.get("tokenizer")), str(about["name"])]):
        try:
            found = load_vocabulary(choice, pattern if pattern in PATTERNS else None)
        except TokenmillError:
            continue
        if found.fingerprint == about["sha256"]:
            return found
    raise TokenmillError(
        "cannot find the tokenizer of this dataset again",
        str(dataset.folder),
        f"it was made with {spec.get('tokenizer')}, SHA-256 {about['sha256']}",
        "put that file back in its place",
    )
