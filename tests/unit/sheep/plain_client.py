"""A client for tests of the server: it sends what it is told to, and checks nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asyncbackup.sheep import Sheep
from asyncbackup.wire.constants import FIRST_INTERNAL_OPCODE, HEADER_SIZE, Flag
from asyncbackup.wire.messages import Bytes, Message, RequestHeader, ResponseHeader

Answer = tuple[ResponseHeader, bytes]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, request: Message, request_id: int = 1, proto_ver: int | None = None) -> None:
        if proto_ver is None:
            proto_ver = 0x0A if request.opcode >= FIRST_INTERNAL_OPCODE else 2
        self.writer.write(request.header(request_id, proto_ver))
        if request.flags & Flag.WRITE:
            self.writer.write(request.payload)

    def send_raw(self, opcode: int, *, flags: int = 0, data_length: int = 0, payload: Bytes = b"") -> None:
        proto_ver = 0x0A if opcode >= FIRST_INTERNAL_OPCODE else 2
        self.writer.write(RequestHeader(proto_ver, opcode, flags, 0, 1, data_length, bytes(32)).pack() + payload)

    async def receive(self) -> Answer:
        async with asyncio.timeout(10):
            header = ResponseHeader.unpack(await self.reader.readexactly(HEADER_SIZE))
            return header, await self.reader.readexactly(header.data_length)

    async def ask(self, request: Message, proto_ver: int | None = None) -> Answer:
        self.send(request, proto_ver=proto_ver)
        return await self.receive()


Connect = Callable[[Sheep], Awaitable[Client]]
Start = Callable[..., Awaitable[tuple[Sheep, Client]]]
