"""One server: its address, its release, and its connections, which are opened again when they were lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio

from asyncbackup.client.connection import Connection
from asyncbackup.client.options import ClientOptions
from asyncbackup.client.request import Request
from asyncbackup.errors import AsyncBackupError, ConnectionLost, Unreachable, single_error
from asyncbackup.wire import messages
from asyncbackup.wire.constants import INTERNAL_VERSIONS, PUBLIC_VERSIONS, Result
from asyncbackup.wire.messages import Message
from asyncbackup.wire.nodes import MAX_NODES, NODE_ENTRY_SIZE, format_address

_TRIMMING_VERSIONS: Final = frozenset({0x07, 0x08})
"""Internal versions of the releases (0.5.1 to 0.7) that trim zero sectors off a READ_OBJ answer."""

_LAST_VERSION_OF_OLD_DELETION: Final = 0x06
_FIRST_VERSION_OF_COPY_POLICIES: Final = 0x08
_FIRST_VERSION_OF_OBJECT_SIZES: Final = 0x0A


class Node:
    """A server. ``on_change`` is called when its connections may take more attempts than before, or one was lost."""

    def __init__(self, host: str, port: int, options: ClientOptions, on_change: Callable[[], None]) -> None:
        self.host = host
        self.port = port
        self.internal_version: int | None = None
        """Which release the server is of, by its internal protocol version; None if it is none that is known."""
        self.connections: list[Connection] = []
        """Those that are open, and those that were lost and are not replaced yet."""
        self.is_short = True
        """Whether connections are to be opened before the next request is sent."""
        self._options = options
        self._on_change = on_change
        self._public_version = PUBLIC_VERSIONS[0]
        self._opening = anyio.Lock()
        self._failure: AsyncBackupError | None = None
        """What the last opening that failed raised."""
        self._is_closed = False

    @property
    def address(self) -> str:
        """The address as messages show it."""
        return format_address(self.host, self.port)

    @property
    def unanswered(self) -> int:
        """Attempts that the server still owes an answer for, on all connections."""
        return sum(connection.unanswered for connection in self.connections)

    @property
    def is_open(self) -> bool:
        """Whether a connection is open."""
        return any(connection.is_open for connection in self.connections)

    async def open(self) -> None:
        """Open the connections that are lacking: all of them the first time, later those that were lost.

        Raises Unreachable, ConnectionLost, ProtocolViolation or RequestTimeout if no connection is open afterwards: to
        all who waited for it at that time. Cancelled: the next call goes on.
        """
        known = self._failure
        async with self._opening:
            if self._is_closed:
                raise self.lost()
            if not self.is_short:
                return
            failure = self._failure
            if failure is not None and failure is not known:
                # To try it once more would cost each of those who wait a time-out of its own.
                reason = failure.reason if isinstance(failure, Unreachable) else None
                raise (self.lost() if reason is None else Unreachable(self.address, reason)) from failure
            for lost in [connection for connection in self.connections if not connection.is_open]:
                await lost.close()
                self.connections.remove(lost)
            if self.connections:
                # A server that takes no more connections is asked over those that it took.
                with suppress(Unreachable):
                    await self._open_more()
            else:
                try:
                    await self._open_all()
                except AsyncBackupError as error:
                    self._failure = error
                    raise
            self.is_short = not all(connection.is_open for connection in self.connections)

    async def _open_all(self) -> None:
        """Open one connection, find out what release answers, and open the others.

        Where no connection is left the server may have been replaced by one of another release.
        """
        timeout_s = self._options.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._greet(await self._open_one())
                await self._open_more()
        except TimeoutError as error:
            self._abort()
            reason = f"it accepts connections but gave no answer within {timeout_s:g} s, so it is no sheep or stalled"
            raise Unreachable(self.address, reason) from error
        except BaseException:
            # The next call must not take a connection for good on which the greeting failed.
            self._abort()
            raise

    async def _open_one(self) -> Connection:
        timeout_s = self._options.connect_timeout_s
        connection = await Connection.open(self.host, self.port, timeout_s, self._on_change, self._note_end)
        self.connections.append(connection)
        if self._is_closed:
            connection.abort()
        return connection

    async def _open_more(self) -> None:
        with single_error():
            async with anyio.create_task_group() as group:
                for _ in range(self._options.connections - len(self.connections)):
                    group.start_soon(self._open_one)

    async def _greet(self, connection: Connection) -> None:
        """Ask for the node list in each internal version: only the server's own is not a version mismatch."""
        self.internal_version, self._public_version = None, PUBLIC_VERSIONS[0]
        for version in INTERNAL_VERSIONS:
            request = Request(messages.node_list(MAX_NODES * NODE_ENTRY_SIZE))
            await connection.call(request, version, self._options.request_timeout_s)
            if request.result is not Result.VER_MISMATCH:
                self.internal_version = version
                return

    def _note_end(self) -> None:
        self.is_short = True
        self._on_change()

    def _abort(self) -> None:
        for connection in self.connections:
            connection.abort()

    async def close(self) -> None:
        """Close all connections for good. Idempotent."""
        self._is_closed = self.is_short = True
        self._abort()
        for connection in self.connections:
            await connection.close()

    def lost(self) -> AsyncBackupError:
        """Make a fresh exception for one who waits for a connection, and none is open: why the last one ended."""
        for connection in reversed(self.connections):
            if not connection.is_open:
                return connection.lost()
        return ConnectionLost(self.address, "closed by us" if self._is_closed else "not open")

    # What depends on the release.

    def version_for(self, message: Message) -> int:
        """Give the protocol version to send ``message`` in."""
        if message.is_internal:
            return self.internal_version or INTERNAL_VERSIONS[0]
        return self._public_version

    def use_older_version(self) -> None:
        """Send public requests in the older version from now on: the server knows no newer one."""
        self._public_version = PUBLIC_VERSIONS[-1]

    @property
    def may_trim(self) -> bool:
        """Whether READ_OBJ answers may lack zero sectors at their ends. Those of an unknown release may."""
        return self.internal_version is None or self.internal_version in _TRIMMING_VERSIONS

    @property
    def takes_object_sizes(self) -> bool:
        """Whether VDIs choose their object size (1.0). Other releases want 0 in that place of a request."""
        return self.internal_version is None or self.internal_version >= _FIRST_VERSION_OF_OBJECT_SIZES

    @property
    def takes_copy_policies(self) -> bool:
        """Whether objects can be coded and not only copied (0.8). Other releases want 0 in that place of a request."""
        return self.internal_version is None or self.internal_version >= _FIRST_VERSION_OF_COPY_POLICIES

    @property
    def deletes_as_of_old(self) -> bool:
        """Whether VDIs are deleted under the old opcode (to 0.5.0)."""
        return self.internal_version is not None and self.internal_version <= _LAST_VERSION_OF_OLD_DELETION
