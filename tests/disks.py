"""Small disks for tests: 1 MiB objects, two snapshots that differ in every way an object can."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Final

from asyncbackup import Cluster, Volume
from asyncbackup.client.objects import READ_SIZE
from asyncbackup.sheep import Store
from asyncbackup.wire import messages
from asyncbackup.wire.constants import SECTOR_SIZE
from asyncbackup.wire.inode import ENTRY_SIZE, TABLE_OFFSET, Inode
from asyncbackup.wire.oid import data_oid, inode_oid
from asyncbackup.wire.vdi_ids import first_id

SHIFT = 20
OBJECT = 1 << SHIFT
OBJECTS = 8
LARGE = 24
"""Objects of a disk that is larger than several parts of an object in a store."""
PARTS = -(-OBJECT // READ_SIZE)
"""Requests it takes to read an object."""

CHANGED: Final = f"{data_oid(first_id('disk') + 1, 1):016x}"
"""The object that snapshot b of the disk has at index 1, where a has another: its oid, as faults take it."""


@lru_cache(maxsize=64)
def noise(seed: int, length: int) -> bytes:
    """Make bytes that are the same for the same ``seed``."""
    return random.Random(seed).randbytes(length)


async def make_disk(cluster: Cluster, name: str = "disk", shift: int = SHIFT) -> None:
    """Create ``name`` with snapshots a and b: objects shared, changed at either end, in the middle, whole, and new."""
    size = 1 << shift
    await cluster.create_vdi(name, OBJECTS * size, block_size_shift=shift)
    volume = await Volume.open(cluster, name)
    for idx in range(5):
        await volume.write(idx * size, noise(idx, size))
    await cluster.create_snapshot(name, "a")
    volume = await Volume.open(cluster, name)
    await volume.write(1 * size, noise(11, SECTOR_SIZE))
    await volume.write(2 * size + size // 2, noise(12, 3 * SECTOR_SIZE))
    await volume.write(3 * size, noise(13, size))
    await volume.write(4 * size, noise(4, size))  # the same as before, so owned anew but equal
    await volume.write(6 * size - SECTOR_SIZE, noise(15, 2 * SECTOR_SIZE))
    await cluster.create_snapshot(name, "b")


async def make_large_disk(cluster: Cluster) -> None:
    """Create ``disk`` with snapshot a: all its LARGE objects hold data."""
    await cluster.create_vdi("disk", LARGE * OBJECT, block_size_shift=SHIFT)
    volume = await Volume.open(cluster, "disk")
    for idx in range(LARGE):
        await volume.write(idx * OBJECT, noise(idx, OBJECT))
    await cluster.create_snapshot("disk", "a")


async def content_of(cluster: Cluster, name: str, snapshot: str | None) -> dict[int, bytes]:
    """Read what each owned object of a snapshot or, for None, the working VDI holds, by its index; the obvious way."""
    inode = await cluster.find_vdi(name, snapshot)
    owners = await cluster.read_owners(inode.vdi_id, inode.object_count)
    content = {}
    for idx, owner in enumerate(owners.tolist()):
        if owner:
            buffer = bytearray(inode.object_size)
            await cluster.read_object(owner << 32 | idx, memoryview(buffer))
            content[idx] = bytes(buffer)
    return content


async def delete_as_dog(cluster: Cluster, name: str) -> None:
    """Delete a working VDI in dog's way: clear the owner table, so that its objects go, and then the name."""
    inode = await cluster.find_vdi(name)
    table = bytes(ENTRY_SIZE * inode.object_count)
    await cluster.write_object(inode_oid(inode.vdi_id), table, TABLE_OFFSET, copies=inode.nr_copies)
    await cluster.expect_success(messages.delete_vdi(name), "deleting it")


def rewrite_inode(store: Store, inode: Inode) -> None:
    """Put ``inode`` in place of the header that the store holds for its VDI."""
    assert store.write(inode_oid(inode.vdi_id), 0, inode.pack())
