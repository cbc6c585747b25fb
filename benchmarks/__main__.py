"""Measures backups against a drain of the same bytes and against ``dog vdi backup``, on a cluster of one node.

In each round each of them runs once, as a process of its own, in an order that rotates: what disturbs the machine for
a while disturbs all of them. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import measure, servers, table
from benchmarks.measure import Cost
from benchmarks.servers import BIND, Server
from benchmarks.workloads import NEW, OBJECT_SIZE, OLD, VDI, WORKLOADS, Workload

OURS, DRAIN, DOG = "asyncbackup", "drain", "dog"
_HEADER = ("", "wall s", "GB/s", "CPU s per GB", "peak MiB", "asyncbackup is", "CPU per GB times its")


def main() -> None:
    """Run the workloads, and print a table each."""
    arguments = _arguments()
    print(f"{servers.describe()}; Python {platform.python_version()}; {os.cpu_count()} cores", end="; ")
    print(f"{arguments.objects} objects of 4 MiB; median of {arguments.rounds} rounds (least-most)")
    for name in arguments.workloads:
        shape = WORKLOADS[name]
        with servers.serve(arguments.folder) as server:
            measure.run([sys.executable, "-m", "benchmarks.fill", str(server.port), name, str(arguments.objects)])
            costs = measure.compare(_contestants(server), arguments.rounds)
        print(f"\n{shape.title}\n{_report(costs, shape, arguments.objects)}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), help=f"of {', '.join(WORKLOADS)}; all")
    parser.add_argument("--objects", type=int, default=1024, help="data objects of 4 MiB in the VDI (1024)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--folder",
        type=Path,
        default=os.environ.get("BENCH_FOLDER"),
        help="for the store and the backups: up to three times the VDI's size ($BENCH_FOLDER, or the system's)",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.workloads) - set(WORKLOADS):
        parser.error(f"no workload named {', '.join(unknown)}")
    return arguments


def _contestants(server: Server) -> dict[str, Callable[[], Cost]]:
    """Make what runs each of them once."""
    port = str(server.port)
    snapshots = ["-a", BIND, "-p", port, "-s", NEW, "-F", OLD, VDI]
    target = server.folder / "backup"
    ours = [sys.executable, "-m", "asyncbackup", "backup", "-q", *snapshots, str(target)]
    drain = [sys.executable, "-m", "benchmarks.drain", port]
    dog = ["dog", "vdi", "backup", *snapshots]

    def run(command: list[str], output: Path | None = None) -> Cost:
        # Replacing a file takes longer than writing one.
        for written in (target, target.with_name("backup.manifest")):
            written.unlink(missing_ok=True)
        return measure.run(command, output)

    contestants = {OURS: lambda: run(ours), DRAIN: lambda: run(drain)}
    if server.has_dog:
        contestants[DOG] = lambda: run(dog, target)
    return contestants


def _report(costs: dict[str, list[Cost]], shape: Workload, objects: int) -> str:
    # dog reads both sides of every object, however few have changed.
    gigabytes = {name: (objects if name == DOG else shape.objects(objects)) * 2 * OBJECT_SIZE / 1e9 for name in costs}
    cpu_per_gb = {name: [cost.cpu_s / gigabytes[name] for cost in theirs] for name, theirs in costs.items()}
    rows = []
    for name, theirs in costs.items():
        row = (
            name,
            table.spread([cost.wall_s for cost in theirs]),
            f"{gigabytes[name] / median(cost.wall_s for cost in theirs):.2f}",
            table.spread(cpu_per_gb[name]),
            f"{max(cost.peak_bytes for cost in theirs) / (1 << 20):.0f}",
            _verdict(name, costs[OURS], theirs),
            "" if name == OURS else table.spread(table.ratios(cpu_per_gb[OURS], cpu_per_gb[name])),
        )
        rows.append(row)
    return table.draw(_HEADER, rows)


def _verdict(name: str, ours: list[Cost], theirs: list[Cost]) -> str:
    our_walls, their_walls = [cost.wall_s for cost in ours], [cost.wall_s for cost in theirs]
    if name == DRAIN:
        return f"{table.spread(table.ratios(our_walls, their_walls))} times its wall"
    if name == DOG:
        return f"{table.spread(table.ratios(their_walls, our_walls))} times faster"
    return ""


main()
