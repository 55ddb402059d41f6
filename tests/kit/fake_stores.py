"""Google's and Azure's object stores, as far as obstore's own clients use them.

Each is a server in this process, with one bucket (container) in memory. They answer as the real
ones are documented to: Google's XML API
(https://cloud.google.com/storage/docs/xml-api/overview) and Azure's Blob service
(https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-rest-api), conditions,
ranges, parts of an upload and codes of errors included. Credentials are not looked at.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "corpora"
_DATE = formatdate(1_700_000_000, usegmt=True)
_PAGE = 3
"""Objects of one page of a listing: few, so that there are several pages."""


@dataclass
class Object:
    """One object: its bytes, and the number of the write that made it."""

    content: bytes
    generation: int
    encoding: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        """Of this content and this write, without quotes."""
        digest = hashlib.md5(self.content, usedforsecurity=False).hexdigest()
        return f"{digest}-{self.generation}"


@dataclass
class FakeStore:
    """A running server; ``lose`` names the requests that are carried out and never answered, and
    where ``is_short``, of each answer the last byte never comes."""

    scheme: str
    objects: dict[str, Object] = field(default_factory=dict)
    parts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Of uploads that are not finished: by key (Azure) or upload (Google)."""
    begun: dict[str, dict[str, str]] = field(default_factory=dict)
    """The metadata of Google's uploads, given when they begin."""
    requests: list[str] = field(default_factory=list)
    lose: Callable[[str, str], bool] = lambda method, path: False
    is_short: bool = False
    port: int = 0
    folder: Path = Path()
    _writes: int = 0

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to reach it."""
        if self.scheme == "az":
            return {
                "AZURE_STORAGE_ACCOUNT_NAME": "account",
                "AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"key").decode(),
                "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.port}",
                "AZURE_ALLOW_HTTP": "true",
            }
        account = self.folder / "service_account.json"
        base = {"gcs_base_url": f"http://127.0.0.1:{self.port}", "disable_oauth": True}
        key = {"client_email": "", "private_key": "", "private_key_id": ""}
        account.write_text(json.dumps(base | key))
        return {"GOOGLE_SERVICE_ACCOUNT": str(account), "GOOGLE_ALLOW_HTTP": "true"}

    def url(self, key: str) -> str:
        return f"{self.scheme}://{BUCKET}/{key}"

    def put(
        self,
        key: str,
        content: bytes,
        encoding: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Object:
        """Store an object, with what its writer said of its encoding, and metadata of its own."""
        self._writes += 1
        self.objects[key] = Object(content, self._writes, encoding, metadata or {})
        return self.objects[key]

    def fetch(self, prefix: str, folder: Path) -> Path:
        """Everything below a prefix, as files."""
        for key in [key for key in self.objects if key.startswith(prefix + "/")]:
            path = folder / key.removeprefix(prefix + "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.objects[key].content)
        return folder


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64
    store: FakeStore
    lock: threading.Lock

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that was killed is none."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """What both have in common: objects, ranges and conditions."""

    protocol_version = "HTTP/1.1"
    server: _Server
    query: dict[str, str]
    key: str
    body: bytes
    is_lost: bool

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        self.key = unquote(key)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        store = self.server.store
        with self.server.lock:
            store.requests.append(f"{self.command} {self.path}")
            self.is_lost = store.lose(self.command, self.path)
            if unquote(bucket) != BUCKET:
                self.refuse_bucket()
            elif not self.key and self.command == "GET":
                self.list_objects()
            else:
                getattr(self, f"serve_{self.command.lower()}")(store)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def refuse_bucket(self) -> None:
        raise NotImplementedError

    def list_objects(self) -> None:
        raise NotImplementedError

    def serve_get(self, store: FakeStore) -> None:
        found = store.objects.get(self.key)
        if found is None:
            self.refuse(404, self.no_key)
            return
        if self.headers.get("If-Match", f'"{found.etag}"') != f'"{found.etag}"':
            self.refuse(412, "ConditionNotMet")
            return
        content, status, headers = found.content, 200, self.told(found) | found.metadata
        if found.encoding:
            headers["Content-Encoding"] = found.encoding
        if self.is_transcoded(found):
            del headers["Content-Encoding"]
            self.answer(200, gzip.decompress(content), headers)
            return
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content, status = content[start:stop], 206
        self.answer(status, content, headers)

    def is_transcoded(self, found: Object) -> bool:
        return False

    def metadata(self) -> dict[str, str]:
        """What the request says that the object is to keep."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        return {n: v for n, v in headers.items() if n.startswith(("x-goog-meta-", "x-ms-meta-"))}

    serve_head = serve_get
    no_key = "NoSuchKey"

    def serve_delete(self, store: FakeStore) -> None:
        if store.objects.pop(self.key, None) is None:
            self.refuse(404, self.no_key)
        else:
            self.answer(204)

    def told(self, found: Object) -> dict[str, str]:
        return {"ETag": f'"{found.etag}"', "Last-Modified": _DATE}

    def refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self.answer(status, body.encode())

    def page(self, after: str) -> tuple[list[str], str]:
        """Keys of one page of a listing, and where the next begins."""
        prefix = self.query.get("prefix", "")
        keys = sorted(key for key in self.server.store.objects if key.startswith(prefix))
        keys = [key for key in keys if key >= after]
        return keys[:_PAGE], "".join(keys[_PAGE : _PAGE + 1])

    def answer(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        if self.is_lost:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.close_connection |= self.server.store.is_short
            self.wfile.write(content[:-1] if self.server.store.is_short else content)


class _Google(_Handler):
    def is_transcoded(self, found: Object) -> bool:
        """https://cloud.google.com/storage/docs/transcoding: the range is then ignored."""
        takes = self.headers.get("Accept-Encoding", "")
        return found.encoding == "gzip" and "gzip" not in takes

    def refuse_bucket(self) -> None:
        self.refuse(404, "NoSuchBucket")

    def told(self, found: Object) -> dict[str, str]:
        return super().told(found) | {"x-goog-generation": str(found.generation)}

    def list_objects(self) -> None:
        keys, following = self.page(self.query.get("continuation-token", ""))
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(found.content)}</Size>"
            f"<LastModified>2023-11-14T22:13:20.000Z</LastModified>"
            f"<ETag>&quot;{found.etag}&quot;</ETag></Contents>"
            for key in keys
            for found in [self.server.store.objects[key]]
        )
        if following:
            entries += f"<NextContinuationToken>{escape(following)}</NextContinuationToken>"
        self.answer(200, f"<ListBucketResult>{entries}</ListBucketResult>".encode())

    def serve_put(self, store: FakeStore) -> None:
        if "uploadId" in self.query:
            part = hashlib.md5(self.body, usedforsecurity=False).hexdigest()
            store.parts[self.query["uploadId"]][self.query["partNumber"]] = self.body
            self.answer(200, headers={"ETag": f'"{part}"'})
            return
        found = store.objects.get(self.key)
        now = str(found.generation) if found else "0"
        if self.headers.get("x-goog-if-generation-match", now) != now:
            self.refuse(412, "PreconditionFailed")
            return
        made = store.put(self.key, self.body, metadata=self.metadata())
        self.answer(200, headers=self.told(made))

    def serve_post(self, store: FakeStore) -> None:
        if "uploads" in self.query:
            upload = f"upload-{len(store.parts)}"
            store.parts[upload] = {}
            store.begun[upload] = self.metadata()
            body = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId>"
            self.answer(200, f"{body}</InitiateMultipartUploadResult>".encode())
            return
        parts = store.parts.pop(self.query["uploadId"], None)
        if parts is None:
            self.refuse(404, "NoSuchUpload")
            return
        numbers = re.findall(r"<PartNumber>(\d+)</PartNumber>", self.body.decode())
        content = b"".join(parts[number] for number in numbers)
        made = store.put(self.key, content, metadata=store.begun[self.query["uploadId"]])
        body = f"<CompleteMultipartUploadResult><ETag>&quot;{made.etag}&quot;</ETag>"
        self.answer(200, f"{body}</CompleteMultipartUploadResult>".encode(), self.told(made))

    def serve_delete(self, store: FakeStore) -> None:
        if "uploadId" in self.query:
            store.parts.pop(self.query["uploadId"], None)
            self.answer(204)
        else:
            super().serve_delete(store)


