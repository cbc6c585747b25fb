"""A backup, or a manifest, on disk: written from its beginning to its end, and published at once."""

from __future__ import annotations

from collections.abc import Sequence

from asyncbackup.sinks.atomic import AtomicFile
from asyncbackup.sinks.base import Bytes


class FileSink(AtomicFile):
    """Writes ``path`` in order."""

    can_seek = True

    async def append(self, buffers: Sequence[Bytes]) -> None:
        await self._in_thread(self._append, buffers)
