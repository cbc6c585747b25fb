"""Finds processes by what they were started with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def processes_of(folder: Path) -> Iterator[int]:
    """Give the processes whose command line names ``folder``."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in command:
                yield int(entry.name)
