from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from asyncbackup import ClientOptions, Cluster, connect_any
from asyncbackup.errors import AsyncBackupError
from asyncbackup.sheep import Sheep, SheepCluster
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import (
    NodeReply,
    RequestHeader,
    new_vdi,
    node_list,
    read_object,
    read_replica,
    stat_cluster,
)
from asyncbackup.wire.nodes import unpack_nodes
from asyncbackup.wire.oid import data_oid, inode_oid
from tests.unit.sheep.plain_client import Client
from tests.waiting import turn, until

OBJECT = 1 << 20
OBJECTS = 24
OPTIONS = ClientOptions(request_timeout_s=10, give_up_after_s=10, retry_delay_s=0)


@asynccontextmanager
async def connected(sheep: SheepCluster) -> AsyncIterator[Cluster]:
    alive = [address for node, address in enumerate(sheep.addresses) if sheep._cluster.members[node].is_present]
    async with connect_any(alive, OPTIONS) as cluster:
        yield cluster


@asynccontextmanager
async def asked(sheep: SheepCluster, node: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*sheep.addresses[node])
    yield Client(reader, writer)
    writer.transport.abort()


async def filled(sheep: SheepCluster) -> int:
    """Make a VDI whose objects all exist; give its id."""
    async with connected(sheep) as cluster:
        made = await cluster.expect_success(new_vdi("disk", OBJECTS * OBJECT, block_size_shift=20), "making it")
        vdi = cluster.vdi_id_of(made)
        for idx in range(OBJECTS):
            await write(cluster, vdi, idx, b"old")
    return vdi


async def write(cluster: Cluster, vdi: int, idx: int, data: bytes) -> None:
    await cluster.create_object(data_oid(vdi, idx), data, 0, copies=2)


async def read(cluster: Cluster, vdi: int, idx: int) -> bytes:
    into = bytearray(4)
    await cluster.read_object(data_oid(vdi, idx), memoryview(into))
    return bytes(into).rstrip(b"\0")


def replicas(sheep: SheepCluster, oid: int) -> list[int]:
    """Give the nodes whose stores hold an object."""
    return [node for node, store in enumerate(sheep.stores) if store.get(oid) is not None]


def is_spread(sheep: SheepCluster, vdi: int, nodes: set[int]) -> bool:
    """Tell whether each object is on two of ``nodes``, and on no other one that is present."""
    present = {node for node, member in enumerate(sheep._cluster.members) if member.is_present}
    places = [set(replicas(sheep, data_oid(vdi, idx))) & present for idx in range(OBJECTS)]
    return all(len(place) == 2 and place <= nodes for place in places)


async def test_objects_have_as_many_replicas_as_their_vdi_says() -> None:
    async with SheepCluster(4, copies=2) as sheep, connected(sheep) as cluster:
        twice = await cluster.create_vdi("twice", OBJECT)
        thrice = await cluster.create_vdi("thrice", OBJECT, copies=3)

        assert len(replicas(sheep, inode_oid(twice))) == 2
        assert len(replicas(sheep, inode_oid(thrice))) == 3


async def test_a_client_of_all_nodes_has_no_read_forwarded() -> None:
    async with SheepCluster(3) as sheep:
        vdi = await filled(sheep)
        async with connected(sheep) as cluster:
            await until(lambda: all(node.is_open for node in cluster.nodes._nodes.values()))
            await cluster.find_vdi("disk")
            before = sheep.forwarded_reads
            for idx in range(OBJECTS):
                assert await read(cluster, vdi, idx) == b"old"

        assert sheep.forwarded_reads == before


@pytest.mark.parametrize("node", range(3))
async def test_every_node_serves_what_another_one_holds(node: int) -> None:
    async with SheepCluster(3) as sheep:
        vdi = await filled(sheep)
        missing = next(idx for idx in range(OBJECTS) if node not in replicas(sheep, data_oid(vdi, idx)))
        async with asked(sheep, node) as client:
            header, data = await client.ask(read_object(data_oid(vdi, missing), 0, 3))

    assert (header.result, data) == (Result.SUCCESS, b"old")
    assert sheep.forwarded_reads == 1


async def test_a_replica_is_read_where_it_is_alone_and_only_in_the_present_epoch() -> None:
    async with SheepCluster(3) as sheep:
        oid = data_oid(await filled(sheep), 0)
        here, *_ = replicas(sheep, oid)
        (elsewhere,) = {0, 1, 2} - set(replicas(sheep, oid))
        results = []
        for node, epoch in [(here, 1), (elsewhere, 1), (here, 0), (here, 2)]:
            async with asked(sheep, node) as client:
                header, _ = await client.ask(read_replica(oid, 0, 3)._replace(epoch=epoch))
                results.append(header.result)

    assert results == [Result.SUCCESS, Result.NO_OBJ, Result.OLD_NODE_VER, Result.NEW_NODE_VER]


async def test_a_killed_node_is_gone_from_the_list_and_begins_an_epoch() -> None:
    async with SheepCluster(3) as sheep:
        sheep.kill(1)
        async with asked(sheep, 0) as client:
            header, entries = await client.ask(node_list(800))

    assert header.epoch == 2
    assert NodeReply.unpack(header.body).nr_nodes == 2
    assert [node.port for node in unpack_nodes(entries)] == [sheep.nodes[0].port, sheep.nodes[2].port]


