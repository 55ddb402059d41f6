"""An object store for tests: moto's S3 server, as a process of its own, and a proxy before it.

The server ends when the process that started it does. The proxy stands for a bad network: it
notes every request, and troubles those that a test wants troubled.
"""

from __future__ import annotations

import http.client
import http.server
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.shared import REPOSITORY

BUCKET = "corpora"


@dataclass
class Store:
    """A running server, or a proxy before it; ``client`` is boto3's, always the server's own."""

    endpoint: str
    client: Any

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def put(self, key: str, content: bytes | Path) -> str:
        """Store an object; returns its URL."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found

    def listed(self, prefix: str = "") -> list[str]:
        """The keys that anybody sees."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def uploads(self) -> list[str]:
        """The keys of uploads that are under way or were given up."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [entry["Key"] for entry in found]

    def fetch(self, prefix: str, folder: Path) -> Path:
        """Everything below a prefix, as files."""
        for key in self.listed(prefix + "/"):
            path = folder / key.removeprefix(prefix + "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(key))
        return folder


@contextmanager
def served() -> Iterator[Store]:
    """A server with an empty bucket."""
    import boto3

    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.stores"],
        cwd=REPOSITORY,
        env=dict(os.environ, AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = next(line for line in process.stdout if line.startswith("port ")).split()[1]
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        client.create_bucket(Bucket=BUCKET)
        yield Store(f"http://127.0.0.1:{port}", client)
        client.close()
    finally:
        process.kill()
        process.communicate()


@dataclass
class Request:
    """One request as the proxy saw it; ``number`` counts those that went before."""

    number: int
    method: str
    path: str
    headers: dict[str, str]

    @property
    def length(self) -> int:
        """Bytes of the range asked for."""
        first, _, last = self.headers.get("range", "").removeprefix("bytes=").partition("-")
        return int(last) - int(first) + 1 if last else 0


Trouble = Callable[[Request], str | None]
"""What becomes of a request: None for nothing, or `500`, `503`, `429`, `drop`, `cut`, `stall`,
`whole` (the range is ignored), or `lost` (it is carried out, and the answer never comes)."""


@dataclass
class Proxy(Store):
    """A store behind a bad network."""

    trouble: Trouble = lambda request: None
    requests: list[Request] = field(default_factory=list)

    def reads(self, prefix: str) -> int:
        """Bytes asked for of objects whose key begins so."""
        wanted = [r for r in self.requests if r.method == "GET" and f"/{BUCKET}/{prefix}" in r.path]
        return sum(request.length for request in wanted)


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64
    proxy: Proxy
    port: int

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that was killed is none."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxy = self.server.proxy
        request = Request(len(proxy.requests), self.command, self.path, headers)
        proxy.requests.append(request)
        trouble = proxy.trouble(request)
        if trouble and trouble.isdigit():
            self._refuse(int(trouble))
        elif trouble == "drop":
            self._hang_up()
        elif trouble == "stall":
            time.sleep(3600)
        else:
            if trouble == "whole":
                headers.pop("range", None)
            self._forward(body, headers, trouble)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _refuse(self, status: int) -> None:
        content = b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _forward(self, body: bytes, headers: dict[str, str], trouble: str | None) -> None:
        onward = http.client.HTTPConnection("127.0.0.1", self.server.port)
        headers = {name: value for name, value in headers.items() if name != "connection"}
        onward.request(self.command, self.path, body, headers)
        answer = onward.getresponse()
        content = answer.read()
        onward.close()
        if trouble == "lost":
            self._hang_up()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") or str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if trouble == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self._hang_up()
        else:
            self.wfile.write(content)


@contextmanager
def troubled(store: Store) -> Iterator[Proxy]:
    """A proxy before a server."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.port = int(store.endpoint.rpartition(":")[2])
    server.proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", store.client)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Be the server until standard input ends."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(f"port {server.get_host_and_port()[1]}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
