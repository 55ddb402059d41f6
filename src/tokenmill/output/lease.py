"""Who may write under a prefix of an object store: one run at a time, on whatever host.

The lease is an object that its holder writes anew every few seconds, on condition that it is still
as the holder left it. Another run that finds it watches whether it changes: if so, its holder
lives and the newcomer is refused; if not, the newcomer takes it over, and the one that held it
finds out at its next beat and stops. No clock is compared with another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from tokenmill.errors import OutputInUse, TemporaryFailure, TokenmillError
from tokenmill.stores.bucket import Bucket, ObjectChanged, Tag
from tokenmill.stores.claims import STATE_FOLDER
from tokenmill.stores.disk_reads import read_small
from tokenmill.units import format_seconds

TOKEN = "token"
"""The file in a staging folder that names it."""
LEASE = "lease"
"""The name of the object, among the run's state."""
BEAT_SECONDS = 10.0
WATCHED_BEATS = 4
"""A holder whose beats fail for this long may lose the prefix to another run."""


class LeaseRecord(msgspec.Struct):
    """What the object holds. ``token`` names the staging folder that the run works from, ``beat``
    differs each time; ``is_held`` is false when a run has ended and can be gone on with."""

    token: str
    holder: str
    fingerprint: str
    beat: int = 0
    is_held: bool = True


def parse_lease(content: bytes) -> LeaseRecord | None:
    """What a lease object tells, if it is one."""
    try:
        return msgspec.json.decode(content, type=LeaseRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_lease(bucket: Bucket, key: str) -> tuple[LeaseRecord, Tag] | None:
    """What the lease there tells, with its tag; None when there is none. Raises TokenmillError
    where it is another program's."""
    found = bucket.fetch(key)
    if found is None:
        return None
    record = parse_lease(found[0])
    if record is None:
        raise TokenmillError(
            "the lease of this prefix makes no sense",
            bucket.url(key),
            None,
            "if no run writes there, remove that object",
        )
    return record, found[1]


def token_of(folder: Path) -> str | None:
    """The name that a staging folder was given, if it was given one."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return read_small(folder / STATE_FOLDER / TOKEN).decode().strip() or None
    return None


def new_token() -> str:
    """A name for a staging folder that no other has."""
    return uuid.uuid4().hex


class Lease:
    """The lease on one prefix, as one run sees it."""

    def __init__(self, bucket: Bucket, key: str, token: str, fingerprint: str) -> None:
        self._bucket = bucket
        self._key = key
        self._tag: Tag | None = None
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._lost_to: str | None = None
        holder = f"{os.getpid()} on {socket.gethostname()}"
        self.record = LeaseRecord(token, holder, fingerprint)

    def look(self) -> LeaseRecord | None:
        """What is there now; None when nothing is."""
        found = read_lease(self._bucket, self._key)
        if found is None:
            return None
        record, self._tag = found
        return record

    def take(self, tell: Callable[[str], None]) -> None:
        """Hold the lease from now on. Raises OutputInUse when another run does."""
        while True:
            found = self.look()
            if found is not None and found.is_held and found.token != self.record.token:
                self._watch(found, tell)
            try:
                if found is None:
                    self._tag = self._bucket.create(self._key, self._content())
                else:
                    self.record.beat = found.beat + 1
                    self._tag = self._bucket.put_bytes(self._key, self._content(), self._tag)
            except (FileExistsError, ObjectChanged):
                continue  # somebody was faster: look again
            threading.Thread(target=self._beat, name="tokenmill-lease", daemon=True).start()
            return

    def _watch(self, found: LeaseRecord, tell: Callable[[str], None]) -> None:
        """Return when its holder gave no sign of life for long enough."""
        patience = BEAT_SECONDS * WATCHED_BEATS
        tell(
            f"another run (process {found.holder}) may be writing there: watching for "
            f"{format_seconds(patience)} whether it lives"
        )
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(BEAT_SECONDS / 4)
            now = self.look()
            if now is not None and now != found and now.is_held:
                raise self._in_use(now.holder)
            if now is None or not now.is_held:
                return

    def _beat(self) -> None:
        while not self._is_over.wait(BEAT_SECONDS):
            try:
                self.renew()
            except OutputInUse:
                return
            except TokenmillError:
                continue  # the network may come back; if not, the run's own requests say so

    def renew(self) -> None:
        """Show that this run lives. Raises OutputInUse when another one has taken over."""
        with self._lock:
            self.check()
            if self._is_over.is_set():
                return  # a last beat that waited for the lock would bring it back
            self.record.beat += 1
            try:
                self._tag = self._bucket.put_bytes(self._key, self._content(), self._tag)
            except ObjectChanged:
                found = self._bucket.fetch(self._key)
                now = parse_lease(found[0]) if found is not None else None
                if found is not None and now is not None and now.token == self.record.token:
                    self._tag = found[1]  # an earlier beat, whose answer was lost
                    return
                self._lost_to = now.holder if now is not None else "unknown"
                self.check()

    def check(self) -> None:
        """Raise OutputInUse if another run was seen to have taken over."""
        if self._lost_to is not None:
            raise self._in_use(self._lost_to)

    def release(self) -> None:
        """Stop holding it, so that any host may go on at once."""
        self._is_over.set()
        if self._tag is None:
            return
        with self._lock:
            self.record.is_held = False
            try:
                self.check()
                self._bucket.put_bytes(self._key, self._content(), self._tag)
            except (ObjectChanged, OutputInUse, TemporaryFailure):
                return

    def remove(self) -> None:
        """The run is done, or nothing of it is kept: no lease is left."""
        self._is_over.set()
        with self._lock:
            self._bucket.remove([self._key])
            self._tag = None

    def _content(self) -> bytes:
        return msgspec.json.encode(self.record) + b"\n"

    def _in_use(self, holder: str) -> OutputInUse:
        return OutputInUse(
            "the output is in use by another run",
            self._bucket.url(self._key).rpartition("/.tokenmill/")[0],
            f"process {holder} writes there",
            "wait for that run, stop it, or choose another --out",
        )
