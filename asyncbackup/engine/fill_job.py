"""Writes a share of the objects of a restore, in any process on any machine. What is to be done is plain data.

Nothing in a cluster keeps a process off that was thought dead, and only slept. So this writes data objects and nothing
else: each in one request that holds or names all of its bytes, which are the same in each attempt. To repeat it is
harmless while the VDI is in the making. It is harmless as well when the VDI has become a snapshot: servers refuse the
write then, and one that was let in before changes no byte. So the restore ends with a snapshot, and a guest writes to
the VDI that follows it, whose own objects have other ids.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import numpy as np
from numpy.typing import NDArray

from asyncbackup.client import Address, ClientOptions, Cluster, connect_any
from asyncbackup.client.construction import Construction, is_unfinished
from asyncbackup.engine.chain import ChainOptions, open_chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.filling import fill
from asyncbackup.engine.index import Index
from asyncbackup.engine.progress import ReplayCounts
from asyncbackup.engine.replay import Meter
from asyncbackup.engine.source import NO_INDICES, SnapshotObjects, ZeroObjects
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import ChangedMeanwhile
from asyncbackup.wire.inode import Inode, Owners

_LOOK_S: Final = 1.0
"""Seconds between two looks whether the VDI is still in the making. A read of 4 KiB costs little."""


@dataclass(frozen=True, slots=True)
class FillJob:
    """What another process needs to know to write some objects of a VDI in the making."""

    gateways: Sequence[Address]
    client_options: ClientOptions
    options: WindowOptions
    backups: Sequence[str]
    """Paths that mean the same in each folder."""
    digests: Sequence[str]
    """What ``BackupReader.identify`` gives of each."""
    chain_options: ChainOptions
    inode: Inode
    """The VDI, as it was tagged."""
    base: Inode | None
    """The snapshot that it is a clone of."""
    beneath: Owners
    """The owners of those objects of the base that stay in the clone."""
    columns: Sequence[NDArray[Any]]
    """The records of the objects to write: ``Index.columns``."""

    @property
    def indices(self) -> NDArray[np.uint32]:
        """The idx of each record, ascending."""
        found: NDArray[np.uint32] = self.columns[0]
        return found


async def fill_share(job: FillJob) -> ReplayCounts:
    """Write the objects of a job, which the owner table names already, and count them. Each is checked before.

    Raises what ``write_share`` raises, and ChangedMeanwhile if the backups are not those of the job any more.
    Cancelled, it begins no other write, and waits a short time for those that are under way.
    """
    meter = Meter(ReplayCounts(), None)
    async with (
        open_chain(job.backups, job.chain_options, allow_incomplete=True) as chain,
        connect_any(job.gateways, job.client_options) as cluster,
    ):
        for reader, digest in zip(chain.readers, job.digests, strict=True):
            if await reader.identify() != digest:
                raise ChangedMeanwhile(reader.name, "another machine sees another backup there")
        index = Index(chain, job.columns)
        await write_share(
            cluster, index, job.inode, base=job.base, beneath=job.beneath, options=job.options, meter=meter
        )
    return meter.counts


async def write_share(
    cluster: Cluster,
    index: Index,
    inode: Inode,
    *,
    base: Inode | None,
    beneath: Owners,
    options: WindowOptions,
    meter: Meter,
) -> None:
    """Write the objects of ``index`` into the VDI ``inode``, whose owner table names them already.

    The VDI is a clone of ``base``, of which it keeps the owners ``beneath``; None: it is no clone.

    Raises what ``fill`` raises, and ChangedMeanwhile if the VDI is not the unfinished restore any more. Cancelled as
    ``fill_share`` is.
    """
    under = ZeroObjects() if base is None else SnapshotObjects(cluster, base, beneath)
    async with _while_unfinished(cluster, inode):
        await fill(
            _construct(cluster, inode, beneath),
            index.chain,
            index,
            Composer(under, unknown=frozenset(index.chain.missing)),
            options,
            meter=meter,
            whole=NO_INDICES,
        )


def _construct(cluster: Cluster, inode: Inode, kept: Owners) -> Construction:
    """Take the VDI as one whose table names all objects, so that nothing is written there."""
    beneath = np.zeros(max(inode.object_count, len(kept)), np.uint32)
    beneath[: len(kept)] = kept
    named = np.full(len(beneath), inode.vdi_id, np.uint32)
    return Construction.onto(cluster, inode, named, beneath=beneath, expected=None)


@asynccontextmanager
async def _while_unfinished(cluster: Cluster, inode: Inode) -> AsyncIterator[None]:
    """Run the block for as long as the VDI is in the making, whatever has become of who asked for it."""

    async def check() -> None:
        found = await cluster.read_inode(inode.vdi_id)
        if not is_unfinished(found) or (found.name, found.create_time) != (inode.name, inode.create_time):
            raise ChangedMeanwhile(f"VDI '{inode.name}'", "it is not the unfinished restore that was begun")

    async def watch() -> None:
        while True:
            await anyio.sleep(_LOOK_S)
            await check()

    await check()
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        yield
        group.cancel_scope.cancel()
