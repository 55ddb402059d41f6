"""The place in a bucket that one dataset has for itself: what is stored there, and whose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenmill.errors import Interrupted, TokenmillError
from tokenmill.stores.bucket import PART_BYTES, Bucket, ObjectChanged, StoredObject
from tokenmill.stores.durable import STATE_FOLDER
from tokenmill.stores.readahead import ReadAhead

_AHEAD = 4


class FileChanged(Exception):
    """A local file has not the bytes that were noted of it."""


class Prefix:
    """A place in a bucket that one dataset has for itself, held by a lease."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.bucket = bucket
        self.key = key.strip("/")

    def at(self, name: str) -> str:
        """The key of a file of the dataset."""
        return f"{self.key}/{name}" if self.key else name

    def state(self, name: str) -> str:
        """The key of a part of the run's state."""
        return self.at(f"{STATE_FOLDER}/{name}")

    @property
    def url(self) -> str:
        """As a person writes it."""
        return self.bucket.url(self.key).rstrip("/")

    def send(self, path: Path, name: str, size: int, sha256: str, stop: Callable[[], bool]) -> None:
        """Store the first ``size`` bytes of a local file, which must have that hash.

        Raises FileChanged when they have not, Interrupted when asked to stop, and TokenmillError
        where a foreign object has the name; then nothing appears.
        """

        def pieces() -> Iterator[bytes]:
            digest, left = hashlib.sha256(), size
            with path.open("rb", buffering=0) as file:
                while left and (piece := file.read(min(left, PART_BYTES))):
                    if stop():
                        raise Interrupted("the upload was stopped")
                    digest.update(piece)
                    left -= len(piece)
                    yield piece
            if left or digest.hexdigest() != sha256:
                raise FileChanged(str(path))

        self._put(name, pieces, size, sha256)

    def put(self, name: str, content: bytes) -> None:
        """Store a small object. Raises TokenmillError where a foreign one has its name."""
        self._put(name, lambda: iter([content]), len(content), hashlib.sha256(content).hexdigest())

    def _put(
        self, name: str, pieces: Callable[[], Iterator[bytes]], size: int, sha256: str
    ) -> None:
        found = self.bucket.sign(self.at(name))
        try:
            if found is not None and found[1] is None and not self.holds(name, size, sha256):
                raise FileExistsError(name)
            if found is None or found[1] not in (sha256, None):  # else all of it is there
                self.bucket.put(self.at(name), pieces, size, sha256, is_new=found is None)
        except FileExistsError as error:
            # Perhaps it was this very call that made it, and the answer was lost.
            if not self.holds(name, size, sha256):
                raise TokenmillError(
                    "an object that tokenmill did not write is in the way",
                    self.bucket.url(self.at(name)),
                    "it is not touched",
                    "move it away, or choose another --out, then run this again",
                ) from error

    def is_signed(self, name: str) -> bool:
        """Is there an object that tokenmill wrote, whatever is in it?"""
        found = self.bucket.sign(self.at(name))
        return found is not None and found[1] is not None

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Is the object of that name the one with these bytes? What it is signed with tells, and
        of one without a sign its bytes, which are read."""
        found = self.bucket.sign(self.at(name))
        if found is None or found[0].size != size:
            return False
        if found[1] is not None:
            return found[1] == sha256
        try:
            return sha256_of(self.bucket, found[0]) == sha256
        except ObjectChanged:
            return False


def sha256_of(bucket: Bucket, entry: StoredObject) -> str:
    """The hash of an object, read as it was when ``entry`` was told. Raises ObjectChanged when it
    is another one meanwhile, or gone."""
    digest = hashlib.sha256()
    for piece in pieces_of(bucket, entry):
        digest.update(piece)
    return digest.hexdigest()


def pieces_of(bucket: Bucket, entry: StoredObject) -> Iterator[bytes]:
    """An object from front to back, a few pieces fetched ahead; as it was when ``entry`` was told.
    Raises ObjectChanged when it is another one meanwhile, or gone."""

    def read(start: int, stop: int) -> bytes:
        try:
            return bucket.read(entry.key, start, stop, entry.etag)
        except FileNotFoundError as error:
            raise ObjectChanged from error

    ahead = ReadAhead(read, [(0, entry.size)], PART_BYTES, _AHEAD)
    try:
        for start in range(0, entry.size, PART_BYTES):
            stop = min(start + PART_BYTES, entry.size)
            yield ahead.read(start, stop)
            ahead.release(start, stop)
    finally:
        ahead.close()
