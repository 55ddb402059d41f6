"""Which encoding bytes are in that are not UTF-8: a cautious guess, and what to do about it.

Nothing is ever converted by this: a guess goes into an error's ``fix:`` line, for a person who can
look. A wrong one would turn an error into silent damage (every byte is a letter of latin1), so a
name is given only where the bytes fit it and little else; otherwise the advice is to find out.
"""

from __future__ import annotations

import re
from collections import Counter

SAMPLE_BYTES = 64 * 1024
_CONTROLS = bytes({*range(32), 127} - {7, 8, 9, 10, 12, 13, 27})
"""No text has many of these: what is left out are tabs, line ends, and what terminals take."""
_LEAST, _SHARE = 8, 0.1
_HIGH = re.compile(rb"[\x80-\xff]")
_RUN = re.compile(rb"[\x80-\xff]+")
_SCRIPTS = (("\0", "\u070f"), ("\u0900", "\u10ff"), ("\u2000", "\u206f"), ("\u3000", "\u9fff"),
            ("\uac00", "\ud7a3"), ("\uff00", "\uffef"))  # fmt: skip
_VALID = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_CYRILLIC = "оеаинт"
"""Nearly half of the letters of a Russian text; Greek and Arabic have others at their places."""
_WESTERN = bytes.fromhex(
    "85919293949697a0abb0b7bbc0c4c7c8c9d1d6dcdfe0e1e2e4e5e7e8e9eaebedeef1f3f4f5f6fafbfc"
)
"""Signs of windows-1252 that Western texts are full of."""


def is_binary(head: bytes) -> bool:
    """Has it more control characters than any text?"""
    count = len(head) - len(head.translate(None, _CONTROLS))
    return count >= _LEAST and count >= _SHARE * len(head)


