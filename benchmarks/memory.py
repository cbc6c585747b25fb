"""Measures memory, and the time to plan, for a VDI of 1 GiB and one of 4 TiB: ``python -m benchmarks.memory``.

Both have as many changed objects, in the large one far apart. Neither may depend on the size: the peak must stay below
80 MiB and ``--memory``, planning below 0.3 s.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import measure, servers, table
from benchmarks.servers import BIND
from benchmarks.workloads import NEW, OLD

CHANGED = 256
"""Objects: all of a VDI of 1 GiB, and more than a window holds."""

SIZES = {"1 GiB": 1 << 30, "4 TiB": 4 << 40}
_HEADER = ("VDI", "--memory MiB", "peak MiB", "of which not --memory", "wall s", "planning ms")


def main() -> None:
    """Make the two VDIs, and print a row for each and each amount of memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--memory", type=int, nargs="*", default=[64, 128, 256], help="MiB")
    parser.add_argument("--folder", type=Path, help="for the store and the backups")
    arguments = parser.parse_args()
    rows = []
    with servers.serve(arguments.folder) as server:
        planning = server.folder / "planning"
        for name, size in SIZES.items():
            vdi = name.replace(" ", "")
            port = str(server.port)
            measure.run([sys.executable, "-m", "benchmarks.planning", port, vdi, str(size), str(CHANGED)], planning)
            for memory in arguments.memory:
                # As many objects in flight as memory takes, so that all of it is used.
                command = [sys.executable, "-m", "asyncbackup", "backup", "-a", BIND, "-p", port, "-q"]
                command += ["--memory", f"{memory}M", "--in-flight", str(memory), "--force"]
                cost = measure.run([*command, "-s", NEW, "-F", OLD, vdi, str(server.folder / "backup")])
                peak = cost.peak_bytes / (1 << 20)
                row = (f"{peak:.0f}", f"{peak - memory:.0f}", f"{cost.wall_s:.2f}", planning.read_text().strip())
                rows.append((name, str(memory), *row))
    print(f"{servers.describe()}; {CHANGED} changed objects")
    print(table.draw(_HEADER, rows))


if __name__ == "__main__":
    main()
