"""Runs a command and tells what it took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
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
    # As the command line has it: what is compared with it should not pay for threads that nobody uses.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    with (output or Path(os.devnull)).open("wb") as stdout:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=stdout, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def compare(contestants: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Run each of them once a round, in an order that rotates; give what each took, round by round."""
    names = list(contestants)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for round_ in range(rounds + 1):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            cost = contestants[name]()
            if round_:  # The first one warms caches.
                costs[name].append(cost)
    return costs
