"""What a file holds, told by its first bytes: archives, programs, pages, other encodings.

A name says what a file ought to be, and a guess is made of it; this is the second look. It needs
the head of the content alone (decompressed, where the name says so), costs microseconds, and is
meant to be right rather than clever: what may well be text is never refused, and what is refused
is named, with what to do about it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tokenmill.kinds import KINDS
from tokenmill.text.charset import is_binary, wide_encoding

HEAD_BYTES = 16 * 1024
"""Enough for the mark of a tar archive (byte 257), and for what a text is made of."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_AS_TEXT = "; or, where its bytes are meant as text as they stand: --kind text"
_LEAVE_OUT = "there is no text in it to read: leave it out of the inputs"
_UNPACK = "unpack it into a folder ({}), and name that"


@dataclass(frozen=True)
class Content:
    """What bytes are. ``name`` is for people, ``fix`` what to do, where ``{file}`` stands for the
    file; ``could_be_text`` where somebody may want to read the very bytes as text."""

    name: str
    fix: str
    could_be_text: bool = False

    def advice(self, path: str) -> str:
        """The ``fix:`` line for a file."""
        return self.fix.replace("{file}", path) + (_AS_TEXT if self.could_be_text else "")


COMPRESSED = {
    ".gz": (b"\x1f\x8b\x08",),
    # A frame, or (pzstd, seekable files) one that is skipped.
    ".zst": (b"\x28\xb5\x2f\xfd", *(b"%c*M\x18" % first for first in range(0x50, 0x60))),
    ".bz2": tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)),
    ".xz": (b"\xfd7zXZ\0",),
}
"""How files of each compression begin. Not one of them is the beginning of a text in UTF-8, or
(bzip2) of one that anybody wrote."""

