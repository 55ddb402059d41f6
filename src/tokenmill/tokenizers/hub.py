"""Tokenizers on the Hugging Face Hub: ``ORG/NAME``, or ``ORG/NAME@REVISION``.

Only the tokenizer's own small files are fetched, never weights, and no code is run. A revision is
resolved to a commit once, and every file is of that commit. ``HF_TOKEN``, ``HF_ENDPOINT`` and
``HF_HOME`` work as everywhere; what is in the cache already needs no network.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenmill.errors import TokenmillError, UsageError

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",
    "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""All that is ever fetched."""
_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(?:@[\w][\w./-]*)?", re.ASCII)


def is_hub_id(choice: str) -> bool:
    """Has it the form of a Hub id?"""
    return _ID.fullmatch(choice) is not None


def fetch(choice: str) -> tuple[Path, str]:
    """The folder with the tokenizer's files, and the commit they are of. Raises TokenmillError."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    except ImportError:
        raise TokenmillError(
            "tokenizers on the Hub need the library huggingface_hub",
            choice,
            "it is not installed",
            "python3 -m pip install 'tokenmill[hub]', or give the path of a tokenizer.json",
        ) from None
    name, _, revision = choice.partition("@")
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(FILES))
        )
    except GatedRepoError as error:
        raise UsageError(
            f"the Hub gives {name} only to those who may have it",
            choice,
            _first_line(error),
            f"ask for access at the page of {name}, and set HF_TOKEN",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise TokenmillError(
            f"cannot fetch the tokenizer {choice} from the Hub",
            choice,
            f"{type(error).__name__}: {_first_line(error)}",
            "check the name, the revision and the network, and set HF_TOKEN for a private one; or "
            "give the path of a tokenizer.json",
        ) from error
    return folder, folder.name


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "no reason was given"
