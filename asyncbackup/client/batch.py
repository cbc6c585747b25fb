"""Requests that are carried out together: which attempts are under way, and who waits for their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from asyncbackup.client.connection import Attempt
from asyncbackup.client.request import NO_PAYLOAD, Request
from asyncbackup.errors import AsyncBackupError
from asyncbackup.wire.constants import Result


class Batch:
    """Waits until each of its requests has an answer, or an error and no other attempt under way."""

    def __init__(self, requests: Sequence[Request]) -> None:
        loop = asyncio.get_running_loop()
        self.begun_s = time.monotonic()
        self.last: dict[Request, Attempt] = {}
        """The attempt that ended each request."""
        self._under_way: dict[Request, list[Attempt]] = {request: [] for request in requests}
        self._unended = len(requests)
        self._ended: asyncio.Future[None] = loop.create_future()

    @property
    def has_ended(self) -> bool:
        """Whether all requests have ended."""
        return not self._unended

    def begin(self, request: Request, buffer: memoryview | None) -> Attempt:
        """Make an attempt at a request that has not ended, for somebody to send."""
        assert request not in self.last
        request.answer, request.error, request.payload = None, None, NO_PAYLOAD
        attempt = Attempt(request, buffer, self._note_end)
        self._under_way[request].append(attempt)
        return attempt

    def under_way(self, request: Request | None = None) -> list[Attempt]:
        """Give the attempts that have not ended: those at ``request``, or all."""
        if request is not None:
            return self._under_way[request]
        return [attempt for attempts in self._under_way.values() for attempt in attempts]

    async def wait(self, timeout_s: float) -> bool:
        """Wait until all have ended, at most ``timeout_s`` seconds; tell whether they have."""
        if self.has_ended:
            return True
        timer = self._ended.get_loop().call_later(timeout_s, self._wake)
        try:
            await self._ended
        finally:
            timer.cancel()
        if not self.has_ended:
            self._ended = self._ended.get_loop().create_future()
        return self.has_ended

    def give_up(self) -> None:
        """Stop waiting for what is under way. Afterwards the buffers are free."""
        for attempts in self._under_way.values():
            for attempt in attempts:
                _give_up(attempt)
            attempts.clear()

    def fail(self, attempt: Attempt, error: AsyncBackupError) -> None:
        """End an attempt with ``error``, if it is under way."""
        if attempt not in self._under_way[attempt.request]:
            return
        _give_up(attempt)
        attempt.error = error
        self._note_end(attempt)

    def _wake(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _note_end(self, attempt: Attempt) -> None:
        request = attempt.request
        others = self._under_way[request]
        others.remove(attempt)
        is_success = attempt.header is not None and attempt.error is None and attempt.header.result is Result.SUCCESS
        if others and not is_success:
            return
        # A second attempt may be receiving into the buffer now.
        for other in others:
            _give_up(other)
        others.clear()
        self.last[request] = attempt
        request.answer, request.error = None if attempt.error else attempt.header, attempt.error
        request.payload = attempt.payload
        if is_success and request.buffer is not None and attempt.buffer is not request.buffer:
            assert attempt.buffer is not None
            request.buffer[:] = attempt.buffer
            request.payload = request.buffer[: len(attempt.payload)]
        self._unended -= 1
        if not self._unended:
            self._wake()


def _give_up(attempt: Attempt) -> None:
    if attempt.node is not None:
        attempt.node.give_up(attempt)
