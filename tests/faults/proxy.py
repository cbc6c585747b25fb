"""What stands in for a sheep where the embedded server is too well-behaved: scripted servers, and a proxy to break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from asyncbackup.wire.constants import HEADER_SIZE, Result
from asyncbackup.wire.messages import RequestHeader, ResponseHeader
from tests.waiting import turn

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Plays the server's part of one connection; when it returns, the connection is closed."""


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[int]:
    """Run ``handler`` for each connection; gives the port. Leaving cancels what still runs."""
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer)
                await writer.drain()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(play(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        # What is being accepted becomes a task that has begun: one that has not closes nothing when it is cancelled.
        await turn()
        server.close()
        pending = tuple(tasks)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await server.wait_closed()


async def receive(reader: asyncio.StreamReader) -> RequestHeader:
    """Read one request, and drop its payload."""
    header = RequestHeader.unpack(await reader.readexactly(HEADER_SIZE))
    await reader.readexactly(header.payload_length)
    return header


def answer(
    request: RequestHeader,
    payload: bytes = b"",
    *,
    result: Result = Result.SUCCESS,
    body: bytes = bytes(28),
    request_id: int | None = None,
    opcode: int | None = None,
    data_length: int | None = None,
    epoch: int = 1,
) -> bytes:
    """Build an answer to ``request``, right unless told otherwise."""
    header = ResponseHeader(
        proto_ver=2,
        opcode=request.opcode if opcode is None else opcode,
        flags=0,
        epoch=epoch,
        id=request.id if request_id is None else request_id,
        data_length=len(payload) if data_length is None else data_length,
        result=result,
        body=body,
    )
    return header.pack() + payload


class Proxy:
    """Forwards connections to a server, for as long as it is told to."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        """The port of the server to which new connections go."""
        self.port = 0
        self.forwarded = 0
        """Bytes that went from the server to the client."""
        self.piece = 1 << 16
        """Bytes passed on at a time."""
        self.drop_after: int | None = None
        """Bytes from the server after which all connections are closed."""
        self.freeze_after: int | None = None
        """Bytes from the server after which nothing is passed on any more."""
        self._writers: set[asyncio.StreamWriter] = set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        while data := await reader.read(self.piece):
            if counted:
                if self.freeze_after is not None and self.forwarded + len(data) > self.freeze_after:
                    await asyncio.Event().wait()
                if self.drop_after is not None and self.forwarded + len(data) > self.drop_after:
                    writer.write(data[: max(0, self.drop_after - self.forwarded)])
                    self.drop()
                    return
                self.forwarded += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    def drop(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def proxy(upstream: int) -> AsyncIterator[Proxy]:
    """Stand between clients and the server at port ``upstream``."""
    made = Proxy(upstream)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as stack:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", made.upstream)
            stack.callback(server_writer.close)
            made._writers |= {writer, server_writer}
            stack.callback(made._writers.difference_update, {writer, server_writer})
            forth = asyncio.create_task(made._pass_on(reader, server_writer, counted=False))
            try:
                await made._pass_on(server_reader, writer, counted=True)
            finally:
                forth.cancel()
                await asyncio.gather(forth, return_exceptions=True)

    async with serve(handle) as port:
        made.port = port
        yield made
