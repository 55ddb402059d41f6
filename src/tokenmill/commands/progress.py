"""What a run tells while it works: a live block on a terminal, a line a minute elsewhere, or JSON;
in a script one line as of tqdm, in a notebook one output that changes, or a call of the caller's.

All of it goes to stderr but ``--json``, which prints one object a line on stdout. Numbers come
from the consumer of the pipeline, four times a second at most, never from the hot path.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenmill.batches import Counts, TokenBatch
from tokenmill.console import (
    can_redraw,
    hide_block,
    print_or_forget,
    show_block,
    terminal_size,
    to_json,
)
from tokenmill.memory import peak_resident_bytes, proportional_bytes, resident_bytes
from tokenmill.output.journal import Checkpoint
from tokenmill.stores.retry import RetryPolicy
from tokenmill.units import format_bytes, format_count, format_seconds, numbered

Figures = dict[str, Any]
"""Plain data: what ``--json`` prints as progress, and what a caller's function gets."""
Progress = bool | Callable[[Figures], object] | None
"""``prepare(progress=...)``: shown or not, or a function that is called with the figures; None is
shown on a terminal and in a notebook."""
_LIVE_SECONDS = 0.25
_SAMPLE_SECONDS = 1.0
_LINE_SECONDS = 60.0
_JSON_SECONDS = 1.0
_LABEL = 11
_LEAST_COLUMNS = 24


@dataclass
class Status:
    """How far a run is; what it asked of the network is counted by its ``policy``."""

    total_bytes: int
    budget: int
    threads: int
    policy: RetryPolicy = field(default_factory=RetryPolicy)
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
    cache_drops: int = 0
    pids: list[int] = field(default_factory=list)
    """Of the processes that work for this one."""
    _peak: int = 0
    _sampled: float = 0.0
    kept_bytes: int = 0
    kept_text_bytes: int = 0
    kept_tokens: int = 0
    kept_seconds: float = 0.0

    def resident_bytes(self) -> int:
        """The memory of this process and those that work for it, now; what they share once."""
        if not self.pids:
            return resident_bytes()
        found = proportional_bytes([os.getpid(), *self.pids])
        self._peak = max(self._peak, found)
        return found

    def sample(self, now: float) -> None:
        """Look at the memory of several processes, once a second: each look takes milliseconds."""
        if self.pids and now - self._sampled >= _SAMPLE_SECONDS:
            self._sampled = now
            self.resident_bytes()

    @property
    def peak_memory(self) -> int:
        """The most that they had: of one process, exactly; of several, as was seen."""
        return max(self._peak, peak_resident_bytes())

    def restore(self, at: Checkpoint) -> None:
        """Go on counting from what an interrupted run had counted."""
        self.done_bytes = self.kept_bytes = at.done_bytes
        self.counts = Counts(**at.counts)
        self.kept_text_bytes, self.kept_tokens = self.counts.text_bytes, self.counts.tokens
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
        self.cache_drops += batch.cache_drops
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


class Display(Protocol):
    """One way to show figures; ``seconds`` are between two of them."""

    seconds: float

    def show(self, figures: Figures) -> None:
        """Show them."""

    def close(self, figures: Figures | None) -> None:
        """No more will come; these are the last of a run that is done, None of one that is not."""


class Reporter:
    """Shows a status when it is time to; ``close`` must be called."""

    def __init__(self, status: Status, display: Display) -> None:
        self._status = status
        self._display = display
        self._last = status.began
        self._last_counts = self._counted()
        if isinstance(display, LiveBlock | Line | NotebookOutput):
            display.show(self._figures(status.began))  # at once: the first block may take long

    def update(self) -> None:
        """Show the status if it is time to."""
        now = time.monotonic()
        if now - self._last >= self._display.seconds:
            self._display.show(self._figures(now))

    def close(self, is_done: bool = False) -> None:
        """The run is over, done or not."""
        self._display.close(self._figures(time.monotonic()) if is_done else None)

    def _counted(self) -> tuple[int, int, int]:
        status = self._status
        return status.done_bytes, status.counts.text_bytes, status.counts.tokens

    def _figures(self, now: float) -> Figures:
        """What is known now. Bytes are those of the inputs as they are stored, so that they add up
        to a total; ``text_bytes`` those of the documents, which compression makes more."""
        status = self._status
        elapsed, lately = max(1e-9, now - status.began), max(1e-9, now - self._last)
        counted = self._counted()
        kept = status.kept_bytes, status.kept_text_bytes, status.kept_tokens
        rates = [round((a - b) / lately) for a, b in zip(counted, self._last_counts, strict=True)]
        means = [round((a - b) / elapsed) for a, b in zip(counted, kept, strict=True)]
        self._last, self._last_counts = now, counted
        return {
            "seconds": round(now - status.began, 3),
            "bytes": status.done_bytes,
            "total_bytes": status.total_bytes,
            "text_bytes": status.counts.text_bytes,
            "documents": status.counts.documents,
            "tokens": status.counts.tokens,
            "bytes_per_second": rates[0],
            "mean_bytes_per_second": means[0],
            "text_bytes_per_second": rates[1],
            "mean_text_bytes_per_second": means[1],
            "tokens_per_second": rates[2],
            "mean_tokens_per_second": means[2],
            "seconds_left": _seconds_left(status, elapsed),
            "resident_bytes": status.resident_bytes(),
            "memory_budget": status.budget,
            "busy": {stage: round(share, 3) for stage, share in status.busy().items()},
            "bottleneck": status.bottleneck(),
            "retries": status.policy.retries,
        }


