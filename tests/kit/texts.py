"""Texts that are hard to tokenize, written for these tests or generated.

`SENTENCES` is Article 1 of the Universal Declaration of Human Rights in many scripts, `SNIPPETS` is
source code, `ODDITIES` are short strings at which splitters are known to differ, and `ADVERSARIES`
are generators of text of any length, by name: no spaces, one letter for ever, white space only and
so on. Every generator is a pure function of the number of characters asked for.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterator

SENTENCES: dict[str, str] = {
    "english": (
        "All human beings are born free and equal in dignity and rights. They are endowed with "
        "reason and conscience and should act towards one another in a spirit of brotherhood."
    ),
    "french": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
        "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
        "fraternité."
    ),
    "german": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft "
        "und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen."
    ),
    "spanish": (
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como "
        "están de razón y conciencia, deben comportarse fraternalmente los unos con los otros."
    ),
    "polish": (
        "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni "
        "obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa."
    ),
    "turkish": (
        "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana "
        "sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler."
    ),
    "vietnamese": (
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người "
        "đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng "
        "hữu."
    ),
    "russian": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены "
        "разумом и совестью и должны поступать в отношении друг друга в духе братства."
    ),
    "greek": (
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
        "προικισμένοι με λογική και συνείδηση."
    ),
    "hebrew": (
        "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך "
        "חובה עליהם לנהוג איש ברעהו ברוח של אחוה."
    ),
    "arabic": (
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلًا وضميرًا وعليهم "
        "أن يعامل بعضهم بعضًا بروح الإخاء."
    ),
    "hindi": (
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और "
        "समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर "
        "उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।"
    ),
    "thai": (
        "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม "
        "และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ"
    ),
    "chinese": (
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
    ),
    "japanese": (
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
        "人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。"
    ),
    "korean": (
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 "
        "이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다."
    ),
}

SNIPPETS: dict[str, str] = {
    "python": (
        "def gcd(a: int, b: int) -> int:\n    while b:\n        a, b = b, a % b\n    return a\n\n\n"
        'print(f"{gcd(1071, 462)=}")  # 21\n'
    ),
    "c": (
        "#include <stdio.h>\n\nint main(void)\n{\n\tfor (int i = 0; i < 10; i++) {\n"
        '\t\tprintf("%d\\n", i << 1);\n\t}\n\treturn 0;\n}\n'
    ),
    "rust": (
        "fn longest<'a>(x: &'a str, y: &'a str) -> &'a str {\n"
        "    if x.len() > y.len() { x } else { y }\n}\n"
    ),
    "sql": "SELECT id, COUNT(*) AS n\r\nFROM docs\r\nWHERE  text LIKE '%''s%'\r\nGROUP BY id;\r\n",
    "html": '<!DOCTYPE html><p class="a b">caf&eacute; &amp; <b>x</b></p><!-- don\'t -->\n\n\n',
    "makefile": "all: a.o b.o\n\t$(CC) -o $@ $^\n\n.PHONY: clean\nclean:\n\trm -f *.o\n",
    "diff": "--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@\n context\n-old   line\n+new\tline\n+\n",
}

ODDITIES: dict[str, str] = {
    "nothing but a space": " ",
    "one newline": "\n",
    "final spaces": "word   ",
    "leading spaces": "   word",
    "contractions": "it's we'll they've I'd I'm you're don't",
    "contractions in capitals": "IT'S WE'LL THEY'VE I'D I'M YOU'RE DON'T",
    "contractions after odd things": "1's 'll '''s\n's \t'll 好's ＇s it’s 'S'ſ 'ſ",
    "alternating case": "aBcDeFgHiJkLmNoP iPhone eBay OpenAI McDonald XMLHttpRequest fooBARbaz",
    "brands among hanzi": "我买了iPhone和OpenAI的ChatGPT会员，今天是2024年5月20日。",
    "special texts": "a <|endoftext|> b<|endoftext|><|endofprompt|> <|fim_prefix|>c <|im_start|>",
    "half a special text": "<|endoftext <|endoftext| endoftext|> <|ENDOFTEXT|>",
    "byte order marks": "one\ufefftwo \ufeff three\ufeff",
    "nul and other controls": "a\x00b\x00\x00c \x01\x07\x1b[31mred\x1b[0m\x7f",
    "information separators": "a\x1c\x1d\x1e\x1fb \x1c\x1c\x1d\x1e\x1f\x1f \x1c\x1d\x1e",
    "line ends": "a\r\nb\rc\nd\x0be\x0cf\x85g\u2028h\u2029i\r\n\r\n\r\r\n\n",
    "odd spaces": "a\u00a0b\u00a0\u00a0c\u3000d\u3000\u3000e\u2003f\u200bg\u202fh\u1680i",
    "combining marks": "e\u0301e\u0301\u0323 Z\u0351\u036b\u0343a\u0336l\u0334g\u0321\u0489 \u0301",
    "composed and decomposed": "Ångström A\u030angstro\u0308m \u212bngstr\u00f6m ﬁ fi ½ ²",
    "hangul jamo": "\u1112\u1161\u11ab\u1100\u1173\u11af 한글 \u3147\u314b\u314b ㅋㅋㅋㅋ",
    "emoji": "👍👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 ❤️ ❤︎ 1️⃣ 🇵🇱🇯🇵🇺 ☕️!",
    "digits": "1 12 123 1234 12345 3.14159 1,000,000 ٠١٢٣ ०१२ １２３ ²³ Ⅷ 九百",
    "surrogate neighbours": "\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "right to left marks": "abc\u200fאבג\u200e def \u202eghi\u202c",
    "title case letters": "ǅ ǈ ǋ ǲ ᾈ ŉ ʼn ß ẞ İ ı ﬀ",
    "modifier letters": "ʰʲʷ aʰ ـــ ーー ゞ々〻 ᴬᴮ",
    "punctuation after newlines": "x\n!y\n\n?z /\n//\r\n /// \n",
    "slashes": "https://a.b/c//d///e\n/usr/local/\n//\n",
}


def _cycled(unit: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size]


@functools.lru_cache
def pseudo_random(size: int, alphabet: str, seed: str = "tokenmill") -> str:
    """`size` characters drawn from `alphabet` by SHA-256: the same on any machine."""
    blocks = (
        hashlib.sha256(f"{seed}:{counter}".encode()).digest() for counter in range(size // 32 + 1)
    )
    data = b"".join(blocks)[:size]
    return "".join(alphabet[byte % len(alphabet)] for byte in data)


def no_spaces(size: int) -> str:
    """Latin letters, all different words, never a space."""
    return pseudo_random(size, "etaoinshrdlucmfwypvbgkqjxz")


def one_letter(size: int) -> str:
    """One letter, for ever: a single pre-token of any length."""
    return "a" * size


def capitals_and_smalls(size: int) -> str:
    """Upper and lower case in turn, as o200k's pattern splits them."""
    return pseudo_random(size, "abcABCxyzXYZ", "case")


