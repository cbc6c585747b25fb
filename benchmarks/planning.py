"""Makes a VDI with a few changed objects and times planning: ``python -m benchmarks.planning PORT VDI SIZE CHANGED``.

Prints the milliseconds from looking the snapshots up to the first pair to read: median (least-most).
"""

from __future__ import annotations

import sys
import time

import anyio

from asyncbackup import Cluster, Volume, connect
from asyncbackup.engine.source import open_snapshots
from asyncbackup.verbs.backup import plan_sides
from benchmarks import table
from benchmarks.servers import BIND
from benchmarks.workloads import NEW, OBJECT_SIZE, OLD, SECTOR

_ROUNDS = 9


async def measure_planning(port: int, vdi: str, size: int, changed: int) -> str:
    """Create ``vdi`` with snapshots ``old`` and ``new``, which differ in ``changed`` objects spread over it."""
    async with connect(BIND, port) as cluster:
        await cluster.create_vdi(vdi, size)
        await _change(cluster, vdi, changed, b"o")
        await cluster.create_snapshot(vdi, OLD)
        await _change(cluster, vdi, changed, b"n")
        await cluster.create_snapshot(vdi, NEW)
        times_ms = []
        for _ in range(_ROUNDS):
            started = time.monotonic()
            to, base = await cluster.find_vdi(vdi, NEW), await cluster.find_vdi(vdi, OLD)
            plan = plan_sides(*await open_snapshots(cluster, [to, base], to.object_count))
            next(iter(plan))
            times_ms.append((time.monotonic() - started) * 1000)
            assert len(plan) == changed
    return table.spread(times_ms, digits=0)


async def _change(cluster: Cluster, vdi: str, changed: int, byte: bytes) -> None:
    volume = await Volume.open(cluster, vdi)
    for idx in range(0, volume.inode.object_count, volume.inode.object_count // changed):
        await volume.write(idx * OBJECT_SIZE, byte * SECTOR)


if __name__ == "__main__":
    port, vdi, size, changed = sys.argv[1:]
    print(anyio.run(measure_planning, int(port), vdi, int(size), int(changed), backend_options={"use_uvloop": True}))
