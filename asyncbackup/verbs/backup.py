"""The backup pipeline: from two snapshots of a VDI to the bytes of a backup in a target."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Final

import anyio
import numpy as np

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.engine.compact import Extent
from asyncbackup.engine.fetch import Fetcher
from asyncbackup.engine.lineage import refuse_half_applied
from asyncbackup.engine.plan import Pair, Plan, count_owned, plan_difference, plan_full
from asyncbackup.engine.progress import BackupCounts, OnProgress, Summary
from asyncbackup.engine.record_writer import Fragment, RecordWriter, refuse_unpatchable
from asyncbackup.engine.source import SnapshotObjects, open_snapshots, staying
from asyncbackup.engine.window import Window, WindowOptions
from asyncbackup.errors import HyperVolume, ObjectSizesDiffer, single_error
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject
from asyncbackup.format.record import END_IDX
from asyncbackup.storage import Target, open_target
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
    manifest: Target | None = None,
    dialect: Dialect = Dialect.COLLIE,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Back up what ``snapshot`` of ``vdi`` has and snapshot ``base`` has not, or without a base all of it.

    ``target`` is the path of a file, which gets a manifest beside it, and must not exist unless ``replace`` is true; or
    an entered target, without ``replace``, whose manifest goes to the entered target ``manifest`` or nowhere. A
    snapshot is named by its id (int) or tag (str). With ``live`` in place of a snapshot the working VDI is read, which
    is no point in time while somebody writes.

    Raises the errors of ``asyncbackup.errors``, among them SnapshotChanged if a snapshot was being deleted meanwhile,
    and HalfApplied for a working VDI to which backups are being applied. There is then, and after a cancellation, no
    new file, and no request in flight. Raises ValueError unless exactly one of ``snapshot`` and ``live`` is given, and
    for ``replace`` with an entered target.
    """
    if (snapshot is None) != live:
        raise ValueError("expected either a snapshot or live=True")
    options = options or WindowOptions()
    started = time.monotonic()
    cluster = cluster.counted()
    async with open_target(target, replace=replace, manifest=manifest) as opened:
        refuse_unpatchable(opened.data, dialect)
        with single_error():
            to_inode, base_inode = await _find(cluster, vdi, snapshot, base)
            work = await _plan(cluster, to_inode, base_inode)
            counts = BackupCounts(work.planned, work.shared)
            subject = None if opened.manifest is None else await _subject(cluster, to_inode, base_inode, dialect)
            writer = RecordWriter(opened.data, dialect, manifest=opened.manifest, subject=subject)
            await _Pipeline(cluster, work, to_inode, options, writer, counts, on_progress).run()
    return Summary(
        vdi=vdi,
        snapshot=None if snapshot is None else str(snapshot),
        base=None if base is None else str(base),
        dialect=dialect,
        **asdict(counts),
        records=writer.records,
        bytes_written=writer.position,
        elapsed_s=time.monotonic() - started,
        requests=cluster.counts.requests,
        retries=cluster.counts.retries,
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


_NO_OWNERS: Final = np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True)
class _Work:
    """What there is to compare."""

    pairs: AsyncGenerator[Pair, None]
    planned: int
    """How many pairs."""
    shared: int = 0
    """Objects that both sides own together, so that they are equal unread."""
    sides: Sequence[SnapshotObjects] = ()
    """The snapshots that are compared."""


async def _plan(cluster: Cluster, to_inode: Inode, base_inode: Inode | None) -> _Work:
    if to_inode.object_count > END_IDX:
        raise HyperVolume(
            f"VDI '{to_inode.name}'", f"has {to_inode.object_count} objects, more than a backup can number"
        )
    if to_inode.is_hyper:
        # The tree is gone through twice, to count and to read: that of a large volume does not fit into memory.
        count = await _count_owned(cluster, to_inode)
        return _Work(_owned(cluster, to_inode), count, sides=[SnapshotObjects(cluster, to_inode, _NO_OWNERS)])
    inodes = [to_inode] if base_inode is None else [to_inode, base_inode]
    sides = await open_snapshots(cluster, inodes, to_inode.object_count)
    plan = plan_sides(*sides)
    return _Work(_each(plan), len(plan), count_owned(*(side.owners for side in sides)) - len(plan), sides)


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
    counts: BackupCounts
    on_progress: OnProgress | None

    async def run(self) -> None:
        """Write the whole backup, and publish it."""
        await self.writer.start()
        self._tell()
        # What makes a backup complete, in a pipe its end marker, comes only when it is known to be that.
        async with staying(*self.work.sides), aclosing(self.work.pairs):
            await self._write_records()
        self.counts.objects_planned = self.counts.objects_done
        self._tell()
        await self.writer.finish()

    async def _write_records(self) -> None:
        object_size = self.to.object_size
        portion_size = self.options.portion_size(object_size)
        workers = self.options.slots(portion_size)
        working = None if self.to.is_snapshot else self.to
        fetcher = Fetcher(self.cluster, object_size, portion_size, self.counts, working=working)
        if portion_size == object_size:
            window = Window(workers, [portion_size] * 2, fetcher.fetch_record, self._append)
            await window.run(self.work.pairs)
        else:
            await self._write_large_records(fetcher, max(1, workers // 2))

    async def _write_large_records(self, fetcher: Fetcher, workers: int) -> None:
        """Find extents in one window, and read what lies in them in another, behind it."""
        send, receive = anyio.create_memory_object_stream[tuple[Pair, Extent]](workers)
        size = fetcher.portion_size

        async def pass_on(found: list[tuple[Pair, Extent]]) -> None:
            for pair, extent in found:
                if extent.length:
                    await send.send((pair, extent))
                else:
                    self.counts.objects_done += 1

        async def find_extents() -> None:
            async with send:
                await Window(workers, [size] * 2, fetcher.find_extent, pass_on).run(self.work.pairs)

        async with receive, aclosing(fetcher.cut_extents(receive)) as portions, anyio.create_task_group() as group:
            group.start_soon(find_extents)
            await Window(workers, [size], fetcher.fetch_portion, self._append).run(portions)

    async def _append(self, fetched: Sequence[Fragment | None]) -> None:
        await self.writer.append([fragment for fragment in fetched if fragment is not None])
        self.counts.objects_done += sum(fragment is None or fragment.is_last for fragment in fetched)
        self._tell()

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
