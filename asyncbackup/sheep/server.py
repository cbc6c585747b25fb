"""The embedded server: a single sheep behind a socket of the running event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from asyncbackup.sheep.connection import Connection, Shared
from asyncbackup.sheep.faults import Fault, FaultScript
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.service import Service
from asyncbackup.sheep.store import Store
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.messages import RequestHeader
from asyncbackup.wire.nodes import format_address


class Sheep:
    """Serves ``store`` at ``host`` and ``port`` (0: any free one) for as long as its ``async with`` block lasts.

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
        self.host = host
        self.port = port
        self._service = Service(store, copies=copies, release=release)
        self._shared = Shared(self._service, FaultScript(faults), on_request)
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

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._shared), self.host, self.port)
        self.host, self.port = self._server.sockets[0].getsockname()[:2]
        self._service.announce(self.host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in tuple(self._shared.connections):
            connection.abort()
        await server.wait_closed()
