"""The journal of backups that are being applied to a VDI: an attribute that says so, and keeps other runs off.

- It is there before the first write to the VDI, and goes after the last one, and after the snapshot that was wanted.
- Whoever keeps it writes it anew each second. Who finds one that does not change for some seconds may take it over, to
  finish the same backups; who kept it notices, and stops. A run that hangs for so long, and goes on, is noticed late.
- It ends as an empty value, and is never deleted: servers from 0.9 on can bring what was deleted back to light
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
"""Seconds in which a journal that is kept is seen to change."""


class Journal:
    """Made by ``begin``."""

    def __init__(self, cluster: Cluster, inode: Inode, entry: Applying) -> None:
        self.entry = entry
        self._cluster = cluster
        self._inode = inode
        self._key = applying_key(inode.vdi_id)
        self._writing = anyio.Lock()

    @classmethod
    async def begin(cls, cluster: Cluster, inode: Inode, entry: Applying, found: Applying | None) -> Journal:
        """Say what is being applied, if nobody else says it; ``found`` is what an interrupted run left.

        Raises VdiInUse where a run goes on, and RequestFailed where the cluster takes no attributes. Cancelled: the
        journal may be there, although nothing was written to the VDI.
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
        # Only one of two that write it now finds it as it wrote it, once both have.
        await journal._write()
        await anyio.sleep(_BEAT_S)
        await journal._check_ours()
        return journal

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write it again and again while the block runs. Raises VdiInUse if somebody else took it over."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._beat)
            yield
            # Not while it is being written: given up, that could be done after all that follows.
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
        """Say that all is written. Raises VdiInUse."""
        async with self._writing:
            await self._check_ours()
            self.entry = replace(self.entry, is_complete=True)
            await self._write()

    async def end(self) -> None:
        """Say that nothing is being applied any more. To be called when it is kept no longer."""
        await end_journal(self._cluster, self._inode)

    async def _write(self) -> None:
        await self._cluster.write_attribute(self._inode.name, self._key, self.entry.encode())

    async def _check_ours(self) -> None:
        found = await read_applying(self._cluster, self._inode)
        if found is None or found.run != self.entry.run:
            raise VdiInUse(self._inode.name, "another run took over applying backups to it")


async def end_journal(cluster: Cluster, inode: Inode) -> None:
    """Say that nothing is being applied any more to a VDI, or to what became a snapshot."""
    await cluster.write_attribute(inode.name, applying_key(inode.vdi_id), b"")
