"""What an output is: the place where one run at a time writes one dataset.

A run works in a local folder (``path``) in any case; a folder as output is that folder itself.
What is there (a finished dataset, an unfinished run, foreign files) is decided in
``output.resume`` over the questions below, which change nothing. What changes something is named
so, and done by the run.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenmill.dataset.files import DatasetFiles
from tokenmill.dataset.manifest import (
    MANIFEST,
    Manifest,
    ShardFile,
    is_from_tokenmill,
    read_manifest,
)
from tokenmill.errors import TokenmillError
from tokenmill.output.journal import Log, RunBegun
from tokenmill.output.uploads import Uploads


@dataclass(frozen=True)
class OtherRun:
    """An unfinished run of another dataset; ``run`` is what it was asked, where that is known."""

    holder: str
    run: RunBegun | None


@dataclass(frozen=True)
class Removal:
    """What is to go before a run begins anew: names of ``mine``, which are removed, and of
    ``changed``, which are not as they were written and are set aside.

    ``size`` is the bytes of ``mine``, ``seen`` what told that these files are those looked at.
    ``local`` is the same of the local folder, where the output is another place.
    """

    mine: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    size: int = 0
    seen: tuple[tuple[int, ...], ...] = ()
    local: Removal | None = None

    @property
    def freed(self) -> int:
        """Bytes that get free on the local disk."""
        return self.size if self.local is None else self.local.size

    @property
    def is_empty(self) -> bool:
        """Is nothing removed?"""
        return not self.mine and (self.local is None or self.local.is_empty)


Needs = Callable[[str], bool]
"""Does a run write a file of that name (without ``.partial``)?"""


class Output(Protocol):
    """One output, as one run sees it. All methods raise TokenmillError."""

    path: Path
    """The local folder that the run works in."""
    mending: str
    """The option that mends a damaged dataset there, and what it does."""

    @property
    def files(self) -> DatasetFiles:
        """What lies there, by name, to be read."""

    def hold(self, log: Callable[[str], None]) -> AbstractContextManager[None]:
        """Have the local folder for this run alone. Raises OutputInUse when another run has it."""

    def take_stock(self) -> None:
        """Changes: learn which files of the local folder are tokenmill's own."""

    def journal(self) -> Log | None:
        """What an unfinished run noted, if there is one."""

    def other_run(self, fingerprints: Collection[str]) -> OtherRun | None:
        """Who began there, perhaps on another machine, where that makes none of these datasets."""

    def lost(self, file: ShardFile, is_stored: bool) -> str | None:
        """Where a file that was whole (and ``is_stored``, says the journal, or not) is not, or
        not as it was, any more; None if it is."""

    def foreign(self, needs: Needs, removal: Removal | None = None) -> list[str]:
        """The names there that a run needs, of what tokenmill did not write; ``removal`` is known
        to go."""

    def removal(self, needs: Needs) -> Removal:
        """What is tokenmill's there, of a dataset or of an unfinished run, with these names."""

    def is_as_seen(self, removal: Removal) -> bool:
        """Is what is to be removed still what was looked at?"""

    def has_state(self) -> bool:
        """May there be something of a run's state, beside a finished dataset?"""

    def reserve(self, fingerprint: str) -> None:
        """Changes: from now on no other run writes there, on any machine; this one makes the
        dataset ``fingerprint``. Raises OutputInUse."""

    def recover(self) -> None:
        """Changes: bring to the local folder what a run on another machine left to go on with,
        where that is more."""

    def remove(self, removal: Removal) -> list[str]:
        """Changes: remove that; what was done, in words. Killed in the middle, it can be done
        again."""

    def remove_leftovers(self) -> None:
        """Changes: remove what a run left that is not worth going on with; of a finished dataset
        nothing."""

    def uploads(self, run: RunBegun) -> Uploads | None:
        """What stores whole shards while the run goes on; None where they stay in its folder."""

    def publish(self, manifest: Manifest) -> None:
        """Changes: all is encoded and whole: name it, the manifest last. Can be done again from
        the middle."""

    def finish(self) -> None:
        """Changes: the dataset is complete, so that nothing of the run's state is needed."""

    def leave(self, keeps: bool, is_wrong: bool = False) -> None:
        """Changes: after a failure let go, and of the state leave what is worth going on with, if
        it ``keeps`` that; after what ``is_wrong`` no other machine may go on either."""


def in_the_way(files: DatasetFiles, names: Collection[str]) -> TokenmillError:
    """The error where foreign things have names that the run needs."""
    return TokenmillError(
        f"the {files.noun} holds {files.things} that this run would replace",
        f"{files.where}: {', '.join(sorted(names)[:5])}",
        "tokenmill did not write them: they belong to no dataset of tokenmill's",
        "choose another --out, or move them away",
    )


def manifest_in(files: DatasetFiles) -> bytes | None:
    """What lies under the manifest's name, whole or damaged; None where nothing does.

    Raises TokenmillError where it is none that tokenmill wrote, DamageFound where nobody can read
    it.
    """
    try:
        content = files.read(MANIFEST)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EACCES):
            read_manifest(files)  # which says so
        if error.errno == errno.ENOENT and not os.path.lexists(files.place(MANIFEST)):
            return None
        raise in_the_way(files, [MANIFEST]) from error
    if not is_from_tokenmill(content):
        raise in_the_way(files, [MANIFEST])
    return content
