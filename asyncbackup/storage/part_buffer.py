"""Gathers what is appended in parts of one size, each in memory of its own."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from anyio import to_thread

from asyncbackup.storage.target import BRIEF, Bytes, Step


class PartBuffer:
    """The part of ``size`` bytes that is being filled. What was taken goes back to the system as soon as it is sent."""

    def __init__(self, size: int) -> None:
        self.filled = 0
        self.total = 0
        """Bytes that were ever appended."""
        self._size = size
        self._part: memoryview | None = None

    async def append(
        self, buffers: Sequence[Bytes], send: Callable[[], Awaitable[None]], before: Step | None = None
    ) -> None:
        """Call ``before`` and copy ``buffers``, as ``Target.append`` says. ``send`` must ``take`` each full part."""
        rest = deque(memoryview(buffer) for buffer in buffers)
        if sum(map(len, rest)) <= BRIEF:
            self._fill(rest, before)
        else:
            await to_thread.run_sync(self._fill, rest, before)
        while self.filled == self._size:
            await send()
            await to_thread.run_sync(self._fill, rest)

    def _fill(self, rest: deque[memoryview], before: Step | None = None) -> None:
        """Call ``before``, and move what fits into the part."""
        if before is not None:
            before()
        while rest and self.filled < self._size:
            if self._part is None:
                self._part = memoryview(mmap.mmap(-1, self._size))
            piece = rest.popleft()
            taken = piece[: self._size - self.filled]
            if len(taken) < len(piece):
                rest.appendleft(piece[len(taken) :])
            self._part[self.filled : self.filled + len(taken)] = taken
            self.filled += len(taken)
            self.total += len(taken)

    def take(self) -> memoryview:
        """Give what is in the part, and begin another one."""
        part = memoryview(b"") if self._part is None else self._part[: self.filled]
        self._part, self.filled = None, 0
        return part
