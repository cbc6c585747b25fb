"""Reads what a backup reads, and does nothing with it: ``python -m benchmarks.drain PORT``.

The floor under a backup that finds little changed: the same requests on as many connections, as many at a time, into
buffers of as many bytes.
"""

from __future__ import annotations

import argparse
from functools import partial

import anyio

from asyncbackup import ClientOptions, connect
from asyncbackup.cli.running import run_async
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.compare import COMPARED_SIZE
from asyncbackup.engine.source import open_snapshots
from asyncbackup.verbs.backup import plan_sides
from asyncbackup.wire.oid import data_oid
from benchmarks.servers import BIND
from benchmarks.workloads import NEW, OLD, VDI


async def drain(port: int, connections: int, in_flight: int) -> int:
    """Read both sides of each pair, ``in_flight`` pairs at a time; give the bytes."""
    async with connect(BIND, port, ClientOptions(connections=connections)) as cluster:
        new, old = await cluster.find_vdi(VDI, NEW), await cluster.find_vdi(VDI, OLD)
        plan = plan_sides(*await open_snapshots(cluster, [new, old], new.object_count))
        pairs = iter(plan)
        done = 0

        async def read_some() -> None:
            nonlocal done
            to, base = memoryview(bytearray(COMPARED_SIZE)), memoryview(bytearray(COMPARED_SIZE))
            for pair in pairs:
                for start in range(0, new.object_size, COMPARED_SIZE):
                    part = slice(min(COMPARED_SIZE, new.object_size - start))
                    sides = (pair.to_owner, to[part]), (pair.base_owners[0], base[part])
                    reads = [ObjectRead(data_oid(owner, pair.idx), into, start) for owner, into in sides]
                    await cluster.read_objects(reads)
                    done += sum(len(read.into) for read in reads)

        async with anyio.create_task_group() as group:
            for _ in range(in_flight):
                group.start_soon(read_some)
        return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=4)
    options = parser.parse_args()
    work = partial(drain, options.port, options.connections, options.in_flight)
    print(run_async(work))