def spaces(size: int) -> str:
    """Nothing but spaces."""
    return " " * size


def newlines(size: int) -> str:
    """Nothing but newlines."""
    return "\n" * size


def carriage_returns(size: int) -> str:
    """Nothing but CR LF pairs."""
    return _cycled("\r\n", size)


def mixed_white_space(size: int) -> str:
    """Every kind of white space, in no order."""
    return pseudo_random(size, " \n\t\r  \u00a0\u3000\u2028\x0b\x0c\x85\u2003\n ", "white")


def white_space_and_words(size: int) -> str:
    """Long runs of white space between short words."""
    return _cycled("a" + " " * 61 + "b" + "\n" * 37 + "c \n \n" + "\t" * 19 + "d\r\n\r\n  ", size)


def ideographic_spaces(size: int) -> str:
    """U+3000 between hanzi, as old Chinese web pages have it."""
    return _cycled("　　人人生而自由　在尊严和权利上　　一律平等\u3000\n", size)


def digits(size: int) -> str:
    """One endless number."""
    return pseudo_random(size, "0123456789", "digits")


def punctuation(size: int) -> str:
    """Punctuation only, every sort."""
    return pseudo_random(size, "!?.,;:-_=+*/\\|#@$%^&()[]{}<>'\"`~、。！", "punctuation")


