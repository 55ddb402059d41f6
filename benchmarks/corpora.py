"""Grows the inputs of the benchmarks from the shared corpora, once, into a work folder.

Promises:

* the same request gives the same bytes: all growing is done by `tools/grow_corpus.py`, which is
  deterministic and keeps the number of distinct words growing with the size;
* a file under its final name is complete; one that exists with the size it was recorded with is
  used again;
* the harness that imports this stays small: pyarrow is loaded in child processes only.

    python benchmarks/corpora.py grow en txt 2GB --work WORK
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CORPORA = ("en", "code", "multi")
KINDS = ("txt", "jsonl", "parquet", "one-group.parquet")
ROWS_IN_ONE_GROUP = 1_000_000_000
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Place:
    """Where the base corpora and the tool that grows them lie, and where the results go."""

    shared: Path
    work: Path


@dataclass(frozen=True)
class Grown:
    """A grown input."""

    path: Path
    documents: int
    text_bytes: int
    """Bytes of text in it: the measure of speed, whatever the file's own size."""


def default_shared() -> Path:
    return Path(os.environ.get("TOKENMILL_SHARED", REPOSITORY.parent / "shared"))


def parse_size(text: str) -> int:
    """`500MB`, `15GB`, in powers of ten, as grow_corpus.py reads them."""
    match = re.fullmatch(r"([\d.]+)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"not a size: {text!r}; write 500MB or 15GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def size_name(size: int) -> str:
    """The shortest exact name of a size: 2GB, 500MB, 1234B."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def grow(place: Place, corpus: str, kind: str, size: int) -> Grown:
    """The input of that corpus, kind and size of text; grown unless it is there already."""
    path = place.work / f"{corpus}-{size_name(size)}.{kind}"
    record = path.with_name(path.name + ".grown.json")
    found = recorded(path, record)
    if found:
        return found
    place.work.mkdir(parents=True, exist_ok=True)
    # The tool tells the format by the suffix, so the mark of the unfinished file goes in front.
    partial = path.with_name("partial-" + path.name)
    command = [
        sys.executable,
        str(place.shared / "tools" / "grow_corpus.py"),
        str(place.shared / "corpus" / f"{corpus}.parquet"),
        str(partial),
        f"--size={size}",
    ]
    if kind == "one-group.parquet":
        command.append(f"--row-group={ROWS_IN_ONE_GROUP}")
    print(f"growing {path.name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        partial.unlink(missing_ok=True)
        raise SystemExit(f"error: could not grow {path.name}:\n{done.stderr[-3000:]}")
    told = re.search(r"(\d+) documents, (\d+) bytes of text", done.stderr)
    if not told:
        raise SystemExit(f"error: grow_corpus.py did not say what it wrote: {done.stderr!r}")
    grown = Grown(path, int(told[1]), int(told[2]))
    facts = asdict(grown) | {"path": path.name, "file_bytes": partial.stat().st_size}
    record.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    partial.rename(path)
    return grown


def recorded(path: Path, record: Path) -> Grown | None:
    """What the record says about the file, if both are there and agree on the size."""
    if not (path.exists() and record.exists()):
        return None
    facts = json.loads(record.read_text(encoding="utf-8"))
    if path.stat().st_size != facts["file_bytes"]:
        return None
    return Grown(path, facts["documents"], facts["text_bytes"])


def split(grown: Grown, parts: int) -> Path:
    """A folder with the documents of a jsonl or parquet input in `parts` files of like size.

    datatrove gives each file to one worker whole, so one file would keep all but one of them idle.
    """
    folder = grown.path.with_name(f"{grown.path.name}-in-{parts}")
    complete = folder.with_name(folder.name + ".complete")
    if complete.exists() and folder.exists():
        return folder
    command = [sys.executable, __file__, "split", str(grown.path), str(folder), str(parts)]
    subprocess.run(command, check=True)
    complete.touch()
    return folder


def split_jsonl(source: Path, folder: Path, parts: int) -> None:
    size = source.stat().st_size
    with source.open("rb") as lines:
        read = 0
        for part in range(parts):
            with (folder / f"part-{part:03d}.jsonl").open("wb") as out:
                while read < size * (part + 1) / parts:
                    read += out.write(lines.readline())


def split_parquet(source: Path, folder: Path, parts: int) -> None:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    groups = file.num_row_groups
    if groups < parts:
        raise SystemExit(f"error: {source.name} has {groups} row groups, too few for {parts} files")
    for part in range(parts):
        with pq.ParquetWriter(
            folder / f"part-{part:03d}.parquet", file.schema_arrow, compression="zstd"
        ) as out:
            for group in range(groups * part // parts, groups * (part + 1) // parts):
                out.write_table(file.read_row_group(group))


def add_place_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shared",
        type=Path,
        default=default_shared(),
        help="folder with corpus/ and tools/ (default: $TOKENMILL_SHARED, or ../shared)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for inputs and outputs, on the disk to measure; the inputs stay there for "
        "the next run (default: a temporary one, removed at the end)",
    )


@contextlib.contextmanager
def place_of(options: argparse.Namespace) -> Iterator[Place]:
    """The place that the options name; a work folder that they do not name goes at the end."""
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
        yield Place(options.shared, options.work)
        return
    with tempfile.TemporaryDirectory(prefix="tokenmill-bench-") as folder:
        yield Place(options.shared, Path(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    grower = commands.add_parser("grow", help="grow one input and print its path")
    grower.add_argument("corpus", choices=CORPORA)
    grower.add_argument("kind", choices=KINDS)
    grower.add_argument("size", type=parse_size)
    add_place_options(grower)
    splitter = commands.add_parser("split", help="divide a jsonl or parquet file into several")
    splitter.add_argument("source", type=Path)
    splitter.add_argument("folder", type=Path)
    splitter.add_argument("parts", type=int)
    options = parser.parse_args(arguments)
    if options.command == "grow":
        if options.work is None:
            grower.error("--work is needed: what is grown must stay somewhere")
        place = Place(options.shared, options.work)
        print(grow(place, options.corpus, options.kind, options.size).path)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    by_suffix = {".jsonl": split_jsonl, ".parquet": split_parquet}
    by_suffix[options.source.suffix](options.source, options.folder, options.parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
