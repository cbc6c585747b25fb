from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from asyncbackup.errors import InodeCorrupt
from asyncbackup.wire.inode import INODE_SIZE, TABLE_OFFSET, Inode, entry_offset, unpack_owners

VDI = 0xABCDEF
INODE = Inode(
    name="vm1",
    vdi_id=VDI,
    vdi_size=(5 << 22) + 1,
    tag="monday",
    snap_id=3,
    parent_vdi_id=0xABCDEE,
    create_time=100 << 32,
    snap_ctime=200 << 32 | 5,
    vm_clock_nsec=7,
    vm_state_size=8,
    copy_policy=0x21,
    store_policy=0,
    nr_copies=3,
    block_size_shift=22,
)


def test_an_inode_survives_packing() -> None:
    assert Inode.unpack(INODE.pack()) == INODE


def test_golden_offsets() -> None:
    packed = INODE.pack()

    assert len(packed) == Inode.HEADER_SIZE == 568
    assert packed[:4] == b"vm1\0"
    assert packed[256:263] == b"monday\0"
    assert struct.unpack_from("<QQQQQ", packed, 512) == (100 << 32, 200 << 32 | 5, 7, (5 << 22) + 1, 8)
    assert packed[552:556] == bytes([0x21, 0, 3, 22])
    assert struct.unpack_from("<III", packed, 556) == (3, VDI, 0xABCDEE)


def test_the_owner_table_follows_at_4664() -> None:
    assert entry_offset(0) == TABLE_OFFSET == 4664
    assert entry_offset(3) == 4676
    assert INODE_SIZE == 4664 + (4 + 8 << 20)


def test_owners_are_viewed_without_a_copy() -> None:
    table = bytearray(struct.pack("<3I", 1, 0, VDI))
    owners = unpack_owners(table)

    table[0] = 9

    assert owners.dtype == np.dtype("<u4")
    assert owners.tolist() == [9, 0, VDI]


def test_a_missing_block_size_shift_is_the_default() -> None:
    packed = replace(INODE, block_size_shift=0).pack()

    assert Inode.unpack(packed).object_size == 1 << 22


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (1 << 22, 1), ((1 << 22) + 1, 2)])
def test_the_last_object_may_be_partial(size: int, count: int) -> None:
    assert replace(INODE, vdi_size=size).object_count == count


def test_a_snapshot_is_what_has_a_time_of_it() -> None:
    assert INODE.is_snapshot
    assert not replace(INODE, snap_ctime=0).is_snapshot


def test_a_hyper_volume_is_told_by_its_store_policy() -> None:
    assert replace(INODE, store_policy=1).is_hyper
    assert not INODE.is_hyper


@pytest.mark.parametrize(
    "inode",
    [
        INODE,
        replace(INODE, block_size_shift=20),
        replace(INODE, block_size_shift=31),
        replace(INODE, vdi_size=1 << 42),
        replace(INODE, vdi_size=1 << 54, store_policy=1),
        replace(INODE, nr_copies=31),
        replace(INODE, parent_vdi_id=(1 << 24) - 1, snap_ctime=999_999_999),
    ],
)
def test_a_sound_inode_passes(inode: Inode) -> None:
    inode.check(VDI)


@pytest.mark.parametrize(
    ("inode", "problem"),
    [
        (replace(INODE, vdi_id=5), "says that it is VDI 5"),
        (replace(INODE, block_size_shift=19), "expected a block_size_shift of 20 to 31, got 19"),
        (replace(INODE, block_size_shift=32), "expected a block_size_shift of 20 to 31, got 32"),
        (replace(INODE, vdi_size=(1 << 42) + 1), "at most 1048576 objects, got 1048577"),
        (replace(INODE, vdi_size=(1 << 54) + 1, store_policy=1), "at most 4294967296 objects, got 4294967297"),
        (replace(INODE, vdi_size=(1 << 64) - 1), "at most 1048576 objects, got 4398046511104"),
        (replace(INODE, store_policy=2), "expected a store policy of 0 or 1, got 2"),
        (replace(INODE, nr_copies=32), "expected at most 31 copies, got 32"),
        (replace(INODE, parent_vdi_id=1 << 24), "expected a parent of 24 bits, got 1000000"),
        (replace(INODE, create_time=5 << 32 | 10**9), "expected less than 1000000000 nanoseconds, got 1000000000"),
        (replace(INODE, snap_ctime=(1 << 64) - 1), "expected less than 1000000000 nanoseconds, got 4294967295"),
    ],
)
def test_an_inode_that_contradicts_itself_is_refused(inode: Inode, problem: str) -> None:
    with pytest.raises(InodeCorrupt, match=problem) as caught:
        inode.check(VDI)

    assert caught.value.vdi_id == VDI
