from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from asyncbackup.sheep import Store
from asyncbackup.sheep.objects import Extent, Objects
from asyncbackup.sheep.store import ClusterConfig
from asyncbackup.sheep.volumes import Refused, Volumes, owners_of
from asyncbackup.wire.constants import Flag, Result
from asyncbackup.wire.inode import TABLE_OFFSET
from asyncbackup.wire.messages import ObjectBody, VdiBody
from asyncbackup.wire.oid import data_oid, inode_oid

SIZE = 1 << 20
SECTOR = 512


@pytest.fixture
def volumes(store: Store) -> Volumes:
    return Volumes(store, ClusterConfig(ctime=0, copies=1, block_size_shift=20))


@pytest.fixture
def objects(store: Store, volumes: Volumes) -> Objects:
    return Objects(store, volumes, store)


@pytest.fixture
def disk(objects: Objects, volumes: Volumes) -> int:
    """The id of a VDI that owns its object 3."""
    vdi_id = volumes.new("disk", VdiBody(8 * SIZE)).vdi_id
    objects.create(ObjectBody(data_oid(vdi_id, 3), offset=SECTOR), 0, memoryview(b"data" * 128))
    objects.write(ObjectBody(inode_oid(vdi_id), offset=TABLE_OFFSET + 12), memoryview(vdi_id.to_bytes(4, "little")))
    return vdi_id


def read(objects: Objects, oid: int, offset: int, length: int) -> bytes:
    return bytes(objects.read(ObjectBody(oid, offset=offset), length).data)


# What zeros are left out of an answer


def sectors(*used: bool, rest: int = 0) -> memoryview:
    return memoryview(b"".join((b"\1" if each else b"\0") * SECTOR for each in used) + bytes(rest))


@pytest.mark.parametrize(
    ("data", "offset", "length"),
    [
        (sectors(True, True), 0, 2 * SECTOR),
        (sectors(False, True, False), SECTOR, SECTOR),
        (sectors(False, False, True), 2 * SECTOR, SECTOR),
        (sectors(True, False, True, False), 0, 3 * SECTOR),
        (sectors(False, False), 2 * SECTOR, 0),
        (sectors(), 0, 0),
        (sectors(False, True, rest=100), SECTOR, SECTOR + 100),
    ],
)
def test_zero_sectors_at_both_ends_are_left_out(data: memoryview, offset: int, length: int) -> None:
    trimmed = Extent(data, 4096).trimmed()

    assert (trimmed.offset, len(trimmed.data)) == (4096 + offset, length)
    assert bytes(trimmed.data) == bytes(data[offset : offset + length])


# Reads and writes


def test_what_was_never_written_of_an_object_is_zeros(objects: Objects, disk: int) -> None:
    assert read(objects, data_oid(disk, 3), 0, 3 * SECTOR) == bytes(SECTOR) + b"data" * 128 + bytes(SECTOR)


def test_behind_the_end_of_an_object_there_are_zeros(objects: Objects, disk: int) -> None:
    objects.write(ObjectBody(data_oid(disk, 3), offset=SIZE - SECTOR), memoryview(b"last" * 128))

    assert read(objects, data_oid(disk, 3), SIZE - SECTOR, 2 * SECTOR) == b"last" * 128 + bytes(SECTOR)


def test_room_ends_with_the_object(objects: Objects, disk: int) -> None:
    body = ObjectBody(data_oid(disk, 3), offset=SIZE - SECTOR)

    assert objects.has_room(body, SECTOR)
    assert not objects.has_room(body, SECTOR + 1)


def test_an_object_that_is_copied_on_write_holds_the_other_around_what_is_written(objects: Objects, disk: int) -> None:
    body = ObjectBody(data_oid(disk, 4), cow_oid=data_oid(disk, 3), offset=SECTOR + 4)

    objects.create(body, Flag.COW, memoryview(b"new!"))

    assert read(objects, data_oid(disk, 4), SECTOR, 12) == b"datanew!data"


def test_a_missing_object_is_said_to_be_missing(objects: Objects, disk: int) -> None:
    missing = ObjectBody(data_oid(disk, 5))

    requests: list[Callable[[], object]] = [
        lambda: objects.read(missing, SECTOR),
        lambda: objects.write(missing, memoryview(bytes(SECTOR))),
        lambda: objects.remove(missing.oid),
        lambda: objects.create(ObjectBody(data_oid(disk, 6), cow_oid=missing.oid), Flag.COW, memoryview(b"new!")),
    ]
    for do in requests:
        with pytest.raises(Refused) as refused:
            do()
        assert refused.value.result is Result.NO_OBJ
    assert not objects.has_replica(missing.oid)
    assert not objects.has_replica(data_oid(disk, 6))


def test_data_of_a_snapshot_is_not_changed(objects: Objects, volumes: Volumes, disk: int) -> None:
    volumes.new("disk", VdiBody(8 * SIZE, base_vdi_id=disk, snapid=1))
    body = ObjectBody(data_oid(disk, 3))

    requests: list[Callable[[], object]] = [
        lambda: objects.write(body, memoryview(b"new!")),
        lambda: objects.create(body, 0, memoryview(b"new!")),
    ]
    for do in requests:
        with pytest.raises(Refused) as refused:
            do()
        assert refused.value.result is Result.READONLY
    assert read(objects, body.oid, SECTOR, 4) == b"data"


# Objects that nothing refers to


def table_of(store: Store, vdi_id: int) -> list[int]:
    view = store.get(inode_oid(vdi_id))
    assert view is not None
    return [int(owner) for owner in owners_of(view)[:8]]


def test_a_discarded_object_is_gone_with_its_entry(store: Store, objects: Objects, disk: int) -> None:
    objects.discard(data_oid(disk, 3))
    objects.discard(data_oid(disk, 3))

    assert table_of(store, disk) == [0] * 8
    assert not objects.has_replica(data_oid(disk, 3))


def test_an_object_that_its_last_table_gives_up_is_removed(
    store: Store, objects: Objects, volumes: Volumes, disk: int
) -> None:
    working = volumes.new("disk", VdiBody(8 * SIZE, base_vdi_id=disk, snapid=1)).vdi_id
    assert table_of(store, working) == table_of(store, disk) == [0, 0, 0, disk, 0, 0, 0, 0]

    objects.write(ObjectBody(inode_oid(working), offset=TABLE_OFFSET), memoryview(np.zeros(8, "<u4").tobytes()))
    assert objects.has_replica(data_oid(disk, 3))

    objects.write(ObjectBody(inode_oid(disk), offset=TABLE_OFFSET), memoryview(np.zeros(8, "<u4").tobytes()))
    assert not objects.has_replica(data_oid(disk, 3))
