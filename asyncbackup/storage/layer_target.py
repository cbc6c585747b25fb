"""What the targets have in common that make other bytes of what is appended, and hand those on to another target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from asyncbackup.storage.target import Target, end_content


class LayerTarget(ABC):
    """Writes to ``inner``, which was entered. What was made of the content is not patched: ``can_patch`` is false."""

    can_patch = False
    encrypts = False
    """Whether others cannot read what it makes."""

    def __init__(self, inner: Target) -> None:
        self.inner = inner
        self._has_ended = False

    @property
    def name(self) -> str:
        return self.inner.name

    async def __aenter__(self) -> Self:
        return self

    @abstractmethod
    async def _write_rest(self) -> None:
        """Write what is not in ``inner`` yet: the content is complete."""

    async def end(self) -> None:
        """Say that the content is complete. Does nothing the second time."""
        if self._has_ended:
            return
        self._has_ended = True
        await self._write_rest()
        await end_content(self.inner)

    async def complete(self, beginning: bytes = b"") -> None:
        assert not beginning, "what was made of the content is not replaced"
        await self.end()
        await self.inner.complete()

    async def abandon(self) -> None:
        await self.inner.abandon()
