"""One socket to a sheep, with many requests on their way: glue between the sans-IO reader and asyncio.

The law of this module:

- Answers arrive in any order. The id tells which attempt an answer belongs to. An unknown id is
  fatal to the connection.
- A payload lands in the buffer of its attempt, with no copy in between.
- An attempt that is given up leaves a tombstone: its late answer is received and dropped. Its buffer is not touched
  again once the caller has it back.
- When the connection ends, each attempt gets an exception of its own, chained to the cause.
- A connection sends at once what it is given. How much it is given is the business of its node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from asyncbackup.client.pace import Sent
from asyncbackup.client.request import NO_PAYLOAD, Request
from asyncbackup.errors import (
    AsyncBackupError,
    ConnectionLost,
    ProtocolViolation,
    RequestTimeout,
    Unreachable,
)
from asyncbackup.wire.constants import Result
from asyncbackup.wire.framing import MessageReader, Placement
from asyncbackup.wire.messages import ResponseHeader
from asyncbackup.wire.nodes import format_address

if TYPE_CHECKING:
    from asyncbackup.client.node import Node


@dataclass(slots=True, eq=False)
class Attempt:
    """One try of a request: on one connection, into one buffer."""

    request: Request
    buffer: memoryview | None
    """Where the payload goes; None: into memory of its own. Nobody else writes there until the attempt has ended."""
    on_end: Callable[[Attempt], None] | None
    """Called once, when the attempt has its answer or its error. None once nobody waits any more: a tombstone."""
    proto_ver: int = field(default=0, init=False)
    """The version of the protocol that it was sent in."""
    connection: Connection | None = field(default=None, init=False)
    """The connection that it was sent on; None before."""
    id: int = field(default=0, init=False)
    """What the server calls it, on that connection."""
    node: Node | None = field(default=None, init=False)
    """The node that it was submitted to."""
    sent: Sent | None = field(default=None, init=False)
    """What the pace of the node knows about it; None until it is sent."""
    sent_in_all: Sent | None = field(default=None, init=False)
    """What the pace of all nodes together knows about it."""
    latency_s: float = field(default=0.0, init=False)
    """Seconds from when it was sent until its answer was there."""
    header: ResponseHeader | None = field(default=None, init=False)
    payload: memoryview = field(default=NO_PAYLOAD, init=False)
    error: AsyncBackupError | None = field(default=None, init=False)
    """Why there is no answer."""

    @property
    def size(self) -> int:
        """Bytes of payload, of the request and of its answer."""
        message = self.request.message
        return len(message.payload) or message.capacity

    def end(self, error: AsyncBackupError | None = None) -> None:
        """Say that there is an answer, or why there is none."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            self.error = error
            on_end(self)


class Listener(Protocol):
    """What a connection tells who owns it."""

    def note_answer(self, attempt: Attempt) -> None:
        """Take note that an attempt was answered, maybe one that nobody waits for."""

    def note_room(self) -> None:
        """Take note that the socket takes more."""

    def note_loss(self, unanswered: Sequence[Attempt]) -> None:
        """Take note that the connection ended, and what it left unanswered; those attempts end after this."""


def another(error: AsyncBackupError) -> AsyncBackupError:
    """Make an exception that says the same as ``error``, an error of the way to a node, which is its cause."""
    match error:
        case ProtocolViolation():
            made: AsyncBackupError = ProtocolViolation(error.address, error.expected, error.got)
        case RequestTimeout():
            made = RequestTimeout(error.address, error.request, error.timeout_s)
        case Unreachable():
            made = Unreachable(error.address, error.reason)
        case ConnectionLost():
            made = ConnectionLost(error.address, error.reason)
        case _:
            return error
    made.__cause__ = error
    return made


