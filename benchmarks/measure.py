"""Runs a command and tells what it took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What one run of a process took."""

    wall_s: float
    cpu_s: float
    """User and system time."""
    peak_bytes: int
    """Resident at most."""


def run(command: Sequence[str], output: Path | None = None) -> Cost:
    """Run ``command``, its standard output into ``output``. Raises RuntimeError if it fails."""
    # An installed program has its byte code beside it, so one in a checkout may write it, whatever the shell says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with (output or Path(os.devnull)).open("wb") as stdout:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=stdout, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)
