"""Datasets on the Hugging Face Hub: a repository, its configs and globs, one pinned commit.

The Hub's own client lists files, finds the token and names the commit; the bytes are read by range
from that commit (``tokenmill.stores.http``). Nothing is cached on disk, and nothing that a
repository holds is executed: of its files only the card's YAML is read beside the data.

``hf://datasets/ORG/NAME[@REVISION]/PATH`` stands for a file, a folder or the matches of a glob.
Without a path, and as plain ``ORG/NAME``, it stands for the ``train`` split of a config of the
dataset card, or, in a repository whose card has no configs, for its files of data.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote, unquote, urlsplit

from tokenmill.errors import InputError, TokenmillError, UsageError
from tokenmill.extras import install_extra
from tokenmill.kinds import KINDS
from tokenmill.kinds.suffixes import kind_of, unknown_kind
from tokenmill.stores.dataset_card import Config, configs_of
from tokenmill.stores.http import (
    Headers,
    HttpReader,
    Resource,
    changed,
    need_urllib3,
    printable,
    read_whole,
    retry_after,
)
from tokenmill.stores.retry import RetryPolicy, TransientError
from tokenmill.stores.store import Found, InputFile, Selection, Store
from tokenmill.units import format_files
from tokenmill.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")
SCHEME = "hf://datasets/"
_ID = r"[A-Za-z0-9][\w.-]*/[\w.-]*\w"
_SPECIAL = r"refs/(?:convert|pr)/[^/]+"
_ADDRESS = re.compile(rf"({_ID})(?:@({_SPECIAL}|[^/]+))?(?:/(.*))?", re.DOTALL)
_JSON = re.compile(r"(?i)\.json(\.\w+)?$")
_MAGIC = re.compile(r"[*?\[]")
_CARD_BYTES = 16 * 1024 * 1024
_PATHS_AT_ONCE = 500
_PASSING = {408, 429, 500, 502, 503, 504}
_HELD_OUT = ("validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation")
LOG_IN = (
    "run: hf auth login (or set HF_TOKEN) with a token that may read it, and accept the dataset's "
    "terms on its page if it has any; then run the same command again: it goes on"
)


@dataclass(frozen=True)
class Entry:
    """One file of a listing: ``probe`` is its SHA-256 where the Hub has it, else git's hash."""

    path: str
    size: int
    probe: str


def is_id(argument: str) -> bool:
    """Could that be ``ORG/NAME``, or ``ORG/NAME@REVISION``, and no path of a file of data?"""
    match = _ADDRESS.fullmatch(argument)
    return match is not None and match[3] is None and kind_of(argument) is None


def expand(argument: str, selection: Selection) -> Found:
    """The files of ``hf://datasets/...`` or ``ORG/NAME``. Raises TokenmillError."""
    is_plain = not argument.startswith("hf://")
    match = _ADDRESS.fullmatch(argument if is_plain else argument.removeprefix(SCHEME))
    if match is None or not (is_plain or argument.startswith(SCHEME)):
        raise UsageError(
            f"no dataset on the Hub: {argument}",
            fix="write it as ORG/NAME, or as hf://datasets/ORG/NAME[@REVISION]/PATH",
        )
    repository = _Repository(match[1], unquote(match[2] or "main"), is_plain, selection)
    repository.pin(selection.revisions)
    if match[3]:
        if selection.config:
            raise UsageError(
                "--config is for a dataset as a whole",
                argument,
                "a path in it says already which files are meant",
                f"leave one of them out: {match[1]} --config {selection.config}, or the path alone",
            )
        return repository.found(_files(repository, [match[3].rstrip("/")]), is_named=True)
    return _configured(repository, selection.config)


