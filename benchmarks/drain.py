"""Reads what a backup reads, and does nothing with it: ``python -m benchmarks.drain PORT``.

The floor under a backup: the same requests on as many connections, as many at a time, into buffers of as many bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import anyio

from asyncbackup import BackupOptions, ClientOptions, connect
from asyncbackup.cli.running import run_async
from asyncbackup.engine.backup import make_plan
from benchmarks.servers import BIND
from benchmarks.workloads import NEW, OLD, VDI


async def drain(port: int, connections: int, in_flight: int) -> int:
    """Read both sides of each pair, ``in_flight`` pairs at a time; give the bytes."""
    async with connect(BIND, port, ClientOptions(connections=connections)) as cluster:
        new, old = await cluster.find_vdi(VDI, NEW), await cluster.find_vdi(VDI, OLD)
        plan = await make_plan(cluster, new, old)
        oids: Iterator[int] = (oid for pair in plan for oid in (pair.to_oid, pair.base_oid))
        done = 0

        async def read_some() -> None:
            nonlocal done
            buffer = memoryview(bytearray(new.object_size))
            for oid in oids:
                await cluster.read_object(oid, buffer)
                done += len(buffer)

        async with anyio.create_task_group() as group:
            for _ in range(2 * in_flight):
                group.start_soon(read_some)
        return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=ClientOptions().connections)
    parser.add_argument("--in-flight", type=int, default=BackupOptions().in_flight)
    options = parser.parse_args()
    work = partial(drain, options.port, options.connections, options.in_flight)
    print(run_async(work))
