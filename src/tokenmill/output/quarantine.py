"""What was left out of a dataset, with its places and reasons, in a file beside the shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tokenmill.batches import QuarantineLines
from tokenmill.dataset.manifest import QUARANTINE, Quarantine
from tokenmill.output.journal import Encoded, OpenFile
from tokenmill.stores.durable import StagedFile


class QuarantineWriter:
    """The file of the records left out; it exists only if there are any."""

    def __init__(self, folder: Path) -> None:
        self._place = folder / QUARANTINE
        self.staged: StagedFile | None = None
        self.reasons: Counter[str] = Counter()

    def append(self, lines: QuarantineLines) -> None:
        """Add the lines of a block, in its turn."""
        self.staged = self.staged or StagedFile(self._place)
        for chunk in lines.chunks():
            self.staged.write(memoryview(chunk))
        self.reasons.update(lines.reasons)

    def reopen(self, file: OpenFile, reasons: dict[str, int]) -> None:
        """Go on with the file that an interrupted run left."""
        self.staged = StagedFile.reopen(self._place, file.bytes, file.sha256)
        self.reasons = Counter(reasons)


def quarantine_of(encoded: Encoded) -> Quarantine:
    """What the manifest tells of the records left out."""
    size = sum(file.bytes for file in encoded.at.open if file.shard is None)
    return Quarantine(dict(sorted(encoded.at.reasons.items())), size, encoded.quarantine_sha256)
