"""Object sources: what objects can be read from, whatever it is - a snapshot in a cluster, an image, nothing at all.

They know nothing of backups. A chain of backups as an object source is in ``engine/index``.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import permutations
from typing import Final, Protocol

import anyio
import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from asyncbackup.client import Cluster
from asyncbackup.engine.compact import MAX_LENGTH, ZEROS, is_zeros
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.errors import (
    BaseMismatch,
    ClusterError,
    InodeCorrupt,
    NotFound,
    ObjectReadFailed,
    RequestFailed,
    SnapshotChanged,
    SourceUnreadable,
    single_error,
)
from asyncbackup.storage import FileSource
from asyncbackup.wire.inode import Inode, Owners
from asyncbackup.wire.oid import data_oid

Indices = NDArray[np.uint32]
"""Indices of data objects, ascending."""

NO_INDICES: Final[Indices] = np.zeros(0, np.uint32)

_LOOKED_AT: Final = 256 << 10
"""Bytes of an image to look at at a time. Where they are zeros the next ones follow; else the object is known."""


class ObjectSource(Protocol):
    """Gives any range of any object. An object that it does not have is zeros."""

    @property
    def name(self) -> str:
        """What messages call it."""

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        """Fill ``into`` with what it has from byte ``offset`` of object ``idx``."""

    async def find_objects(self, on_progress: OnProgress | None = None) -> Indices:
        """Find the objects that it has. All others are zeros."""

    async def check_unchanged(self) -> None:
        """Raise if what was read so far need not be what it had when it was opened."""


class ZeroObjects:
    """Nothing: what a full backup is the difference to."""

    name = "an empty VDI"

    async def read(self, idx: int, offset: int, into: memoryview) -> None:  # noqa: ARG002 - it is the same everywhere
        into[:] = ZEROS[: len(into)]

    async def find_objects(self, on_progress: OnProgress | None = None) -> Indices:  # noqa: ARG002 - it takes no time
        return NO_INDICES

    async def check_unchanged(self) -> None:
        """Do nothing: it does not change."""


class SnapshotObjects:
    """A VDI or snapshot in a cluster. ``owners``: those of its data objects by idx, u32 each."""

    def __init__(self, cluster: Cluster, inode: Inode, owners: Owners) -> None:
        self.inode = inode
        self.owners = owners
        self.name = str(inode)
        self._cluster = cluster

    @classmethod
    async def open(cls, cluster: Cluster, inode: Inode, count: int | None = None) -> SnapshotObjects:
        """Read the owners of the first ``count`` objects, by default of all that the VDI's size spans."""
        owners = await cluster.read_owners(inode.vdi_id, inode.object_count if count is None else count)
        return cls(cluster, inode, owners)

    def first(self, count: int | None) -> SnapshotObjects:
        """Give it without all but its first ``count`` objects; None: all remain."""
        return SnapshotObjects(self._cluster, self.inode, self.owners[:count])

    def owner(self, idx: int) -> int:
        """Give the owner of a data object; 0: nobody."""
        return int(self.owners[idx]) if idx < len(self.owners) else 0

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        owner = self.owner(idx)
        if not owner:
            into[:] = bytes(len(into))
            return
        await self._cluster.read_object(data_oid(owner, idx), into, offset)

    async def find_objects(self, on_progress: OnProgress | None = None) -> Indices:  # noqa: ARG002 - it takes no time
        return np.flatnonzero(self.owners).astype(np.uint32)

    async def check_unchanged(self) -> None:
        """Raise SnapshotChanged if the snapshot is gone, or its owners are not those that were used.

        Clients empty the table of a snapshot that they delete from its beginning on, and its name goes last
        (``docs/protocol.md``): a table that was read meanwhile has only a part of the objects. Of a working VDI only
        the name is looked at: its table changes as it is written to.
        """
        # By its id, and not by its name: looking up a name takes all nodes of a cluster, and one of them may hang. Of a
        # working VDI a snapshot may have the id meanwhile, which harms nobody.
        found = await self._cluster.read_inode(self.inode.vdi_id)
        if not found.name or (self.inode.is_snapshot and await self._cluster.is_deleted(self.inode.vdi_id)):
            raise SnapshotChanged(self.name, "it is not there any more")
        if _told_apart_by(found) != _told_apart_by(self.inode):
            raise SnapshotChanged(self.name, "its name is gone, or another's now")
        if not self.inode.is_snapshot:
            return
        owners = await self._cluster.read_owners(self.inode.vdi_id, len(self.owners))
        gone = int(np.count_nonzero(owners != self.owners))
        if gone:
            raise SnapshotChanged(self.name, f"{gone} of its objects were given up since its table was read first")

    def refuse_emptied(self, newer: SnapshotObjects) -> None:
        """Raise SnapshotChanged if it is a snapshot that gave up objects which ``newer`` inherited of it.

        A deletion that was stopped leaves a snapshot under its name, with a part of its table for good: nothing changes
        while it is read. Whatever has an object with the snapshot's id has it of that table; and a VDI that was made of
        the snapshot took over the whole table. Entries get lost only where a snapshot is deleted. That another entry
        appears is no sign: a guest that did not notice the snapshot enters what it was just about to write.
        """
        if not self.inode.is_snapshot:
            return
        inherited = newer.owners == np.uint32(self.inode.vdi_id)
        if newer.inode.parent_vdi_id == self.inode.vdi_id:
            inherited = (newer.owners != 0) & (newer.owners != np.uint32(newer.inode.vdi_id))
        count = min(len(newer.owners), len(self.owners))
        gone = int(np.count_nonzero(inherited[:count] & (self.owners[:count] == 0)))
        if gone:
            raise SnapshotChanged(self.name, f"{gone} of its objects, which {newer.name} still has, were given up")