class Nothing:
    """Shows nothing."""

    seconds = float("inf")

    def show(self, figures: Figures) -> None:
        """Nothing."""

    def close(self, figures: Figures | None) -> None:
        """Nothing."""


class JsonLines(Nothing):
    """An object a second on stdout."""

    seconds = _JSON_SECONDS

    def show(self, figures: Figures) -> None:
        """Print one."""
        print_or_forget(to_json({"type": "progress", **figures}), sys.stdout)


class PlainLines(Nothing):
    """A line a minute on stderr, for a log."""

    seconds = _LINE_SECONDS

    def show(self, figures: Figures) -> None:
        """Print one."""
        print_or_forget(_line(figures), sys.stderr)


class LiveBlock(Nothing):
    """A bar and some rows at the bottom of the terminal, gone at the end."""

    seconds = _LIVE_SECONDS

    def show(self, figures: Figures) -> None:
        """Draw it anew."""
        columns = max(_LEAST_COLUMNS, terminal_size(sys.stderr)[0])
        show_block(_block(figures, columns - 1), sys.stderr)

    def close(self, figures: Figures | None) -> None:
        """Take it away."""
        hide_block()


class Line(Nothing):
    """One line on stderr that changes, and stays at the end, as of tqdm; where it cannot be drawn
    again, a line a minute, and one at the end."""

    def __init__(self) -> None:
        self._is_live = can_redraw(sys.stderr)
        self.seconds = _LIVE_SECONDS if self._is_live else _LINE_SECONDS

    def show(self, figures: Figures) -> None:
        """Draw it anew."""
        self._last = _tqdm_line(figures, sys.stderr)
        if self._is_live:
            show_block([self._last[: terminal_size(sys.stderr)[0] - 1]], sys.stderr)
        else:
            print_or_forget(self._last, sys.stderr)

    def close(self, figures: Figures | None) -> None:
        """Leave the last state where it is."""
        last = self._last if figures is None else _tqdm_line(figures, sys.stderr)
        hide_block()
        if self._is_live or figures is not None:
            print_or_forget(last, sys.stderr)


class NotebookOutput(Nothing):
    """An output below the cell that changes, and stays at the end."""

    seconds = _LIVE_SECONDS

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def show(self, figures: Figures) -> None:
        """Change it."""
        shown = {"text/plain": _tqdm_line(figures, None)}
        if self._handle is None:
            self._handle = self._display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def close(self, figures: Figures | None) -> None:
        """Leave the last state there."""
        if figures is not None:
            self.show(figures)


class Call(Nothing):
    """Calls the caller's function with the figures; what it raises stops the run, resumable."""

    seconds = _LIVE_SECONDS

    def __init__(self, function: Callable[[Figures], object]) -> None:
        self._function = function

    def show(self, figures: Figures) -> None:
        """Call it."""
        self._function({**figures, "is_done": False})

    def close(self, figures: Figures | None) -> None:
        """A last time, where the run is done."""
        if figures is not None:
            self._function({**figures, "is_done": True})


def command_display(quiet: bool, as_json: bool) -> Display:
    """How the command line shows progress."""
    if as_json:
        return JsonLines()
    if quiet:
        return Nothing()
    return LiveBlock() if can_redraw(sys.stderr) else PlainLines()


def script_display(progress: Progress) -> Display:
    """How a call from Python shows it."""
    if callable(progress):
        return Call(progress)
    notebook = _notebook_display()
    if progress is False or (progress is None and not notebook and not can_redraw(sys.stderr)):
        return Nothing()
    return Line() if notebook is None else NotebookOutput(notebook)


