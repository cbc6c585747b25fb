"""Writes a workload into an empty cluster: ``python -m benchmarks.fill PORT WORKLOAD OBJECTS``."""

from __future__ import annotations

import os
import random
import sys

import anyio

from asyncbackup import ClientOptions, Cluster, Volume, connect
from benchmarks.servers import BIND
from benchmarks.workloads import NEW, OBJECT_SIZE, OLD, SECTOR, VDI, WORKLOADS

_LANES = 8
"""Writers at a time, each with objects of its own."""

_POOL = memoryview(random.Random(0).randbytes(2 * OBJECT_SIZE))
"""Objects are windows into it: different ones, and none has to be made up."""


async def fill(port: int, workload: str, objects: int) -> None:
    """Create VDI ``bench`` of ``objects`` data objects, with its two snapshots."""
    shape = WORKLOADS[workload]
    async with connect(BIND, port, ClientOptions(connections=_LANES, request_timeout_s=120)) as cluster:
        await cluster.create_vdi(VDI, objects * OBJECT_SIZE)
        await write_objects(cluster, range(objects), OBJECT_SIZE, generation=0)
        await cluster.create_snapshot(VDI, OLD)
        await write_objects(cluster, range(0, objects, shape.every), shape.changed_bytes, generation=1)
        await cluster.create_snapshot(VDI, NEW)


async def write_objects(cluster: Cluster, wanted: range, length: int, *, generation: int) -> None:
    """Write ``length`` bytes into each object of VDI ``bench`` in ``wanted``; in another generation, other bytes."""

    async def write_some(objects: range) -> None:
        volume = await Volume.open(cluster, VDI)
        for idx in objects:
            start = (idx * 7 + generation * 3) * SECTOR % OBJECT_SIZE
            await volume.write(idx * OBJECT_SIZE + _place(idx, length), _POOL[start : start + length])

    async with anyio.create_task_group() as group:
        for lane in range(_LANES):
            group.start_soon(write_some, wanted[lane::_LANES])


def _place(idx: int, length: int) -> int:
    """Give the offset of a change in its object: anywhere, where it leaves room for one."""
    return idx * 37 * SECTOR % (OBJECT_SIZE - length) if length < OBJECT_SIZE else 0


if __name__ == "__main__":
    anyio.run(fill, int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), backend_options={"use_uvloop": True})
    os.sync()  # What the file system still has to write would disturb the first rounds.
