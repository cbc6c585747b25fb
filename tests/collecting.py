"""A target that keeps what it gets, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from asyncbackup.storage.target import Bytes, Step, run_before


class CollectingTarget:
    """Takes bytes in order; ``is_complete`` is set by ``complete``."""

    name = "a collecting target"
    can_patch = False

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_complete = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep everything."""

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await run_before(before, buffers)
        for buffer in buffers:
            self.data += buffer

    async def sync(self) -> None:
        """Nothing is durable."""

    async def complete(self, beginning: bytes = b"") -> None:
        assert not beginning
        self.is_complete = True

    async def abandon(self) -> None:
        """Keep everything."""
