"""The manifest: what was written, from what, by what. Its existence means finished.

``manifest.json`` is the last file to appear in the output folder. It holds nothing that differs
between two runs of the same spec over the same inputs with the same ``--check``, so it
is the same, byte for byte, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tokenmill.dataset.files import DatasetFiles, files_at
from tokenmill.errors import DamageFound
from tokenmill.splits import NAMES, TRAIN, VAL
from tokenmill.stores.side_files import MANIFEST, QUARANTINE, SHA256SUMS
from tokenmill.units import numbered

__all__ = [
    "MANIFEST",
    "QUARANTINE",
    "SHA256SUMS",
    "VERSION",
    "Count",
    "Input",
    "Manifest",
    "Origin",
    "Quarantine",
    "Shard",
    "ShardFile",
    "is_from_tokenmill",
    "is_plain_name",
    "load_manifest",
    "parse_manifest",
    "read_manifest",
]

VERSION = 1
_INPUTS_A_PIECE = 1000
_COUNTED = ("documents", "tokens", "quarantined")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""How many of something: what is read from a file is refused when it cannot be."""
_LARGEST_ID = 2**32 - 1
_SIGNATURE = b'"tokenmill_version"'
"""In every manifest of ours, near its beginning: a damaged one mostly still has it."""
_DEEPEST = 32
"""Levels of what is nested in the spec and in a source's state; those written have five."""


