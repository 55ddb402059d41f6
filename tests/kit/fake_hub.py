"""A Hugging Face Hub on the loopback interface: a real HTTP server, with faults on order.

It serves folders as dataset repositories to the unmodified client and to whoever reads by range:
the routes are those that the client really uses. A file's bytes come from a second port, behind a
redirect, as they do on the real Hub, and that one refuses whoever sends it the Hub's token.

Commits are numbered; `Repository.commit` adds one, whose files may differ from those before. Each
request is in `FakeHub.log`. A `Fault` answers some requests in its own way, then no more.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 1000
LFS_BYTES = 1024
TOKEN = "hf_of_the_fake"


@lru_cache(maxsize=512)
def _digests(path: Path, size: int, modified: int) -> tuple[str, str]:
    """Git's hash and the SHA-256 of a file."""
    git, sha256 = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            git.update(piece)
            sha256.update(piece)
    return git.hexdigest(), sha256.hexdigest()


@dataclass(frozen=True)
class Blob:
    """One file of a commit; ``told`` replaces the hash in listings, to tell a lie."""

    path: Path
    told: str | None = None

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def git(self) -> str:
        return self._digests[0]

    @property
    def sha256(self) -> str:
        return self.told or self._digests[1]

    @property
    def is_lfs(self) -> bool:
        return self.size > LFS_BYTES

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git

    @property
    def _digests(self) -> tuple[str, str]:
        status = self.path.stat()
        return _digests(self.path, status.st_size, status.st_mtime_ns)


