"""Where a text may be cut so that the pieces' ids, joined, are the ids of the whole.

Two kinds of cut are known to be safe for the split patterns of GPT-2, cl100k_base and o200k_base.

*Provable cuts* follow from the text on both sides alone:

- before a single space that stands between two characters which are not white space;
- after a letter or digit, before anything but a letter, digit, mark or apostrophe; between a
  letter and a digit; between a punctuation mark or symbol and a digit. No pattern has a piece
  that goes on across such a place (the exceptions are for combining marks and for o200k_base's
  contraction suffix), so the piece before ends there in the whole text too. This is what serves
  Chinese and Japanese, tables of numbers, and encoded data.

*Seam cuts* lie inside one unbroken run, where no piece ends for megabytes (one letter ten million
times). A token sequence is a byte-level BPE encoding iff each adjacent pair of it is (see the
``bpe`` crate of github/rust-gems), so a token border of the text read so far is a safe cut if the
pieces on both sides, encoded alone, still end and begin with the two tokens seen there. The cut
carries that pair, and whoever encodes the pieces checks it: a seam that does not hold stops the
run. Seams are looked for only inside runs of one kind of character, which every known split
pattern takes as one piece on both sides; docs/decisions/2026-11-21-cuts.md has the argument.

Every cut is a function of the text and of the previous cut only: never of threads or memory.

A ``CutRule`` says which of these hold for one tokenizer. Where none does (``NOWHERE``), a text is
never cut: then a document is held whole, or it is an error.

The text may hold bytes that are not UTF-8 (``tokenmill.text.utf8``), which are later replaced by
U+FFFD or taken out. The pieces joined are then the *repaired* text, and so are the characters that
the rules look at. Where bytes are taken out, their neighbours meet: no cut is made there.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenmill.sizes import DEFAULT_SIZES, Sizes
from tokenmill.text import utf8

_GRAPHIC_SPACE_GRAPHIC = re.compile(rb"[!-~] (?=[!-~])")
_MAY_HOLD_A_CUT = re.compile(r"\w\W|\W\w|\d\D|\D\d|_|\S \S")
"""What every provable cut has around it: only a quick way to know that there is none. Measured with
any blank in the place of the last: 97 MB of nothing but blanks were looked at one by one, for
minutes."""
_INVALID = re.compile("[\udc80-\udcff]")
"""What the decoder makes of each byte that is not UTF-8."""


@dataclass(frozen=True)
class CutRule:
    """Where a text may be cut for one tokenizer.

    ``provable`` and ``seams`` allow the two kinds of cut. With ``is_stable`` only characters count
    whose category is the same in Unicode 3.2 and in this Python's tables, for a tokenizer's tables
    are of another version than both: a letter of Unicode 16 is no letter to Python 3.11, and a run
    that it begins is not what it looks like. With ``is_nfc`` only those count that NFC leaves as
    they are and that join nothing before them: for tokenizers that normalize so. ``unbreakable``
    strings are never cut in two: tokens that are looked for in the text before it is split.
    """

    provable: bool = True
    seams: bool = True
    is_stable: bool = False
    is_nfc: bool = False
    unbreakable: tuple[bytes, ...] = ()

    def trusts(self, characters: str) -> bool:
        """May a cut be made because of these characters?"""
        return not (self.is_stable or self.is_nfc) or all(map(self._trusts_one, characters))

    def _trusts_one(self, character: str) -> bool:
        if character < "\x80":
            return True
        category = unicodedata.category(character)
        if category == "Cn":
            return False
        if self.is_stable and unicodedata.ucd_3_2_0.category(character) != category:
            return False
        return not self.is_nfc or _is_inert(character, category)


EVERYWHERE = CutRule(is_stable=True)
"""For the split patterns of GPT-2, cl100k_base, o200k_base, Llama 3 and Qwen."""
NOWHERE = CutRule(provable=False, seams=False)


def _is_inert(character: str, category: str) -> bool:
    """Does NFC leave it alone, whatever stands before it? Marks and Hangul's vowels and final
    consonants may join what is before them."""
    is_joining = category[0] == "M" or "\u1100" <= character <= "\u11ff"
    return not is_joining and unicodedata.is_normalized("NFC", character)


@dataclass(frozen=True)
class Cut:
    """A safe place to cut; ``seam`` is the pair of tokens around a cut inside a run."""

    position: int
    seam: tuple[int, int] | None = None


class UnbrokenRun(Exception):
    """No safe cut in the ``length`` bytes after ``start``: more than may be held in memory."""

    def __init__(self, start: int, length: int) -> None:
        super().__init__(start, length)
        self.start = start
        self.length = length


class TextView(Protocol):
    """A text that can be looked at by byte range, without holding all of it."""

    def peek(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, fewer where the text ends."""


class SeamEncoder(Protocol):
    """What the seam rule asks of a tokenizer."""

    def encode_piece(self, text: bytes) -> Sequence[int]:
        """Token ids of ``text`` alone."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for."""


