"""Carries requests out over the nodes of a cluster. Today there is one node.

The law of this module:

- A connection has at most ``depth`` attempts with its server. The others wait here: first come, first served.
- An attempt goes to the connection with the fewest attempts under way.
- A connection that was lost is opened again before the next request is sent. Requests that were under way on it fail.
- No request waits where no connection is open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from asyncbackup.client.connection import Attempt, Connection, Waiter
from asyncbackup.client.node import Node
from asyncbackup.client.options import ClientOptions
from asyncbackup.client.outcome import Outcome, judge, repeat_delay_s
from asyncbackup.client.request import Request
from asyncbackup.errors import ClusterNotReady
from asyncbackup.wire.constants import Result


@dataclass(slots=True)
class Counts:
    """What was sent for one job."""

    requests: int = 0
    """Requests sent, repeated ones included."""
    retries: int = 0
    """Requests among them that repeat one because the cluster asked for it."""


class Router:
    """Sends requests over the connections of one node, and again where the cluster asks for it.

    Each request raises ClusterNotReady where the cluster serves nobody; and ConnectionLost, RequestTimeout,
    ProtocolViolation or Unreachable where the way to it fails. Cancelling one leaves the connections usable.
    """

    def __init__(self, host: str, port: int, options: ClientOptions) -> None:
        self.options = options
        self.node = Node(host, port, options, self._send)
        self._waiting: deque[Attempt] = deque()

    async def open(self) -> None:
        """Connect, and find out what release answers. Raises Unreachable, ConnectionLost, ProtocolViolation."""
        await self.node.open()

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self.node.close()

    @property
    def in_flight(self) -> int:
        """Attempts that wait to be sent, or that the server still owes an answer for."""
        return len(self._waiting) + self.node.unanswered

    async def call(self, requests: Sequence[Request], counts: Counts) -> None:
        """Carry out requests of one kind, at least one, together. Afterwards each has an answer, maybe an error.

        After an error or a cancellation the buffers are free for other use. Which requests were carried out is open.
        """
        options, node = self.options, self.node
        while True:
            if node.is_short:
                await node.open()
            proto_ver = node.version_for(requests[0].message)
            counts.requests += len(requests)
            await self._attempt(requests, proto_ver)
            delay_s, again = 0.0, []
            for request in requests:
                if request.result is Result.SUCCESS:
                    continue
                outcome = judge(request.result, proto_ver, request.repeats, options)
                if outcome is Outcome.NOT_READY:
                    raise ClusterNotReady(node.address, request.result, request.result.meaning)
                if outcome is Outcome.USE_OLDER_VERSION:
                    node.use_older_version()
                    again.append(request)
                elif outcome is Outcome.REPEAT:
                    delay_s = repeat_delay_s(request.repeats, options)
                    request.repeats += 1
                    counts.retries += 1
                    again.append(request)
            if not again:
                return
            if delay_s:
                await anyio.sleep(delay_s)
            requests = again

    async def _attempt(self, requests: Sequence[Request], proto_ver: int) -> None:
        """Make one attempt at each request, and wait until all are answered."""
        waiter = Waiter(len(requests))
        attempts = [Attempt(request, request.buffer, proto_ver, waiter) for request in requests]
        self._waiting.extend(attempts)
        self._send()
        try:
            await waiter.wait(self.node.address, requests[0], self.options.request_timeout_s)
        finally:
            if waiter.unanswered:
                self._give_up(attempts)

    def _send(self) -> None:
        """Send what the depth and the sockets allow."""
        waiting = self._waiting
        while waiting:
            connection = self._choose()
            if connection is not None:
                connection.send(waiting.popleft())
            elif self.node.is_open:
                return
            else:
                waiter = waiting.popleft().waiter
                if waiter is not None:
                    waiter.fail(self.node.lost())

    def _choose(self) -> Connection | None:
        """Give the connection with the fewest attempts under way, if there is room on any."""
        chosen, fewest = None, self.options.depth
        for connection in self.node.connections:
            if connection.unanswered < fewest and connection.is_ready:
                chosen, fewest = connection, connection.unanswered
        return chosen

    def _give_up(self, attempts: Sequence[Attempt]) -> None:
        unsent = {id(attempt) for attempt in attempts if attempt.connection is None}
        if unsent:
            self._waiting = deque(attempt for attempt in self._waiting if id(attempt) not in unsent)
        for attempt in attempts:
            if attempt.connection is not None:
                attempt.connection.give_up(attempt)
