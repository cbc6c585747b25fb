"""Requests about single objects: read, write, create, copy on write, remove, discard, exist."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncbackup.sheep.store import Store
from asyncbackup.sheep.volumes import Refused, Volumes, is_table_update, owners_of
from asyncbackup.wire.constants import SECTOR_SIZE, Flag, Result
from asyncbackup.wire.inode import TABLE_OFFSET, Inode
from asyncbackup.wire.messages import ObjectBody
from asyncbackup.wire.oid import index_of, inode_oid, is_data, vdi_of


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of an answer, and where in the asked range they belong: what lies around them are zeros."""

    data: memoryview
    offset: int = 0

    def trimmed(self) -> Extent:
        """Leave the zero sectors at both ends out."""
        whole = len(self.data) // SECTOR_SIZE * SECTOR_SIZE
        start = _leading_zero_sectors(self.data[:whole]) * SECTOR_SIZE
        rest = self.data[start:]
        whole = len(rest) // SECTOR_SIZE * SECTOR_SIZE
        end = len(rest) - _trailing_zero_sectors(rest[len(rest) - whole :]) * SECTOR_SIZE
        return Extent(rest[:end], self.offset + start)


class Objects:
    """Serves one node's object requests. Every method raises Refused with NO_OBJ if the object is missing.

    ``store`` holds the objects of the cluster, ``own`` those among them that the node has itself.
    """

    def __init__(self, store: Store, volumes: Volumes, own: Store) -> None:
        self._store = store
        self._volumes = volumes
        self._own = own
        self.forwarded_reads = 0
        """Reads of objects that the node had to get from another one."""

    def has_room(self, body: ObjectBody, length: int) -> bool:
        """Tell whether ``length`` bytes at the request's offset lie within the object."""
        return body.offset + length <= self._volumes.object_size(body.oid)

    def has_replica(self, oid: int) -> bool:
        """Tell whether the node has the object itself."""
        return self._own.get(oid) is not None

    def read(self, body: ObjectBody, length: int) -> Extent:
        """View ``length`` bytes of an object, without copying; beyond its end there are zeros."""
        if not self.has_replica(body.oid):
            self.forwarded_reads += 1
        return _cut(self._view(body.oid), body.offset, length)

    def read_replica(self, body: ObjectBody, length: int) -> Extent:
        """View ``length`` bytes of the node's own replica."""
        view = self._own.get(body.oid)
        if view is None:
            raise Refused(Result.NO_OBJ)
        return _cut(view, body.offset, length)

    def write(self, body: ObjectBody, payload: memoryview) -> None:
        """Change part of an object. Raises Refused with READONLY for a snapshot's data object."""
        self._check_writable(body.oid)
        view = self._view(body.oid)
        if is_table_update(body.oid, body.offset, len(payload)) and not Inode.unpack(view).is_hyper:
            self._write_owners(body.oid, view, body.offset, payload)
        else:
            self._store.write(body.oid, body.offset, payload)

    def _write_owners(self, oid: int, inode: memoryview, offset: int, payload: memoryview) -> None:
        """Change owners in inode object ``oid``, then remove the objects that were referred to from here alone."""
        first = (offset - TABLE_OFFSET) // 4
        last = -(-(offset - TABLE_OFFSET + len(payload)) // 4)
        before = owners_of(inode)[first:last].copy()
        self._store.write(oid, offset, payload)
        after = owners_of(inode)[first:last]
        before[before == after] = 0
        self._volumes.reclaim(first, before)

    def create(self, body: ObjectBody, flags: int, payload: memoryview) -> None:
        """Create an object with ``payload`` at the offset, or replace it.

        With flag COW the rest comes from ``cow_oid``. Raises Refused with READONLY for a snapshot's data object.
        """
        self._check_writable(body.oid)
        size = self._volumes.object_size(body.oid)
        pieces = [(body.offset, payload)]
        if flags & Flag.COW and len(payload) < size:
            pieces.insert(0, (0, self._view(body.cow_oid)[:size]))
        self._store.put(body.oid, size, pieces)

    def remove(self, oid: int) -> None:
        if not self._store.remove(oid):
            raise Refused(Result.NO_OBJ)

    def discard(self, oid: int) -> None:
        """Remove a data object from its VDI: the owner table's entry first, then the object."""
        inode = inode_oid(vdi_of(oid))
        view = self._view(inode)
        owners = owners_of(view)
        idx = index_of(oid)
        if idx < len(owners) and owners[idx]:
            self._write_owners(inode, view, TABLE_OFFSET + 4 * idx, memoryview(bytes(4)))
            self._store.remove(oid)

    def _view(self, oid: int) -> memoryview:
        view = self._own.get(oid)
        if view is None:
            view = self._store.get(oid)
        if view is None:
            raise Refused(Result.NO_OBJ)
        return view

    def _check_writable(self, oid: int) -> None:
        if is_data(oid) and self._volumes.state(vdi_of(oid)).is_snapshot:
            raise Refused(Result.READONLY)


def _cut(view: memoryview, offset: int, length: int) -> Extent:
    """View ``length`` bytes of an object from ``offset`` on; beyond its end there are zeros."""
    data = view[offset : offset + length]
    if len(data) == length:
        return Extent(data)
    padded = memoryview(mmap.mmap(-1, length))
    padded[: len(data)] = data
    return Extent(padded)


def _leading_zero_sectors(data: memoryview) -> int:
    """Count zero sectors from the start on; ``data`` is whole sectors."""
    used = _used_sectors(data)
    return int((used != 0).argmax()) if used.any() else len(used)


def _trailing_zero_sectors(data: memoryview) -> int:
    """Count zero sectors from the end on; ``data`` is whole sectors."""
    used = _used_sectors(data)[::-1]
    return int((used != 0).argmax()) if used.any() else len(used)


def _used_sectors(data: memoryview) -> NDArray[np.uint64]:
    """Give a number for each sector that is 0 if the sector is all zeros."""
    sectors = np.frombuffer(data, dtype=np.uint64).reshape(-1, SECTOR_SIZE // 8)
    used: NDArray[np.uint64] = np.bitwise_or.reduce(sectors, axis=1)
    return used
