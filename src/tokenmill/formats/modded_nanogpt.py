"""modded-nanogpt: llm.c's version 1 under its own loader's demands (train_gpt.py, data/).

The loader finds documents by their leading 50256, opens two train files at the start, and
validates on 10,485,760 tokens.
"""

from __future__ import annotations

from tokenmill.errors import UsageError
from tokenmill.formats.format import Layout
from tokenmill.formats.llmc import LlmC
from tokenmill.splits import TRAIN, VAL

BOS_ID = 50256
VAL_TOKENS = 10_485_760


class ModdedNanoGPT(LlmC):
    name = "modded-nanogpt"

    def dtype(self, largest_id: int) -> str:
        return self.uint16_only(largest_id, "modded-nanogpt's loader reads version 1, uint16")

    def check(self, shard_tokens: int | None, dtype: str, end_of_text: int) -> None:
        super().check(shard_tokens, dtype, end_of_text)
        if end_of_text != BOS_ID:
            raise UsageError(
                f"modded-nanogpt finds documents by id {BOS_ID}, and this tokenizer's "
                f"end-of-text id is {end_of_text}",
                fix="use --tokenizer gpt2, or --format llm.c",
            )

    def warnings(self, layout: Layout) -> list[str]:
        found = []
        about = "holds" if layout.exact else "will hold about"
        trains = len(layout.shards.get(TRAIN, []))
        if trains < 2:
            found.append(
                f"the dataset {about} {trains} train shards, and modded-nanogpt opens two at the "
                "start; fix: a smaller --shard-tokens"
            )
        if layout.tokens(VAL) <= VAL_TOKENS:
            found.append(
                f"the validation split {about} {layout.tokens(VAL)} tokens, and modded-nanogpt "
                f"validates on {VAL_TOKENS}; fix: --val-tokens 11M or more"
            )
        return found


MODDED_NANOGPT = ModdedNanoGPT()
