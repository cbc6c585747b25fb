"""Measures the way back: ``python -m benchmarks.restore``.

Restores of an increment on its base, ours against ``dog vdi restore``, on the same cluster of one node and of the same
file; and verify against xxhash alone over the same file, mapped. Each runs once a round, as a process of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import measure, servers, table
from benchmarks.measure import Cost
from benchmarks.servers import BIND, Server
from benchmarks.workloads import NEW, OLD, VDI, WORKLOADS

OURS, DOG, VERIFY, XXHASH = "restore", "dog vdi restore", "verify", "xxhash alone"
_HEADER = ("", "wall s", "GB/s", "CPU s", "peak MiB", "")
_PROGRAM = [sys.executable, "-m", "asyncbackup"]
_HASH = (
    "import mmap, sys, xxhash; f = open(sys.argv[1]); xxhash.xxh3_128(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ))"
)
_RESTORED = "restored"


def main() -> None:
    """Run the workloads, and print a table each."""
    arguments = _arguments()
    print(f"{servers.describe()}; Python {platform.python_version()}; {os.cpu_count()} cores", end="; ")
    print(f"{arguments.objects} objects of 4 MiB; median of {arguments.rounds} rounds (least-most)")
    for name in arguments.workloads:
        with servers.serve(arguments.folder) as server:
            file = _prepare(server, name, arguments.objects)
            costs = _measure(_contestants(server, file), arguments.rounds)
            size = file.stat().st_size
        print(f"\n{WORKLOADS[name].title}: a file of {size / 1e9:.3f} GB\n{_report(costs, size)}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__)
    parser.add_argument("workloads", nargs="*", default=["rewrite", "sector"], help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--objects", type=int, default=256, help="data objects of 4 MiB in the VDI (256)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder",
        type=Path,
        default=os.environ.get("BENCH_FOLDER"),
        help="for the store and the backup: up to five times the VDI's size ($BENCH_FOLDER, or the system's)",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.workloads) - set(WORKLOADS):
        parser.error(f"no workload named {', '.join(unknown)}")
    return arguments


def _prepare(server: Server, workload: str, objects: int) -> Path:
    """Fill the cluster, and give the increment from one snapshot to the other: in the dialect that dog restores."""
    port, file = str(server.port), server.folder / "increment"
    measure.run([sys.executable, "-m", "benchmarks.fill", port, workload, str(objects)])
    increment = ["-a", BIND, "-p", port, "-q", "--format", "dog", "-s", NEW, "-F", OLD, VDI, str(file)]
    measure.run([*_PROGRAM, "backup", *increment])
    os.sync()
    return file


def _contestants(server: Server, file: Path) -> dict[str, Callable[[], Cost]]:
    """Make what runs each of them once, and takes away afterwards what it made."""
    ours = [*_PROGRAM, "restore", "-a", BIND, "-p", str(server.port), "-q", "--base", OLD, "--to", _RESTORED, str(file)]

    def run_ours() -> Cost:
        cost = measure.run(ours)
        _dog(server, "vdi", "delete", _RESTORED)
        return cost

    def run_dog() -> Cost:
        command = ["dog", "vdi", "restore", "-a", BIND, "-p", str(server.port), "-s", OLD, VDI]
        cost = measure.run(["sh", "-c", 'exec "$@" <"$0"', str(file), *command])
        # What it restored is the newest snapshot now, without a tag.
        snapshots = [line.split() for line in _dog(server, "vdi", "list", "-r", VDI).splitlines() if line[:1] == "s"]
        _dog(server, "vdi", "delete", VDI, "-s", max(snapshots, key=lambda fields: int(fields[2]))[2])
        return cost

    contestants: dict[str, Callable[[], Cost]] = {}
    if server.has_dog:
        contestants |= {OURS: run_ours, DOG: run_dog}
    return contestants | {
        VERIFY: lambda: measure.run([*_PROGRAM, "verify", "-q", str(file)]),
        XXHASH: lambda: measure.run([sys.executable, "-c", _HASH, str(file)]),
    }


def _dog(server: Server, group: str, verb: str, *arguments: str) -> str:
    command = ["dog", group, verb, "-a", BIND, "-p", str(server.port), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _measure(contestants: dict[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    names = list(contestants)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for round_ in range(rounds + 1):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            os.sync()  # What one wrote is not for the next one to wait for.
            cost = contestants[name]()
            if round_:  # The first one warms caches.
                costs[name].append(cost)
    return costs


def _report(costs: dict[str, list[Cost]], size: int) -> str:
    rows = []
    for name, theirs in costs.items():
        walls = [cost.wall_s for cost in theirs]
        row = (
            name,
            table.spread(walls),
            f"{size / 1e9 / median(walls):.2f}",
            table.spread([cost.cpu_s for cost in theirs]),
            f"{max(cost.peak_bytes for cost in theirs) / (1 << 20):.0f}",
            _verdict(name, costs),
        )
        rows.append(row)
    return table.draw(_HEADER, rows)


def _verdict(name: str, costs: dict[str, list[Cost]]) -> str:
    other, words = {DOG: (OURS, "times the wall of restore"), VERIFY: (XXHASH, "times the wall of xxhash")}.get(
        name, ("", "")
    )
    if not other:
        return ""
    walls = [[cost.wall_s for cost in costs[each]] for each in (name, other)]
    return f"{table.spread(table.ratios(*walls))} {words}"


if __name__ == "__main__":
    main()
