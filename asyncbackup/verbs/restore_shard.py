"""Restores one shard of a chain of backups to a VDI that runs on other machines restore with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import anyio

from asyncbackup.cancellation import finished_within, undisturbed
from asyncbackup.client import Cluster
from asyncbackup.client.construction import NewVdi, is_unfinished, may_be_new
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.cut import Shard, find_share
from asyncbackup.engine.design import Design, check_copies, check_name, open_design
from asyncbackup.engine.fill_job import write_share
from asyncbackup.engine.fill_shares import share_memory
from asyncbackup.engine.filling import GRACE_S
from asyncbackup.engine.index import Index
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.removal import refuse_discarded, remove_failed
from asyncbackup.engine.replay import Meter
from asyncbackup.engine.shards import (
    PREPARATION,
    beating,
    describe,
    read_beat,
    read_receipt,
    read_shards,
    refuse_other,
    write_receipt,
    write_shards,
)
from asyncbackup.engine.source import NO_INDICES
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import RequestFailed, UnfinishedExists, VdiExists, VdiInUse, VdiNotFound, single_error
from asyncbackup.format.shards import Beat
from asyncbackup.wire.inode import Inode

_LOOK_S: Final = 0.25
"""Seconds between two looks at a VDI that another run prepares."""

_TAGGING_S: Final = 5.0
"""Seconds to wait for another run that created the VDI to say of what it is made, and that it works."""

_MOST_OVERTAKEN: Final = 20
"""Times to try to make a VDI that another run made meanwhile, and that is gone when it is looked for."""


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What was written. Sizes in bytes, times in seconds."""

    vdi: str
    vdi_id: str
    shard: str
    """Such as 2/3."""
    size: int
    object_size: int
    base: str | None
    """The snapshot that the VDI is a clone of; None: it is no clone."""
    assumed: str | None
    """What was assumed because the caller vouched for it; None: all was proved."""
    files: int
    already_written: bool
    """Whether another run had written the shard before, so that nothing was done."""
    objects_done: int
    bytes_written: int
    elapsed_s: float
    missing: Sequence[int] = ()
    """The idx of each object that the backups lack."""

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def restore_shard(
    cluster: Cluster,
    backups: Sequence[str | os.PathLike[str]],
    to: str,
    shard: Shard,
    *,
    base: BaseSnapshot | None = None,
    copies: int | None = None,
    assume_base: bool = False,
    allow_incomplete: bool = False,
    on_kept: Callable[[], object] | None = None,
    chain_options: ChainOptions | None = None,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
) -> ShardSummary:
    """Write one shard of what ``restore`` makes of the same arguments. ``join_shards`` completes the VDI.

    Shards are written in any order, on any machines, at the same time or not, and as often as needed. The first run
    makes the VDI, and the others must name the same backups, base and number of shards. The backups must be no pipes,
    and their manifests must prove all data.

    When others may work on the VDI as well, ``on_kept`` is called. After that, an error or a cancellation leaves the
    VDI, tagged as unfinished.

    Raises SharedOtherwise if the VDI is made of something else, VdiExists if it is not made in shards, VdiInUse if
    another run should prepare it and does not go on, ManifestMissing, FileNeeded, MemoryTooSmall and ObjectsTooLarge
    if an object does not fit one request, and what ``restore`` raises.
    """
    started = time.monotonic()
    with single_error():
        async with open_design(
            cluster,
            backups,
            base,
            copies=copies,
            assume_base=assume_base,
            allow_incomplete=allow_incomplete,
            chain_options=chain_options,
        ) as design:
            design.require_proof()
            check_name(to)
            options = share_memory(options or WindowOptions(), design.shape.object_size)
            index = await design.read_index(NO_INDICES, on_progress)
            assert index is not None, "pipes were refused"
            inode = await _Preparation(cluster, design, index, to, shard.count, on_kept).find_or_make()
            share = find_share(index.indices, index.lengths(), shard, inode.object_count)
            part = index.within(share.first, share.end)
            meter = Meter(ReplayCounts(len(part.indices)), on_progress)
            is_written = await read_receipt(cluster, inode, shard.number) is not None
            if not is_written:
                async with beating(cluster, inode, shard.number):
                    await write_share(
                        cluster,
                        part,
                        inode,
                        base=design.clone_of.inode if design.clone_of else None,
                        beneath=design.beneath,
                        options=options,
                        meter=meter,
                    )
                await write_receipt(cluster, inode, shard.number, share, meter.counts)
            await refuse_discarded(cluster, inode)
            return ShardSummary(
                vdi=to,
                vdi_id=f"{inode.vdi_id:x}",
                shard=str(shard),
                size=inode.vdi_size,
                object_size=inode.object_size,
                base=design.clone_of.name if design.clone_of else None,
                assumed=design.assumed,
                files=len(backups),
                already_written=is_written,
                objects_done=meter.counts.objects_done,
                bytes_written=meter.counts.bytes_written,
                elapsed_s=time.monotonic() - started,
                missing=design.chain.missing,
            )


