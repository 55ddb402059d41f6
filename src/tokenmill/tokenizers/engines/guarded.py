"""An engine whose texts go to the reference where the two would take a character differently.

``differences`` tells which characters those are. A document that holds none of them is the
engine's; of one that does, the pieces around such characters are the reference's, and the rest
the engine's. A long document is cut for that only where ids do not depend on it.

Looking for the characters costs a few percent of an engine's time at most: text in ASCII is passed
over at once, other text is searched for the first bytes of such characters, and only what is found
is looked at as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from tokenmill.memory import Room
from tokenmill.text.cuts import NOWHERE, CutRule, provable_cut
from tokenmill.tokenizers.engines.differences import Ranges
from tokenmill.tokenizers.engines.engine import Engine, Tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tokenmill.tokenizers.engines.engine import Ids

PIECE_BYTES = 16 * 1024
"""A document that is longer than two of these is cut in such pieces: the reference may take
hundreds of bytes of memory for each byte of text."""


class CharacterSearch:
    """Finds the characters of ``ranges`` in UTF-8."""

    def __init__(self, ranges: Ranges) -> None:
        import numpy as np

        self._is_wanted = np.zeros(0x110000, np.bool_)
        for low, high in ranges:
            self._is_wanted[low : high + 1] = True
        self._seconds: dict[int, NDArray[np.bool_]] = {}
        for low, high in ranges:
            # Sixty-four code points in a row have the same bytes but for the last.
            for code in {low, high, *range(low - low % 64 + 64, high + 1, 64)}:
                first, second = chr(code).encode()[:2]
                self._seconds.setdefault(first, np.zeros(256, np.bool_))[second] = True

    def places(self, text: bytes) -> NDArray[np.int64]:
        """The first byte of each such character, in no order. ``text`` is valid UTF-8."""
        import numpy as np

        nothing = np.empty(0, np.int64)
        if text.isascii():
            return nothing
        data = np.frombuffer(text, np.uint8)
        found = [nothing]
        for first, is_second in self._seconds.items():
            at = np.flatnonzero(data == first)
            if len(at):
                at = at[is_second[data[at + 1]]]
            if len(at):
                found.append(at[self._is_wanted[_code_points(data, at, first)]])
        return np.concatenate(found)


def _code_points(data: NDArray[np.uint8], at: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Those of the characters at these places, whose first byte is ``first``."""
    import numpy as np

    width = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    codes = np.full(len(at), first & (0xFF >> (width + 1)), np.int64)
    for offset in range(1, width):
        codes = codes << 6 | data[at + offset] & 0x3F
    return codes


@cache
def search_for(ranges: Ranges) -> CharacterSearch:
    """One search for all threads: its table has a megabyte."""
    return CharacterSearch(ranges)


class GuardedEngine:
    """``engine``, but for the text around characters of ``ranges``, which is the reference's."""

    def __init__(
        self,
        engine: Engine,
        ranges: Ranges,
        reference: Callable[[], Engine],
        end_of_text: int,
        cuts: CutRule = NOWHERE,
        room: Room | None = None,
    ) -> None:
        """``reference`` is asked for when it is first needed; ``cuts`` is where a text may be
        cut, ``room`` what memory has for a text that the reference must have whole."""
        self.name = engine.name
        self._engine = engine
        self._search = search_for(ranges)
        self._reference = reference
        self._end_of_text = end_of_text
        self._cuts = cuts
        self._room = room or Room()

    def encode(self, documents: Sequence[bytes]) -> Tokens:
        """Raises TooLarge."""
        import numpy as np

        affected = self._affected(documents)
        if not affected:
            return self._engine.encode(documents)
        kept = [b"" if index in affected else text for index, text in enumerate(documents)]
        tokens = self._engine.encode(kept)
        borders = [-1, *tokens.marks.tolist(), len(tokens.ids)]
        mark = np.array([self._end_of_text], np.uint32)
        parts: list[Ids] = []
        marks: list[int] = []
        length, begin = 0, 0
        for index in sorted(affected):
            # All before it as it is; an empty document has its place between two marks.
            place = borders[index] + 1
            own = self._encode_affected(documents[index], index)
            parts += [tokens.ids[begin:place], own]
            marks += [at + length for at in borders[1 + len(marks) : index + 1]]
            length += len(own)
            begin = place
        parts.append(tokens.ids[begin:])
        marks += [at + length for at in borders[1 + len(marks) : -1]]
        ids = np.concatenate(parts)
        assert (ids[marks] == mark).all()
        return Tokens(ids, np.array(marks, np.int64))

    def _affected(self, documents: Sequence[bytes]) -> set[int]:
        """Which documents hold such a character."""
        import numpy as np

        places = self._search.places(b"".join(documents))
        if not len(places):
            return set()
        ends = np.cumsum([len(document) for document in documents])
        return set(np.searchsorted(ends, places, "right").tolist())

    def _encode_affected(self, document: bytes, place: int = 0) -> NDArray[np.uint32]:
        import numpy as np

        pieces = self._pieces(document)
        affected = self._affected(pieces) if len(pieces) > 1 else {0}
        for index in affected:
            self._room.check(len(pieces[index]), place)
        rest = [b"" if index in affected else piece for index, piece in enumerate(pieces)]
        tokens = self._engine.encode(rest)
        parts = np.split(tokens.ids, tokens.marks)
        parts = [part[int(index > 0) :] for index, part in enumerate(parts)]
        for index in affected:
            parts[index] = np.array(self._reference().encode_piece(pieces[index]), np.uint32)
        return np.concatenate(parts)

    def _pieces(self, document: bytes) -> list[bytes]:
        """The document, cut where that changes no id."""
        pieces, start = [], 0
        low = PIECE_BYTES
        while self._cuts.provable and len(document) - start > 2 * PIECE_BYTES:
            if low >= len(document):
                break
            cut = provable_cut(document, low, low + PIECE_BYTES, self._cuts)
            low = (cut or low) + PIECE_BYTES
            if cut is not None:
                pieces.append(document[start:cut])
                start = cut
        return [*pieces, document[start:]]

    def encode_piece(self, text: bytes) -> list[int]:
        if not len(self._search.places(text)):
            return self._engine.encode_piece(text)
        ids: list[int] = self._encode_affected(text).tolist()
        return ids

    def token_bytes(self, token: int) -> bytes:
        return self._engine.token_bytes(token)

    def drop_caches(self) -> None:
        self._engine.drop_caches()
