"""Which nodes are kept, as the list of them changes, and which one is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from asyncbackup.client import ClientOptions
from asyncbackup.client.node import Node
from asyncbackup.client.nodes import Nodes
from asyncbackup.client.pace import PaceOptions
from asyncbackup.client.router import Counts, Router
from asyncbackup.client.total_pace import TotalPace
from asyncbackup.errors import ConnectionLost, Unreachable
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import NodeReply, RequestHeader, read_object, vdi_info
from asyncbackup.wire.nodes import Node as WireNode
from asyncbackup.wire.nodes import pack_node
from tests.faults.proxy import answer, receive, serve
from tests.holding import PATIENT, QUICK, Holding, all_nodes, reads, routed, two, unanswered
from tests.waiting import turn, until

READ = read_object(1, 0, 4)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.client.nodes._REFRESH_PAUSE_S", 0.0)


def listed(port: int, zone: int = 1) -> WireNode:
    return WireNode("127.0.0.1", port, zone, 128)


class Members:
    """Servers of which the first one is the gateway, and answers what the test says that the nodes are."""

    def __init__(self, servers: list[Holding], ports: list[int]) -> None:
        self.servers = servers
        self.ports = ports

    @property
    def gateway(self) -> Holding:
        return self.servers[0]

    def set_members(self, *places: int) -> None:
        """Have all servers say that the nodes are those at ``places``, in a newer epoch."""
        for server in self.servers:
            server.nodes = [listed(self.ports[place], place) for place in places]
            server.epoch += 1

    def addresses(self, *places: int) -> set[tuple[str, int]]:
        return {("127.0.0.1", self.ports[place]) for place in places}


@asynccontextmanager
async def members(
    *places: int, count: int = 3, named: int = 1, options: ClientOptions = QUICK
) -> AsyncIterator[tuple[Members, Router]]:
    """Serve ``count`` nodes, of which those at ``places`` are in the list, and the first ``named`` are gateways."""
    async with AsyncExitStack() as stack:
        servers = [Holding() for _ in range(count)]
        ports = [await stack.enter_async_context(serve(server.handle)) for server in servers]
        made = Members(servers, ports)
        made.set_members(*places)
        router = await stack.enter_async_context(routed(*ports[:named], options=options))
        await until(lambda: all(node.is_open for node in all_nodes(router)))
        yield made, router


async def show_epoch(made: Members, router: Router) -> None:
    """Have the gateway answer something: each answer names the epoch."""
    call = asyncio.create_task(router.call(reads(1), Counts()))
    answering = await held_by(made)
    answering.answer(1)
    await call


async def held_by(made: Members) -> Holding:
    """Wait until one of the servers got a request, and give that."""
    await until(lambda: any(server.held for server in made.servers))
    (server,) = [server for server in made.servers if server.held]
    return server


def kept(router: Router) -> set[tuple[str, int]]:
    return {(node.host, node.port) for node in all_nodes(router)}


def keepers() -> int:
    """Count the tasks that keep a node."""
    return sum(task.get_name().endswith("Node.keep") for task in asyncio.all_tasks())


def node_at(made: Members, router: Router, place: int) -> Node:
    return router.nodes.named(("127.0.0.1", made.ports[place]))


async def test_the_first_gateway_that_answers_is_used() -> None:
    async with Sheep(MemoryStore()) as sheep, routed(1, sheep.port) as router:
        assert router.nodes.gateway.port == sheep.port


async def test_that_no_gateway_answers_is_the_error_of_the_last() -> None:
    nodes = Nodes([("127.0.0.1", 1), ("127.0.0.1", 2)], QUICK)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:2"):
        await nodes.open()

    await nodes.close()


async def test_the_nodes_that_the_gateway_lists_are_used_as_well() -> None:
    async with members(0, 1, 2) as (made, router):
        assert kept(router) == made.addresses(0, 1, 2)
        assert [server.connections for server in made.servers] == [1, 1, 1]


async def test_a_node_that_joins_is_used_once_an_answer_names_the_newer_epoch() -> None:
    async with members(0, 1) as (made, router):
        made.set_members(0, 1, 2)
        await show_epoch(made, router)

        await until(lambda: kept(router) == made.addresses(0, 1, 2))
        await until(lambda: node_at(made, router, 2).is_open)


async def test_while_the_epoch_stays_the_list_is_not_read_again() -> None:
    async with members(0, 1) as (made, router):
        before = made.gateway.lists
        await show_epoch(made, router)
        await turn()

        assert made.gateway.lists == before


async def test_a_node_that_leaves_is_closed_and_not_kept_any_more() -> None:
    async with members(0, 1) as (made, router):
        leaving = node_at(made, router, 1)
        before = keepers()
        made.set_members(0)
        await show_epoch(made, router)

        await until(lambda: kept(router) == made.addresses(0))
        await until(lambda: not leaving.is_open)
        await until(lambda: keepers() == before - 1)


async def test_a_node_that_is_at_another_address_now_is_used_there() -> None:
    async with members(0, 1) as (made, router):
        made.set_members(0, 2)
        await show_epoch(made, router)

        await until(lambda: kept(router) == made.addresses(0, 2))
        await until(lambda: node_at(made, router, 2).is_open)


async def test_what_was_under_way_to_a_node_that_leaves_goes_to_another() -> None:
    async with members(0, 1, options=PATIENT) as (made, router):
        holders = router.nodes.placement.holders
        oid = next(oid for oid in range(1, 1000) if set(holders(oid)) == made.addresses(1))
        (request,) = reads(oid)
        call = asyncio.create_task(router.call([request], Counts()))
        assert await held_by(made) is made.servers[1]
        made.set_members(0)
        router.nodes.note_change()
        await until(lambda: bool(made.gateway.held))
        made.gateway.answer(oid)
        await call

    assert bytes(request.payload) == oid.to_bytes(4, "big")


async def test_gateways_stay_in_use_whether_they_are_listed_or_not() -> None:
    async with members(0, named=2) as (made, router):
        assert kept(router) == made.addresses(0, 1)


async def test_where_the_gateway_is_not_in_its_own_list_only_the_gateways_are_used() -> None:
    async with members(1, 2) as (made, router):
        assert kept(router) == made.addresses(0)


async def test_trouble_with_a_node_has_the_list_read_again() -> None:
    async with members(0, 1) as (made, router):
        made.set_members(0)
        node_at(made, router, 1).set_aside(Unreachable("here", "it hangs"))

        await until(lambda: kept(router) == made.addresses(0))


async def test_while_the_gateway_is_away_another_node_is_asked() -> None:
    async with members(0, 1) as (made, router):
        gateway = router.nodes.gateway
        gateway.set_aside(Unreachable("here", "it hangs"))

        assert router.nodes.gateway is node_at(made, router, 1)
        assert router.nodes.choose(vdi_info("disk")) is node_at(made, router, 1)


async def test_where_no_node_is_open_one_that_may_open_soon_is_chosen() -> None:
    nodes = Nodes([("127.0.0.1", 1), ("127.0.0.1", 2)], QUICK)
    first, second = nodes._nodes.values()
    first.trouble = Unreachable("here", "it is gone")

    assert nodes.choose(READ) is second


async def test_a_node_that_is_avoided_is_not_chosen_unless_there_is_no_other() -> None:
    async with members(0, 1) as (_, router):
        first, second = all_nodes(router)

        assert router.nodes.choose(READ, {first}) is second
        assert router.nodes.choose(READ, {second}) is first
        assert router.nodes.choose(READ, {first, second}) in (first, second)
        assert router.nodes.has_other({first})
        assert not router.nodes.has_other({first, second})


async def test_no_more_nodes_are_used_than_there_are_descriptors_for() -> None:
    async with AsyncExitStack() as stack:
        server = Holding()
        port = await stack.enter_async_context(serve(server.handle))
        server.nodes = [WireNode(f"127.9.{n >> 8}.{n & 255}", 1, n, 1) for n in range(1000)]
        server.nodes.append(listed(port))
        router = await stack.enter_async_context(routed(port))

        assert len(all_nodes(router)) == 256
        assert ("127.0.0.1", port) in kept(router)


async def test_nodes_take_turns_where_there_is_no_room_for_all() -> None:
    options = replace(PATIENT, connections=None)
    async with two(options) as (first, second, router):
        router.nodes.pace = TotalPace(PaceOptions(start_bytes=1, least_bytes=1, most_bytes=1))
        calls = [asyncio.create_task(router.call(reads(oid), Counts())) for oid in range(1, 7)]
        places: list[int] = []
        for _ in calls:
            await until(lambda: bool(first.held or second.held))
            await turn()
            assert len(first.held) + len(second.held) == 1
            server = first if first.held else second
            places.append((first, second).index(server))
            server.answer(server.objects[-1])
        await asyncio.gather(*calls)

    assert places in ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0])


async def test_a_node_that_is_set_aside_gives_its_turn_away() -> None:
    options = replace(PATIENT, connections=None)
    async with two(options) as (first, second, router):
        router.nodes.pace = TotalPace(PaceOptions(start_bytes=1, least_bytes=1, most_bytes=1))
        calls = [asyncio.create_task(router.call(reads(oid), Counts())) for oid in range(1, 5)]
        await until(lambda: bool(first.held or second.held))
        lost, left = (first, second) if first.held else (second, first)
        next(node for node in all_nodes(router) if node.pace.in_flight).set_aside(Unreachable("here", "it hangs"))
        for _ in calls:
            await until(lambda: bool(left.held))
            left.answer(left.objects[-1])
        await asyncio.gather(*calls)

    assert len(lost.came) == 1


async def test_a_cluster_that_recovers_gets_half_as_much_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.client.nodes._RECOVERY_PAUSE_S", 0.01)
    recovering = True

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await receive(reader)
            if header.opcode == Opcode.STAT_RECOVERY:
                writer.write(answer(header, bytes([recovering]) + bytes(23)))
            else:
                writer.write(answer(header, bytes(80)))

    async with serve(handle) as port, routed(port) as router:
        await until(lambda: router.nodes.gateway.share == 0.5)
        recovering = False
        await until(lambda: router.nodes.gateway.share == 1.0)


async def test_a_node_that_joins_during_a_recovery_gets_half_as_much_to_do_too() -> None:
    async with members(0) as (made, router):
        router.nodes._ease(is_recovering=True)
        made.set_members(0, 1)
        router.nodes.note_change()
        await until(lambda: kept(router) == made.addresses(0, 1))

        assert node_at(made, router, 1).share == 0.5


# Closing


async def test_what_waits_when_the_nodes_are_closed_ends_at_once_with_an_error_of_its_own() -> None:
    async with two() as (first, second, router):
        calls = [asyncio.create_task(router.call(reads(oid), Counts())) for oid in range(8)]
        await until(lambda: len(first.held) + len(second.held) == 4)
        await router.nodes.close()

        errors = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(error, ConnectionLost) and error.reason == "closed by us" for error in errors)
    assert len(set(map(id, errors))) == 8


async def test_what_waits_to_be_repeated_ends_when_the_nodes_are_closed() -> None:
    patient = replace(PATIENT, retry_delay_s=5)
    async with Sheep(MemoryStore()) as sheep, routed(sheep.port, options=patient) as router:
        router.nodes.gateway.set_aside(Unreachable("here", "it is gone"))
        call = asyncio.create_task(router.call(reads(1), Counts()))
        await turn()
        await router.nodes.close()

        with pytest.raises(Unreachable):
            async with asyncio.timeout(2):
                await call


async def test_closing_can_be_cancelled_and_done_again() -> None:
    async with members(0, 1) as (_, router):
        closing = asyncio.create_task(router.nodes.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await router.nodes.close()

        assert closing.cancelled()
        assert not any(node.is_open for node in all_nodes(router))


async def test_an_opening_that_is_cancelled_leaves_nothing_open() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await receive(reader))
        await asyncio.Event().wait()

    seen: list[RequestHeader] = []
    async with serve(silent) as port:
        nodes = Nodes([("127.0.0.1", port)], QUICK)
        opening = asyncio.create_task(nodes.open())
        await until(lambda: bool(seen))
        opening.cancel()
        await asyncio.wait([opening])
        await nodes.close()

        assert opening.cancelled()
        assert unanswered(*nodes._nodes.values()) == 0


# Hostile lists


@asynccontextmanager
async def hostile(*strangers: WireNode, vnodes: int = 128, times: int = 1) -> AsyncIterator[tuple[Holding, Router]]:
    """Serve a gateway that lists itself and ``strangers``, all of them ``times`` times."""
    server = Holding()
    async with serve(server.handle) as port:
        server.nodes = [WireNode("127.0.0.1", port, 0, vnodes), *strangers] * times
        async with routed(port, options=PATIENT) as router:
            yield server, router


async def see_it_read(server: Holding, router: Router) -> None:
    for oid in range(5):
        (request,) = reads(oid)
        call = asyncio.create_task(router.call([request], Counts()))
        await until(lambda: bool(server.held))
        server.answer(oid)
        await call
        assert bytes(request.payload) == oid.to_bytes(4, "big")


async def test_a_ring_of_one_vnode_is_a_ring() -> None:
    async with hostile(vnodes=1) as (server, router):
        assert router.nodes.placement.holders(7) == [(router.nodes.gateway.host, router.nodes.gateway.port)]
        await see_it_read(server, router)


async def test_a_list_that_names_a_node_a_thousand_times_names_one_node() -> None:
    async with hostile(times=1000) as (server, router):
        assert len(all_nodes(router)) == 1
        await see_it_read(server, router)
        assert server.connections == 1


async def test_a_list_of_nodes_that_do_not_exist_does_no_harm() -> None:
    elsewhere = [WireNode("127.0.0.1", 1, zone, 65535) for zone in range(2000)]
    nowhere = [WireNode(f"127.9.{n >> 8}.{n & 255}", 1, n, 128) for n in range(4000)]
    async with hostile(*elsewhere, *nowhere) as (server, router):
        assert len(all_nodes(router)) == 256
        await see_it_read(server, router)


@pytest.mark.parametrize(("host", "port"), [("0.0.0.0", 0), ("ff02::1", 1), ("224.0.0.1", 1)])
async def test_addresses_that_no_node_can_have_do_no_harm(host: str, port: int) -> None:
    async with hostile(WireNode(host, port, 1, 128)) as (server, router):
        stranger = router.nodes.named((host, port))
        await until(lambda: stranger.trouble is not None)
        await see_it_read(server, router)


@pytest.mark.parametrize("said", [0, 1, 4])
async def test_a_list_of_another_length_than_is_said_is_not_used(said: int) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await receive(reader)
            entries = pack_node(listed(port)) + pack_node(listed(1))
            writer.write(answer(header, entries, body=NodeReply(said).pack()))

    async with serve(handle) as port, routed(port) as router:
        assert len(all_nodes(router)) == 1
        assert router.nodes.placement.addresses == []
