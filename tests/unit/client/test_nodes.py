from __future__ import annotations

import asyncio

import pytest

from asyncbackup.client.nodes import Nodes
from asyncbackup.client.router import Counts
from asyncbackup.errors import Unreachable
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.nodes import Node as WireNode
from asyncbackup.wire.nodes import pack_node
from tests.faults.proxy import answer, receive, serve
from tests.holding import QUICK, reads, routed
from tests.waiting import until


async def test_the_first_gateway_that_answers_is_used() -> None:
    async with Sheep(MemoryStore()) as sheep, routed(1, sheep.port) as router:
        assert router.nodes.gateway.port == sheep.port


async def test_that_no_gateway_answers_is_the_error_of_the_last() -> None:
    nodes = Nodes([("127.0.0.1", 1), ("127.0.0.1", 2)], QUICK)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:2"):
        await nodes.open()

    await nodes.close()


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


async def test_a_list_of_nodes_that_do_not_exist_does_no_harm() -> None:
    nodes = b""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await receive(reader)
            if header.opcode == Opcode.GET_NODE_LIST:
                writer.write(answer(header, nodes))
            else:
                writer.write(answer(header, b"data"))

    async with serve(handle) as port:
        here = pack_node(WireNode("127.0.0.1", port, 0, 1))
        elsewhere = [pack_node(WireNode("127.0.0.1", 1, zone, 65535)) for zone in range(2000)]
        nowhere = [pack_node(WireNode(f"127.9.{n >> 8}.{n & 255}", 1, n, 128)) for n in range(4000)]
        nodes = b"".join([here, *elsewhere, *nowhere])
        async with routed(port) as router:
            for oid in range(5):
                await router.call(reads(oid), Counts())

            assert len(router.nodes._nodes) < 300
