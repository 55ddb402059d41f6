"""Where bytes are: one file a kind of store.

To add a store: one file with a ``Store`` and an ``expand``, one line in ``SCHEMES``
(docs/write-a-store.md).
"""

from __future__ import annotations

import os
from importlib import import_module

from tokenmill.errors import UsageError
from tokenmill.stores.store import Expand, Found, InputFile, RangeReader, Selection, Store

__all__ = ["SCHEMES", "Found", "InputFile", "RangeReader", "Selection", "Store", "expand"]

SCHEMES = {
    "hf": "tokenmill.stores.hub",
    "http": "tokenmill.stores.http",
    "https": "tokenmill.stores.http",
    "s3": "tokenmill.stores.object_store",
    "gs": "tokenmill.stores.object_store",
    "az": "tokenmill.stores.object_store",
}
"""Which module has the ``expand`` of a scheme; each is loaded when it is asked for."""


def expand(argument: str, selection: Selection | None = None) -> Found:
    """The files of one input argument. Raises InputError when it leads nowhere.

    What is there under that name on this machine is meant before a dataset on the Hub is.
    ``selection`` None: nothing is asked for beside the argument.
    """
    from tokenmill.stores import hub, local, stdin

    selection = Selection() if selection is None else selection
    if argument == stdin.PATH:
        return stdin.expand(argument, selection)
    scheme = argument.partition("://")[0] if "://" in argument else ""
    if scheme == "hf" or (not scheme and hub.is_id(argument) and not os.path.lexists(argument)):
        return hub.expand(argument, selection)
    if selection.config is not None:
        raise UsageError(
            "--config is for a dataset on the Hub",
            argument,
            "there is a file or folder of that name here" if not scheme else None,
            "leave --config out, or write hf://datasets/ORG/NAME",
        )
    if scheme not in SCHEMES:
        return local.expand(argument, selection)
    listed: Expand = import_module(SCHEMES[scheme]).expand
    return listed(argument, selection)
