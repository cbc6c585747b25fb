from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asyncbackup import ClientOptions, Cluster, connect
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi, Parent, Shape, is_unfinished
from asyncbackup.errors import (
    ChangedMeanwhile,
    RedundancyUnkeepable,
    RequestFailed,
    VdiExists,
    VdiNotFound,
    VdiUnmakeable,
)
from asyncbackup.sheep import Fault, MemoryStore, Release, Sheep
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.inode import TABLE_OFFSET, Inode, Owners
from asyncbackup.wire.messages import RequestHeader, VdiBody
from asyncbackup.wire.oid import inode_oid, is_data
from tests.disks import OBJECT, OBJECTS, SHIFT, delete_as_dog, noise

SHAPE = Shape(OBJECTS * OBJECT, OBJECT)
QUICK = ClientOptions(connections=1, request_timeout_s=10, give_up_after_s=0, retry_delay_s=0)


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


@pytest.mark.parametrize("made", [{"block_size_shift": SHIFT + 1}, {"vdi_size": 2 * SHAPE.size}])
async def test_a_vdi_that_is_made_otherwise_than_asked_for_is_refused(made: dict[str, Any]) -> None:
    async with served(MemoryStore()) as (_, cluster):
        new = await NewVdi.create(cluster, "new", SHAPE)
        header = replace(await cluster.read_inode(new.vdi_id), **made)
        await cluster.write_object(inode_oid(new.vdi_id), header.pack(), copies=header.nr_copies)

        with pytest.raises(VdiUnmakeable, match=r"expected VDI 'new' of \d+ bytes"):
            await new.mark()


def data_objects(store: MemoryStore) -> list[int]:
    return [oid for oid in store.oids() if is_data(oid)]


async def test_a_vdi_of_a_taken_name_is_not_made(cluster: Cluster) -> None:
    taken = await cluster.create_vdi("new", OBJECT, block_size_shift=SHIFT)

    with pytest.raises(VdiExists, match="'new' exists already"):
        await NewVdi.create(cluster, "new", SHAPE)

    assert [inode.vdi_id for inode in (await cluster.list_vdis()).sound] == [taken]


