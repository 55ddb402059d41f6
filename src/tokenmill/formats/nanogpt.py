"""nanoGPT: ``train.bin`` and ``val.bin``, bare uint16 ids (nanoGPT train.py, get_batch).

With ``--shard-tokens`` the same stream in numbered files without headers, so that
``cat train_*.bin > train.bin`` gives the one file.
"""

from __future__ import annotations

from tokenmill.formats.flat import FlatFormat
from tokenmill.formats.format import Layout
from tokenmill.splits import VAL
from tokenmill.units import numbered

BLOCK_SIZE = 1024
"""nanoGPT's default block_size: get_batch draws from range(len(data) - block_size)."""


class NanoGPT(FlatFormat):
    name = "nanogpt"
    delimiter = "after"
    default_name = ""
    default_shard_tokens = None
    default_val_fraction = 0.0005
    suffix = ".bin"

    def dtype(self, largest_id: int) -> str:
        return self.uint16_only(largest_id, "nanoGPT's train.py reads np.uint16, whatever is there")

    def header(self, tokens: int, dtype: str) -> bytes:
        return b""

    def read_header(self, head: bytes) -> tuple[str, int | None]:
        return "uint16", None

    def files(self, name: str, split: str, index: int | None) -> tuple[str, ...]:
        stem = f"{name}_{split}" if name else split
        return (f"{stem}.bin" if index is None else f"{stem}_{index:06d}.bin",)

    def warnings(self, layout: Layout) -> list[str]:
        found = []
        for split in layout.shards:
            tokens = layout.tokens(split)
            if tokens <= BLOCK_SIZE and (tokens or split != VAL):  # none at all is told of all
                about = "holds" if layout.exact else "will hold about"
                found.append(
                    f"{split}.bin {about} {numbered(tokens, 'token')}, and nanoGPT cannot draw "
                    f"blocks of {BLOCK_SIZE} from it; fix: {_more(layout.tokens(), split)}"
                )
        return found


def _more(total: int, split: str) -> str:
    """What makes a split large enough. A larger share of the documents would not do of a corpus
    of few: none of them may be drawn; and the head of a small one leaves too little for training.
    """
    wanted = 2 * BLOCK_SIZE
    if split == VAL and total > 2 * wanted:
        return f"--val-tokens {max(wanted, total // 20)}"
    return f"more text: {wanted} tokens for each split at least"


NANOGPT = NanoGPT()
