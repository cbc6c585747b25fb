"""One client's connection to the embedded server: bytes in, requests to the service, answers out, faults on the way.

Payloads go from the store's mapping to the transport as views. Both directions are bounded: the transport is fed
piece by piece as it drains, and a client that does not read its answers is not read from either.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from asyncbackup.sheep import faults
from asyncbackup.sheep.service import OBJECT_REQUESTS, Answer, Service
from asyncbackup.wire.constants import HEADER_SIZE, MAX_BLOCK_SIZE_SHIFT, Opcode
from asyncbackup.wire.framing import MessageReader, Placement
from asyncbackup.wire.messages import ObjectBody, RequestHeader, ResponseHeader

MAX_PAYLOAD: Final = 1 << MAX_BLOCK_SIZE_SHIFT
"""Bytes of the largest object. Who announces more speaks another protocol, and is disconnected."""

MAX_QUEUED_ANSWERS: Final = 64
"""Answers that wait to be sent before requests are no longer read: each may keep a mapping open."""

PIECE_SIZE: Final = 1 << 20
"""Bytes handed to the transport at once: asyncio copies what the socket does not take, until Python 3.12."""

JOINED_SIZE: Final = 16 * 1024
"""Payloads up to this many bytes are copied behind their header: cheaper than a second system call."""

KEPT_BUFFER_SIZE: Final = 1 << 23
"""Bytes of receive buffer a connection keeps from payload to payload; larger ones are for one payload."""

_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_NOTHING: Final = memoryview(b"")
_KNOWN_OPCODES: Final = frozenset(Opcode)


@dataclass(slots=True)
class Shared:
    """What the connections of one server have in common."""

    service: Service
    script: faults.FaultScript
    on_request: Callable[[RequestHeader], None] | None = None
    requests: Counter[Opcode] = field(default_factory=Counter)
    connections: set[Connection] = field(default_factory=set)
    is_serving: bool = False
    """Whether the server runs: what is accepted while it ends is closed."""
    is_stalled: bool = False
    """Whether the server hangs: it reads nothing, and sends nothing."""
    waiting: list[Callable[[], None]] = field(default_factory=list)
    """What serves the requests that wait for another node which hangs."""


class Connection(asyncio.BufferedProtocol):
    """Serves the requests of a client in their order; only faults make answers overtake each other."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._reader = MessageReader(self._on_header, self._on_message)
        self._request: RequestHeader | None = None
        self._payload = _NOTHING
        self._kept_buffer = bytearray()
        self._transport: asyncio.Transport
        self._outbox: deque[memoryview | None] = deque()
        self._held: list[tuple[int, list[memoryview]]] = []
        self._delayed: set[asyncio.TimerHandle] = set()
        self._is_writable = True
        self._is_reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)
        if not self._shared.is_serving:
            self.abort()
            return
        self._shared.connections.add(self)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the protocol's signature
        self._shared.connections.discard(self)
        self._outbox.clear()
        self._held.clear()
        for timer in self._delayed:
            timer.cancel()
        self._delayed.clear()

    def abort(self) -> None:
        """Close the connection at once, without sending what is queued."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- the protocol's signature
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._reader.advance(nbytes)

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self.flush()

    def _on_header(self, header: memoryview) -> Placement:
        request = RequestHeader.unpack(header)
        self._request = request
        self._payload = _NOTHING
        length = request.payload_length
        if length > MAX_PAYLOAD:
            self.abort()
            return 0, None
        if not length or not self._shared.service.wants(request):
            return length, None
        self._payload = self._receive_buffer(length)
        return length, self._payload

    def _receive_buffer(self, length: int) -> memoryview:
        """Give a buffer to receive into, the last one again if it will do: the service keeps nothing of it."""
        if length > KEPT_BUFFER_SIZE:
            return memoryview(bytearray(length))
        if len(self._kept_buffer) < length:
            self._kept_buffer = bytearray(length)
        return memoryview(self._kept_buffer)[:length]

    def _on_message(self) -> None:
        request = self._request
        if request is None or self._transport.is_closing():
            return
        if request.opcode in _KNOWN_OPCODES:
            self._shared.requests[Opcode(request.opcode)] += 1
        if self._shared.on_request is not None:
            self._shared.on_request(request)
        payload, self._payload = self._payload, _NOTHING
        self._serve(request, payload)

    def _serve(self, request: RequestHeader, payload: memoryview) -> None:
        if self._transport.is_closing():
            return
        if self._shared.service.must_wait(request):
            # The next payload goes where this one is.
            self._shared.waiting.append(partial(self._serve, request, memoryview(bytes(payload))))
            return
        oid = ObjectBody.unpack(request.body).oid if request.opcode in OBJECT_REQUESTS else None
        action = self._shared.script.decide(request.opcode, oid)
        if isinstance(action, faults.Error):
            answer = Answer(action.result)
        else:
            answer = self._shared.service.answer(request, payload)
        self._deliver(request, answer, action)

    def _deliver(self, request: RequestHeader, answer: Answer, action: faults.Action | None) -> None:
        """Send an answer, or what a fault makes of it."""
        payload = memoryview(answer.payload)
        match action:
            case faults.Delay(seconds):
                self._send_later(seconds, self._message(request, answer, payload))
            case faults.Reorder(replies):
                self._held.append((replies, self._message(request, answer, payload)))
                self._release_held(0)
            case faults.Short(length):
                self._send(self._message(request, answer, payload[:length]))
            case faults.Long(length):
                self._send(self._message(request, answer, memoryview(bytes(payload) + bytes(length))))
            case faults.WrongId():
                self._send(self._message(request, answer, payload, request_id=request.id ^ 0x4000_0000))
            case faults.Reset():
                self._reset()
            case faults.Cut(length):
                header, *_ = self._message(request, answer, payload)
                self._queue([header[:HEADER_SIZE], payload[:length], None])
            case faults.Garbage(length, seed):
                self._send([memoryview(random.Random(seed).randbytes(length))])  # noqa: S311 -- repeatable on purpose
            case faults.Stall():
                pass
            case _:
                self._send(self._message(request, answer, payload))

    def _reset(self) -> None:
        """End the connection with RST, as a crashed host's kernel does."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.abort()

    def _send_later(self, seconds: float, message: list[memoryview]) -> None:
        def send() -> None:
            self._delayed.discard(timer)
            self._send(message)

        timer = asyncio.get_running_loop().call_later(seconds, send)
        self._delayed.add(timer)

    def _send(self, message: list[memoryview]) -> None:
        self._queue([*message])
        self._release_held(1)

    def _release_held(self, sent: int) -> None:
        """Count ``sent`` answers for those that wait for later ones, and send what has waited enough."""
        held = [(replies - sent, message) for replies, message in self._held]
        self._held = [(replies, message) for replies, message in held if replies > 0]
        for replies, message in held:
            if replies <= 0:
                self._queue([*message])

    def _queue(self, pieces: list[memoryview | None]) -> None:
        """Put pieces at the end of what is to be sent; None closes the connection when everything before it is out."""
        self._outbox.extend(pieces)
        self.flush()

    def flush(self) -> None:
        """Send what waits, unless the server hangs or the client reads nothing; and read, or not, accordingly."""
        while self._outbox and self._is_writable and not (self._shared.is_stalled or self._transport.is_closing()):
            piece = self._outbox.popleft()
            if piece is None:
                self._transport.close()
                break
            if len(piece) > PIECE_SIZE:
                self._outbox.appendleft(piece[PIECE_SIZE:])
                piece = piece[:PIECE_SIZE]
            if piece:
                self._transport.write(piece)
        self._throttle()

    def _throttle(self) -> None:
        """Read requests only while their answers do not pile up."""
        should_read = len(self._outbox) <= MAX_QUEUED_ANSWERS and not self._shared.is_stalled
        if should_read == self._is_reading or self._transport.is_closing():
            return
        self._is_reading = should_read
        if should_read:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _message(
        self, request: RequestHeader, answer: Answer, payload: memoryview, request_id: int | None = None
    ) -> list[memoryview]:
        """Build what goes over the wire: a header and, joined to it only if it is small, the payload."""
        header = ResponseHeader(
            proto_ver=0,  # as servers of 1.0 do
            opcode=request.opcode,
            flags=0,
            epoch=self._shared.service.epoch,
            id=request.id if request_id is None else request_id,
            data_length=len(payload),
            result=answer.result,
            body=answer.body,
        ).pack()
        if len(payload) <= JOINED_SIZE:
            return [memoryview(header + payload)]
        return [memoryview(header), payload]
