"""A cluster seen through one gateway node: operations on its VDIs and objects, typed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import numpy as np
from numpy.typing import NDArray

from asyncbackup.client import policy
from asyncbackup.client.gateway import Gateway
from asyncbackup.client.objects import ObjectRead, cut
from asyncbackup.client.policy import ClientOptions
from asyncbackup.errors import ProtocolViolation, RequestFailed, SnapshotNotFound, VdiNotFound, single_error
from asyncbackup.wire import btree, messages, oid
from asyncbackup.wire.constants import DEFAULT_PORT, Result
from asyncbackup.wire.inode import ENTRY_SIZE, TABLE_OFFSET, TAG_OFFSET, Inode, Owners, unpack_owners
from asyncbackup.wire.messages import Bytes, Request, VdiReply

Snapshot = int | str
"""Names a snapshot: its id, or its tag."""

_CONCURRENT_LOOKUPS: Final = 16
"""Inodes or B-tree nodes read at a time: enough to hide the latency, at most 64 MiB of nodes."""


@asynccontextmanager
async def connect(
    host: str = "localhost", port: int = DEFAULT_PORT, options: ClientOptions | None = None
) -> AsyncIterator[Cluster]:
    """Connect to the cluster through the sheep at ``host:port``; leaving the context closes all connections.

    Raises Unreachable if there is no sheep, within ``options.connect_timeout_s`` seconds.
    """
    cluster = Cluster(host, port, options or ClientOptions())
    try:
        await cluster.open()
        yield cluster
    finally:
        with anyio.CancelScope(shield=True):
            await cluster.close()


class Cluster(Gateway):
    """Typed operations on the VDIs and objects of a cluster, through one gateway. Made by ``connect``."""

    async def read_object(self, object_id: int, into: memoryview, offset: int = 0) -> None:
        """Do ``read_objects`` for one."""
        await self.read_objects([ObjectRead(object_id, into, offset)])

    async def read_objects(self, reads: Sequence[ObjectRead]) -> None:
        """Receive parts of objects in place, all of them at once. Cancelled: what is in the buffers is open.

        Raises ObjectReadFailed for a data object, RequestFailed for another.
        """
        parts = cut(reads, trims=policy.may_trim(self.internal_version))
        if parts:
            await self.call_all(parts)
        for part in parts:
            part.check()

    async def _read(self, object_id: int, offset: int, length: int) -> memoryview:
        buffer = memoryview(bytearray(length))
        await self.read_object(object_id, buffer, offset)
        return buffer

    async def write_object(self, object_id: int, data: Bytes, offset: int = 0, *, copies: int, policy: int = 0) -> None:
        """Overwrite part of an existing object."""
        request = messages.write_object(object_id, offset, data, copies=copies, copy_policy=policy)
        await self.expect_success(request, f"writing object {object_id:016x}")

    async def create_object(
        self, object_id: int, data: Bytes, offset: int = 0, *, copies: int, policy: int = 0, cow_oid: int = 0
    ) -> None:
        """Create an object: ``data`` at ``offset``, the rest from object ``cow_oid``, or zeros without one."""
        request = messages.create_object(object_id, offset, data, copies=copies, copy_policy=policy, cow_oid=cow_oid)
        await self.expect_success(request, f"creating object {object_id:016x}")

    async def find_vdi(self, name: str, snapshot: Snapshot | None = None) -> Inode:
        """Look up a snapshot, or without one named the working VDI, and read its inode's header.

        Raises VdiNotFound or SnapshotNotFound, which say what exists.
        """
        request = _look_up(name, snapshot)
        if request is None:
            raise await self._not_found(name, snapshot)
        reply = await self.call(request)
        if reply.result in (Result.NO_VDI, Result.NO_TAG):
            raise await self._not_found(name, snapshot)
        if reply.result is not Result.SUCCESS:
            raise RequestFailed(f"looking up VDI {name!r}", reply.result, reply.result.meaning)
        inode = await self.read_inode(VdiReply.unpack(reply.header.body).vdi_id)
        if snapshot is not None and not inode.is_snapshot:
            raise await self._not_found(name, snapshot)
        return inode

    async def has_vdi(self, name: str) -> bool:
        """Tell whether there is a working VDI ``name``."""
        reply = await self.call(messages.vdi_info(name))
        if reply.result not in (Result.SUCCESS, Result.NO_VDI):
            raise RequestFailed(f"looking up VDI {name!r}", reply.result, reply.result.meaning)
        return reply.result is Result.SUCCESS

    async def _not_found(self, name: str, snapshot: Snapshot | None) -> VdiNotFound | SnapshotNotFound:
        inodes = await self.list_vdis()
        namesakes = [inode for inode in inodes if inode.name == name]
        if snapshot is None or not namesakes:
            return VdiNotFound(name, sorted({inode.name for inode in inodes if not inode.is_snapshot}))
        existing = [
            f"{inode.snap_id} ({inode.tag})" if inode.tag else str(inode.snap_id)
            for inode in sorted(namesakes, key=lambda inode: inode.snap_id)
            if inode.is_snapshot
        ]
        return SnapshotNotFound(name, f"{snapshot!r}", existing)

    async def read_inode(self, vdi_id: int) -> Inode:
        """Read an inode's header. Raises InodeCorrupt if it is not that of a usable VDI ``vdi_id``."""
        inode = Inode.unpack(await self._read(oid.inode_oid(vdi_id), 0, Inode.HEADER_SIZE))
        inode.check(vdi_id)
        return inode

    async def list_vdis(self) -> list[Inode]:
        """Read the inode headers of all VDIs and snapshots that are not deleted, by ascending vdi id."""
        in_use = await self._read_bitmap(deleted=False)
        in_use &= ~await self._read_bitmap(deleted=True)
        vdi_ids = np.flatnonzero(np.unpackbits(in_use, bitorder="little")).tolist()
        inodes: dict[int, Inode] = {}
        limiter = anyio.Semaphore(_CONCURRENT_LOOKUPS)

        async def read_header(vdi_id: int) -> None:
            async with limiter:
                header = await self._read(oid.inode_oid(vdi_id), 0, Inode.HEADER_SIZE)
                inodes[vdi_id] = Inode.unpack(header)

        with single_error():
            async with anyio.create_task_group() as group:
                for vdi_id in vdi_ids:
                    group.start_soon(read_header, vdi_id)
        return [inodes[vdi_id] for vdi_id in vdi_ids if inodes[vdi_id].name]

    async def _read_bitmap(self, *, deleted: bool) -> NDArray[np.uint8]:
        request = messages.read_vdi_bitmap(deleted=deleted)
        reply = await self.call(request)
        if reply.result is not Result.SUCCESS:
            if deleted:  # Servers before 1.0 do not know this request: they blank the name of what was deleted.
                return np.zeros(request.capacity, dtype=np.uint8)
            raise RequestFailed("listing the VDIs", reply.result, reply.result.meaning)
        if len(reply.payload) != request.capacity:
            expected = f"{request.capacity} bytes of bitmap"
            raise ProtocolViolation(self.address, expected, f"{len(reply.payload)} bytes")
        return np.frombuffer(reply.payload, dtype=np.uint8).copy()

    async def read_owners(self, vdi_id: int, count: int) -> Owners:
        """Read the first ``count`` entries of an owner table."""
        return unpack_owners(await self._read(oid.inode_oid(vdi_id), TABLE_OFFSET, count * ENTRY_SIZE))

    async def read_btree(self, vdi_id: int) -> btree.Leaf:
        """Read a hyper volume's owners: ascending data object indices, and the owner of each.

        Raises InodeCorrupt if the tree is none. Each node object is read once.
        """
        inode = oid.inode_oid(vdi_id)
        root = btree.unpack_node_header(vdi_id, await self._read(inode, TABLE_OFFSET, btree.NODE_HEADER_SIZE))
        if root.count == 0:
            return np.empty(0, np.uint32), np.empty(0, np.uint32)
        entries = await self._read(inode, TABLE_OFFSET + btree.NODE_HEADER_SIZE, root.entries_size)
        if root.depth == btree.LEAF:
            return btree.unpack_leaf(vdi_id, entries)
        leaves = await self._read_leaves(vdi_id, btree.unpack_indirect(vdi_id, entries))
        return btree.join_leaves(vdi_id, leaves)

    async def _read_leaves(self, vdi_id: int, oids: list[int]) -> list[btree.Leaf]:
        leaves: dict[int, btree.Leaf] = {}
        limiter = anyio.Semaphore(_CONCURRENT_LOOKUPS)

        async def read_leaf(node_oid: int) -> None:
            async with limiter:
                leaves[node_oid] = btree.unpack_leaf_node(vdi_id, await self._read(node_oid, 0, btree.NODE_SIZE))

        with single_error():
            async with anyio.create_task_group() as group:
                for node_oid in dict.fromkeys(oids):
                    group.start_soon(read_leaf, node_oid)
        return [leaves[node_oid] for node_oid in oids]

    async def create_vdi(
        self, name: str, size: int, *, copies: int = 0, block_size_shift: int = 0, store_policy: int = 0
    ) -> int:
        """Create an empty VDI of ``size`` bytes and give its id. Zeros mean the cluster's defaults."""
        request = messages.new_vdi(
            name, size, copies=copies, block_size_shift=block_size_shift, store_policy=store_policy
        )
        reply = await self.expect_success(request, f"creating VDI {name!r}")
        return VdiReply.unpack(reply.header.body).vdi_id

    async def create_snapshot(self, name: str, tag: str) -> Inode:
        """Make the working VDI a snapshot tagged ``tag``; give the snapshot's inode."""
        working = await self.find_vdi(name)
        await self.write_object(
            oid.inode_oid(working.vdi_id), messages.pack_name(tag), TAG_OFFSET, copies=working.nr_copies
        )
        request = messages.new_vdi(
            name,
            working.vdi_size,
            base_vdi_id=working.vdi_id,
            snapshot=True,
            copies=working.nr_copies,
            copy_policy=working.copy_policy,
            store_policy=working.store_policy,
            block_size_shift=working.block_size_shift if policy.takes_object_sizes(self.internal_version) else 0,
        )
        await self.expect_success(request, f"taking snapshot {tag!r} of VDI {name!r}")
        return await self.read_inode(working.vdi_id)


def _look_up(name: str, snapshot: Snapshot | None) -> Request | None:
    """Build the request that looks a VDI up, or None if no VDI or snapshot can be named so.

    An empty tag or an id of 0 would mean the working VDI on the wire, so they must not go there.
    """
    if not name or snapshot in ("", 0):
        return None
    try:
        if isinstance(snapshot, int):
            return messages.vdi_info(name, snapid=snapshot)
        return messages.vdi_info(name, tag=snapshot or "")
    except ValueError:
        return None