@dataclass(slots=True)
class _Preparation:
    """Finds the VDI that all shards are written to, or makes it.

    Another run that makes it may take minutes to write the owner table: a server counts down a reference for each
    object of a base. It is waited for as long as it says that it works.
    """

    cluster: Cluster
    design: Design
    index: Index
    name: str
    count: int
    on_kept: Callable[[], object] | None
    _seen: Beat | None = field(default=None, init=False)
    """What the run that makes the VDI said last."""
    _changed: float = field(default_factory=anyio.current_time, init=False)
    """When it said something else, as the event loop has the time."""
    _overtaken: int = field(default=0, init=False)
    """How often another run made the VDI first."""

    async def find_or_make(self) -> Inode:
        """Give the VDI, with its owner table as it will be at the end."""
        while True:
            if await self.cluster.has_vdi(self.name):
                inode = await self._find()
            else:
                self._changed = anyio.current_time()
                inode = await self._make()
            if inode is not None:
                return inode
            await anyio.sleep(_LOOK_S)

    async def _find(self) -> Inode | None:
        """Find the VDI; None: another run may still prepare it."""
        try:
            return await self._find_prepared()
        except VdiNotFound:
            if self._waited > _TAGGING_S:
                raise
            return None  # Its preparation failed.

    async def _find_prepared(self) -> Inode | None:
        inode = await self.cluster.find_vdi(self.name)
        is_tagged = is_unfinished(inode)
        found = await read_shards(self.cluster, inode) if is_tagged else None
        if found is None:
            if self._waited > _TAGGING_S or not (is_tagged or may_be_new(inode)):
                raise UnfinishedExists(self.name) if is_tagged else VdiExists(self.name)
            return None
        refuse_other(self.name, found, await describe(self.design, inode, self.count))
        if found.is_named:
            self._keep()
            return inode
        beat = await read_beat(self.cluster, inode, PREPARATION)
        if beat != self._seen:
            self._seen, self._changed = beat, anyio.current_time()
        if self._waited > _TAGGING_S:
            raise VdiInUse(self.name, "another run that should prepare it does not go on")
        return None

    @property
    def _waited(self) -> float:
        """Seconds since the other run went on."""
        return anyio.current_time() - self._changed

    async def _make(self) -> Inode | None:
        """Make the VDI; None: another run was faster. After an error it is removed, unless others may work on it."""
        await check_copies(self.cluster, self.design.shape)
        made: list[NewVdi] = []

        async def create() -> None:
            design = self.design
            made.append(await NewVdi.create(self.cluster, self.name, design.shape, design.parent, self.index.indices))
            await made[0].mark()
            await made[0].check_inherited()

        try:
            with single_error():
                await undisturbed(create)
            [new] = made
            shards = await describe(self.design, new.inode, self.count)
            await write_shards(self.cluster, new.inode, shards)
            async with beating(self.cluster, new.inode, PREPARATION), finished_within(GRACE_S):
                await new.lay_out()
        except BaseException as failure:
            if made:
                await remove_failed(made[0], self.cluster, failure)
            elif isinstance(failure, VdiExists) and self._overtaken < _MOST_OVERTAKEN:
                self._overtaken += 1
                return None
            raise

        async def let_others_begin() -> None:
            await write_shards(self.cluster, new.inode, replace(shards, is_named=True))

        try:
            with single_error():
                await undisturbed(let_others_begin)
        except RequestFailed as failure:
            await remove_failed(new, self.cluster, failure)
            raise
        except BaseException:
            self._keep()
            raise
        self._keep()
        return new.inode

    def _keep(self) -> None:
        if self.on_kept is not None:
            self.on_kept()
