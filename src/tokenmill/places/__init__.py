"""Where bytes are: one file a kind of place.

To add a place: one file here with a ``Place`` and an ``expand``, one line in ``SCHEMES``.
"""

from __future__ import annotations

import os

from tokenmill.errors import UsageError
from tokenmill.places import http, hub, local, standard_input, store
from tokenmill.places.place import (
    NO_MORE,
    Content,
    Expand,
    Found,
    InputFile,
    Place,
    Selection,
)

__all__ = ["NO_MORE", "SCHEMES", "Content", "Found", "InputFile", "Place", "Selection", "expand"]

SCHEMES: dict[str, Expand] = {
    "http": http.expand,
    "https": http.expand,
    "s3": store.expand,
    "gs": store.expand,
    "az": store.expand,
}


def expand(argument: str, selection: Selection = NO_MORE) -> Found:
    """The files of one input argument. Raises InputError when it leads nowhere.

    What is there under that name on this machine is meant before a dataset on the Hub is.
    """
    if argument == standard_input.PATH:
        return standard_input.expand(argument, selection)
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
    return SCHEMES.get(scheme, local.expand)(argument, selection)
