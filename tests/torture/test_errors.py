"""Law 4 against a failing disk: every call on the output fails once, or for good.

TOKENMILL_POINTS: at most so many calls for each error. Real full disks and a read-only mount need
root; where they cannot be made the tests are skipped, loudly.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Result
from tests.kit import corpora, runs, texts
from tests.kit.injection import Scene, need_strace
from tests.kit.runs import snapshot
from tests.kit.shared import ARTICLES

POINTS = int(os.environ.get("TOKENMILL_POINTS", "100000"))
CODES = {"ENOSPC": 9, "EDQUOT": 9, "EIO": 1, "EFBIG": 1}
FAILING = ("write", "pwrite64", "fsync", "fdatasync", "rename", "openat", "ftruncate")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    need_strace()
    return Scene.make(tmp_path_factory.mktemp("scene"), "jsonl")


def complaint(done: Result, call: str, error: str, out: Path) -> str | None:
    """What is wrong with how a run failed; None when it is well."""
    # To read a folder no space is needed: then a full disk is as odd as any other error.
    if done.rc != CODES[error] and (call, done.rc) != ("openat", 1):
        return f"exit code {done.rc} instead of {CODES[error]}: {done.stderr}"
    if "Traceback" in done.stderr or not re.search(r"^  fix: \S", done.stderr, re.MULTILINE):
        return f"not explained: {done.stderr}"
    if f"where: {out}" not in done.stderr:
        return f"the path is not named: {done.stderr}"
    return None


@pytest.mark.parametrize("lasts", ["once", "for good"])
@pytest.mark.parametrize("error", CODES)
def test_every_call_fails(
    error: str, lasts: str, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [point for point in scene.points(tmp_path) if point[0] in FAILING]
    points = points[:: max(1, len(points) // POINTS)]
    failed = []

    def trial(index: int) -> str | None:
        call, number = points[index]
        out, log = tmp_path / str(index), tmp_path / f"{index}.log"
        when = f"{number}{'+' if lasts == 'for good' else ''}"
        inject = ("-e", f"inject={call}:error={error}:when={when}")
        done = scene.run(out, *scene.tracing(out, log, *inject))
        what = f"{call} {when} {error}"
        was_hit = "(INJECTED)" in log.read_text()
        failed.append(was_hit)
        if was_hit and done.rc and (wrong := complaint(done, call, error, out)):
            return f"{what}: {wrong}"
        dataset = {name: h for name, h in snapshot(out).items() if ".tokenmill" not in name}
        if done.rc == 0 and dataset != scene.undisturbed:
            return f"{what}: it says done, and the bytes are others"
        again = scene.run(out)
        if again.rc or snapshot(out) != scene.undisturbed:
            return f"{what}: the next run: {again.rc} {again.stderr} {sorted(snapshot(out))}"
        shutil.rmtree(out)
        return None

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        wrong = [found for found in pool.map(trial, range(len(points))) if found]
    with capsys.disabled():
        print(f"\n{error} {lasts}: {len(points) - len(wrong)} of {len(points)} calls survived")
    assert not wrong, "\n".join(wrong[:20])
    assert sum(failed) > 0.8 * len(points)


def mount(command: list[str], place: Path) -> Iterator[Path]:
    """A file system for a test, taken away afterwards."""
    place.mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: cannot mount: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    place = tmp_path / "disk"
    if request.param == "tmpfs":
        yield from mount(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(place)], place)
        return
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(24_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    yield from mount(["mount", "-o", "loop", str(image), str(place)], place)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> corpora.Corpus:
    """So much text that its tokens do not fit into 20 MB."""
    long = texts.prose(400_000)
    documents = [f"{number} {long}" for number in range(36)]
    return corpora.write(tmp_path_factory.mktemp("large"), "jsonl", documents)


def test_a_full_disk(large: corpora.Corpus, small_disk: Path, tmp_path: Path) -> None:
    """Exit code 9, how much is missing, and after room was made it goes on."""
    ballast = small_disk / "ballast"
    options = ["--format", "build-nanogpt", "--shard-tokens", "1M", "--check", "0"]
    plain = runs.run("prepare", *large.arguments(), "--out", tmp_path / "plain", *options)
    assert plain.rc == 0, plain.stderr
    size = sum(path.stat().st_size for path in (tmp_path / "plain").iterdir())
    free = shutil.disk_usage(small_disk).free
    assert size < free, "else there is no room for it at all"
    ballast.write_bytes(os.urandom(free - size // 2))
    out = small_disk / "out"
    command = ["prepare", *large.arguments(), "--out", out, *options]
    full = runs.run(*command)
    assert full.rc == 9, full.stderr
    assert "fix: " in full.stderr
    assert re.search(r"about \S+ [kM]B more are needed|needed", full.stderr), full.stderr
    assert "Traceback" not in full.stderr
    runs.assert_nothing_finished(out)
    ballast.unlink()
    done = runs.run(*command)
    assert done.rc == 0, done.stderr
    assert snapshot(out) == snapshot(tmp_path / "plain")


def test_a_read_only_disk(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    for made in mount(["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], place):
        done = runs.run("prepare", ARTICLES, "--out", made / "out")
        assert done.rc == 1
        assert f"where: {made / 'out'}" in done.stderr
        assert "Read-only file system" in done.stderr
        assert "fix: " in done.stderr


@pytest.fixture(scope="module")
def one_file(large: corpora.Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("plain") / "out"
    plain = runs.run("prepare", *large.arguments(), "--out", out, "--check", "0")
    assert plain.rc == 0, plain.stderr
    return snapshot(out)


@pytest.mark.parametrize("kilobytes", [1000, 3001, 7777])
def test_a_file_size_limit_of_the_shell(
    kilobytes: int, large: corpora.Corpus, one_file: dict[str, str], tmp_path: Path
) -> None:
    """The write that crosses the limit is a short one: all is written, or it is told.

    (strace could fake the result of a write, but then nothing would be written.)
    """
    out = tmp_path / "out"
    command = ["prepare", *large.arguments(), "--out", out, "--check", "0"]
    shell = ("bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash")
    limited = runs.run(*command, prefix=shell)
    assert limited.rc == 1, limited.stderr
    assert "ulimit -f" in limited.stderr
    assert f"where: {out}" in limited.stderr
    assert "Traceback" not in limited.stderr
    done = runs.run(*command)
    assert done.rc == 0, done.stderr
    assert snapshot(out) == one_file


def test_a_full_folder_for_temporary_files(small_disk: Path, tmp_path: Path) -> None:
    """Where it is needed at all, it is named; elsewhere the run does without."""
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    shell = ("env", f"TMPDIR={small_disk}")
    done = runs.run("prepare", ARTICLES, "--out", tmp_path / "out", prefix=shell)
    assert "Traceback" not in done.stderr
    assert done.rc == 0 or f"where: {small_disk}" in done.stderr


@pytest.mark.parametrize("kind", runs.KINDS)
def test_an_input_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    """EIO in the middle: the error names file and place, and the next run goes on."""
    need_strace()
    scene = Scene.make(tmp_path / "scene", kind)
    out, path = tmp_path / "out", str(scene.corpus.path)
    base = ("strace", "-f", "-qq", "-o", str(tmp_path / "log"), "-P", path)
    calls = "read,pread64"
    failures = 0
    for number in range(1, 40, 3):
        inject = f"inject={calls}:error=EIO:when={number}+"
        done = scene.run(out, *base, "-e", f"trace={calls}", "-e", inject)
        if done.rc == 0:
            break
        failures += 1
        assert done.rc == 1, done.stderr
        assert path in done.stderr
        assert "fix: " in done.stderr
        assert "Traceback" not in done.stderr
        runs.assert_nothing_finished(out)
    assert failures
    done = scene.run(out)
    assert done.rc == 0, done.stderr
    assert snapshot(out) == scene.undisturbed
