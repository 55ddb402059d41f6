"""Which characters an engine takes for other ones than the vocabulary's reference does.

Two libraries that split and normalize text by the classes of characters agree only as far as
their tables of Unicode do. A letter that is new in one of them is a sign to the other, and then
its neighbours get other ids. So the set of such characters is *computed*, by a vocabulary whose
tokens show every border (``Vocabulary.probe``): each character is put between neighbours of each
class, and both libraries are asked. What the set holds, ``guarded`` gives to the reference.

The sets of the releases that this one was tested with are in ``differences.json``, and a test
computes them again; for others they are computed when the tokenizer is loaded (a second or
more). Code points that mean the same since Unicode 3.2 are not tried then: the torture
tests try all.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata, resources

from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

Ranges = tuple[tuple[int, int], ...]
"""Code points, as ascending pairs of first and last."""

_SPLITS = "a{0}a\nA{0}A\n0{0}0\n!{0}!\n {0}'s\na'{0}a\n'{0}a\n"
"""Letters, digits, signs, blanks, line ends and contractions around a character: each class that a
split pattern asks for makes other borders in one of these lines."""
_ORDERS = "a\u0345{0}a\na{0}\u0334a\n"
"""Marks are put in order by their class: the highest before it, the lowest after it."""
_GROUP = 256
"""Characters in one document: where two libraries agree, that is one comparison."""
_COLUMN = 16
"""Scripts are assigned by columns of so many code points. In the planes of Han characters, of a
column that this Python knows nothing in, every fourth is tried (above U+3FFFF only the first), and
all if one of them differs. To do so in the planes below missed letters that were added to a column
of another release (U+10EC5 to U+10EC7 beside U+10EC4)."""
_NEW_PAIRS = (
    (0x1B05, 0x1B35), (0x1B07, 0x1B35), (0x1B09, 0x1B35), (0x1B0B, 0x1B35), (0x1B0D, 0x1B35),
    (0x1B11, 0x1B35), (0x1B3A, 0x1B35), (0x1B3C, 0x1B35), (0x1B3E, 0x1B35), (0x1B3F, 0x1B35),
    (0x1B42, 0x1B35), (0x105D2, 0x307), (0x105DA, 0x307), (0x11099, 0x110BA), (0x1109B, 0x110BA),
    (0x110A5, 0x110BA), (0x11131, 0x11127), (0x11132, 0x11127), (0x11347, 0x1133E),
    (0x11347, 0x11357), (0x11382, 0x113C9), (0x11384, 0x113BB), (0x1138B, 0x113C2),
    (0x11390, 0x113C9), (0x113C2, 0x113C2), (0x113C2, 0x113B8), (0x113C2, 0x113C9),
    (0x114B9, 0x114BA), (0x114B9, 0x114B0), (0x114B9, 0x114BD), (0x115B8, 0x115AF),
    (0x115B9, 0x115AF), (0x11935, 0x11930), (0x1611E, 0x1611E), (0x1611E, 0x16129),
    (0x1611E, 0x1611F), (0x16129, 0x1611F), (0x1611E, 0x16120), (0x16121, 0x1611F),
    (0x16122, 0x1611F), (0x16121, 0x16120), (0x16D67, 0x16D67), (0x16D63, 0x16D67),
    (0x16D69, 0x16D67),
)  # fmt: skip
"""Characters that NFC makes one of, new from Unicode 5 to 17. Those that this Python knows are
tried, too."""


def different(
    engine: str, vocabulary: Vocabulary, make: Callable[[str, Vocabulary], Engine]
) -> Ranges:
    """The characters that ``engine`` takes otherwise than the vocabulary's reference.

    Known for the releases in ``differences.json``, else computed. Raises TokenmillError where
    the engine cannot use such a vocabulary.
    """
    if engine == vocabulary.reference:
        return ()
    tables = vocabulary.tables
    if not tables:
        return ()
    known = _known().get((_release(engine), _release(vocabulary.reference), tables))
    return _computed(engine, vocabulary, make) if known is None else known


def _release(library: str) -> str:
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:  # an engine of somebody's own
        return library


@cache
def _known() -> dict[tuple[str, str, str], Ranges]:
    text = (resources.files("tokenmill.tokenizers.engines") / "differences.json").read_text("utf-8")
    return {
        (entry["engine"], entry["reference"], entry["tables"]): tuple(
            (low, high) for low, high in entry["ranges"]
        )
        for entry in json.loads(text)
    }


_found: dict[tuple[str, str], Ranges] = {}
"""What was computed in this process, by engine and probe: of two runs that compute the same at the
same time, both find the same."""


def _computed(
    engine: str, vocabulary: Vocabulary, make: Callable[[str, Vocabulary], Engine]
) -> Ranges:
    probe = vocabulary.probe()
    key = (engine, probe.fingerprint)
    if key not in _found:
        pair = make(engine, probe), make(probe.reference, probe)
        _found[key] = ranges_of(compared(*pair, candidates()))
    return _found[key]


def candidates() -> Iterator[int]:
    """Code points that some table of Unicode may take for another kind than another one."""
    old = unicodedata.ucd_3_2_0
    for begin in range(0x80, 0x110000, _COLUMN):
        column = range(begin, begin + _COLUMN)
        kinds = [unicodedata.category(chr(code)) for code in column]
        if begin >= 0x20000 and set(kinds) == {"Cn"}:
            yield from column[:: 4 if begin < 0x40000 else _COLUMN]
            continue
        for code, kind in zip(column, kinds, strict=True):
            if kind in ("Cs", "Co"):  # never anything else
                continue
            if kind == "Cn" or old.category(chr(code)) != kind:
                yield code


def compared(engine: Engine, reference: Engine, codes: Iterable[int]) -> set[int]:
    """Those of ``codes``, those near them, and those that NFC puts together, that the two take
    differently."""
    found, tried, todo = set[int](), set[int](), list(codes)
    while todo:
        now = set(_compared(engine, reference, [(code,) for code in todo]))
        found |= now
        tried.update(todo)
        begins = {code - code % _COLUMN for code in now}
        near = {b + step for b in begins for step in range(-_COLUMN, 2 * _COLUMN)}
        todo = sorted(code for code in near - tried if 0x80 <= code < 0x110000)
        todo = [code for code in todo if unicodedata.category(chr(code)) != "Cs"]
    found.update(_compared(engine, reference, _pairs()))
    return found


def _pairs() -> list[tuple[int, ...]]:
    pairs: set[tuple[int, ...]] = set(_NEW_PAIRS)
    for code in range(0xC0, 0x30000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pairs.add((int(parts[0], 16), int(parts[1], 16)))
    return sorted(pairs)


def _compared(
    engine: Engine, reference: Engine, groups: Sequence[tuple[int, ...]]
) -> Iterator[int]:
    """The code points of those ``groups`` whose lines get other ids."""
    lines = [
        (_SPLITS + _ORDERS).format("".join(map(chr, group))).encode("utf-8") for group in groups
    ]
    documents = [b"".join(lines[low : low + _GROUP]) for low in range(0, len(lines), _GROUP)]
    for number in _differing(engine, reference, documents):
        low = number * _GROUP
        for index in _differing(engine, reference, lines[low : low + _GROUP]):
            yield from _to_blame(engine, reference, groups[low + index])


def _to_blame(engine: Engine, reference: Engine, group: tuple[int, ...]) -> tuple[int, ...]:
    """Of a pair, the new one where one is old: else a text with any accent would be suspect."""
    if len(group) == 1:
        return group
    new = tuple(code for code in group if unicodedata.ucd_3_2_0.category(chr(code)) == "Cn")
    return new or group


def _differing(engine: Engine, reference: Engine, documents: list[bytes]) -> Iterator[int]:
    if not documents:
        return
    tokens = engine.encode(documents)
    borders = [-1, *tokens.marks.tolist(), len(tokens.ids)]
    for index, document in enumerate(documents):
        found = tokens.ids[borders[index] + 1 : borders[index + 1]].tolist()
        if found != reference.encode_piece(document):
            yield index


def ranges_of(codes: Iterable[int]) -> Ranges:
    """``codes`` as ranges."""
    ranges: list[tuple[int, int]] = []
    for code in sorted(codes):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return tuple(ranges)
