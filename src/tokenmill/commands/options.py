"""What a run is told: the options that change no byte, beside the spec's, and how to stop it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tokenmill.commands.log import log_line
from tokenmill.commands.plan import Plan
from tokenmill.commands.progress import Display, Nothing, Progress
from tokenmill.commands.stop import StopRequest
from tokenmill.commands.workers import AUTO
from tokenmill.dataset.spec import SpecOptions
from tokenmill.errors import UsageError
from tokenmill.executors.supervisor import Attempt
from tokenmill.output.journal import continuing_command
from tokenmill.quantities import parse_seconds
from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.stores.retry import RetryPolicy

DEFAULT_CHECK = 0.0002
"""Measured: tiktoken takes about 70 ms for a MB, the whole run 2 to 6; this share costs 1 %."""
SLOW_REFERENCE_CHECK = 0.00005
"""Measured: tokenizers takes up to 1 s for a MB with byte-level BPE, which gigatoken encodes at 25
to 130 MB in one; this share costs under 1 %."""
DEFAULT_MAX_BAD = 10_000
DEFAULT_CHECKPOINT_SECONDS = 2.0


class PrepareOptions(SpecOptions, total=False):
    """All options of ``prepare``: the spec's, and those that change no byte."""

    memory: int | str | None
    workers: int | None
    threads: int | None
    executor: str
    engine: str
    check: float
    max_time: float | str | None
    max_bad: int
    overwrite: bool
    checkpoint_seconds: float
    repair: bool
    staging: str | None
    config: str | None
    network_patience: float | str | None
    progress: Progress


@dataclass(frozen=True)
class RunOptions:
    """What changes no byte: budget, engine, share of documents checked, limits, what is shown; and
    what the run has for itself: its log, its stop, its deadline, its policy for the network. The
    command makes one a run and hands it, or those, down: no module keeps any of it.

    ``max_time`` and ``network_patience`` are in seconds or a text such as ``8h``; ``config``
    chooses of a dataset on the Hub. ``tell`` gets the lines meant for a person, ``stop`` may be
    asked by a signal's handler, ``attempt`` tells of earlier deaths, ``arguments`` are what a
    person would type after ``tokenmill`` to do it again; ``staging`` is the folder for working
    folders where the output is a URL (None: in the user's cache); ``ends_process``: the process
    ends with the run, whatever its threads still do; ``sizes`` are those of blocks, which no option
    sets.
    """

    memory: int | str | None = None
    workers: int | None = None
    executor: str = AUTO
    engine: str = "auto"
    check: float | None = None
    max_time: float | str | None = None
    max_bad: int = DEFAULT_MAX_BAD
    overwrite: bool = False
    checkpoint_seconds: float | None = None
    repair: bool = False
    staging: str | None = None
    config: str | None = None
    network_patience: float | str | None = None
    display: Display = field(default_factory=Nothing)
    tell: Callable[[str], None] = log_line
    stop: StopRequest = field(default_factory=StopRequest)
    attempt: Attempt = field(default_factory=Attempt)
    arguments: list[str] = field(default_factory=list)
    ends_process: bool = False
    sizes: Sizes = DEFAULT_SIZES

    @property
    def command(self) -> str:
        """What a person types to go on."""
        return continuing_command(self.arguments)

    @cached_property
    def policy(self) -> RetryPolicy:
        """By which all requests for the run's inputs are made. Raises UsageError."""
        patience = self.network_patience
        return RetryPolicy(None if patience is None else parse_seconds(patience), self.tell)

    @cached_property
    def deadline(self) -> float | None:
        """When ``max_time`` is over, by the monotonic clock; it begins when this is first asked
        for, which is before anything is looked at. Raises UsageError."""
        return None if self.max_time is None else time.monotonic() + parse_seconds(self.max_time)


def divided(
    options: PrepareOptions, display: Display, arguments: list[str]
) -> tuple[RunOptions, SpecOptions]:
    """The options that change no byte, and those of the spec."""
    mine = PrepareOptions.__annotations__.keys() - SpecOptions.__annotations__.keys()
    mine -= {"progress"}
    run: Any = {name: value for name, value in options.items() if name in mine}
    spec: Any = {name: value for name, value in options.items() if name not in {*mine, "progress"}}
    return RunOptions(**run, display=display, arguments=arguments), spec


def workers_of(workers: int | None, threads: int | None) -> int | None:
    """How many are asked for, by ``--workers`` or by its older name. Raises UsageError where the
    two differ."""
    if workers is not None and threads is not None and workers != threads:
        raise UsageError(
            f"--workers {workers} and --threads {threads} differ",
            None,
            "--threads is the older name of --workers",
            "give --workers alone",
        )
    return threads if workers is None else workers


def default_check(plan: Plan) -> float:
    """The share of the documents that is checked unless another is asked for: under 2 % of the
    run's time, however slow the reference is next to the engine."""
    is_slow = plan.vocabulary.reference == "tokenizers" and plan.engine != "tokenizers"
    return SLOW_REFERENCE_CHECK if is_slow else DEFAULT_CHECK
