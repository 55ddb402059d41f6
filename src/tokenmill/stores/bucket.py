"""A bucket of an object store, reached through obstore: every answer is checked, every failure is
named.

What may pass (time-outs, dropped connections, 429, 5xx) goes back to the run's policy, which
tries again; what will not (a bucket that is not there, credentials, a wrong region) says what to
do. Credentials, region and endpoint come from the environment, under their usual names.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tokenmill.errors import InputError, UsageError
from tokenmill.extras import install_extra
from tokenmill.stores.retry import RetryPolicy, TransientError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
PART_BYTES = 8 * 1024 * 1024
"""Of one upload request. Fixed, for a store's etag of a large object depends on it."""
_MOST_PARTS = 10_000
_UPLOADS = 3
_SILENCE = timedelta(seconds=30)
_CONNECT = timedelta(seconds=10)
_LONGEST = timedelta(minutes=30)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PREFIXES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""Of a store's variables in the environment."""
_CLIENT_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "user_agent",
)
"""Of obstore's client, as the environment names them. Given any option, it looks up none itself."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_PASSING = ("HTTP error", "UnexpectedRange", "NotPartial")
"""In the text of failures that came without a status."""
_NO_CONNECTION = "kind: Connect"
"""In the text of failures to find the host, to connect to it, or to agree with it on TLS."""
_ASKED_FOR_CREDENTIALS = ("/latest/api/token", "/latest/meta-data", "token request")
"""In the text of failures to get credentials from the machine's own service, the last resort."""
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or "
    "AWS_SKIP_SIGNATURE=true for a public bucket; from a profile: "
    "eval \"$(aws configure export-credentials --format env)\"",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or "
    "AZURE_STORAGE_SAS_TOKEN",
}  # fmt: skip

_SIGN = "tokenmillsha256"
"""What an object of ours is known by, which appears with its bytes: metadata that holds their
SHA-256. Letters and digits only: Azure takes no hyphen, some proxies no underscore."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredObject:
    """What a store tells of an object: its key, its size in bytes, and its etag if it has one."""

    key: str
    size: int
    etag: str | None


Tag = dict[str, str]
"""What tells one content of an object from the next, in the store's own terms."""


class ObjectChanged(Exception):
    """The object has no longer the etag that was asked for."""


