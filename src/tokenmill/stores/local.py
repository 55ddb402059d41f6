"""Files on this machine's disks: paths, folders and globs.

A folder or glob stands for its files sorted by path, byte by byte. Files are read with ``pread``:
mapped pages would count as resident memory.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections import Counter
from functools import partial
from pathlib import Path

import xxhash

from tokenmill.errors import InputError, unreadable
from tokenmill.kinds.content import HEAD_BYTES
from tokenmill.kinds.suffixes import kind_of, unknown_kind
from tokenmill.stores import stdin
from tokenmill.stores.disk_reads import read_patiently
from tokenmill.stores.side_files import SIDE_FILES, written_in
from tokenmill.stores.store import Found, InputFile, Selection, Store
from tokenmill.units import numbered

_PROBE = 64 * 1024


class LocalReader:
    """A file, read by range."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        try:
            self._fd = os.open(file.path, os.O_RDONLY)
        except OSError as error:
            raise unreadable(file.path, error) from error

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def read(self, start: int, stop: int) -> bytes:
        """``pread`` until all is read; a file that became shorter is an error, not an end."""
        file, fd = self._file, self._fd
        try:
            data = read_patiently(lambda: os.pread(fd, stop - start, start))
            while len(data) < stop - start:
                at = start + len(data)
                more = read_patiently(partial(os.pread, fd, stop - at, at))
                if not more:
                    raise InputError(
                        "the input became shorter while it was read",
                        f"{file.path}, byte {at}",
                        f"it had {file.size} bytes when the run began",
                        "let nothing write to the inputs, then run it again",
                    )
                data += more
        except OSError as error:
            raise unreadable(f"{file.path}, byte {start}", error) from error
        return data


class LocalStore(Store):
    """The file systems of this machine."""

    has_paths = True

    def open(self, file: InputFile) -> LocalReader:
        return LocalReader(file)

    def check_unchanged(self, file: InputFile) -> None:
        try:
            now = os.stat(file.path)
        except OSError as error:
            raise InputError(
                "the input is gone",
                file.path,
                error.strerror,
                "put the file back, then run this again",
            ) from error
        if (now.st_size, now.st_mtime_ns) != (file.size, file.modified):
            raise InputError(
                "the input was changed while it was read",
                file.path,
                None,
                "let nothing write to the inputs, then run it again",
            )


LOCAL = LocalStore()


def expand(argument: str, selection: Selection) -> Found:
    """The files that a path, folder or glob stands for."""
    found = Found()
    written: dict[str, frozenset[str]] = {}
    shards: Counter[str] = Counter()
    for path, named in _paths(argument, selection):
        folder, name = os.path.split(path)
        if folder not in written:
            written[folder] = written_in(folder)
        # SHA256SUMS may have been made anew by somebody over all that is there: no shard has a
        # name that tells an input.
        is_side_file = name in SIDE_FILES
        if name in written[folder] and (is_side_file or kind_of(name) is None):
            if not named and is_side_file:
                found.notes.append(f"passed over: {path}, which tokenmill wrote")
                continue
            if not named:
                shards[folder] += 1
                continue
            found.notes.append(f"note: tokenmill wrote {path}; it was named itself, and is read")
        if named and stat.S_ISFIFO(_mode(path)):
            return stdin.expand(argument, selection)
        entry = _input_file(path, selection)
        if entry is not None:
            found.files.append(entry)
        elif named:
            raise unknown_kind(path, _head(path))
        else:
            found.ignored.append(path)
    for folder, count in shards.items():
        found.notes.append(
            f"passed over: {numbered(count, 'shard')} in {folder or os.curdir} of tokenmill's"
        )
    return found


def _paths(argument: str, selection: Selection) -> list[tuple[str, bool]]:
    """The files an argument stands for, and whether each was named itself. ``~`` in quotes is what
    the shell would have made of it, where there is no file of that name."""
    if argument.startswith("~") and not os.path.lexists(argument):
        argument = os.path.expanduser(argument)
    path = Path(argument)
    # os.path answers "no" where pathlib raises: a name too long, a folder closed to us.
    if os.path.isdir(argument):
        return [(file, False) for file in _files_below(path, selection)]
    if os.path.lexists(argument):
        return [(str(path), True)]
    if glob.has_magic(argument):
        found = ((match, os.path.isdir(match)) for match in glob.iglob(argument, recursive=True))
        matches = [pair for pair in found if pair[1] or selection.holds(pair[0])]
        selection.listing.check()
        matches.sort(key=lambda pair: os.fsencode(pair[0]))
        below = [
            pair
            for match, is_folder in matches
            for pair in (
                [(file, False) for file in _files_below(Path(match), selection)]
                if is_folder
                else [(str(Path(match)), False)]
            )
        ]
        if below:
            return below
        raise InputError("no file matches", argument, None, "check the pattern and the quotes")
    raise InputError("no such file or folder", argument, None, "check the path")


def _files_below(folder: Path, selection: Selection) -> list[str]:
    """All files below a folder, hidden ones left out, links followed but never in circles. Raises
    TooManyFiles when all are counted, and memory cannot hold them."""
    found: list[str] = []
    visited: set[tuple[int, int]] = set()

    waiting = [str(folder)]
    while waiting:
        root = waiting.pop()
        try:
            status = os.stat(root)
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                continue
            visited.add(identity)
            folders = []
            # Entry by entry: os.walk makes a list of all that is in a folder, perhaps a million.
            with os.scandir(root) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    # As pathlib writes it; but an object of it for each file is slow, and large.
                    path = entry.name if root == "." else os.path.join(root, entry.name)
                    if _is_folder(entry):
                        folders.append(path)
                    elif selection.holds(path):
                        found.append(path)
        except OSError as error:
            raise InputError(
                "cannot read a folder", str(error.filename), error.strerror, "make it readable"
            ) from None
        waiting += sorted(folders, key=os.fsencode, reverse=True)
    selection.listing.check()
    return sorted(found, key=os.fsencode)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _head(path: str) -> bytes:
    """How the content of a file begins, for the error that names it."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _input_file(path: str, selection: Selection) -> InputFile | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(
            "a file's name is not UTF-8", repr(os.fsencode(path)), None, "rename the file"
        ) from None
    known = selection.kind_of(path)
    if known is None:
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        if os.path.islink(path):
            raise InputError(
                "the input is a link that leads nowhere",
                path,
                error.strerror,
                "put back what it leads to, or move the link away, then run this again",
            ) from error
        raise unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            "the input is not a regular file",
            path,
            "pipes and devices have no size",
            "write what comes out of it to a file first; or leave it out of the inputs, or move it "
            "away",
        )
    if not os.access(path, os.R_OK):
        raise unreadable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    probe = _probe(path, status.st_size)
    return InputFile(path, *known, status.st_size, status.st_mtime_ns, probe, LOCAL)


def _probe(path: str, size: int) -> str:
    """A hash of the beginning, the middle and the end: cheap, and more than the time can tell."""
    digest = xxhash.xxh3_64()
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            for place in (0, max(0, size // 2 - _PROBE // 2), max(0, size - _PROBE)):
                # Of a small file no buffer of 64 KiB: making it took longer than reading.
                digest.update(os.pread(fd, min(_PROBE, size - place + 1), place))
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()