class _Repository:
    """A dataset's repository at one commit."""

    def __init__(self, name: str, revision: str, is_plain: bool, selection: Selection) -> None:
        self.name = name
        self.selection = selection
        self.store = HubStore(selection.policy)
        self.asked = f"{SCHEME}{name}@{revision}"
        self.notes: list[str] = []
        self._revision = revision
        self._is_plain = is_plain
        self.sha = ""

    def pin(self, revisions: Mapping[str, str]) -> None:
        """The commit that an earlier run took, else the one that the revision is now."""
        known = revisions.get(self.asked)
        if known is not None:
            self.sha = known
            return
        told = self.call(lambda api: api.dataset_info(self.name, revision=self._revision).sha)
        if told is None or not re.fullmatch(r"[0-9a-f]{40}", told):
            raise InputError(
                "the Hub does not tell the commit of the revision",
                self.asked,
                printable(repr(told)),
                "name a commit by its full hash: @SHA after the dataset's name",
            )
        self.sha = told

    def call(self, ask: Callable[[HfApi], Result]) -> Result:
        """What the Hub's client answers, asked again while that may help."""
        need_client()
        from huggingface_hub import HfApi

        api = HfApi(library_name="tokenmill", library_version=__version__)

        def once() -> Result:
            try:
                return ask(api)
            except TokenmillError:
                raise
            except Exception as error:  # noqa: BLE001  it is told apart there
                self._explain(error)

        return self.selection.policy.request(once, self.asked)

    def _explain(self, error: Exception) -> NoReturn:
        """Raise what an error of the Hub's client means."""
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if status is None:
            if type(error).__name__ == "OfflineModeIsEnabled":
                raise InputError(
                    "the Hub is not to be asked",
                    self.asked,
                    "HF_HUB_OFFLINE is set",
                    "unset it; or, if a file is meant, check its path",
                ) from error
            if _is_transport(error):
                why = f"the Hub cannot be reached: {_first_line(error)}"
                if self._is_plain:
                    why = f"nothing is called {self.name} here, and {why}"
                name = type(error).__name__
                is_unreachable = name in ("ConnectError", "ConnectTimeout", "ProxyError",
                                          "ConnectionError", "SSLError")  # fmt: skip
                raise TransientError(why, is_unreachable=is_unreachable) from error
            raise error
        if status in _PASSING:
            why = f"the Hub answers {status}{' (too many requests)' * (status == 429)}"
            raise TransientError(
                why, retry_after(_headers(response)), for_all=status == 429
            ) from error
        kind = type(error).__name__
        why = printable(f"the Hub answers {status}: {_first_line(error)}")
        if kind == "RevisionNotFoundError":
            what, fix = "the dataset has no such revision", "check the name after @"
        elif kind == "GatedRepoError":
            what = "the dataset is gated"
            fix = f"accept its terms at https://huggingface.co/datasets/{self.name}; {LOG_IN}"
        elif status in (401, 403, 404):
            what = "the Hub has no such dataset, or it is private"
            if self._is_plain:
                what = f"no such file or folder, and {what}"
            fix = f"check the name; if it is private, {LOG_IN}"
        else:
            what, fix = "the Hub does not answer as expected", "try it again later"
        raise InputError(what, self.asked, why, fix) from error

    def below(self, folder: str) -> list[Entry]:
        """All files below a folder ("" for the root). Raises TooManyFiles."""

        def ask(api: HfApi) -> list[Entry]:
            told = api.list_repo_tree(
                self.name, folder or None, recursive=True, revision=self.sha, repo_type="dataset"
            )
            files = (one for one in told if hasattr(one, "size"))
            return [_entry(one) for one in files if self.selection.holds(one.path)]

        entries = self._entries(ask)
        self.selection.listing.check()
        return entries

    def at(self, paths: list[str]) -> tuple[list[Entry], list[str]]:
        """Of some exact paths: the files, and those that are folders."""
        files: list[Entry] = []
        folders: list[str] = []
        for low in range(0, len(paths), _PATHS_AT_ONCE):
            some = paths[low : low + _PATHS_AT_ONCE]
            told = self.call(
                lambda api, some=some: api.get_paths_info(  # type: ignore[misc]
                    self.name, some, revision=self.sha, repo_type="dataset"
                )
            )
            files += [_entry(one) for one in told if hasattr(one, "size")]
            folders += [one.path for one in told if not hasattr(one, "size")]
        return files, folders

    def _entries(self, ask: Callable[[HfApi], list[Entry]]) -> list[Entry]:
        try:
            return self.call(ask)
        except InputError as error:
            if type(error.__cause__).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                return []
            raise

    def card(self) -> str | None:
        """README.md, or None."""
        files, _ = self.at(["README.md"])
        if not files:
            return None
        path = self.path_of(files[0].path)
        resource = self.store.resource(path, files[0].size, files[0].probe)
        return read_whole(resource, _CARD_BYTES, self.store.policy).decode(errors="replace")

    def path_of(self, path: str) -> str:
        """The address of a file at the pinned commit."""
        return f"{SCHEME}{self.name}@{self.sha}/{path}"

    def found(self, entries: Iterable[Entry], is_named: bool = False) -> Found:
        """The files of known kinds, and the others."""
        found = Found(notes=self.notes, revisions={self.asked: self.sha})
        entries = list(entries)
        for entry in entries:
            _check_name(entry.path, self)
            path = self.path_of(entry.path)
            known = self.selection.kind_of(path)
            if known is None:
                if is_named and len(entries) == 1:
                    raise unknown_kind(path)
                found.ignored.append(path)
                continue
            found.files.append(InputFile(path, *known, entry.size, 0, entry.probe, self.store))
        return found