async def test_the_log_has_every_epoch_that_fits() -> None:
    async with SheepCluster(3) as sheep:
        sheep.kill(1)
        await sheep.restart(1)
        async with asked(sheep, 0) as client:
            request = stat_cluster(0x0A)
            _, log = await client.ask(request._replace(capacity=3 * request.capacity))

    size = len(log) // 3
    assert [int.from_bytes(log[start + 16 : start + 20], "little") for start in range(0, 3 * size, size)] == [3, 2, 1]


@pytest.mark.parametrize("node", range(3))
async def test_the_others_make_up_for_the_replicas_of_a_killed_node(node: int) -> None:
    async with SheepCluster(3) as sheep:
        vdi = await filled(sheep)

        sheep.kill(node)

        assert is_spread(sheep, vdi, {0, 1, 2} - {node})


async def test_a_restarted_node_drops_what_changed_and_holds_its_replicas_again() -> None:
    async with SheepCluster(3) as sheep:
        vdi = await filled(sheep)
        held = [idx for idx in range(OBJECTS) if 1 in replicas(sheep, data_oid(vdi, idx))]
        sheep.kill(1)
        async with connected(sheep) as cluster:
            await write(cluster, vdi, held[0], b"new")
            await cluster.remove_object(data_oid(vdi, held[1]))
        await sheep.restart(1)

        stored = sheep.stores[1].get(data_oid(vdi, held[0]))
        assert stored is not None
        assert bytes(stored[:3]) == b"new"
        assert replicas(sheep, data_oid(vdi, held[1])) == []
        assert [idx for idx in range(OBJECTS) if 1 in replicas(sheep, data_oid(vdi, idx))] == [held[0], *held[2:]]


async def test_what_had_one_replica_is_missing_until_its_node_comes_back() -> None:
    async with SheepCluster(2, copies=1) as sheep:
        vdi = await filled(sheep)
        # The node without the inode: the VDI stays known.
        node = 1 - replicas(sheep, inode_oid(vdi))[0]
        lost = next(idx for idx in range(OBJECTS) if replicas(sheep, data_oid(vdi, idx)) == [node])
        sheep.kill(node)
        async with connected(sheep) as cluster:
            with pytest.raises(AsyncBackupError, match="no such object"):
                await read(cluster, vdi, lost)
            await sheep.restart(node)
            assert await read(cluster, vdi, lost) == b"old"


async def test_a_stalled_node_stays_in_the_cluster_and_answers_when_it_goes_on() -> None:
    async with SheepCluster(3) as sheep, asked(sheep, 1) as client, asked(sheep, 0) as other:
        await client.ask(node_list(800))
        sheep.stall(1)
        client.send(node_list(800))
        header, _ = await other.ask(node_list(800))
        await turn(50)
        assert sheep.nodes[1].requests[Opcode.GET_NODE_LIST] == 1
        assert (header.epoch, NodeReply.unpack(header.body).nr_nodes) == (1, 3)

        sheep.resume(1)

        assert (await client.receive())[0].result is Result.SUCCESS


@pytest.mark.parametrize("ends", ["kill", "resume"])
async def test_a_look_up_waits_for_a_stalled_node(ends: str) -> None:
    async with SheepCluster(3) as sheep:
        await filled(sheep)
        async with connected(sheep) as cluster:
            sheep.stall(1)
            looked_up = asyncio.create_task(cluster.find_vdi("disk"))
            await until(lambda: sheep.nodes[0].requests[Opcode.GET_VDI_INFO] > 1)
            await turn()
            assert not looked_up.done()

            getattr(sheep, ends)(1)

            assert (await looked_up).name == "disk"


async def test_a_write_waits_for_a_stalled_holder_and_a_read_does_not() -> None:
    async with SheepCluster(3) as sheep:
        vdi = await filled(sheep)
        idx = next(idx for idx in range(OBJECTS) if replicas(sheep, data_oid(vdi, idx)) == [0, 1])
        async with connected(sheep) as cluster:
            sheep.stall(1)
            assert await read(cluster, vdi, idx) == b"old"
            written = asyncio.create_task(write(cluster, vdi, idx, b"new"))
            await until(lambda: bool(sheep._shared[0].waiting))
            sheep.kill(1)
            await written

            assert await read(cluster, vdi, idx) == b"new"


async def test_a_node_can_be_killed_by_what_it_is_asked() -> None:
    def on_request(node: int, request: RequestHeader) -> None:
        if node == 1 and request.opcode == Opcode.READ_OBJ:
            sheep.kill(1)

    async with SheepCluster(3, on_request=on_request) as sheep:
        vdi = await filled(sheep)
        async with connected(sheep) as cluster:
            assert [await read(cluster, vdi, idx) for idx in range(OBJECTS)] == [b"old"] * OBJECTS

    assert sheep._cluster.membership.epoch == 2


async def test_an_address_that_is_taken_leaves_nothing_open() -> None:
    async with Sheep(SheepCluster(1).stores[0]) as taken:
        sheep = SheepCluster(3, port=taken.port - 1)
        with pytest.raises(OSError, match="in use"):
            await sheep.__aenter__()

        async with SheepCluster(1, port=taken.port - 1):
            pass
