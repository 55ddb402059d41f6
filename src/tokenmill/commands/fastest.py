"""``--engine auto`` where more than one engine is exact: the one that is faster on this corpus.

That costs a second or two of one processor (to load the others, to try them by the self-test, to
encode some megabyte of samples a few times), so it is done for large corpora only; and it takes no
engine for which there would be memory for fewer workers. No byte depends on what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from tokenmill.commands.estimate import head_of
from tokenmill.errors import UsageError
from tokenmill.memory import Budget, Needs, return_free_memory
from tokenmill.sources.source import Sample
from tokenmill.tokenizers.choose import Choice, rivals_of
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.measure import speeds
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

WORTH_BYTES = 512 * 1024 * 1024
"""Of text, about, from which on a faster engine makes good what measuring costs."""
_CLEARLY = 1.05
"""So much faster another engine must be than the usual one: what is closer is noise."""


def fastest(
    vocabulary: Vocabulary,
    usual: tuple[Choice, Budget],
    text_bytes: int | None,
    budget_of: Callable[..., Budget],
    samples_of: Callable[[], Iterable[Sample]],
) -> tuple[Choice, Budget]:
    """The usual choice and its budget, or those with a faster engine. ``text_bytes``: how much
    there is of text, about, if that is known; ``budget_of``: the budget for some ``needs``;
    ``samples_of``: texts from all over the inputs, about a megabyte."""
    chosen, budget = usual
    if text_bytes is None or text_bytes < WORTH_BYTES:
        return usual
    found = {chosen.engine: usual}
    spare = budget.total - budget.floor

    def fits(needs: Needs) -> bool:
        """Is there room for it beside the usual one, and later for as many workers?"""
        try:
            workers = budget_of(needs=needs).threads
        except UsageError:
            return False
        return workers >= budget.threads and needs.vocabulary + needs.engine <= spare

    for choice in rivals_of(chosen, vocabulary, fits):
        found[choice.engine] = choice, budget_of(needs=choice.needs)
    samples: list[bytes] = []
    for sample in samples_of() if len(found) > 1 else ():
        samples += [head_of(document, vocabulary.grown_bytes) for document in sample.documents]
    if not samples:
        return usual
    engines = {
        name: make_engine(name, vocabulary, chosen.cuts, its) for name, (_, its) in found.items()
    }
    measured = speeds(engines, samples)
    for each in engines.values():
        each.drop_caches()
    del engines
    return_free_memory()
    best = max(measured, key=measured.__getitem__)
    if measured[best] < _CLEARLY * measured[chosen.engine]:
        best = chosen.engine
    choice, budget = found[best]
    return replace(choice, speeds=measured), budget
