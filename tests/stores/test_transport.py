"""What travels and what is stored: encodings, lengths, ranges, and hosts that are not there."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tokenmill as package
from tests.conftest import Run
from tests.kit import stores, texts
from tests.kit.outcome import Outcome
from tests.sources.test_inputs import decoded
from tokenmill.commands.plan import make_plan
from tokenmill.dataset.spec import Spec
from tokenmill.errors import InputError, TemporaryFailure, TokenmillError
from tokenmill.sources.inputs import find_inputs
from tokenmill.splits import HASHED_BYTES
from tokenmill.stores.retry import RetryPolicy, TransientError

TEXT = "".join(f"line {number} of a text\n" for number in range(4000))

Answer = Callable[[bytes, int, int], tuple[int, bytes, dict[str, str]]]
"""From what is stored and the range that is asked for: status, body and headers."""


@contextmanager
def answering(stored: bytes, answer: Answer) -> Iterator[str]:
    """A server of one file; its address without the name."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            assert self.headers["Accept-Encoding"] == "identity"
            low, _, high = self.headers["Range"].removeprefix("bytes=").partition("-")
            status, body, headers = answer(stored, int(low), int(high) + 1)
            self.send_response(status)
            for name, value in {"ETag": '"1"', **headers}.items():
                if value:
                    self.send_header(name, value)
            if "Transfer-Encoding" in headers:
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            elif "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def told(stored: bytes, low: int, high: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {low}-{min(high, len(stored)) - 1}/{len(stored)}"}


def plain(stored: bytes, low: int, high: int) -> tuple[int, bytes, dict[str, str]]:
    return 206, stored[low:high], told(stored, low, high)


def encoded(stored: bytes, low: int, high: int) -> tuple[int, bytes, dict[str, str]]:
    """Stored compressed, and told so: ranges are of what is stored."""
    return 206, stored[low:high], told(stored, low, high) | {"Content-Encoding": "gzip"}


def on_the_fly(stored: bytes, low: int, high: int) -> tuple[int, bytes, dict[str, str]]:
    """Each answer compressed by itself."""
    body = gzip.compress(stored[low:high])
    return 206, body, told(stored, low, high) | {"Content-Encoding": "gzip"}


def chunked_on_the_fly(stored: bytes, low: int, high: int) -> tuple[int, bytes, dict[str, str]]:
    status, body, headers = on_the_fly(stored, low, high)
    return status, body, headers | {"Transfer-Encoding": "chunked"}


def too_long(stored: bytes, low: int, high: int) -> tuple[int, bytes, dict[str, str]]:
    """More bytes than the range that is told, but for the first byte alone."""
    more = 7 if high - low > 1 else 0
    return 206, stored[low : high + more], told(stored, low, high)


def whole(stored: bytes, low: int, high: int) -> tuple[int, bytes, dict[str, str]]:
    """The range is ignored, but for the first byte alone."""
    return plain(stored, low, high) if high - low == 1 else (200, stored, {})


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenmill.stores.retry.DEFAULT_PATIENCE", 2.0)


def documents(address: str, out: Path, **options: Any) -> list[str]:
    package.prepare(address, out=out, val_fraction=0, documents="line", **options)
    return decoded(Outcome(out))


def test_bytes_are_read_as_they_are_stored_whatever_the_server_says_of_them(
    tmp_path: Path, tokenmill: Run
) -> None:
    stored = gzip.compress(TEXT.encode())
    with answering(stored, encoded) as address:
        (file,) = find_inputs([f"{address}/x.txt"]).files
        assert file.size == len(stored)
        assert file.store.open(file).read(0, file.size) == stored
        assert file.store.open(file).read(5, 50) == stored[5:50]
        with pytest.raises(InputError, match=r"compressed \(\.gz\)"):
            package.prepare(f"{address}/x.txt", out=tmp_path / "no")
        for name, kind in (("x.txt.gz", {}), ("x.txt", {"kind": "text.gz"})):
            out = tmp_path / name
            assert documents(f"{address}/{name}", out, **kind) == TEXT.splitlines()
            done = tokenmill("verify", out, "--share", "1", "--against", f"{address}/{name}")
            assert done.rc == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (on_the_fly, "does not send the file's bytes as they are stored"),
        (chunked_on_the_fly, "does not send the file's bytes as they are stored"),
        (too_long, "does not give what is asked for"),
        (whole, None),
    ],
)
def test_an_answer_that_is_not_the_range_is_never_used(
    answer: Answer, sentence: str | None, tmp_path: Path
) -> None:
    with answering(TEXT.encode(), answer) as address:
        if sentence is None:  # the first piece is the file, and the server sends it
            with pytest.raises(InputError, match="ignores which bytes"):
                documents(f"{address}/x.txt", tmp_path / "out")
            return
        with pytest.raises(TokenmillError, match=sentence) as error:
            documents(f"{address}/x.txt", tmp_path / "out")
        assert "fix: " in str(error.value)


