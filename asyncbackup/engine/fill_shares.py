"""Shares the objects of a restore out to several workers. Only here is the owner table of the VDI written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Final, Protocol

import anyio
from anyio import CapacityLimiter

from asyncbackup.client import Cluster
from asyncbackup.client.construction import Construction, NewVdi, Shape
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.compact import MAX_LENGTH
from asyncbackup.engine.cut import Shard, Share, find_share
from asyncbackup.engine.design import Design
from asyncbackup.engine.fill_job import FillJob
from asyncbackup.engine.index import Index
from asyncbackup.engine.opening import BaseName
from asyncbackup.engine.progress import ReplayCounts
from asyncbackup.engine.removal import TAGGED, cause_of
from asyncbackup.engine.replay import Meter
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import LeftUnfinished, MemoryTooSmall, ObjectsTooLarge, first_error

_SHARES_EACH: Final = 4
"""Shares for each worker: a slow one does not delay the end by much. Each reads all manifests again."""


class Fillers(Protocol):
    """What writes shares of a restore: processes on other machines."""

    @property
    def at_once(self) -> int:
        """Shares that are written at a time, at most."""

    @property
    def on_one_machine(self) -> int:
        """How many of those are written on one machine, at most. They share the memory."""

    async def check(self, backups: Sequence[str], options: ChainOptions) -> None:
        """Raise unless all see the same backups, and their manifests, as this machine."""

    async def fill(self, job: FillJob) -> ReplayCounts:
        """Have a job done, elsewhere again if a worker dies. Raises what ``fill_share`` raises, and WorkerLost.

        Cancelled: the worker begins no other write after a second.
        """

    async def have_ended(self) -> bool:
        """Wait a short time until no worker that is there does what nobody waits for. Tell whether that is so."""

    async def find_lost(self) -> Sequence[str]:
        """Find the workers that were there once, and are not any more. One may only sleep, in the middle of work."""


def share_memory(options: WindowOptions, object_size: int, count: int = 1) -> WindowOptions:
    """Give what each of ``count`` processes of one machine may use, so that it writes an object in one request.

    Raises MemoryTooSmall, and ObjectsTooLarge.
    """
    if object_size > MAX_LENGTH:
        raise ObjectsTooLarge(object_size, MAX_LENGTH)
    # Of less than two pairs of buffers, objects would be cut.
    memory = max(options.memory // count, 4 * object_size)
    if memory * count > options.memory:
        raise MemoryTooSmall(memory * count, options.memory)
    return with_fields(options, memory=memory)


@dataclass(slots=True)
class SharedFill:
    """Does what ``fill`` does with the objects of ``index``, by ``fillers``. The job lacks its columns."""

    fillers: Fillers
    vdi: Construction
    index: Index
    job: FillJob
    meter: Meter

    async def run(self) -> None:
        """Write all objects. Raises what ``fill_share`` raises, and WorkerLost.

        After a cancellation or an error workers may still be about to end: ``Fillers.have_ended`` tells.
        """
        count = min(_SHARES_EACH * self.fillers.at_once, len(self.index.indices))
        limiter = CapacityLimiter(self.fillers.at_once)
        work, objects = self.index.lengths(), self.job.inode.object_count
        async with anyio.create_task_group() as group:
            for number in range(1, count + 1):
                share = find_share(self.index.indices, work, Shard(number, count), objects)
                group.start_soon(self._fill, share, limiter)

    async def _fill(self, share: Share, limiter: CapacityLimiter) -> None:
        indices = self.index.indices[share.places]
        if not len(indices):
            return  # One object was more work than a share is.
        columns = self.index.within(share.first, share.end).columns()
        async with limiter:
            await self.vdi.name_objects(indices)
            counts = await self.fillers.fill(with_fields(self.job, columns=columns))
        self.vdi.note_created(indices)
        self.meter.add(counts)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who writes the objects of a restore in place of this process, and what of."""

    fillers: Fillers
    backups: Sequence[str]
    chain_options: ChainOptions

    @classmethod
    async def begin(
        cls,
        fillers: Fillers,
        design: Design,
        backups: Sequence[str | os.PathLike[str]],
        chain_options: ChainOptions | None,
    ) -> Sharing:
        """Check that the work can be shared out. Raises what ``require_proof`` and ``Fillers.check`` raise."""
        design.require_proof()
        sharing = cls(fillers, [os.fspath(path) for path in backups], chain_options or ChainOptions())
        await fillers.check(sharing.backups, sharing.chain_options)
        return sharing

    def share_memory(self, options: WindowOptions, shape: Shape) -> WindowOptions:
        """Give what one worker may use. Raises as ``share_memory`` does."""
        return share_memory(options, shape.object_size, self.fillers.on_one_machine)

    async def fill(
        self,
        cluster: Cluster,
        new: NewVdi,
        design: Design,
        index: Index,
        *,
        options: WindowOptions,
        meter: Meter,
    ) -> None:
        """Have others write all objects. Raises what ``SharedFill.run`` raises."""
        nodes, clone_of = cluster.nodes, design.clone_of
        job = FillJob(
            gateways=list(dict.fromkeys([(nodes.gateway.host, nodes.gateway.port), *nodes.gateways])),
            client_options=nodes.options.shared_by(self.fillers.at_once),
            options=options,
            backups=self.backups,
            digests=await design.identify(),
            chain_options=self.chain_options,
            inode=new.inode,
            base=None if clone_of is None else clone_of.inode,
            beneath=design.beneath,
            columns=(),
        )
        await SharedFill(self.fillers, new, index, job, meter).run()

    async def refuse_while_written(self, vdi: str, failure: BaseException) -> None:
        """Raise LeftUnfinished if others may still write into the VDI: another may get its id after its removal."""
        have_ended, lost = await self.fillers.have_ended(), await self.fillers.find_lost()
        if lost or not have_ended:
            who = f"lost were {', '.join(lost)}" if lost else "not all of them answer"
            why = f"workers may still write into it ({who}): end them before you remove it"
            raise LeftUnfinished(vdi, f"{TAGGED}, is left behind", cause_of(failure), why) from first_error(failure)


def refuse_unshareable(fillers: Fillers | None, snapshot: str | None, base: BaseName | None, *, keeps: bool) -> None:
    """Raise ValueError for what other machines cannot do."""
    if fillers is not None and (snapshot is None or keeps or isinstance(base, str | os.PathLike)):
        raise ValueError("expected a snapshot to take, no journal, and no image, because other machines do the work")
