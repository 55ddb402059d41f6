"""Tokenizers from the Hub: only the tokenizer's files, of one commit, which a run goes on with.

A small server on this machine answers as the Hub does; what it was asked for is looked at.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.conftest import Run, command_environment
from tests.kit import trained
from tests.kit.shared import ARTICLES

pytest.importorskip("huggingface_hub", reason="needs the library huggingface_hub")
NAME = "some-org/Some-Model"


class SmallHub:
    """One model with a branch; `commits` maps a commit to its files."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.main = ""
        self.asked: list[str] = []
        self.refusal: tuple[int, str] | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def commit(self, files: dict[str, bytes]) -> str:
        """A new commit, at the head of main."""
        self.main = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[self.main] = files
        return self.main

    def answer(self, handler: BaseHTTPRequestHandler, with_body: bool) -> None:
        path = unquote(handler.path.partition("?")[0])
        self.asked.append(f"{handler.command} {path}")
        status, headers, body = self._found(path)
        handler.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if with_body:
            handler.wfile.write(body)

    def _found(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if self.refusal is not None:
            return self.refusal[0], {"X-Error-Code": self.refusal[1]}, b""
        missing = 404, {"X-Error-Code": "RepoNotFound"}, b""
        api, resolve = f"/api/models/{NAME}", f"/{NAME}/resolve/"
        if path in (api, f"{api}/revision/main"):
            about = {"id": NAME, "sha": self.main, "siblings": [], "private": False, "tags": []}
            return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()
        if path.startswith(f"{api}/revision/"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if path.startswith(f"{api}/tree/"):
            files = self.commits[path.rpartition("/")[2]]
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in files.items()
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        if not path.startswith(resolve):
            return missing
        commit, _, name = path.removeprefix(resolve).partition("/")
        data = self.commits[commit][name]
        return 200, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit}, data


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    found = SmallHub()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
def env(hub: SmallHub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip


def files_of(kind: str, **more: bytes) -> dict[str, bytes]:
    """A model as it is published, weights, code and all."""
    return {
        "tokenizer.json": trained.path(kind).read_bytes(),
        "model.safetensors": b"weights",
        "tokenization_custom.py": b"raise SystemExit('never run')",
        "config.json": b"{}",
        **more,
    }


def test_only_the_tokenizers_files_of_one_commit_are_fetched(
    hub: SmallHub, env: dict[str, str], tokenmill: Run, tmp_path: Path
) -> None:
    commit = hub.commit(
        files_of("llama3", **{"tokenizer_config.json": b'{"eos_token": "<|begin_of_text|>"}'})
    )
    command = ["prepare", ARTICLES, "--tokenizer", NAME, "--format", "llm.c", "--out"]
    done = tokenmill(*command, tmp_path / "hub", env=env)
    assert done.rc == 0, done.stderr
    assert "engine: gigatoken for some-org/Some-Model" in done.stderr
    fetched = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
    assert fetched == {"tokenizer.json", "tokenizer_config.json"}
    assert all(f"/resolve/{commit}/" in line for line in hub.asked if "/resolve/" in line)
    manifest = json.loads((tmp_path / "hub" / "manifest.json").read_text())
    assert manifest["tokenizer"]["commit"] == commit
    assert manifest["tokenizer"]["name"] == NAME
    path, token = str(trained.path("llama3")), "<|begin_of_text|>"
    local = [*command[:3], path, *command[4:], tmp_path / "file", "--eot-token", token]
    assert tokenmill(*local).rc == 0
    told = json.loads((tmp_path / "file" / "manifest.json").read_text())
    assert [shard["sha256"] for shard in told["shards"]] == [
        shard["sha256"] for shard in manifest["shards"]
    ]
    assert told["fingerprint"] == manifest["fingerprint"]


def test_a_run_goes_on_with_its_commit_when_the_branch_has_moved(
    hub: SmallHub, env: dict[str, str], tokenmill: Run, tmp_path: Path
) -> None:
    first = hub.commit(files_of("llama3"))
    command = ["prepare", ARTICLES, "--tokenizer", NAME, "--format", "llm.c", "--out"]
    assert tokenmill(*command, tmp_path / "out", env=env).rc == 0
    second = hub.commit(files_of("gpt2"))
    again = tokenmill(*command, tmp_path / "out", env=env)
    assert again.rc == 0, again.stderr
    assert "nothing to do" in again.stderr
    shard = next((tmp_path / "out").glob("*.bin"))
    shard.write_bytes(b"")
    assert tokenmill(*command, tmp_path / "out", "--repair", env=env).rc == 0
    done = tokenmill("verify", tmp_path / "out", "--against", ARTICLES, "--share", "1", env=env)
    assert done.rc == 0, done.stderr
    assert tokenmill(*command, tmp_path / "new", env=env).rc == 0
    told = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert told["tokenizer"]["commit"] == second != first
    named = [*command[:3], f"{NAME}@{first}", *command[4:], tmp_path / "named"]
    assert tokenmill(*named, env=env).rc == 0
    told = json.loads((tmp_path / "named" / "manifest.json").read_text())
    assert told["tokenizer"]["commit"] == first


def test_what_is_in_the_cache_needs_no_network(
    hub: SmallHub, env: dict[str, str], tokenmill: Run, tmp_path: Path
) -> None:
    hub.commit(files_of("llama3"))
    command = ["plan", ARTICLES, "--tokenizer", NAME, "--format", "llm.c"]
    assert tokenmill(*command, env=env).rc == 0
    done = tokenmill(*command, env={**env, "HF_HUB_OFFLINE": "1"})
    assert done.rc == 0, done.stderr


@pytest.mark.parametrize(
    ("refusal", "rc", "words"),
    [
        ((404, "RepoNotFound"), 2, "the Hub has no some-org/Some-Model"),
        ((403, "GatedRepo"), 2, "set HF_TOKEN"),
        ((500, ""), 5, "cannot fetch the tokenizer"),
    ],
)
def test_what_the_hub_refuses_is_said(
    refusal: tuple[int, str], rc: int, words: str, hub: SmallHub, env: dict[str, str],
    tokenmill: Run,
) -> None:  # fmt: skip
    hub.commit(files_of("llama3"))
    hub.refusal = refusal
    done = tokenmill("plan", ARTICLES, "--tokenizer", NAME, env=env)
    assert done.rc == rc, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_revision_that_is_not_there_and_a_repository_without_a_tokenizer(
    hub: SmallHub, env: dict[str, str], tokenmill: Run
) -> None:
    hub.commit({"model.safetensors": b"weights"})
    done = tokenmill("plan", ARTICLES, "--tokenizer", NAME, env=env)
    assert done.rc == 2
    assert f"there is no tokenizer in {NAME}" in done.stderr
    done = tokenmill("plan", ARTICLES, "--tokenizer", f"{NAME}@nowhere", env=env)
    assert done.rc == 2
    assert f"the Hub has no {NAME}@nowhere" in done.stderr


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tokenmill.errors import TokenmillError\n"
        "from tokenmill.tokenizers.vocabularies.loading import load_vocabulary\n"
        "try:\n    load_vocabulary('some-org/Some-Model')\n"
        "except TokenmillError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=command_environment(), capture_output=True, text=True)
    assert "pip install 'huggingface-hub>=" in done.stdout, done.stderr
