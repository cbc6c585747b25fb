"""The backup pipeline: from two snapshots of a VDI to the bytes of a backup in a target."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from dataclasses import replace as with_fields
from typing import Final

import anyio
import numpy as np

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.engine.compare import COMPARED_SIZE, share_of
from asyncbackup.engine.fetch import Fetcher, Found, Unreadable
from asyncbackup.engine.keeping import CHECKPOINT_BYTES, Keeping
from asyncbackup.engine.lineage import refuse_half_applied
from asyncbackup.engine.plan import Pair, Plan, count_owned, plan_difference, plan_full
from asyncbackup.engine.progress import BackupCounts, OnProgress, Summary
from asyncbackup.engine.record_writer import Fragment, RecordWriter, refuse_unpatchable
from asyncbackup.engine.resumption import Resumption
from asyncbackup.engine.source import SnapshotObjects, open_snapshots, staying
from asyncbackup.engine.unreadable import Losses
from asyncbackup.engine.window import Window, WindowOptions
from asyncbackup.errors import HyperVolume, ObjectSizesDiffer, SnapshotChanged, TargetFull, single_error
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject
from asyncbackup.format.record import END_IDX, RECORD_HEADER_SIZE
from asyncbackup.storage import Partial, Target, open_target
from asyncbackup.wire.inode import Inode


async def backup(
    cluster: Cluster,
    vdi: str,
    target: str | os.PathLike[str] | Target,
    *,
    snapshot: Snapshot | None = None,
    base: Snapshot | None = None,
    live: bool = False,
    replace: bool = False,
    resume: bool = False,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    skip_unreadable: bool = False,
    manifest: Target | None = None,
    partial: Partial | None = None,
    dialect: Dialect = Dialect.COLLIE,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Back up what ``snapshot`` of ``vdi`` has and snapshot ``base`` has not. Without a base, back up all of it.

    ``target`` is the path of a file. The file gets a manifest beside it, and must not exist unless ``replace`` is true.
    Or ``target`` is an entered target, without ``replace``. Then its manifest goes to the entered target ``manifest``
    or nowhere, and ``partial`` is what can be kept of both. A snapshot is named by its id (int) or its tag (str). With
    ``live`` the working VDI is read. If somebody writes to it meanwhile, the backup mixes older and newer data.

    Whenever ``checkpoint_bytes`` more of a file were written, they are made durable, and stay whatever happens. With
    ``resume`` this goes on with what a run for the same snapshots left, if there is such. If the options are the same,
    the result is the same, byte for byte.

    If objects cannot be read, the run fails with ObjectReadFailed, or with ObjectsUnreadable for several. With
    ``skip_unreadable`` the run does without them: they have no record, and the summary and the manifest name them. This
    needs a manifest. An object of which only the base cannot be read is written whole.

    Raises the errors of ``asyncbackup.errors``, among them SnapshotChanged if a snapshot was being deleted meanwhile,
    and HalfApplied for a working VDI to which backups are being applied. After an error or a cancellation there is no
    new file, and no request is in flight. Raises ValueError unless exactly one of ``snapshot`` and ``live`` is given,
    for ``replace`` or ``resume`` with an entered target, and for ``resume`` with ``live``, because what a guest writes
    does not fit what was read before.
    """
    if (snapshot is None) != live:
        raise ValueError("expected either a snapshot or live=True")
    if resume and live:
        raise ValueError("expected a snapshot to resume")
    options = options or WindowOptions()
    started = time.monotonic()
    cluster = cluster.counted()
    async with open_target(target, replace=replace, resume=resume, manifest=manifest) as opened:
        refuse_unpatchable(opened.data, dialect)
        if skip_unreadable and opened.manifest is None:
            raise ValueError("expected a manifest, which can name what is left out")
        with single_error():
            to_inode, base_inode = await _find(cluster, vdi, snapshot, base)
            work = await _plan(cluster, to_inode, base_inode)
            plan_s = time.monotonic() - started
            subject = None if opened.manifest is None else await _subject(cluster, to_inode, base_inode, dialect)
            if subject is not None and skip_unreadable:
                subject = with_fields(subject, may_lack=True)
            writer = RecordWriter(opened.data, dialect, manifest=opened.manifest, subject=subject)
            keeping = Keeping(writer, None if live else partial or opened.partial, checkpoint_bytes)
            losses = Losses(skip_unreadable)
            found = await keeping.find(subject, on_progress)
            if found is not None:
                work = await _cut(work, found)
                losses.begin_with(found.missing)
            counts = BackupCounts(work.planned, work.shared)
            await keeping.start(found, subject)
            pipeline = _Pipeline(cluster, work, to_inode, options, writer, keeping, losses, counts, on_progress)
            async with keeping.leaving():
                await pipeline.run()
    sent = cluster.counts
    elapsed_s = time.monotonic() - started
    sync_s = elapsed_s - (pipeline.read_at_s - started)
    return Summary(
        vdi=vdi,
        snapshot=None if snapshot is None else str(snapshot),
        base=None if base is None else str(base),
        dialect=dialect,
        **asdict(counts),
        records=writer.records,
        bytes_written=writer.position,
        bytes_resumed=0 if found is None else found.checkpoint.position,
        missing=losses.missing,
        elapsed_s=elapsed_s,
        plan_s=plan_s,
        read_s=elapsed_s - plan_s - sync_s,
        digest_s=writer.digest_s,
        write_s=writer.write_s,
        sync_s=sync_s,
        requests=sent.requests,
        retries=sent.retries,
        retry_causes=dict(sent.causes),
        hedges=sent.hedges,
        most_in_flight=sent.most_in_flight,
        latencies_s=sent.latencies.percentiles_s(),
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a backup would do at most. Sizes are in bytes."""

    objects_planned: int
    objects_shared: int
    objects_to_read: int
    """Data objects that would be read, each side counted once."""
    bytes_to_read: int
    bytes_to_write: int

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def estimate(
    cluster: Cluster, vdi: str, *, snapshot: Snapshot | None = None, base: Snapshot | None = None, live: bool = False
) -> Estimate:
    """Say what ``backup`` with the same arguments would read and write at most. It reads no data object.

    Raises what ``backup`` raises before it reads any.
    """
    if (snapshot is None) != live:
        raise ValueError("expected either a snapshot or live=True")
    with single_error():
        to_inode, base_inode = await _find(cluster, vdi, snapshot, base)
        work = await _plan(cluster, to_inode, base_inode)
        async with aclosing(work.pairs):
            to_read = sum(
                [sum(owner != 0 for owner in (pair.to_owner, *pair.base_owners)) async for pair in work.pairs]
            )
    size = to_inode.object_size
    return Estimate(
        objects_planned=work.planned,
        objects_shared=work.shared,
        objects_to_read=to_read,
        bytes_to_read=to_read * size,
        bytes_to_write=work.planned * size,
    )


async def _find(
    cluster: Cluster, vdi: str, snapshot: Snapshot | None, base: Snapshot | None
) -> tuple[Inode, Inode | None]:
    to_inode = await cluster.find_vdi(vdi, snapshot)
    await refuse_half_applied(cluster, to_inode)
    if base is None:
        return to_inode, None
    base_inode = await cluster.find_vdi(vdi, base)
    if to_inode.is_hyper or base_inode.is_hyper:
        raise HyperVolume(f"VDI '{vdi}'", "takes only a full backup")
    if to_inode.object_size != base_inode.object_size:
        raise ObjectSizesDiffer(str(to_inode), to_inode.object_size, str(base_inode), base_inode.object_size)
    return to_inode, base_inode


_LINE_SIZE: Final = 256
"""Bytes of a line of a manifest, and of what ends a backup, at most."""

_NO_OWNERS: Final = np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True)
class _Work:
    """What there is to compare."""

    pairs: AsyncGenerator[Pair, None]
    planned: int
    """How many pairs."""
    shared: int = 0
    """Objects that both sides share, so that they are equal and are not read."""
    sides: Sequence[SnapshotObjects] = ()
    """The snapshots that are compared."""
    plan: Plan | None = None
    """The same as the pairs; None for a hyper volume, whose plan does not fit into memory."""


async def _plan(cluster: Cluster, to_inode: Inode, base_inode: Inode | None) -> _Work:
    if to_inode.object_count > END_IDX:
        raise HyperVolume(
            f"VDI '{to_inode.name}'", f"has {to_inode.object_count} objects, more than a backup can number"
        )
    if to_inode.is_hyper:
        # We go through the tree twice, to count and to read, because a large one does not fit into memory.
        count = await _count_owned(cluster, to_inode)
        return _Work(_owned(cluster, to_inode), count, sides=[SnapshotObjects(cluster, to_inode, _NO_OWNERS)])
    inodes = [to_inode] if base_inode is None else [to_inode, base_inode]
    sides = await open_snapshots(cluster, inodes, to_inode.object_count)
    plan = plan_sides(*sides)
    return _Work(_each(plan), len(plan), count_owned(*(side.owners for side in sides)) - len(plan), sides, plan)


async def _cut(work: _Work, found: Resumption) -> _Work:
    """Leave out the pairs that an interrupted run went through. Raises SnapshotChanged."""
    last_idx = found.checkpoint.last_idx
    if work.plan is None:
        return with_fields(
            work, pairs=_behind(work.pairs, last_idx), planned=work.planned - len(found.indices) - len(found.missing)
        )
    await work.pairs.aclose()
    gone = len(found.indices) - int(np.count_nonzero(np.isin(np.array(found.indices, np.uint32), work.plan.idx)))
    if gone:
        raise SnapshotChanged(work.sides[0].name, f"{gone} of its objects, which were backed up before, are gone")
    plan = work.plan[int(np.searchsorted(work.plan.idx, last_idx, side="right")) :]
    return with_fields(work, pairs=_each(plan), planned=len(plan), plan=plan)


async def _behind(pairs: AsyncGenerator[Pair, None], last_idx: int) -> AsyncGenerator[Pair, None]:
    async with aclosing(pairs):
        async for pair in pairs:
            if pair.idx > last_idx:
                yield pair


def plan_sides(to: SnapshotObjects, base: SnapshotObjects | None = None) -> Plan:
    """Compare the owner tables of two snapshots, or without a base with zeros."""
    return plan_difference(to.owners, np.zeros(len(to.owners), np.uint32) if base is None else base.owners)


async def _owned(cluster: Cluster, inode: Inode) -> AsyncGenerator[Pair, None]:
    async with aclosing(cluster.read_btree(inode)) as leaves:
        async for indices, owners in leaves:
            for pair in plan_full(indices, owners):
                yield pair


async def _count_owned(cluster: Cluster, inode: Inode) -> int:
    async with aclosing(cluster.read_btree(inode)) as leaves:
        return sum([len(plan_full(indices, owners)) async for indices, owners in leaves])


@dataclass(slots=True)
class _Pipeline:
    """The way from pairs, through a window of workers that fetch them, to the record writer."""

    cluster: Cluster
    work: _Work
    to: Inode
    options: WindowOptions
    writer: RecordWriter
    keeping: Keeping
    losses: Losses
    counts: BackupCounts
    on_progress: OnProgress | None
    read_at_s: float = 0.0
    """When all was read, and written."""

    async def run(self) -> None:
        """Write what there is to compare, and publish the whole backup."""
        try:
            with single_error():
                await self._run()
        except TargetFull as full:
            self._say_needed(full)
            raise

    async def _run(self) -> None:
        self._tell()
        # The end says that the backup is complete. It is written only when the snapshots are known to be still there.
        async with staying(*self.work.sides), aclosing(self.work.pairs):
            await self._write_records()
        self.read_at_s = time.monotonic()
        self.counts.objects_planned = self.counts.objects_done
        self._tell()
        await self.writer.finish()

    async def _write_records(self) -> None:
        object_size = self.to.object_size
        portion_size = self.options.portion_size(object_size)
        workers = self.options.slots(portion_size)
        working = None if self.to.is_snapshot else self.to
        sides = max(1, len(self.work.sides))
        limit = self.cluster.in_flight_limit
        active = self.options.active(limit, sides * COMPARED_SIZE)
        fetcher = Fetcher(
            self.cluster,
            object_size,
            portion_size,
            self.counts,
            compared_size=lambda: share_of(limit(), min(active(), workers) * sides),
            working=working,
            skips_unreadable=self.losses.are_skipped,
        )
        pairs = self.losses.until_failure(self.work.pairs)
        if portion_size == object_size:
            window = Window(workers, [portion_size] * 2, fetcher.fetch_record, self._append, active)
            await window.run(pairs)
        else:
            await self._write_large_records(pairs, fetcher, max(1, workers // 2))
        self.losses.raise_failures()

    async def _write_large_records(self, pairs: AsyncGenerator[Pair, None], fetcher: Fetcher, workers: int) -> None:
        """Find extents in one window, and read what lies in them in another, behind it."""
        send, receive = anyio.create_memory_object_stream[Found | Unreadable](workers)
        size = fetcher.portion_size

        async def pass_on(found: list[Found | Unreadable]) -> None:
            for each in found:
                if isinstance(each, Unreadable) or each.extent.length:
                    await send.send(each)
                else:
                    self.counts.objects_done += 1

        async def find_extents() -> None:
            async with send:
                await Window(workers, [size] * 2, fetcher.find_extent, pass_on).run(pairs)

        async with receive, aclosing(fetcher.cut_extents(receive)) as portions, anyio.create_task_group() as group:
            group.start_soon(find_extents)
            await Window(workers, [size], fetcher.fetch_portion, self._append).run(portions)

    async def _append(self, fetched: Sequence[Fragment | Unreadable | None]) -> None:
        fragments: list[Fragment] = []
        for each in fetched:
            if isinstance(each, Unreadable):
                if self.losses.note(each):
                    await self.writer.append(fragments)
                    fragments = []
                    self.writer.leave_out(each.idx)
            elif each is not None:
                fragments.append(each)
        if self.losses.failures:
            return
        await self.writer.append(fragments)
        self.counts.objects_done += sum(not isinstance(each, Fragment) or each.is_last for each in fetched)
        self._tell()
        await self.keeping.advance()

    def _say_needed(self, full: TargetFull) -> None:
        """Say how much room is missing: at least for what was read already, at most for all objects in full."""
        if self.keeping.partial is None:
            return
        full.needed = max(1, self.writer.position - self.keeping.partial.size)
        if self.work.plan is not None:
            remaining = self.counts.objects_planned - self.counts.objects_done
            full.enough = full.needed + remaining * (RECORD_HEADER_SIZE + self.to.object_size + _LINE_SIZE) + _LINE_SIZE

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self.counts.progress())


async def _subject(cluster: Cluster, to_inode: Inode, base_inode: Inode | None, dialect: Dialect) -> Subject:
    """Say what the backup is of, for its manifest. Raises InodeCorrupt."""
    return Subject(
        size=to_inode.vdi_size,
        object_size=to_inode.object_size,
        copies=to_inode.nr_copies,
        copy_policy=to_inode.copy_policy,
        dialect=dialect,
        identity=await cluster.identify(to_inode),
        base_identity=None if base_inode is None else await cluster.identify(base_inode),
        base_size=None if base_inode is None else base_inode.vdi_size,
    )


async def _each(pairs: Iterable[Pair]) -> AsyncGenerator[Pair, None]:
    for pair in pairs:
        yield pair
