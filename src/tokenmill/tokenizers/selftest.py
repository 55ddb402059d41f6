"""The self-test at load: which engine is exact for this tokenizer, and may its text be cut?

Documents made of hostile fragments (many scripts, digits, white space of all kinds, marks that NFC
joins, emoji, characters that are new in Unicode, the tokenizer's own tokens written as text) are
encoded by the engine and by the reference. One difference, and the engine is not used. The same
text is cut wherever the rule allows it; one difference, and nothing is cut. This proves nothing by
itself: which cuts are safe is argued in docs/decisions, and a share of each run is checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenmill.text.cuts import NOWHERE, BytesView, CutRule, find_cut, provable_cut
from tokenmill.tokenizers.engines.engine import Engine
from tokenmill.tokenizers.vocabularies.vocabulary import Vocabulary

DOCUMENTS = 400
_RUN_BYTES = 96 * 1024
_REACH = 8
_LATIN = (
    "The quick brown fox", "it's", "IT'S", "we'LL", "don't", "'s", "'", "’s", "CamelCaseWord",
    "snake_case_name", "naïve café", "Zażółć gęślą jaźń", "ﬁne ﬂow", "ｆｕｌｌ\u3000ｗｉｄｔｈ",
    "ǅungla", "İstanbul", "straße STRASSE ẞ", "x", "a b", "hello world",
    "pseudopseudohypoparathyroidism",
)  # fmt: skip
_OTHER_SCRIPTS = (
    "Привет, мир", "Ελληνικά", "שלום", "السلام عليكم", "हिन्दी में", "ไทย", "日本語テキスト",
    "漢字、かな。", "한국어 문장", "안녕", "中文，标点。", "ქართული", "አማርኛ", "မြန်မာ", "𝔘𝔫𝔦",
    "𐍈𐌰", "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
)  # fmt: skip
_DIGITS = (
    "0", "7", "42", "123", "1234", "1234567890", "3.14", "1,000", "٣٤٥", "１２３", "²", "½",
    "Ⅷ", "①",
)  # fmt: skip
_BLANKS = (
    " ", "  ", "     ", "\t", "\t\t ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", " \n", "\n ",
    "\xa0", "\u3000", "\u2003", "\u200b", "\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\ufeff",
)  # fmt: skip
_SIGNS = (
    ".", ",", "!?", "...", "—", "(", ")", "[{", "}]", "//", "/*", "*/", "==", "!=", "->", "#",
    "$", "€", "«»", "。", "、", "<|", "|>", "</", ">", "&amp;", "http://a.b/c?d=e", "@x", "-",
    "--", "_", "__", "▁", "Ġ",
)  # fmt: skip
_MARKS = (
    "e\u0301", "\u0301", "A\u030a", "Å", "각", "か\u3099", "\u0344", "क़", "o\u0323\u0302",
    "=\u0338", ">\u0338", "ো", "Ω", ";", "ﬀ", "豈",
)  # fmt: skip
_ODD = (
    "\U0001f600", "\U0001f44d\U0001f3fd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1f5\U0001f1f1",
    "\x00", "\x01", "\x7f", "�", "\ue000", "\U0010ffff", "\xad", "\ua7cb", "\ua7dc", "\u1c89",
    "ࡰ", "\u1dfa", "\U0001fae0", "\U00010d50", "\U0001e5d0", "\U00031350", "\U00016d40",
    "<unk>", "<s>", "</s>", "<0x41>", "[UNK]", "[CLS]", "##ing",
)  # fmt: skip
_FRAGMENTS = (*_LATIN, *_OTHER_SCRIPTS, *_DIGITS, *_BLANKS, *_SIGNS, *_MARKS, *_ODD)
_ALONE = 200
"""So many of the tokenizer's own texts are written into documents of their own, so that one is
seen at the beginning and at the end of a text; the others stand in documents of _TOGETHER."""
_TOGETHER = 50


def documents_for(own: list[str]) -> list[bytes]:
    """The documents of the self-test, for a tokenizer that may look for these texts: all of them
    are tried."""
    generator = random.Random(20261121)
    own = list(dict.fromkeys(own))
    tokens = own[: _ALONE // 2] + own[_ALONE // 2 :][-_ALONE // 2 :]
    found = ["", *_FRAGMENTS]
    for token in tokens:
        found += [token, *_beside(token)]
    rest = own[_ALONE // 2 : -_ALONE // 2]
    for start in range(0, len(rest), _TOGETHER):
        parts = [" ".join(_beside(token)) for token in rest[start : start + _TOGETHER]]
        found.append(" ".join(parts))
    blanks = ("", "", " ", " ", "\n")
    for size in range(DOCUMENTS):
        parts = generator.choices(_FRAGMENTS, k=1 + size % 40)
        if tokens and size % 3 == 0:
            parts.append(generator.choice(tokens))
            generator.shuffle(parts)
        found.append("".join(part + generator.choice(blanks) for part in parts))
    return [text.encode() for text in found]


def _beside(token: str) -> list[str]:
    """A text that may be looked for, beside letters, spaces, marks, and itself."""
    texts = [f"a{token}b", f"azq{token}", f" {token} x", f"\t{token}\n", token + token]
    return [*texts, f"{token}\u0301 {token}\u0338 {token[:-1]}"]


def difference(engine: Engine, reference: Engine, documents: list[bytes]) -> str | None:
    """The first document that the two encode differently, in words; None if there is none.

    Raises TokenmillError where the engine cannot use the vocabulary.
    """
    tokens = engine.encode(documents)
    borders = [-1, *tokens.marks.tolist(), len(tokens.ids)]
    for index, document in enumerate(documents):
        found = tokens.ids[borders[index] + 1 : borders[index + 1]].tolist()
        if found != reference.encode_piece(document):
            return f"it differs from {reference.name} for {document.decode()[:40]!r}"
    return None


def tried_cuts(
    vocabulary: Vocabulary, reference: Engine, documents: list[bytes]
) -> tuple[CutRule, str]:
    """The vocabulary's rule, or less of it where the reference shows it wrong; and why."""
    rule, why = vocabulary.cuts, vocabulary.why_cuts
    if rule == NOWHERE:
        return rule, why
    for text in (b" ".join(documents), b"".join(documents)):
        pieces = list(_pieces(text, rule))
        if _joined(reference, pieces) != reference.encode_piece(text):
            return NOWHERE, "a cut changed an id in the self-test"
    if rule.seams and not _seam_holds(reference, rule):
        return CutRule(True, False, rule.is_stable, rule.is_nfc, rule.unbreakable), why
    return rule, why


def _pieces(text: bytes, rule: CutRule) -> Iterator[bytes]:
    """The text cut in many places. A search takes a space first, wherever it finds one: with a
    short reach the other kinds of cuts come, too."""
    start = 0
    for low in range(1, len(text), _REACH):
        cut = provable_cut(text, low, min(low + _REACH, len(text)), rule)
        if cut is not None:
            yield text[start:cut]
            start = cut
    yield text[start:]


def _joined(reference: Engine, pieces: list[bytes]) -> list[int]:
    return [token for piece in pieces for token in reference.encode_piece(piece)]


def _seam_holds(reference: Engine, rule: CutRule) -> bool:
    """Is a run of letters right in two pieces?"""
    letters = random.Random(7).choices("abcdefghijklmnopqrstuvwxyz", k=_RUN_BYTES)
    run = "".join(letters).encode()
    cut = find_cut(BytesView(run), 0, 4096, 2048, lambda: reference, rule=rule)
    if cut is None:
        return True
    return _joined(reference, [run[: cut.position], run[cut.position :]]) == (
        reference.encode_piece(run)
    )
