"""A way to servers that is longer: ``python -m asyncbackup.bench.delay NEAR FAR ROUND_TRIP_MS PORT...``.

It listens at address NEAR, and leads to address FAR, at the same ports. Each direction delays what it passes on by half
the round trip, and does not slow it down otherwise. It is a process of its own, so that it takes no time of the loop
that is measured. It prints a line when it listens.

The loop waits with select(2): epoll, which both usual loops wait with, knows no less than a millisecond.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
from collections import deque
from functools import partial
from typing import Final

_MOST_BYTES: Final = 64 << 20
"""Bytes on their way on a connection in one direction. 20 ms at 3 GB/s are as many; more would only be a queue."""


class _Half(asyncio.Protocol):
    """One end of a connection: what it receives is sent at the other end, later."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self.can_write = True
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self._other: _Half | None = None

    def join(self, other: _Half) -> None:
        self._other, other._other = other, self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_MOST_BYTES // 16)

    def data_received(self, data: bytes) -> None:
        self._pieces.append((self._loop.time() + self._delay_s, data))
        self._held += len(data)
        if self._held > _MOST_BYTES and self.transport is not None:
            self.transport.pause_reading()
        self.pass_on_later()

    def pass_on_later(self) -> None:
        if self._timer is None and self._pieces and self.can_write:
            self._timer = self._loop.call_at(self._pieces[0][0], self._pass_on)

    def _pass_on(self) -> None:
        self._timer = None
        if self._other is None or self._other.transport is None or self.transport is None:
            return
        now_s = self._loop.time()
        while self._pieces and self._pieces[0][0] <= now_s and self.can_write:
            _, data = self._pieces.popleft()
            self._held -= len(data)
            self._other.transport.write(data)
        if self._held <= _MOST_BYTES // 2 and not self.transport.is_closing():
            self.transport.resume_reading()
        self.pass_on_later()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.can_write = False

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.can_write = True
            self._other.pass_on_later()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._other is not None and self._other.transport is not None:
            self._loop.call_later(self._delay_s, self._other.transport.close)


class _Entrance(_Half):
    """The end that a client connects to."""

    def __init__(self, host: str, port: int, delay_s: float, group: asyncio.TaskGroup) -> None:
        super().__init__(delay_s)
        self._server = host, port
        self._group = group

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._group.create_task(self._connect())

    async def _connect(self) -> None:
        exit_ = _Half(self._delay_s)
        self.join(exit_)
        try:
            await self._loop.create_connection(lambda: exit_, *self._server)
        except OSError:
            assert self.transport is not None
            self.transport.abort()
        self.pass_on_later()


async def _listen(near: str, far: str, round_trip_ms: float, ports: list[int]) -> None:
    delay_s = round_trip_ms / 2000
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for port in ports:
            await loop.create_server(partial(_Entrance, far, port, delay_s, group), near, port)
        os.write(1, b"listening\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    near, far, round_trip_ms, *ports = sys.argv[1:]
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_listen(near, far, float(round_trip_ms), [int(port) for port in ports]))
