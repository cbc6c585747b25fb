"""Servers that keep requests until a test has them answered, and routers over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from asyncbackup.client import ClientOptions
from asyncbackup.client.node import Node
from asyncbackup.client.nodes import Nodes
from asyncbackup.client.request import Request
from asyncbackup.client.router import Router
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import NodeReply, ObjectBody, RequestHeader, read_object
from asyncbackup.wire.nodes import Node as WireNode
from asyncbackup.wire.nodes import pack_node
from tests.faults.proxy import answer, receive, serve
from tests.waiting import until

QUICK = ClientOptions(connections=1, request_timeout_s=10, give_up_after_s=0, retry_delay_s=0)
PATIENT = replace(QUICK, give_up_after_s=60)


@asynccontextmanager
async def routed(*ports: int, options: ClientOptions = QUICK) -> AsyncIterator[Router]:
    """Open the nodes that are named by ``ports``."""
    nodes = Nodes([("127.0.0.1", port) for port in ports], options)
    try:
        await nodes.open()
        yield Router(nodes)
    finally:
        await nodes.close()


def unanswered(*nodes: Node) -> int:
    """Count attempts that wait to be sent, or that servers still owe an answer for."""
    return sum(len(node._waiting) + sum(each.unanswered for each in node.connections) for node in nodes)


def all_nodes(router: Router) -> list[Node]:
    return list(router.nodes._nodes.values())


def reads(*objects: int) -> list[Request]:
    return [Request(read_object(oid, 0, 4)) for oid in objects]


@dataclass
class Holding:
    """A server that keeps requests until a test has them answered, and knows which connection each came on."""

    held: list[tuple[int, RequestHeader, asyncio.StreamWriter]] = field(default_factory=list)
    came: list[tuple[int, int]] = field(default_factory=list)
    """The connection, and the object, of each read, in the order in which they came."""
    connections: int = 0
    nodes: list[WireNode] = field(default_factory=list)
    """What it answers to who asks for the nodes of the cluster. None of them: it knows itself by another address."""
    lists: int = 0
    """Times that somebody asked for it."""
    epoch: int = 1
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self.writers.append(writer)
        while True:
            header = await receive(reader)
            if header.opcode == Opcode.GET_NODE_LIST:
                self.lists += 1
                body = NodeReply(len(self.nodes) or 1).pack()
                entries = b"".join(map(pack_node, self.nodes)) or bytes(80)
                writer.write(answer(header, entries, body=body, epoch=self.epoch))
            else:
                self.held.append((number, header, writer))
                self.came.append((number, ObjectBody.unpack(header.body).oid))

    @property
    def objects(self) -> list[int]:
        return [oid for _, oid in self.came]

    def answer(self, oid: int, result: Result = Result.SUCCESS) -> None:
        """Answer the read of object ``oid``."""
        (found,) = [each for each in self.held if ObjectBody.unpack(each[1].body).oid == oid]
        self.held.remove(found)
        _, header, writer = found
        is_read = result is Result.SUCCESS and not header.payload_length
        payload = oid.to_bytes(4, "big") if is_read else b""
        writer.write(answer(header, payload, result=result, epoch=self.epoch))

    def cut(self) -> None:
        """Close all connections."""
        for writer in self.writers:
            writer.close()


@asynccontextmanager
async def held(options: ClientOptions) -> AsyncIterator[tuple[Holding, Router]]:
    holding = Holding()
    async with serve(holding.handle) as port, routed(port, options=options) as router:
        yield holding, router


@asynccontextmanager
async def two(options: ClientOptions = PATIENT) -> AsyncIterator[tuple[Holding, Holding, Router]]:
    """Two gateways that hold requests; none of them has a list of nodes."""
    first, second = Holding(), Holding()
    async with (
        serve(first.handle) as one,
        serve(second.handle) as other,
        routed(one, other, options=options) as router,
    ):
        await until(lambda: all(node.is_open for node in all_nodes(router)))
        yield first, second, router
