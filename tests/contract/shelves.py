"""A shelf for each store: files are put there, changed, lost, and cut short while they are read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.kit import fake_stores
from tests.kit.fake_hub import Blob, FakeHub, Fault, Handler
from tests.stores.test_transport import answering, told


class Shelf(ABC):
    """Where a suite puts files that a store is to read. ``folder`` names all of them as one
    argument, where there is such a thing; ``tmp_path`` is the test's own."""

    folder: str | None = None

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: ExitStack) -> None:
        """``opened`` holds servers until the test is over."""
        self.tmp_path = tmp_path
        self.monkeypatch = monkeypatch
        self.opened = opened

    @abstractmethod
    def put(self, name: str, content: bytes) -> str:
        """Put a file there, or another content in its place; the argument that names it."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Take a file away."""

    @contextmanager
    @abstractmethod
    def short(self, name: str) -> Iterator[None]:
        """Meanwhile who reads the end of a file gets too little."""


class LocalShelf(Shelf):
    @property
    def folder(self) -> str:  # type: ignore[override]
        return str(self.tmp_path / "shelf")

    def put(self, name: str, content: bytes) -> str:
        path = Path(self.folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_bytes(content)
        if before:
            os.utime(path, ns=(before + 10**9, before + 10**9))
        return str(path)

    def remove(self, name: str) -> None:
        Path(self.folder, name).unlink()

    @contextmanager
    def short(self, name: str) -> Iterator[None]:
        path = Path(self.folder, name)
        content = path.read_bytes()
        os.truncate(path, len(content) - 1)
        yield
        path.write_bytes(content)


class WebShelf(Shelf):
    """A server a file, which answers for whatever name."""

    is_short = False

    def put(self, name: str, content: bytes) -> str:
        if not hasattr(self, "contents"):
            self.contents: dict[str, bytes | None] = {}
            self.servers: dict[str, str] = {}
        self.contents[name] = content
        if name not in self.servers:

            def answer(_: bytes, low: int, high: int) -> tuple[int, bytes, dict[str, str]]:
                now = self.contents[name]
                if now is None:
                    return 404, b"", {}
                headers = told(now, low, high) | {"ETag": f'"{hash(now)}"'}
                body = now[low:high]
                return 206, body[:-1] if self.is_short else body, headers

            self.servers[name] = self.opened.enter_context(answering(b"", answer))
        return f"{self.servers[name]}/{name}"

    def remove(self, name: str) -> None:
        self.contents[name] = None

    @contextmanager
    def short(self, name: str) -> Iterator[None]:
        self.is_short = True
        yield
        self.is_short = False


class HubShelf(Shelf):
    """A dataset; each change is a commit, and what was found is of the one before."""

    @property
    def hub(self) -> FakeHub:
        if not hasattr(self, "_hub"):
            self._hub = self.opened.enter_context(FakeHub())
            for name, value in self._hub.environment.items():
                self.monkeypatch.setenv(name, value)
            self.monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", self._hub.url)
            self.files: dict[str, Blob] = {}
            (self.tmp_path / "hub").mkdir()
            self._hub.add("org/set", self.tmp_path / "hub")
        return self._hub

    folder = "hf://datasets/org/set"

    def put(self, name: str, content: bytes) -> str:
        repository = self.hub.repositories["org/set"]
        path = self.tmp_path / "hub" / f"{len(repository.commits)}"
        path.write_bytes(content)
        self.files = {**self.files, name: Blob(path)}
        repository.commit(self.files)
        return f"{self.folder}/{name}"

    def remove(self, name: str) -> None:
        self.files = {other: blob for other, blob in self.files.items() if other != name}
        self.hub.repositories["org/set"].commit(self.files)

    @contextmanager
    def short(self, name: str) -> Iterator[None]:
        def cut(handler: Handler) -> bool:
            blob = handler.blob()
            low, high = handler.span(blob) or (0, blob.size)
            handler.send_blob(blob, most=high - low - 1)
            return False

        with self.hub.trouble(Fault(cut, name, times=1000)):
            yield


class GoogleShelf(Shelf):
    scheme = "gs"

    @property
    def store(self) -> fake_stores.FakeStore:
        if not hasattr(self, "_store"):
            served = fake_stores.served(self.scheme, self.tmp_path)
            self._store = self.opened.enter_context(served)
            for name, value in self._store.env.items():
                self.monkeypatch.setenv(name, value)
        return self._store

    @property
    def folder(self) -> str:  # type: ignore[override]
        return self.store.url("shelf")

    def put(self, name: str, content: bytes) -> str:
        self.store.put(f"shelf/{name}", content)
        return self.store.url(f"shelf/{name}")

    def remove(self, name: str) -> None:
        del self.store.objects[f"shelf/{name}"]

    @contextmanager
    def short(self, name: str) -> Iterator[None]:
        self.store.is_short = True
        yield
        self.store.is_short = False


class AzureShelf(GoogleShelf):
    scheme = "az"


class ZipShelf(Shelf):
    """An archive, which is written anew for each change."""

    @property
    def folder(self) -> str:  # type: ignore[override]
        return f"zip://{self.tmp_path}/shelf.zip"

    def put(self, name: str, content: bytes) -> str:
        self._write({**self._read(), name: content})
        return f"{self.folder}/{name}"

    def remove(self, name: str) -> None:
        self._write({other: data for other, data in self._read().items() if other != name})

    @contextmanager
    def short(self, name: str) -> Iterator[None]:
        before = self._read()
        self._write({**before, name: before[name][:-1]})
        yield
        self._write(before)

    def _read(self) -> dict[str, bytes]:
        try:
            with ZipFile(self.tmp_path / "shelf.zip") as archive:
                return {name: archive.read(name) for name in archive.namelist()}
        except FileNotFoundError:
            return {}

    def _write(self, contents: dict[str, bytes]) -> None:
        with ZipFile(self.tmp_path / "shelf.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)


SHELVES: dict[str, type[Shelf]] = {
    "local": LocalShelf,
    "web": WebShelf,
    "hub": HubShelf,
    "gs": GoogleShelf,
    "az": AzureShelf,
    "zip": ZipShelf,
}
