"""Where bytes are: one file a kind of place.

To add a place: one file here with a ``Place`` and an ``expand``, one line in ``SCHEMES``.
"""

from __future__ import annotations

import os
from importlib import import_module

from tokenmill.errors import UsageError
from tokenmill.stores.store import Content, Found, InputFile, Place, Selection

__all__ = ["SCHEMES", "Content", "Found", "InputFile", "Place", "Selection", "expand"]

SCHEMES = {
    "http": "http",
    "https": "http",
    "s3": "object_store",
    "gs": "object_store",
    "az": "object_store",
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
    store = import_module(f"tokenmill.stores.{SCHEMES[scheme]}")
    found: Found = store.expand(argument, selection)
    return found