def wide_encoding(head: bytes, is_utf8: bool = True) -> str | None:
    """UTF-16 or UTF-32, by its byte order mark, its NULs, or, of what is not UTF-8, by how it
    reads; None where it is neither. ``head`` begins at a multiple of four bytes of the file."""
    for mark, name in (
        (b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"),
        (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
    ):  # fmt: skip
        if head.startswith(mark):
            return name
    nulls = head.count(0)
    is_short = len(head) < 64 and nulls >= 2 and nulls >= 0.4 * len(head)
    if is_utf8 and not (is_binary(head) or is_short):
        return None
    names = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
    fits = {name: fit for name in names if (fit := _fit(head, name))}
    # Latin letters with their bytes changed are Chinese ones, but blanks and signs are none then.
    return max(fits, key=lambda name: fits[name]) if fits else None


def _fit(head: bytes, name: str) -> float:
    """The share of signs and blanks, if it is made of letters, signs and blanks in that encoding;
    else 0."""
    width = 4 if "32" in name else 2
    text = head[: len(head) // width * width].decode(name, "replace")
    good = sum(
        letter.isspace() or (letter.isprintable() and not "\ue000" <= letter <= "\uf8ff")
        for letter in text
        if letter != "\ufffd"
    )
    common = sum(any(low <= letter <= high for low, high in _SCRIPTS) for letter in text)
    # Other bytes read as UTF-16 give characters from everywhere, seldom a blank or a sign.
    signs = sum(letter.isspace() or letter in ",.-:;\"'、。" for letter in text)
    is_text = good >= 0.98 * len(text) and common >= 0.9 * len(text)
    is_enough = signs > 0 or len(text) < 16
    latin = sum(letter.isascii() for letter in text)
    return (1 + signs + latin) / len(text) if text and is_text and is_enough else 0.0


def advice(sample: bytes, path: str) -> str:
    """What to do about a text that is not UTF-8, as its bytes around the fault suggest.

    ``sample`` is part of the file, the fault in it; ``path`` is the file for the commands.
    """
    wide = wide_encoding(sample, is_utf8=False)
    if wide is None and is_binary(sample):
        return f"this is no text: see what it is (file {path}), and leave it out of the inputs"
    name = wide or guess(sample)
    if name == "UTF-8":
        return (
            "the rest is UTF-8: correct these bytes, or --on-bad quarantine takes them out and "
            "keeps them aside"
        )
    if name is None:
        return (
            f"find out its encoding first (file -i {path}, or uchardet), then: iconv -f THAT "
            f"-t UTF-8 {path} > NEW; or, if single bytes are damaged, --on-bad quarantine"
        )
    return (
        f"it looks like {name}: see whether it reads well (iconv -f {name} -t UTF-8 {path} | "
        "head), and if so, convert it"
    )


def guess(sample: bytes) -> str | None:
    """The encoding that the bytes fit, as iconv calls it; None where that must be found out."""
    high = _HIGH.findall(sample)
    valid = [len(match) for match in _VALID.findall(sample)]
    if len(valid) >= 3 and sum(valid) >= 0.75 * len(high):
        return "UTF-8"
    if len(high) < 20:
        return None
    return _double_byte(sample, len(high)) or _single_byte(sample, high)


def _double_byte(sample: bytes, high: int) -> str | None:
    """One of East Asia's encodings, by the pairs that its texts are full of."""
    shares = {
        "SHIFT_JIS": rb"\x82[\x9f-\xf1]|\x83[\x40-\x96]",
        "EUC-JP": rb"\xa4[\xa1-\xf3]|\xa5[\xa1-\xf6]",
    }
    for name, kana in shares.items():
        # Kana are a third of a Japanese text at least.
        if _decodes(sample, name) and 2 * len(re.findall(kana, sample)) >= 0.25 * high:
            return name
    pairs = _pairs(sample)
    if not pairs or not _decodes(sample, "gb18030"):
        return "BIG5" if pairs and _decodes(sample, "big5") and _is_big5(pairs) else None
    leads = Counter(pair[0] for pair in pairs if pair[0] >= 0xB0)
    hangul = sum(count for lead, count in leads.items() if lead <= 0xC8)
    letters = sum(leads.values())
    if hangul >= 0.98 * letters and _decodes(sample, "euc_kr"):
        return "EUC-KR"
    if _is_big5(pairs) and _decodes(sample, "big5"):
        return "BIG5"
    common = sum(count for lead, count in leads.items() if lead <= 0xD7)
    is_chinese = common >= 0.6 * len(pairs) and sum(pair[1] >= 0xA1 for pair in pairs) >= 0.9 * len(
        pairs
    )
    return "GB18030" if is_chinese else None


def _pairs(sample: bytes) -> list[bytes]:
    return re.findall(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]", sample)


def _is_big5(pairs: list[bytes]) -> bool:
    """Frequent characters are in A4 to C6, and a third of all second bytes is below 80."""
    low = sum(pair[1] < 0x80 for pair in pairs)
    frequent = sum(0xA1 <= pair[0] <= 0xC6 for pair in pairs)
    return low >= 0.2 * len(pairs) and frequent >= 0.8 * len(pairs)


def _decodes(sample: bytes, name: str) -> bool:
    """Up to a character that is cut at either end."""
    for start in range(4):
        try:
            sample[start:].decode(name)
        except UnicodeDecodeError as error:
            if error.start + start >= len(sample) - 4:
                return True
        else:
            return True
    return False


def _single_byte(sample: bytes, high: list[bytes]) -> str | None:
    counts = Counter(high)
    for name in ("windows-1251", "KOI8-R", "CP866"):
        letters = [bytes([byte]) for byte in _CYRILLIC.encode(name)]
        if sum(counts[letter] for letter in letters) >= 0.35 * len(high) and min(
            counts[letter] for letter in letters
        ):
            return name
    runs = len(_RUN.findall(sample))
    is_western = sum(counts[bytes([byte])] for byte in _WESTERN) >= 0.98 * len(high)
    is_sparse = len(high) <= 1.3 * runs and len(high) <= 0.15 * len(sample)
    return "windows-1252" if is_western and is_sparse else None
