"""Keeps what is appended in memory: for what is short."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from asyncbackup.storage.target import Bytes, Step, run_before


class KeptTarget:
    """Takes bytes, and has them as ``content``."""

    can_patch = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.content = bytearray()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await run_before(before, buffers)
        for buffer in buffers:
            self.content += buffer

    async def sync(self) -> None:
        """Do nothing."""

    async def complete(self, beginning: bytes = b"") -> None:
        self.content[: len(beginning)] = beginning

    async def abandon(self) -> None:
        """Do nothing."""
