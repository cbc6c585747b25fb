"""Measures the way back: ``python -m benchmarks.restore``.

Restores of an increment on its base, ours against ``dog vdi restore``, on the same cluster of one node and of the same
file; and verify against xxhash alone over the same file, mapped.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import anyio

from asyncbackup.bench.cases import Run
from asyncbackup.bench.fill import NEW, OLD
from asyncbackup.bench.measure import run
from asyncbackup.bench.measuring import VDI
from asyncbackup.bench.programs import is_on_path
from asyncbackup.bench.serving import Serving
from benchmarks import contest
from benchmarks.contest import PROGRAM, Contestant

OURS, DOG, VERIFY, XXHASH = "restore", "dog vdi restore", "verify", "xxhash alone"
_HASH = (
    "import mmap, sys, xxhash; f = open(sys.argv[1]); xxhash.xxh3_128(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ))"
)
_RESTORED = "restored"


async def main(arguments: argparse.Namespace) -> None:
    """Restore and verify an increment, and print a table."""
    async with contest.serving(arguments) as served:
        file = served.folder / "increment"
        # In the format that dog restores.
        backup = ["backup", *contest.at(served), "-q", "--format", "dog", "-s", NEW, "-F", OLD, VDI, str(file)]
        await contest.prepare(*backup)
        await anyio.to_thread.run_sync(os.sync)
        runs = await contest.contest(_contestants(served, file), arguments.rounds)
        size = file.stat().st_size
    print(f"a file of {size / 1e9:.3f} GB")
    contest.tell(runs, size, {OURS: DOG, XXHASH: VERIFY})


def _contestants(served: Serving, file: Path) -> dict[str, Contestant]:
    """Make what runs each of them once, and takes away afterwards what it made."""
    place = contest.at(served)

    async def run_ours() -> Run:
        cost = await contest.cost([*PROGRAM, "restore", *place, "-q", "--base", OLD, "--to", _RESTORED, str(file)])
        await run(["dog", "vdi", "delete", *place, _RESTORED])
        return cost

    async def run_dog() -> Run:
        command = ["dog", "vdi", "restore", *place, "-s", OLD, VDI]
        cost = await contest.cost(["sh", "-c", 'exec "$@" <"$0"', str(file), *command])
        # What it restored is the newest snapshot now, without a tag.
        listed = (await run(["dog", "vdi", "list", "-r", *place, VDI])).decode()
        snapshots = [line.split() for line in listed.splitlines() if line[:1] == "s"]
        newest = max(snapshots, key=lambda fields: int(fields[2]))[2]
        await run(["dog", "vdi", "delete", *place, VDI, "-s", newest])
        return cost

    contestants: dict[str, Contestant] = {OURS: run_ours, DOG: run_dog} if is_on_path("dog") else {}
    return contestants | {
        VERIFY: partial(contest.cost, [*PROGRAM, "verify", "-q", str(file)]),
        XXHASH: partial(contest.cost, [sys.executable, "-c", _HASH, str(file)]),
    }


if __name__ == "__main__":
    anyio.run(main, contest.parser_of(__doc__, "rewritten", 256).parse_args())
