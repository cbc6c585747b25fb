"""The VDIs of a store: look-up, creation, snapshots, deletion, and which objects nothing refers to any more.

Follows sheepdog 1.0 in what a client sees. It differs inside: 1.0 counts references to data objects in ledgers, this
compares owner tables, of which a single node has few.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from asyncbackup.sheep.records import VdiState
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.store import ClusterConfig, Store
from asyncbackup.sheep.vdis import Found, IdBitmap, Wanted, look_up
from asyncbackup.wire import btree
from asyncbackup.wire.attributes import ATTRIBUTE_SIZE
from asyncbackup.wire.constants import (
    MAX_BLOCK_SIZE_SHIFT,
    MIN_BLOCK_SIZE_SHIFT,
    Result,
)
from asyncbackup.wire.inode import INODE_SIZE, SNAP_CTIME_OFFSET, TABLE_OFFSET, TABLE_SIZE, Inode, Owners
from asyncbackup.wire.messages import VdiBody
from asyncbackup.wire.oid import ATTR_BIT, BTREE_BIT, INODE_BIT, LEDGER_BIT, data_oid, inode_oid, vdi_of

LEDGER_SIZE: Final = 1 << 22

_TIME: Final = struct.Struct("<Q")


class Refused(Exception):
    """A request cannot be served; the client gets ``result``."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.meaning)
        self.result = result


