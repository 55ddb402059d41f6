"""``doctor``: what this machine is and has, as far as a run depends on it."""

from __future__ import annotations

import os
import platform
import time
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from tokenmill.errors import TokenmillError
from tokenmill.extras import install_extra
from tokenmill.memory import available_cores, default_budget, memory_limit_and_place
from tokenmill.stores.durable import StagedFile, free_bytes
from tokenmill.tokenizers.engines import ENGINES, make_engine, readers
from tokenmill.tokenizers.libraries import library, told
from tokenmill.tokenizers.vocabularies.loading import load_vocabulary
from tokenmill.units import format_bytes
from tokenmill.version import __version__

_LIBRARIES = (
    "gigatoken", "fastokens", "tiktoken", "tokenizers", "sentencepiece", "huggingface_hub",
    "pyarrow", "numpy", "msgspec", "isal", "xxhash",
)  # fmt: skip
_EXTRAS = {"fastokens": "fastokens", "tokenizers": "hf", "sentencepiece": "sentencepiece"}
_PROBE_BYTES = 64 * 1024 * 1024


def diagnose(folder: Path) -> dict[str, Any]:
    """Versions, processors, memory, disk and engines; measures the disk of ``folder``."""
    limit, place = memory_limit_and_place()
    return {
        "tokenmill": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "cores": available_cores(),
        "processor": _processor(),
        "memory_limit": limit,
        "limited_by": place,
        "default_budget": default_budget(),
        "free_disk": free_bytes(folder),
        "disk_speed": _disk_speed(folder),
        "engines": {name: _engine(name) for name in ENGINES},
    }


def told_lines(found: dict[str, Any]) -> list[str]:
    """What was found, for a person: a line each, of many things a line each."""
    lines = []
    for name, value in found.items():
        label = f"{name.replace('_', ' '):>14}: "
        if isinstance(value, dict):
            told = [f"{key}: {each}" for key, each in value.items()]
            lines += [label + told[0], *(" " * len(label) + each for each in told[1:])]
        elif name in ("memory_limit", "default_budget", "free_disk"):
            lines.append(label + format_bytes(value))
        elif name == "disk_speed" and not isinstance(value, str):
            lines.append(f"{label}{format_bytes(value)}/s, written and synced")
        else:
            lines.append(f"{label}{value}")
    return lines


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    if name in ENGINES:
        found = library(name)
        return "missing" if found is None else told(name, found).partition(" ")[2]
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _disk_speed(folder: Path) -> int | str:
    """Bytes a second, of writing and syncing 64 MiB; or why it was not measured."""
    probe = os.urandom(1024 * 1024)
    try:
        staged = StagedFile(folder / f".tokenmill-doctor-{uuid.uuid4().hex}")
        staged.path.unlink()  # so that no death leaves it behind
        began = time.perf_counter()
        for _ in range(_PROBE_BYTES // len(probe)):
            staged.write(memoryview(probe))
        staged.finish()
    except TokenmillError as error:
        return f"not measured: {error.what}"
    seconds = time.perf_counter() - began
    staged.discard()
    return round(_PROBE_BYTES / seconds)


def _engine(name: str) -> str:
    """Does it load, and does it give the ids it should?"""
    vocabulary = load_vocabulary("gpt2")
    if _version(name) == "missing" and name in _EXTRAS:
        return f"not installed; {install_extra(_EXTRAS[name])}"
    if name not in readers(vocabulary):
        return "ok"
    try:
        ids = make_engine(name, vocabulary).encode_piece(b"Hello, world!")
    except Exception as error:  # noqa: BLE001  whatever is wrong with a library is the finding
        return f"broken: {type(error).__name__}: {error}"
    return "ok" if ids == [15496, 11, 995, 0] else f"broken: wrong ids {ids}"
