"""One server: its address, its release, and its connections, which are opened again when they were lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

import anyio

from asyncbackup.client.connection import Attempt, Connection, another
from asyncbackup.client.objects import READ_SIZE
from asyncbackup.client.options import ClientOptions
from asyncbackup.client.pace import Change, Pace, charge_for
from asyncbackup.client.request import Request
from asyncbackup.client.total_pace import TotalPace
from asyncbackup.client.versions import Versions
from asyncbackup.errors import AsyncBackupError, ConnectionLost, Unreachable, single_error
from asyncbackup.wire import messages
from asyncbackup.wire.constants import INTERNAL_VERSIONS, Result
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, format_address

DEPTH: Final = 2
"""Requests on one connection, where their number is fixed, and to which connections are opened otherwise.

The server sends one answer, and meanwhile reads for the next.
"""
_MOST_CONNECTIONS: Final = 32
"""Each costs the server a file descriptor and buffers. More than these fill no path that is known to us."""
_PAUSE_S: Final = 0.02
"""Seconds at least between two openings of connections."""
_MIN_ASIDE_S: Final = 0.2
_MAX_ASIDE_S: Final = 5.0
"""Seconds between two probes of a node that is set aside: they double up to this."""

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """What a node tells who keeps it."""

    @property
    def pace(self) -> TotalPace:
        """How much may be in flight to all nodes together."""

    def note_waiting(self, node: Node) -> None:
        """Take note that an attempt waits at ``node`` until there is room in that pace."""

    def note_room(self) -> None:
        """Take note that there may be room in that pace: ``Node.send`` sends what waits."""

    def note_answer(self, attempt: Attempt) -> None:
        """Take note that an attempt was answered, maybe one that nobody waits for."""

    def note_trouble(self, node: Node, error: AsyncBackupError) -> None:
        """Take note that ``node`` was set aside, and why."""


class Node:
    """A server: what is under way to it, and what waits for that.

    Attempts wait here, first come, first served, while as much is under way as the pace allows. ``keep`` opens
    connections as they are needed, and sets the node aside for a while where that fails.
    """

    def __init__(self, host: str, port: int, options: ClientOptions, owner: Owner) -> None:
        self.host = host
        self.port = port
        self.versions = Versions()
        """Which release the server is of, as far as is known."""
        self.listing: Request | None = None
        """What the server answered when it was asked who is in the cluster; None if it did not understand."""
        self.connections: list[Connection] = []
        """Those that are open, and those that were lost and are not replaced yet."""
        self.pace = Pace()
        self.share = 1.0
        """Share of what the pace allows that is used."""
        self.trouble: AsyncBackupError | None = None
        """Why the node is set aside; None if it is not."""
        self._options = options
        self._owner = owner
        self._waiting: deque[Attempt] = deque()
        self._waiting_size = 0
        self._opening = anyio.Lock()
        self._wanted = anyio.Event()
        self._wanted.set()
        self._most = self._options.connections or _MOST_CONNECTIONS
        """Connections that the server takes, as far as is known."""
        self._probe_after_s = _MIN_ASIDE_S
        """Seconds after which the node is probed if it is set aside now."""
        self._last_answer_s = 0.0
        self._is_closed = False

    @property
    def address(self) -> str:
        """The address as messages show it."""
        return format_address(self.host, self.port)

    @property
    def peers(self) -> set[tuple[str, int]]:
        """The IP addresses and ports that open connections lead to."""
        return {connection.peer for connection in self.connections if connection.is_open and connection.peer[0]}

    @property
    def load(self) -> int:
        """Bytes that are under way, or wait for it, as they are charged."""
        return self.pace.in_flight + self._waiting_size

    @property
    def is_open(self) -> bool:
        """Whether a connection is open."""
        return any(connection.is_open for connection in self.connections)

    # Connections.

    async def keep(self) -> None:
        """Open connections as they are wanted, and probe the node while it is set aside, until it is closed."""
        while not self._is_closed:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            if self.trouble is None:
                with suppress(AsyncBackupError):
                    await self.open()
                    # A server may close at once what it accepts. Then it is not asked again without a pause.
                    await anyio.sleep(_PAUSE_S)
            if self.trouble is not None:
                await anyio.sleep(self._probe_after_s)
                self._probe_after_s = min(_MAX_ASIDE_S, 2 * self._probe_after_s)
                self.trouble = None
                self._wanted.set()

    async def open(self) -> None:
        """Open the connections that are lacking. Without one that is open, find out first what release answers.

        Raises Unreachable, ConnectionLost, ProtocolViolation or RequestTimeout if no connection is open afterwards.
        Then the node is set aside. Cancelled: the next call goes on.
        """
        async with self._opening:
            if self._is_closed:
                raise self.lost()
            for lost in [connection for connection in self.connections if not connection.is_open]:
                await lost.close()
                self.connections.remove(lost)
            try:
                if not self.connections:
                    # The server may have been replaced by one of another release.
                    await self._open_first()
                await self._open_more()
            except AsyncBackupError as error:
                self.set_aside(error)
                raise
            if self.trouble is None:
                self._probe_after_s = _MIN_ASIDE_S
            self.send()

    async def _open_first(self) -> None:
        timeout_s = self._options.connect_timeout_s
        self._most = self._options.connections or _MOST_CONNECTIONS
        try:
            async with asyncio.timeout(timeout_s):
                await self._greet(await self._open_one())
        except TimeoutError as error:
            self._abort_connections()
            reason = f"it accepts connections but gave no answer within {timeout_s:g} s, so it is no sheep or stalled"
            raise Unreachable(self.address, reason) from error
        except BaseException:
            # The next call must not take a connection for good on which the greeting failed.
            self._abort_connections()
            raise

    async def _open_more(self) -> None:
        """Open what is lacking. A server that takes no more connections is asked over those that it took."""
        lacking = self._wanted_connections() - len(self.connections)
        if lacking <= 0:
            return
        try:
            with single_error():
                async with anyio.create_task_group() as group:
                    for _ in range(lacking):
                        group.start_soon(self._open_one)
        except Unreachable:
            if not self.is_open:
                raise
            self._most = len(self.connections)

    async def _open_one(self) -> Connection:
        connection = await Connection.open(self.host, self.port, self._options.connect_timeout_s, self)
        self.connections.append(connection)
        if self._is_closed:
            connection.abort()
        return connection

    async def _greet(self, connection: Connection) -> None:
        """Ask for the node list in each internal version: only the server's own is not a version mismatch."""
        self.versions, self.listing = Versions(), None
        for version in INTERNAL_VERSIONS:
            request = Request(messages.node_list(MAX_NODES * NODE_ENTRY_SIZE))
            await connection.call(request, version, self._options.request_timeout_s)
            if request.result is not Result.VER_MISMATCH:
                self.versions, self.listing = Versions(version), request
                return

    def _wanted_connections(self) -> int:
        """Say how many connections are needed for what may be under way: one TCP window does not fill a long path."""
        if self._options.connections is not None:
            return min(self._options.connections, self._most)
        under_way = -(-min(self.pace.limit, self.load) // (DEPTH * READ_SIZE))
        return min(max(under_way, 1), self._most)

    def set_aside(self, error: AsyncBackupError) -> None:
        """Send nothing here for a while: close all connections, and end what waits with ``error``."""
        if self.trouble is not None or self._is_closed:
            return
        self.trouble = error
        for connection in self.connections:
            connection.abort(error)
        self._wanted.set()
        self._owner.note_trouble(self, error)
        self._end_waiting()

    def _end_waiting(self) -> None:
        waiting, self._waiting, self._waiting_size = self._waiting, deque(), 0
        for attempt in waiting:
            attempt.end(self.lost())

    def _abort_connections(self) -> None:
        for connection in self.connections:
            connection.abort()

    def abort(self) -> None:
        """End all connections for good, and what waits. Idempotent."""
        self._is_closed = True
        self._abort_connections()
        self._end_waiting()
        self._wanted.set()

    async def close(self) -> None:
        """Do what ``abort`` does, and wait until the connections are closed. Idempotent."""
        self.abort()
        for connection in self.connections:
            await connection.close()

    def lost(self) -> AsyncBackupError:
        """Make a fresh exception for one who waits for a connection, and none is open: why there is none."""
        if self.trouble is not None:
            return another(self.trouble)
        for connection in reversed(self.connections):
            if not connection.is_open:
                return connection.lost()
        return ConnectionLost(self.address, "closed by us" if self._is_closed else "not open")

    # Attempts.

    def submit(self, attempt: Attempt) -> None:
        """Send an attempt as soon as the pace allows, or end it with why it cannot be sent."""
        if self._is_closed or self.trouble is not None:
            attempt.end(self.lost())
            return
        self._waiting.append(attempt)
        self._waiting_size += charge_for(attempt.size)
        self.send()

    def give_up(self, attempt: Attempt) -> None:
        """Stop waiting for an attempt that was submitted: afterwards its buffer is free."""
        if attempt.connection is not None:
            attempt.connection.give_up(attempt)
        elif attempt.on_end is not None:
            attempt.on_end = None
            self._waiting.remove(attempt)
            self._waiting_size -= charge_for(attempt.size)

    def hangs(self, since_s: float) -> bool:
        """Tell whether attempts are under way, and none was answered after ``since_s``."""
        return self.pace.in_flight > 0 and self._last_answer_s < since_s

    def send(self) -> None:
        """Send what the paces and the sockets allow."""
        now_s = time.monotonic()
        while self._waiting:
            attempt = self._waiting[0]
            connection = self._choose(attempt)
            if connection is None:
                if not self.pace.has_room(attempt.size):
                    self.pace.note_waiting()
                elif not self._owner.pace.has_room(attempt.size):
                    self._owner.note_waiting(self)
                break
            self._waiting.popleft()
            self._waiting_size -= charge_for(attempt.size)
            if not self.pace.in_flight:
                self._last_answer_s = now_s  # Silence counts from when there is something to answer.
            attempt.sent = self.pace.note_sent(now_s, attempt.size)
            attempt.sent_in_all = self._owner.pace.note_sent(now_s, attempt.size)
            connection.send(attempt, self.versions.for_message(attempt.request.message))
        if len(self.connections) < self._wanted_connections():
            self._wanted.set()

    def _choose(self, attempt: Attempt) -> Connection | None:
        """Give the connection with the fewest attempts under way, if there is room on any."""
        is_fixed = self._options.connections is not None
        if not (is_fixed or self._has_room(attempt.size)):
            return None
        chosen, fewest = None, DEPTH if is_fixed else 1 << 30
        for connection in self.connections:
            if connection.unanswered < fewest and connection.is_ready:
                chosen, fewest = connection, connection.unanswered
        return chosen

    def _has_room(self, size: int) -> bool:
        in_flight = self.pace.in_flight
        has_room = self.pace.has_room(size) and self._owner.pace.has_room(size)
        return has_room and (not in_flight or in_flight + size <= self.pace.limit * self.share)

    # What connections tell.

    def note_answer(self, attempt: Attempt) -> None:
        """Take note of an answer, and send what it made room for."""
        sent, sent_in_all = attempt.sent, attempt.sent_in_all
        if sent is None or sent_in_all is None:
            return
        now_s = time.monotonic()
        self._last_answer_s = now_s
        _tell(self.address, self.pace.note_answered(now_s, sent))
        _tell("all nodes", self._owner.pace.note_answered(now_s, sent_in_all))
        attempt.latency_s = now_s - sent.at_s
        self._owner.note_answer(attempt)
        self._owner.note_room()
        self.send()

    def note_room(self) -> None:
        """Send what waits."""
        self.send()

    def note_loss(self, unanswered: Sequence[Attempt]) -> None:
        """Take note that a connection ended, and have it opened again."""
        now_s = time.monotonic()
        for attempt in unanswered:
            if attempt.sent is not None and attempt.sent_in_all is not None:
                self.pace.note_given_up(now_s, attempt.sent)
                self._owner.pace.note_given_up(now_s, attempt.sent_in_all)
        self._owner.note_room()
        self.send()
        self._wanted.set()


def _tell(path: str, change: Change | None) -> None:
    """Say in the log what a pace has learnt."""
    if change is not None:
        now, before = change.limit >> 10, change.before >> 10
        _log.info("%s: %d KiB in flight instead of %d: %s", path, now, before, change.reason)