class BytesView:
    """A text that is in memory already."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def peek(self, start: int, stop: int) -> bytes:
        return self._text[start:stop]


def find_cut(
    view: TextView,
    start: int,
    target: int,
    floor: int,
    seams: Callable[[], SeamEncoder],
    unbreakable: tuple[bytes, ...] = (),
    limit: int | None = None,
    replacement: str = "",
    rule: CutRule = EVERYWHERE,
    sizes: Sizes = DEFAULT_SIZES,
) -> Cut | None:
    """The next safe cut for a piece that begins at ``start`` (itself a safe cut).

    Looks first at and after ``target``, then back towards ``floor``, then for a seam at or after
    ``floor``; a run that cannot be cut there is followed further. ``unbreakable`` strings are
    never cut in two. ``replacement`` is what will stand in the place of each sequence that is not
    UTF-8, ``rule`` what is safe for the tokenizer. Returns None when the text ends before a cut is
    found; raises UnbrokenRun after ``limit`` bytes.
    """
    search = _Search(view, (*unbreakable, *rule.unbreakable), replacement, rule, sizes.window)
    unbreakable = search.unbreakable
    while True:
        ahead = view.peek(target, target + sizes.window)
        found = search.provable_in(target, target + sizes.window)
        if found is None:
            found = search.provable_before(floor, target)
        if found is not None:
            return Cut(found)
        if len(ahead) < sizes.window:
            return None
        seam = None
        if rule.seams:
            seam = _seam(view, start, floor, seams(), replacement, rule, sizes)
        if seam is not None and not _breaks(view, seam.position, unbreakable, replacement):
            return seam
        floor, target = target, start + 2 * (target - start)
        if limit is not None and target - start > limit:
            raise UnbrokenRun(start, target - start)


@dataclass(frozen=True)
class _Search:
    """What a search for provable cuts goes by."""

    view: TextView
    unbreakable: tuple[bytes, ...]
    replacement: str
    rule: CutRule
    window: int = DEFAULT_SIZES.window

    def provable_before(self, floor: int, target: int) -> int | None:
        """The first provable cut in the last window before ``target`` that has one."""
        for high in range(target, floor, -self.window):
            low = max(floor, high - self.window)
            found = self.provable_in(low, high)
            if found is not None:
                return found
        return None

    def provable_in(self, low: int, high: int) -> int | None:
        """The first provable cut in [low, high)."""
        if not self.rule.provable:
            return None
        origin = max(0, low - 8)
        window = self.view.peek(origin, high + 8)
        for match in _GRAPHIC_SPACE_GRAPHIC.finditer(window, max(0, low - origin - 1)):
            cut = origin + match.start() + 1
            if low <= cut < high and not self._breaks(cut):
                return cut
        for cut in self._provable_unicode(window, origin):
            if low <= cut < high and not self._breaks(cut):
                return cut
        return None

    def _breaks(self, cut: int) -> bool:
        return _breaks(self.view, cut, self.unbreakable, self.replacement)

    def _provable_unicode(self, window: bytes, origin: int) -> Iterator[int]:
        # The window may begin and end inside a character: those few bytes are skipped, or, at the
        # end, look like invalid ones, so far behind what is asked for that it makes no difference.
        head = next((i for i, byte in enumerate(window[:4]) if byte & 0xC0 != 0x80), 0)
        # Each invalid byte becomes a lone surrogate, so that the characters tell their lengths.
        text = window[head:].decode("utf-8", "surrogateescape")
        if not _MAY_HOLD_A_CUT.search(text):
            return
        position = origin + head
        for index in range(len(text) - 1):
            if index > 0 and _is_provable(text, index, self.replacement, self.rule):
                yield position
            position += len(text[index].encode("utf-8", "surrogateescape"))


def _is_provable(text: str, index: int, replacement: str = "", rule: CutRule = EVERYWHERE) -> bool:
    around = text[index - 1 : index + 2]
    if _INVALID.search(around):
        if not replacement:
            return False
        around = _INVALID.sub(replacement, around)
        return _is_provable(around, 1, "", rule)
    if not rule.trusts(around):
        return False
    before, after = text[index - 1], text[index]
    if after == " " and not before.isspace() and not text[index + 1].isspace():
        return True
    left, right = unicodedata.category(before), unicodedata.category(after)
    if right[0] == "N":
        return left[0] in "LPS"
    if left[0] == "N" and right[0] == "L":
        return True
    # Cn: not assigned in this Python's tables; newer tables may call it a letter.
    return left[0] in "LN" and right[0] not in "LNM" and right != "Cn" and after != "'"


def _breaks(view: TextView, cut: int, unbreakable: tuple[bytes, ...], replacement: str) -> bool:
    """Does a string that must stay whole straddle ``cut``, or might it when bytes are taken out?"""
    for text in unbreakable:
        reach = len(text) - 1
        if reach > 0 and text in view.peek(max(0, cut - reach), cut + reach):
            return True
    reach = max(map(len, unbreakable), default=0)
    return not replacement and _is_invalid_near(view, cut, reach)


def _is_invalid_near(view: TextView, cut: int, reach: int) -> bool:
    around = view.peek(max(0, cut - reach - 3), cut + reach + 3)
    head = next((i for i, byte in enumerate(around[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        whole_characters(around[head:]).decode()
    except UnicodeDecodeError:
        return True
    return False


def _seam(
    view: TextView,
    start: int,
    floor: int,
    encoder: SeamEncoder,
    replacement: str,
    rule: CutRule,
    sizes: Sizes,
) -> Cut | None:
    """The first seam at or after ``floor``, seen from ``start``; None if none is known to hold."""
    text = whole_characters(view.peek(start, floor + sizes.seam_context))
    if not utf8.is_utf8(text):
        return _seam_in_repaired(text, start, floor, encoder, replacement, rule, sizes)
    return _seam_in(text, start, floor, encoder, rule, sizes)


def _seam_in_repaired(
    raw: bytes,
    start: int,
    floor: int,
    encoder: SeamEncoder,
    replacement: str,
    rule: CutRule,
    sizes: Sizes,
) -> Cut | None:
    """A seam of the repaired text, at its place in the raw one."""
    if replacement:
        text = utf8.replace(raw)[0]
        grown = utf8.growth_before(raw, replacement, floor - start)
        seam = _seam_in(text, start, floor + grown, encoder, rule, sizes)
        if seam is None:
            return None
        return Cut(start + utf8.raw_place(raw, replacement, seam.position - start), seam.seam)
    faults = list(itertools.islice(utf8.invalid_ranges(raw), utf8.MOST_PLACES + 1))
    if len(faults) > utf8.MOST_PLACES:
        return None  # more than these bytes will be taken out
    taken = sum(high - low for low, high in faults if low < floor - start)
    seam = _seam_in(utf8.without(raw, faults), start, floor - taken, encoder, rule, sizes)
    if seam is None:
        return None
    position = seam.position - start
    for low, high in faults:
        if low > position:
            break
        position += high - low
    return Cut(start + position, seam.seam)


def _seam_in(
    text: bytes, start: int, floor: int, encoder: SeamEncoder, rule: CutRule, sizes: Sizes
) -> Cut | None:
    tokens = encoder.encode_piece(text)
    position = len(text)
    candidates = []
    for index in range(len(tokens) - 1, 0, -1):
        position -= len(encoder.token_bytes(tokens[index]))
        if position < floor - start:
            break
        if position > len(text) - 2 * sizes.run_ahead:
            continue
        candidates.append((position, index))
    for position, index in reversed(candidates):
        if _one_run(text, position, rule, sizes.run_ahead):
            return Cut(start + position, (tokens[index - 1], tokens[index]))
    return None


def whole_characters(text: bytes) -> bytes:
    """``text`` without a character that its end cuts in two."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte & 0xC0 == 0x80:
            continue
        width = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return text[:-back] if width > back else text
    return text