class _Azure(_Handler):
    no_key = "BlobNotFound"

    def serve_post(self, store: FakeStore) -> None:
        """Several deletions in one request, and as many answers in one."""
        assert self.query["comp"] == "batch", self.path
        answers = ""
        for number, path in re.findall(
            r"content-id: (\d+).*?DELETE (\S+) HTTP", self.body.decode(), re.DOTALL | re.IGNORECASE
        ):
            key = unquote(urlsplit(path).path).removeprefix(f"/{BUCKET}/")
            is_there = store.objects.pop(key, None) is not None
            status = "202 Accepted" if is_there else "404 The specified blob does not exist."
            answers += f"--batch\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n"
            answers += f"\r\nHTTP/1.1 {status}\r\nx-ms-version: 2018-11-09\r\n\r\n"
        kind = {"Content-Type": "multipart/mixed; boundary=batch"}
        self.answer(202, f"{answers}--batch--\r\n".encode(), kind)

    def refuse_bucket(self) -> None:
        self.refuse(404, "ContainerNotFound")

    def list_objects(self) -> None:
        keys, following = self.page(self.query.get("marker", ""))
        entries = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{_DATE}</Last-Modified>"
            f"<Etag>{found.etag}</Etag><Content-Length>{len(found.content)}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            for key in keys
            for found in [self.server.store.objects[key]]
        )
        body = f"<Blobs>{entries}</Blobs><NextMarker>{escape(following)}</NextMarker>"
        self.answer(200, f"<EnumerationResults>{body}</EnumerationResults>".encode())

    def serve_put(self, store: FakeStore) -> None:
        if self.query.get("comp") == "block":
            store.parts.setdefault(self.key, {})[self.query["blockid"]] = self.body
            self.answer(201)
            return
        found = store.objects.get(self.key)
        if self.headers.get("If-None-Match") == "*" and found is not None:
            self.refuse(409, "BlobAlreadyExists")
            return
        wanted = self.headers.get("If-Match")
        if wanted is not None and (found is None or wanted != f'"{found.etag}"'):
            self.refuse(412, "ConditionNotMet")
            return
        content = self.body
        if self.query.get("comp") == "blocklist":
            blocks = store.parts.pop(self.key, {})
            names = re.findall(r"<(?:Uncommitted|Latest)>(.*?)</", self.body.decode())
            content = b"".join(blocks[name] for name in names)
        self.answer(201, headers=self.told(store.put(self.key, content, metadata=self.metadata())))


@contextmanager
def served(scheme: str, folder: Path) -> Iterator[FakeStore]:
    """A server of ``gs`` or ``az`` with an empty bucket; ``folder`` is for its credentials."""
    server = _Server(("127.0.0.1", 0), {"gs": _Google, "az": _Azure}[scheme])
    server.lock = threading.Lock()
    server.store = FakeStore(scheme, port=server.server_address[1], folder=folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
