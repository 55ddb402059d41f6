"""Where bytes are: one file a kind of place.

To add a place: one file here with a ``Place`` and an ``expand``, one line in ``SCHEMES``.
"""

from __future__ import annotations

from tokenmill.places import local, standard_input, store
from tokenmill.places.place import Content, Expand, Found, InputFile, Place

__all__ = ["SCHEMES", "Content", "Found", "InputFile", "Place", "expand"]

SCHEMES: dict[str, Expand] = {
    "s3": store.expand,
    "gs": store.expand,
    "az": store.expand,
}


def expand(argument: str) -> Found:
    """The files of one input argument. Raises InputError when it leads nowhere."""
    if argument == standard_input.PATH:
        return standard_input.expand(argument)
    scheme = argument.partition("://")[0] if "://" in argument else ""
    return SCHEMES.get(scheme, local.expand)(argument)
