"""Reads that are tried again, for a disk or a network file system may fail once and not twice; and
reads of small files that anybody may have put there."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tokenmill.memory import memory_limit

TRIES = 3
PAUSE_SECONDS = 0.2
MOST_BYTES = max(256 * 1024 * 1024, memory_limit() // 4)
"""More is no manifest or journal, or none that can be held: they name all inputs, 200 to 400 bytes
each, of which there may be millions."""


def read_patiently(read: Callable[[], bytes]) -> bytes:
    """What ``read`` gives, which is called again after an I/O error, a few times in all.

    ``read`` must leave the place in the file as it was when it fails. Raises OSError.
    """
    for attempt in range(1, TRIES):
        try:
            return read()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            time.sleep(PAUSE_SECONDS * attempt)
    return read()


def read_small(path: Path) -> bytes:
    """The content of a file that has no reason to be large.

    Raises OSError for one that is, and for a pipe or a device, which may never end.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_BYTES} bytes")
        return file.read(size)


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file with their line feeds, one at a time: no line has a reason to be large.

    Raises OSError for one that is, and for a pipe or a device.
    """
    with _opened(path) as file:
        left = os.fstat(file.fileno()).st_size
        while line := file.readline(min(left, MOST_BYTES + 1)):
            if len(line) > MOST_BYTES:
                raise OSError(errno.EFBIG, f"a line larger than {MOST_BYTES} bytes")
            left -= len(line)
            yield line


def _opened(path: Path) -> BinaryIO:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file
