"""Runs `tokenmill.prepare` in this process and reads its folder back, by the files alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.kit import oracles, sized
from tests.kit.corpora import Corpus
from tokenmill.sizes import DEFAULT_SIZES, Sizes

SIDE_FILES = {"manifest.json", "SHA256SUMS"}


@dataclass(frozen=True)
class Outcome:
    """A finished output folder."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return manifest

    @property
    def files(self) -> dict[str, bytes]:
        """The shards by name: everything in the folder that is not a side file."""
        return {
            path.name: path.read_bytes()
            for path in sorted(self.folder.iterdir())
            if path.name not in SIDE_FILES and path.is_file()
        }

    @property
    def hashes(self) -> dict[str, str]:
        """The same, short enough to compare and to print."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}

    def tokens(self, split: str) -> oracles.Tokens:
        """All tokens of a split, its shards joined in the manifest's order."""
        names = [s["name"] for s in self.manifest["shards"] if s["split"] == split]
        parts = [tokens_of(self.folder / name) for name in names]
        return np.concatenate(parts) if parts else np.array([], dtype=np.uint16)

    def documents(self, split: str = "train", vocabulary: str = "gpt2") -> list[list[int]]:
        """The documents of a split, whichever side the delimiter is on."""
        tokens, delimiter = self.tokens(split), oracles.eot(vocabulary)
        after = self.manifest["format"] == "nanogpt"
        return (oracles.split_after if after else oracles.split_before)(tokens, delimiter)

    def all_tokens(self) -> oracles.Tokens:
        """Validation first, as the numbered formats have it, then training."""
        return np.concatenate([self.tokens("val"), self.tokens("train")])


def tokens_of(path: Path) -> oracles.Tokens:
    """The tokens of one shard, by its own header."""
    if path.suffix == ".npy":
        array: oracles.Tokens = np.load(path, allow_pickle=False)
        return array
    data = path.read_bytes()
    magic = int.from_bytes(data[:4], "little")
    if len(data) >= 1024 and magic in (20240520, 20240801):
        return np.frombuffer(data, np.uint16 if magic == 20240520 else np.uint32, offset=1024)
    return np.frombuffer(data, np.uint16)


def prepare(inputs: Corpus | Path | Sequence[Path], out: Path, **options: Any) -> Outcome:
    """Prepare into `out`, with `sizes` of blocks if told, and hand back what lies there."""
    sizes: Sizes = options.pop("sizes", DEFAULT_SIZES)
    if isinstance(inputs, Corpus):
        options = {**inputs.options, **options}
        inputs = inputs.path
    paths = [inputs] if isinstance(inputs, Path) else inputs
    sized.prepare([str(path) for path in paths], out=out, sizes=sizes, **options)
    return Outcome(out)