def _configured(repository: _Repository, name: str | None) -> Found:
    """The train split of a config of the card, or of the files where the card has none."""
    card = repository.card()
    configs = configs_of(card or "", repository.asked)
    if not configs:
        if name:
            raise UsageError(
                f"the dataset has no configs, so none is called {name!r}",
                repository.asked,
                "its card names none",
                f"name files instead: hf://datasets/{repository.name}/GLOB",
            )
        return repository.found(_by_names(repository))
    config = _chosen(configs, name, repository)
    split, patterns = _split(config, repository)
    entries = _files(repository, patterns) if patterns else _by_names(repository, config.folder)
    repository.notes.append(
        f"{repository.name}: config {config.name}, split {split}, {format_files(len(entries))}, "
        f"commit {repository.sha[:12]}"
    )
    return repository.found(entries)


def _chosen(configs: list[Config], name: str | None, repository: _Repository) -> Config:
    named = {config.name: config for config in configs}
    default = next((config for config in configs if config.is_default), named.get("default"))
    config = named.get(name) if name else default or (configs[0] if len(configs) == 1 else None)
    if config is not None:
        return config
    shown = ", ".join(printable(config) for config in list(named)[:40])
    raise UsageError(
        f"the dataset has no config {name!r}" if name else "which config of the dataset?",
        repository.asked,
        f"it has {len(named)}: {shown}{', ...' if len(named) > 40 else ''}",
        "name one of them with --config",
    )


def _split(config: Config, repository: _Repository) -> tuple[str, list[str]]:
    """The split to train on: ``train``, or the only one. Its patterns, from the root."""
    splits = config.splits
    if not splits:
        return "train", []
    split = "train" if "train" in splits else next(iter(splits))
    if len(splits) > 1 and split != "train":
        raise UsageError(
            f"the config {config.name!r} has no split train",
            repository.asked,
            f"its splits are {', '.join(map(printable, splits))}",
            f"name files instead: hf://datasets/{repository.name}/GLOB",
        )
    others = [printable(other) for other in splits if other != split]
    if others:
        repository.notes.append(f"{repository.name}: not read: split {', '.join(others)}")
    folder = f"{config.folder}/" if config.folder else ""
    return split, [folder + pattern for pattern in splits[split]]


