"""Reads that are tried again: a disk or a network file system may fail once and not twice."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

TRIES = 3
PAUSE_SECONDS = 0.2


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