@dataclass
class Repository:
    """A dataset: commits, each a mapping of names to files, and what it takes to read it."""

    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False

    def commit(self, files: dict[str, Blob], branch: str = "main") -> str:
        """A new commit of exactly these files; returns its hash."""
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def commit_folder(self, folder: Path, branch: str = "main") -> str:
        """A new commit of all files in a folder."""
        return self.commit(
            {
                str(path.relative_to(folder)): Blob(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
            branch,
        )

    def find(self, revision: str) -> str | None:
        """The commit of a branch, or a commit's own hash."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Request:
    """One request, and how many bytes of a body were sent for it."""

    method: str
    path: str
    range: str | None
    is_content: bool
    moved: int = 0


@dataclass
class Fault:
    """What happens to ``times`` requests for content whose path has ``name`` in it, the first
    ``after`` of them left alone. ``act`` gets the handler, and answers itself, or returns True to
    let the usual answer follow."""

    act: Callable[[Handler], bool]
    name: str = ""
    times: int = 1
    after: int = 0
    on_api: bool = False
    struck: int = 0


class FakeHub:
    """The server; use it as a context."""

    def __init__(self, delay: float = 0.0, certificate: tuple[Path, Path] | None = None) -> None:
        """``certificate`` (and its key) makes it speak TLS."""
        self.repositories: dict[str, Repository] = {}
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.delay = delay
        self.token = TOKEN
        self.lock = threading.Lock()
        self.stalled = threading.Event()
        self._scheme = "https" if certificate else "http"
        self._servers = [_Server(self, is_cdn) for is_cdn in (False, True)]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            for server in self._servers:
                server.socket = context.wrap_socket(server.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._servers[1].server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to take this for the Hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        }

    def __enter__(self) -> FakeHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stalled.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, name: str, folder: Path, **about: Any) -> Repository:
        """A dataset of all files in a folder."""
        repository = self.repositories[name] = Repository(**about)
        repository.commit_folder(folder)
        return repository

    def moved(self, suffix: str = "") -> int:
        """Bytes of content sent, for paths that end so."""
        return sum(one.moved for one in self.log if one.is_content and one.path.endswith(suffix))

    def forget(self) -> None:
        """Begin a new log, and no fault any more."""
        self.log, self.faults = [], []

    @contextmanager
    def trouble(self, fault: Fault) -> Iterator[Fault]:
        """With this fault."""
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def fault_for(self, path: str, on_api: bool) -> Fault | None:
        """The fault that this request is to meet, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.name not in path or fault.on_api != on_api:
                    continue
                fault.struck += 1
                if fault.after < fault.struck <= fault.after + fault.times:
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, hub: FakeHub, is_cdn: bool) -> None:
        self.hub = hub
        self.is_cdn = is_cdn
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection. Its public methods are what faults are made of."""

    protocol_version = "HTTP/1.1"
    server: _Server
    request_log: Request

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    @property
    def hub(self) -> FakeHub:
        return self.server.hub

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        self.sent_form = self.rfile.read(length) if length else b""
        self.request_log = Request(
            self.command, path, self.headers.get("Range"), self.server.is_cdn
        )
        with self.hub.lock:
            self.hub.log.append(self.request_log)
        if self.hub.delay:
            time.sleep(self.hub.delay)
        on_api = not self.server.is_cdn
        fault = self.hub.fault_for(path, on_api)
        if fault is not None and not fault.act(self):
            return
        if self.server.is_cdn:
            self._content(path)
        elif path.startswith("/api/datasets/"):
            self._api(path.removeprefix("/api/datasets/"))
        elif path.startswith("/datasets/"):
            self._resolve(path.removeprefix("/datasets/"))
        else:
            self.refuse(404, "")

    # --- answers --------------------------------------------------------------------------------

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """An answer with this body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str = "", **headers: str) -> None:
        """An error as the Hub tells it."""
        told = {"X_Error_Code": code} if code else {}
        if message:
            told["X_Error_Message"] = message
        self.answer(status, json.dumps({"error": message}).encode(), **told, **headers)

    def as_json(self, value: Any, **headers: str) -> None:
        """A good answer of the API."""
        headers["Content_Type"] = "application/json"
        self.answer(200, json.dumps(value).encode(), **headers)

    # --- the Hub --------------------------------------------------------------------------------

    def _repository(self, name: str) -> Repository | None:
        """The repository, if whoever asks may read it; else the refusal is sent."""
        repository = self.hub.repositories.get(name)
        sent = self.headers.get("Authorization")
        is_known = sent == f"Bearer {self.hub.token}"
        if sent and not is_known:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.is_private and not is_known):
            self.refuse(404 if is_known else 401, "RepoNotFound", "Repository not found")
        elif repository.is_gated:
            self.refuse(403, "GatedRepo", "Access to this dataset is restricted")
        else:
            return repository
        return None

    def _api(self, path: str) -> None:
        found = re.fullmatch(r"([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.*))?", path)
        repository = self._repository(found[1]) if found else None
        if found is None or repository is None:
            if found is None:
                self.refuse(404, "RepoNotFound")
            return
        # What is behind the revision is told apart before %2F is a slash.
        raw = urlsplit(self.path).path.removeprefix(f"/api/datasets/{found[1]}/").split("/", 2)
        revision = unquote(raw[1]) if len(raw) > 1 and found[2] else "main"
        sha = repository.find(revision)
        if sha is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repository.commits[sha]
        if found[2] in (None, "revision"):
            siblings = [{"rfilename": name} for name in files]
            about = {"id": found[1], "sha": sha, "private": repository.is_private}
            self.as_json({**about, "gated": False, "disabled": False, "downloads": 0,
                          "likes": 0, "tags": [], "siblings": siblings})  # fmt: skip
        elif found[2] == "tree":
            self._tree(files, unquote(raw[2]) if len(raw) > 2 else "")
        else:
            form = self.sent_form.decode()
            paths = json.loads(form).get("paths") if form.startswith("{") else None
            paths = parse_qs(form).get("paths", []) if paths is None else paths
            self.as_json([entry for path in paths for entry in _entries_at(files, path)])

    def _tree(self, files: dict[str, Blob], folder: str) -> None:
        below = f"{folder}/" if folder else ""
        query = parse_qs(urlsplit(self.path).query)
        entries = [_entry(name, blob) for name, blob in files.items() if name.startswith(below)]
        if not entries:
            self.refuse(404, "EntryNotFound", "no such folder")
            return
        first = int(query.get("cursor", ["0"])[0])
        headers = {}
        if first + PAGE < len(entries):
            plain = urlsplit(self.path)
            following = f"{self.hub.url}{plain.path}?recursive=True&cursor={first + PAGE}"
            headers["Link"] = f'<{following}>; rel="next"'
        self.as_json(entries[first : first + PAGE], **headers)

    def _resolve(self, path: str) -> None:
        found = re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path, re.DOTALL)
        repository = self._repository(found[1]) if found else None
        if found is None or repository is None:
            if found is None:
                self.refuse(404, "")
            return
        sha = repository.find(found[2])
        blob = repository.commits[sha].get(found[3]) if sha else None
        if blob is None or sha is None:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X_Repo_Commit": sha, "Accept_Ranges": "bytes"}
        if blob.is_lfs:
            headers |= {"X_Linked_Etag": f'"{blob.etag}"', "X_Linked_Size": str(blob.size)}
            location = f"{self.hub.cdn}/{found[1]}/{sha}/{found[3]}"
            self.answer(302, b"", Location=location, **headers)
        else:
            self.send_blob(blob, None, **headers)

    # --- content --------------------------------------------------------------------------------

    def _content(self, path: str) -> None:
        if "Authorization" in self.headers:
            self.refuse(400, "", "the Hub's token was sent to another host")
            return
        self.send_blob(self.blob(path))

    def blob(self, path: str | None = None) -> Blob:
        """The file that is asked for at the second port."""
        path = unquote(urlsplit(self.path).path) if path is None else path
        _, owner, name, sha, inner = path.split("/", 4)
        return self.hub.repositories[f"{owner}/{name}"].commits[sha][inner]

    def span(self, blob: Blob) -> tuple[int, int] | None:
        """The bytes that are asked for, if it is a range."""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return None
        if not wanted[1]:
            return max(0, blob.size - int(wanted[2])), blob.size
        return int(wanted[1]), min(blob.size, int(wanted[2] or blob.size - 1) + 1)

    def send_blob(self, blob: Blob, most: int | None = None, **headers: str) -> None:
        """The bytes that are asked for; with ``most``, the connection breaks after so many."""
        span = self.span(blob)
        low, high = span or (0, blob.size)
        if low >= max(1, blob.size):
            self.answer(416, Content_Range=f"bytes */{blob.size}")
            return
        self.send_range(blob, low, high, 206 if span else 200, most, **headers)

    def send_range(
        self, blob: Blob, low: int, high: int, status: int, most: int | None = None, **headers: str
    ) -> None:
        """These bytes, as an answer of that status."""
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {low}-{high - 1}/{blob.size}")
        for name, value in {"ETag": f'"{blob.etag}"', **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(high - low))
        self.end_headers()
        if self.command == "HEAD":
            return
        if most is not None:
            high, self.close_connection = min(high, low + most), True
        with blob.path.open("rb") as file:
            file.seek(low)
            while low < high:
                piece = file.read(min(1 << 20, high - low))
                self.wfile.write(piece)
                self.request_log.moved += len(piece)
                low += len(piece)


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "oid": blob.git, "size": blob.size, "path": name}
    if blob.is_lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
    return entry


def _entries_at(files: dict[str, Blob], path: str) -> list[dict[str, Any]]:
    if path in files:
        return [_entry(path, files[path])]
    if any(name.startswith(f"{path}/") for name in files):
        return [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path}]
    return []