def _by_names(repository: _Repository, folder: str = "") -> list[Entry]:
    """A repository without patterns: its files of the kind that most of them are of, but not
    those whose names say that they are held out, where others say that they are for training."""
    entries = [entry for entry in _sorted(repository.below(folder)) if _is_shown(entry.path)]
    kinds = {entry.path: repository.selection.kind_of(entry.path) for entry in entries}
    data = [
        entry
        for entry in entries
        if kinds[entry.path] and not entry.path.lower().endswith(".md")
        and ("/" in entry.path or not re.match(r"(?i)(license|readme|notice)\b", entry.path))
    ]  # fmt: skip
    # Beside data, a .json tells of it; it is the data only where there is no other.
    data = [entry for entry in data if not _JSON.search(entry.path)] or data
    if not data:
        return entries
    counts = Counter(kind[0] for entry in data if (kind := kinds[entry.path]))
    most = max(reversed(KINDS), key=lambda kind: counts[kind])
    chosen = [entry for entry in data if (kind := kinds[entry.path]) and kind[0] == most]
    training = [entry for entry in chosen if _says(entry.path, ("train", "training"))]
    held_out = [entry for entry in chosen if _says(entry.path, _HELD_OUT)]
    rest = [entry for entry in chosen if entry not in held_out]
    taken = training or rest or chosen
    repository.notes.append(
        f"{repository.name}: no data files in the card; {len(taken)} {most} files, commit "
        f"{repository.sha[:12]}"
    )
    if len(taken) < len(data):
        repository.notes.append(
            f"{repository.name}: not read: {len(data) - len(taken)} files that are of another "
            "kind, or held out by their names"
        )
    return taken


def _says(path: str, words: tuple[str, ...]) -> bool:
    edge = "[-._ 0-9/]"
    return bool(re.search(rf"(?i)(?:^|{edge})(?:{'|'.join(words)})(?=$|{edge})", path))


def _files(repository: _Repository, patterns: list[str]) -> list[Entry]:
    """The files of exact paths, folders and globs: pattern by pattern, sorted within one."""
    patterns = [pattern.removeprefix("./").lstrip("/") for pattern in patterns]
    exact = [pattern for pattern in patterns if pattern and not _MAGIC.search(pattern)]
    files, folders = repository.at(exact) if exact else ([], [])
    known = {entry.path: [entry] for entry in files}
    listed = cache(repository.below)
    chosen: dict[str, Entry] = {}
    for pattern in patterns:
        if pattern in known:
            entries = known[pattern]
        elif pattern in folders or not pattern:
            entries = [e for e in _sorted(listed(pattern)) if _is_shown(e.path, pattern)]
        elif magic := _MAGIC.search(pattern):
            fixed = pattern[: magic.start()].rpartition("/")[0]
            matches = matcher(pattern)
            below = [entry for entry in listed(fixed) if matches(entry.path)]
            entries = [entry for entry in _sorted(below) if _is_shown(entry.path, pattern)]
        else:
            entries = []
        if not entries:
            raise InputError(
                "no file of the dataset matches",
                printable(repository.path_of(pattern)),
                None,
                f"look at https://huggingface.co/datasets/{repository.name}/tree/{repository.sha}",
            )
        for entry in entries:
            chosen.setdefault(entry.path, entry)
    return list(chosen.values())


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.path.encode(errors="surrogatepass"))


def _is_shown(path: str, pattern: str = "") -> bool:
    """Hidden files and folders, and Python's own, are no data unless a pattern names them."""
    named = {*pattern.split("/"), ".", ".."}  # the last two are no names at all: see _check_name
    return not any(part.startswith((".", "__")) and part not in named for part in path.split("/"))


def _check_name(path: str, repository: _Repository) -> None:
    """Raise InputError for a name that no file in a repository has."""
    parts = path.split("/")
    if path.isprintable() and not any(part in ("", ".", "..") for part in parts):
        return
    raise InputError(
        "the Hub lists a file whose name cannot be",
        repr(path),
        f"in {repository.asked}: it leads elsewhere, or holds control characters",
        "name the files you want: hf://datasets/ORG/NAME/GLOB",
    )


