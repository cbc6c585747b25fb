"""A backup, or a manifest, on disk: written from its beginning to its end, and published at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from asyncbackup.sinks.atomic import AtomicFile
from asyncbackup.sinks.base import Bytes


class FileSink(AtomicFile):
    """Writes ``path`` in order."""

    can_seek = True

    @classmethod
    def beside(cls, main: AtomicFile, suffix: str) -> Self:
        """Make the sink of what belongs to ``main``, which was entered, and is committed together with it."""
        sink = cls(main.place.beside(suffix).final, replace=main.replaces)
        sink.become_companion(main)
        return sink

    async def append(self, buffers: Sequence[Bytes]) -> None:
        await self._in_thread(self._append, buffers)
