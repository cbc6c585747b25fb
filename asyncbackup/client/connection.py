"""One pipelined connection to a sheep: glue between the sans-IO reader and asyncio.

The law of this module:

- Answers arrive in any order; the id says which request one belongs to. An unknown id is fatal to the connection.
- A payload lands in the buffer that the request named for it, with no copy in between.
- A request that is cancelled or out of time leaves a tombstone: its late answer is received and dropped, and its
  buffer is not touched again once the caller has it back.
- When the connection ends, each waiter gets an exception of its own, chained to the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from asyncbackup.errors import AsyncBackupError, ConnectionLost, ProtocolViolation, RequestTimeout, Unreachable
from asyncbackup.wire.constants import Result
from asyncbackup.wire.framing import MessageReader, Placement
from asyncbackup.wire.messages import Request, ResponseHeader

Place = Callable[[ResponseHeader], memoryview]
"""Says where the payload of a successful answer goes: a writable view of ``data_length`` bytes.

Raises ValueError, in the words "expected …, got …", if no such answer can be meant.
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``payload`` is the view that it was received into, empty if the result is an error."""

    header: ResponseHeader
    payload: memoryview

    @property
    def result(self) -> Result:
        return self.header.result


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request on its way. ``answer`` is None once nobody waits: a tombstone."""

    request: Request
    place: Place
    answer: asyncio.Future[Reply] | None
    header: ResponseHeader | None = None
    payload: memoryview = field(default_factory=lambda: memoryview(b""))


class Connection(asyncio.BufferedProtocol):
    """Made by ``Connection.open``; not safe to share between event loops."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._reader = MessageReader(self._on_header, self._on_message)
        self._exchanges: dict[int, _Exchange] = {}
        self._receiving: tuple[int, _Exchange] | None = None
        self._last_id = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._queued = 0
        self._ended = asyncio.Event()
        self._cause: AsyncBackupError | None = None

    @classmethod
    async def open(cls, host: str, port: int, timeout_s: float) -> Connection:
        """Connect. Raises Unreachable if nothing accepts within ``timeout_s`` seconds."""
        address = f"{host}:{port}"
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                _transport, connection = await loop.create_connection(lambda: cls(address), host, port)
        except TimeoutError as error:
            raise Unreachable(address, f"no connection within {timeout_s:g} s") from error
        except OSError as error:
            raise Unreachable(address, error.strerror or str(error)) from error
        return connection

    @property
    def in_flight(self) -> int:
        """Requests that wait to be sent, or that the server still owes an answer for, tombstones included."""
        return self._queued + len(self._exchanges)

    @property
    def is_open(self) -> bool:
        return self._cause is None

    async def call(self, request: Request, proto_ver: int, timeout_s: float, place: Place | None = None) -> Reply:
        """Send ``request`` and wait at most ``timeout_s`` seconds for the whole answer.

        Without ``place`` a payload gets a buffer of its own, of at most ``request.capacity`` bytes. Raises
        RequestTimeout, ConnectionLost, ProtocolViolation. After a cancellation the buffers of this call are free for
        other use.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_for_turn()
                return await self._exchange(request, proto_ver, place or _allocate)
        except TimeoutError as error:
            raise RequestTimeout(self.address, str(request), timeout_s) from error

    async def _wait_for_turn(self) -> None:
        self._queued += 1
        try:
            # Whoever goes first may fill the transport again: all at once would pile up in it.
            while not self._writable.is_set():
                await self._writable.wait()
        finally:
            self._queued -= 1

    async def _exchange(self, request: Request, proto_ver: int, place: Place) -> Reply:
        if self._transport is None or self._cause is not None:
            raise self._lost()
        request_id = self._last_id = self._last_id % 0xFFFFFFFF + 1
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._exchanges[request_id] = _Exchange(request, place, answer)
        self._transport.write(request.header(request_id, proto_ver))
        if request.payload:
            self._transport.write(request.payload)
        try:
            return await answer
        finally:
            if request_id in self._exchanges:
                self._bury(request_id)

    def _bury(self, request_id: int) -> None:
        exchange = self._exchanges[request_id]
        exchange.answer = None
        if self._receiving is not None and self._receiving[0] == request_id:
            self._reader.drop_payload()
        if exchange.request.payload and self._transport is not None and self._transport.get_write_buffer_size():
            # The transport may still hold the payload, which the caller is about to reuse.
            self._end(ConnectionLost(self.address, f"gave up a {exchange.request} that was partly sent"))

    def abort(self) -> None:
        """End the connection. Idempotent; requests under way raise ConnectionLost."""
        self._end(ConnectionLost(self.address, "closed by us"))

    async def close(self) -> None:
        """End the connection, and wait for that. Idempotent, as ``abort`` is."""
        self.abort()
        await self._ended.wait()

    def _lost(self) -> AsyncBackupError:
        """Make a fresh exception for one waiter, chained to what ended the connection."""
        cause = self._cause
        if isinstance(cause, ProtocolViolation):
            error: AsyncBackupError = ProtocolViolation(cause.address, cause.expected, cause.got)
        else:
            error = ConnectionLost(self.address, cause.reason if isinstance(cause, ConnectionLost) else "not open")
        error.__cause__ = cause
        return error

    def _end(self, cause: AsyncBackupError) -> None:
        if self._cause is not None:
            return
        self._cause = cause
        for exchange in self._exchanges.values():
            if exchange.answer is not None and not exchange.answer.done():
                exchange.answer.set_exception(self._lost())
        self._exchanges.clear()
        self._receiving = None
        self._reader.drop_payload()
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()

    # What the reader calls.

    def _on_header(self, packed: memoryview) -> Placement:
        header = ResponseHeader.unpack(packed)
        exchange = self._exchanges.get(header.id)
        if exchange is None:
            raise ProtocolViolation(self.address, "an answer to one of our requests", f"one to request {header.id}")
        request = exchange.request
        if header.opcode != request.opcode:
            raise ProtocolViolation(
                self.address, f"an answer to {request} (opcode 0x{request.opcode:02x})", f"opcode 0x{header.opcode:02x}"
            )
        if header.data_length > request.capacity:
            raise ProtocolViolation(
                self.address, f"at most {request.capacity} bytes for {request}", f"{header.data_length} bytes"
            )
        self._receiving = (header.id, exchange)
        exchange.header = header
        if exchange.answer is None or header.result is not Result.SUCCESS:
            return header.data_length, None
        try:
            exchange.payload = exchange.place(header)
        except ValueError as error:
            expected, _, got = str(error).partition(", got ")
            raise ProtocolViolation(self.address, expected.removeprefix("expected "), got) from error
        return header.data_length, exchange.payload

    def _on_message(self) -> None:
        assert self._receiving is not None
        request_id, exchange = self._receiving
        self._receiving = None
        del self._exchanges[request_id]
        if exchange.answer is not None and not exchange.answer.done():
            assert exchange.header is not None
            exchange.answer.set_result(Reply(exchange.header, exchange.payload))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._reader.advance(nbytes)
        except ProtocolViolation as violation:
            self._end(violation)

    def eof_received(self) -> None:
        midway = f" after {self._reader.progress}" if self._reader.is_mid_message else ""
        self._end(ConnectionLost(self.address, f"closed by the server{midway}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(ConnectionLost(self.address, str(error) if error else "closed by the server"))
        self._ended.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


def _allocate(header: ResponseHeader) -> memoryview:
    return memoryview(bytearray(header.data_length))
