"""The embedded server: nodes behind sockets of the running event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

from asyncbackup.sheep.cluster import ClusterState
from asyncbackup.sheep.connection import Connection, Shared
from asyncbackup.sheep.faults import Fault, FaultScript
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.service import Service
from asyncbackup.sheep.store import MemoryStore, Store
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import RequestHeader
from asyncbackup.wire.nodes import format_address


class Server:
    """A node's sockets: it serves at ``host`` and ``port`` (0: any free one)."""

    def __init__(self, host: str, port: int, shared: Shared) -> None:
        self.host = host
        self.port = port
        self._shared = shared
        self._server: asyncio.Server | None = None

    @property
    def requests(self) -> Counter[Opcode]:
        """How many requests of each known opcode came in so far."""
        return self._shared.requests

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._shared.connections)

    @property
    def address(self) -> str:
        """``host:port`` as bound."""
        return format_address(self.host, self.port)

    async def bind(self) -> None:
        """Take the address. Nothing is served yet."""
        loop = asyncio.get_running_loop()
        make = partial(Connection, self._shared)
        self._server = await loop.create_server(make, self.host, self.port, start_serving=False)
        self.host, self.port = self._server.sockets[0].getsockname()[:2]

    async def serve(self) -> None:
        """Take connections at the address that ``bind`` took."""
        assert self._server is not None
        self._shared.is_serving = True
        await self._server.start_serving()

    def end(self) -> None:
        """Close all sockets at once."""
        self._shared.is_serving = False
        if self._server is not None:
            loop = asyncio.get_running_loop()
            for listening in self._server.sockets:
                loop.remove_reader(listening.fileno())
            # What was accepted just now becomes a connection first, which then closes: asyncio would leave it open.
            loop.call_soon(self._server.close)
        self.abort_connections()

    def abort_connections(self) -> None:
        """Cut all connections."""
        for connection in tuple(self._shared.connections):
            connection.abort()

    async def wait_closed(self) -> None:
        """Wait until the address is free again."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.sleep(0)
            server.close()
            await server.wait_closed()


class Sheep(Server):
    """A cluster of one node, for as long as its ``async with`` block lasts: serves ``store``.

    ``copies`` is what a new store is formatted with. ``faults`` are counted from when this value was made.
    ``on_request`` is called with each request before it is served. Leaving the block resets all connections; the
    store can be served again, by this or another value.
    """

    def __init__(
        self,
        store: Store,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        copies: int = 1,
        release: Release = Release.V1_0,
        faults: Sequence[Fault] = (),
        on_request: Callable[[RequestHeader], None] | None = None,
    ) -> None:
        self._cluster = ClusterState([store], copies=copies, release=release)
        super().__init__(host, port, Shared(Service(self._cluster), FaultScript(faults), on_request))

    async def __aenter__(self) -> Self:
        await self.bind()
        self._cluster.begin([(self.host, self.port)])
        await self.serve()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        await self.wait_closed()


class SheepCluster:
    """A cluster of several nodes, for as long as its ``async with`` block lasts. Each object is on ``copies`` of them.

    There is a node for each of ``stores``, new ones in memory by default. The first one serves at ``port`` and each
    other one at the port after the one before; at any free ports if ``port`` is 0. ``faults`` count the requests to
    all nodes together. ``on_request`` is called with a node's index and a request before that is served.
    """

    def __init__(
        self,
        stores: Sequence[Store] | int = 3,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        copies: int = 2,
        release: Release = Release.V1_0,
        faults: Sequence[Fault] = (),
        on_request: Callable[[int, RequestHeader], None] | None = None,
    ) -> None:
        self.stores = [MemoryStore() for _ in range(stores)] if isinstance(stores, int) else [*stores]
        self._cluster = ClusterState(self.stores, copies=copies, release=release)
        self._services = [Service(self._cluster, node) for node in range(len(self.stores))]
        script = FaultScript(faults)
        self._shared = [
            Shared(service, script, None if on_request is None else partial(on_request, node))
            for node, service in enumerate(self._services)
        ]
        self.nodes = [Server(host, port + node if port else 0, shared) for node, shared in enumerate(self._shared)]
        self._stack = AsyncExitStack()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the nodes serve: hosts and ports."""
        return [(node.host, node.port) for node in self.nodes]

    @property
    def forwarded_reads(self) -> int:
        """Reads of objects that a node had to get from another one, since it did not hold them."""
        return sum(service.forwarded_reads for service in self._services)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for node in self.nodes:
                stack.push_async_callback(node.wait_closed)
                stack.callback(node.end)
                await node.bind()
            # Where objects go depends on all addresses.
            self._cluster.begin(self.addresses)
            for node in self.nodes:
                await node.serve()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def kill(self, node: int) -> None:
        """End a node as SIGKILL does: its connections are cut, and the others go on in a new epoch."""
        self.nodes[node].end()
        self._shared[node].is_stalled = False
        self._cluster.leave(node)
        self._serve_waiting()

    async def restart(self, node: int) -> None:
        """Start a killed node again, at its address and with its store: a new epoch begins."""
        await self.nodes[node].wait_closed()
        await self.nodes[node].bind()
        self._cluster.join(node)
        await self.nodes[node].serve()

    def cut(self, node: int) -> None:
        """Cut all connections to a node. It goes on serving, and takes new ones."""
        self.nodes[node].abort_connections()

    def stall(self, node: int) -> None:
        """Let a node hang as SIGSTOP does: it stays in the cluster, and reads and answers nothing."""
        self._set_stalled(node, is_stalled=True)

    def resume(self, node: int) -> None:
        """Let a node that hangs go on."""
        self._set_stalled(node, is_stalled=False)
        self._serve_waiting()

    def _set_stalled(self, node: int, *, is_stalled: bool) -> None:
        self._cluster.members[node].is_stalled = self._shared[node].is_stalled = is_stalled
        for connection in tuple(self._shared[node].connections):
            connection.flush()

    def _serve_waiting(self) -> None:
        """Serve what waited for a node that hung, or have it wait on."""
        for shared in self._shared:
            waiting, shared.waiting = shared.waiting, []
            for serve in waiting:
                serve()