class Origin(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where a shard's first token comes from, so that it can be made again without the others.

    Going on from the place (``file``, ``state``) in the inputs, it is the split's token number
    ``skip``; there ``val_left`` tokens (of a split by the number of documents: so many of these)
    were still to go to val by position, and a document that
    goes on belongs to ``open_split``.
    """

    file: Count
    state: dict[str, Any] | None
    skip: Count
    val_left: Count
    open_split: str


class ShardFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One file of a shard."""

    name: str
    bytes: Count
    sha256: str


class Shard(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A finished shard; ``documents`` begin in it. ``name``, ``bytes`` and ``sha256`` are those of
    its first file; ``files`` are all of them, that one too, where it has several."""

    name: str
    split: str
    tokens: Count
    documents: Count
    bytes: Count
    sha256: str
    origin: Origin
    files: list[ShardFile] = []

    @property
    def all_files(self) -> list[ShardFile]:
        """Its files, however many it has."""
        return self.files or [ShardFile(self.name, self.bytes, self.sha256)]

    @property
    def total_bytes(self) -> int:
        """Of all its files."""
        return sum(file.bytes for file in self.all_files)

    def set_files(self, files: list[ShardFile]) -> None:
        """Say which they are."""
        self.name, self.bytes, self.sha256 = msgspec.structs.astuple(files[0])
        self.files = files if len(files) > 1 else []


class Input(msgspec.Struct):
    """One input file: ``modified`` is in nanoseconds since 1970, ``probe`` a hash of a few places
    in it."""

    path: str
    kind: str
    compression: str | None
    size: Count
    modified: int
    probe: str


class Quarantine(msgspec.Struct):
    """The records left out: how many for each reason, and the hash of the file that has them
    (None when there are none)."""

    reasons: dict[str, Count]
    bytes: Count
    sha256: str | None


class Manifest(msgspec.Struct):
    """Everything known of a finished dataset.

    ``revisions``: for each moving revision of a dataset on the Hub that was asked for, its commit.
    ``libraries``: release and Unicode level of the reference, the engine and the usual engine.
    """

    manifest_version: int
    tokenmill_version: str
    fingerprint: str
    format: str
    dtype: str
    delimiter: str
    tokenizer: dict[str, str | int]
    spec: dict[str, Any]
    split: str
    inputs: list[Input]
    shards: list[Shard]
    counts: dict[str, Count]
    check: dict[str, float | int | str]
    quarantine: Quarantine
    warnings: list[str]
    revisions: dict[str, str] = {}
    libraries: dict[str, dict[str, str]] = {}

    def __repr__(self) -> str:
        tokens = ", ".join(
            f"{sum(counts):,} {split}" for split, counts in self.shard_tokens().items()
        )
        documents, files = self.counts.get("documents", 0), len(self.shards)
        return (
            f"<Manifest {self.format}, {self.tokenizer.get('name')}: "
            f"{numbered(documents, 'document')}, tokens: {tokens}, in {numbered(files, 'shard')}>"
        )

    def tokens(self, split: str) -> int:
        """All tokens of one split."""
        return sum(shard.tokens for shard in self.shards if shard.split == split)

    def shard_tokens(self) -> dict[str, list[int]]:
        """Token counts of each split's shards, in order."""
        found: dict[str, list[int]] = {}
        for shard in self.shards:
            found.setdefault(shard.split, []).append(shard.tokens)
        return found

    def shard_files(self) -> list[ShardFile]:
        """The files of all shards, in order."""
        return [file for shard in self.shards for file in shard.all_files]

    def to_json(self) -> bytes:
        """The file's content."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The file's content, in pieces: with a million inputs it is hundreds of megabytes.

        It is what ``json.dumps`` writes with an indent of 2, which makes objects of all of it; the
        inputs, which hold no fractions, msgspec writes the same.
        """
        plain = msgspec.to_builtins(msgspec.structs.replace(self, inputs=[]))
        text = json.dumps(plain, indent=2, ensure_ascii=False)
        head, sign, tail = text.partition('\n  "inputs": [')  # in no string is a line end
        yield (head + sign).encode()
        for start in range(0, len(self.inputs), _INPUTS_A_PIECE):
            some = self.inputs[start : start + _INPUTS_A_PIECE]
            listed = msgspec.json.format(msgspec.json.encode(some), indent=2)
            listed = listed.removeprefix(b"[").removesuffix(b"\n]").replace(b"\n", b"\n  ")
            yield (b"," if start else b"") + listed
        yield ("\n  " if self.inputs else "").encode() + tail.encode() + b"\n"

    def sha256sums(self) -> bytes:
        """The content of SHA256SUMS, for plain ``sha256sum -c``: this manifest is in it too, so
        that an edited one is found."""
        hashes = [(file.sha256, file.name) for file in self.shard_files()]
        if self.quarantine.sha256 is not None:
            hashes.append((self.quarantine.sha256, QUARANTINE))
        mine = hashlib.sha256()
        for piece in self.pieces():
            mine.update(piece)
        hashes.append((mine.hexdigest(), MANIFEST))
        return "".join(f"{digest}  {name}\n" for digest, name in hashes).encode()


def load_manifest(place: str | Path) -> Manifest:
    """The manifest of a finished dataset, in a folder or at a URL such as ``s3://BUCKET/PREFIX``.

    Raises DamageFound when there is none, or when it is not one.
    """
    return read_manifest(files_at(place))


def read_manifest(files: DatasetFiles) -> Manifest:
    """The same of a dataset's files."""
    try:
        content = files.read(MANIFEST)
    except OSError as error:
        raise DamageFound(
            f"this {files.noun} holds no finished dataset",
            files.where,
            f"{MANIFEST}: {error.strerror}",
            "run tokenmill prepare with this --out",
        ) from error
    return parse_manifest(content, files.place(MANIFEST))


def parse_manifest(content: bytes, where: str) -> Manifest:
    """The manifest whose content was found at ``where``. Raises DamageFound when it is none."""
    if not is_from_tokenmill(content):
        raise DamageFound(
            f"{MANIFEST} there is damaged, or was not written by tokenmill",
            where,
            "it does not tell which release wrote it",
            "put back a copy of it; if it is another program's, name another folder",
        )
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(where, str(error)) from error
    if (problem := _nonsense(manifest)) is not None:
        raise _damaged(where, problem)
    return manifest


def is_from_tokenmill(content: bytes) -> bool:
    """Is it the content of a manifest of ours, whole or damaged?"""
    return _SIGNATURE in content


def _damaged(where: str, why: str) -> DamageFound:
    return DamageFound(
        f"{MANIFEST} is damaged",
        where,
        why,
        "put back a copy of it, or prepare the dataset again with --overwrite",
    )


def _nonsense(manifest: Manifest) -> str | None:
    """What no manifest says, if this one does, though its types are right."""
    if manifest.manifest_version != VERSION:
        return f"it is of version {manifest.manifest_version}, this release reads {VERSION}"
    trees = [manifest.spec, *(shard.origin.state for shard in manifest.shards)]
    if any(map(_is_deep, trees)):
        return f"its values are nested more than {_DEEPEST} levels"
    names = [file.name for file in manifest.shard_files()]
    for name in names:
        if not is_plain_name(name):
            return f"it names a file outside its folder, {name!r}"
        if name in (MANIFEST, SHA256SUMS, QUARANTINE):
            return f"it calls {name} a shard"
    if len(set(names)) < len(names):
        return "it names a shard twice"
    for shard in manifest.shards:
        first = ShardFile(shard.name, shard.bytes, shard.sha256)
        if shard.files and (len(shard.files) == 1 or shard.files[0] != first):
            return f"the files of {shard.name!r} are not those of a shard of that name"
    if any(shard.split not in NAMES for shard in manifest.shards):
        return f"a shard is neither {TRAIN} nor {VAL}"
    texts, numbers = ("name", "sha256", "pattern"), ("end_of_text", "largest_id")
    for key in (*texts, *numbers):
        value = manifest.tokenizer.get(key)
        is_number = isinstance(value, int) and 0 <= value <= _LARGEST_ID
        if not (is_number if key in numbers else isinstance(value, str)):
            return f"its tokenizer has no {key}"
    missing = [key for key in _COUNTED if key not in manifest.counts]
    return f"it does not count {missing[0]}" if missing else None


def _is_deep(tree: Any) -> bool:
    """Is it nested deeper than anything that was ever written? Whoever walks it recursively, the
    encoder of JSON for one, could not."""
    level = [tree]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for node in level:
            below += node.values() if isinstance(node, dict) else node if _is_list(node) else ()
        level = below
    return bool(level)


def _is_list(node: Any) -> bool:
    return isinstance(node, list)


def is_plain_name(name: str) -> bool:
    """Is it the name of a file in a folder, and of none outside it?"""
    return "/" not in name and "\0" not in name and name not in ("", ".", "..")
