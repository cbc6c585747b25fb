"""Keeps a new VDI in the making so that another run can go on with it, and goes on with what is there.

The VDI itself is tagged as unfinished. A journal on the machine that restores says how far it is: objects are delivered
in order, so one number says it. An object counts when the cluster has said that it is written.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace

from asyncbackup.client import Cluster
from asyncbackup.client.construction import is_unfinished
from asyncbackup.engine.removal import refuse_discarded
from asyncbackup.errors import BegunOtherwise, TargetError
from asyncbackup.format.restoring import Restoring
from asyncbackup.storage.journal import JournalFile
from asyncbackup.wire.inode import Inode

_log = logging.getLogger(__package__)


async def read_last(journal: JournalFile) -> Restoring | None:
    """Read the last entry of a journal; None: it has none that is whole. Raises TargetUnusable, SourceUnreadable."""
    found = None
    with suppress(ValueError):
        for line in await journal.read():
            found = Restoring.decode(line)
    return found


@dataclass(slots=True)
class VdiKeeping:
    """Takes a checkpoint into ``journal`` whenever ``interval`` bytes more were written.

    If the journal cannot be written, as on a full disk, the restore goes on without it, unless it ``is_needed``.
    """

    journal: JournalFile
    entry: Restoring
    """What is being made, and how far it is. After ``begin`` or ``find`` it also says which VDI it is."""
    interval: int
    is_needed: bool = True
    is_kept: bool = False
    """Whether it stays if this run fails."""
    _last: int = field(default=0, init=False)
    _is_given_up: bool = field(default=False, init=False)

    async def find(self, cluster: Cluster) -> Inode | None:
        """Find the unfinished VDI that the journal speaks of; None: there is none. ``entry`` says how far it is.

        Raises BegunOtherwise if it is being made of something else.
        """
        found = await read_last(self.journal)
        if found is None or not await cluster.has_vdi(self.entry.vdi):
            return None
        inode = await cluster.find_vdi(self.entry.vdi)
        if (inode.vdi_id, inode.create_time) != (found.vdi_id, found.created):
            return None
        if not is_unfinished(inode):
            # The run ended after it completed the VDI, and before it removed the journal.
            await self.end()
            return None
        asked = replace(self.entry, vdi_id=found.vdi_id, created=found.created, done=found.done)
        for name in ("vdi", "backups", "parent", "size", "copies", "copy_policy"):
            one, other = getattr(found, name), getattr(asked, name)
            if one != other:
                raise BegunOtherwise(f"VDI '{inode.name}'", _WORDS.get(name, name), one, other)
        await refuse_discarded(cluster, inode)
        self.entry, self.is_kept = found, True
        _log.info("VDI '%s': goes on at object %d", found.vdi, found.done)
        return inode

    @property
    def last_done(self) -> int:
        """The index of the last object that is done; -1: none is."""
        return self.entry.done - 1

    async def begin(self, inode: Inode) -> None:
        """Take note of the VDI that was made and tagged. Whoever finds it after this may go on with it."""
        await self.journal.clear()
        self.entry = replace(self.entry, vdi_id=inode.vdi_id, created=inode.create_time)
        await self._append()

    async def advance(self, done: int, written: int) -> None:
        """Take note of the last object that is done, and of how many bytes were written so far."""
        self.entry = replace(self.entry, done=done + 1)
        if written - self._last >= self.interval:
            if await self._append():
                self.is_kept = True
                _log.info("VDI '%s': wrote a checkpoint; the next object is %d", self.entry.vdi, self.entry.done)
            self._last = written

    async def _append(self) -> bool:
        """Write a line, and tell whether it is there."""
        if not self._is_given_up:
            try:
                await self.journal.append(self.entry.encode())
            except TargetError:
                if self.is_needed:
                    raise
                self._is_given_up = True
        return not self._is_given_up

    async def leave(self) -> None:
        """Note how far the work came, because it ends early."""
        with suppress(TargetError):
            await self._append()

    async def end(self) -> None:
        """Say that there is nothing to go on with."""
        self.is_kept = False
        with suppress(TargetError):
            await self.journal.clear()


_WORDS = {"backups": "chain of backups", "parent": "base (vdi id)", "copy_policy": "copy policy"}
