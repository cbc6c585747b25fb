"""Measures backups over longer and longer ways: ``python -m benchmarks.latency``.

The defaults are compared with what pairs of ``--in-flight`` and ``--connections`` reach by hand, and with
``dog vdi backup``, over the same way. Each runs once a round, as a process of its own, in an order that rotates.
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
from benchmarks.servers import Server
from benchmarks.workloads import NEW, OLD, VDI, WORKLOADS

OURS, DOG = "defaults", "dog vdi backup"
PAIRS = ((2, 2), (4, 3), (4, 8), (8, 4), (8, 8), (16, 4), (16, 8), (16, 16), (32, 8), (32, 16), (64, 16), (64, 32))
"""Numbers for ``--in-flight`` and ``--connections``."""
_HEADER = ("", "wall s", "times the best pair's", "times the defaults'")


def main() -> None:
    """Print a table for each round trip."""
    arguments = _arguments()
    print(f"{servers.describe()}; Python {platform.python_version()}; {os.cpu_count()} cores", end="; ")
    print(f"{arguments.objects} objects of 4 MiB; median of {arguments.rounds} rounds (least-most)")
    for round_trip_ms in arguments.round_trips:
        with servers.serve(arguments.folder, round_trip_ms) as server:
            filling = [sys.executable, "-m", "benchmarks.fill", str(server.port), arguments.workload]
            measure.run([*filling, str(arguments.objects)])
            costs = measure.compare(_contestants(server), arguments.rounds)
        print(f"\n{WORKLOADS[arguments.workload].title}, {round_trip_ms:g} ms\n{_report(costs)}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument(
        "--round-trips", type=float, nargs="*", default=[0, 0.5, 2, 20], help="ms; 0 is without a proxy"
    )
    parser.add_argument("--workload", choices=WORKLOADS, default="sector")
    parser.add_argument("--objects", type=int, default=96, help="data objects of 4 MiB in the VDI (96)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=os.environ.get("BENCH_FOLDER"), help="for stores and backups")
    return parser.parse_args()


def _contestants(server: Server) -> dict[str, Callable[[], Cost]]:
    """Make what runs each of them once."""
    snapshots = ["-a", server.host, "-p", str(server.port), "-s", NEW, "-F", OLD, VDI]
    target = server.folder / "backup"
    ours = [sys.executable, "-m", "asyncbackup", "backup", "-q", *snapshots, str(target)]

    def run(command: list[str], output: Path | None = None) -> Cost:
        # Replacing a file takes longer than writing one.
        for written in (target, target.with_name("backup.manifest")):
            written.unlink(missing_ok=True)
        return measure.run(command, output)

    def run_pair(in_flight: int, connections: int) -> Callable[[], Cost]:
        return lambda: run([*ours, "--in-flight", str(in_flight), "--connections", str(connections)])

    contestants = {OURS: lambda: run(ours)}
    contestants |= {f"{pair[0]}/{pair[1]}": run_pair(*pair) for pair in PAIRS}
    if server.has_dog:
        contestants[DOG] = lambda: run(["dog", "vdi", "backup", *snapshots], target)
    return contestants


def _report(costs: dict[str, list[Cost]]) -> str:
    walls = {name: [cost.wall_s for cost in theirs] for name, theirs in costs.items()}
    best = min(walls.keys() - {OURS, DOG}, key=lambda name: median(walls[name]))
    rows = []
    for name, theirs in walls.items():
        against = [table.spread(table.ratios(theirs, walls[other])) if name != other else "" for other in (best, OURS)]
        rows.append((f"{name}, the best pair" if name == best else name, table.spread(theirs), *against))
    return table.draw(_HEADER, rows)


if __name__ == "__main__":
    main()
