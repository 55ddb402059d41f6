"""What to install for a part of tokenmill that not everybody needs: advice that works here.

It names the libraries themselves, as the installed package's own metadata requires them, and this
interpreter: so it works wherever tokenmill itself was installed from.
"""

from __future__ import annotations

import re
import shlex
import sys
from importlib import metadata

_LIBRARIES = {
    "cloud": ["obstore"],
    "fastokens": ["fastokens"],
    "hf": ["tokenizers"],
    "hub": ["huggingface_hub", "pyyaml", "urllib3"],
    "sentencepiece": ["sentencepiece"],
    "web": ["urllib3"],
}
"""For a checkout that was never installed, which has no metadata."""


def install_extra(extra: str) -> str:
    """The command that installs what an extra such as ``hub`` stands for."""
    words = [sys.executable or "python3", "-m", "pip", "install", *requirements_of(extra)]
    return shlex.join(words)


def requirements_of(extra: str) -> list[str]:
    """The requirements of an extra, such as ``huggingface-hub>=1.0``."""
    try:
        required = metadata.requires("tokenmill") or []
    except metadata.PackageNotFoundError:
        required = []
    of_extra = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    found = [line.partition(";")[0].strip() for line in required if of_extra.search(line)]
    return found or _LIBRARIES[extra]
