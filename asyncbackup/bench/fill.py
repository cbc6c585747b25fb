"""Writes workloads into a cluster."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

import anyio

from asyncbackup.bench.workloads import SECTOR, Workload
from asyncbackup.client import ClientOptions, Cluster, Volume
from asyncbackup.wire.constants import DEFAULT_BLOCK_SIZE_SHIFT

EMPTY: Final = "empty"
OLD: Final = "old"
NEW: Final = "new"

FILLING: Final = ClientOptions(connections=8, request_timeout_s=120)
"""For the connection that fills: a server that writes all it gets may take its time for one answer."""

_LANES: Final = 8
"""Writers at a time, each with objects of its own."""
_PIECE: Final = 4 << 20
"""Bytes to write at a time."""
_SEED: Final = 0


async def fill(
    cluster: Cluster, vdi: str, workload: Workload, amount: int, on_written: Callable[[int], None] = lambda _: None
) -> None:
    """Create ``vdi`` as ``workload`` says, with as much data as ``amount`` objects of 4 MiB.

    ``on_written`` gets the bytes of each write.
    """
    shift = 0 if workload.object_shift == DEFAULT_BLOCK_SIZE_SHIFT else workload.object_shift
    await cluster.create_vdi(vdi, workload.vdi_size(amount), block_size_shift=shift)
    await cluster.create_snapshot(vdi, EMPTY)
    await write_objects(cluster, vdi, workload.existing(amount), workload.object_size, on_written=on_written)
    if workload.is_increment:
        await cluster.create_snapshot(vdi, OLD)
        changed = workload.changed(amount)
        await write_objects(cluster, vdi, changed, workload.changed_bytes, generation=1, on_written=on_written)
    await cluster.create_snapshot(vdi, NEW)


async def write_objects(
    cluster: Cluster,
    vdi: str,
    wanted: Iterable[int],
    length: int,
    *,
    generation: int = 0,
    on_written: Callable[[int], None] = lambda _: None,
) -> None:
    """Write ``length`` bytes into each object in ``wanted``; in another generation, other bytes."""
    # Objects are windows into it: different ones, and none has to be made up.
    pool = memoryview(random.Random(_SEED).randbytes(2 * _PIECE))  # noqa: S311 - content, no secret
    objects = list(wanted)

    async def write_some(objects: list[int]) -> None:
        volume = await Volume.open(cluster, vdi)
        size = volume.inode.object_size
        for idx in objects:
            place = idx * size + _place(idx, length, size)
            for offset in range(0, length, _PIECE):
                start = (idx * 7 + generation * 3 + offset // _PIECE) * SECTOR % _PIECE
                piece = pool[start : start + min(_PIECE, length - offset)]
                await volume.write(place + offset, piece)
                on_written(len(piece))

    async with anyio.create_task_group() as group:
        for lane in range(_LANES):
            group.start_soon(write_some, objects[lane::_LANES])


def _place(idx: int, length: int, object_size: int) -> int:
    """Give the offset of a change in its object: anywhere, where it leaves room for one."""
    return idx * 37 * SECTOR % (object_size - length) if length < object_size else 0
