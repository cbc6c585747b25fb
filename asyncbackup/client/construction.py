"""A VDI under construction: plainly unfinished until all of it is there, and removed if it never will be.

The law of this module:

- The VDI carries the tag ``UNFINISHED_TAG`` from its creation to the end of ``publish``. Whatever ends this process in
  between, even without notice, leaves that to be seen by ``asyncbackup vdi list`` and ``dog vdi list``.
- Objects come first. The owner table is written when all are there, in few pieces: until then a fresh VDI reads as
  zeros, and a clone as its base.
- Only entries that change are written. A server of 1.0 resets the reference counts of all entries in the range of a
  write, and those of an inherited object would be lost (``gateway_write_obj`` in sheep/gateway.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from asyncbackup.client import policy
from asyncbackup.client.cluster import Cluster
from asyncbackup.client.fan_out import for_each
from asyncbackup.errors import (
    ErasureCodingUnknown,
    Incompatible,
    RequestFailed,
    SnapshotChanged,
    VdiExists,
    VdiNotFound,
)
from asyncbackup.wire import messages, oid
from asyncbackup.wire.constants import DEFAULT_BLOCK_SIZE_SHIFT, MAX_DENSE_OBJECTS, Result
from asyncbackup.wire.inode import TAG_OFFSET, Inode, Owners, entry_offset
from asyncbackup.wire.messages import Bytes, Request

UNFINISHED_TAG: Final = "unfinished restore"

_ENTRIES_TO_CLEAR: Final = 1024
"""Entries cleared in a request: a server of 1.0 answers only when it has counted down the references of each."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a new VDI is like. Sizes in bytes; zeros for copies and policy mean the cluster's defaults."""

    size: int
    object_size: int
    copies: int = 0
    copy_policy: int = 0

    def __post_init__(self) -> None:
        if -(-self.size // self.object_size) > MAX_DENSE_OBJECTS:
            raise Incompatible(
                f"a VDI of {self.size} bytes would need more than {MAX_DENSE_OBJECTS} objects of {self.object_size} "
                "bytes; only a hyper volume takes more, and those cannot be restored to"
            )


@dataclass(frozen=True, slots=True)
class Parent:
    """The snapshot that a new VDI is a clone of. Only the first ``keep`` entries of its ``owners`` are to stay."""

    inode: Inode
    owners: Owners
    keep: int | None = None


class NewVdi:
    """Made by ``create``."""

    def __init__(self, cluster: Cluster, inode: Inode, parent: Parent | None) -> None:
        self.inode = inode
        self._cluster = cluster
        self._parent = parent
        inherited = parent.owners if parent else np.zeros(0, np.uint32)
        self._inherited = np.zeros(max(inode.object_count, len(inherited)), np.uint32)
        self._inherited[: len(inherited)] = inherited
        self._owners = self._inherited.copy()
        if parent and parent.keep is not None:
            self._owners[parent.keep :] = 0

    @classmethod
    async def create(cls, cluster: Cluster, name: str, shape: Shape, parent: Parent | None = None) -> NewVdi:
        """Make VDI ``name``, fresh or as a clone of ``parent``. Raises VdiExists, and Incompatible.

        Cancelled: it may be made or not, so this should be shielded.
        """
        reply = await cluster.call(_request(cluster, name, shape, parent))
        if reply.result is Result.VDI_EXIST:
            raise VdiExists(name)
        if reply.result is not Result.SUCCESS:
            raise RequestFailed(f"creating VDI {name!r}", reply.result, reply.result.meaning)
        inode = await cluster.read_inode(cluster.vdi_id_of(reply))
        return cls(cluster, inode, parent)

    async def check_inherited(self) -> None:
        """Raise SnapshotChanged if a clone did not get the owners that its parent was read with: it was deleted."""
        if self._parent is None:
            return
        owners = await self._cluster.read_owners(self.inode.vdi_id, len(self._inherited))
        differing = int(np.count_nonzero(owners != self._inherited))
        if differing:
            raise SnapshotChanged(
                f"VDI {self._parent.inode.name!r} snapshot {self._parent.inode.snap_id}",
                f"its clone has {differing} other objects than it had when its table was read",
            )

    async def mark(self) -> None:
        """Tag the VDI as unfinished."""
        await self._tag(UNFINISHED_TAG)

    async def _tag(self, tag: str) -> None:
        await self._write_inode(TAG_OFFSET, messages.pack_name(tag))

    async def _write_inode(self, offset: int, data: Bytes) -> None:
        await self._cluster.write_object(
            oid.inode_oid(self.inode.vdi_id),
            data,
            offset,
            copies=self.inode.nr_copies,
            policy=self.inode.copy_policy,
        )

    async def create_object(self, idx: int, data: Bytes, offset: int) -> None:
        """Write the first bytes of an object; the others are the base's."""
        owner = int(self._owners[idx])
        self._owners[idx] = self.inode.vdi_id
        # Where nothing of the base is left, a server of 1.0 is spared a copy of the object in memory.
        is_partial = len(data) < self.inode.object_size
        await self._cluster.create_object(
            oid.data_oid(self.inode.vdi_id, idx),
            data,
            offset,
            copies=self.inode.nr_copies,
            policy=self.inode.copy_policy,
            cow_oid=oid.data_oid(owner, idx) if owner and is_partial else 0,
        )

    async def write_object(self, idx: int, data: Bytes, offset: int) -> None:
        """Write more bytes of an object that was created."""
        await self._cluster.write_object(
            oid.data_oid(self.inode.vdi_id, idx),
            data,
            offset,
            copies=self.inode.nr_copies,
            policy=self.inode.copy_policy,
        )

    async def publish(self) -> None:
        """Name the owner of all objects written, and take the mark off."""
        await for_each(self._runs(), self._write_run)
        await self._tag("")

    def _runs(self) -> Iterable[tuple[int, int]]:
        """Give the ranges of entries to write: in a clone the changed ones alone, and otherwise one."""
        changed = np.flatnonzero(self._owners != self._inherited)
        if not len(changed):
            return ()
        if not self._inherited.any():
            return ((int(changed[0]), int(changed[-1]) + 1),)
        ends = np.flatnonzero(np.diff(changed) != 1)
        starts = changed[np.concatenate(([0], ends + 1))]
        stops = changed[np.concatenate((ends, [len(changed) - 1]))] + 1
        return zip(starts.tolist(), stops.tolist(), strict=True)

    async def _write_run(self, run: tuple[int, int]) -> None:
        start, stop = run
        await self._write_inode(entry_offset(start), self._owners[start:stop].astype("<u4").tobytes())

    async def remove(self, cluster: Cluster) -> None:
        """Delete the VDI and all that was written for it, through ``cluster``, whose connections must be good.

        Raises RequestFailed if something stays, and ClusterError.
        """
        self._cluster = cluster
        owners = await cluster.read_owners(self.inode.vdi_id, len(self._owners))
        await for_each(self._entries_in_use(owners), self._clear_entries)
        await for_each(np.flatnonzero(self._owners == self.inode.vdi_id).tolist(), self._remove_object)
        # By name is the only way to delete; somebody else may have deleted it, or made another of this name, meanwhile.
        try:
            if (await cluster.find_vdi(self.inode.name)).vdi_id != self.inode.vdi_id:
                return
        except VdiNotFound:
            return
        request = messages.delete_vdi(self.inode.name, old=policy.deletes_as_of_old(cluster.internal_version))
        await cluster.expect_success(request, f"deleting VDI {self.inode.name!r}")

    def _entries_in_use(self, owners: Owners) -> Iterable[tuple[int, int]]:
        for start in range(0, len(owners), _ENTRIES_TO_CLEAR):
            used = np.flatnonzero(owners[start : start + _ENTRIES_TO_CLEAR])
            if len(used):
                yield start + int(used[0]), start + int(used[-1]) + 1

    async def _clear_entries(self, run: tuple[int, int]) -> None:
        start, stop = run
        await self._write_inode(entry_offset(start), bytes(4 * (stop - start)))

    async def _remove_object(self, idx: int) -> None:
        object_id = oid.data_oid(self.inode.vdi_id, idx)
        reply = await self._cluster.call(messages.remove_object(object_id))
        # Its creation may have failed, and the server removes what an entry that was cleared named.
        if reply.result not in (Result.SUCCESS, Result.NO_OBJ):
            raise RequestFailed(f"removing object {object_id:016x}", reply.result, reply.result.meaning)


def _request(cluster: Cluster, name: str, shape: Shape, parent: Parent | None) -> Request:
    shift = shape.object_size.bit_length() - 1
    if not policy.takes_object_sizes(cluster.internal_version):
        if shift != DEFAULT_BLOCK_SIZE_SHIFT:
            raise Incompatible(f"this cluster knows only objects of {1 << DEFAULT_BLOCK_SIZE_SHIFT} bytes")
        shift = 0
    if shape.copy_policy and not policy.takes_copy_policies(cluster.internal_version):
        raise ErasureCodingUnknown(shape.copy_policy)
    return messages.new_vdi(
        name,
        shape.size,
        base_vdi_id=parent.inode.vdi_id if parent else 0,
        copies=shape.copies,
        copy_policy=shape.copy_policy,
        block_size_shift=shift,
    )
