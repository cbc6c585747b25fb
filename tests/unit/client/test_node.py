from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from asyncbackup.client import ClientOptions
from asyncbackup.client.connection import Attempt
from asyncbackup.client.node import _PAUSE_S, DEPTH, Node
from asyncbackup.client.objects import READ_SIZE
from asyncbackup.client.pace import LEAST_CHARGE
from asyncbackup.client.request import Request
from asyncbackup.client.total_pace import TotalPace
from asyncbackup.errors import AsyncBackupError, ConnectionLost, ProtocolViolation, Unreachable
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.sheep.release import Release
from asyncbackup.wire.constants import Result
from asyncbackup.wire.messages import node_list, read_object, vdi_info
from tests.faults.proxy import answer, proxy, receive, serve
from tests.holding import unanswered
from tests.waiting import turn, until

OPTIONS = ClientOptions(connections=3, connect_timeout_s=5, give_up_after_s=0)


class Told:
    """Keeps what a node tells."""

    def __init__(self) -> None:
        self.answered: list[Attempt] = []
        self.troubles: list[AsyncBackupError] = []
        self.pace = TotalPace()
        self.waiting: list[Node] = []

    def note_waiting(self, node: Node) -> None:
        self.waiting.append(node)

    def note_room(self) -> None:
        pass

    def note_answer(self, attempt: Attempt) -> None:
        assert attempt.latency_s > 0
        self.answered.append(attempt)

    def note_trouble(self, node: Node, error: AsyncBackupError) -> None:
        self.troubles.append(error)


def made(port: int, options: ClientOptions = OPTIONS, told: Told | None = None) -> Node:
    return Node("127.0.0.1", port, options, told or Told())


@asynccontextmanager
async def opened(port: int, options: ClientOptions = OPTIONS, told: Told | None = None) -> AsyncIterator[Node]:
    """Open a node that nobody keeps."""
    node = made(port, options, told)
    try:
        await node.open()
        yield node
    finally:
        await node.close()


@asynccontextmanager
async def kept(port: int, options: ClientOptions = OPTIONS, told: Told | None = None) -> AsyncIterator[Node]:
    """Open a node, and keep its connections as they should be."""
    async with opened(port, options, told) as node, anyio.create_task_group() as group:
        group.start_soon(node.keep)
        yield node
        group.cancel_scope.cancel()


def submit(node: Node, count: int = 1, size: int = 512) -> list[Attempt]:
    """Submit attempts that nobody waits for but the test."""
    attempts = [Attempt(Request(read_object(1, 0, size)), None, lambda _: None) for _ in range(count)]
    for attempt in attempts:
        node.submit(attempt)
    return attempts


def has_ended(attempt: Attempt) -> bool:
    return attempt.on_end is None


async def test_the_connections_that_are_asked_for_are_opened(sheep: Sheep) -> None:
    async with opened(sheep.port, replace(OPTIONS, connections=5)):
        await until(lambda: sheep.connections == 5)


async def test_connections_are_opened_as_the_pace_needs_them(sheep: Sheep) -> None:
    async with kept(sheep.port, replace(OPTIONS, connections=None)) as node:
        before = sheep.connections
        node.pace.limit = 40 * READ_SIZE
        attempts = submit(node, 100, READ_SIZE)

        await until(lambda: len(node.connections) > before)
        await until(lambda: all(map(has_ended, attempts)))


async def test_closing_closes_all_connections(sheep: Sheep) -> None:
    async with opened(sheep.port) as node:
        await node.close()
        await node.close()

        assert not node.is_open
        await until(lambda: sheep.connections == 0)


async def test_a_closed_node_opens_no_connection(sheep: Sheep) -> None:
    async with opened(sheep.port) as node:
        await node.close()

        with pytest.raises(ConnectionLost, match="closed by us"):
            await node.open()


@pytest.mark.parametrize("release", list(Release))
async def test_the_release_is_found_out(release: Release) -> None:
    async with Sheep(MemoryStore(), release=release) as sheep, opened(sheep.port) as node:
        assert node.versions.internal == release.value.internal_version
        assert node.versions.for_message(node_list(80)) == release.value.internal_version


async def test_an_unknown_release_is_left_open() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(answer(await receive(reader), result=Result.VER_MISMATCH))

    async with serve(handle) as port, opened(port, replace(OPTIONS, connections=1)) as node:
        assert node.versions.internal is None
        assert node.versions.for_message(node_list(80)) == 0x0A


