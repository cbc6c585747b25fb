"""What all sources have in common that are read once, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod

import anyio

from asyncbackup.errors import SourceUnreadable
from asyncbackup.storage.opening import READ_ONCE
from asyncbackup.storage.target import Step


class OnwardSource(ABC):
    """A source whose size is not known. Offsets must come in order and without gaps."""

    size = None
    is_far = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._position = 0
        self._peeked = b""
        self._moved = anyio.Event()

    async def read_into(
        self, offset: int, view: memoryview, *, before: Step | None = None, after: Step | None = None
    ) -> int:
        # Readers of later offsets wait for those of earlier ones, because bytes come only in order.
        while self._position != offset:
            assert self._position < offset
            await self._moved.wait()
        if before is not None:
            before()
        done = 0
        while done < len(view):
            count = self._give_peeked(view[done:]) or await self._read_some(view[done:])
            if not count:
                break
            done += count
        self._position += done
        self._moved.set()
        self._moved = anyio.Event()
        if after is not None:
            after()
        return done

    def _give_peeked(self, view: memoryview) -> int:
        count = min(len(view), len(self._peeked))
        view[:count] = self._peeked[:count]
        self._peeked = self._peeked[count:]
        return count

    @abstractmethod
    async def _read_some(self, view: memoryview) -> int:
        """Give some of the next bytes, and their count; 0 at the end. Raises SourceUnreadable."""

    def read_now(self, offset: int, view: memoryview) -> int:  # noqa: ARG002 - no thread may wait for a pipe
        raise SourceUnreadable(self.name, READ_ONCE)

    async def peek(self, size: int) -> bytes:
        """Give the first ``size`` bytes, or all of them if there are fewer. They are read again later."""
        buffer = bytearray(size)
        count = await self.read_into(0, memoryview(buffer))
        self._position, self._peeked = 0, bytes(buffer[:count]) + self._peeked
        return self._peeked[:count]
