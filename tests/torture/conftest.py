"""A line of progress for each file of a campaign: which file, how many are done, seconds."""

from __future__ import annotations

import collections
import time
from collections.abc import Generator
from pathlib import Path

import pluggy
import pytest

Status = pluggy.Result[tuple[str, str, object]]


class Progress:
    """Tells when a file begins, and when the last of its tests has ended how they ended."""

    def __init__(self, items: list[pytest.Item], write: pytest.TerminalReporter) -> None:
        self._left = collections.Counter(file_of(item.nodeid) for item in items)
        self._files = list(self._left)
        self._write = write
        self._began: dict[str, float] = {}
        self._ended: dict[str, collections.Counter[str]] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        file = file_of(nodeid)
        if file not in self._began:
            self._began[file] = time.monotonic()
            self._tell(file, f"{self._left[file]} to do")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_report_teststatus(
        self,
    ) -> Generator[None, Status, None]:
        """No dots between the lines."""
        outcome = yield
        category, _, word = outcome.get_result()
        outcome.force_result((category, "", word))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            ended = self._ended.setdefault(file_of(report.nodeid), collections.Counter())
            ended[report.outcome] += 1

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        file = file_of(nodeid)
        self._left[file] -= 1
        if not self._left[file]:
            counts = ", ".join(f"{count} {how}" for how, count in self._ended[file].items())
            self._tell(file, f"{counts}; {time.monotonic() - self._began[file]:.0f} s")

    def _tell(self, file: str, what: str) -> None:
        number = self._files.index(file) + 1
        self._write.write_line(f"{number} of {len(self._files)}: {file}: {what}")


def file_of(nodeid: str) -> str:
    """The name of a test's file."""
    return Path(nodeid.partition("::")[0]).name


def pytest_collection_finish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and session.items:
        session.config.pluginmanager.register(Progress(session.items, reporter), "progress")
