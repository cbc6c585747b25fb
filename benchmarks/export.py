"""Measures exports against ``dog vdi read > image``, and merges: ``python -m benchmarks.export``.

There are a full backup and an increment, by default with a sector of every object.
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path

import anyio

from asyncbackup.bench.cases import Run
from asyncbackup.bench.fill import NEW, OLD
from asyncbackup.bench.measuring import VDI
from asyncbackup.bench.programs import is_on_path
from asyncbackup.bench.serving import Serving
from asyncbackup.bench.workloads import OBJECT_SIZE
from benchmarks import contest
from benchmarks.contest import PROGRAM, Contestant

OURS, PIPED, MERGE, ROLL, DOG = "export", "export to a pipe", "merge", "export in place", "dog vdi read"


async def main(arguments: argparse.Namespace) -> None:
    """Run them all, and print a table."""
    async with contest.serving(arguments) as served:
        place = contest.at(served)
        full, increment, base = (str(served.folder / name) for name in ("full", "increment", "base"))
        await contest.prepare("backup", "-q", *place, "-s", OLD, VDI, full)
        await contest.prepare("backup", "-q", *place, "-s", NEW, "-F", OLD, VDI, increment)
        await contest.prepare("export", "-q", full, "--to", base)
        runs = await contest.contest(_contestants(served, full, increment, base), arguments.rounds)
    contest.tell(runs, arguments.objects * OBJECT_SIZE, dict.fromkeys((OURS, PIPED, ROLL, MERGE), DOG))


def _contestants(served: Serving, full: str, increment: str, base: str) -> dict[str, Contestant]:
    """Make what runs each of them once."""
    target = str(served.folder / "target")

    async def run(*command: str, output: Path | None = None) -> Run:
        _clear(target)
        return await contest.cost(command, output)

    async def roll() -> Run:
        for beside in ("", ".state"):
            # With its time: a state speaks of an image of exactly that.
            shutil.copy2(base + beside, target + beside)
        return await contest.cost([*PROGRAM, "export", "-q", increment, "--to", target, "--base-image", target])

    contestants: dict[str, Contestant] = {
        OURS: partial(run, *PROGRAM, "export", "-q", full, increment, "--to", target),
        PIPED: partial(run, *PROGRAM, "export", "-q", full, increment, "--to", "-", output=Path(target)),
        ROLL: roll,
        MERGE: partial(run, *PROGRAM, "merge", "-q", full, increment, "--to", target),
    }
    if is_on_path("dog"):
        dog = ["dog", "vdi", "read", *contest.at(served), "-s", NEW, VDI]
        contestants[DOG] = partial(run, *dog, output=Path(target))
    return contestants


def _clear(target: str) -> None:
    for name in (target, target + ".manifest", target + ".state"):
        Path(name).unlink(missing_ok=True)


if __name__ == "__main__":
    anyio.run(main, contest.parser_of(__doc__, "sector", 512).parse_args())
