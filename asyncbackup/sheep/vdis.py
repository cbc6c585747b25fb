"""How sheep finds VDIs by name: pure rules over a bitmap (``asyncbackup.wire.vdi_ids``) and inode headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asyncbackup.wire.constants import VDI_BITMAP_SIZE, Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.vdi_ids import ID_COUNT, first_id


class IdBitmap:
    """A set of vdi ids, as READ_VDIS sends it."""

    def __init__(self) -> None:
        self._bits = bytearray(VDI_BITMAP_SIZE)
        self._ids: set[int] = set()

    def __contains__(self, vdi_id: object) -> bool:
        return vdi_id in self._ids

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._ids))

    def add(self, vdi_id: int) -> None:
        self._ids.add(vdi_id)
        self._bits[vdi_id >> 3] |= 1 << (vdi_id & 7)

    def next_free(self, start: int) -> int:
        """Give the first id from ``start`` on that is not in the set; ID_COUNT if there is none."""
        while start in self._ids:
            start += 1
        return start

    def pack(self) -> memoryview:
        """View the bits, least significant first: bytes, VDI_BITMAP_SIZE of them."""
        return memoryview(self._bits).toreadonly()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked up: with neither ``tag`` nor ``snap_id`` the working VDI, else a snapshot."""

    name: str
    tag: str = ""
    snap_id: int = 0

    @property
    def is_snapshot(self) -> bool:
        return bool(self.tag or self.snap_id)

    def matches(self, inode: Inode) -> bool:
        return bool(inode.tag and inode.tag == self.tag) or self.snap_id == inode.snap_id


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup came to.

    ``vdi_id`` is also set beside NO_VDI where only snapshots of a deleted working VDI are left: the latest one.
    ``next_snap_id`` is what a new working VDI of this name gets, ``free_id`` the id (0: none is left).
    """

    result: Result
    vdi_id: int = 0
    next_snap_id: int = 1
    free_id: int = 0


def look_up(wanted: Wanted, in_use: IdBitmap, read_header: Callable[[int], Inode | None]) -> Found:
    """Find a VDI. ``read_header`` gives the inode header of an id in use, or None if that object is missing.

    Result SUCCESS, NO_VDI (no such name, or its working VDI is deleted), NO_TAG (no such snapshot), FULL_VDI (no id is
    left) or NO_OBJ (an inode on the way is missing).
    """
    left = first_id(wanted.name)
    right = in_use.next_free(left)
    if right == left:
        return Found(Result.NO_VDI, free_id=right)
    if right < ID_COUNT:
        return _scan(range(right - 1, left - 1, -1), wanted, right, read_header)
    right = in_use.next_free(1)
    if right == ID_COUNT:
        return Found(Result.FULL_VDI)
    wrapped = _scan(range(right - 1, 0, -1), wanted, right, read_header)
    if wrapped.result not in {Result.NO_VDI, Result.NO_TAG} or wrapped.vdi_id:
        return wrapped
    return _scan(range(ID_COUNT - 1, left - 1, -1), wanted, right, read_header)


def _scan(ids: range, wanted: Wanted, free_id: int, read_header: Callable[[int], Inode | None]) -> Found:
    """Go through a run of ids from right to left."""
    name_seen = False
    for vdi_id in ids:
        inode = read_header(vdi_id)
        if inode is None:
            return Found(Result.NO_OBJ, free_id=free_id)
        if inode.name != wanted.name:
            continue
        next_snap_id = inode.snap_id + 1
        if not wanted.is_snapshot:
            result = Result.NO_VDI if inode.is_snapshot else Result.SUCCESS
            return Found(result, inode.vdi_id, next_snap_id, free_id)
        if not inode.is_snapshot:
            name_seen = True
        elif wanted.matches(inode):
            return Found(Result.SUCCESS, inode.vdi_id, next_snap_id, free_id)
    return Found(Result.NO_TAG if name_seen else Result.NO_VDI, free_id=free_id)
