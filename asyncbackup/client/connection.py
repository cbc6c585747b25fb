"""One pipelined connection to a sheep: glue between the sans-IO reader and asyncio.

The law of this module:

- Answers arrive in any order; the id says which request one belongs to. An unknown id is fatal to the connection.
- A payload lands in the buffer that the request named for it, with no copy in between.
- A request that is cancelled or out of time leaves a tombstone: its late answer is received and dropped, and its
  buffer is not touched again once the caller has it back.
- At most ``depth`` requests are with the server; the others wait here, first come, first served.
- When the connection ends, each waiter gets an exception of its own, chained to the cause.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from asyncbackup.errors import (
    AsyncBackupError,
    ConnectionLost,
    ProtocolViolation,
    RequestTimeout,
    Unreachable,
)
from asyncbackup.wire.constants import Result
from asyncbackup.wire.framing import MessageReader, Placement
from asyncbackup.wire.messages import Request, ResponseHeader
from asyncbackup.wire.nodes import format_address

_NO_PAYLOAD: Final = memoryview(b"")


@dataclass(slots=True, eq=False)
class _Waiter:
    """Whoever waits for ``unanswered`` answers more."""

    unanswered: int
    answered: asyncio.Future[None]

    def fail(self, error: AsyncBackupError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and, from its answer on, that; ``payload`` is empty if the result is an error."""

    request: Request
    payload: memoryview = field(default=_NO_PAYLOAD, init=False)
    answer: ResponseHeader | None = field(default=None, init=False)
    waiter: _Waiter | None = field(default=None, init=False)
    """None once nobody waits any more: a tombstone."""

    def place(self, header: ResponseHeader) -> memoryview:
        """Say where the payload of a successful answer goes: a writable view of ``data_length`` bytes.

        Raises ValueError, in the words "expected …, got …", if no such answer can be meant.
        """
        return memoryview(bytearray(header.data_length))

    @property
    def header(self) -> ResponseHeader:
        """The answer's header; to be asked for only once there is one."""
        assert self.answer is not None
        return self.answer

    @property
    def result(self) -> Result:
        """What the answer says."""
        return self.header.result


class Connection(asyncio.BufferedProtocol):
    """Made by ``Connection.open``; not safe to share between event loops."""

    def __init__(self, address: str, depth: int) -> None:
        self.address = address
        self._depth = depth
        self._reader = MessageReader(self._on_header, self._on_message)
        self._unsent: deque[tuple[int, Exchange]] = deque()
        self._exchanges: dict[int, Exchange] = {}
        self._receiving: tuple[int, Exchange] | None = None
        self._last_id = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_writable = True
        self._ended = asyncio.Event()
        self._cause: AsyncBackupError | None = None

    @classmethod
    async def open(cls, host: str, port: int, timeout_s: float, depth: int) -> Connection:
        """Connect. Raises Unreachable if nothing accepts within ``timeout_s`` seconds."""
        address = format_address(host, port)
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                _transport, connection = await loop.create_connection(lambda: cls(address, depth), host, port)
        except TimeoutError as error:
            raise Unreachable(address, f"no connection within {timeout_s:g} s") from error
        except OSError as error:
            raise Unreachable(address, error.strerror or str(error)) from error
        except ValueError as error:
            # What the resolver makes of labels that are empty, or too long, and of a NUL.
            raise Unreachable(address, "no host has such a name") from error
        return connection

    @property
    def in_flight(self) -> int:
        """Requests that wait to be sent, or that the server still owes an answer for, tombstones included."""
        return len(self._unsent) + len(self._exchanges)

    @property
    def is_open(self) -> bool:
        return self._cause is None

    async def call(self, exchanges: Sequence[Exchange], proto_ver: int, timeout_s: float) -> None:
        """Send requests, at least one, and wait at most ``timeout_s`` seconds for all of their answers.

        A payload has at most its request's ``capacity`` bytes. Raises RequestTimeout, ConnectionLost,
        ProtocolViolation; after that, or a cancellation, the buffers are free for other use, the exchanges are not.
        """
        if self._transport is None or self._cause is not None:
            raise self._lost()
        waiter = _Waiter(len(exchanges), self._loop.create_future())
        for exchange in exchanges:
            exchange.waiter = waiter
            self._unsent.append((proto_ver, exchange))
        self._send()
        timer = self._loop.call_later(timeout_s, self._expire, waiter, exchanges[0].request, timeout_s)
        try:
            await waiter.answered
        finally:
            timer.cancel()
            if waiter.unanswered:
                self._give_up(waiter)

    def _send(self) -> None:
        """Send what the depth and the socket allow."""
        while self._unsent and self._is_writable and len(self._exchanges) < self._depth:
            proto_ver, exchange = self._unsent.popleft()
            request_id = self._last_id = self._last_id % 0xFFFFFFFF + 1
            self._exchanges[request_id] = exchange
            transport = cast("asyncio.Transport", self._transport)
            transport.write(exchange.request.header(request_id, proto_ver))
            if exchange.request.payload:
                transport.write(exchange.request.payload)

    def _expire(self, waiter: _Waiter, request: Request, timeout_s: float) -> None:
        waiter.fail(RequestTimeout(self.address, str(request), timeout_s))

    def _give_up(self, waiter: _Waiter) -> None:
        self._unsent = deque(unsent for unsent in self._unsent if unsent[1].waiter is not waiter)
        for request_id, exchange in list(self._exchanges.items()):
            if exchange.waiter is waiter:
                self._bury(request_id, exchange)

    def _bury(self, request_id: int, exchange: Exchange) -> None:
        exchange.waiter = None
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
        for exchange in (*self._exchanges.values(), *(exchange for _, exchange in self._unsent)):
            if exchange.waiter is not None:
                exchange.waiter.fail(self._lost())
        self._exchanges.clear()
        self._unsent.clear()
        self._receiving = None
        self._reader.drop_payload()
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
        exchange.answer = header
        if exchange.waiter is None or header.result is not Result.SUCCESS:
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
        self._send()
        waiter = exchange.waiter
        if waiter is not None:
            waiter.unanswered -= 1
            if not waiter.unanswered and not waiter.answered.done():
                waiter.answered.set_result(None)

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
        self._end_unasked("closed by the server")

    def connection_lost(self, error: Exception | None) -> None:
        self._end_unasked(str(error) if error else "closed by the server")
        self._ended.set()

    def _end_unasked(self, reason: str) -> None:
        midway = f" after {self._reader.progress}" if self._reader.is_mid_message else ""
        self._end(ConnectionLost(self.address, reason + midway))

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self._send()
