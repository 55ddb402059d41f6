"""Files behind HTTP: bytes by range, each answer held against what was asked for.

A server may answer with the whole file, with less than was asked, with another file's bytes, or
not at all. Nothing is passed on but the very bytes asked for, of the very file that was found; what
may pass is tried again by the run's policy, everything else is a named error. A body that was cut
off is gone on with where it ended.

Bytes are passed on as they are stored. ``Content-Encoding`` is nothing that is undone on the way:
ranges and sizes count the encoded bytes (RFC 9110, 8.4 and 14.1.2), and so does everything here.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from tokenmill.errors import InputError, UsageError
from tokenmill.extras import install_extra
from tokenmill.kinds.suffixes import unknown_kind
from tokenmill.stores.retry import RetryPolicy, TransientError
from tokenmill.stores.store import Found, InputFile, Selection, Store
from tokenmill.version import __version__

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

READ_SECONDS = 20.0
"""A server that is silent for longer is stalled, whether before it is connected, before its answer,
or in the midst of it (there, urllib3 counts by the time for connecting: so they are one)."""
_PIECE = 1024 * 1024
_MOST_REDIRECTS = 10
_MOST_CONNECTIONS = 64
_PASSING = {408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524}
_REDIRECTS = {301, 302, 303, 307, 308}
_GO_ON = "let nothing change the file while it is read; --overwrite begins anew with what it is now"

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Resource:
    """One file behind a URL.

    ``where`` is how messages call it; ``size`` in bytes; ``check`` gets the headers of all answers
    of one request, from the first redirect to the last, and raises InputError when they are not
    those of the file that was found; ``advice`` is what to do when the server refuses.
    """

    url: str
    where: str
    size: int
    headers: Headers = field(default_factory=dict, repr=False)
    check: Callable[[list[Headers]], None] = lambda hops: None
    advice: str = "check the address, and whether it asks for a password"


class HttpReader:
    """The bytes of a resource, by range, for any thread; requests are made by ``policy``."""

    def __init__(self, resource: Resource, policy: RetryPolicy) -> None:
        self._resource = resource
        self._policy = policy

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``: all of them, or a TokenmillError."""
        if start >= stop:
            return b""
        received = io.BytesIO()
        where = f"{self._resource.where}, bytes {start} to {stop}"
        self._policy.request(partial(self._receive, received, start, stop), where)
        return received.getvalue()

    def _receive(self, received: io.BytesIO, start: int, stop: int) -> None:
        """Receive what is still missing; what came before a failure is kept."""
        resource, begin = self._resource, start + received.tell()
        headers = {**resource.headers, "Range": f"bytes={begin}-{stop - 1}"}
        response = _answer(resource, headers)
        try:
            _check_range(response, resource, begin, stop)
            _copy(response, received, self._policy, stop - start)
        finally:
            response.close() if received.tell() < stop - start else response.release_conn()


def read_whole(resource: Resource, limit: int, policy: RetryPolicy) -> bytes:
    """All of a small file of unknown size, at most ``limit`` bytes. Raises InputError."""

    def get() -> bytes:
        response = _answer(resource, resource.headers)
        try:
            received = io.BytesIO()
            _copy(response, received, policy, None, limit)
            return received.getvalue()
        finally:
            response.close()

    return policy.request(get, resource.where)


def _copy(
    response: BaseHTTPResponse,
    received: io.BytesIO,
    policy: RetryPolicy,
    size: int | None,
    limit: int = 1 << 62,
) -> None:
    """Add the body to what was received; of a known ``size``, all of it."""
    import urllib3

    before = received.tell()
    try:
        while size is None or received.tell() < size:
            room = _PIECE if size is None else min(_PIECE, size - received.tell())
            piece = response.read(room, decode_content=size is None)
            if not piece:
                break
            received.write(piece)
            if received.tell() > limit:
                raise InputError(
                    "the file is larger than such a file can be",
                    response.url,
                    f"more than {limit} bytes",
                    "check what is at this address",
                )
    except urllib3.exceptions.HTTPError as error:
        raise _passing(error) from error
    except OSError as error:
        raise TransientError(f"the connection broke: {error}") from error
    finally:
        policy.count(received.tell() - before)
    if size is not None and received.tell() < size:
        raise TransientError(f"the answer ended {size - received.tell()} bytes early")


