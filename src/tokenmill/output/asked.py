"""What an output must know of the run that writes it: which dataset it is to be."""

from __future__ import annotations

from typing import Protocol

from tokenmill.dataset.manifest import MANIFEST, QUARANTINE, SHA256SUMS
from tokenmill.dataset.spec import Spec
from tokenmill.sources.inputs import InputList
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary


class Asked(Protocol):
    """A run as it was asked for; ``commands.plan.Plan`` is one."""

    @property
    def spec(self) -> Spec:
        """The options that change the bytes."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer."""

    @property
    def inputs(self) -> InputList:
        """The files, in order."""

    @property
    def dtype(self) -> str:
        """Of the ids in its shards."""

    def fingerprint(self, spec: Spec | None = None) -> str:
        """SHA-256 over all that decides the bytes; with another spec in this one's place."""

    def libraries(self) -> dict[str, dict[str, str]]:
        """The libraries that may decide the ids, as they are installed."""


def would_write(spec: Spec, name: str) -> bool:
    """Would a run with that spec write a shard's file of that name?"""
    return spec.layout.writes(spec.name, name, spec.shard_tokens is not None)


def needs(spec: Spec, name: str) -> bool:
    """Would it write any file of that name?"""
    side = {MANIFEST, SHA256SUMS}
    if spec.on_bad == "quarantine":
        side.add(QUARANTINE)
    return name in side or would_write(spec, name)
