"""A VDI under construction: plainly unfinished until all of it is there, and removed if it never will be.

The law of this module:

- The VDI carries the tag ``UNFINISHED_TAG`` from its creation to the end of ``publish``. Whatever ends this process in
  between, even without notice, leaves that to be seen by ``asyncbackup vdi list`` and ``dog vdi list``.
- The owner table names an object before the object is created, never after it. Deleting the VDI, with our ``remove`` or
  with dog, frees what the table names, so that a process that was killed leaves nothing that nobody could free. Until
  the end the table may name objects that are not there yet; a guest would find them missing.
- What the table was told cannot be taken back where the entry was inherited: with the entry went the reference to the
  object of the base. So only objects that will surely come are named ahead.
- Only entries that change are written, or those between them that are nobody's. A server of 1.0 resets the reference
  counts of all entries in the range of a write, and those of an inherited object would be lost: deleting the VDI would
  then remove the object of the base (``gateway_write_obj`` in sheep/gateway.c).
- ``remove`` clears the table last, so that it can be repeated from wherever it ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import anyio
import numpy as np
from numpy.typing import NDArray

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
"""Entries cleared in a request: a server of 1.0 counts down the references of each."""

_OBJECTS_AHEAD: Final = 256
"""Objects named ahead at a time: few requests for many objects, and little in vain where the restore fails early."""

_ENTRIES_BETWEEN: Final = 1024
"""Entries that are nobody's and are written together with those on both sides: 4 KiB cost less than a request."""


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

    def __init__(self, cluster: Cluster, inode: Inode, parent: Parent | None, expected: Owners | None) -> None:
        self.inode = inode
        self._cluster = cluster
        self._parent = parent
        inherited = parent.owners if parent else np.zeros(0, np.uint32)
        self._owners = np.zeros(max(inode.object_count, len(inherited)), np.uint32)
        """What the table says."""
        self._owners[: len(inherited)] = inherited
        self._beneath = self._owners.copy()
        """Who owns what lies beneath our objects, and is to stay where we have none."""
        if parent and parent.keep is not None:
            self._beneath[parent.keep :] = 0
        self._expected = np.zeros(0, np.uint32) if expected is None else expected
        self._awaited: set[int] = set()
        self._naming = anyio.Lock()
        self._created = np.zeros(len(self._owners), bool)

    @classmethod
    async def create(
        cls,
        cluster: Cluster,
        name: str,
        shape: Shape,
        parent: Parent | None = None,
        expected: Owners | None = None,
    ) -> NewVdi:
        """Make VDI ``name``, fresh or as a clone of ``parent``. Raises VdiExists, and Incompatible.

        ``expected``: the indices of all objects that will be created, ascending, u32 each; None where nobody knows.

        Cancelled: it may be made or not, so this should be shielded.
        """
        reply = await cluster.call(_request(cluster, name, shape, parent))
        if reply.result is Result.VDI_EXIST:
            raise VdiExists(name)
        if reply.result is not Result.SUCCESS:
            raise RequestFailed(f"creating VDI {name!r}", reply.result, reply.result.meaning)
        inode = await cluster.read_inode(cluster.vdi_id_of(reply))
        return cls(cluster, inode, parent, expected)

    async def check_inherited(self) -> None:
        """Raise SnapshotChanged if a clone did not get the owners that its parent was read with: it was deleted.

        To be called before the first object is created.
        """
        if self._parent is None:
            return
        owners = await self._cluster.read_owners(self.inode.vdi_id, len(self._owners))
        differing = int(np.count_nonzero(owners != self._owners))
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
        """Write the first bytes of an object; the others are the base's. The table names it before."""
        await self._name(idx)
        self._created[idx] = True
        beneath = int(self._beneath[idx])
        # Where nothing of the base is left, a server of 1.0 is spared a copy of the object in memory.
        is_partial = len(data) < self.inode.object_size
        await self._cluster.create_object(
            oid.data_oid(self.inode.vdi_id, idx),
            data,
            offset,
            copies=self.inode.nr_copies,
            policy=self.inode.copy_policy,
            cow_oid=oid.data_oid(beneath, idx) if beneath and is_partial else 0,
        )

    async def _name(self, idx: int) -> None:
        """Have the table name object ``idx``, along with those that are waited for too and those that come next."""
        if self._owners[idx] == self.inode.vdi_id:
            return
        self._awaited.add(idx)
        async with self._naming:
            if self._owners[idx] == self.inode.vdi_id:
                return
            awaited = np.array(sorted(self._awaited), np.uint32)
            self._awaited.clear()
            next_ = np.searchsorted(self._expected, awaited[0])
            indices = np.union1d(awaited, self._expected[next_ : next_ + _OBJECTS_AHEAD])
            await self._set_entries(indices[self._owners[indices] != self.inode.vdi_id], self.inode.vdi_id)

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
        """Take out of the table what the base has no more, and take the mark off.

        Raises Incompatible if an object was expected, and named, but not created.
        """
        ours = self._owners == self.inode.vdi_id
        if len(missing := np.flatnonzero(ours & ~self._created)):
            raise Incompatible(
                f"object {missing[0]} was to come, and did not: was a backup changed while it was read? Try again"
            )
        await self._set_entries(np.flatnonzero(~ours & (self._owners != self._beneath)), 0)
        await self._tag("")

    async def _set_entries(self, indices: NDArray[np.integer], owner: int) -> None:
        """Write ``owner`` into the entries at ``indices``, ascending."""

        async def write(run: NDArray[np.integer]) -> None:
            start, stop = int(run[0]), int(run[-1]) + 1
            # Those in between are nobody's.
            entries = np.zeros(stop - start, "<u4")
            entries[run - start] = owner
            await self._write_inode(entry_offset(start), entries.tobytes())

        if len(indices):
            await for_each(self._runs(indices), write)
            self._owners[indices] = owner

    def _runs(self, indices: NDArray[np.integer]) -> list[NDArray[np.integer]]:
        """Divide ``indices`` where entries lie between that somebody has, or many."""
        first = int(indices[0])
        owned = self._owners[first : int(indices[-1]) + 1] != 0
        owned[indices - first] = False
        owned_before = np.cumsum(owned)[indices - first]
        ends = (np.diff(owned_before) != 0) | (np.diff(indices) > _ENTRIES_BETWEEN)
        return np.split(indices, np.flatnonzero(ends) + 1)

    async def remove(self, cluster: Cluster) -> None:
        """Delete the VDI and all that was written for it, through ``cluster``, whose connections must be good.

        Raises RequestFailed if something stays, and ClusterError.
        """
        self._cluster = cluster
        table = await cluster.read_owners(self.inode.vdi_id, len(self._owners))
        # Somebody else who deleted the VDI meanwhile has cleared the table, and our last objects came behind him.
        ours = np.flatnonzero((table == self.inode.vdi_id) | self._created)
        await for_each(ours.tolist(), self._remove_object)
        await for_each(self._entries_in_use(table), self._clear_entries)
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
        # Its creation may have failed, or never have begun.
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
