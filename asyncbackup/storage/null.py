"""A target that drops everything: what remains is the cost of all the rest."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from asyncbackup.storage.target import Bytes, Step, run_before


class NullTarget:
    """Counts bytes, and forgets them."""

    name = "nowhere"
    can_patch = True

    def __init__(self) -> None:
        self.bytes_written = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was kept, so nothing is taken back."""

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await run_before(before, buffers)
        self.bytes_written += sum(map(len, buffers))

    async def sync(self) -> None:
        """Nothing was kept."""

    async def complete(self, beginning: bytes = b"") -> None:
        """Nothing was kept, so nothing becomes visible."""

    async def abandon(self) -> None:
        """Nothing was kept, so nothing is taken back."""
