"""What a corpus will come to, estimated from a small sample taken all over it; nothing is written.

Documents, tokens and text are taken to be spread over the bytes of the inputs as in the sample.
The time is what the engine needs for the sample at first, when all is new to it, and then for the
whole text at the speed of a second time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tokenmill.formats.format import row_bytes
from tokenmill.sources import open_source
from tokenmill.sources.inputs import InputList
from tokenmill.sources.source import Sample, Source, SourceOptions
from tokenmill.stores import InputFile
from tokenmill.stores.readahead import in_background
from tokenmill.tokenizers.engines.engine import Engine

SAMPLES = 12
SAMPLE_BYTES = 96 * 1024
REMOTE_BYTES_A_SAMPLE = 256 * 1024 * 1024
"""A sample of a remote parquet file moves a page or a row group, megabytes: of a small corpus fewer
are taken, so that they stay a small part of what is moved."""
_SHARE_OF_THE_ENGINE = 0.7
"""Of the speed of the engine alone, on all threads, with words that it has seen. Measured on 2 GB
of three corpora: runs reach 0.5 to 0.8 of it, the less the more there is to decode."""


@dataclass(frozen=True)
class Estimate:
    """What the sample promises; ``spread`` is the half width of its interval, as a share.

    ``first_seconds`` come on top of what the text takes at ``bytes_per_second``.
    """

    documents: int
    tokens: int
    spread: float
    text_bytes: int
    bytes_per_second: float
    first_seconds: float

    def output_bytes(self, dtype: str) -> int:
        """Bytes of the shards, headers left out."""
        return row_bytes(self.tokens, dtype)

    @property
    def seconds(self) -> float:
        """Time of the whole run, about."""
        return self.first_seconds + self.text_bytes / max(1.0, self.bytes_per_second)


NOTHING = Estimate(0, 0, 0.0, 0, 0.0, 0.0)
"""Of inputs in which no document was found."""


@dataclass(frozen=True)
class Rates:
    """What one sample holds for each byte on disk."""

    tokens: float
    text: float


class Stopwatch:
    """How fast an engine is: with text that is new to it, and with the same text once more."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.first_seconds = self.again_seconds = 0.0
        self.sampled = 0

    def count(self, documents: list[bytes]) -> int:
        """The tokens of these documents, encoded twice."""
        began = time.perf_counter()
        count = len(self.engine.encode(documents).ids)
        between = time.perf_counter()
        self.engine.encode(documents)
        self.first_seconds += between - began
        self.again_seconds += time.perf_counter() - between
        self.sampled += sum(map(len, documents))
        return count


def head_of(document: bytes, grown_bytes: Callable[[bytes, int], int]) -> bytes:
    """As much of a document as an engine surely has the memory for."""
    head = document[:SAMPLE_BYTES]
    while len(head) > 16 and grown_bytes(head, 2 * SAMPLE_BYTES) > 2 * SAMPLE_BYTES:
        head = head[: len(head) // 2]
    return head.decode("utf-8", "ignore").encode()


def samples_of(inputs: InputList, options: SourceOptions, at_once: int) -> Iterator[Sample]:
    """A few documents from all over the inputs; of remote ones ``at_once`` are fetched ahead.

    Measured: a sample of a parquet file in row groups of 18 MB takes 45 MB for a moment; eight at
    once passed a budget of 512 MB before the run had begun.
    """

    opened: list[tuple[InputFile, Source]] = []

    def take(file: InputFile, position: float) -> Sample:
        # Places come in the order of the files: to open one may mean to parse megabytes of a
        # footer, which is done once for all places in it, and not held longer.
        if file.store.is_remote:
            return open_source(file, options).sample(position, SAMPLE_BYTES)
        if not opened or opened[0][0] is not file:
            opened.clear()
            opened.append((file, open_source(file, options)))
        return opened[0][1].sample(position, SAMPLE_BYTES)

    count = SAMPLES
    if inputs.are_remote:
        total = sum(file.size for file in inputs.files)
        count = max(1, min(SAMPLES, total // REMOTE_BYTES_A_SAMPLE))
    waiting: deque[Callable[[], Sample]] = deque()
    for file, position in _places(inputs.files, count):
        if len(waiting) == at_once:
            yield waiting.popleft()()
        now = partial(take, file, position)
        waiting.append(in_background(now).result if file.store.is_remote else now)
    while waiting:
        yield waiting.popleft()()


def estimate_of(
    samples: Iterator[Sample],
    total: int,
    documents: int | None,
    threads: int,
    engine: Engine,
    is_delimited: bool,
    grown_bytes: Callable[[bytes, int], int] = lambda text, limit: len(text),
) -> Estimate:
    """The estimate of ``total`` bytes on disk; ``documents``: how many, where that is known;
    ``grown_bytes``: what the tokenizer makes of a text."""
    watch = Stopwatch(engine)
    rates, begun = [], []
    for sample in samples:  # none is held longer than it takes: a row may be of megabytes
        if sample.seen_bytes:
            begun.append(sample.begun / sample.seen_bytes)
        if sample.documents and sample.disk_bytes:
            rates.append(_rates(sample, watch, grown_bytes))
        del sample
    if not rates:
        return NOTHING
    tokens_each = [each.tokens for each in rates]
    mean = statistics.fmean(tokens_each)
    error = statistics.stdev(tokens_each) / math.sqrt(len(rates)) if len(rates) > 1 else mean
    if documents is None:
        documents = round(statistics.fmean(begun) * total)
    speed = threads * watch.sampled / max(watch.again_seconds, 1e-9)
    return Estimate(
        documents=documents,
        tokens=round(mean * total) + (documents if is_delimited else 0),
        spread=min(1.0, max(0.01, 2 * error / mean)) if mean else 0.0,
        text_bytes=round(statistics.fmean(each.text for each in rates) * total),
        bytes_per_second=speed * _SHARE_OF_THE_ENGINE,
        first_seconds=watch.first_seconds,
    )


def _rates(sample: Sample, watch: Stopwatch, grown_bytes: Callable[[bytes, int], int]) -> Rates:
    size = sum(map(len, sample.documents))
    # Of a giant the head must do: the engine may need much memory for each byte.
    heads = [head_of(document, grown_bytes) for document in sample.documents]
    tokens = watch.count(heads) * size / max(1, sum(map(len, heads)))
    return Rates(tokens / sample.disk_bytes, size / sample.disk_bytes)


def _places(files: list[InputFile], samples: int) -> Iterator[tuple[InputFile, float]]:
    """Evenly spaced places over all bytes of the inputs, so many."""
    total = sum(file.size for file in files)
    if not total:
        return
    for index in range(samples):
        at = total * (2 * index + 1) // (2 * samples)
        for file in files:
            if at < file.size:
                if file.compression is None or index == 0 or len(files) > 1:
                    yield file, at / file.size
                break
            at -= file.size
