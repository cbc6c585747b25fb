"""A target that keeps what it gets, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from asyncbackup.errors import TargetFull
from asyncbackup.storage.kept import KeptTarget
from asyncbackup.storage.target import Bytes, Step


class CollectingTarget(KeptTarget):
    """Has room for so many bytes; ``is_complete`` is set by ``complete``."""

    def __init__(self, room: int = 1 << 40) -> None:
        super().__init__("a collecting target")
        self.is_complete = False
        self._room = room

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        await super().append(buffers, before=before)
        if len(self.data) > self._room:
            raise TargetFull(self.name, "No space left on device")

    async def complete(self, beginning: bytes = b"") -> None:
        await super().complete(beginning)
        self.is_complete = True


class PatchedTarget(CollectingTarget):
    """Can replace the beginning."""

    can_patch = True

    async def complete(self, beginning: bytes = b"") -> None:
        self.data[: len(beginning)] = beginning
        await super().complete()
