"""The one writer: shards cut, committed and gone on with, in a folder or a bucket.

To add an output: one file with a class that has the methods of ``output.Output``, one line in
``open_output``; the contract tests of outputs then run on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenmill.output.output import Output


def open_output(
    where: str, staging: str | None, patience: float, log: Callable[[str], None]
) -> Output:
    """What ``--out`` names; ``staging`` and ``patience`` (in seconds, of requests that fail) are
    for a URL."""
    from tokenmill.output.bucket_prefix import BucketPrefix
    from tokenmill.output.folder import Folder
    from tokenmill.output.place import is_store, working_folder
    from tokenmill.stores.retry import RetryPolicy

    folder = working_folder(where, staging)
    if is_store(where):
        return BucketPrefix(folder, where, RetryPolicy(patience, log), log)
    return Folder(folder)