class Connection(asyncio.BufferedProtocol):
    """Made by ``Connection.open``; not safe to share between event loops."""

    def __init__(self, address: str, listener: Listener) -> None:
        self.address = address
        self.peer = ("", 0)
        """The IP address and the port that the socket is connected to; no address if it is not known."""
        self._listener = listener
        self._reader = MessageReader(self._on_header, self._on_message)
        self._attempts: dict[int, Attempt] = {}
        self._receiving: Attempt | None = None
        self._last_id = 0
        self._transport: asyncio.Transport | None = None
        self._is_writable = True
        self._ended = asyncio.Event()
        self._cause: AsyncBackupError | None = None

    @classmethod
    async def open(cls, host: str, port: int, timeout_s: float, listener: Listener) -> Connection:
        """Connect. Raises Unreachable if nothing accepts within ``timeout_s`` seconds."""
        address = format_address(host, port)
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(lambda: cls(address, listener), host, port)
        except TimeoutError as error:
            raise Unreachable(address, f"no connection within {timeout_s:g} s") from error
        except OSError as error:
            raise Unreachable(address, error.strerror or str(error)) from error
        except ValueError as error:
            # The resolver raises it for a label that is empty or too long, and for a NUL.
            raise Unreachable(address, "no host has such a name") from error
        return connection

    @property
    def unanswered(self) -> int:
        """Attempts that the server still owes an answer for, tombstones included."""
        return len(self._attempts)

    @property
    def is_open(self) -> bool:
        """Whether the connection was made and has not ended."""
        return self._cause is None and self._transport is not None

    @property
    def is_ready(self) -> bool:
        """Whether the connection is open and its socket takes more."""
        return self._is_writable and self._cause is None and self._transport is not None

    async def call(self, request: Request, proto_ver: int, timeout_s: float) -> None:
        """Make one attempt to carry out ``request``, and wait at most ``timeout_s`` seconds for its answer.

        Raises RequestTimeout, ConnectionLost, ProtocolViolation. After that, or a cancellation, the buffer is free.
        """
        if not self.is_open:
            raise self.lost()
        ended = asyncio.Event()
        attempt = Attempt(request, request.buffer, lambda _: ended.set())
        self.send(attempt, proto_ver)
        try:
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        except TimeoutError as error:
            raise RequestTimeout(self.address, str(request.message), timeout_s) from error
        finally:
            self.give_up(attempt)
        if attempt.error is not None:
            raise attempt.error
        request.answer, request.payload = attempt.header, attempt.payload

    def send(self, attempt: Attempt, proto_ver: int) -> None:
        """Send an attempt over the connection, which must be open. It is told how it ends."""
        request_id = self._last_id = self._last_id % 0xFFFFFFFF + 1
        attempt.id, attempt.connection, attempt.proto_ver = request_id, self, proto_ver
        self._attempts[request_id] = attempt
        message = attempt.request.message
        transport = cast("asyncio.Transport", self._transport)
        transport.write(message.header(request_id, proto_ver))
        if message.payload:
            transport.write(message.payload)

    def give_up(self, attempt: Attempt) -> None:
        """Let an attempt that was sent on this connection be a tombstone, if it is not answered."""
        if self._attempts.get(attempt.id) is not attempt:
            return
        attempt.on_end = None
        if self._receiving is attempt:
            self._reader.drop_payload()
        message = attempt.request.message
        if message.payload and self._transport is not None and self._transport.get_write_buffer_size():
            # The transport may still hold the payload, which the caller is about to reuse.
            self._end(ConnectionLost(self.address, f"gave up a {message} that was partly sent"))

    def abort(self, cause: AsyncBackupError | None = None) -> None:
        """End the connection. Idempotent. Requests under way raise what ``cause`` is, by default ConnectionLost."""
        self._end(cause or ConnectionLost(self.address, "closed by us"))

    async def close(self) -> None:
        """End the connection, and wait for that. Idempotent, as ``abort`` is."""
        self.abort()
        await self._ended.wait()

    def lost(self) -> AsyncBackupError:
        """Make a fresh exception for one waiter, chained to what ended the connection."""
        return another(self._cause or ConnectionLost(self.address, "not open"))

    def _end(self, cause: AsyncBackupError) -> None:
        if self._cause is not None:
            return
        self._cause = cause
        unanswered = list(self._attempts.values())
        self._attempts.clear()
        self._receiving = None
        self._reader.drop_payload()
        if self._transport is not None:
            self._transport.abort()
        self._listener.note_loss(unanswered)
        for attempt in unanswered:
            attempt.end(self.lost())

    # What the reader calls.

    def _on_header(self, packed: memoryview) -> Placement:
        header = ResponseHeader.unpack(packed)
        attempt = self._attempts.get(header.id)
        if attempt is None:
            raise ProtocolViolation(self.address, "an answer to one of our requests", f"one to request {header.id}")
        message = attempt.request.message
        if header.opcode != message.opcode:
            raise ProtocolViolation(
                self.address, f"an answer to {message} (opcode 0x{message.opcode:02x})", f"opcode 0x{header.opcode:02x}"
            )
        if header.data_length > message.capacity:
            raise ProtocolViolation(
                self.address, f"at most {message.capacity} bytes for {message}", f"{header.data_length} bytes"
            )
        self._receiving = attempt
        attempt.header = header
        if attempt.on_end is None or header.result is not Result.SUCCESS:
            return header.data_length, None
        try:
            attempt.payload = attempt.request.place(header, attempt.buffer)
        except ValueError as error:
            expected, _, got = str(error).partition(", got ")
            raise ProtocolViolation(self.address, expected.removeprefix("expected "), got) from error
        return header.data_length, attempt.payload

    def _on_message(self) -> None:
        attempt = self._receiving
        assert attempt is not None
        self._receiving = None
        del self._attempts[attempt.id]
        self._listener.note_answer(attempt)
        attempt.end()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer = tuple(self._transport.get_extra_info("peername") or self.peer)[:2]

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
        self._listener.note_room()