@pytest.mark.parametrize("size", [1, OBJECT - 1, OBJECT, OBJECT + 1, 2 * OBJECT, 8 * OBJECT - 512])
async def test_a_vdi_is_made_with_a_size_of_its_own_that_needs_as_many_objects(size: int) -> None:
    asked: list[int] = []

    def watch(request: RequestHeader) -> None:
        if request.opcode == Opcode.NEW_VDI:
            asked.append(VdiBody.unpack(request.body).vdi_size)

    async with Sheep(MemoryStore(), on_request=watch) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        for name in ("one", "other"):
            await NewVdi.create(cluster, name, Shape(size, OBJECT))

    assert len({*asked, size}) == 3
    assert {-(-each // OBJECT) for each in asked} == {-(-size // OBJECT)}
    assert all(each % 2 for each in asked), "nobody else makes a disk of an odd size"


async def test_the_mark_brings_the_wanted_size_and_nothing_else(cluster: Cluster) -> None:
    new = await NewVdi.create(cluster, "new", SHAPE)
    before = await cluster.read_inode(new.vdi_id)

    await new.mark()

    assert new.inode == replace(before, tag=UNFINISHED_TAG, vdi_size=SHAPE.size)
    assert await cluster.read_inode(new.vdi_id) == new.inode


async def test_a_cluster_that_makes_no_vdi_is_told() -> None:
    async with served(MemoryStore(), "new_vdi@1:error=FULL_VDI") as (_, cluster):
        with pytest.raises(RequestFailed, match="creating VDI 'new' failed") as caught:
            await NewVdi.create(cluster, "new", SHAPE)

        assert caught.value.result is Result.FULL_VDI
        assert not (await cluster.list_vdis()).sound


@pytest.mark.parametrize("release", [Release.V0_4, Release.V0_6])
async def test_an_object_size_that_an_old_cluster_does_not_know_is_refused(release: Release) -> None:
    async with served(MemoryStore(), release=release) as (sheep, cluster):
        with pytest.raises(VdiUnmakeable, match="objects of 4194304 bytes, which are all that this cluster knows"):
            await NewVdi.create(cluster, "new", SHAPE)

        assert not sheep.requests[Opcode.NEW_VDI]


@pytest.mark.parametrize("release", [Release.V0_4, Release.V0_6])
async def test_erasure_coding_that_an_old_cluster_does_not_know_is_refused(release: Release) -> None:
    async with served(MemoryStore(), release=release) as (sheep, cluster):
        with pytest.raises(RedundancyUnkeepable, match=r"erasure coding \(0x42\), which this cluster does not know"):
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


async def test_a_vdi_of_many_objects_is_removed_whole() -> None:
    store, count = MemoryStore(), 2500
    every_third = np.arange(0, count, 3, dtype=np.uint32)
    async with served(store) as (_, cluster):
        new = await NewVdi.create(cluster, "new", Shape(count * OBJECT, OBJECT), expected=every_third)
        await new.mark()
        for idx in every_third.tolist():
            await new.create_object(idx, bytes(512), 0)
        assert len(data_objects(store)) == len(every_third)

        await new.remove(cluster)

        # A server of 1.0 keeps an inode that still names objects.
        assert not (await cluster.read_owners(new.inode.vdi_id, count)).any()
        assert not await cluster.has_vdi("new")
    assert not data_objects(store)


async def test_objects_are_named_some_ahead_in_one_request(cluster: Cluster) -> None:
    count = 700
    new = await NewVdi.create(
        cluster, "new", Shape(count * OBJECT, OBJECT), expected=np.arange(0, count, 2, dtype=np.uint32)
    )
    await new.mark()

    await new.create_object(0, bytes(512), 0)

    named = np.flatnonzero(await cluster.read_owners(new.inode.vdi_id, count))
    assert named.tolist() == list(range(0, 512, 2))


async def test_entries_of_others_are_never_written(cluster: Cluster, sheep: Sheep) -> None:
    owners = np.array([5, 5, 0, 5, 0, 0, 5, 5], np.uint32)
    base = await make_base(cluster, owners)
    new = await NewVdi.create(
        cluster, "new", SHAPE, Parent(base, owners), expected=np.array([0, 1, 4, 5, 7], np.uint32)
    )

    await new.mark()
    requests = sheep.requests
    before = requests[Opcode.WRITE_OBJ]

    await new.create_object(0, bytes(OBJECT), 0)

    own = new.inode.vdi_id
    assert (await cluster.read_owners(own, OBJECTS)).tolist() == [own, own, 0, 5, own, own, 5, own]
    # 0 and 1, 4 and 5, 7: between them are entries of the base.
    assert requests[Opcode.WRITE_OBJ] - before == 3


async def test_a_table_that_is_laid_out_is_that_of_the_end(cluster: Cluster) -> None:
    owners = np.array([5, 5, 0, 5, 0, 0, 5, 5], np.uint32)
    base = await make_base(cluster, owners)
    new = await NewVdi.create(cluster, "new", SHAPE, Parent(base, owners, keep=6), np.array([0, 4, 7], np.uint32))
    await new.mark()

    await new.lay_out()

    own = new.inode.vdi_id
    assert (await cluster.read_owners(own, OBJECTS)).tolist() == [own, 5, 0, 5, own, 0, 0, own]


async def test_an_object_that_was_named_and_did_not_come_is_an_error(cluster: Cluster) -> None:
    new = await NewVdi.create(cluster, "new", SHAPE, expected=np.array([0, 1, 2], np.uint32))
    await new.mark()
    for idx in (0, 2):
        await new.create_object(idx, bytes(512), 0)

    with pytest.raises(ChangedMeanwhile, match="it does not have object 1 any more"):
        await new.publish()

    assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG


async def test_an_old_cluster_deletes_by_its_old_request() -> None:
    async with served(MemoryStore(), release=Release.V0_4) as (sheep, cluster):
        new = await NewVdi.create(cluster, "new", Shape(1 << 22, 1 << 22))

        await new.remove(cluster)

        assert not await cluster.has_vdi("new")
        assert (sheep.requests[Opcode.DEL_VDI_OLD], sheep.requests[Opcode.DEL_VDI]) == (1, 0)


async def make_base(cluster: Cluster, owners: Owners) -> Inode:
    """Make a VDI whose objects are somebody's."""
    vdi_id = await cluster.create_vdi("base", OBJECTS * OBJECT, block_size_shift=SHIFT)
    await cluster.write_object(inode_oid(vdi_id), owners.tobytes(), TABLE_OFFSET, copies=1)
    return await cluster.find_vdi("base")


async def test_a_vdi_that_somebody_else_made_in_its_place_is_not_removed() -> None:
    store = MemoryStore()
    async with served(store) as (sheep, cluster):
        new = await make_unfinished(cluster)
        await delete_as_dog(cluster, "new")
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
        await delete_as_dog(cluster, "new")

        await new.remove(cluster)

        assert not data_objects(store)


async def test_objects_that_came_after_somebody_else_deleted_their_vdi_are_removed() -> None:
    store = MemoryStore()
    async with served(store) as (_, cluster):
        new = await NewVdi.create(cluster, "new", SHAPE, expected=np.array([0, 1], np.uint32))
        await new.mark()
        await new.create_object(0, noise(0, OBJECT), 0)
        await delete_as_dog(cluster, "new")
        await new.create_object(1, noise(1, OBJECT), 0)

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


def test_only_a_working_vdi_of_the_mark_is_unfinished() -> None:
    left = Inode("new", 5, OBJECT, tag=UNFINISHED_TAG)

    assert is_unfinished(left)
    assert not is_unfinished(replace(left, tag=""))
    assert not is_unfinished(replace(left, snap_ctime=1))
    assert not is_unfinished(replace(left, store_policy=1))