def _check_length(response: BaseHTTPResponse, where: str, wanted: int) -> None:
    """Raise unless the body has as many bytes as are wanted, as far as that is told.

    A server that encodes each answer by itself (a slice of a text, compressed on the fly) tells
    the range of the text, and sends other bytes.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    told = response.headers.get("Content-Length")
    if told == str(wanted) or (told is None and encoding in ("", "identity")):
        return
    if encoding in ("", "identity"):
        raise TransientError(f"the server sends {told} bytes where {wanted} are asked for")
    raise InputError(
        "the server does not send the file's bytes as they are stored",
        where,
        f"it was asked for them so, and encodes its answer all the same "
        f"({printable(encoding[:40])}, {told or 'an untold number of'} bytes for {wanted})",
        "fetch the file with another program, and name the copy on disk",
    )


def _check_range(response: BaseHTTPResponse, resource: Resource, start: int, stop: int) -> None:
    """Raise unless the body is going to be the bytes from ``start`` to ``stop``."""
    where = f"{resource.where}, bytes {start} to {stop}"
    if response.status == 200:
        is_whole = (start, stop) == (0, resource.size)
        if is_whole and response.headers.get("Content-Length") == str(stop):
            return
        raise InputError(
            "the server ignores which bytes are asked for",
            where,
            "it sends the whole file, whatever range it is asked for",
            "fetch the file with another program, and name the copy on disk",
        )
    told = re.fullmatch(
        r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    if response.status != 206 or told is None:
        raise TransientError(f"an answer of status {response.status} that does not tell its range")
    if told[3] not in ("*", str(resource.size)):
        raise changed(resource.where, f"it has {told[3]} bytes, had {resource.size}")
    if (int(told[1]), int(told[2])) != (start, stop - 1):
        raise TransientError(
            f"the server gives bytes {told[1]} to {told[2]} where {start} to {stop - 1} are asked"
        )
    _check_length(response, where, stop - start)


def changed(where: str, why: str) -> InputError:
    """The error for a file that is not the one that was found."""
    return InputError("the input was changed while it was read", where, why, _GO_ON)


def _answer(resource: Resource, headers: Headers) -> BaseHTTPResponse:
    """The first answer that is no redirect, checked to be a good one of the right file."""
    url, hops = resource.url, list[Headers]()
    sent = {"User-Agent": f"tokenmill/{__version__}", "Accept-Encoding": "identity", **headers}
    while True:
        response = _get(url, sent)
        hops.append(response.headers)
        if response.status not in _REDIRECTS:
            break
        location = response.headers.get("Location")
        response.drain_conn()
        response.release_conn()
        if location is None or len(hops) > _MOST_REDIRECTS:
            raise TransientError("the server sends from one address to the other")
        following = urljoin(url, location)
        if urlsplit(following)[:2] != urlsplit(url)[:2]:
            sent.pop("Authorization", None)
            sent.pop("authorization", None)
        url = following
    try:
        _check_status(response, resource, len(hops))
        resource.check(hops)
    except BaseException:
        response.close()
        raise
    return response


def _get(url: str, headers: Headers) -> BaseHTTPResponse:
    import urllib3

    try:
        return _pool(url).request(
            "GET",
            url,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(READ_SECONDS, READ_SECONDS),
        )
    except (urllib3.exceptions.LocationValueError, UnicodeError) as error:
        raise UsageError(f"no address: {url}", why=str(error), fix="check the URL") from error
    except urllib3.exceptions.HTTPError as error:
        raise _passing(error) from error
    except OSError as error:
        raise TransientError(f"cannot connect: {error}", is_unreachable=True) from error


def _passing(error: Exception) -> Exception:
    """What an error of the transport means."""
    import urllib3

    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return InputError(
            "the server cannot prove who it is",
            None,
            str(error),
            "check the clock and the proxy; SSL_CERT_FILE names certificates to trust",
        )
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return TransientError(f"no data for {READ_SECONDS:g} s")
    text = re.sub(r"^.*?HTTPS?Connection\w*\(.*?\): ", "", str(error)) or type(error).__name__
    kinds = urllib3.exceptions
    unreachable = (kinds.NewConnectionError, kinds.ConnectTimeoutError, kinds.SSLError,
                   kinds.ProxyError)  # fmt: skip
    return TransientError(text, is_unreachable=isinstance(error, unreachable))


def _check_status(response: BaseHTTPResponse, resource: Resource, hops: int) -> None:
    status, where = response.status, resource.where
    if status in (200, 206):
        return
    if status in _PASSING:
        raise TransientError(_told(response), retry_after(response.headers), for_all=status == 429)
    if hops > 1 and status in (401, 403):
        raise TransientError("the address that the server sent us to is no longer good")
    if status in (401, 403):
        raise InputError(
            "the server does not let us read the file", where, _told(response), resource.advice
        )
    if status in (404, 410):
        raise InputError(
            "the input is gone", where, _told(response), "check the address; " + resource.advice
        )
    if status == 416:
        raise changed(where, "it is shorter than it was")
    raise InputError("the server does not give the file", where, _told(response), resource.advice)


def _told(response: BaseHTTPResponse) -> str:
    """Status and the server's own words, for people."""
    words = response.headers.get("X-Error-Message") or response.reason or ""
    names = {429: "too many requests"}
    told = f"the server answers {response.status} ({names.get(response.status, words[:200])})"
    return printable(told)


def printable(text: str) -> str:
    """Without what would end the line or steer the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def retry_after(headers: Headers) -> float | None:
    """Seconds until the server answers again, where it tells: Retry-After in seconds or as a date,
    or the Hub's ``ratelimit: "resolvers";r=0;t=3``."""
    plain = headers.get("Retry-After", "").strip()
    if plain.isdigit():
        return float(plain)
    if plain:
        try:
            # Against the server's own clock: ours may be wrong.
            until = parsedate_to_datetime(plain) - parsedate_to_datetime(headers.get("Date", ""))
        except (TypeError, ValueError):
            return None
        return max(0.0, until.total_seconds())
    limit = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
    # The reset is told in whole seconds, rounded down.
    return float(limit[1]) + 0.5 if limit else None


_pools: dict[str, PoolManager] = {}
"""Open connections by proxy, one set for all runs of the process: a run that ends closes none, one
more than are kept is opened where all are taken, and nothing is remembered of a run."""
_pools_lock = threading.Lock()


def _pool(url: str) -> PoolManager:
    """The process's connections, through the proxy that the environment names."""
    from urllib.request import getproxies, proxy_bypass

    import urllib3

    parts = urlsplit(url)
    proxy = "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
    with _pools_lock:
        if proxy not in _pools:
            options: dict[str, Any] = {
                "num_pools": 16, "maxsize": _MOST_CONNECTIONS, "ca_certs": _certificates(),
            }  # fmt: skip
            _pools[proxy] = (
                urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
            )
        return _pools[proxy]


def _certificates() -> str | None:
    """A file of certificates to trust where the system has none of its own; else None."""
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        return None
    try:
        import certifi
    except ImportError:
        return None
    return certifi.where()


class HttpStore(Store):
    """Files behind ``https://`` (and ``http://``) addresses, known by their ETag and size."""

    is_remote = True

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy: RetryPolicy = policy

    def open(self, file: InputFile) -> HttpReader:
        return HttpReader(_resource(file.path, file.size, file.probe), self.policy)

    def check_unchanged(self, file: InputFile) -> None:
        size, probe = _look(file.path, self.policy)
        if (size, probe) != (file.size, file.probe):
            raise changed(file.path, "its size or ETag is another one")


def expand(argument: str, selection: Selection) -> Found:
    """The one file at an address."""
    need_urllib3()
    parts = urlsplit(argument)
    if not parts.hostname:
        raise UsageError(f"no address: {argument}", fix="write it as https://HOST/PATH")
    if "@" in parts.netloc:
        raise UsageError(
            f"a password in an address: {parts.scheme}://…@{parts.hostname}",
            why="it would stand in the manifest",
            fix="use an address that needs none, or fetch the file first",
        )
    known = selection.kind_of(unquote(parts.path))
    if known is None:
        raise unknown_kind(argument)
    size, probe = _look(argument, selection.policy)
    return Found([InputFile(argument, *known, size, 0, probe, HttpStore(selection.policy))])


def _resource(url: str, size: int, probe: str) -> Resource:
    def check(hops: list[Headers]) -> None:
        if _probe(hops[-1]) != probe:
            raise changed(url, f"its identity is {_probe(hops[-1])!r}, was {probe!r}")

    return Resource(url, url, size, check=check)


def _probe(headers: Headers) -> str:
    """What stands for the content: the ETag, or where there is none, the time of change."""
    return headers.get("ETag") or headers.get("Last-Modified") or ""


def _look(url: str, policy: RetryPolicy) -> tuple[int, str]:
    """Size and probe of the file at an address, from an answer to a request for its first byte."""
    told: list[Headers] = []
    resource = Resource(url, url, 1, {"Range": "bytes=0-0"}, check=told.extend)

    def look() -> tuple[int, str]:
        told.clear()
        response = _answer(resource, resource.headers)
        status, headers = response.status, response.headers
        response.close()
        size = re.fullmatch(r"bytes 0-0/(\d+)", headers.get("Content-Range", ""))
        if status == 206 and size:
            return int(size[1]), _probe(headers)
        raise InputError(
            "the server does not send parts of a file",
            url,
            "it ignores the range it is asked for, or does not tell the file's size",
            "fetch the file with another program, and name the copy on disk",
        )

    return policy.request(look, url)


def need_urllib3() -> None:
    """Raise UsageError where the library is missing."""
    try:
        import urllib3  # noqa: F401
    except ImportError:
        raise UsageError("inputs from the network need urllib3", fix=install_extra("web")) from None