def test_objects_of_s3_that_are_stored_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = gzip.compress(TEXT.encode())
    with stores.served() as store:
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)
        put = {"Bucket": stores.BUCKET, "Body": stored, "ContentEncoding": "gzip"}
        store.client.put_object(Key="x.txt", **put)
        store.client.put_object(Key="y.txt.gz", **put)
        url = f"s3://{stores.BUCKET}"
        with pytest.raises(InputError, match=r"compressed \(\.gz\)") as error:
            package.plan(f"{url}/x.txt")
        assert f"--kind text.gz='{url}/x.txt'" in str(error.value)
        assert documents(f"{url}/x.txt", tmp_path / "x", kind="text.gz") == TEXT.splitlines()
        assert documents(f"{url}/y.txt.gz", tmp_path / "y") == TEXT.splitlines()


# --- hosts that are not there --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "env"),
    [
        ("https://no.such.host.invalid/x.txt", {}),
        ("http://127.0.0.1:9/x.txt", {}),
        ("org/name", {"HF_ENDPOINT": "https://no.such.host.invalid"}),
        ("s3://bucket/x.txt", {"AWS_ENDPOINT_URL": "https://no.such.host.invalid"}),
        ("s3://bucket/x.txt", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
    ],
)
def test_a_host_that_never_answered_ends_the_run_in_seconds(
    argument: str, env: dict[str, str], tmp_path: Path, tokenmill: Run
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    env = {"NO_PROXY": "*"} | keys | env
    began = time.monotonic()
    done = tokenmill("prepare", argument, "--out", tmp_path / "out", env=env)  # patience: 1 h
    assert done.rc == 5 and "the host cannot be reached" in done.stderr, done.stderr
    assert "fix: " in done.stderr
    assert time.monotonic() - began < 40


def test_a_host_that_answered_once_gets_all_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tokenmill.stores.retry.FIRST_PATIENCE", 0.2)
    policy, calls = RetryPolicy(patience=20.0), 0
    assert policy.request(lambda: 1, "s3://bucket/a, byte 0") == 1

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise TransientError("connection refused", is_unreachable=True)
        return calls

    assert policy.request(call, "s3://bucket/b, byte 5") == 3
    calls = -(10**9)
    with pytest.raises(TemporaryFailure, match="the host cannot be reached"):
        policy.request(call, "s3://another/b, byte 5")


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://x", "https://", "http://[::1"])
def test_an_endpoint_that_is_no_address_is_named(
    endpoint: str, tmp_path: Path, tokenmill: Run
) -> None:
    (tmp_path / "x.txt").write_text("text")
    for arguments in (("org/name",), ("x.txt", "--tokenizer", "org/name")):
        done = tokenmill("plan", *arguments, cwd=tmp_path, env={"HF_ENDPOINT": endpoint})
        assert done.rc == 2, done.stderr
        assert "HF_ENDPOINT is no address" in done.stderr and "fix: " in done.stderr
        assert "Traceback" not in done.stderr


# --- the validation split ------------------------------------------------------------------------

MARK = b"\xef\xbb\xbf"
UNBROKEN = texts.pseudo_random(HASHED_BYTES + HASHED_BYTES // 2, "無码字文本", "mark").encode()
LONG = {
    "no place to cut": UNBROKEN,
    "exactly a MiB": (b"some words " * HASHED_BYTES)[:HASHED_BYTES],
    "short": b"a few words",
}


def digest(document: bytes) -> str:
    """Of what is hashed."""
    return hashlib.sha256(document[:HASHED_BYTES]).hexdigest()


def first_head(path: Path, **options: Any) -> str:
    """What is hashed of the first document of a file."""
    chosen: Any = {"val_fraction": 0.5, **options}
    plan = make_plan([str(path)], Spec.of(chosen))
    plan.split_rule = plan.spec.split_rule  # as among several files
    corpus = plan.corpus()
    return digest(corpus.read(next(corpus.blocks())).documents[0])


@pytest.mark.parametrize("documents", ["file", "separator:@@"])
@pytest.mark.parametrize("name", LONG)
def test_what_is_hashed_of_a_document_does_not_depend_on_a_byte_order_mark(
    name: str, documents: str, tmp_path: Path
) -> None:
    heads = set()
    data = LONG[name] if documents == "file" else LONG[name] + b"@@another"
    for mark in (b"", MARK):
        for suffix, made in (("", data), (".gz", gzip.compress(mark + data))):
            path = tmp_path / f"{len(mark)}.txt{suffix}"
            path.write_bytes(made if suffix else mark + data)
            heads.add(first_head(path, documents=documents))
    assert heads == {digest(LONG[name])}
