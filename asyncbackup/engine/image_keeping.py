"""Keeps an image in the making so that another run can go on with it, and goes on with what is there.

Objects are written side by side, and delivered in order. So one number says how far an image is: all objects before it
are done. A line of the journal says the number once these objects are on disk.
"""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import anyio
from anyio import to_thread

from asyncbackup.engine.keeping import LEAVING_S
from asyncbackup.engine.manifest import open_lines
from asyncbackup.errors import BegunOtherwise, ChangedMeanwhile, PartialDamaged, TargetError, single_error
from asyncbackup.format.image import MAX_MARKER, Exporting
from asyncbackup.storage import NewImage, Partial, Source, Target

_log = logging.getLogger(__package__)


@dataclass(slots=True)
class ImageKeeping:
    """Takes a checkpoint of ``image`` whenever ``interval`` bytes more were written, into ``journal``."""

    image: NewImage
    journal: Target
    partial: Partial
    entry: Exporting
    """What is being made, and how far it is."""
    interval: int
    _last: int = field(default=0, init=False)
    _noted: int = field(default=-1, init=False)

    async def find(self) -> int:
        """Give the index of the last object that an earlier run finished; -1: none.

        Raises BegunOtherwise if the earlier run made another image, PartialDamaged if nothing says what it made.
        """
        if not self.partial.is_begun:
            return -1
        async with self.partial.read() as (data, journal):
            found = await to_thread.run_sync(_read_last, journal)
            if found is None:
                raise PartialDamaged(self.partial.target, journal.name, "expected a line that says what was begun")
            asked = self.entry
            for name, one, other in (
                ("chain of backups", found.backups, asked.backups),
                ("size", found.size, asked.size),
                ("size", data.size, asked.size),
            ):
                if one != other:
                    raise BegunOtherwise(self.partial.target, name, _shown(one), _shown(other))
        self.entry = found
        self._noted = found.done
        _log.info("%s: goes on at object %d", self.partial.target, found.done)
        return found.done - 1

    async def advance(self, done: int, written: int) -> None:
        """Take note of the last object that is done, and of how many bytes were written so far.

        Takes a checkpoint if one is due. Raises TargetFull, TargetWriteFailed.
        """
        self.entry = replace(self.entry, done=done + 1)
        if written - self._last >= self.interval:
            await self._note()
            await self.partial.keep()
            self._last = written
            _log.info("%s: wrote a checkpoint; the next object is %d", self.partial.target, self.entry.done)

    async def _note(self) -> None:
        entry = self.entry
        await self.image.sync()
        await self.journal.append([entry.encode()])
        await self.journal.sync()
        self._noted = entry.done

    @asynccontextmanager
    async def leaving(self) -> AsyncIterator[None]:
        """Make what is kept durable when the block fails or is cancelled.

        If somebody changed what was read, nothing is kept.
        """
        try:
            with single_error():
                yield
        except BaseException as error:
            if self.partial.is_kept:
                with anyio.move_on_after(LEAVING_S, shield=True), suppress(TargetError):
                    if isinstance(error, ChangedMeanwhile):
                        await self.partial.drop()
                    elif self._noted < self.entry.done:
                        await self._note()
            raise


def _read_last(journal: Source) -> Exporting | None:
    """Read the last good line that no bad one precedes."""
    found = None
    with suppress(ValueError):
        lines: io.BufferedReader = open_lines(journal)
        while line := lines.readline(MAX_MARKER):
            found = Exporting.decode(line)
    return found


def _shown(value: object) -> object:
    return f"{len(value)} of them, the last one {value[-1]}" if isinstance(value, tuple) else value
