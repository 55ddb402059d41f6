"""A finished dataset, in a folder or an object store: shards opened by their format, documents
found again. It is read by range, and nothing is held but what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenmill.dataset.files import DatasetFiles, damaged, files_at
from tokenmill.dataset.manifest import Manifest, Shard, read_manifest
from tokenmill.errors import UsageError
from tokenmill.formats import ShardDamage, ShardReader, find_format
from tokenmill.stores.retry import RetryPolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP = 4 * 1024 * 1024


def open_shard(files: DatasetFiles, layout: str, shard: Shard) -> ShardReader:
    """A shard as its format reads it. Raises ShardDamage and OSError, and DamageFound where a file
    cannot be read."""
    opened = {file.name: files.open(file.name) for file in shard.all_files}
    return find_format(layout).reader(opened)


@dataclass(frozen=True)
class DatasetReader:
    """The files of a dataset, and its manifest."""

    files: DatasetFiles
    manifest: Manifest

    @classmethod
    def at(cls, place: str | Path, policy: RetryPolicy | None = None) -> DatasetReader:
        """Open a finished dataset, in a folder or at a URL that requests are made for by
        ``policy``. Raises DamageFound."""
        files = files_at(place, policy)
        return cls(files, read_manifest(files))

    def open(self, shard: Shard) -> ShardReader:
        """A shard's tokens. Raises DamageFound."""
        try:
            found = open_shard(self.files, self.manifest.format, shard)
            if found.tokens != shard.tokens:
                raise ShardDamage(f"{found.tokens} tokens, the manifest tells {shard.tokens}")
            return found
        except ShardDamage as error:
            raise damaged(self.files.place(shard.name), str(error)) from error
        except OSError as error:
            names = ", ".join(self.files.place(file.name) for file in shard.all_files)
            raise damaged(names, str(error.strerror)) from error

    def shards(self, split: str | None = None) -> list[Shard]:
        """The shards in the order of their tokens, of one split or of all."""
        return [entry for entry in self.manifest.shards if split in (None, entry.split)]

    def locate(self, token: int, split: str) -> tuple[Shard, int]:
        """The shard that holds a split's token number ``token``, and its place there."""
        if token < 0:
            raise UsageError(f"there is no token {token}", fix="tokens count from 0")
        left = token
        for shard in self.shards(split):
            if left < shard.tokens:
                return shard, left
            left -= shard.tokens
        total = self.manifest.tokens(split)
        raise UsageError(
            f"there is no token {token} in {split}",
            why=f"the split has {total} tokens",
            fix=f"give a number below {total}",
        )

    def document(self, number: int, split: str) -> NDArray[Any]:
        """The tokens of one document of a split, delimiters left out."""
        if number < 0:
            raise UsageError(f"there is no document {number}", fix="documents count from 0")
        if self.manifest.spec.get("special_text") == "token":
            raise UsageError(
                "the documents cannot be told apart",
                why="they may hold the delimiter inside (--special-text token)",
                fix="look at a place with --token instead",
            )
        if self.manifest.delimiter == "none":
            raise UsageError(
                "the documents cannot be told apart",
                why="they have no delimiters (--eot none)",
                fix="look at a place with --token instead",
            )
        pieces: list[NDArray[Any]] = []
        seen = 0 if self.manifest.delimiter == "after" else -1
        for ids in self._chunks(split):
            marks = np.flatnonzero(ids == self.manifest.tokenizer["end_of_text"])
            low, high = 0, len(ids)
            if seen < number:
                if seen + len(marks) < number:
                    seen += len(marks)
                    continue
                low = int(marks[number - seen - 1]) + 1
                marks, seen = marks[number - seen :], number
            if len(marks):
                high = int(marks[0])
            pieces.append(ids[low:high])
            if len(marks):
                return np.concatenate(pieces)
        if pieces and sum(map(len, pieces)):
            return np.concatenate(pieces)
        if pieces and self.manifest.delimiter == "before":
            return np.concatenate(pieces)
        raise UsageError(
            f"there is no document {number} in {split}",
            why="documents count from 0",
            fix="tokenmill inspect DIR tells how many documents begin in each shard",
        )

    def _chunks(self, split: str) -> Iterator[NDArray[Any]]:
        for shard in self.shards(split):
            reader = self.open(shard)
            for start in range(0, reader.tokens, _STEP):
                yield reader.ids(start, min(start + _STEP, reader.tokens))
