"""The creation and the deletion of a VDI, when the way to the cluster ends under them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from asyncbackup import ClientOptions, Cluster, connect
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi, Shape
from asyncbackup.errors import ClusterNotReady, PerhapsCreated, RequestFailed, VdiExists
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.wire.constants import HEADER_SIZE, Opcode
from asyncbackup.wire.messages import RequestHeader, VdiBody
from tests.disks import OBJECT
from tests.faults.proxy import serve

SHAPE = Shape(3 * OBJECT, OBJECT)
PATIENT = ClientOptions(connections=1, request_timeout_s=10, give_up_after_s=10, retry_delay_s=0)
AT_ONCE = ClientOptions(connections=1, request_timeout_s=0.5, give_up_after_s=0)
"""Gives up after the first attempt."""


@asynccontextmanager
async def served(
    *faults: str, options: ClientOptions = PATIENT, on_request: Callable[[RequestHeader], None] | None = None
) -> AsyncIterator[tuple[Sheep, Cluster]]:
    script = [Fault.parse(fault) for fault in faults]
    async with (
        Sheep(MemoryStore(), faults=script, on_request=on_request) as sheep,
        connect(sheep.host, sheep.port, options) as cluster,
    ):
        yield sheep, cluster


@asynccontextmanager
async def cut_before(opcode: Opcode, options: ClientOptions = PATIENT) -> AsyncIterator[tuple[Sheep, Cluster]]:
    """Serve a cluster whose connection ends in place of the first request of a kind, which never arrives."""
    seen: list[RequestHeader] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as stack:
            from_sheep, to_sheep = await asyncio.open_connection(sheep.host, sheep.port)
            stack.callback(to_sheep.close)
            while True:
                header = await reader.readexactly(HEADER_SIZE)
                request = RequestHeader.unpack(header)
                if request.opcode == opcode and not seen:
                    seen.append(request)
                    return
                to_sheep.write(header + await reader.readexactly(request.payload_length))
                answer = await from_sheep.readexactly(HEADER_SIZE)
                writer.write(answer + await from_sheep.readexactly(int.from_bytes(answer[12:16], "little")))

    async with Sheep(MemoryStore()) as sheep, serve(forward) as port, connect("127.0.0.1", port, options) as cluster:
        yield sheep, cluster
        assert seen


async def names(cluster: Cluster) -> list[str]:
    return [inode.name for inode in (await cluster.list_vdis()).sound]


@pytest.mark.parametrize("options", [PATIENT, AT_ONCE], ids=["repeated", "given up"])
async def test_a_vdi_whose_creation_was_carried_out_and_cut_is_ours(options: ClientOptions) -> None:
    async with served("new_vdi@1:reset", options=options) as (_, cluster):
        new = await NewVdi.create(cluster, "new", SHAPE)
        await new.mark()

        found = await cluster.find_vdi("new")
        assert (found.vdi_id, found.vdi_size, found.tag) == (new.vdi_id, SHAPE.size, UNFINISHED_TAG)
        assert await names(cluster) == ["new"]


async def test_a_creation_that_was_cut_before_it_arrived_is_repeated() -> None:
    async with cut_before(Opcode.NEW_VDI) as (sheep, cluster):
        new = await NewVdi.create(cluster, "new", SHAPE)
        await new.mark()

        assert (await cluster.find_vdi("new")).vdi_id == new.vdi_id
        assert sheep.requests[Opcode.NEW_VDI] == 1


def maker(size: int) -> tuple[list[Sheep], Callable[[RequestHeader], None]]:
    """Have another client make VDI new, of ``size`` bytes, when the first creation comes."""
    at: list[Sheep] = []

    def make(request: RequestHeader) -> None:
        if request.opcode == Opcode.NEW_VDI and at:
            at.pop()._cluster.volumes.new("new", VdiBody(vdi_size=size, block_size_shift=20))

    return at, make


@pytest.mark.parametrize("size", [SHAPE.size, OBJECT])
@pytest.mark.parametrize("options", [PATIENT, AT_ONCE], ids=["repeated", "given up"])
async def test_a_vdi_that_another_client_made_meanwhile_is_not_ours(options: ClientOptions, size: int) -> None:
    at, make = maker(size)
    async with served("new_vdi@1:reset", options=options, on_request=make) as (sheep, cluster):
        at.append(sheep)

        with pytest.raises(VdiExists, match="'new' exists already"):
            await NewVdi.create(cluster, "new", SHAPE)

        assert ((await cluster.find_vdi("new")).vdi_size, await names(cluster)) == (size, ["new"])


async def test_a_vdi_that_the_cluster_made_before_it_answered_otherwise_is_ours() -> None:
    async with served("new_vdi@1:reset", "new_vdi@2:error=EIO") as (_, cluster):
        new = await NewVdi.create(cluster, "new", SHAPE)

        assert (await cluster.find_vdi("new")).vdi_id == new.vdi_id


async def test_a_name_that_is_taken_and_found_free_again_is_told() -> None:
    async with served("new_vdi@1:error=AGAIN", "new_vdi@2:error=VDI_EXIST") as (_, cluster):
        with pytest.raises(RequestFailed, match="exists already"):
            await NewVdi.create(cluster, "new", SHAPE)


async def test_a_creation_that_nobody_answered_may_still_come() -> None:
    async with cut_before(Opcode.NEW_VDI, AT_ONCE) as (_, cluster):
        with pytest.raises(PerhapsCreated, match="a node may still carry out its creation"):
            await NewVdi.create(cluster, "new", SHAPE)


async def test_a_creation_of_which_the_cluster_says_nothing_later_may_have_been_carried_out() -> None:
    async with served("new_vdi@1:reset", "get_vdi_info@1+:error=EIO", options=AT_ONCE) as (_, cluster):
        with pytest.raises(PerhapsCreated, match=r"lost the connection.*looking up VDI 'new' failed"):
            await NewVdi.create(cluster, "new", SHAPE)


async def test_a_cluster_that_serves_nobody_made_nothing() -> None:
    async with served("new_vdi@1:error=WAIT_FOR_FORMAT") as (_, cluster):
        with pytest.raises(ClusterNotReady):
            await NewVdi.create(cluster, "new", SHAPE)


async def test_a_cluster_that_stops_serving_after_a_creation_was_cut_may_have_made_it() -> None:
    async with served("new_vdi@1:reset", "any@4+:error=WAIT_FOR_FORMAT") as (_, cluster):
        with pytest.raises(PerhapsCreated, match="is not serving"):
            await NewVdi.create(cluster, "new", SHAPE)


async def test_a_deletion_that_was_carried_out_and_cut_is_done() -> None:
    async with served("del_vdi@1:reset") as (sheep, cluster):
        new = await NewVdi.create(cluster, "new", SHAPE)

        await new.remove(cluster)

        assert (await names(cluster), sheep.requests[Opcode.DEL_VDI]) == ([], 1)


async def test_a_deletion_that_was_cut_before_it_arrived_is_asked_for_again() -> None:
    async with cut_before(Opcode.DEL_VDI) as (sheep, cluster):
        new = await NewVdi.create(cluster, "new", SHAPE)

        await new.remove(cluster)

        assert (await names(cluster), sheep.requests[Opcode.DEL_VDI]) == ([], 1)
