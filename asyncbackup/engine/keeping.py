"""Keeps a backup in the making so that another run can go on with it, and goes on with what is there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import anyio

from asyncbackup.engine.progress import OnProgress
from asyncbackup.engine.record_writer import RecordWriter
from asyncbackup.engine.resumption import Resumption, find_resumption, read_lines
from asyncbackup.errors import ChangedMeanwhile, TargetError, single_error
from asyncbackup.format.manifest import Subject
from asyncbackup.storage.partial import Partial
from asyncbackup.storage.source import located

_log = logging.getLogger(__package__)

CHECKPOINT_BYTES: Final = 1 << 30
"""Bytes between two checkpoints: seconds of work on a usual network. Each costs a flush of what is not on disk yet."""

LEAVING_S: Final = 10.0
"""Seconds that a run which ends early waits for the disk. What is not on disk by then is perhaps written again."""


@dataclass(slots=True)
class Keeping:
    """Starts ``writer``, and takes a checkpoint of it whenever ``interval`` bytes more were written.

    From the first checkpoint on ``partial`` is kept. Without ``partial`` nothing is kept.
    """

    writer: RecordWriter
    partial: Partial | None
    interval: int
    _last: int = field(default=0, init=False)

    async def find(self, subject: Subject | None, on_progress: OnProgress | None) -> Resumption | None:
        """Find out from where to go on; None: there is nothing. Raises what ``find_resumption`` raises."""
        if self.partial is None or not self.partial.is_begun:
            return None
        assert subject is not None, "what is kept has a manifest"
        await self.partial.refuse_other_compression()
        async with self.partial.read() as (data, manifest):
            return await find_resumption(self.partial.target, data, manifest, subject, on_progress)

    async def start(self, found: Resumption | None, subject: Subject | None) -> None:
        """Begin, or go on from what was found. Cancelled: another run can find the same."""
        if found is None or self.partial is None:
            await self.writer.start()
            return
        assert subject is not None, "what is kept has a manifest"
        checkpoint = found.checkpoint
        beginning = subject.encode()
        if beginning != found.beginning:
            # The line says from now on that objects may be missing. It is as long as before. A line that stays the same
            # is not written, because a crash may tear what is written.
            await self.partial.write_beginning_of_manifest(beginning)
        size = self.partial.size
        await self.partial.go_back(subject.opening, checkpoint.position, checkpoint.manifest_length)
        async with self.partial.read_manifest() as manifest:
            with located(manifest.name):
                await self.writer.resume(checkpoint, read_lines(manifest))
        self._last = checkpoint.position
        _log.info(
            "%s: goes on at byte %d, behind %d records; %d bytes of the interrupted run are cut off",
            *(self.partial.target, checkpoint.position, checkpoint.records, max(0, size - self.partial.size)),
        )

    async def advance(self) -> None:
        """Take a checkpoint if one is due. Raises TargetFull, TargetWriteFailed."""
        if self.partial is not None and self.writer.position - self._last >= self.interval:
            await self.writer.checkpoint()
            await self.partial.keep()
            self._last = self.writer.position
            _log.info("%s: wrote a checkpoint at byte %d", self.partial.target, self._last)

    @asynccontextmanager
    async def leaving(self) -> AsyncIterator[None]:
        """Make what is kept durable when the block fails, or is cancelled.

        If somebody changed what was read, nothing is kept, because what was read before may not fit the rest.
        """
        try:
            with single_error():
                yield
        except BaseException as error:
            if self.partial is not None and self.partial.is_kept:
                # The next run writes again what cannot be saved.
                with anyio.move_on_after(LEAVING_S, shield=True), suppress(TargetError):
                    if isinstance(error, ChangedMeanwhile):
                        await self.partial.drop()
                    else:
                        await self.writer.settle()
            raise
