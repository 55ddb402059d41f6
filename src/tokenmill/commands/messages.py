"""The end of a run: the manifest, and what a person is told."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from tokenmill.commands.plan import Plan
from tokenmill.commands.progress import Status
from tokenmill.dataset.manifest import QUARANTINE, VERSION, Input, Manifest, Shard
from tokenmill.formats import Layout
from tokenmill.output.journal import Encoded
from tokenmill.output.quarantine import quarantine_of
from tokenmill.splits import NAMES
from tokenmill.units import format_bytes, format_files, format_seconds, numbered
from tokenmill.version import __version__


def manifest_of(plan: Plan, shards: list[Shard], encoded: Encoded, share: float) -> Manifest:
    """Everything known of a dataset, once all is encoded; of whose documents ``share`` were to be
    checked."""
    at = encoded.at
    quarantine = quarantine_of(encoded)
    bad = sum(quarantine.reasons.values())
    counts = {**at.counts, "input_bytes": plan.input_bytes, "quarantined": bad}
    manifest = Manifest(
        manifest_version=VERSION,
        tokenmill_version=__version__,
        fingerprint=plan.fingerprint(),
        format=plan.spec.format,
        dtype=plan.dtype,
        delimiter=plan.spec.eot,
        tokenizer=plan.vocabulary.describe(),
        spec=plan.spec.as_dict(),
        split=plan.split_rule.words(),
        inputs=[Input(**entry) for entry in plan.identities()],
        shards=shards,
        counts=counts,
        check={
            "reference": plan.vocabulary.reference,
            "cuts_because": plan.choice.why_cuts,
            "share": share,
            "documents": at.checked_documents,
            "bytes": at.checked_bytes,
            "differences": 0,
        },
        quarantine=quarantine,
        warnings=[],
        revisions=plan.inputs.revisions,
        libraries=plan.libraries(),
    )
    layout = Layout(manifest.shard_tokens(), plan.vocabulary.end_of_text, exact=True)
    tokens = {split: manifest.tokens(split) for split in NAMES}
    empty = plan.split_rule.outcome(tokens, manifest.counts["documents"])
    manifest.warnings = [*([empty] if empty else []), *plan.spec.layout.warnings(layout)]
    return manifest


def _essence(warning: str) -> str:
    """A warning without its figures: the same before the run, as estimated, and after it."""
    return re.sub(r"will hold about|holds|[\d.,]+|; fix:.*", "", warning)


def outcome_of(
    manifest: Manifest, status: Status, where: str, has_worked: bool
) -> dict[str, object]:
    """A finished run as plain data; of one that had nothing to do, the dataset alone is told."""
    shard_tokens = manifest.shard_tokens().items()
    return {
        "out": where,
        "counts": manifest.counts,
        "tokens": {split: sum(counts) for split, counts in shard_tokens},
        "shards": [shard.name for shard in manifest.shards],
        "seconds": round(time.monotonic() - status.began, 3) if has_worked else 0.0,
        "peak_memory": status.peak_memory,
        "memory_budget": status.budget,
        "has_worked": has_worked,
    }


def closing_lines(manifest: Manifest, plan: Plan, status: Status, where: str) -> Iterator[str]:
    """What a finished run tells: warnings that were not told before it, what was left out, and the
    figures."""
    seconds = time.monotonic() - status.began
    told = {_essence(line.removeprefix("warning: ")) for line in plan.told}
    for warning in manifest.warnings:
        if _essence(warning) not in told:
            yield f"warning: {warning}"
    written, special = manifest.counts["special_text"], plan.vocabulary.special_text
    if written and plan.spec.special_text == "text":
        if plan.vocabulary.reads_special_text:
            yield (
                f"warning: {special} is written {numbered(written, 'time')} in the documents, and "
                "this tokenizer's own model makes the end-of-text id of it, so that one document "
                "looks like several; fix: --special-text error shows where it is"
            )
        else:
            yield (
                f"note: {special} is written {numbered(written, 'time')} in the documents and was "
                "kept as text (--special-text)"
            )
    unknown = manifest.counts["unknown_tokens"]
    if unknown:
        yield (
            f"warning: {unknown:,} of the tokens are {plan.vocabulary.unknown_id}, which stands "
            "for text that this tokenizer has no token for: that text is lost to a model"
        )
    if manifest.counts["quarantined"]:
        reasons = manifest.quarantine.reasons.items()
        left, kept = ("was", "is") if manifest.counts["quarantined"] == 1 else ("were", "are")
        yield (
            f"warning: {numbered(manifest.counts['quarantined'], 'record')} {left} left out and "
            f"{kept} in {where}/{QUARANTINE}: {', '.join(f'{n} {reason}' for reason, n in reasons)}"
        )
    yield from told_lines(manifest)
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in status.busy().items())
    text = status.counts.text_bytes - status.kept_text_bytes
    checked, dropped = int(manifest.check["bytes"]), numbered(status.cache_drops, "time")
    policy = status.policy
    if policy.requests:
        yield (
            f"network: {format_bytes(policy.moved)} in {policy.requests:,} requests, "
            f"{policy.retries:,} made again; {format_files(policy.verified)} checked by SHA-256"
        )
    yield (
        f"done: {numbered(manifest.counts['documents'], 'document')}, "
        f"{numbered(manifest.counts['tokens'], 'token')} in "
        f"{format_files(len(manifest.shards))}; {format_seconds(seconds)}, "
        f"{format_bytes(text / max(seconds, 1e-9))}/s of text (busy: {busy}); peak "
        f"memory {format_bytes(status.peak_memory)} of {format_bytes(status.budget)}"
        f"{f', caches dropped {dropped}' if status.cache_drops else ''}; "
        f"{format_bytes(checked) if checked else 'nothing'} of text checked by "
        f"{manifest.check['reference']}{', no difference' if checked else ' (--check 0)'}; "
        f"the dataset is in {where}"
    )


def told_lines(manifest: Manifest) -> list[str]:
    """How our count of tokens compares with the dataset's own, where it has one for each row."""
    counts = manifest.counts
    rows, told = counts.get("told_rows", 0), counts.get("told_tokens", 0)
    documents = counts["documents"]
    if not rows or rows != documents + counts["null_documents"]:
        return []
    ours = counts["tokens"] - (documents if manifest.delimiter != "none" else 0)
    verdict = "equal" if ours == told else f"{ours - told:+,}"
    return [
        f"token_count of the dataset: {told:,}; ours, without end-of-text: {ours:,} ({verdict})"
    ]
