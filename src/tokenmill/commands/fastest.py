"""``--engine auto`` where more than one engine is exact: the one that is faster on this corpus.

That costs three to five seconds of one processor (to load the others and the reference, to try them
by the self-test; to encode a megabyte of samples a few times is the least of it), so it is done for
large corpora only; and it takes no engine for which there would be memory for fewer workers. No byte depends on what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tokenmill.commands.estimate import head_of, samples_of
from tokenmill.errors import UsageError
from tokenmill.memory import Budget, Needs, return_free_memory
from tokenmill.tokenizers.choose import Choice, rivals_of
from tokenmill.tokenizers.engines import make_engine
from tokenmill.tokenizers.measure import speeds

if TYPE_CHECKING:
    from tokenmill.commands.plan import Plan

WORTH_BYTES = 4 * 1024**3
"""Of text, about, from which on a faster engine makes good what measuring costs."""
_CLEARLY = 1.05
"""So much faster another engine must be than the usual one: what is closer is noise."""


def fastest(
    plan: Plan, text_bytes: int | None, budget_of: Callable[..., Budget]
) -> tuple[Choice, Budget]:
    """The choice and the budget of a plan, or those with a faster engine. ``text_bytes``: how much
    there is of text, about, if that is known; ``budget_of``: the budget for some ``needs``."""
    usual = plan.choice, plan.budget
    if text_bytes is None or text_bytes < WORTH_BYTES:
        return usual
    found = {plan.choice.engine: usual}
    spare = plan.budget.total - plan.budget.floor

    def fits(needs: Needs) -> bool:
        """Is there room for it beside the usual one, and later for as many workers?"""
        try:
            workers = budget_of(needs=needs).threads
        except UsageError:
            return False
        return workers >= plan.budget.threads and needs.vocabulary + needs.engine <= spare

    for choice in rivals_of(plan.choice, plan.vocabulary, fits):
        found[choice.engine] = choice, budget_of(needs=choice.needs)
    samples = _samples(plan) if len(found) > 1 else []
    if not samples:
        return usual
    vocabulary, cuts = plan.vocabulary, plan.choice.cuts
    engines = {
        name: make_engine(name, vocabulary, cuts, budget) for name, (_, budget) in found.items()
    }
    measured = speeds(engines, samples)
    for engine in engines.values():
        engine.drop_caches()
    del engines
    return_free_memory()
    best = max(measured, key=measured.__getitem__)
    if measured[best] < _CLEARLY * measured[plan.choice.engine]:
        best = plan.choice.engine
    choice, budget = found[best]
    return replace(choice, speeds=measured), budget


def _samples(plan: Plan) -> list[bytes]:
    """Texts from all over the inputs, about a megabyte."""
    grown_bytes = plan.vocabulary.grown_bytes
    samples = samples_of(plan.inputs, plan.source_options(), 1)
    return [head_of(document, grown_bytes) for sample in samples for document in sample.documents]
