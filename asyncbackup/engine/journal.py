"""The journal of backups that are being applied to a VDI: an attribute that names them and keeps other runs away.

- It exists before the first write to the VDI. It ends after the last write, and after the snapshot if one is wanted.
- The run that keeps it writes it again each second. If it does not change for some seconds, another run may take it
  over, to finish the same backups. The first run notices that at its next beat, and stops.
- At its end it gets an empty value. It is never deleted: servers from 0.9 on may give a deleted attribute again
  (``docs/protocol.md``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import anyio

from asyncbackup.client import Cluster
from asyncbackup.engine.lineage import read_applying
from asyncbackup.errors import VdiInUse
from asyncbackup.format.replica import Applying, applying_key
from asyncbackup.wire.inode import Inode

_BEAT_S: Final = 1.0
"""Seconds after which the journal is written again while it is kept."""

_WATCH_S: Final = 4.0
"""Seconds in which a journal changes if a run keeps it."""


class Journal:
    """The journal of one run. ``begin`` makes it."""

    def __init__(self, cluster: Cluster, inode: Inode, entry: Applying) -> None:
        self.entry = entry
        self._cluster = cluster
        self._inode = inode
        self._key = applying_key(inode.vdi_id)
        self._writing = anyio.Lock()

    @classmethod
    async def begin(cls, cluster: Cluster, inode: Inode, entry: Applying, found: Applying | None) -> Journal:
        """Write the journal, unless another run keeps one; ``found`` is the entry that an interrupted run left.

        Raises VdiInUse if another run is at work, and RequestFailed if the cluster does not take attributes. After a
        cancellation the journal may exist, although nothing was written to the VDI.
        """
        journal = cls(cluster, inode, entry)
        if found is not None:
            await anyio.sleep(_WATCH_S)
            if await read_applying(cluster, inode) != found:
                raise VdiInUse(inode.name, "backups are being applied to it at this moment")
        elif await cluster.create_attribute(inode.name, journal._key, entry.encode()):
            return journal
        elif await read_applying(cluster, inode) is not None:
            await journal._check_ours()
            return journal
        # If two runs write it now, only the later one finds its own entry after this pause.
        await journal._write()
        await anyio.sleep(_BEAT_S)
        await journal._check_ours()
        return journal

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write the journal again each second while the block runs. Raises VdiInUse if another run took it over."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._beat)
            yield
            # Do not cancel it during a write: the cluster could carry out that write after all later ones.
            async with self._writing:
                group.cancel_scope.cancel()

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(_BEAT_S)
            async with self._writing:
                await self._check_ours()
                self.entry = replace(self.entry, beat=self.entry.beat + 1)
                await self._write()

    async def complete(self) -> None:
        """Write into the journal that the VDI is complete. Raises VdiInUse."""
        async with self._writing:
            await self._check_ours()
            self.entry = replace(self.entry, is_complete=True)
            await self._write()

    async def end(self) -> None:
        """Empty the journal: nothing is being applied any more. Call it after the block of ``kept``."""
        await end_journal(self._cluster, self._inode)

    async def _write(self) -> None:
        await self._cluster.write_attribute(self._inode.name, self._key, self.entry.encode())

    async def _check_ours(self) -> None:
        found = await read_applying(self._cluster, self._inode)
        if found is None or found.run != self.entry.run:
            raise VdiInUse(self._inode.name, "another run took over applying backups to it")


async def end_journal(cluster: Cluster, inode: Inode) -> None:
    """Empty the journal of a VDI, or of a snapshot that was taken of it: nothing is being applied any more."""
    await cluster.write_attribute(inode.name, applying_key(inode.vdi_id), b"")