async def open_snapshots(cluster: Cluster, inodes: Sequence[Inode], count: int | None = None) -> list[SnapshotObjects]:
    """Read the owners of the first ``count`` objects of VDIs or snapshots, as ``SnapshotObjects.open`` does.

    Raises SnapshotChanged if one of them was emptied, as another one or the working VDI of its name shows.
    """
    opened: dict[int, SnapshotObjects] = {}

    async def open_one(inode: Inode) -> None:
        if inode.vdi_id not in opened:
            opened[inode.vdi_id] = await SnapshotObjects.open(cluster, inode, count)

    async def open_working(name: str) -> None:
        # That it is damaged takes nothing from its snapshots.
        with suppress(NotFound, InodeCorrupt, RequestFailed):
            if await cluster.has_vdi(name):
                inode = await cluster.find_vdi(name)
                if not inode.is_hyper:
                    await open_one(inode)

    async with anyio.create_task_group() as group:
        for inode in {inode.vdi_id: inode for inode in inodes}.values():
            group.start_soon(open_one, inode)
        for name in {inode.name for inode in inodes if inode.is_snapshot}:
            group.start_soon(open_working, name)
    for older, newer in permutations(opened.values(), 2):
        older.refuse_emptied(newer)
    return [opened[inode.vdi_id] for inode in inodes]


def _told_apart_by(inode: Inode) -> tuple[str, int, int]:
    return inode.name, inode.vdi_id, inode.create_time


class ImageObjects:
    """A raw image. What lies behind its end, and behind its first ``objects`` objects, is zeros."""

    def __init__(self, source: FileSource, object_size: int, objects: int | None = None) -> None:
        self.name = source.name
        self._source = source
        self._object_size = object_size
        self._objects = objects

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        count = 0
        if self._objects is None or idx < self._objects:
            count = await self._source.read_into(idx * self._object_size + offset, into)
        into[count:] = bytes(len(into) - count)

    async def find_objects(self, on_progress: OnProgress | None = None) -> Indices:
        """Find the objects that hold anything but zeros.

        Holes are skipped. What is no hole is read until something is found, so that most objects cost little.
        Raises SourceUnreadable.
        """
        found, through = array("I"), memoryview(bytearray(_LOOKED_AT))
        end, offset = self._source.size, 0
        if self._objects is not None:
            end = min(end, self._objects * self._object_size)
        while offset < end:
            if on_progress is not None:
                done, planned = offset // self._object_size, -(-end // self._object_size)
                on_progress(Progress(done, planned, offset, is_checking=True))
            idx, offset = await to_thread.run_sync(self._look, offset, end, through)
            if idx is not None:
                found.append(idx)
        return np.array(found, np.uint32)

    def _look(self, start: int, end: int, through: memoryview) -> tuple[int | None, int]:
        """Look at what comes from ``start`` on. Give the object that was found, if one was, and where to go on."""
        start, data_end = self._source.find_data(start)
        if start >= end:
            return None, end
        idx = start // self._object_size
        # A cancellation waits for this.
        end = min(end, data_end, (idx + 1) * self._object_size, start + MAX_LENGTH)
        while start < end:
            count = self._source.read_now(start, through[: end - start])
            if not count:
                raise SourceUnreadable(self.name, f"expected {end} bytes, got {start}: it was cut off meanwhile")
            if not is_zeros(through[:count]):
                return idx, (idx + 1) * self._object_size
            start += count
        return None, end

    async def check_unchanged(self) -> None:
        """Raise SourceUnreadable if somebody wrote to the image since it was opened."""
        if self._source.was_changed():
            raise SourceUnreadable(self.name, "somebody wrote to it while it was being read")


@asynccontextmanager
async def staying(*sources: ObjectSource | None) -> AsyncIterator[None]:
    """Check ``sources`` after what the block reads of them, and before anything of it becomes visible.

    The block may fail because one of them is being deleted. Then that is the error, in place of the block's.
    """
    read = [source for source in dict.fromkeys(sources) if source is not None]
    try:
        with single_error():
            yield
    except (ObjectReadFailed, BaseMismatch):
        for source in read:
            # That it cannot be found out is no news: the failure itself is.
            with suppress(ClusterError, RequestFailed, InodeCorrupt):
                await source.check_unchanged()
        raise
    for source in read:
        await source.check_unchanged()
