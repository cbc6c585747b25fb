"""Keeps what is appended in memory: for what is short."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from asyncbackup.storage.target import Bytes, Step, run_before


class KeptTarget:
    """Takes bytes, and has them as ``data``."""

    can_patch = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = bytearray()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await run_before(before, buffers)
        for buffer in buffers:
            self.data += buffer

    async def sync(self) -> None:
        """Do nothing."""

    async def complete(self, beginning: bytes = b"") -> None:
        assert not beginning, "what was appended is not patched"

    async def abandon(self) -> None:
        """Do nothing."""
