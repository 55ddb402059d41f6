"""``--engine auto`` where more than one engine is exact: the one that is faster on this corpus.

That costs three to five seconds of one processor (to load the others and the reference, to try them
by the self-test; to encode a megabyte of samples a few times is the least of it), so it is done for
large corpora only; and it takes no engine for which there would be memory for fewer workers. No
byte depends on what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tokenmill.commands.estimate import head_of
from tokenmill.errors import UsageError
from tokenmill.memory import Budget, Needs, return_free_memory
from tokenmill.sources.source import Sample
from tokenmill.tokenizers.choose import Choice, rivals_of
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.measure import speeds
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

WORTH_BYTES = 4 * 1024**3
"""Of text, about, from which on a faster engine makes good what measuring costs."""
_CLEARLY = 1.05
"""So much faster another engine must be than the usual one: what is closer is noise."""


def fastest(
    usual: Choice,
    budget: Budget,
    vocabulary: Vocabulary,
    text_bytes: int | None,
    budget_of: Callable[..., Budget],
    samples: Callable[[], Iterator[Sample]],
) -> tuple[Choice, Budget]:
    """The usual choice and its budget, or those with a faster engine. ``text_bytes``: how much
    there is of text, about, if that is known; ``budget_of``: the budget for some ``needs``;
    ``samples``: documents from all over the inputs."""
    if text_bytes is None or text_bytes < WORTH_BYTES:
        return usual, budget
    spare = budget.total - budget.floor

    def fits(needs: Needs) -> bool:
        """Is there room for it beside the usual one, and later for as many workers?"""
        try:
            workers = budget_of(needs=needs).threads
        except UsageError:
            return False
        return workers >= budget.threads and needs.vocabulary + needs.engine <= spare

    found = {usual.engine: (usual, budget)}
    for choice in rivals_of(usual, vocabulary, fits):
        found[choice.engine] = choice, budget_of(needs=choice.needs)
    documents = _heads(samples(), vocabulary) if len(found) > 1 else []
    if not documents:
        return usual, budget
    engines = {
        name: make_engine(name, vocabulary, usual.cuts, room) for name, (_, room) in found.items()
    }
    measured = speeds(engines, documents)
    for engine in engines.values():
        engine.drop_caches()
    del engines
    return_free_memory()
    best = max(measured, key=measured.__getitem__)
    if measured[best] < _CLEARLY * measured[usual.engine]:
        best = usual.engine
    choice, room = found[best]
    return replace(choice, speeds=measured), room


def _heads(samples: Iterator[Sample], vocabulary: Vocabulary) -> list[bytes]:
    """About a megabyte of text."""
    grown_bytes = vocabulary.grown_bytes
    return [head_of(document, grown_bytes) for sample in samples for document in sample.documents]