async def test_a_connection_that_does_not_know_where_it_leads_is_no_peer(sheep: Sheep) -> None:
    async with opened(sheep.port) as node:
        first, second, _ = node.connections
        first.peer = second.peer = ("", 0)

        assert node.peers == {("127.0.0.1", sheep.port)}


async def test_a_lost_connection_is_opened_again_beside_the_others(sheep: Sheep) -> None:
    async with kept(sheep.port) as node:
        first, second, third = node.connections
        second.abort()
        (attempt,) = submit(node)

        await until(lambda: has_ended(attempt) and len(node.connections) == 3 and second not in node.connections)

        assert node.connections[:2] == [first, third]
        assert attempt.error is None
        await until(lambda: sheep.connections == 3)


async def test_a_server_that_takes_no_more_connections_is_used_over_those_it_took(sheep: Sheep) -> None:
    async with opened(sheep.port) as node:
        first, _second, third = node.connections
        assert sheep._server is not None
        sheep._server.close()
        first.abort()
        third.abort()

        await node.open()

        assert [connection.is_open for connection in node.connections] == [True]
        assert node.trouble is None


async def test_a_server_that_is_gone_is_set_aside() -> None:
    told = Told()
    async with Sheep(MemoryStore()) as sheep:
        node = made(sheep.port, told=told)
        await node.open()
    await until(lambda: not node.is_open)

    with pytest.raises(Unreachable, match="cannot reach a sheep at 127") as caught:
        await node.open()

    assert isinstance(caught.value.__cause__, OSError)
    assert told.troubles == [caught.value]
    (attempt,) = submit(node)
    assert isinstance(attempt.error, Unreachable)
    assert attempt.error is not caught.value, "each waiter gets an exception of its own"
    await node.close()


async def test_a_node_that_was_set_aside_is_probed_until_it_is_back(sheep: Sheep) -> None:
    async with proxy(sheep.port) as between, kept(between.port) as node:
        await until(lambda: len(between._writers) == 6)
        upstream, between.upstream = between.upstream, 1
        between.drop()
        await until(lambda: node.trouble is not None)
        between.upstream = upstream

        await until(lambda: node.trouble is None and node.is_open)
        (attempt,) = submit(node)
        await until(lambda: has_ended(attempt))

        assert attempt.error is None


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a node slept; it takes no time. The node is the only one that sleeps by way of anyio."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        await asyncio.sleep(0)

    monkeypatch.setattr("asyncbackup.client.node.anyio.sleep", sleep)
    return slept


