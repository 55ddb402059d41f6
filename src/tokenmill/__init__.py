"""tokenmill: any text corpus to token shards for LLM pretraining.

``prepare`` does the main job, ``plan`` tells what it would do, ``verify`` holds a dataset against
its manifest. Names load on first use, so that importing tokenmill is free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokenmill.version import __version__ as __version__

__all__ = ["Manifest", "TokenmillError", "load_manifest", "plan", "prepare", "verify"]

if TYPE_CHECKING:
    from tokenmill.commands.prepare import plan, prepare
    from tokenmill.commands.verify import verify
    from tokenmill.dataset.manifest import Manifest, load_manifest
    from tokenmill.errors import TokenmillError

_HOMES = {
    "Manifest": "dataset.manifest",
    "TokenmillError": "errors",
    "load_manifest": "dataset.manifest",
    "plan": "commands.prepare",
    "prepare": "commands.prepare",
    "verify": "commands.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tokenmill' has no attribute {name!r}")
    if _HOMES[name] != "errors":
        from tokenmill.system import check_system

        check_system()
    return getattr(import_module(f"tokenmill.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """What is there, loaded or not."""
    return sorted({*globals(), *__all__})
