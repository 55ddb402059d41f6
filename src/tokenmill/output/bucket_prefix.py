"""A prefix of an object store as output: the place of those who have no disk.

The run works in a local folder and stores each shard when it is whole; the manifest comes last,
and only where there is none. What is unfinished has a lease, which says who writes there, and the
state of the run, both below ``.tokenmill/``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

from tokenmill.dataset.files import StoredFiles
from tokenmill.dataset.manifest import (
    MANIFEST,
    QUARANTINE,
    SHA256SUMS,
    Manifest,
    ShardFile,
    parse_manifest,
)
from tokenmill.errors import DamageFound, SpecMismatch, TemporaryFailure, TokenmillError
from tokenmill.output.folder import Folder
from tokenmill.output.journal import JOURNAL, Log, OpenFile, RunBegun, parse_journal
from tokenmill.output.lease import LEASE, TOKEN, Lease, new_token, read_lease, token_of
from tokenmill.output.output import Needs, OtherRun, Removal, manifest_in
from tokenmill.output.uploads import Uploads
from tokenmill.stores.bucket import PART_BYTES, Bucket, parse
from tokenmill.stores.durable import PARTIAL, STATE_FOLDER, StagedFile, write_durably
from tokenmill.stores.lock import remove_working_folder
from tokenmill.stores.prefix import FileChanged, Prefix
from tokenmill.stores.readahead import in_background
from tokenmill.stores.retry import RetryPolicy
from tokenmill.units import format_bytes

_GOODBYE_SECONDS = 2.0


class BucketPrefix:
    """The prefix of one run, and the local folder it works in. Its methods are those of
    ``Output``."""

    mending = "--overwrite, which makes all of it again"

    def __init__(
        self, path: Path, url: str, policy: RetryPolicy, log: Callable[[str], None]
    ) -> None:
        """``policy`` is for the output alone: reading may be given up while what was made is still
        to be stored."""
        scheme, name, key = parse(url)
        self.path = path
        self._local = Folder(path)
        self._bucket = Bucket(scheme, name, policy)
        self._prefix = Prefix(self._bucket, key)
        self.files = StoredFiles(self._prefix)
        self._log = log
        self._lease: Lease | None = None
        self._is_new = False

    def hold(self, log: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        return self._local.hold(log)

    def take_stock(self) -> None:
        self._local.take_stock()

    def journal(self) -> Log | None:
        return self._local.journal()

    def other_run(self, fingerprints: Collection[str]) -> OtherRun | None:
        found = read_lease(self._bucket, self._prefix.state(LEASE))
        if found is None or found[0].fingerprint in fingerprints:
            return None
        log = self._stored_log()
        return OtherRun(found[0].holder, None if log is None else log.run)

    def lost(self, file: ShardFile, is_stored: bool) -> str | None:
        if not is_stored:
            return self._local.lost(file, is_stored)
        is_there = self._prefix.holds(file.name, file.bytes, file.sha256)
        return None if is_there else self.files.place(file.name)

    def foreign(self, needs: Needs, removal: Removal | None = None) -> list[str]:
        """Where a run has begun, shards of its own are there: what is not, is told when its name
        is needed."""
        found = self._local.foreign(needs, None if removal is None else removal.local)
        if removal is not None:
            goes = set(removal.mine)
            found += [name for name in self.files.names() if needs(name) and name not in goes]
        elif self._is_new:
            found += [name for name in self.files.names() if needs(name)]
        return found

    def removal(self, needs: Needs) -> Removal:
        """Raises TokenmillError where an object of a dataset is no longer as it was written."""
        known, names = self._of_the_dataset(), self.files.names()
        mine = {MANIFEST}.intersection(names)
        present = known.keys() & set(names)
        mine |= {name for name in present if self._prefix.holds(name, *known[name])}
        # What a run has stored that was killed has its sign, whether a journal tells it or not.
        rest = [name for name in names if name not in mine]
        needed = [name for name in rest if name in present or needs(name)]
        mine |= {name for name in needed if self._prefix.is_signed(name)}
        if doubtful := present - mine:
            raise TokenmillError(
                "objects of the dataset there are not as tokenmill wrote them",
                f"{self.files.where}: {', '.join(sorted(doubtful)[:5])}",
                "they were changed or replaced, and what tokenmill did not write it does not "
                "remove",
                "move them away, or choose another --out, then run this again",
            )
        size = sum(self.files.entry(name).size for name in mine)
        return Removal(tuple(sorted(mine)), size=size, local=self._local.removal(needs))

    def _of_the_dataset(self) -> dict[str, tuple[int, str]]:
        """Size and SHA-256 of each object of a finished dataset, but the manifest."""
        content = manifest_in(self.files)
        if content is None:
            return {}
        known: dict[str, tuple[int, str]] = {}
        with contextlib.suppress(DamageFound):
            manifest = parse_manifest(content, self.files.place(MANIFEST))
            known = {file.name: (file.bytes, file.sha256) for file in manifest.shard_files()}
            sums = manifest.sha256sums()
            known[SHA256SUMS] = len(sums), hashlib.sha256(sums).hexdigest()
            if manifest.quarantine.sha256 is not None:
                known[QUARANTINE] = manifest.quarantine.bytes, manifest.quarantine.sha256
        return known

    def is_as_seen(self, removal: Removal) -> bool:
        return removal.local is None or self._local.is_as_seen(removal.local)

    def has_state(self) -> bool:
        return any(name.startswith(f"{STATE_FOLDER}/") for name in self.files.names())

    def reserve(self, fingerprint: str) -> None:
        if self._lease is not None:
            return
        key = self._prefix.state(LEASE)
        lease = Lease(self._bucket, key, self._token(), fingerprint)
        self._is_new = lease.look() is None
        lease.take(self._log)
        self._lease = lease

    def _token(self) -> str:
        """What tells this local folder from every other one."""
        token = token_of(self.path)
        if token is None:
            token = new_token()
            write_durably(self.path / STATE_FOLDER / TOKEN, token.encode() + b"\n")
        return token

    def _stored_journal(self) -> bytes | None:
        """None where there is none, or one that is none of ours: so large."""
        with contextlib.suppress(OSError):
            return self.files.read(f"{STATE_FOLDER}/{JOURNAL}")
        return None

    def _stored_log(self) -> Log | None:
        content = self._stored_journal()
        if content is None:
            return None
        return parse_journal(content, self._bucket.url(self._prefix.state(JOURNAL)))

    def recover(self) -> None:
        content = self._stored_journal()
        if content is None:
            return
        log, local = parse_journal(content, self.files.where), self.journal()
        if log is None or log.checkpoint is None:
            return
        done = local.checkpoint.done_bytes if local is not None and local.checkpoint else -1
        if local is not None and (local.encoded or done >= log.checkpoint.done_bytes):
            return
        self._local.remove_leftovers()
        for file in log.checkpoint.open:
            if not self._download(file):
                self._log(
                    f"warning: {file.name}{PARTIAL} in the store is not what the journal there "
                    "tells; the run begins anew"
                )
                self._local.remove_leftovers()
                return
        write_durably(self.path / STATE_FOLDER / JOURNAL, content)

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

    def remove(self, removal: Removal) -> list[str]:
        told = [] if removal.local is None else self._local.remove(removal.local)
        names = removal.mine
        if not names:
            return told
        self._bucket.remove([self._prefix.at(MANIFEST)])  # first: then nothing claims to be whole
        self._bucket.remove([self._prefix.at(name) for name in names if name != MANIFEST])
        self._remove_stored_state()
        self.files.forget()
        self._is_new = False
        size = format_bytes(removal.size)
        return [*told, f"removed {len(names)} objects, {size}, of {self.files.where}"]

    def remove_leftovers(self) -> None:
        self._local.remove_leftovers()

    def _remove_stored_state(self) -> None:
        """Remove what is ours below ``.tokenmill/``, but the lease: the journal and the unfinished
        files beside it."""
        names = {JOURNAL} if self._stored_log() is not None else set()
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
        self.files.forget()
        quarantine, log = manifest.quarantine, self.journal()
        stored = log.stored if log is not None else set()
        for shard in manifest.shards:
            for file in shard.all_files:
                if shard.name not in stored or not self._is_there(file):
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
                self.files.place(MANIFEST),
                "another run wrote there",
                "see what it holds (tokenmill inspect), then choose another --out, or --overwrite",
            ) from None

    def _is_there(self, file: ShardFile) -> bool:
        found = self.files.objects().get(file.name)
        return found is not None and found.size == file.bytes

    def _send(self, name: str, size: int, sha256: str) -> None:
        path = self.path / (name + PARTIAL)
        try:
            self._prefix.send(path, name, size, sha256, lambda: False)
        except (FileChanged, FileNotFoundError) as error:
            raise TokenmillError(
                "a whole file is neither in the store nor on this machine as it was written",
                f"{self.files.place(name)}, {path}",
                None,
                "run the same command with --overwrite, which starts anew",
            ) from error

    def finish(self) -> None:
        if self._lease is not None:
            self._remove_stored_state()
            with contextlib.suppress(TemporaryFailure):
                self._lease.remove()
        remove_working_folder(self.path)

    def leave(self, keeps: bool, is_wrong: bool = False) -> None:
        self._local.leave(keeps, is_wrong)
        lease = self._lease
        if lease is None:
            return
        if is_wrong:  # or another machine would go on with it
            self._remove_stored_state()
        is_worth = self.journal() is not None
        # The network may be what failed: it gets a moment, and no more.
        goodbye = in_background(lease.release if is_worth or not self._is_new else lease.remove)
        with contextlib.suppress(NotYet, TokenmillError):
            goodbye.result(_GOODBYE_SECONDS)
