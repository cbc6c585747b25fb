"""Measures backups with several numbers of connections and of objects in flight: ``python -m benchmarks.sweep``."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from benchmarks import measure, servers, table
from benchmarks.measure import Cost
from benchmarks.servers import BIND
from benchmarks.workloads import NEW, OBJECT_SIZE, OLD, VDI, WORKLOADS

_HEADER = ("connections, in flight", "wall s", "times the first's", "GB/s", "CPU s per GB", "peak MiB")


def main() -> None:
    """Fill a cluster, and print a row for each combination."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--in-flight", type=int, nargs="*", default=[2, 4, 8, 16])
    parser.add_argument("--workload", choices=WORKLOADS, default="sector")
    parser.add_argument("--objects", type=int, default=256, help="data objects of 4 MiB in the VDI (256)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for the store and the backups")
    arguments = parser.parse_args()
    combinations = list(itertools.product(arguments.connections, arguments.in_flight))
    with servers.serve(arguments.folder) as server:
        filling = [sys.executable, "-m", "benchmarks.fill", str(server.port), arguments.workload]
        measure.run([*filling, str(arguments.objects)])
        target = server.folder / "backup"
        command = [sys.executable, "-m", "asyncbackup", "backup", "-a", BIND, "-p", str(server.port), "-q"]
        command += ["--force", "-s", NEW, "-F", OLD, VDI, str(target)]
        costs: dict[tuple[int, int], list[Cost]] = {combination: [] for combination in combinations}
        for round_ in range(arguments.rounds + 1):
            for connections, in_flight in combinations:
                options = ["--connections", str(connections), "--in-flight", str(in_flight)]
                cost = measure.run([*command, *options])
                if round_:  # The first one warms caches.
                    costs[connections, in_flight].append(cost)
    gigabytes = WORKLOADS[arguments.workload].objects(arguments.objects) * 2 * OBJECT_SIZE / 1e9
    first = [cost.wall_s for cost in costs[combinations[0]]]
    print(f"{servers.describe()}; {arguments.objects} objects; median of {arguments.rounds} rounds (least-most)")
    print(table.draw(_HEADER, [_row(key, value, first, gigabytes) for key, value in costs.items()]))


def _row(combination: tuple[int, int], costs: list[Cost], first: list[float], gigabytes: float) -> tuple[str, ...]:
    walls = [cost.wall_s for cost in costs]
    return (
        "{}, {}".format(*combination),
        table.spread(walls),
        table.spread(table.ratios(walls, first)),
        table.spread([gigabytes / wall for wall in walls]),
        table.spread([cost.cpu_s / gigabytes for cost in costs]),
        f"{max(cost.peak_bytes for cost in costs) / (1 << 20):.0f}",
    )


if __name__ == "__main__":
    main()