async def test_probes_come_less_and_less_often_and_stop_when_the_node_answers(sheep: Sheep, slept: list[float]) -> None:
    async with proxy(sheep.port) as between, kept(between.port) as node:
        await until(lambda: len(between._writers) == 6)
        upstream, between.upstream = between.upstream, 1
        between.drop()
        await until(lambda: len(slept) > 9)
        assert [pause_s for pause_s in slept if pause_s != _PAUSE_S][:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

        between.upstream = upstream
        await until(lambda: node.is_open and node.trouble is None)
        await until(lambda: slept[-1] == _PAUSE_S)
        probes = len(slept)
        await turn()
        assert len(slept) == probes

        node.set_aside(Unreachable("here", "it hangs"))
        await until(lambda: len(slept) > probes)
        assert slept[probes] == 0.2, "trouble that is over counts no more"


async def test_a_node_that_is_away_for_hours_is_still_probed(sheep: Sheep, slept: list[float]) -> None:
    async with proxy(sheep.port) as between, kept(between.port) as node:
        for _ in range(1100):
            node.set_aside(Unreachable("here", "it is away"))
            await until(lambda: node.trouble is None)

        await until(lambda: node.is_open)


async def test_what_waits_ends_when_the_node_is_set_aside() -> None:
    async with serve(greet_and_hold) as port, opened(port, replace(OPTIONS, connections=1)) as node:
        attempts = submit(node, DEPTH + 2)

        node.set_aside(Unreachable("here", "it hangs"))

        assert all(map(has_ended, attempts))
        assert [type(attempt.error) for attempt in attempts] == [Unreachable] * (DEPTH + 2)
        assert len({id(attempt.error) for attempt in attempts}) == DEPTH + 2, "each waiter gets one of its own"
        assert (node.load, unanswered(node)) == (0, 0)


async def test_what_waits_ends_when_the_node_is_closed() -> None:
    async with serve(greet_and_hold) as port, opened(port, replace(OPTIONS, connections=1)) as node:
        attempts = submit(node, DEPTH + 2)

        await node.close()

        assert [type(attempt.error) for attempt in attempts] == [ConnectionLost] * (DEPTH + 2)


async def test_what_is_given_up_before_it_was_sent_is_never_sent() -> None:
    async with serve(greet_and_hold) as port, opened(port, replace(OPTIONS, connections=1)) as node:
        *_, waiting = submit(node, DEPTH + 1)
        before = node.load

        node.give_up(waiting)

        assert waiting.connection is None
        assert (node.load, unanswered(node)) == (before - LEAST_CHARGE, DEPTH)


async def test_a_node_hangs_that_answers_nothing_of_what_it_was_asked() -> None:
    async with serve(greet_and_hold) as port, opened(port, replace(OPTIONS, connections=1)) as node:
        assert not node.hangs(time.monotonic() + 1), "nothing was asked"
        submit(node)

        assert node.hangs(time.monotonic() + 1)
        assert not node.hangs(time.monotonic() - 1), "it has not been silent for so long"


async def test_bytes_under_way_are_bounded_by_the_pace() -> None:
    async with serve(greet_and_hold) as port, opened(port, replace(OPTIONS, connections=None)) as node:
        node.pace.limit = 4 * READ_SIZE
        submit(node, 10, READ_SIZE)

        assert node.pace.in_flight == 4 * READ_SIZE
        assert node.load == 10 * READ_SIZE


async def test_bytes_under_way_to_all_nodes_are_bounded_too() -> None:
    told = Told()
    async with serve(greet_and_hold) as port, opened(port, replace(OPTIONS, connections=None), told) as node:
        told.pace.limit = 4 * READ_SIZE
        told.pace.note_sent(0.0, READ_SIZE)
        submit(node, 10, READ_SIZE)

        assert (node.pace.in_flight, told.pace.in_flight) == (3 * READ_SIZE, 4 * READ_SIZE)
        assert set(told.waiting) == {node}


async def test_what_is_answered_or_lost_makes_room_for_all_nodes(sheep: Sheep) -> None:
    told = Told()
    async with opened(sheep.port, replace(OPTIONS, connections=None), told) as node:
        attempts = submit(node, 3, 512)
        await until(lambda: all(map(has_ended, attempts)))
        assert told.pace.in_flight == 0
        submit(node, 3, 512)
        assert told.pace.in_flight > 0
        node.set_aside(Unreachable("here", "it hangs"))

        assert told.pace.in_flight == 0


async def test_a_server_that_comes_back_is_greeted_anew() -> None:
    store = MemoryStore()
    async with Sheep(store, release=Release.V0_6) as old, proxy(old.port) as between, opened(between.port) as node:
        node.versions.use_older()
        async with Sheep(store, release=Release.V1_0) as new:
            between.upstream = new.port
            between.drop()
            await until(lambda: not node.is_open)

            await node.open()

            assert node.versions.internal == Release.V1_0.value.internal_version
            assert node.versions.for_message(vdi_info("disk")) == 2
            await until(lambda: new.connections == 3)


async def test_a_greeting_that_failed_is_made_again() -> None:
    connections = greetings = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, greetings
        connections += 1
        while True:
            header = await receive(reader)
            greetings += 1
            writer.write(answer(header, bytes(80), request_id=77 if greetings == 1 else None))

    async with serve(handle) as port:
        node = made(port)
        with pytest.raises(ProtocolViolation, match="request 77"):
            await node.open()
        node.trouble = None

        await node.open()

        assert node.versions.internal == 0x0A
        await until(lambda: connections == 1 + 3)
        await node.close()


async def test_those_who_want_it_opened_at_the_same_time_open_it_once(sheep: Sheep) -> None:
    async with opened(sheep.port) as node:
        node.connections[0].abort()

        await asyncio.gather(*(node.open() for _ in range(4)))

        assert len(node.connections) == 3
        await until(lambda: sheep.connections == 3)


async def test_an_opening_that_is_cancelled_fails_nobody_else(sheep: Sheep) -> None:
    node = made(sheep.port)
    first, second = asyncio.create_task(node.open()), asyncio.create_task(node.open())
    await asyncio.sleep(0)
    first.cancel()

    await second

    assert first.cancelled()
    assert node.is_open
    await node.close()


async def greet_and_hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the greeting, and nothing else."""
    writer.write(answer(await receive(reader), bytes(80)))
    await asyncio.Event().wait()
