"""Which snapshot a VDI in a cluster equals: what a restore wrote of it counts as long as nobody can have changed it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from asyncbackup import Cluster, Volume, connect
from asyncbackup.engine.base import Lineage
from asyncbackup.engine.lineage import (
    examine_vdi,
    find_equal_snapshot,
    find_lineage,
    find_snapshot_below,
    read_origin,
    write_origin,
)
from asyncbackup.errors import HalfApplied, InodeCorrupt, RequestFailed
from asyncbackup.format.identity import Identity, time_text
from asyncbackup.format.replica import Applying, Origin, applying_key, origin_key
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.wire import messages
from asyncbackup.wire.inode import SIZE_OFFSET, Inode
from asyncbackup.wire.oid import inode_oid
from tests.disks import OBJECT, OBJECTS, make_disk, noise

IDENTITY = Identity("disk", "a6c1f0", "2026-11-24T03:00:00.000000001Z", "2025-01-02T03:04:05.000000006Z", 3, "monday")


@dataclass
class Replica:
    """VDI disk: its working VDI stands on snapshot b, which is said to equal IDENTITY."""

    cluster: Cluster
    store: MemoryStore
    origin: Origin

    async def inode(self, snapshot: str | None = None) -> Inode:
        return await self.cluster.find_vdi("disk", snapshot)


async def say(cluster: Cluster, inode: Inode, *, snapshot: str | None) -> Origin:
    created = time_text(inode.create_time)
    assert created is not None
    origin = Origin(IDENTITY, inode.vdi_size, created, snapshot, assumed=False)
    await write_origin(cluster, inode, origin)
    return origin


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        b = await cluster.find_vdi("disk", "b")
        yield Replica(cluster, store, await say(cluster, b, snapshot=time_text(b.snap_ctime)))


async def test_a_snapshot_equals_its_origin(replica: Replica) -> None:
    assert await find_lineage(replica.cluster, await replica.inode("b")) == Lineage(IDENTITY)


async def test_a_snapshot_without_an_origin_equals_nothing(replica: Replica) -> None:
    assert await find_lineage(replica.cluster, await replica.inode("a")) is None


async def test_a_working_vdi_equals_its_snapshot_as_long_as_nothing_was_written(replica: Replica) -> None:
    assert await find_lineage(replica.cluster, await replica.inode()) == Lineage(IDENTITY)

    await (await Volume.open(replica.cluster, "disk")).write(0, noise(1, 512))

    assert await find_lineage(replica.cluster, await replica.inode()) is None


async def test_a_working_vdi_that_was_resized_equals_nothing(replica: Replica) -> None:
    inode = await replica.inode()
    size = (inode.vdi_size + OBJECT).to_bytes(8, "little")
    await replica.cluster.write_object(inode_oid(inode.vdi_id), size, SIZE_OFFSET, copies=1)

    assert await find_lineage(replica.cluster, await replica.inode()) is None


async def test_a_snapshot_that_somebody_else_took_may_have_been_written_to_before(replica: Replica) -> None:
    await say(replica.cluster, await replica.inode(), snapshot=None)
    await replica.cluster.create_snapshot("disk", "c")

    lineage = await find_lineage(replica.cluster, await replica.inode("c"))

    assert lineage is not None
    assert lineage.identity == IDENTITY
    assert "may have been written to between its restore" in lineage.doubt


async def test_an_origin_of_another_size_is_doubted(replica: Replica) -> None:
    b = await replica.inode("b")
    await write_origin(replica.cluster, b, replace(replica.origin, size=b.vdi_size + 1))

    lineage = await find_lineage(replica.cluster, b)

    assert lineage is not None
    assert "it was resized since" in lineage.doubt


async def test_an_origin_of_another_vdi_that_had_the_id_before_says_nothing(replica: Replica) -> None:
    b = await replica.inode("b")
    await write_origin(replica.cluster, b, replace(replica.origin, created="2001-01-01T00:00:00.000000001Z"))

    assert await read_origin(replica.cluster, b) is None


async def test_an_origin_that_is_damaged_is_told(replica: Replica) -> None:
    b = await replica.inode("b")
    await replica.cluster.write_attribute("disk", origin_key(b.vdi_id), replica.origin.encode()[:-3])

    with pytest.raises(
        InodeCorrupt, match=r"its attribute 'asyncbackup.origin.[0-9a-f]+' was not written by a restore"
    ):
        await find_lineage(replica.cluster, b)


async def test_a_working_vdi_to_which_backups_are_being_applied_is_refused_whatever_is_wanted(replica: Replica) -> None:
    inode = await replica.inode()
    created = time_text(inode.create_time)
    assert created is not None
    applying = Applying((), created, None, None, is_complete=False, run="0" * 32)
    await replica.cluster.write_attribute("disk", applying_key(inode.vdi_id), applying.encode())

    with pytest.raises(HalfApplied, match="VDI 'disk' is half written"):
        await examine_vdi(replica.cluster, inode, None)
    assert await find_lineage(replica.cluster, await replica.inode("b")) == Lineage(IDENTITY)


async def test_of_what_is_itself_wanted_no_attribute_is_read(replica: Replica) -> None:
    b = await replica.inode("b")
    identity = await replica.cluster.identify(b)
    await replica.cluster.write_attribute("disk", origin_key(b.vdi_id), b"nonsense")

    assert (await examine_vdi(replica.cluster, b, identity)).lineage is None
    assert (await examine_vdi(replica.cluster, b, None)).lineage is None


async def test_the_snapshot_below_is_none_once_it_is_deleted(replica: Replica) -> None:
    inode = await replica.inode()
    found = await find_snapshot_below(replica.cluster, inode)
    assert found is not None
    assert found.tag == "b"
    zeros = bytes(4 * OBJECTS)
    await replica.cluster.write_object(inode_oid(found.vdi_id), zeros, 4664, copies=1)
    await replica.cluster.expect_success(messages.delete_vdi("disk", tag="b"), "deleting it")

    assert await find_snapshot_below(replica.cluster, inode) is None
    assert await find_equal_snapshot(replica.cluster, inode) is None


async def test_a_vdi_without_snapshots_stands_on_none(replica: Replica) -> None:
    await replica.cluster.create_vdi("alone", OBJECT)

    assert await find_snapshot_below(replica.cluster, await replica.cluster.find_vdi("alone")) is None


@pytest.mark.parametrize(("result", "is_told"), [("NO_SUPPORT", False), ("INVALID_PARMS", False), ("EIO", True)])
async def test_a_server_without_attributes_says_nothing(replica: Replica, result: str, *, is_told: bool) -> None:
    script = [Fault.parse(f"get_vdi_attr@1+:error={result}")]
    async with Sheep(replica.store, faults=script) as sheep, connect(sheep.host, sheep.port) as cluster:
        b = await cluster.find_vdi("disk", "b")
        if is_told:
            with pytest.raises(RequestFailed, match="looking up attribute"):
                await read_origin(cluster, b)
        else:
            assert await read_origin(cluster, b) is None
