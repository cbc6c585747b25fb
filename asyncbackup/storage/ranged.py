"""What all sources have in common that are read at any offset."""

from __future__ import annotations

from abc import ABC, abstractmethod

from anyio import to_thread

from asyncbackup.storage.target import Step


class RangedSource(ABC):
    """A source whose size is known. What ``read_now`` reads is read in a thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0

    async def peek(self, size: int) -> bytes:
        """Give the first ``size`` bytes, or all of them if there are fewer."""
        # Ask for no more bytes than there are: the kernel may then have them in memory, and no thread is needed.
        buffer = bytearray(min(size, self.size))
        return bytes(buffer[: await self.read_into(0, memoryview(buffer))])

    async def read_into(
        self, offset: int, view: memoryview, *, before: Step | None = None, after: Step | None = None
    ) -> int:
        return await to_thread.run_sync(self._read_between, offset, view, before, after)

    def _read_between(self, offset: int, view: memoryview, before: Step | None, after: Step | None) -> int:
        if before is not None:
            before()
        count = self.read_now(offset, view)
        if after is not None:
            after()
        return count

    @abstractmethod
    def read_now(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from ``offset`` on, and give the count of bytes: fewer at the end. Blocks."""
