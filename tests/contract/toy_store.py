"""A store that nobody asked for: members of a zip archive, `zip://FOLDER/ARCHIVE.zip[/MEMBER]`."""

from __future__ import annotations

from zipfile import BadZipFile, ZipFile, ZipInfo

from tokenmill.errors import InputError
from tokenmill.kinds.suffixes import unknown_kind
from tokenmill.stores.store import Found, InputFile, Selection, Store

FIX = "let nothing write to the archive, then run it again"


def opened(path: str) -> tuple[ZipFile, str]:
    """The archive that a path leads into, and the name of the member ("" for all)."""
    place, _, member = path.removeprefix("zip://").partition(".zip")
    try:
        return ZipFile(f"{place}.zip"), member.strip("/")
    except (OSError, BadZipFile) as error:
        raise InputError("cannot open the archive", path, str(error), "check the path") from error


class MemberReader:
    """A member's bytes by range; opened anew for each, so that any thread may read."""

    def __init__(self, file: InputFile) -> None:
        self.file = file

    def read(self, start: int, stop: int) -> bytes:
        archive, member = opened(self.file.path)
        with archive:
            check(self.file, archive, member)
            with archive.open(member) as content:
                content.seek(start)
                data = content.read(stop - start)
        if len(data) < stop - start:  # never pass on less than was asked for
            raise InputError("the archive ends early", self.file.path, None, FIX)
        return data


def check(file: InputFile, archive: ZipFile, member: str) -> None:
    """Raise InputError unless the member is the one that was listed."""
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise InputError("the input is gone", file.path, None, FIX) from None
    if (info.file_size, probe(info)) != (file.size, file.probe):
        raise InputError("the input was changed while it was read", file.path, None, FIX)


def probe(info: ZipInfo) -> str:
    """What stands for a member's content: with its size, its identity."""
    return f"crc32:{info.CRC:08x}"


class ZipStore(Store):
    def open(self, file: InputFile) -> MemberReader:
        return MemberReader(file)

    def check_unchanged(self, file: InputFile) -> None:
        archive, member = opened(file.path)
        with archive:
            check(file, archive, member)


def expand(argument: str, selection: Selection) -> Found:
    """The members that an argument stands for, sorted by name, byte by byte."""
    found, store = Found(), ZipStore()
    archive, wanted = opened(argument)
    with archive:
        path = argument.removesuffix(wanted).rstrip("/")
        infos = [info for info in archive.infolist() if not info.is_dir()]
        infos = [info for info in infos if wanted in ("", info.filename)]
        for info in sorted(infos, key=lambda info: info.filename.encode()):
            url = f"{path}/{info.filename}"
            kind = selection.kind_of(url)
            if kind is not None and selection.holds(url):  # there may be more than memory holds
                found.files.append(InputFile(url, *kind, info.file_size, 0, probe(info), store))
            elif kind is None and wanted:
                raise unknown_kind(url)
            else:
                found.ignored.append(url)
    selection.listing.check()
    if not infos:
        raise InputError("no such member", argument, None, "check the name")
    return found
