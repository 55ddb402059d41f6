"""What every executor promises: order, bounds, errors in their turn, and nothing left behind.

Where workers are processes, also that a death costs an item's time and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import command_environment
from tests.contract.toy_executor import InlineExecutor
from tests.contract.yours import yours
from tokenmill.executors.executor import Executor, WorkerDied
from tokenmill.executors.processes import ProcessExecutor
from tokenmill.executors.threads import ThreadExecutor

MAKERS: dict[str, Callable[[int], Executor]] = {
    "inline": InlineExecutor,
    "threads": ThreadExecutor,
    "processes": partial(ProcessExecutor, modules=["numpy"]),
    **yours(lambda entry: callable(getattr(entry, "map", None))),
}


@pytest.fixture(params=MAKERS)
def make_executor(request: pytest.FixtureRequest) -> Callable[[int], Executor]:
    return MAKERS[request.param]


def square() -> Callable[[int], int]:
    return squared


def squared(number: int) -> int:
    time.sleep(0.003 * (number % 3))  # out of order
    return number * number


def arrays() -> Callable[[int], dict[str, object]]:
    return array_of


def array_of(size: int) -> dict[str, object]:
    ids = np.arange(size, dtype=np.uint16)
    return {"ids": ids, "starts": np.arange(size // 7, dtype=np.int64), "none": np.empty(0)}


def failing() -> Callable[[int], int]:
    return fail_at_five


def fail_at_five(number: int) -> int:
    if number == 5:
        raise KeyError("five")
    return number


def cannot_begin() -> Callable[[int], int]:
    raise ValueError("no engine")


def dying(folder: str) -> Callable[[int], int]:
    return partial(die, Path(folder))


def die(folder: Path, number: int) -> int:
    """Dies at multiples of ten, once; at 33 always."""
    mark = folder / str(number)
    if number == 33 or (number % 10 == 0 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_the_order_of_the_items(
    workers: int, make_executor: Callable[[int], Executor]
) -> None:
    with make_executor(workers).map(square, iter(range(100)), window=10) as running:
        assert list(running) == [number * number for number in range(100)]
        assert running.is_finished


def test_no_items_are_no_results(make_executor: Callable[[int], Executor]) -> None:
    with make_executor(2).map(square, iter(()), window=3) as running:
        assert list(running) == []
        assert running.is_finished


def test_arrays_arrive_as_they_were(make_executor: Callable[[int], Executor]) -> None:
    sizes = [0, 5, 1_000_000, 3, 70_000, 2_000_000, 1, 1_500_000, 0, 8]
    with make_executor(3).map(arrays, iter(sizes), window=3) as running:
        for size, result in zip(sizes, running, strict=True):
            expected = array_of(size)
            for key, values in expected.items():
                found = result[key]
                assert isinstance(found, np.ndarray) and isinstance(values, np.ndarray)
                assert found.dtype == values.dtype
                assert np.array_equal(found, values)


def test_no_more_is_taken_than_the_window_holds(make_executor: Callable[[int], Executor]) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(30):
            taken.append(number)
            yield number

    with make_executor(2).map(
        square, items(), window=6, weigh=lambda number: 2 if number < 20 else 100
    ) as running:
        for done, _ in enumerate(running):
            time.sleep(0.01)
            # Three that weigh 2, and one that waits for room; later one that is heavier than all.
            assert len(taken) <= done + (5 if done < 16 else 6)


def test_an_error_comes_in_its_turn(make_executor: Callable[[int], Executor]) -> None:
    found: list[int] = []
    with (
        pytest.raises(KeyError, match="five"),
        make_executor(3).map(failing, iter(range(9)), window=9) as running,
    ):
        found.extend(running)
    assert found == [0, 1, 2, 3, 4]


def test_an_error_of_the_items_comes_after_all_before_it(
    make_executor: Callable[[int], Executor],
) -> None:
    def items() -> Iterator[int]:
        yield from range(4)
        raise OSError("the disk")

    found: list[int] = []
    with (
        pytest.raises(OSError, match="the disk"),
        make_executor(2).map(square, items(), window=9) as running,
    ):
        found.extend(running)
    assert found == [0, 1, 4, 9]


def test_a_worker_that_cannot_begin_is_an_error(make_executor: Callable[[int], Executor]) -> None:
    with (
        pytest.raises(ValueError, match="no engine"),
        make_executor(2).map(cannot_begin, iter(range(9)), window=4) as running,
    ):
        list(running)


def test_it_ends_early_when_asked(make_executor: Callable[[int], Executor]) -> None:
    over = threading.Event()

    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    with make_executor(2).map(square, endless(), window=5, is_over=over.is_set) as running:
        for number in running:
            if number == 100:
                over.set()
        assert not running.is_finished


def processes() -> set[int]:
    """All below this one."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
    found = {os.getpid()}
    while more := {pid for pid, parent in pairs if parent in found} - found:
        found |= more
    return found


def test_nothing_is_left_behind(make_executor: Callable[[int], Executor]) -> None:
    before, files = threading.active_count(), len(os.listdir("/dev/fd"))
    for items in (iter(range(20)), iter(range(10**9))):
        running = make_executor(3).map(square, items, window=5)
        for number in running:
            if number > 200:
                break
        assert running.close() == 0
    assert threading.active_count() == before
    assert len(os.listdir("/dev/fd")) == files
    assert not any("executors.worker" in command for command in commands_below())


def commands_below() -> list[str]:
    found = []
    for pid in processes() - {os.getpid()}:
        listed = subprocess.run(["ps", "-o", "args=", str(pid)], capture_output=True, text=True)
        found.append(listed.stdout)
    return found


# --- where workers are processes


def test_a_worker_that_is_killed_costs_its_item_and_not_the_map(tmp_path: Path) -> None:
    told: list[str] = []
    executor = ProcessExecutor(3, tell=told.append)
    make = partial(dying, str(tmp_path))
    with executor.map(make, iter(range(31)), window=6) as running:
        assert list(running) == list(range(31))
    why = "another process sent it, or the machine ran out of memory; its block goes to another one"
    assert told == [f"warning: a worker process was killed by signal 9 (SIGKILL); {why}"] * 4


def test_the_third_death_over_one_item_is_an_error_in_its_turn(tmp_path: Path) -> None:
    found: list[int] = []
    with (
        pytest.raises(WorkerDied, match="3 workers died over the same block") as error,
        ProcessExecutor(2).map(
            partial(dying, str(tmp_path)), iter(range(31, 60)), window=6
        ) as running,
    ):
        found.extend(running)
    assert found == [31, 32]
    assert error.value.index == 2
    assert [death.split(";")[0] for death in error.value.deaths] == [
        "a worker process was killed by signal 9 (SIGKILL)"
    ] * 3


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from tests.contract.test_executors import square\n"
        "from tokenmill.executors.processes import ProcessExecutor\n"
        "running = ProcessExecutor(2).map(square, iter(range(10**9)), window=4)\n"
        "for number in running:\n"
        "    if number == 100: print('going', flush=True)\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        env=command_environment(),
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "going\n"
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
    found = {program.pid}
    while more := {pid for pid, parent in pairs if parent in found} - found:
        found |= more
    assert len(found) == 4
    program.kill()
    program.wait()
    program.stdout.close()
    end = time.monotonic() + 10
    while any(is_alive(pid) for pid in found) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in found if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
