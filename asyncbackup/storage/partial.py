"""A backup in the making. What is written of it can stay, so that another run can go on with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from asyncbackup.storage.backup_source import BackupSource
from asyncbackup.storage.file import FileTarget
from asyncbackup.storage.source import FileSource


class Partial:
    """What is written of ``data``, and of ``manifest`` beside it. Both are entered targets.

    From the first ``keep`` on it stays, whatever ends the run, until it is completed or dropped.
    """

    def __init__(self, data: FileTarget, manifest: FileTarget) -> None:
        self._data = data
        self._manifest = manifest

    @property
    def target(self) -> str:
        """What messages call the backup."""
        return self._data.name

    @property
    def path(self) -> Path:
        """Where the data stands."""
        return self._data.written

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run wrote some of it."""
        return self._data.is_begun

    @property
    def is_kept(self) -> bool:
        """Whether another run can go on with it."""
        return self._data.is_kept

    @asynccontextmanager
    async def read(self) -> AsyncIterator[BackupSource]:
        """Open what is there for reading. Raises SourceMissing, SourceUnreadable."""
        async with FileSource(self._data.written) as data, FileSource(self._manifest.written) as manifest:
            yield BackupSource(data, manifest)

    async def write_beginning(self, data: bytes) -> None:
        """Write what the data begins with over what stands there. Raises TargetFull, TargetWriteFailed."""
        await self._data.write_at(0, data)

    async def write_beginning_of_manifest(self, line: bytes) -> None:
        """Write the first line of the manifest over the one that stands there. Raises TargetFull, TargetWriteFailed."""
        await self._manifest.write_at(0, line)

    async def go_back(self, data_size: int, manifest_size: int) -> None:
        """Keep, durably, only the first bytes of both, and append behind them. Raises TargetFull, TargetWriteFailed."""
        await self._manifest.go_back(manifest_size)
        await self._data.go_back(data_size)

    async def keep(self) -> None:
        """Let what was written stay. The caller flushed all of it. Raises TargetWriteFailed."""
        await self._data.keep()

    @property
    def size(self) -> int:
        """Bytes of data that are there."""
        return self._data.written_size

    async def drop(self) -> None:
        """Remove what was written, because nobody must go on with it. After that nothing can be completed."""
        await self._data.drop()