def _notebook_display() -> Callable[..., Any] | None:
    """IPython's function for outputs, where a kernel of Jupyter runs this."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    found: Callable[..., Any] = display
    return found


def _seconds_left(status: Status, elapsed: float) -> float | None:
    done = status.done_bytes - status.kept_bytes
    if done <= 0 or not status.total_bytes:
        return None
    return round(elapsed * max(0, status.total_bytes - status.done_bytes) / done, 1)


def _share(figures: Figures) -> float | None:
    """How much is done; None of a pipe, whose size is not known."""
    total = figures["total_bytes"]
    return min(1.0, figures["bytes"] / total) if total else None


def _read(figures: Figures) -> str:
    done, share = format_bytes(figures["bytes"]), _share(figures)
    if share is None:
        return done
    return f"{done} of {format_bytes(figures['total_bytes'])} ({share:.0%})"


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else format_seconds(seconds)


def _line(figures: Figures) -> str:
    return (
        f"{_read(figures)}, "
        f"{numbered(figures['documents'], 'document', format_count)}, "
        f"{format_count(figures['tokens'])} tokens, "
        f"{format_bytes(figures['text_bytes_per_second'])}/s of text "
        f"(mean {format_bytes(figures['mean_text_bytes_per_second'])}/s), "
        f"{_time(figures['seconds_left'])} left, "
        f"{format_bytes(figures['resident_bytes'])} of {format_bytes(figures['memory_budget'])}, "
        f"busiest: {figures['bottleneck']}"
        + (f", {numbered(figures['retries'], 'request')} made again" if figures["retries"] else "")
    )


def _tqdm_line(figures: Figures, stream: Any) -> str:
    """As people know it: share, bar, amount, time gone and left, speed."""
    columns = 80 if stream is None else terminal_size(stream)[0]
    share = _share(figures)
    head = "tokenmill: " if share is None else f"tokenmill: {share:4.0%}|"
    done = _read(figures).partition(" (")[0]
    times = f"{_clock(figures['seconds'])}<{_clock(figures['seconds_left'])}"
    speed = f"{format_bytes(figures['mean_text_bytes_per_second'])}/s"
    tokens = f"{format_count(figures['tokens'])} tokens"
    tails = (f"{done} [{times}, {speed}, {tokens}]", f"[{times}, {speed}]", f"[{times}]")
    tail = next((tail for tail in tails if len(head) + len(tail) + 2 < columns), "")
    width = min(40, columns - 3 - len(head) - len(tail))
    if share is None or width < 4:
        return f"{head}{'' if share is None else ' '}{tail}"
    full = round(width * share)
    return f"{head}{'#' * full}{' ' * (width - full)}| {tail}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    hours, rest = divmod(round(seconds), 3600)
    return (f"{hours}:" if hours else "") + f"{rest // 60:02d}:{rest % 60:02d}"


def _block(figures: Figures, width: int) -> list[str]:
    """The bar on a line of its own, and a row for each figure, wrapped where the terminal is too
    narrow; of letters that every terminal has, one column each."""
    is_plain = bool(os.environ.get("NO_COLOR"))
    full = round(width * (_share(figures) or 0.0))
    done, left = "#" * full, "-" * (width - full)
    lines = [done + left if is_plain else f"\x1b[32m{done}\x1b[0;2m{left}\x1b[0m"]
    for label, value in _rows(figures):
        name = label.ljust(_LABEL)
        for part in textwrap.wrap(value, width - _LABEL):
            lines.append(name + part if is_plain else f"\x1b[2m{name}\x1b[0m{part}")
            name = " " * _LABEL
    return lines


def _rows(figures: Figures) -> list[tuple[str, str]]:
    rate, mean = figures["text_bytes_per_second"], figures["mean_text_bytes_per_second"]
    tokens, tokens_mean = figures["tokens_per_second"], figures["mean_tokens_per_second"]
    used, budget = format_bytes(figures["resident_bytes"]), format_bytes(figures["memory_budget"])
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in figures["busy"].items())
    rows = [
        ("read", _read(figures)),
        ("documents", f"{figures['documents']:,}"),
        ("tokens", f"{figures['tokens']:,}"),
        ("text", f"{format_bytes(rate)}/s now, {format_bytes(mean)}/s mean"),
        ("", f"{format_count(tokens)} tokens/s now, {format_count(tokens_mean)} mean"),
        ("time left", _time(figures["seconds_left"])),
        ("memory", f"{used} of {budget}"),
        ("busy", f"{busy}; bottleneck: {figures['bottleneck']}"),
    ]
    if figures["retries"]:
        rows.append(("network", f"{numbered(figures['retries'], 'request')} made again"))
    return rows
