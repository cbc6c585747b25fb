"""A backup in the making. What is written of it can stay, so that another run can go on with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from anyio import to_thread

from asyncbackup.errors import BegunOtherwise, PartialDamaged
from asyncbackup.storage.file import FileTarget
from asyncbackup.storage.source import BlockingSource, FileSource
from asyncbackup.storage.target import ResumableLayer
from asyncbackup.storage.zstd import FRAME_SIZE, MAGIC
from asyncbackup.storage.zstd_frames import WrittenFrames, read_frame

_LOOKED_AT: Final = 16
"""Bytes at the beginning of which some are not zero if any were written: that of a record header."""


class Begun(NamedTuple):
    """What is there, opened for reading."""

    data: BlockingSource
    manifest: FileSource


class Partial:
    """What is written of ``data``, and of ``manifest`` beside it. Both are entered targets.

    From the first ``keep`` on it stays, whatever ends the run, until it is completed or dropped.
    """

    is_compressed = False
    """Whether what stands in the file is not what was appended, byte for byte."""

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
    async def read(self) -> AsyncIterator[Begun]:
        """Open what is there for reading. Raises SourceMissing, SourceUnreadable."""
        async with FileSource(self._data.written) as data, self.read_manifest() as manifest:
            yield Begun(data, manifest)

    @asynccontextmanager
    async def read_manifest(self) -> AsyncIterator[FileSource]:
        """Open what is there of the manifest alone."""
        async with FileSource(self._manifest.written) as manifest:
            yield manifest

    def compressed_by(self, layer: ResumableLayer) -> CompressedPartial:
        """Give the same for data that goes through ``layer``."""
        return CompressedPartial(self._data, self._manifest, layer)

    async def refuse_other_compression(self) -> None:
        """Raise BegunOtherwise if a backup was begun with compression, and goes on without, or the other way round."""
        async with FileSource(self._data.written) as data:
            beginning = await data.peek(_LOOKED_AT)
        was_compressed = MAGIC.startswith(beginning[: len(MAGIC)])
        # After a power failure there may be zeros where nothing came to the disk.
        if any(beginning) and was_compressed != self.is_compressed:
            raise BegunOtherwise(self.target, "compression", _name(was_compressed), _name(self.is_compressed))

    async def write_beginning_of_manifest(self, line: bytes) -> None:
        """Write the first line of the manifest over the one that stands there. Raises TargetFull, TargetWriteFailed."""
        await self._manifest.write_at(0, line)

    async def go_back(self, opening: bytes, data_size: int, manifest_size: int) -> None:
        """Keep, durably, only the first bytes of both, with ``opening`` at the very beginning, and append behind them.

        Raises TargetFull, TargetWriteFailed.
        """
        await self._manifest.go_back(manifest_size)
        # What is there may be patched already.
        await self._data.write_at(0, opening)
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


class CompressedPartial(Partial):
    """The same where ``layer`` compresses the data. Sizes of data to read and to keep are of the content."""

    is_compressed = True

    def __init__(self, data: FileTarget, manifest: FileTarget, layer: ResumableLayer) -> None:
        super().__init__(data, manifest)
        self._layer = layer
        self._found: WrittenFrames | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Begun]:
        async with FileSource(self._data.written) as file, self.read_manifest() as manifest:
            self._found = WrittenFrames(file)
            yield Begun(self._found, manifest)

    async def go_back(self, opening: bytes, data_size: int, manifest_size: int) -> None:
        """Do so for data that was read. What stands behind whole frames is taken back, and compressed with the rest.

        Raises PartialDamaged if they are not the data of what begins with ``opening``.
        """
        assert self._found is not None, "nobody knows how much is there without reading it"
        frames, held = divmod(data_size, FRAME_SIZE)
        lengths = self._found.lengths[:frames]
        end = sum(lengths)
        async with FileSource(self._data.written) as file:
            content = await to_thread.run_sync(_read_content, file, end, held)
            first = await to_thread.run_sync(_read_content, file, 0, len(opening))
        if frames and first != opening:
            raise PartialDamaged(self.target, str(self.path), "it does not begin as this backup does")
        await self._manifest.go_back(manifest_size)
        await self._data.go_back(end)
        self._layer.go_on(lengths, content if frames else opening + content[len(opening) :])


def _read_content(file: FileSource, offset: int, length: int) -> bytes:
    """Read the first bytes of the content of the frame at ``offset``, if there is one. Blocks."""
    found = read_frame(file, offset) if length else None
    return b"" if found is None else found[0][:length]


def _name(is_compressed: bool) -> str:  # noqa: FBT001 - this is what it names
    return "zstd" if is_compressed else "none"
