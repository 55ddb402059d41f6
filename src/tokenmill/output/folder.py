"""A folder as output: it is the very folder that the run works in.

Nothing that tokenmill did not write is ever removed, and what is removed is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from tokenmill.dataset.files import LocalFiles
from tokenmill.dataset.manifest import (
    MANIFEST,
    QUARANTINE,
    SHA256SUMS,
    Manifest,
    ShardFile,
    is_plain_name,
    parse_manifest,
)
from tokenmill.dataset.spec import Spec
from tokenmill.errors import DamageFound, TokenmillError
from tokenmill.formats import find_format
from tokenmill.output.asked import would_write
from tokenmill.output.journal import JOURNAL, Log, RunBegun, read_journal
from tokenmill.output.output import Needs, OtherRun, Removal, in_the_way, manifest_in
from tokenmill.output.shards import remove_scratch
from tokenmill.output.uploads import Uploads
from tokenmill.stores.claims import Claims, is_own
from tokenmill.stores.disk_reads import read_small
from tokenmill.stores.durable import (
    PARTIAL,
    STATE_FOLDER,
    explained,
    foreign,
    make_folder,
    publish,
    remove_file,
    remove_own,
    set_aside,
    sync_folder,
    write_durably,
)
from tokenmill.stores.lock import locked, remove_state
from tokenmill.units import format_bytes, format_files

_STEP = 1024 * 1024


class Folder:
    """The folder of one run. Its methods are those of ``Output``."""

    mending = "--repair, which makes only these again"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = LocalFiles(path)

    @contextlib.contextmanager
    def hold(self, log: Callable[[str], None]) -> Iterator[None]:
        make_folder(self.path)
        with locked(self.path, log):
            yield

    def journal(self) -> Log | None:
        return read_journal(self.path)

    def other_run(self, fingerprints: Collection[str]) -> OtherRun | None:
        return None  # the lock holds for all machines

    def has_state(self) -> bool:
        return True

    def reserve(self, fingerprint: str) -> None:
        return

    def recover(self) -> None:
        return

    def take_stock(self) -> None:
        """Raises TokenmillError where a foreign file has the journal's name.

        The first release made no claims: its journal and its names tell what is its own.
        """
        journal = self.path / STATE_FOLDER / JOURNAL
        with explained(journal):
            claims = Claims.begun(self.path)
            if os.path.lexists(journal) and not claims.owns(journal):
                log = read_journal(self.path)
                if log is None:
                    raise foreign(journal)
                for path in self._left_without_claims(log):
                    claims.adopt(path)
                claims.adopt(journal)
            claims.renew()

    def _left_without_claims(self, log: Log) -> list[Path]:
        spec = Spec.restored(log.run.spec)
        names = log.names | {MANIFEST, SHA256SUMS, QUARANTINE}
        found = []
        for path in self._entries():
            name = path.name.removesuffix(PARTIAL)
            is_named = name in names or (spec is not None and would_write(spec, name))
            is_final = path.name == name
            if is_named and _is_regular(path) and not (is_final and log.encoded is None):
                found.append(path)
        return found

    def lost(self, file: ShardFile, is_stored: bool) -> str | None:
        places = [self.path / (file.name + PARTIAL), self.path / file.name]
        found = next((place for place in places if os.path.lexists(place)), places[0])
        is_there = _is_regular(found) and found.stat().st_size == file.bytes
        return None if is_there else str(found)

    def foreign(self, needs: Needs, removal: Removal | None = None) -> list[str]:
        goes = () if removal is None else {*removal.mine, *removal.changed}
        return [
            path.name
            for path in self._entries()
            if needs(path.name.removesuffix(PARTIAL)) and path.name not in goes and not is_own(path)
        ]

    def removal(self, needs: Needs) -> Removal:
        """What a dataset or journal names and has not the bytes that tokenmill wrote may be
        somebody's by now: it is set aside and not removed, so that a damaged dataset can be made
        anew. Raises TokenmillError where a folder has such a name."""
        claims = Claims.begun(self.path)
        mine = {path for path in claims.paths() if path.parent == self.path}
        changed: set[Path] = set()
        for path, is_ours in [*self._of_the_dataset(), *self._of_the_run()]:
            if path not in mine and os.path.lexists(path):
                (mine if is_ours(path) else changed).add(path)
        if folders := [path.name for path in changed if _is_folder(path)]:
            raise in_the_way(self.files, folders)
        size = sum(path.lstat().st_size for path in mine)
        names = [tuple(sorted(path.name for path in paths)) for paths in (mine, changed)]
        return Removal(names[0], names[1], size, self._look((*names[0], *names[1])))

    def is_as_seen(self, removal: Removal) -> bool:
        return self._look((*removal.mine, *removal.changed)) == removal.seen

    def _look(self, names: Collection[str]) -> tuple[tuple[int, ...], ...]:
        """What tells that files are still those that were looked at: all of it was hashed, and is
        not hashed twice."""
        paths = [self.path / name for name in names]
        there = [path.lstat() for path in paths if os.path.lexists(path)]
        return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in there)

    def _of_the_dataset(self) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
        """The files of a finished dataset, each with the question whether it is what was written.
        A damaged manifest does not tell its files, but SHA256SUMS does."""
        content = manifest_in(self.files)
        if content is None:
            return
        known: dict[str, str] = {}
        lines = _sums_of(self.path)
        with contextlib.suppress(DamageFound):
            manifest = parse_manifest(content, self.files.place(MANIFEST))
            known = {file.name: file.sha256 for file in manifest.shard_files()}
            if manifest.quarantine.sha256 is not None:
                known[QUARANTINE] = manifest.quarantine.sha256
            known[MANIFEST] = hashlib.sha256(manifest.to_json()).hexdigest()
        if not known and MANIFEST in lines:
            known = lines
        elif MANIFEST in lines:
            known[MANIFEST] = lines[MANIFEST]  # of a release that wrote other keys
        known.setdefault(MANIFEST, "")
        for name, digest in known.items():
            yield self.path / name, partial(_has_sha256, sha256=digest)
        if lines.items() & known.items():
            yield self.path / SHA256SUMS, lambda _: lines.items() <= known.items()

    def _of_the_run(self) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
        """The files of an unfinished run; those that are as it left them have claims."""
        log = read_journal(self.path)
        for name in sorted(log.names) if log is not None else []:
            yield self.path / (name + PARTIAL), lambda _: False

    def remove(self, removal: Removal) -> list[str]:
        """First all of it is claimed: killed after that, the same command knows it, and goes on."""
        present, claims = [self.path / name for name in removal.mine], Claims.begun(self.path)
        size = sum(path.lstat().st_size for path in present)
        manifest = self.path / MANIFEST
        told = []
        for path in [self.path / name for name in removal.changed]:
            aside = set_aside(path)
            told.append(f"set aside {path.name}, which is not as tokenmill wrote it: {aside}")
        with explained(self.path):
            remove_own(self.path / STATE_FOLDER / JOURNAL)
            for path in [path for path in present if path.name.endswith(PARTIAL)]:
                claims.remove(path)
            present_finals = [path for path in present if os.path.lexists(path)]
            for path in present_finals:
                claims.adopt(path)
            if manifest in present_finals:  # first: without it nothing claims to be a dataset
                remove_file(manifest)
                sync_folder(self.path)
            for path in present_finals:
                claims.remove(path)
        removed = f"removed {format_files(len(present))}, {format_bytes(size)}, of {self.path}"
        return [*told, removed]

    def remove_leftovers(self) -> None:
        """The journal first, then all files that are ours; of a finished dataset none."""
        remove_own(self.path / STATE_FOLDER / JOURNAL)
        claims = Claims.of(self.path)
        is_finished = os.path.lexists(self.path / MANIFEST)
        with explained(self.path):
            for path in list(claims.paths()) if claims is not None else []:
                is_state = path.parent != self.path
                if not is_state and (path.name.endswith(PARTIAL) or not is_finished):
                    claims.remove(path)  # type: ignore[union-attr]

    def uploads(self, run: RunBegun) -> Uploads | None:
        return None

    def publish(self, manifest: Manifest) -> None:
        for shard in manifest.shards:  # left where a run was killed before it removed it
            remove_scratch(self.path, find_format(manifest.format), shard)
        names = [file.name for file in manifest.shard_files()]
        if manifest.quarantine.sha256 is not None:
            names.append(QUARANTINE)
        publish(self.path, names)
        write_durably(self.path / SHA256SUMS, manifest.sha256sums())
        write_durably(self.path / MANIFEST, manifest.to_json())

    def finish(self) -> None:
        remove_state(self.path)

    def leave(self, keeps: bool, is_wrong: bool = False) -> None:
        if keeps and not is_wrong:
            return
        with contextlib.suppress(OSError, TokenmillError):
            self.remove_leftovers()
            remove_state(self.path)

    def _entries(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TokenmillError(
                "cannot read the output folder",
                str(self.path),
                error.strerror,
                "mend that and run it again, or choose another --out",
            ) from error


def _is_regular(path: Path) -> bool:
    return os.path.isfile(path) and not path.is_symlink()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _has_sha256(path: Path, sha256: str) -> bool:
    if not _is_regular(path):
        return False
    digest = hashlib.sha256()
    with explained(path), path.open("rb") as file:
        while chunk := file.read(_STEP):
            digest.update(chunk)
    return digest.hexdigest() == sha256


def _sums_of(folder: Path) -> dict[str, str]:
    """The names in SHA256SUMS with their hashes; none where it is no such file."""
    try:
        lines = read_small(folder / SHA256SUMS).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines]
    sums = {match[2]: match[1] for match in found if match and is_plain_name(match[2])}
    return sums if len(sums) == len(lines) else {}
