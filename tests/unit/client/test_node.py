from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from asyncbackup.client import ClientOptions
from asyncbackup.client.node import Node
from asyncbackup.errors import ConnectionLost, ProtocolViolation, Unreachable
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.sheep.release import Release
from asyncbackup.wire.constants import Result
from asyncbackup.wire.messages import node_list, vdi_info
from tests.faults.proxy import answer, proxy, receive, serve
from tests.waiting import until

OPTIONS = ClientOptions(connections=3, connect_timeout_s=5)


def ignore() -> None:
    pass


@asynccontextmanager
async def opened(
    port: int, options: ClientOptions = OPTIONS, on_change: Callable[[], None] = ignore
) -> AsyncIterator[Node]:
    node = Node("127.0.0.1", port, options, on_change)
    try:
        await node.open()
        yield node
    finally:
        await node.close()


async def test_all_connections_are_opened(sheep: Sheep) -> None:
    async with opened(sheep.port, replace(OPTIONS, connections=5)) as node:
        await until(lambda: sheep.connections == 5)

        assert not node.is_short


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
        assert node.internal_version == release.value.internal_version
        assert node.version_for(node_list(80)) == release.value.internal_version


async def test_an_unknown_release_is_left_open() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(answer(await receive(reader), result=Result.VER_MISMATCH))

    async with serve(handle) as port, opened(port, replace(OPTIONS, connections=1)) as node:
        assert node.internal_version is None
        assert node.version_for(node_list(80)) == 0x0A


def of_version(version: int | None) -> Node:
    node = Node("there", 7000, OPTIONS, ignore)
    node.internal_version = version
    return node


VERSIONS = [0x0A, 0x09, 0x08, 0x07, 0x06, 0x05, None]


async def test_what_depends_on_the_release() -> None:
    nodes = [of_version(version) for version in VERSIONS]

    assert [node.may_trim for node in nodes] == [False, False, True, True, False, False, True]
    assert [node.takes_object_sizes for node in nodes] == [True, False, False, False, False, False, True]
    assert [node.takes_copy_policies for node in nodes] == [True, True, True, False, False, False, True]
    assert [node.deletes_as_of_old for node in nodes] == [False, False, False, False, True, True, False]


async def test_the_older_version_is_used_for_public_requests_alone() -> None:
    node = of_version(0x07)
    before = node.version_for(vdi_info("disk"))

    node.use_older_version()

    assert (before, node.version_for(vdi_info("disk")), node.version_for(node_list(80))) == (2, 1, 0x07)


async def test_a_lost_connection_is_opened_again_beside_the_others(sheep: Sheep) -> None:
    changes: list[str] = []
    async with opened(sheep.port, on_change=lambda: changes.append("changed")) as node:
        first, second, third = node.connections
        changes.clear()
        second.abort()
        assert (changes, node.is_short) == (["changed"], True), "the loss is told"

        await node.open()

        assert node.connections[:2] == [first, third]
        assert len(node.connections) == 3
        assert not node.is_short
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
        assert not node.is_short


async def test_a_server_that_is_gone_is_unreachable_at_each_opening() -> None:
    async with Sheep(MemoryStore()) as sheep:
        node = Node("127.0.0.1", sheep.port, OPTIONS, ignore)
        await node.open()
    await until(lambda: not node.is_open)

    for _ in range(2):
        with pytest.raises(Unreachable, match="cannot reach a sheep at 127") as caught:
            await node.open()
        assert isinstance(caught.value.__cause__, OSError)
        assert node.is_short
    await node.close()


async def test_a_server_that_comes_back_is_greeted_anew() -> None:
    store = MemoryStore()
    async with Sheep(store, release=Release.V0_6) as old, proxy(old.port) as between, opened(between.port) as node:
        node.use_older_version()
        async with Sheep(store, release=Release.V1_0) as new:
            between.upstream = new.port
            between.drop()
            await until(lambda: not node.is_open)

            await node.open()

            assert node.internal_version == Release.V1_0.value.internal_version
            assert node.version_for(vdi_info("disk")) == 2
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
        node = Node("127.0.0.1", port, OPTIONS, ignore)
        with pytest.raises(ProtocolViolation, match="request 77"):
            await node.open()
        assert node.is_short

        await node.open()

        assert node.internal_version == 0x0A
        await until(lambda: connections == 1 + 3)
        await node.close()


async def test_those_who_want_it_opened_at_the_same_time_open_it_once(sheep: Sheep) -> None:
    async with opened(sheep.port) as node:
        node.connections[0].abort()

        await asyncio.gather(*(node.open() for _ in range(4)))

        assert len(node.connections) == 3
        await until(lambda: sheep.connections == 3)


async def test_those_who_wait_for_an_opening_that_fails_fail_with_it() -> None:
    """Each of them would wait for a server that does not answer, one after the other."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()

    async with serve(handle) as port:
        node = Node("127.0.0.1", port, replace(OPTIONS, connections=1, connect_timeout_s=0.05), ignore)

        errors = await asyncio.gather(*(node.open() for _ in range(4)), return_exceptions=True)

        assert connections == 1
        assert [type(error) for error in errors] == [Unreachable] * 4
        assert len({id(error) for error in errors}) == 4
        assert len({str(error) for error in errors}) == 1
        with pytest.raises(Unreachable):
            await node.open()
        assert connections == 2, "who comes later tries again"
        await node.close()


async def test_an_opening_that_is_cancelled_fails_nobody_else(sheep: Sheep) -> None:
    node = Node("127.0.0.1", sheep.port, OPTIONS, ignore)
    first, second = asyncio.create_task(node.open()), asyncio.create_task(node.open())
    await asyncio.sleep(0)
    first.cancel()

    await second

    assert first.cancelled()
    assert not node.is_short
    await node.close()