def parse(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of a URL. Raises UsageError when it names no bucket."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES or not bucket:
        raise UsageError(
            "this is no URL of an object store", url, None, "write it as s3://BUCKET/KEY"
        )
    return scheme, bucket, key


class Bucket:
    """One bucket (for az: a container). Methods raise TokenmillError, and TemporaryFailure when
    the network fails for longer than the patience of ``policy``; they serve any thread. Pickled,
    it is a bucket of that name, whose client is made anew."""

    def __init__(self, scheme: str, name: str, policy: RetryPolicy) -> None:
        self.policy = policy
        self.scheme = scheme
        self.name = name
        self._made: ObjectStore | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, str, RetryPolicy]]:
        return Bucket, (self.scheme, self.name, self.policy)

    def url(self, key: str) -> str:
        """How a person names an object."""
        return f"{self.scheme}://{self.name}/{key}"

    def head(self, key: str) -> StoredObject | None:
        """What is told of an object; None when there is none."""

        def call() -> StoredObject | None:
            try:
                return _told(_obstore().head(self._store, key))
            except FileNotFoundError:
                return None

        return self._request(call, key)

    def sign(self, key: str) -> tuple[StoredObject, str | None] | None:
        """What is told of an object, with the SHA-256 that tokenmill signed it with (None: another
        program wrote it, or the store keeps no metadata); None when there is none."""

        def call() -> tuple[StoredObject, str | None] | None:
            try:
                result = _obstore().get(self._store, key, options={"head": True})
            except FileNotFoundError as error:
                if _is_no_bucket(error):
                    raise
                return None
            return _told(result.meta), result.attributes.get(_SIGN)

        return self._request(call, key)

    def objects(
        self, prefix: str, holds: Callable[[str], bool] = lambda key: True
    ) -> list[StoredObject]:
        """All objects whose key begins with the segments of ``prefix``, sorted by key, byte by
        byte; those that ``holds`` refuses are not kept."""

        def call() -> list[StoredObject]:
            chunks = _obstore().list(self._store, prefix or None, chunk_size=1000)
            return [_told(meta) for chunk in chunks for meta in chunk if holds(meta["path"])]

        return sorted(self._request(call, prefix), key=lambda entry: entry.key.encode())

    def read(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        """All bytes from ``start`` to ``stop``. Raises ObjectChanged when the object has another
        etag now, FileNotFoundError when it is gone."""
        wanted: dict[str, Any] = {"range": (start, stop)}
        if etag is not None:
            wanted["if_match"] = etag

        def call() -> bytes:
            result = _obstore().get(self._store, key, options=wanted)
            if etag is not None and _quoted(result.meta["e_tag"]) not in (etag, None):
                raise ObjectChanged
            data = bytes(result.bytes())
            if len(data) != stop - start:
                raise TransientError(f"{len(data)} bytes came of the {stop - start} asked for")
            self.policy.count(len(data))
            return data

        return self._request(call, key, f", byte {start}")

    def fetch(self, key: str) -> tuple[bytes, Tag] | None:
        """A small object's bytes with the tag of just these; None when there is none."""

        def call() -> tuple[bytes, Tag] | None:
            try:
                result = _obstore().get(self._store, key)
            except FileNotFoundError as error:
                if _is_no_bucket(error):
                    raise
                return None
            return bytes(result.bytes()), _tag(result.meta)

        return self._request(call, key)

    def put(
        self,
        key: str,
        pieces: Callable[[], Iterator[bytes]],
        size: int,
        sha256: str,
        is_new: bool = False,
    ) -> StoredObject:
        """Store an object of ``size`` bytes, signed with their hash, invisible until all of it is
        there.

        ``pieces`` gives its bytes, from the beginning each time it is called; what it raises ends
        the upload, and nothing appears. Raises FileExistsError where there is an object that
        ``is_new`` says there is none: of one part only, for stores take no such condition for many.
        """
        part = max(PART_BYTES, -(-size // _MOST_PARTS))
        signed: Any = {_SIGN: sha256}
        mode: Any = "create" if is_new else "overwrite"

        def call() -> StoredObject:
            put = _obstore().put
            if size <= PART_BYTES:
                content = b"".join(pieces())
                try:
                    done = put(
                        self._store, key, content, mode=mode, attributes=signed, use_multipart=False
                    )
                except _exceptions().AlreadyExistsError as error:
                    raise FileExistsError(key) from error
            else:
                done = put(
                    self._store,
                    key,
                    pieces(),
                    attributes=signed,
                    chunk_size=part,
                    max_concurrency=_UPLOADS,
                )
            found = _told(_obstore().head(self._store, key))
            if found.size != size or _quoted(done["e_tag"]) not in (found.etag, None):
                raise TransientError(f"{found.size} bytes are stored of the {size} sent")
            return found

        return self._request(call, key)

    def put_bytes(self, key: str, content: bytes, tag: Tag | None = None) -> Tag:
        """Store a small object over what is there, if that still has ``tag``; returns its tag.

        Raises ObjectChanged when it has another one.
        """
        mode: Any = "overwrite" if tag is None else tag

        def call() -> Tag:
            put = _obstore().put
            return _tag(put(self._store, key, content, mode=mode, use_multipart=False))

        try:
            return self._request(call, key)
        except (ObjectChanged, FileNotFoundError) as error:
            # Perhaps it was this very call that changed it, and the answer was lost.
            if (found := self.fetch(key)) is not None and found[0] == content:
                return found[1]
            raise ObjectChanged from error

    def create(self, key: str, content: bytes) -> Tag:
        """Store a small object where there is none; returns its tag.

        Raises FileExistsError when there is one with other content.
        """

        def call() -> Tag:
            try:
                put = _obstore().put
                return _tag(put(self._store, key, content, mode="create", use_multipart=False))
            except _exceptions().AlreadyExistsError as error:
                # Two at the same time, and neither is there yet; but Azure says 409 to both.
                if _status(error) == 409 and "BlobAlreadyExists" not in str(error):
                    raise TransientError("another write of it was under way") from error
                raise FileExistsError(key) from error

        try:
            return self._request(call, key)
        except FileExistsError:
            if (found := self.fetch(key)) is not None and found[0] == content:
                return found[1]
            raise

    def remove(self, keys: list[str]) -> None:
        """Remove objects; those that are not there are no error."""
        for key in keys:

            def call(key: str = key) -> None:
                _obstore().delete(self._store, key)

            try:
                self._request(call, key)
            except FileNotFoundError:
                continue

    @property
    def _store(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _make(self.scheme, self.name)
            return self._made

    def _request(self, call: Callable[[], Result], key: str, place: str = "") -> Result:
        def explained() -> Result:
            try:
                return call()
            except FileNotFoundError as error:
                if _is_no_bucket(error):
                    raise self._no_bucket() from error
                raise
            except _exceptions().PreconditionError as error:
                raise ObjectChanged from error
            except (_exceptions().BaseError, ValueError) as error:
                raise self._explained(error, key) from error

        return self.policy.request(explained, self.url(key) + place)

    def _explained(self, error: Exception, key: str) -> Exception:
        """What a failure means: TransientError, or an error for people."""
        text, status, errors = str(error), _status(error), _exceptions()
        short = _shortened(text)
        where = self.url(key)
        if _is_no_bucket(error):
            return self._no_bucket()
        if any(sign in text for sign in _ASKED_FOR_CREDENTIALS):
            return InputError("no credentials for the store", where, short,
                              _CREDENTIALS[self.scheme])  # fmt: skip
        is_denied = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
        if is_denied or status in (401, 403):
            return InputError("the store refuses access", where, short, "check that these "
                              "credentials may read (and for --out write and list) there: "
                              + _CREDENTIALS[self.scheme])  # fmt: skip
        if "without LOCATION" in text or status in (301, 307):
            return InputError("the bucket is in another region", where, short,
                              "set AWS_REGION to the bucket's region")  # fmt: skip
        if "builder error" in text:
            variable = f"{_PREFIXES[self.scheme]}_ALLOW_HTTP"
            fix = f"check the endpoint's URL; for http:// set {variable}=true"
            return InputError("the store cannot be asked", where, short, fix)
        if status is None and any(sign in text for sign in _PASSING):
            return TransientError(short + _cause(text), is_unreachable=_NO_CONNECTION in text)
        if status in (408, 409, 425, 429) or (status is not None and status >= 500):
            return TransientError(short, for_all=status in (429, 503))
        return InputError("the store does not give what is asked for", where, short,
                          "check the URL, and the environment variables of the store")  # fmt: skip

    def _no_bucket(self) -> InputError:
        return InputError(
            "there is no such bucket",
            f"{self.scheme}://{self.name}",
            None,
            "check its name, and AWS_ENDPOINT_URL and AWS_REGION"
            if self.scheme == "s3"
            else "check its name",
        )


def _told(meta: Any) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], _quoted(meta["e_tag"]))


def _quoted(etag: str | None) -> str | None:
    """As it stands in a header: Azure's listings leave the quotes out."""
    return f'"{etag}"' if etag and not etag.endswith('"') else etag


def _tag(told: Any) -> Tag:
    return {name: told[name] for name in ("e_tag", "version") if told[name] is not None}


def _status(error: BaseException) -> int | None:
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def _is_no_bucket(error: BaseException) -> bool:
    text = str(error)
    return "NoSuchBucket" in text or "ContainerNotFound" in text


def _shortened(text: str) -> str:
    """An error of obstore's in one line, without what is for its developers."""
    text = text.partition("\n\nDebug source")[0]
    body = re.search(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", text, re.DOTALL)
    head = text.partition(": <")[0].strip().rstrip(":")
    if body:
        head += f": {': '.join(filter(None, body.groups()))}"
    return " ".join(head.split())[:400]


def _cause(text: str) -> str:
    """Why there was no connection, which stands only in what is for developers."""
    if "dns error" in text:
        return ": the host's name is not known"
    return ": connection refused" if "Connection refused" in text or "code: 111" in text else ""


def _obstore() -> Any:
    try:
        import obstore
    except ImportError:
        raise UsageError(
            "object stores need the package obstore",
            None,
            "it is not installed",
            install_extra("cloud"),
        ) from None
    return obstore


def _exceptions() -> Any:
    _obstore()
    import obstore.exceptions

    return obstore.exceptions


def _make(scheme: str, name: str) -> Any:
    """The client, which itself tries again only briefly: patience is the policy's."""
    _obstore()
    from obstore.store import AzureStore, GCSStore, S3Store

    store: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[scheme]
    options = _client_options(scheme)
    retry = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=5),
        "backoff": {"init_backoff": timedelta(milliseconds=100)},
    }
    try:
        return store(name, client_options=options, retry_config=retry)
    except (_exceptions().BaseError, ValueError) as error:
        raise InputError(
            "the store cannot be reached as it is set up",
            f"{scheme}://{name}",
            _shortened(str(error)),
            _CREDENTIALS[scheme],
        ) from error


def _client_options(scheme: str) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": _LONGEST, "connect_timeout": _CONNECT}
    options["read_timeout"] = _SILENCE
    if scheme == "s3" and _is_loopback():
        options["allow_http"] = True
    if scheme == "gs":
        # To whoever does not take gzip, Google sends an object that is stored so decompressed, as
        # a whole whatever its range (https://cloud.google.com/storage/docs/transcoding). obstore's
        # client undoes no encoding: what comes are the bytes that its listing counts.
        options["default_headers"] = {"Accept-Encoding": "gzip"}
    for name in _CLIENT_OPTIONS:
        value = os.environ.get(f"{_PREFIXES[scheme]}_{name.upper()}")
        if value:
            options[name] = value
    return options


def _is_loopback() -> bool:
    """Is the endpoint one on this machine? There plain http:// needs no leave."""
    endpoints = filter(None, map(os.environ.get, _ENDPOINTS))
    return any(urlsplit(endpoint).hostname in _LOOPBACK for endpoint in endpoints)