class Volumes:
    """Everything about VDIs that needs more than one object. Reads the state of all VDIs from ``store`` first."""

    def __init__(
        self,
        store: Store,
        config: ClusterConfig,
        release: Release = Release.V1_0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._config = config
        self._release = release
        self._clock_ns = clock_ns
        self._states: dict[int, VdiState] = {}
        self.in_use = IdBitmap()
        self.deleted = IdBitmap()
        for oid in store.oids():
            if oid & INODE_BIT:
                self._load(vdi_of(oid))

    def _load(self, vdi_id: int) -> None:
        inode = self.header(vdi_id)
        if inode is None:
            return
        self.in_use.add(vdi_id)
        if not inode.name:
            self.deleted.add(vdi_id)
        self._states[vdi_id] = VdiState(
            vdi_id,
            inode.nr_copies,
            inode.copy_policy,
            inode.block_size_shift,
            inode.parent_vdi_id,
            is_snapshot=inode.is_snapshot,
            is_deleted=not inode.name,
        )

    def header(self, vdi_id: int) -> Inode | None:
        view = self._store.get(inode_oid(vdi_id))
        return None if view is None else Inode.unpack(view)

    def state(self, vdi_id: int) -> VdiState:
        """Give a VDI's state; for an unknown one what the cluster's defaults make of it."""
        known = self._states.get(vdi_id)
        return known or VdiState(vdi_id, self._config.copies, 0, self._config.block_size_shift)

    def states(self) -> list[VdiState]:
        """List all states by vdi id."""
        return [self._states[vdi_id] for vdi_id in sorted(self._states)]

    def object_size(self, oid: int) -> int:
        """Give how many bytes an object of this id has."""
        if oid & INODE_BIT:
            return INODE_SIZE
        if oid & ATTR_BIT:
            return ATTRIBUTE_SIZE
        if oid & BTREE_BIT:
            return btree.NODE_SIZE
        if oid & LEDGER_BIT:
            return LEDGER_SIZE
        return 1 << self.state(vdi_of(oid)).block_size_shift

    def find(self, wanted: Wanted) -> VdiState:
        """Look a VDI up. Raises Refused with NO_VDI, NO_TAG, NO_OBJ or FULL_VDI."""
        found = self._look_up(wanted)
        if found.result is not Result.SUCCESS:
            raise Refused(found.result)
        return self.state(found.vdi_id)

    def _look_up(self, wanted: Wanted) -> Found:
        return look_up(wanted, self.in_use, self.header)

    def new(self, name: str, asked: VdiBody) -> VdiState:
        """Create a working VDI.

        Fresh; or with ``base_vdi_id`` as a clone of that; or with ``snapid`` after turning the present working VDI
        into a snapshot, from ``base_vdi_id``, which makes it a rollback if that is another.

        Raises Refused with VDI_EXIST, NO_VDI, BASE_VDI_READ, FULL_VDI, NO_SUPPORT or INVALID_PARMS.
        """
        now = self._now()
        shift = asked.block_size_shift or self._config.block_size_shift
        if not name or not MIN_BLOCK_SIZE_SHIFT <= shift <= MAX_BLOCK_SIZE_SHIFT:
            raise Refused(Result.INVALID_PARMS)
        found = self._look_up(Wanted(name))
        if found.result is not (Result.SUCCESS if asked.snapid else Result.NO_VDI):
            raise Refused(Result.VDI_EXIST if found.result is Result.SUCCESS else found.result)
        if not found.free_id:
            raise Refused(Result.FULL_VDI)
        table = self._table_of_base(asked.base_vdi_id) if asked.base_vdi_id or asked.snapid else None
        copies = asked.copies or self._config.copies
        inode = Inode(
            name,
            found.free_id,
            asked.vdi_size,
            snap_id=found.next_snap_id,
            parent_vdi_id=asked.base_vdi_id,
            create_time=now,
            copy_policy=asked.copy_policy,
            store_policy=asked.store_policy,
            nr_copies=copies,
            block_size_shift=shift,
        )
        previous = found.vdi_id if asked.snapid or not asked.base_vdi_id else asked.base_vdi_id
        if asked.snapid:
            self._freeze(found.vdi_id, now)
        if previous in self._states:
            self._states[previous] = replace(self._states[previous], is_snapshot=True)
        pieces = [(0, inode.pack())] + ([] if table is None else [(TABLE_OFFSET, table)])
        if table is None and inode.is_hyper:
            pieces.append((TABLE_OFFSET, btree.pack_node_header(btree.LEAF, 0)))
        # The state comes first: where the inode goes depends on the copies.
        state = self._states[inode.vdi_id] = VdiState(inode.vdi_id, copies, asked.copy_policy, shift, previous)
        try:
            self._store.put(inode_oid(inode.vdi_id), INODE_SIZE, pieces)
        except OSError:
            del self._states[inode.vdi_id]
            raise
        self.in_use.add(inode.vdi_id)
        return state

    def _now(self) -> int:
        """Give the time as inodes hold it: seconds << 32 | nanoseconds, of microsecond resolution as sheep's is."""
        seconds, nanoseconds = divmod(self._clock_ns(), 10**9)
        return seconds << 32 | nanoseconds // 1000 * 1000

    def _table_of_base(self, vdi_id: int) -> memoryview:
        view = self._store.get(inode_oid(vdi_id))
        if view is None:
            raise Refused(Result.BASE_VDI_READ)
        if Inode.unpack(view).is_hyper:
            raise Refused(Result.NO_SUPPORT)
        return view[TABLE_OFFSET : TABLE_OFFSET + TABLE_SIZE]

    def _freeze(self, vdi_id: int, now: int) -> None:
        if not self._store.write(inode_oid(vdi_id), SNAP_CTIME_OFFSET, _TIME.pack(now)):
            raise Refused(Result.BASE_VDI_READ)

    def delete(self, wanted: Wanted) -> int:
        """Delete a VDI and give its id, which stays in use. Raises Refused if there is none.

        A client of 1.0 has to clear the owner table first; as there, a VDI with a table that is not clear is listed as
        deleted but stays. Older releases, and hyper volumes, lose their objects here.
        """
        vdi_id = self.find(wanted).vdi_id
        view = self._store.get(inode_oid(vdi_id))
        if view is None:
            raise Refused(Result.NO_OBJ)
        inode = Inode.unpack(view)
        if inode.is_hyper:
            self._remove_hyper(vdi_id)
        elif self._release is not Release.V1_0:
            owners = owners_of(view).copy()
            self._store.write(inode_oid(vdi_id), TABLE_OFFSET, bytes(TABLE_SIZE))
            self.reclaim(0, owners)
        if inode.is_hyper or not owners_of(view)[: inode.object_count].any():
            kept = bytearray(view[:TABLE_OFFSET])
            kept[: Inode.HEADER_SIZE] = replace(inode, name="", vdi_size=0).pack()
            self._store.put(inode_oid(vdi_id), INODE_SIZE, [(0, kept)])
        self.deleted.add(vdi_id)
        self._states[vdi_id] = replace(self._states[vdi_id], is_deleted=True)
        return vdi_id

    def _remove_hyper(self, vdi_id: int) -> None:
        """Remove the objects that hyper volume ``vdi_id`` owns; what its tree says plays no part in whose they are."""
        inode = inode_oid(vdi_id)
        for oid in self._store.oids():
            if vdi_of(oid) == vdi_id and oid != inode and not oid & ATTR_BIT:
                self._store.remove(oid)
        self._store.write(inode, TABLE_OFFSET, btree.pack_node_header(btree.LEAF, 0))

    def reclaim(self, start_idx: int, owners: Owners) -> None:
        """Remove those data objects that no VDI refers to any more.

        ``owners``: who owned the objects from ``start_idx`` on, before an owner table was changed; 0 if nobody.
        """
        wanted = np.flatnonzero(owners)
        for table in self._tables(owners[wanted].tolist()):
            if not wanted.size:
                return
            wanted = wanted[table[start_idx + wanted] != owners[wanted]]
        for position in wanted.tolist():
            self._store.remove(data_oid(int(owners[position]), start_idx + position))

    def _tables(self, likely: Iterable[int]) -> Iterable[Owners]:
        """Give the owner tables there are, those of the ``likely`` VDIs first."""
        for vdi_id in dict.fromkeys([*likely, *self.in_use]):
            view = self._store.get(inode_oid(vdi_id))
            if view is not None and not Inode.unpack(view).is_hyper:
                yield owners_of(view)


def owners_of(inode: memoryview) -> Owners:
    """View an inode object's owner table."""
    return np.frombuffer(inode, dtype="<u4", count=TABLE_SIZE // 4, offset=TABLE_OFFSET)


def is_table_update(oid: int, offset: int, length: int) -> bool:
    """Tell whether a write changes owners: of an inode, and within its table."""
    return bool(oid & INODE_BIT) and offset >= TABLE_OFFSET and offset + length <= TABLE_OFFSET + TABLE_SIZE
