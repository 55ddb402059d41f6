"""Files in object stores: ``s3://``, ``gs://`` and ``az://``, as objects, prefixes and globs.

A prefix or glob stands for its objects sorted by key, byte by byte; as in a folder, what begins
with a dot is left out. An object is identified by its size and etag, and read only as long as it
has that etag: a changed one is an error, never a mixture.
"""

from __future__ import annotations

import glob
import re
from fnmatch import fnmatchcase

from tokenmill.errors import InputError
from tokenmill.kinds.suffixes import unknown_kind
from tokenmill.stores.bucket import Bucket, ObjectChanged, StoredObject, parse
from tokenmill.stores.store import Found, InputFile, Selection, Store


class ObjectReader:
    """An object, read by range."""

    def __init__(self, file: InputFile, bucket: Bucket, key: str) -> None:
        self._file = file
        self._bucket = bucket
        self._key = key
        self._etag = file.probe.removeprefix("etag:") or None

    def read(self, start: int, stop: int) -> bytes:
        """One request; the store checks the etag, and the length of what comes is checked."""
        if start >= stop:
            return b""  # of nothing, a store makes an error
        try:
            return self._bucket.read(self._key, start, stop, self._etag)
        except ObjectChanged as error:
            raise _changed(self._file) from error
        except FileNotFoundError as error:
            raise _gone(self._file) from error


class BucketStore(Store):
    """One bucket."""

    is_remote = True
    can_write = True

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.policy = bucket.policy

    def open(self, file: InputFile) -> ObjectReader:
        return ObjectReader(file, self._bucket, parse(file.path)[2])

    def check_unchanged(self, file: InputFile) -> None:
        now = self._bucket.head(parse(file.path)[2])
        if now is None:
            raise _gone(file)
        if (now.size, _probe(now)) != (file.size, file.probe):
            raise _changed(file)


def expand(argument: str, selection: Selection) -> Found:
    """The files that a URL stands for: an object, all objects below a prefix, or a glob's."""
    scheme, name, key = parse(argument)
    bucket, found = Bucket(scheme, name, selection.policy), Found()
    store = BucketStore(bucket)
    is_named = False
    if glob.has_magic(key):
        folder = re.split(r"[*?\[]", key, maxsplit=1)[0].rpartition("/")[0]
        pattern = key.split("/")
        below = bucket.objects(folder, selection.holds)
        selection.listing.check()
        objects = [e for e in below if _matches(e.key.split("/"), pattern)]
        if not objects:
            raise InputError(
                "no object matches", argument, None, "check the pattern and the quotes"
            )
    elif key and not key.endswith("/") and (entry := bucket.head(key)) is not None:
        objects, is_named = [entry], True
    else:
        folder = key.strip("/")
        below = bucket.objects(folder, selection.holds)
        selection.listing.check()
        objects = [entry for entry in below if _is_shown(entry.key, folder)]
        if not objects:
            raise InputError("no such object or prefix", argument, None, "check the URL")
    for entry in objects:
        url, known = bucket.url(entry.key), selection.kind_of(bucket.url(entry.key))
        if known is not None:
            found.files.append(InputFile(url, *known, entry.size, 0, _probe(entry), store))
        elif is_named:
            raise unknown_kind(url)
        else:
            found.ignored.append(url)
    return found


def _probe(entry: StoredObject) -> str:
    return f"etag:{entry.etag or ''}"


def _is_shown(key: str, folder: str) -> bool:
    below = key.removeprefix(folder).strip("/")
    return not any(part.startswith(".") for part in below.split("/"))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """A glob as in a folder: ``*`` stays within a segment, ``**`` as a segment crosses them, and
    neither matches what begins with a dot."""
    if not parts or not pattern:
        return not parts and not pattern
    if pattern[0] == "**":
        if pattern[1:] and _matches(parts, pattern[1:]):
            return True
        is_rest = len(parts) == 1 and not pattern[1:]
        return not parts[0].startswith(".") and (is_rest or _matches(parts[1:], pattern))
    if parts[0].startswith(".") and not pattern[0].startswith("."):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _changed(file: InputFile) -> InputError:
    return InputError(
        "the input was changed while it was read",
        file.path,
        f"it has no longer {file.size} bytes and {file.probe or 'the same etag'}",
        "let nothing write to the inputs, then run it again",
    )


def _gone(file: InputFile) -> InputError:
    return InputError(
        "the input is gone", file.path, None, "put the object back, then run this again"
    )
