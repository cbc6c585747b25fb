"""The way into a cluster through one of its nodes: several connections, in its protocol version, again if it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio

from asyncbackup.client import policy
from asyncbackup.client.connection import Connection, Exchange
from asyncbackup.client.policy import ClientOptions
from asyncbackup.errors import ClusterNotReady, Unreachable, single_error
from asyncbackup.wire import messages
from asyncbackup.wire.constants import INTERNAL_VERSIONS, PUBLIC_VERSIONS, Result
from asyncbackup.wire.messages import Request
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, format_address


class Gateway:
    """Sends requests over a few connections to one node.

    Each raises RequestFailed for an error result, ClusterNotReady where the cluster serves nobody, and
    ConnectionLost, RequestTimeout or ProtocolViolation where the way to it fails. Cancelling one leaves the
    connections usable.
    """

    def __init__(self, host: str, port: int, options: ClientOptions) -> None:
        self.host = host
        self.port = port
        self.options = options
        self.internal_version: int | None = None
        """Which release the gateway is of, by its internal protocol version; None if of none known."""
        self.requests = 0
        """Requests sent, repeated ones included."""
        self.retries = 0
        """Requests among them that repeat one the cluster asked to send again."""
        self._public_version = PUBLIC_VERSIONS[0]
        self._connections: list[Connection] = []

    @property
    def address(self) -> str:
        return format_address(self.host, self.port)

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet, on all connections."""
        return sum(connection.in_flight for connection in self._connections)

    async def open(self) -> None:
        """Connect, and find out what release answers. Raises Unreachable."""
        timeout_s = self.options.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                self._connections.append(await Connection.open(self.host, self.port, timeout_s, self.options.depth))
                await self._greet()
                await self._open_more()
        except TimeoutError as error:
            reason = f"it accepts connections but gave no answer within {timeout_s:g} s, so it is no sheep or stalled"
            raise Unreachable(self.address, reason) from error

    async def _open_more(self) -> None:
        async def open_one() -> None:
            options = self.options
            opened = await Connection.open(self.host, self.port, options.connect_timeout_s, options.depth)
            self._connections.append(opened)

        with single_error():
            async with anyio.create_task_group() as group:
                for _ in range(self.options.connections - 1):
                    group.start_soon(open_one)

    async def _greet(self) -> None:
        """Ask for the node list in each internal version: only the server's own is not a version mismatch."""
        for version in INTERNAL_VERSIONS:
            exchange = Exchange(messages.node_list(MAX_NODES * NODE_ENTRY_SIZE))
            await self._send([exchange], version)
            if exchange.result is not Result.VER_MISMATCH:
                self.internal_version = version
                return

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        for connection in self._connections:
            connection.abort()
        for connection in self._connections:
            await connection.close()

    async def _send(self, exchanges: Sequence[Exchange], version: int) -> None:
        self.requests += len(exchanges)
        connection = policy.least_loaded(self._connections)
        await connection.call(exchanges, version, self.options.request_timeout_s)

    async def call(self, request: Request) -> Exchange:
        """Do ``call_all`` for one request."""
        exchange = Exchange(request)
        await self.call_all([exchange])
        return exchange

    async def call_all(self, exchanges: Sequence[Exchange]) -> None:
        """Send requests of one kind together, again where the cluster asks for it; their results may be errors.

        Falls back to public version 1 for good when the server knows no newer one. Raises ClusterNotReady.
        """
        attempt = 1
        while True:
            version = self._version_for(exchanges[0].request)
            await self._send(exchanges, version)
            results = {exchange.result for exchange in exchanges if exchange.result is not Result.SUCCESS}
            if not results:
                return
            if Result.VER_MISMATCH in results and version in PUBLIC_VERSIONS[:-1]:
                self._public_version = PUBLIC_VERSIONS[-1]
                continue
            for result in results & policy.NOT_READY:
                raise ClusterNotReady(self.address, result, result.meaning)
            delay_s = policy.retry_delay_s(self.options, results, attempt)
            if delay_s is None:
                return
            await anyio.sleep(delay_s)
            exchanges = [exchange for exchange in exchanges if exchange.result in policy.TRANSIENT]
            self.retries += len(exchanges)
            attempt += 1

    def _version_for(self, request: Request) -> int:
        if request.is_internal:
            return self.internal_version or INTERNAL_VERSIONS[0]
        return self._public_version

    async def expect_success(self, request: Request, what: str) -> Exchange:
        """Do the same, but raise RequestFailed for ``what`` if the result is an error."""
        reply = await self.call(request)
        if reply.result is not Result.SUCCESS:
            raise policy.failure(what, reply.result)
        return reply
