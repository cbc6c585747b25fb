"""A working VDI as a guest sees it: bytes at offsets, written with copy-on-write."""

from __future__ import annotations

import numpy as np

from asyncbackup.client.cluster import Cluster
from asyncbackup.wire import oid
from asyncbackup.wire.inode import ENTRY_SIZE, Inode, entry_offset
from asyncbackup.wire.messages import Bytes


class Volume:
    """Writes to a working VDI. Only one writer may use the VDI at a time. After a snapshot was taken, open it again."""

    def __init__(self, cluster: Cluster, inode: Inode, owners: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> None:
        self.inode = inode
        self._cluster = cluster
        self._owners = owners

    @classmethod
    async def open(cls, cluster: Cluster, name: str) -> Volume:
        """Open the working VDI ``name``, which must have an owner table (no hyper volume)."""
        inode = await cluster.find_vdi(name)
        owners = await cluster.read_owners(inode.vdi_id, inode.object_count)
        return cls(cluster, inode, owners.copy())

    async def write(self, offset: int, data: Bytes) -> None:
        """Write ``data`` at byte ``offset``. After a cancellation any part of it may be written."""
        view = memoryview(data)
        size = self.inode.object_size
        while view:
            idx, within = divmod(offset, size)
            piece = view[: size - within]
            await self._write_object(idx, within, piece)
            offset += len(piece)
            view = view[len(piece) :]

    async def _write_object(self, idx: int, within: int, data: memoryview) -> None:
        inode = self.inode
        owner = int(self._owners[idx])
        target = oid.data_oid(inode.vdi_id, idx)
        redundancy = {"copies": inode.nr_copies, "policy": inode.copy_policy}
        if owner == inode.vdi_id:
            await self._cluster.write_object(target, data, within, **redundancy)
            return
        cow_oid = oid.data_oid(owner, idx) if owner else 0
        await self._cluster.create_object(target, data, within, cow_oid=cow_oid, **redundancy)
        entry = inode.vdi_id.to_bytes(ENTRY_SIZE, "little")
        await self._cluster.write_object(oid.inode_oid(inode.vdi_id), entry, entry_offset(idx), **redundancy)
        self._owners[idx] = inode.vdi_id
