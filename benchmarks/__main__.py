"""Runs ``asyncbackup bench`` on a cluster of one node, against ``dog`` where there is one, and keeps what it measured.

What it measured goes to benchmarks/results, with the machine, and the commit in its name. All options of
``asyncbackup bench`` go on to it; ``--compare`` without a file compares with the newest results that are kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from asyncbackup.bench.programs import is_on_path
from asyncbackup.cli.main import run

RESULTS = Path(__file__).with_name("results")


def name_results() -> Path:
    """Name a file after the time and the commit."""
    git = shutil.which("git")
    describe = [git or "git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    described = subprocess.run(describe, capture_output=True, text=True, check=False).stdout if git else ""
    commit = described.strip() or "no-commit"
    return RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}-{commit}.json"


def newest_results() -> Path:
    """Find the newest results that are kept; their names begin with the time."""
    kept = sorted(RESULTS.glob("*.json"))
    if not kept:
        sys.exit("there are no results to compare with yet: run ./dev bench first")
    return kept[-1]


def complete(arguments: list[str]) -> list[str]:
    """Add what was left out."""
    if not {"-h", "--help"}.isdisjoint(arguments):
        return arguments
    defaults = [] if "--local" in arguments else ["--local", "1"]
    if is_on_path("dog") and "--against" not in arguments:
        defaults += ["--against", "dog"]
    if arguments[-1:] == ["--compare"]:
        arguments = [*arguments, str(newest_results())]
    if "--json" not in arguments:
        RESULTS.mkdir(exist_ok=True)
        # As it would be typed: the command stands in the results.
        defaults += ["--json", os.path.relpath(name_results())]
    return [*defaults, *arguments]


if __name__ == "__main__":
    sys.exit(run(["bench", *complete(sys.argv[1:])]))
