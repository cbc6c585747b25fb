"""A target that keeps what it gets, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from asyncbackup import Target
from asyncbackup.storage.target import Bytes


class CollectingTarget:
    """Takes bytes in order; ``committed`` is set by ``complete``."""

    can_patch = False

    def __init__(self) -> None:
        self.data = bytearray()
        self.committed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep everything."""

    async def append(self, buffers: Sequence[Bytes]) -> None:
        for buffer in buffers:
            self.data += buffer

    async def complete(self, beginning: bytes, companion: Target | None = None) -> None:
        assert not beginning
        assert companion is None
        self.committed = True
