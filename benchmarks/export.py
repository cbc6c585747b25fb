"""Measures exports against ``dog vdi read > image``, and merges, on a cluster of one node.

``python -m benchmarks.export``. There are a full backup and an increment, by default with a sector of every object. In
each round each contestant runs once, as a process of its own, in an order that rotates.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import measure, servers, table
from benchmarks.measure import Cost
from benchmarks.servers import BIND, Server
from benchmarks.workloads import NEW, OBJECT_SIZE, OLD, VDI, WORKLOADS

OURS, PIPED, MERGE, ROLL, DOG = "export", "export to a pipe", "merge", "export in place", "dog vdi read"
_HEADER = ("", "wall s", "GB/s", "CPU s", "peak MiB", "dog vdi read takes")


def main() -> None:
    """Run them all, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("workload", nargs="?", choices=list(WORKLOADS), default="sector", help="of the increment")
    parser.add_argument("--objects", type=int, default=512, help="data objects of 4 MiB in the VDI (512)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder",
        type=Path,
        default=os.environ.get("BENCH_FOLDER"),
        help="for the store, the backups and the images: six times the VDI's size",
    )
    arguments = parser.parse_args()
    print(f"{servers.describe()}; Python {platform.python_version()}; {os.cpu_count()} cores; ", end="")
    print(f"{arguments.objects} objects of 4 MiB; median of {arguments.rounds} rounds (least-most)")
    with servers.serve(arguments.folder) as server:
        fill = [sys.executable, "-m", "benchmarks.fill", str(server.port), arguments.workload, str(arguments.objects)]
        measure.run(fill)
        _back_up(server)
        costs = measure.compare(_contestants(server), arguments.rounds)
    print(_report(costs, arguments.objects))


def _back_up(server: Server) -> None:
    for file, options in (("full", ["-s", OLD]), ("increment", ["-s", NEW, "-F", OLD])):
        command = _asyncbackup("backup", "-a", BIND, "-p", str(server.port), *options, VDI, str(server.folder / file))
        measure.run(command)
    measure.run(_asyncbackup("export", str(server.folder / "full"), "--to", str(server.folder / "base")))


def _asyncbackup(verb: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "asyncbackup", verb, "-q", *arguments]


def _contestants(server: Server) -> dict[str, Callable[[], Cost]]:
    """Make what runs each of them once."""
    folder = server.folder
    full, increment, target, base = (str(folder / name) for name in ("full", "increment", "target", "base"))

    def run(command: list[str], output: Path | None = None) -> Cost:
        for name in (target, target + ".manifest", target + ".state"):
            Path(name).unlink(missing_ok=True)
        return measure.run(command, output)

    def roll() -> Cost:
        for beside in ("", ".state"):
            # With its time: a state speaks of an image of exactly that.
            shutil.copy2(base + beside, target + beside)
        return measure.run(_asyncbackup("export", increment, "--to", target, "--base-image", target))

    contestants = {
        OURS: lambda: run(_asyncbackup("export", full, increment, "--to", target)),
        PIPED: lambda: run(_asyncbackup("export", full, increment, "--to", "-"), Path(target)),
        ROLL: roll,
        MERGE: lambda: run(_asyncbackup("merge", full, increment, "--to", target)),
    }
    if server.has_dog:
        dog = ["dog", "vdi", "read", "-a", BIND, "-p", str(server.port), "-s", NEW, VDI]
        contestants[DOG] = lambda: run(dog, Path(target))
    return contestants


def _report(costs: dict[str, list[Cost]], objects: int) -> str:
    gigabytes = objects * OBJECT_SIZE / 1e9
    dog = [cost.wall_s for cost in costs.get(DOG, [])]
    rows = []
    for name, theirs in costs.items():
        walls = [cost.wall_s for cost in theirs]
        row = (
            name,
            table.spread(walls),
            f"{gigabytes / median(walls):.2f}",
            table.spread([cost.cpu_s for cost in theirs]),
            f"{max(cost.peak_bytes for cost in theirs) / (1 << 20):.0f}",
            f"{table.spread(table.ratios(dog, walls))} times as long" if dog and name != DOG else "",
        )
        rows.append(row)
    return table.draw(_HEADER, rows)


main()