def _one_run(text: bytes, cut: int, rule: CutRule, ahead: int) -> bool:
    """Is ``cut`` inside a run that every known pattern takes as one piece on both sides?

    Why each kind of run is safe is told in docs/decisions/2026-11-21-cuts.md.
    """
    if cut >= len(text) or text[cut] & 0xC0 == 0x80:
        return False
    left = text[max(0, cut - 64) : cut].decode("utf-8", "ignore")[-8:]
    right = text[cut : cut + ahead].decode("utf-8", "ignore")
    if len(left) < 8 or not rule.trusts(left + right):
        return False
    kinds = {unicodedata.category(character) for character in left + right}
    if len(set(left + right)) == 1 and left[0] in " \n":
        return _is_uniform_tail(text, cut, left[0].encode(), rule)
    if kinds == {"Ll"}:
        return True
    if kinds in ({"Lo"}, {"Lu"}):
        return _is_pure_tail(text, cut, kinds.pop(), rule)
    return all(kind[0] in "PS" for kind in kinds) and not {"'", "/"} & set(left + right)


def _is_uniform_tail(text: bytes, cut: int, blank: bytes, rule: CutRule) -> bool:
    """Is the white space that ends at ``cut`` nothing but ``blank``, and a piece of its own?

    Line ends after punctuation belong to the punctuation's piece (cl100k_base, o200k_base).
    """
    before = text[:cut].rstrip(blank)[-4:].decode("utf-8", "ignore")[-1:]
    if not before:
        return len(text[:cut].rstrip(blank)) == 0
    kinds = "LN" if blank == b"\n" else "LNPS"
    return rule.trusts(before) and unicodedata.category(before)[0] in kinds


def _is_pure_tail(text: bytes, cut: int, kind: str, rule: CutRule) -> bool:
    """Are the letters that end at ``cut`` all of one category, back to where they begin?"""
    for character in reversed(text[:cut].decode("utf-8", "ignore")):
        found = unicodedata.category(character)
        if not rule.trusts(character):
            return False
        if found != kind:
            return found[0] not in "LM"
    return True


def provable_cut(text: bytes, low: int, high: int, rule: CutRule = EVERYWHERE) -> int | None:
    """The first cut in [low, high) that is safe whatever the tokenizer's merges are."""
    return _Search(BytesView(text), rule.unbreakable, "", rule).provable_in(low, high)
