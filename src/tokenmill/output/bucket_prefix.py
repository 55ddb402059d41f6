"""A prefix in an object store as a run finds it: the output folder of those who have no disk.

The run works in a local folder and stores each shard when it is whole; the manifest comes last,
and only where there is none. What is unfinished has a lease, which says who writes there, and the
state of the run, both below ``.tokenmill/``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

from tokenmill.dataset.manifest import (
    MANIFEST,
    QUARANTINE,
    SHA256SUMS,
    Manifest,
    ShardFile,
    is_from_tokenmill,
    parse_manifest,
)
from tokenmill.errors import DamageFound, SpecMismatch, TemporaryFailure, TokenmillError
from tokenmill.output.asked import Asked
from tokenmill.output.folder import OutputFolder
from tokenmill.output.journal import JOURNAL, Log, OpenFile, RunBegun, parse_journal, read_journal
from tokenmill.output.lease import Lease, new_token
from tokenmill.output.uploads import Uploads
from tokenmill.stores.bucket import PART_BYTES, Bucket, StoredObject, parse
from tokenmill.stores.disk_reads import read_small
from tokenmill.stores.durable import PARTIAL, STATE_FOLDER, StagedFile, write_durably
from tokenmill.stores.lock import remove_working_folder
from tokenmill.stores.prefix import FileChanged, Prefix
from tokenmill.stores.readahead import in_background
from tokenmill.stores.retry import RetryPolicy
from tokenmill.units import format_bytes

_LEASE = "lease"
_GOODBYE_SECONDS = 2.0


class OutputPrefix(OutputFolder):
    """The prefix of one run, and the local folder it works in, looked at under its lock."""

    _holds = "the prefix holds objects"

    def __init__(
        self,
        path: Path,
        plan: Asked,
        url: str,
        policy: RetryPolicy,
        tell: Callable[[str], None],
    ) -> None:
        """``policy`` is for the output alone: reading may be given up while what was made is still
        to be stored."""
        super().__init__(path, plan)
        scheme, name, key = parse(url)
        self._bucket = Bucket(scheme, name, policy)
        self._prefix = Prefix(self._bucket, key)
        self._tell = tell
        self._lease: Lease | None = None
        self._is_new = False
        self._names: set[str] = set()
        self._stored: dict[str, StoredObject] | None = None
        self.where = self._prefix.url

    def finished(self) -> Manifest | None:
        manifest = super().finished()
        if manifest is not None:
            self._remove_stored_state()
            self._bucket.remove([self._prefix.state(_LEASE)])
            remove_working_folder(self.path)
        return manifest

    def _load(self) -> Manifest | None:
        key = self._prefix.at(MANIFEST)
        found = self._bucket.fetch(key)
        if found is None:
            return None
        if not is_from_tokenmill(found[0]):
            raise self._in_the_way([MANIFEST])
        return parse_manifest(found[0], self._bucket.url(key))

    def _is_whole(self, file: ShardFile) -> bool:
        found = self._there().get(file.name)
        return found is not None and found.size == file.bytes

    def _there(self) -> dict[str, StoredObject]:
        """What lies under the prefix, by its name there; looked at once."""
        if self._stored is None:
            skipped = len(self._prefix.at(""))
            found = self._bucket.objects(self._prefix.key)
            self._stored = {entry.key[skipped:]: entry for entry in found}
        return self._stored

    def unfinished(self) -> Log | None:
        self._hold()
        self._recover()
        return super().unfinished()

    def _lost(self, file: ShardFile, is_stored: bool) -> str | None:
        if is_stored:
            is_there = self._prefix.holds(file.name, file.bytes, file.sha256)
            return None if is_there else f"{self.where}/{file.name}"
        return super()._lost(file, is_stored)

    def _hold(self, any_spec: bool = False) -> None:
        """Take the lease. Raises OutputInUse, and SpecMismatch where a run of another kind is
        unfinished."""
        if self._lease is not None:
            return
        lease = Lease(
            self._bucket, self._prefix.state(_LEASE), self._token(), self._plan.fingerprint()
        )
        found = lease.look()
        self._is_new = found is None
        mine = (self._plan.fingerprint(), self._before_quarantine())
        if found is not None and found.fingerprint not in mine and not any_spec:
            log = self._stored_log()
            known = [] if log is None else [log.run]
            told = [self._differences(run.spec, run.tokenizer, run.inputs) for run in known]
            raise SpecMismatch(
                "the prefix holds an unfinished run of another kind",
                self.where,
                "; ".join(told[0]) if told else f"process {found.holder} began it",
                "repeat the command that began it, choose another --out, or --overwrite to begin "
                "anew",
            )
        lease.take(self._tell)
        self._lease = lease

    def _token(self) -> str:
        """What tells this local folder from every other one."""
        path = self.path / STATE_FOLDER / "token"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if token := read_small(path).decode().strip():
                return token
        token = new_token()
        write_durably(path, token.encode() + b"\n")
        return token

    def _stored_log(self) -> Log | None:
        key = self._prefix.state(JOURNAL)
        found = self._bucket.fetch(key)
        return None if found is None else parse_journal(found[0], self._bucket.url(key))

    def _recover(self) -> None:
        """Where the store tells of more than this machine has, go on from that."""
        found = self._bucket.fetch(self._prefix.state(JOURNAL))
        if found is None:
            return
        log, local = parse_journal(found[0], self.where), read_journal(self.path)
        if log is None or log.checkpoint is None:
            return
        done = local.checkpoint.done_bytes if local is not None and local.checkpoint else -1
        if local is not None and (local.encoded or done >= log.checkpoint.done_bytes):
            return
        self._remove_own()
        for file in log.checkpoint.open:
            if not self._download(file):
                self._tell(
                    f"warning: {file.name}{PARTIAL} in the store is not what the journal there "
                    "tells; the run begins anew"
                )
                self._remove_own()
                return
        write_durably(self.path / STATE_FOLDER / JOURNAL, found[0])

    def _download(self, file: OpenFile) -> bool:
        """Get an unfinished file; is it what it should be?"""
        key = self._prefix.state(file.name + PARTIAL)
        staged = StagedFile(self.path / file.name)
        try:
            for start in range(0, file.bytes, PART_BYTES):
                stop = min(start + PART_BYTES, file.bytes)
                staged.write(memoryview(self._bucket.read(key, start, stop)))
            return staged.finish() == file.sha256
        except FileNotFoundError:
            return False
        finally:
            staged.close()

    def refuse_foreign(self, but: Collection[Path] = ()) -> None:
        super().refuse_foreign(but)
        if not self._is_new:
            return
        taken = [name for name in self._there() if self._needs(name)]
        if taken:
            raise self._in_the_way(taken)

    def leave(self, keeps: bool = True) -> None:
        super().leave(keeps)
        lease = self._lease
        if lease is None:
            return
        if not keeps:  # or another machine would go on with it
            self._remove_stored_state()
        is_worth = read_journal(self.path) is not None
        # The network may be what failed: it gets a moment, and no more.
        goodbye = in_background(lease.release if is_worth or not self._is_new else lease.remove)
        with contextlib.suppress(NotYet, TokenmillError):
            goodbye.result(_GOODBYE_SECONDS)

    def removable_bytes(self) -> int:
        """As in a folder; an object that is no longer as it was written is refused."""
        self._hold(any_spec=True)
        there = self._there()
        names, doubtful = self._mine_there(there)
        if doubtful:
            raise TokenmillError(
                "objects of the dataset there are not as tokenmill wrote them",
                f"{self.where}: {', '.join(sorted(doubtful)[:5])}",
                "they were changed or replaced, and what tokenmill did not write it does not "
                "remove",
                "move them away, or choose another --out, then run this again",
            )
        self._names = names
        if taken := [name for name in there if self._needs(name) and name not in names]:
            raise self._in_the_way(taken)
        was_new, self._is_new = self._is_new, False  # what is there was looked at
        try:
            return super().removable_bytes()
        finally:
            self._is_new = was_new

    def _mine_there(self, there: Mapping[str, StoredObject]) -> tuple[set[str], set[str]]:
        """The objects that tokenmill wrote, of a dataset or of an unfinished run, and those of a
        dataset that somebody changed since."""
        known: dict[str, tuple[int, str]] = {}
        mine: set[str] = set()
        if MANIFEST in there:
            found = self._bucket.fetch(self._prefix.at(MANIFEST))
            content = found[0] if found is not None else b""
            if not is_from_tokenmill(content):
                raise self._in_the_way([MANIFEST])
            mine.add(MANIFEST)
            with contextlib.suppress(DamageFound):
                manifest = parse_manifest(content, self.where)
                files = manifest.shard_files()
                known = {file.name: (file.bytes, file.sha256) for file in files}
                sums = manifest.sha256sums()
                known[SHA256SUMS] = len(sums), hashlib.sha256(sums).hexdigest()
                if manifest.quarantine.sha256 is not None:
                    known[QUARANTINE] = manifest.quarantine.bytes, manifest.quarantine.sha256
        present = {name for name in known if name in there}
        mine |= {name for name in present if self._prefix.holds(name, *known[name])}
        # What a run has stored that was killed has its sign, whether a journal tells it or not.
        rest = [name for name in there if name not in mine]
        needed = [name for name in rest if name in present or self._needs(name)]
        mine |= {name for name in needed if self._prefix.is_signed(name)}
        return mine, present - mine

    def overwrite(self) -> list[str]:
        there = self._there()
        local = super().overwrite()
        names = self._names
        if not names:
            return local
        self._bucket.remove([self._prefix.at(MANIFEST)])  # first: then nothing claims to be whole
        self._bucket.remove([self._prefix.at(name) for name in sorted(names - {MANIFEST})])
        self._remove_stored_state()
        size = sum(there[name].size for name in names)
        self._stored = None
        self._is_new = False
        return [*local, f"removed {len(names)} objects, {format_bytes(size)}, of {self.where}"]

    def _remove_stored_state(self) -> None:
        """Remove what is ours below ``.tokenmill/``, but the lease: the journal and the unfinished
        files beside it."""
        found = self._bucket.fetch(self._prefix.state(JOURNAL))
        log = parse_journal(found[0], self.where) if found is not None else None
        names = {JOURNAL} if log is not None else set()
        for entry in self._bucket.objects(self._prefix.at(STATE_FOLDER)):
            name = entry.key.rpartition("/")[2]
            if name.endswith(PARTIAL) and self._prefix.is_signed(f"{STATE_FOLDER}/{name}"):
                names.add(name)
        self._bucket.remove([self._prefix.state(name) for name in sorted(names)])

    def uploads(self, run: RunBegun) -> Uploads | None:
        assert self._lease is not None
        return Uploads(self._prefix, self._lease, self.path, run)

    def publish(self, manifest: Manifest) -> None:
        """Store what is not stored yet, the manifest last, and only where there is none."""
        assert self._lease is not None
        self._stored = None
        quarantine, log = manifest.quarantine, read_journal(self.path)
        stored = log.stored if log is not None else set()
        for shard in manifest.shards:
            for file in shard.all_files:
                if shard.name not in stored or not self._is_whole(file):
                    self._send(file.name, file.bytes, file.sha256)
        if quarantine.sha256 is not None:
            self._send(QUARANTINE, quarantine.bytes, quarantine.sha256)
        self._prefix.put(SHA256SUMS, manifest.sha256sums())
        self._lease.renew()
        try:
            self._bucket.create(self._prefix.at(MANIFEST), manifest.to_json())
        except FileExistsError:
            raise SpecMismatch(
                "another manifest appeared in the meantime",
                f"{self.where}/{MANIFEST}",
                "another run wrote there",
                "see what it holds (tokenmill inspect), then choose another --out, or --overwrite",
            ) from None

    def _send(self, name: str, size: int, sha256: str) -> None:
        path = self.path / (name + PARTIAL)
        try:
            self._prefix.send(path, name, size, sha256, lambda: False)
        except (FileChanged, FileNotFoundError) as error:
            raise TokenmillError(
                "a whole file is neither in the store nor on this machine as it was written",
                f"{self.where}/{name}, {path}",
                None,
                "run the same command with --overwrite, which starts anew",
            ) from error

    def finish(self) -> None:
        self._remove_stored_state()
        assert self._lease is not None
        with contextlib.suppress(TemporaryFailure):
            self._lease.remove()
        remove_working_folder(self.path)
