"""Where lines for a person go when the library is called: to the logger ``tokenmill``.

The command line prints the same lines, so that whoever calls from Python can hear, and filter, all
that it warns of.
"""

from __future__ import annotations

import logging

from tokenmill.console import hide_block, one_line

LOGGER = logging.getLogger("tokenmill")


def log_line(line: str) -> None:
    """Give a line that the command line would print to the logger ``tokenmill``: a warning as one,
    the rest as information. Where nobody set up logging, Python prints warnings to stderr."""
    text = one_line(line)
    if text.startswith("warning: "):
        hide_block()
        LOGGER.warning("%s", text.removeprefix("warning: "))
    else:
        LOGGER.info("%s", text)
