"""Tokenizers on the Hugging Face Hub: ``ORG/NAME``, or ``ORG/NAME@REVISION``.

Only the tokenizer's own small files are fetched, never weights, and no code is run. A revision is
resolved to a commit once, and every file is of that commit. ``HF_TOKEN``, ``HF_ENDPOINT`` and
``HF_HOME`` work as everywhere; what is in the cache already needs no network.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenmill.errors import TemporaryFailure, TokenmillError, UsageError
from tokenmill.extras import install_extra
from tokenmill.stores.hub import check_endpoint

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
    check_endpoint()
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise TokenmillError(
            "tokenizers on the Hub need the library huggingface_hub",
            choice,
            "it is not installed",
            f"{install_extra('hub')}, or give the path of a tokenizer.json",
        ) from None
    disable_progress_bars()  # a few small files; and stderr is for what tokenmill tells
    name, _, revision = choice.partition("@")
    advice = "check the name and the revision, and set HF_TOKEN for a private one"
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(FILES))
        )
    except GatedRepoError as error:
        advice = f"ask for access at the page of {name}, and set HF_TOKEN"
        raise UsageError(f"the Hub asks who wants {name}", choice, _why(error), advice) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UsageError(f"the Hub has no {choice}", choice, _why(error), advice) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise TemporaryFailure(
            f"cannot fetch the tokenizer {choice} from the Hub",
            choice,
            _why(error),
            "run it again; or give the path of a tokenizer.json",
        ) from error
    except ValueError as error:
        raise UsageError(f"{choice} is no Hub id", None, _why(error), advice) from error
    return folder, folder.name


def _why(error: Exception) -> str:
    """The error's kind and its first line; of a failure that hides another, the first one."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    lines = str(cause).strip().splitlines() or ["no reason was given"]
    return f"{type(cause).__name__}: {lines[0]}"