def matcher(pattern: str) -> Callable[[str], bool]:
    """Does a path match a glob? ``*`` and ``?`` stop at a slash, ``**`` is any folders."""
    parts = pattern.split("/")
    text = ""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            text += ".+" if is_last else "(?:[^/]+/)*"
        else:
            text += _part(part) + ("" if is_last else "/")
    compiled = re.compile(text, re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def _part(part: str) -> str:
    pieces = re.split(r"(\*+|\?|\[!?\]?[^\]/]*\])", part)
    text = ""
    for piece in pieces:
        if piece.startswith("*"):
            text += "[^/]*"
        elif piece == "?":
            text += "[^/]"
        elif piece.startswith("[") and piece.endswith("]") and len(piece) > 2:
            inner = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            inner = "^" + inner[1:] if inner.startswith("!") else inner.replace("^", "\\^")
            text += f"(?!/)[{inner}]"
        else:
            text += re.escape(piece)
    return text


def _entry(told: Any) -> Entry:
    lfs = getattr(told, "lfs", None)
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    probe = f"sha256:{sha256}" if sha256 else f"git:{told.blob_id}"
    return Entry(told.path, int(told.size), probe)


class HubStore(Store):
    """Files of datasets on the Hub, at the commit in their path: what is there cannot change.

    One run's: the token is looked up once for it, so that a later run in the same process has the
    one that the person has logged in with by then. The token crosses no border by pickling.
    """

    is_remote = True

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy: RetryPolicy = policy

    def __reduce__(self) -> tuple[type[HubStore], tuple[RetryPolicy]]:
        return HubStore, (self.policy,)

    @cached_property
    def _authorization(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        headers = build_hf_headers(library_name="tokenmill", library_version=__version__)
        return {name.title(): value for name, value in headers.items()}

    def open(self, file: InputFile) -> HttpReader:
        return HttpReader(self.resource(file.path, file.size, file.probe), self.policy)

    def resource(self, path: str, size: int, probe: str) -> Resource:
        """The file behind a path as ``InputFile`` has it."""
        need_client()
        from huggingface_hub import constants

        name, _, rest = path.removeprefix(SCHEME).partition("@")
        sha, _, inner = rest.partition("/")
        kind, _, digest = probe.partition(":")

        def check(hops: list[Headers]) -> None:
            first = hops[0]
            told = first.get("X-Linked-Etag") or first.get("ETag") or ""
            told = told.removeprefix("W/").strip('"')
            commit = first.get("X-Repo-Commit") or sha
            is_hash = re.fullmatch(r"[0-9a-f]{64}" if kind == "sha256" else r"[0-9a-f]{40}", told)
            if (is_hash and told != digest) or commit != sha:
                raise changed(path, f"the Hub has {told} of commit {commit}, it was {digest}")

        url = f"{constants.ENDPOINT}/datasets/{name}/resolve/{sha}/{quote(inner)}"
        return Resource(url, path, size, self._authorization, check, LOG_IN)

    def check_unchanged(self, file: InputFile) -> None:
        """A commit does not change, and each answer was held against the listing."""


def _headers(response: Any) -> dict[str, str]:
    """By names in the case in which they are asked for."""
    return {name: response.headers.get(name, "") for name in ("Retry-After", "Date", "RateLimit")}


def _is_transport(error: Exception) -> bool:
    """Is it the network's failure, whichever library the client speaks HTTP with?"""
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    is_ours = libraries & {"httpx", "httpx2", "httpcore", "requests", "urllib3"}
    is_address = type(error).__name__ in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError")
    return bool(is_ours or isinstance(error, ConnectionError | TimeoutError)) and not is_address


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def check_endpoint() -> None:
    """Raise UsageError where ``HF_ENDPOINT`` is no address: the Hub's client takes any text."""
    told = os.environ.get("HF_ENDPOINT", "")
    try:
        parts = urlsplit(told)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_address = False
    if told and not is_address:
        raise UsageError(
            f"HF_ENDPOINT is no address: {printable(told)}",
            why="it must begin with https:// or http:// and name a host",
            fix=f"export HF_ENDPOINT=https://{printable(told.rpartition('://')[2]) or 'HOST'}, or "
            "unset it",
        )


def need_client() -> None:
    """Raise UsageError where the Hub's client is missing, or is told to ask no address."""
    check_endpoint()
    need_urllib3()
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise UsageError(
            "datasets on the Hub need huggingface_hub",
            fix=f"{install_extra('hub')} (or, if a file is meant, check its path)",
        ) from None