def one_dash(size: int) -> str:
    """A ruler of equal signs, as plain-text headings have it."""
    return "=" * size


def one_hanzi(size: int) -> str:
    """One Chinese character, for ever."""
    return "哈" * size


def hanzi(size: int) -> str:
    """Chinese without a single space."""
    return _cycled(SENTENCES["chinese"], size)


def base64_text(size: int) -> str:
    """What an attachment looks like."""
    raw = pseudo_random(size, "".join(map(chr, range(128))), "base64").encode()
    return base64.b64encode(raw).decode()[:size]


def minified_script(size: int) -> str:
    """JavaScript on one line."""
    line = 'function(e,t){if(!e)return"";var n=t||{};for(var i in n)e[i]=n[i];return e}(this,[1]);'
    return _cycled(line, size)


def mixed_scripts(size: int) -> str:
    """Many languages, one sentence after the other."""
    return _cycled(" ".join(SENTENCES.values()), size)


def mixed_scripts_without_spaces(size: int) -> str:
    """Many scripts glued together."""
    return _cycled("".join(SENTENCES.values()).replace(" ", ""), size)


def combining_marks(size: int) -> str:
    """One letter that carries ever more marks."""
    return _cycled("a" + "\u0301\u0323\u0308" * 40, size)


def hangul_jamo(size: int) -> str:
    """Korean as unjoined letters."""
    return _cycled("\u1112\u1161\u11ab\u1100\u1173\u11af", size)


def emoji(size: int) -> str:
    """Emoji with joiners, skin tones and variation selectors, never a space."""
    return _cycled("👩‍👩‍👧‍👦👍🏽🏳️‍🌈❤️☕️🇵🇱", size)


def contractions(size: int) -> str:
    """Apostrophes everywhere a contraction could begin or be cut."""
    return _cycled("it's'll 's'S'Ll've '''re'd 'm't'x ", size)


def marks_and_nul(size: int) -> str:
    """BOM and NUL inside the text."""
    return _cycled("a\ufeffb\x00 \ufeff \x00\x00c\n", size)


def special_texts(size: int) -> str:
    """The control token's name, written out again and again."""
    return _cycled("<|endoftext|>x <|endoftext|> ", size)


def prose(size: int) -> str:
    """Words never seen before, with spaces: the friendly case, ever new."""
    letters = pseudo_random(size, "etaoinshrdlu      \n", "prose")
    return letters.replace("\n", ".\n")[:size]


ADVERSARIES: dict[str, Callable[[int], str]] = {
    make.__name__: make
    for make in (
        no_spaces, one_letter, capitals_and_smalls, spaces, newlines, carriage_returns,
        mixed_white_space, white_space_and_words, ideographic_spaces, digits, punctuation, one_dash,
        one_hanzi, hanzi, base64_text, minified_script, mixed_scripts, mixed_scripts_without_spaces,
        combining_marks, hangul_jamo, emoji, contractions, marks_and_nul, special_texts, prose,
    )
}  # fmt: skip


def short_texts() -> Iterator[str]:
    """Every short text above, each a document of its own."""
    yield from SENTENCES.values()
    yield from SNIPPETS.values()
    yield from ODDITIES.values()


def adversarial_documents(size: int) -> list[str]:
    """The short texts, an empty one, and each adversary at `size` characters."""
    return [*short_texts(), "", *(make(size) for make in ADVERSARIES.values())]
