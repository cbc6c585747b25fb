from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from asyncbackup import ClientOptions, Cluster, connect
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi, Shape
from asyncbackup.errors import ErasureCodingUnknown, Incompatible, RequestFailed, VdiExists, VdiNotFound
from asyncbackup.sheep import Fault, MemoryStore, Release, Sheep
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.oid import is_data
from tests.disks import OBJECT, OBJECTS, SHIFT, noise

SHAPE = Shape(OBJECTS * OBJECT, OBJECT)
QUICK = ClientOptions(connections=1, request_timeout_s=10, retry_delay_s=0)


@asynccontextmanager
async def served(
    store: MemoryStore, *faults: str, release: Release = Release.V1_0
) -> AsyncIterator[tuple[Sheep, Cluster]]:
    script = [Fault.parse(fault) for fault in faults]
    async with (
        Sheep(store, release=release, faults=script) as sheep,
        connect(sheep.host, sheep.port, QUICK) as cluster,
    ):
        yield sheep, cluster


async def make_unfinished(cluster: Cluster, objects: int = 2) -> NewVdi:
    new = await NewVdi.create(cluster, "new", SHAPE)
    await new.mark()
    for idx in range(objects):
        await new.create_object(idx, noise(idx, OBJECT), 0)
    return new


def data_objects(store: MemoryStore) -> list[int]:
    return [oid for oid in store.oids() if is_data(oid)]


async def test_a_vdi_of_a_taken_name_is_not_made(cluster: Cluster) -> None:
    taken = await cluster.create_vdi("new", OBJECT, block_size_shift=SHIFT)

    with pytest.raises(VdiExists, match="'new' exists already"):
        await NewVdi.create(cluster, "new", SHAPE)

    assert [inode.vdi_id for inode in (await cluster.list_vdis()).sound] == [taken]


async def test_a_cluster_that_makes_no_vdi_is_told() -> None:
    async with served(MemoryStore(), "new_vdi@1:error=FULL_VDI") as (_, cluster):
        with pytest.raises(RequestFailed, match="creating VDI 'new' failed") as caught:
            await NewVdi.create(cluster, "new", SHAPE)

        assert caught.value.result is Result.FULL_VDI
        assert not (await cluster.list_vdis()).sound


@pytest.mark.parametrize("release", [Release.V0_4, Release.V0_6])
async def test_an_object_size_that_an_old_cluster_does_not_know_is_refused(release: Release) -> None:
    async with served(MemoryStore(), release=release) as (sheep, cluster):
        with pytest.raises(Incompatible, match="knows only objects of 4194304 bytes"):
            await NewVdi.create(cluster, "new", SHAPE)

        assert not sheep.requests[Opcode.NEW_VDI]


@pytest.mark.parametrize("release", [Release.V0_4, Release.V0_6])
async def test_erasure_coding_that_an_old_cluster_does_not_know_is_refused(release: Release) -> None:
    async with served(MemoryStore(), release=release) as (sheep, cluster):
        with pytest.raises(ErasureCodingUnknown, match="knows no erasure coding"):
            await NewVdi.create(cluster, "new", Shape(8 << 22, 1 << 22, copies=6, copy_policy=0x42))

        assert not sheep.requests[Opcode.NEW_VDI]


async def test_a_vdi_without_objects_only_loses_its_mark(cluster: Cluster, sheep: Sheep) -> None:
    new = await make_unfinished(cluster, objects=0)
    written = sheep.requests[Opcode.WRITE_OBJ]

    await new.publish()

    assert sheep.requests[Opcode.WRITE_OBJ] == written + 1
    assert (await cluster.find_vdi("new")).tag == ""


async def test_a_removed_vdi_leaves_nothing() -> None:
    store = MemoryStore()
    async with served(store) as (_, cluster):
        new = await make_unfinished(cluster)
        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG
        assert len(data_objects(store)) == 2

        await new.remove(cluster)

        with pytest.raises(VdiNotFound):
            await cluster.find_vdi("new")
        assert not data_objects(store)


async def test_a_vdi_that_somebody_else_made_in_its_place_is_not_removed() -> None:
    store = MemoryStore()
    async with served(store) as (sheep, cluster):
        new = await make_unfinished(cluster)
        await cluster.expect_success(messages.delete_vdi("new"), "deleting it")
        other = await cluster.create_vdi("new", OBJECT, block_size_shift=SHIFT)
        deleted = sheep.requests[Opcode.DEL_VDI]

        await new.remove(cluster)

        assert other != new.inode.vdi_id
        assert (await cluster.find_vdi("new")).vdi_id == other
        assert sheep.requests[Opcode.DEL_VDI] == deleted
        assert not data_objects(store)


async def test_a_vdi_that_somebody_else_deleted_needs_no_removal() -> None:
    store = MemoryStore()
    async with served(store) as (_, cluster):
        new = await make_unfinished(cluster)
        await cluster.expect_success(messages.delete_vdi("new"), "deleting it")

        await new.remove(cluster)

        assert not data_objects(store)


async def test_an_object_that_is_gone_already_does_not_stop_the_removal() -> None:
    store = MemoryStore()
    async with served(store, "remove_obj@1:error=NO_OBJ") as (_, cluster):
        await (await make_unfinished(cluster)).remove(cluster)

        assert not await cluster.has_vdi("new")


async def test_an_object_that_stays_is_told_and_keeps_its_vdi() -> None:
    store = MemoryStore()
    async with served(store, "remove_obj@1:error=EIO") as (_, cluster):
        new = await make_unfinished(cluster)

        with pytest.raises(RequestFailed, match=rf"removing object 00{new.inode.vdi_id:06x}0000000\d failed") as caught:
            await new.remove(cluster)

        assert caught.value.result is Result.EIO
        assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG
