"""SHA-256 by another process: what `hashlib` says, and nothing wrong where that process ends."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenmill.stores.claims import STATE_FOLDER, Claims
from tokenmill.stores.digest import Hasher, HasherDied, serve
from tokenmill.stores.durable import StagedFile


@pytest.fixture
def hashing() -> Iterator[tuple[Hasher, int]]:
    """A hasher and its process."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        serve(theirs)
        os._exit(0)
    theirs.close()
    hasher = Hasher(ours)
    yield hasher, pid
    hasher.close()
    os.waitpid(pid, 0)


def test_digests_are_those_of_hashlib(hashing: tuple[Hasher, int]) -> None:
    hasher, rng = hashing[0], random.Random(3)
    mine = [hashlib.sha256() for _ in range(3)]
    theirs = [hasher.digest() for _ in range(3)]
    assert theirs[0].hexdigest() == mine[0].hexdigest()
    for size in [0, 1, 5_000_000, 1024 * 1024, 12_345_678, 63, 20_000_000]:
        data, which = rng.randbytes(size), rng.randrange(3)
        mine[which].update(data)
        theirs[which].update(memoryview(data))
        other = rng.randrange(3)
        assert theirs[other].hexdigest() == mine[other].hexdigest()
    assert [each.hexdigest() for each in theirs] == [each.hexdigest() for each in mine]


def test_several_threads_may_hash(hashing: tuple[Hasher, int]) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        digest = hashing[0].digest()
        for step in range(20):
            digest.update(bytes([number, step]) * 300_000)
        found[number] = digest.hexdigest()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        data = b"".join(bytes([number, step]) * 300_000 for step in range(20))
        assert found[number] == hashlib.sha256(data).hexdigest()


def test_a_file_whose_hasher_ends_is_read_once_more(
    hashing: tuple[Hasher, int], tmp_path: Path
) -> None:
    hasher, pid = hashing
    head, data = b"head", random.Random(1).randbytes(3_000_000)
    file = StagedFile(tmp_path / "shard.bin", head, hasher.digest)
    file.write(memoryview(data))
    assert file.hash_so_far() == hashlib.sha256(head + data).hexdigest()
    os.kill(pid, signal.SIGKILL)
    file.write(memoryview(data))
    assert file.hash_so_far() is None, "nothing that is not known is noted"
    assert file.finish() == hashlib.sha256(head + data + data).hexdigest()
    with pytest.raises(HasherDied):
        hasher.digest().update(b"more" * 9_000_000)


def test_a_file_is_gone_on_with(hashing: tuple[Hasher, int], tmp_path: Path) -> None:
    (tmp_path / STATE_FOLDER).mkdir()
    Claims.begun(tmp_path)
    data = random.Random(2).randbytes(2_000_000)
    file = StagedFile(tmp_path / "shard.bin", new_digest=hashing[0].digest)
    file.write(memoryview(data))
    noted = file.hash_so_far()
    file.write(memoryview(b"lost"))
    file.close()
    again = StagedFile.reopen(
        tmp_path / "shard.bin", len(data), noted, new_digest=hashing[0].digest
    )
    again.write(memoryview(data))
    assert again.finish() == hashlib.sha256(data + data).hexdigest()
