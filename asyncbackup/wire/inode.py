"""The inode of a VDI: a header, and a table that names the owner of each data object.

Layout in bytes: the header's fields below from 0, other metadata to 4664, then the owner table (u32 a data object,
2^20 entries) or, for a hyper volume, the root node of a B-tree (``asyncbackup.wire.btree``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asyncbackup.errors import InodeCorrupt
from asyncbackup.wire.constants import (
    DEFAULT_BLOCK_SIZE_SHIFT,
    MAX_BLOCK_SIZE_SHIFT,
    MAX_COPIES,
    MAX_DENSE_OBJECTS,
    MAX_HYPER_OBJECTS,
    MIN_BLOCK_SIZE_SHIFT,
    NAME_SIZE,
)
from asyncbackup.wire.messages import Bytes, pack_name, unpack_name
from asyncbackup.wire.vdi_ids import is_vdi_id

Owners = NDArray[np.uint32]

TABLE_OFFSET: Final = 4664
TABLE_SIZE: Final = MAX_DENSE_OBJECTS * 4
ENTRY_SIZE: Final = 4
INODE_SIZE: Final = TABLE_OFFSET + TABLE_SIZE + MAX_DENSE_OBJECTS * 8
"""Header, owner table, and 8 bytes of reference counts for each entry, which only servers use."""

TAG_OFFSET: Final = NAME_SIZE
SIZE_OFFSET: Final = 536
SIZE_LENGTH: Final = 8
SNAP_CTIME_OFFSET: Final = 520

_NANOSECONDS: Final = 10**9
_FIELDS: Final = struct.Struct(f"<{NAME_SIZE}s{NAME_SIZE}sQQQQQBBBBIII")


@dataclass(frozen=True, slots=True)
class Inode:
    """An inode's header. Sizes in bytes; times in seconds since 1970 << 32 | nanoseconds."""

    name: str
    vdi_id: int
    vdi_size: int
    tag: str = ""
    snap_id: int = 1
    parent_vdi_id: int = 0
    create_time: int = 0
    snap_ctime: int = 0
    vm_clock_nsec: int = 0
    vm_state_size: int = 0
    copy_policy: int = 0
    store_policy: int = 0
    nr_copies: int = 1
    block_size_shift: int = 22

    HEADER_SIZE = _FIELDS.size

    @property
    def is_snapshot(self) -> bool:
        return self.snap_ctime != 0

    @property
    def is_hyper(self) -> bool:
        """Whether a B-tree stands in place of the owner table."""
        return self.store_policy == 1

    @property
    def object_size(self) -> int:
        """Bytes of each data object."""
        return 1 << self.block_size_shift

    @property
    def object_count(self) -> int:
        """Data objects that ``vdi_size`` spans, the last one perhaps in part."""
        return -(-self.vdi_size // self.object_size)

    def pack(self) -> bytes:
        return _FIELDS.pack(
            pack_name(self.name),
            pack_name(self.tag),
            self.create_time,
            self.snap_ctime,
            self.vm_clock_nsec,
            self.vdi_size,
            self.vm_state_size,
            self.copy_policy,
            self.store_policy,
            self.nr_copies,
            self.block_size_shift,
            self.snap_id,
            self.vdi_id,
            self.parent_vdi_id,
        )

    @classmethod
    def unpack(cls, header: Bytes) -> Inode:
        """Read the first ``Inode.HEADER_SIZE`` bytes of an inode.

        A block_size_shift of 0, which some servers before 1.0 leave there, is read as the default. Nothing else is
        judged here: ``check`` does that for an inode that will be used.
        """
        fields = _FIELDS.unpack_from(header)
        name, tag, create_time, snap_ctime, vm_clock_nsec, vdi_size, vm_state_size, *rest = fields
        copy_policy, store_policy, nr_copies, block_size_shift, snap_id, vdi_id, parent_vdi_id = rest
        return cls(
            name=unpack_name(name),
            vdi_id=vdi_id,
            vdi_size=vdi_size,
            tag=unpack_name(tag),
            snap_id=snap_id,
            parent_vdi_id=parent_vdi_id,
            create_time=create_time,
            snap_ctime=snap_ctime,
            vm_clock_nsec=vm_clock_nsec,
            vm_state_size=vm_state_size,
            copy_policy=copy_policy,
            store_policy=store_policy,
            nr_copies=nr_copies,
            block_size_shift=block_size_shift or DEFAULT_BLOCK_SIZE_SHIFT,
        )

    def __str__(self) -> str:
        """Name the VDI or snapshot in a message."""
        return f"VDI '{self.name}'" + (f" snapshot {self.snap_id}" if self.is_snapshot else "")

    def check(self, vdi_id: int) -> None:
        """Raise InodeCorrupt unless this can be the header of VDI ``vdi_id``. Later code relies on it."""
        if self.vdi_id != vdi_id:
            raise InodeCorrupt(vdi_id, f"its inode says that it is VDI {self.vdi_id:x}")
        if not MIN_BLOCK_SIZE_SHIFT <= self.block_size_shift <= MAX_BLOCK_SIZE_SHIFT:
            expected = f"{MIN_BLOCK_SIZE_SHIFT} to {MAX_BLOCK_SIZE_SHIFT}"
            raise InodeCorrupt(vdi_id, f"expected a block_size_shift of {expected}, got {self.block_size_shift}")
        if self.store_policy > 1:
            raise InodeCorrupt(vdi_id, f"expected a store policy of 0 or 1, got {self.store_policy}")
        limit = MAX_HYPER_OBJECTS if self.is_hyper else MAX_DENSE_OBJECTS
        if self.object_count > limit:
            raise InodeCorrupt(vdi_id, f"expected a size of at most {limit} objects, got {self.object_count}")
        if self.nr_copies > MAX_COPIES:
            raise InodeCorrupt(vdi_id, f"expected at most {MAX_COPIES} copies, got {self.nr_copies}")
        if self.parent_vdi_id and not is_vdi_id(self.parent_vdi_id):
            raise InodeCorrupt(vdi_id, f"expected a parent of 24 bits, got {self.parent_vdi_id:x}")
        for time in (self.create_time, self.snap_ctime):
            if time & 0xFFFFFFFF >= _NANOSECONDS:
                raise InodeCorrupt(vdi_id, f"expected less than {_NANOSECONDS} nanoseconds, got {time & 0xFFFFFFFF}")


def entry_offset(idx: int) -> int:
    """Give the offset in the inode of the owner table's entry for data object ``idx``."""
    return TABLE_OFFSET + ENTRY_SIZE * idx


def unpack_owners(table: Bytes) -> Owners:
    """View part of an owner table as an array of vdi ids; no copy."""
    return np.frombuffer(table, dtype="<u4")
