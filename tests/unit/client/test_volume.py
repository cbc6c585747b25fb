from __future__ import annotations

from asyncbackup import Cluster, Volume
from asyncbackup.sheep import Sheep
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.oid import data_oid
from tests.disks import OBJECT, SHIFT, content_of, noise


async def make(cluster: Cluster) -> Volume:
    await cluster.create_vdi("disk", 4 * OBJECT, block_size_shift=SHIFT)
    return await Volume.open(cluster, "disk")


async def test_a_write_across_objects_lands_in_each(cluster: Cluster) -> None:
    volume = await make(cluster)

    await volume.write(OBJECT - 2, b"abcd")
    await cluster.create_snapshot("disk", "a")

    content = await content_of(cluster, "disk", "a")
    assert content == {0: b"ab".rjust(OBJECT, b"\0"), 1: b"cd".ljust(OBJECT, b"\0")}


async def test_a_second_write_to_an_object_overwrites_it(cluster: Cluster, sheep: Sheep) -> None:
    volume = await make(cluster)
    await volume.write(0, b"old")
    created = sheep.requests[Opcode.CREATE_AND_WRITE_OBJ]

    await volume.write(1, b"new")
    await cluster.create_snapshot("disk", "a")

    assert sheep.requests[Opcode.CREATE_AND_WRITE_OBJ] == created
    assert (await content_of(cluster, "disk", "a"))[0].startswith(b"onew\0")


async def test_a_write_after_a_snapshot_leaves_the_snapshot_alone(cluster: Cluster) -> None:
    before = noise(1, OBJECT)
    await (await make(cluster)).write(0, before)
    await cluster.create_snapshot("disk", "a")
    volume = await Volume.open(cluster, "disk")

    await volume.write(100, b"new")
    await cluster.create_snapshot("disk", "b")

    assert (await content_of(cluster, "disk", "a"))[0] == before
    assert (await content_of(cluster, "disk", "b"))[0] == before[:100] + b"new" + before[103:]


async def test_a_write_makes_the_volume_the_owner(cluster: Cluster) -> None:
    volume = await make(cluster)

    await volume.write(2 * OBJECT, b"x")

    owners = await cluster.read_owners(volume.inode.vdi_id, 4)
    assert owners.tolist() == [0, 0, volume.inode.vdi_id, 0]
    await cluster.read_object(data_oid(volume.inode.vdi_id, 2), memoryview(bytearray(1)))
