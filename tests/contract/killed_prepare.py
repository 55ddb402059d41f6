"""`killed_prepare.py FORMAT INPUT OUT BLOCKS`: prepare with a toy, killed after so many blocks."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.contract import toy_formats, toy_source
from tests.kit import sized
from tests.output.test_resume import SMALL, wait_for_notes
from tokenmill.output.writer import DatasetWriter

if __name__ == "__main__":
    layout, source, out, most = sys.argv[1:]
    toy_formats.register()
    toy_source.register()
    write, written = DatasetWriter.write, 0

    def killed(writer: Any, *arguments: Any) -> None:
        global written
        if written == int(most):
            os.kill(os.getpid(), signal.SIGKILL)
        write(writer, *arguments)
        wait_for_notes(writer)
        written += 1

    setattr(DatasetWriter, "write", killed)  # noqa: B010  mypy knows no such thing
    options = {"format": layout, "shard_tokens": "5K", "val_tokens": "7K"}
    sized.prepare(source, out=Path(out), sizes=SMALL, **options)
