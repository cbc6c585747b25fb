from __future__ import annotations

from asyncbackup.sheep.vdis import Found, IdBitmap, Wanted, look_up
from asyncbackup.wire.constants import VDI_BITMAP_SIZE, Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.vdi_ids import ID_COUNT, first_id

START = first_id("disk")
NAME_OF_ONE_OF_THE_LAST_IDS = "disk67948"


class Ids:
    """VDIs in a bitmap: each is placed as a server would place it, or at a given id."""

    def __init__(self) -> None:
        self.in_use = IdBitmap()
        self.inodes: dict[int, Inode] = {}

    def add(self, vdi_id: int, name: str = "disk", *, snap_id: int = 1, tag: str = "", snap_ctime: int = 0) -> None:
        self.in_use.add(vdi_id)
        self.inodes[vdi_id] = Inode(name, vdi_id, 1 << 22, tag=tag, snap_id=snap_id, snap_ctime=snap_ctime)

    def snapshot(self, vdi_id: int, snap_id: int, tag: str = "", name: str = "disk") -> None:
        self.add(vdi_id, name, snap_id=snap_id, tag=tag, snap_ctime=1)

    def find(self, name: str = "disk", tag: str = "", snap_id: int = 0) -> Found:
        return look_up(Wanted(name, tag, snap_id), self.in_use, self.inodes.get)


def test_a_bitmap_packs_least_significant_bit_first() -> None:
    ids = IdBitmap()
    for vdi_id in (1, 8, ID_COUNT - 1):
        ids.add(vdi_id)

    packed = ids.pack()

    assert len(packed) == VDI_BITMAP_SIZE
    assert (packed[0], packed[1], packed[-1]) == (0b10, 0b1, 0b1000_0000)
    assert list(ids) == [1, 8, ID_COUNT - 1]


def test_an_unused_name_gets_its_first_id() -> None:
    assert Ids().find() == Found(Result.NO_VDI, free_id=START)


def test_the_working_vdi_is_found_without_a_tag() -> None:
    ids = Ids()
    ids.snapshot(START, 1)
    ids.add(START + 1, snap_id=2)

    assert ids.find() == Found(Result.SUCCESS, START + 1, 3, START + 2)


def test_a_snapshot_is_found_by_tag_and_by_id() -> None:
    ids = Ids()
    ids.snapshot(START, 1, "first")
    ids.snapshot(START + 1, 2, "second")
    ids.add(START + 2, snap_id=3)

    assert ids.find(tag="first").vdi_id == START
    assert ids.find(snap_id=2).vdi_id == START + 1


def test_the_latest_of_snapshots_with_the_same_tag_wins() -> None:
    ids = Ids()
    ids.snapshot(START, 1, "tag")
    ids.snapshot(START + 1, 2, "tag")

    assert ids.find(tag="tag").vdi_id == START + 1


def test_a_missing_snapshot_of_a_working_vdi_is_no_tag() -> None:
    ids = Ids()
    ids.add(START)

    assert ids.find(tag="none").result is Result.NO_TAG


def test_a_missing_snapshot_of_a_deleted_vdi_is_no_vdi() -> None:
    ids = Ids()
    ids.snapshot(START, 1, "first")
    ids.add(START + 1, "")

    assert ids.find(tag="none").result is Result.NO_VDI


def test_a_new_vdi_goes_on_counting_after_the_snapshots_of_a_deleted_one() -> None:
    ids = Ids()
    ids.snapshot(START, 4, "first")
    ids.add(START + 1, "")

    assert ids.find() == Found(Result.NO_VDI, START, 5, START + 2)


def test_other_names_in_the_run_are_passed_over() -> None:
    ids = Ids()
    ids.add(START)
    ids.add(START + 1, "other")

    assert ids.find() == Found(Result.SUCCESS, START, 2, START + 2)


def test_a_run_wraps_round_the_end_of_the_ids() -> None:
    ids = Ids()
    for vdi_id in range(first_id(NAME_OF_ONE_OF_THE_LAST_IDS), ID_COUNT):
        ids.in_use.add(vdi_id)
    other = Inode("other", 5, 0)
    last = Inode(NAME_OF_ONE_OF_THE_LAST_IDS, ID_COUNT - 1, 0, snap_id=7)
    ids.add(1, "other")

    def inode_of(vdi_id: int) -> Inode:
        return last if vdi_id == ID_COUNT - 1 else ids.inodes.get(vdi_id, other)

    found = look_up(Wanted(NAME_OF_ONE_OF_THE_LAST_IDS), ids.in_use, inode_of)

    assert found.result is Result.SUCCESS
    assert found.vdi_id == ID_COUNT - 1


def test_a_missing_inode_is_reported() -> None:
    ids = Ids()
    ids.in_use.add(START)

    assert ids.find().result is Result.NO_OBJ
