"""What a run tells while it works: a live block on a terminal, a line a minute elsewhere, or JSON.

All of it goes to stderr but ``--json``, which prints one object a line on stdout. Numbers come
from the consumer of the pipeline, four times a second at most, never from the hot path.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenmill.batches import Counts, TokenBatch
from tokenmill.journal import Checkpoint
from tokenmill.memory import resident_bytes
from tokenmill.network import GATE
from tokenmill.quantities import format_bytes, format_count, format_seconds
from tokenmill.streams import print_or_forget

if TYPE_CHECKING:
    from rich.live import Live

_LIVE_SECONDS = 0.25
_LINE_SECONDS = 60.0
_JSON_SECONDS = 1.0


@dataclass
class Status:
    """How far a run is."""

    total_bytes: int
    budget: int
    threads: int
    began: float = field(default_factory=time.monotonic)
    done_bytes: int = 0
    counts: Counts = field(default_factory=Counts)
    checked_documents: int = 0
    checked_bytes: int = 0
    is_checked: bool = False
    """Was anything checked since this process began?"""
    seconds: dict[str, float] = field(
        default_factory=lambda: {"read": 0.0, "encode": 0.0, "write": 0.0}
    )
    kept_bytes: int = 0
    kept_tokens: int = 0
    kept_seconds: float = 0.0

    def restore(self, at: Checkpoint) -> None:
        """Go on counting from what an interrupted run had counted."""
        self.done_bytes = self.kept_bytes = at.done_bytes
        self.counts = Counts(**at.counts)
        self.kept_tokens = self.counts.tokens
        self.kept_seconds = at.seconds
        self.checked_documents, self.checked_bytes = at.checked_documents, at.checked_bytes

    def counted(self) -> dict[str, Any]:
        """What a checkpoint keeps of this."""
        return {
            "done_bytes": self.done_bytes,
            "counts": dict(vars(self.counts)),
            "checked_documents": self.checked_documents,
            "checked_bytes": self.checked_bytes,
            "seconds": self.kept_seconds + time.monotonic() - self.began,
        }

    def add(self, batch: TokenBatch, writing: float) -> None:
        """Account for one batch that was written in ``writing`` seconds."""
        self.done_bytes += batch.source_bytes
        self.counts.add(batch.counts)
        self.checked_documents += batch.checked_documents
        self.checked_bytes += batch.checked_bytes
        if batch.due_bytes and not self.checked_bytes:
            # Only the first of a dataset counts: what a run that goes on checks for itself would
            # make another manifest than an undisturbed run's.
            self.checked_documents += 1
            self.checked_bytes += batch.due_bytes
        self.is_checked |= bool(batch.checked_bytes or batch.due_bytes)
        self.seconds["read"] += batch.seconds_reading
        self.seconds["encode"] += batch.seconds_encoding
        self.seconds["write"] += writing

    def busy(self) -> dict[str, float]:
        """The share of its time that each stage was busy: threads read and encode, one writes."""
        elapsed = max(1e-9, time.monotonic() - self.began)
        return {
            "read": self.seconds["read"] / self.threads / elapsed,
            "encode": self.seconds["encode"] / self.threads / elapsed,
            "write": self.seconds["write"] / elapsed,
        }

    def bottleneck(self) -> str:
        """The busiest stage."""
        busy = self.busy()
        return max(busy, key=lambda stage: busy[stage])


class Reporter:
    """Shows a status in one of the ways; ``close`` must be called."""

    def __init__(self, status: Status, quiet: bool = False, as_json: bool = False) -> None:
        self._status = status
        self._json = as_json
        self._last = status.began
        self._last_bytes = status.kept_bytes
        self._last_tokens = status.kept_tokens
        self._live: Live | None = None
        terminal = sys.stderr.isatty()
        if as_json:
            self._interval = _JSON_SECONDS
        elif quiet:
            self._interval = float("inf")
        elif terminal:
            self._interval = _LIVE_SECONDS
            self._live = _start_live()
        else:
            self._interval = _LINE_SECONDS

    def update(self) -> None:
        """Show the status if it is time to."""
        now = time.monotonic()
        if now - self._last < self._interval:
            return
        figures = self._figures(now)
        if self._json:
            print_or_forget(json.dumps({"type": "progress", **figures}), sys.stdout)
            return
        if self._live is None:
            print_or_forget(_line(figures), sys.stderr)
            return
        with contextlib.suppress(OSError):  # a terminal that is gone stops no run
            self._live.update(_block(figures))

    def _figures(self, now: float) -> dict[str, Any]:
        status = self._status
        elapsed, lately = now - status.began, max(1e-9, now - self._last)
        tokens = status.counts.tokens
        figures = {
            "seconds": round(elapsed, 3),
            "bytes": status.done_bytes,
            "total_bytes": status.total_bytes,
            "documents": status.counts.documents,
            "tokens": tokens,
            "bytes_per_second": round((status.done_bytes - self._last_bytes) / lately),
            "mean_bytes_per_second": round(
                (status.done_bytes - status.kept_bytes) / max(1e-9, elapsed)
            ),
            "tokens_per_second": round((tokens - self._last_tokens) / lately),
            "mean_tokens_per_second": round((tokens - status.kept_tokens) / max(1e-9, elapsed)),
            "seconds_left": _seconds_left(status, elapsed),
            "resident_bytes": resident_bytes(),
            "memory_budget": status.budget,
            "busy": {stage: round(share, 3) for stage, share in status.busy().items()},
            "bottleneck": status.bottleneck(),
            "retries": GATE.retries,
        }
        self._last, self._last_bytes, self._last_tokens = now, status.done_bytes, tokens
        return figures

    def close(self) -> None:
        """Take the live block away."""
        if self._live is not None:
            self._live.stop()


def _seconds_left(status: Status, elapsed: float) -> float | None:
    done = status.done_bytes - status.kept_bytes
    if done <= 0:
        return None
    return round(elapsed * (status.total_bytes - status.done_bytes) / done, 1)


def _start_live() -> Live:
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
    live.start()
    return live


def _line(figures: dict[str, Any]) -> str:
    share = figures["bytes"] / max(1, figures["total_bytes"])
    left = figures["seconds_left"]
    return (
        f"{share:4.0%} {format_bytes(figures['bytes'])} "
        f"of {format_bytes(figures['total_bytes'])}, "
        f"{format_count(figures['documents'])} documents, "
        f"{format_count(figures['tokens'])} tokens, "
        f"{format_bytes(figures['bytes_per_second'])}/s "
        f"(mean {format_bytes(figures['mean_bytes_per_second'])}/s), "
        f"{'?' if left is None else format_seconds(left)} left, "
        f"{format_bytes(figures['resident_bytes'])} of {format_bytes(figures['memory_budget'])}, "
        f"busiest: {figures['bottleneck']}"
        + (f", {figures['retries']} requests made again" if figures["retries"] else "")
    )


def _block(figures: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    left = figures["seconds_left"]
    table = Table.grid(padding=(0, 2))
    rate, mean = figures["bytes_per_second"], figures["mean_bytes_per_second"]
    tokens, tokens_mean = figures["tokens_per_second"], figures["mean_tokens_per_second"]
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in figures["busy"].items())
    rows = [
        ("read", f"{format_bytes(figures['bytes'])} of {format_bytes(figures['total_bytes'])}"),
        ("documents", f"{figures['documents']:,}"),
        ("tokens", f"{figures['tokens']:,}"),
        ("speed", f"{format_bytes(rate)}/s now, {format_bytes(mean)}/s mean"),
        ("", f"{format_count(tokens)} tokens/s now, {format_count(tokens_mean)} tokens/s mean"),
        ("time left", "?" if left is None else format_seconds(left)),
        (
            "memory",
            f"{format_bytes(figures['resident_bytes'])} of "
            f"{format_bytes(figures['memory_budget'])}",
        ),
        ("busy", f"{busy}; bottleneck: {figures['bottleneck']}"),
    ]
    if figures["retries"]:
        rows.append(("network", f"{figures['retries']} requests made again"))
    for label, value in rows:
        table.add_row(Text(label, style="dim"), Text(value))
    bar = ProgressBar(total=max(1, figures["total_bytes"]), completed=figures["bytes"], width=60)
    return Group(bar, table)