_ARROW = Content(
    "an Arrow file",
    "write it as parquet first (datasets: Dataset.from_file(...).to_parquet(...); pyarrow: "
    "ipc.open_file or open_stream, then parquet.write_table)",
)
_FIXED: tuple[tuple[tuple[bytes, ...], Content], ...] = (
    ((b"PK\3\4", b"PK\5\6"), Content("a zip archive (as .docx, .xlsx and .npz files are)",
                                     _UNPACK.format("unzip {file} -d FOLDER"))),
    ((b"7z\xbc\xaf\x27\x1c",), Content("a 7z archive", _UNPACK.format("7z x {file} -oFOLDER"))),
    ((b"Rar!\x1a\x07",), Content("a rar archive", _UNPACK.format("unrar x {file} FOLDER/"))),
    ((b"!<arch>\n",), Content("an ar archive", _LEAVE_OUT)),
    ((b"\x04\x22\x4d\x18",), Content("compressed with lz4", "decompress it: lz4 -d {file} NEW")),
    ((b"\xff\x06\0\0sNaPpY", b"LZIP\1", b"\x1f\x9d\x90"),
     Content("compressed in a way that is not read here", "decompress it first (file {file} tells "
             "how it was compressed)")),
    ((b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
     Content("an old Office document (.doc, .xls, .ppt)", "take its text out first: soffice "
             "--convert-to txt:Text {file}")),
    ((b"{\\rtf1",), Content("a document in RTF", "take its text out first: soffice --convert-to "
                           "txt:Text {file}", True)),
    ((b"%!PS-Adobe-",), Content("a PostScript document", "take its text out first: ps2ascii {file} "
                                "NEW.txt", True)),
    ((b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe",
      b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm\1\0\0\0"),
     Content("a program or library", _LEAVE_OUT)),
    ((b"%PDF-1.", b"%PDF-2."), Content("a PDF document", "take its text out first: pdftotext "
                                       "{file} NEW.txt", True)),
    ((b"SQLite format 3\0",), Content("an SQLite database", "write its texts as JSON Lines first: "
                                      "sqlite3 {file} 'SELECT json_object(...) FROM ...'")),
    ((b"\x89HDF\r\n\x1a\n",), Content("an HDF5 file", "write its texts as JSON Lines first")),
    ((b"\x93NUMPY",), Content("a NumPy array", _LEAVE_OUT)),
    ((b"ARROW1\0\0", b"FEA1"), _ARROW),
    ((b"Obj\1",), Content("an Avro file", "write it as parquet or JSON Lines first")),
    ((b"ORC\n\x03", b"ORC\x08", b"ORC\x0a\x06"),
     Content("an ORC file", "write it as parquet first")),
    ((b"GGUF",), Content("a model in GGUF", _LEAVE_OUT)),
    ((b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"), Content("a picture", _LEAVE_OUT)),
    ((b"version https://git-lfs.github.com/spec/",),
     Content("a pointer of Git LFS, and not the file that it points to", "fetch the file itself: "
             "git lfs pull, in the repository that it lies in", True)),
)  # fmt: skip
PARQUET = b"PAR1\x15"
"""The mark, and the first byte of a page's header or of the footer."""
_PARQUET = Content("a parquet file", "rename it to end in .parquet, or: --kind parquet='{file}'")
_TAR = Content("a tar archive", _UNPACK.format("mkdir FOLDER && tar -xf {file} -C FOLDER"), True)
_PICKLE = Content("a Python pickle", _LEAVE_OUT)
_SAFETENSORS = Content("a safetensors file", _LEAVE_OUT)
_BINARY = Content("binary data, with more control characters than any text has", "see what it is "
                  "(file {file}), and leave it out of the inputs", True)  # fmt: skip
_HTML = Content("an HTML page", "look at it (head {file}): it is perhaps the error message of a "
                "server, in the place of the file; then fetch the file again", True)  # fmt: skip
_ARRAY = Content("one JSON array, and not JSON Lines", "write an object a line: jq -c '.[]' "
                 "{file} > NEW.jsonl", True)  # fmt: skip
_DOCUMENT = Content("JSON of several lines an object, and not JSON Lines", "write an object a "
                    "line: jq -c . {file} > NEW.jsonl", True)  # fmt: skip
_TABLE = Content(
    "a table of values, by its name",
    "write it as parquet: python3 -c \"import pyarrow.csv as c, pyarrow.parquet as p; "
    "p.write_table(c.read_csv('{file}'{tabs}), 'NEW.parquet')\", and name its column with "
    "--text-key",
    True,
)  # fmt: skip
_BY_NAME = {
    ".csv": _TABLE,
    ".tsv": _TABLE,
    ".tar": _TAR,
    ".tgz": _TAR,
    ".html": Content("an HTML page, by its name", "take its text out first", True),
    ".htm": Content("an HTML page, by its name", "take its text out first", True),
    ".arrow": _ARROW,
    ".feather": _ARROW,
}


def recognize(head: bytes, is_whole: bool = False) -> Content | None:
    """What begins so, if that is no text in UTF-8, nor parquet; ``is_whole``: there is no more."""
    for suffix, marks in COMPRESSED.items():
        if head.startswith(marks):
            return _compressed(suffix)
    for marks, content in _FIXED:
        if head.startswith(marks):
            return content
    if head[:4] == b"\xff\xff\xff\xff" and head[7:8] == b"\0":  # a message's mark and its length
        return _ARROW
    if head[257:263] in (b"ustar\0", b"ustar "):
        return _TAR
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return _PICKLE
    if head[8:10] == b'{"' and head[5:8] == b"\0\0\0":
        return _SAFETENSORS
    wide = wide_encoding(head)
    if wide is not None:
        has_mark = not wide.endswith(("LE", "BE"))
        convert = f"convert it to UTF-8: iconv -f {wide} -t UTF-8 {{file}} > NEW"
        name = f"text in {wide}, and not in UTF-8"
        return Content(name, convert, could_be_text=not has_mark)
    return _BINARY if is_binary(head) else None


def contradiction(kind: str, head: bytes, is_whole: bool) -> Content | None:
    """What a file is that cannot be of ``kind``; None where nothing speaks against it."""
    if head.startswith(PARQUET) or (kind == "parquet" and head[:4] in (b"PAR1", b"PARE")):
        return None if kind == "parquet" else _PARQUET
    found = recognize(head, is_whole)
    if found is not None:
        # A damaged parquet file is for its reader to name: binary is what it ought to be.
        is_json = kind == "jsonl" and head.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] == b"{"
        is_meant = is_json or not KINDS[kind].is_text
        return None if found is _BINARY and is_meant else found
    if kind == "text":
        return None
    if (
        head.removeprefix(_BYTE_ORDER_MARK)
        .lstrip()[:15]
        .lower()
        .startswith((b"<!doctype", b"<html", b"<?xml"))
    ):
        return _HTML
    return _no_lines(head, is_whole) if kind == "jsonl" else None


def told_by_name(name: str) -> Content | None:
    """What a file is whose name is that of no kind that can be read, but a well-known one."""
    suffix = "." + name.lower().rpartition(".")[2]
    found = _BY_NAME.get(suffix)
    if found is _TABLE:
        tabs = ", parse_options=c.ParseOptions(delimiter='\\t')" if suffix == ".tsv" else ""
        return Content(found.name, found.fix.replace("{tabs}", tabs), True)
    return found


def is_lines(head: bytes, text_key: str) -> bool:
    """Are these JSON Lines, objects of which the first, if it is alone, has a text?"""
    lines = _lines(head, False)
    objects = [value for value in map(_loaded, lines[:2]) if isinstance(value, dict)]
    if len(lines) == 1 and not objects:  # longer than what was seen
        return lines[0].startswith(b'{"')
    return bool(objects) and (len(lines) > 1 or text_key.partition(".")[0] in objects[0])


def looks_like_lines(head: bytes) -> bool:
    """Is one of the first lines a JSON object, or meant to be one?"""
    lines = _lines(head, True)
    if lines and (lines[0][:1] == b"{") and lines[0][1:].lstrip().startswith(b'"'):
        return True
    return any(isinstance(_loaded(line), dict) for line in lines[:3])


def _no_lines(head: bytes, is_whole: bool) -> Content | None:
    """JSON that is not divided by lines."""
    lines = _lines(head, is_whole)
    if not lines:
        return None
    first = lines[0]
    is_broken = isinstance(_loaded(first), _Broken)
    if first.startswith(b"["):
        inner = head.removeprefix(_BYTE_ORDER_MARK).lstrip()[1:].lstrip()[:1]
        is_one = is_whole and len(lines) == 1 and isinstance(_loaded(first), list)
        # A list of anything else in a line of its own is a bad line, for whoever reads lines.
        is_array = inner in (b"{", b'"', b"[", b"]") if is_broken else is_one and inner == b"{"
        return _ARRAY if is_array else None
    is_opened = first == b"{" or (is_broken and first.startswith(b"{") and first.endswith(b","))
    if is_opened and len(lines) > 1 and lines[1].startswith((b'"', b"}")):
        return _DOCUMENT
    return None


class _Broken:
    """In the place of a value that is not JSON."""


def _loaded(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return _Broken()


def _lines(head: bytes, is_whole: bool) -> list[bytes]:
    """The lines that are not blank, stripped."""
    lines = head.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    return [line.strip() for line in lines if line.strip()]


def _compressed(suffix: str) -> Content:
    return Content(
        f"compressed ({suffix})",
        f"rename it to end in {suffix}, or say so: --kind KIND{suffix}=GLOB, for one "
        f"--kind text{suffix}='{{file}}'",
    )
