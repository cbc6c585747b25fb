"""Applies increments to a VDI that equals their base, so that a replica follows its origin."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from asyncbackup.client import Cluster
from asyncbackup.client.construction import Construction, Shape, is_unfinished
from asyncbackup.engine.base import Candidate, all_assumed
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.filling import fill
from asyncbackup.engine.index import Index, read_index
from asyncbackup.engine.journal import Journal, end_journal
from asyncbackup.engine.lineage import (
    check_tag_is_free,
    count_written,
    find_lineage,
    find_snapshot_below,
    forget_origin,
    origin_of,
    read_applying,
    read_origin,
    take_snapshot,
    write_origin,
)
from asyncbackup.engine.opening import judge_base_of
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.replay import Meter
from asyncbackup.engine.source import NO_INDICES, SnapshotObjects
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import (
    AsyncBackupError,
    BackupsMissing,
    ChangedMeanwhile,
    HalfApplied,
    HeldAlready,
    HyperVolume,
    IncrementNeeded,
    NoReplica,
    ObjectSizesDiffer,
    PartlyApplied,
    ReplicaWritten,
    UnfinishedExists,
    VdiInUse,
    WrongSnapshot,
    single_error,
)
from asyncbackup.format.identity import Identity, time_text
from asyncbackup.format.replica import Applying, Origin
from asyncbackup.verbs.restore import RestoreSummary
from asyncbackup.wire.inode import Inode


async def follow(
    cluster: Cluster,
    backups: Sequence[str | os.PathLike[str]],
    vdi: str,
    *,
    snapshot: str | None = None,
    assume_base: bool = False,
    chain_options: ChainOptions | None = None,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
) -> RestoreSummary:
    """Apply ``backups``, increments that follow one another, oldest first, to ``vdi``, which equals their base.

    The VDI must stand on a snapshot that is the base by its origin or its identity, and must share all objects with it.
    At the end a snapshot with the tag ``snapshot`` is taken, if one is wanted. ``assume_base`` vouches for the base if
    somebody may have written to the VDI before that snapshot was taken.
    All is judged before anything is written. Then an attribute of the VDI says what is being applied. After an
    interruption the same call finishes the work, and no call with other backups does.

    If all was applied before, and the VDI still equals the result, nothing is written, and the summary says so. Raises
    BackupsMissing, ReplicaWritten, NoReplica, VdiInUse, HalfApplied if other backups were being applied, and the errors
    of judging bases and backups. After these nothing is changed. Later errors are a HalfApplied with their cause.
    """
    started = time.monotonic()
    with single_error():
        async with open_chain(backups, chain_options, assume_base=assume_base) as chain:
            chain.require_files("to be applied to a VDI")
            meter = Meter(ReplayCounts(None), on_progress)
            identities = tuple([await reader.identify() for reader in chain.readers])
            job = _Following(cluster, chain, identities, snapshot, options or WindowOptions(), meter)
            await job.run(vdi, assume_base=assume_base)
            return RestoreSummary(
                vdi=vdi,
                vdi_id=f"{job.inode.vdi_id:x}",
                size=chain.size,
                object_size=job.inode.object_size,
                copies=job.inode.nr_copies,
                copy_policy=job.inode.copy_policy,
                base=str(job.below),
                base_image=None,
                assumed=job.assumed,
                files=len(backups),
                checked=all(reader.subject is not None for reader in chain.readers),
                origin=None if job.origin is None else str(job.origin.identity),
                origin_missing=None if job.origin else "no manifest says which snapshot it is",
                snapshot=snapshot,
                already_applied=job.is_applied,
                objects_resumed=0,
                objects_done=meter.counts.objects_done,
                bytes_written=meter.counts.bytes_written,
                elapsed_s=time.monotonic() - started,
            )


@dataclass
class _Following:
    """Backups, and the VDI that they are being applied to."""

    cluster: Cluster
    chain: Chain
    backups: tuple[str, ...]
    snapshot: str | None
    options: WindowOptions
    meter: Meter
    inode: Inode = field(init=False)
    below: Inode = field(init=False)
    """The snapshot that the VDI stands on."""
    assumed: str | None = None
    origin: Origin | None = None
    is_applied: bool = False
    """Whether there was nothing to do."""

    async def run(self, vdi: str, *, assume_base: bool) -> None:
        """Judge everything, and then do it."""
        inode = self.inode = await self.cluster.find_vdi(vdi)
        if inode.is_hyper:
            raise HyperVolume(f"VDI '{vdi}'", "cannot be restored to")
        if is_unfinished(inode):
            raise UnfinishedExists(vdi)
        await self._check_use()
        found = await read_applying(self.cluster, inode)
        if found is not None and found.backups != self.backups:
            raise HalfApplied(vdi)
        below = await find_snapshot_below(self.cluster, inode)
        if below is None:
            why = "the snapshot that it stands on was deleted" if inode.parent_vdi_id else "it has no snapshot"
            raise NoReplica(vdi, why)
        self.below = below
        if found is None:
            await self._finish_snapshot()
        candidate = Candidate(
            str(below),
            below.vdi_size,
            await self.cluster.identify(below),
            lineage=await find_lineage(self.cluster, below),
        )
        if found is None and await self._judge_unfinished(candidate):
            return
        self._judge_base(candidate, assume_base=assume_base or (found is not None and found.assumed is not None))
        await self._apply(await self._judge_records(), found)

    async def _finish_snapshot(self) -> None:
        """Write the origin of the snapshot below, if the run that took it was interrupted before it did so."""
        found = await read_applying(self.cluster, self.below)
        if found is None or not found.is_complete or found.snapshot != self.below.tag:
            return
        origin = await read_origin(self.cluster, self.below)
        if origin is not None and origin.snapshot is None:
            await write_origin(self.cluster, self.below, origin.of_snapshot(self.below.snap_ctime))
        await end_journal(self.cluster, self.below)

    async def _judge_unfinished(self, candidate: Candidate) -> bool:
        """Judge a VDI to which no backups are being applied. Tells whether all backups were applied before."""
        newest, vdi = self.chain.subject, self.inode.name
        written = await count_written(self.cluster, self.inode, self.below)
        is_whole = written == 0 and self.inode.vdi_size == self.below.vdi_size
        lineage, wanted = candidate.lineage, self.chain.base
        if newest is not None and candidate.equals(newest.identity) and not (wanted and candidate.equals(wanted)):
            if is_whole and (lineage is None or not lineage.doubt):
                if self.snapshot not in (None, self.below.tag):
                    raise HeldAlready(vdi, newest.identity, f"as snapshot '{self.below.tag}'")
                self.is_applied = True
                self.origin = await read_origin(self.cluster, self.below)
                return True
        elif newest is not None and written:
            own = await read_origin(self.cluster, self.inode)
            if own is not None and own.identity.matches(newest.identity):
                raise HeldAlready(vdi, newest.identity, "unless somebody wrote to it since")
        if lineage is None and (candidate.identity is None or wanted is None or not candidate.identity.matches(wanted)):
            applying = await read_applying(self.cluster, self.below)
            half = "the snapshot that it stands on was taken while backups were being applied"
            raise NoReplica(vdi, "nothing says what it was restored as" if applying is None else half)
        if not is_whole:
            await self._refuse_written(written)
        return False

    async def _refuse_written(self, written: int) -> None:
        """Raise ReplicaWritten for ``written`` objects, or SnapshotChanged if the snapshot below was deleted."""
        below, vdi = [await SnapshotObjects.open(self.cluster, each) for each in (self.below, self.inode)]
        below.refuse_emptied(vdi)
        raise ReplicaWritten(self.inode.name, str(self.below), written)

    def _judge_base(self, candidate: Candidate, *, assume_base: bool) -> None:
        first = self.chain.readers[0]
        if self.chain.is_full:
            for place, reader in enumerate(self.chain.readers, 1):
                if reader.subject is not None and candidate.equals(reader.subject.identity):
                    applied = [reader.name for reader in self.chain.readers[:place]]
                    raise PartlyApplied(candidate.name, reader.subject.identity, applied)
            raise IncrementNeeded(first.name, self.inode.name)
        try:
            assumed = judge_base_of(self.chain, candidate, assume_base=assume_base)
        except WrongSnapshot as error:
            if isinstance(error.got, Identity):
                raise BackupsMissing(self.inode.name, first.name, error.expected, error.got) from error
            raise
        self.assumed = all_assumed(self.chain.assumed, assumed)
        if self.below.object_size != self.chain.object_size:
            raise ObjectSizesDiffer(first.name, self.chain.object_size, candidate.name, self.below.object_size)
        Shape(self.chain.size, self.chain.object_size)

    async def _judge_records(self) -> Index:
        index = await read_index(self.chain, self.meter.on_progress)
        self.chain.position(index.last_idx)
        self.meter.counts.objects_planned = len(index.indices)
        if self.snapshot is not None:
            await check_tag_is_free(self.cluster, self.inode.name, self.snapshot)
        return index

    async def _apply(self, index: Index, found: Applying | None) -> None:
        created = time_text(self.inode.create_time)
        if created is None:
            raise NoReplica(self.inode.name, "it does not say when it was created")
        entry = Applying(
            self.backups, created, self.assumed, self.snapshot, is_complete=False, run=secrets.token_hex(16)
        )
        try:
            await self._apply_alone(index, entry, found)
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(f"VDI '{self.inode.name}' is half written: apply the same backups to finish")
            raise

    async def _apply_alone(self, index: Index, entry: Applying, found: Applying | None) -> None:
        """Apply the backups, and keep other runs away meanwhile.

        This writes again what an interrupted run wrote, even if that was all: somebody may have overwritten it since.
        """
        journal = await Journal.begin(self.cluster, self.inode, entry, found)
        is_begun = found is not None
        try:
            with single_error():
                async with journal.kept():
                    vdi, source = await self._open(index, found)
                    is_begun = True
                    await self._write(vdi, index, source)
                    await journal.complete()
                    if self.snapshot is not None:
                        await self._check_use()
                        await take_snapshot(self.cluster, self.inode, self.snapshot, self.origin)
                await journal.end()
        except AsyncBackupError as cause:
            if not is_begun:
                await journal.end()
            elif not isinstance(cause, VdiInUse | ReplicaWritten):
                raise HalfApplied(self.inode.name, cause) from cause
            raise

    async def _check_use(self) -> Inode:
        """Give the inode of the VDI as it is now. Raises VdiInUse, and ChangedMeanwhile if another VDI has the name."""
        vdi = self.inode.name
        if await self.cluster.is_locked(self.inode.vdi_id):
            raise VdiInUse(vdi, "a guest has locked it")
        now = await self.cluster.find_vdi(vdi)
        if now.vdi_id != self.inode.vdi_id:
            raise ChangedMeanwhile(f"VDI '{vdi}'", "a snapshot was taken of it, or it was deleted")
        return now

    async def _open(self, index: Index, found: Applying | None) -> tuple[Construction, SnapshotObjects]:
        """Read the tables of the VDI and its snapshot, and judge the VDI again: it may have changed meanwhile.

        Raises VdiInUse, ChangedMeanwhile, and ReplicaWritten if the VDI has objects that the run of ``found`` did not
        write.
        """
        if (await self._check_use()).vdi_size != self.inode.vdi_size:
            raise ChangedMeanwhile(f"VDI '{self.inode.name}'", "it was resized")
        chain, below, inode = self.chain, self.below, self.inode
        objects = -(-chain.size // chain.object_size)
        count = max(objects, below.object_count, inode.object_count)
        beneath = (await self.cluster.read_owners(below.vdi_id, count)).copy()
        owners = await self.cluster.read_owners(inode.vdi_id, count)
        spans = chain.spans()
        kept = min(objects, below.object_count, objects if spans is None else spans)
        is_foreign = owners != beneath
        if found is not None:
            # The objects of the chain are written again. Entries behind the kept ones are cleared now, or were before.
            is_foreign[index.indices] = False
            is_foreign[kept:] &= owners[kept:] != 0
        if is_foreign.any():
            await self._refuse_written(int(np.count_nonzero(is_foreign)))
        source = SnapshotObjects(self.cluster, below, beneath[: below.object_count].copy()).first(spans)
        beneath[kept:] = 0
        vdi = Construction.onto(self.cluster, inode, owners, beneath=beneath, expected=index.indices)
        return vdi, source

    async def _write(self, vdi: Construction, index: Index, source: SnapshotObjects) -> None:
        if self.inode.vdi_size != self.chain.size:
            await vdi.resize(self.chain.size)
        await fill(vdi, self.chain, index, Composer(source), self.options, meter=self.meter, whole=NO_INDICES)
        await vdi.settle()
        await self._check_use()
        self.origin = origin_of(self.chain, self.inode, assumed=self.assumed is not None)
        if self.origin is not None:
            await write_origin(self.cluster, self.inode, self.origin)
        else:
            await forget_origin(self.cluster, self.inode)
