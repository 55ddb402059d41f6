"""The files of one dataset, by name: in a folder, or below a prefix of an object store.

Whoever reads a dataset reads it through here: by range and in pieces, so that no file is ever
held as a whole, but for the small ones (the manifest, SHA256SUMS, a journal).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenmill.errors import DamageFound
from tokenmill.formats import Bytes
from tokenmill.stores.bucket import SCHEMES, Bucket, ObjectChanged, StoredObject, parse
from tokenmill.stores.disk_reads import MOST_BYTES, read_small
from tokenmill.stores.lock import lock_holder
from tokenmill.stores.prefix import Prefix, pieces_of
from tokenmill.stores.retry import RetryPolicy

_STEP = 1024 * 1024


class FileReplaced(DamageFound):
    """A file was replaced or removed while it was read."""


@dataclass(frozen=True)
class Entry:
    """What lies under a name: its size in bytes, and, where it is no regular file, what it is."""

    size: int
    instead: str | None = None


class DatasetFiles(Protocol):
    """The files of one dataset. Where a file is not there, or cannot be read, its methods raise
    OSError, with words in ``strerror``; a network that fails raises TokenmillError.

    ``where`` is the place and ``noun`` its kind, as a person writes them, ``things`` what lies in
    it. ``has_lock``: a lock tells who works there; otherwise nobody can know whether one lives.
    """

    noun: str
    things: str
    has_lock: bool

    @property
    def where(self) -> str:
        """The folder, or the URL of the prefix."""

    def place(self, name: str) -> str:
        """The path or the URL of a file."""

    def names(self) -> list[str]:
        """What lies there, sorted; what lies deeper has a name with a slash, or is not told."""

    def entry(self, name: str) -> Entry:
        """What lies under a name; links are not followed."""

    def read(self, name: str) -> bytes:
        """The content of a file that has no reason to be large; one that is large is an error."""

    def open(self, name: str) -> Bytes:
        """A file, to be read at any place; reading raises DamageFound."""

    def stream(self, name: str) -> Iterator[bytes]:
        """A file from front to back, in pieces of some megabytes at most. Raises FileReplaced where
        it becomes another one meanwhile."""

    def holder(self) -> str | None:
        """Who works there, as far as a lock tells it."""


class LocalFiles:
    """Those in a folder."""

    noun, things, has_lock = "folder", "files", True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def place(self, name: str) -> str:
        return str(self.folder / name)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def entry(self, name: str) -> Entry:
        status = (self.folder / name).lstat()
        if stat.S_ISREG(status.st_mode):
            return Entry(status.st_size)
        is_link = stat.S_ISLNK(status.st_mode)
        return Entry(status.st_size, "a symbolic link" if is_link else "no regular file")

    def read(self, name: str) -> bytes:
        return read_small(self.folder / name)

    def open(self, name: str) -> Bytes:
        return LocalFile(self.folder / name)

    def stream(self, name: str) -> Iterator[bytes]:
        with (self.folder / name).open("rb") as file:
            while piece := file.read(_STEP):
                yield piece

    def holder(self) -> str | None:
        return lock_holder(self.folder)


class LocalFile:
    """A file of a folder. Opened for each reading: there may be more shards than a process may
    hold files."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        self._path = path
        self.size = status.st_size

    def read(self, start: int, stop: int) -> bytes:
        """All bytes from ``start`` to before ``stop``. Raises DamageFound."""
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                found = file.read(stop - start)
        except OSError as error:
            raise damaged(str(self._path), str(error.strerror)) from error
        if len(found) < stop - start:
            raise damaged(str(self._path), f"it ends before byte {stop}")
        return found


class StoredFiles:
    """Those below a prefix, listed once, when that is first asked for: what is replaced later is
    told as such, and never read as a mixture."""

    noun, things, has_lock = "prefix", "objects", False

    def __init__(self, prefix: Prefix) -> None:
        self._prefix = prefix
        self._listed: dict[str, StoredObject] | None = None
        self.where = prefix.url

    def place(self, name: str) -> str:
        return self._prefix.bucket.url(self._prefix.at(name))

    def objects(self) -> dict[str, StoredObject]:
        """All of them by name. Raises TokenmillError."""
        if self._listed is None:
            skipped = len(self._prefix.at(""))
            found = self._prefix.bucket.objects(self._prefix.key)
            self._listed = {entry.key[skipped:]: entry for entry in found}
            self._listed.pop("", None)  # what stands for the "folder" itself in some tools
        return self._listed

    def forget(self) -> None:
        """Look again, when that is next asked for."""
        self._listed = None

    def _object(self, name: str) -> StoredObject:
        found = self.objects().get(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object")
        return found

    def names(self) -> list[str]:
        return list(self.objects())

    def entry(self, name: str) -> Entry:
        return Entry(self._object(name).size)

    def read(self, name: str) -> bytes:
        bucket, key = self._prefix.bucket, self._prefix.at(name)
        found = bucket.head(key)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object")
        if found.size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_BYTES} bytes")
        return StoredFile(self.place(name), bucket, found).read(0, found.size)

    def open(self, name: str) -> Bytes:
        return StoredFile(self.place(name), self._prefix.bucket, self._object(name))

    def stream(self, name: str) -> Iterator[bytes]:
        try:
            yield from pieces_of(self._prefix.bucket, self._object(name))
        except ObjectChanged as error:
            raise _replaced(self.place(name)) from error

    def holder(self) -> str | None:
        return None


class StoredFile:
    """An object as it was when it was listed."""

    def __init__(self, url: str, bucket: Bucket, told: StoredObject) -> None:
        self._url = url
        self._bucket = bucket
        self._told = told
        self.size = told.size

    def read(self, start: int, stop: int) -> bytes:
        """All bytes from ``start`` to before ``stop``. Raises DamageFound, and TokenmillError when
        the network fails."""
        if start >= stop:
            return b""
        if stop > self.size:
            raise damaged(self._url, f"it ends before byte {stop}")
        try:
            return self._bucket.read(self._told.key, start, stop, self._told.etag)
        except (FileNotFoundError, ObjectChanged) as error:
            raise _replaced(self._url) from error


def files_at(place: str | Path, policy: RetryPolicy | None = None) -> DatasetFiles:
    """The files at a path, or at a URL such as ``s3://BUCKET/PREFIX``, which requests are made for
    by ``policy`` (None: one of its own). Raises UsageError where the URL names no bucket."""
    if str(place).partition("://")[0] in SCHEMES and "://" in str(place):
        scheme, name, key = parse(str(place))
        return StoredFiles(Prefix(Bucket(scheme, name, policy or RetryPolicy()), key))
    return LocalFiles(Path(place))


def damaged(where: str, why: str) -> DamageFound:
    """The error for a shard's file that is not what was written."""
    return DamageFound("a shard is damaged", where, why, "tokenmill verify")


def _replaced(url: str) -> FileReplaced:
    return FileReplaced(
        "a file of the dataset is not there as it was",
        url,
        "it was replaced or removed while it was read",
        "let nothing write there, then run this again",
    )
