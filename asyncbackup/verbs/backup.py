"""The backup pipeline: from two snapshots of a VDI to the bytes of a backup in a target."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Final

import anyio
import numpy as np

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.engine.compact import Extent
from asyncbackup.engine.fetch import Chunk, Fetcher
from asyncbackup.engine.plan import Pair, Plan, plan_difference, plan_full
from asyncbackup.engine.progress import BackupCounts, OnProgress, Summary
from asyncbackup.engine.proof import ManifestWriter, Written, describe_backup
from asyncbackup.engine.source import SnapshotObjects, staying
from asyncbackup.engine.window import Window, WindowOptions
from asyncbackup.errors import HyperVolume, ObjectSizesDiffer, PatchNeeded, SnapshotChanged, single_error
from asyncbackup.format import Dialect
from asyncbackup.format.record import END_IDX
from asyncbackup.storage import Target, open_target, publish
from asyncbackup.wire.inode import Inode

_GATHERED_SIZE: Final = 64 << 10
"""Bytes of short records to copy together before they go to the target: a hop to its thread costs more."""


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
    an entered target, whose manifest goes to the entered target ``manifest`` or nowhere. A snapshot is named by its id
    (int) or tag (str). With ``live`` in place of a snapshot the working VDI is read, which is no point in time while
    somebody writes.

    Raises the errors of ``asyncbackup.errors``, among them SnapshotChanged if a snapshot was being deleted meanwhile;
    there is then, and after a cancellation, no new file, and no request in flight. Raises ValueError unless exactly
    one of ``snapshot`` and ``live`` is given.
    """
    if (snapshot is None) != live:
        raise ValueError("expected either a snapshot or live=True")
    options = options or WindowOptions()
    started, requests, retries = time.monotonic(), cluster.requests, cluster.retries
    async with open_target(target, replace=replace, manifest=manifest) as opened:
        if dialect.needs_patch and not opened.data.can_patch:
            raise PatchNeeded(dialect.value)
        with single_error():
            to_inode, base_inode = await _find(cluster, vdi, snapshot, base)
            work = await _plan(cluster, to_inode, base_inode)
            counts = BackupCounts(work.planned, work.shared)
            job = _Job(cluster, work, to_inode, dialect, options, opened.data, on_progress, counts)
            if opened.manifest is not None:
                job.proof = ManifestWriter(opened.manifest)
                job.proof.start(await describe_backup(cluster, to_inode, base_inode, dialect))
            await job.run()
    return Summary(
        vdi=vdi,
        snapshot=None if snapshot is None else str(snapshot),
        base=None if base is None else str(base),
        dialect=dialect,
        **asdict(counts),
        elapsed_s=time.monotonic() - started,
        requests=cluster.requests - requests,
        retries=cluster.retries - retries,
    )


async def _find(
    cluster: Cluster, vdi: str, snapshot: Snapshot | None, base: Snapshot | None
) -> tuple[Inode, Inode | None]:
    to_inode = await cluster.find_vdi(vdi, snapshot)
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
    """What there is to compare: ``planned`` pairs. ``sides``: the snapshots that are compared."""

    pairs: AsyncGenerator[Pair, None]
    planned: int
    shared: int = 0
    sides: Sequence[SnapshotObjects] = ()


async def _plan(cluster: Cluster, to_inode: Inode, base_inode: Inode | None) -> _Work:
    if to_inode.object_count > END_IDX:
        raise HyperVolume(
            f"VDI '{to_inode.name}'", f"has {to_inode.object_count} objects, more than a backup can number"
        )
    if to_inode.is_hyper:
        # The tree is gone through twice, to count and to read: that of a large volume does not fit into memory.
        count = await _count_owned(cluster, to_inode)
        return _Work(_owned(cluster, to_inode), count, sides=[SnapshotObjects(cluster, to_inode, _NO_OWNERS)])
    sides = await open_sides(cluster, to_inode, base_inode)
    if base_inode is not None:
        refuse_emptied(*sides)
    plan = plan_sides(*sides)
    return _Work(_each(plan), len(plan), plan.shared, sides)


async def open_sides(cluster: Cluster, to_inode: Inode, base_inode: Inode | None) -> list[SnapshotObjects]:
    """Read the part of the owner tables that the size of ``to_inode`` spans."""
    opened: dict[int, SnapshotObjects] = {}

    async def open_side(inode: Inode) -> None:
        opened[inode.vdi_id] = await SnapshotObjects.open(cluster, inode, to_inode.object_count)

    inodes = [to_inode] if base_inode is None else [to_inode, base_inode]
    async with anyio.create_task_group() as group:
        for inode in {inode.vdi_id: inode for inode in inodes}.values():
            group.start_soon(open_side, inode)
    return [opened[inode.vdi_id] for inode in inodes]


def refuse_emptied(one: SnapshotObjects, other: SnapshotObjects) -> None:
    """Raise SnapshotChanged if one of two VDIs has given up objects that the other one inherited of it.

    A deletion that was stopped leaves a snapshot under its name, with a part of its table for good: nothing changes
    while it is read. Nobody but a VDI itself makes objects with its id, and a snapshot's table is never written to.
    """
    for older, newer in ((one, other), (other, one)):
        own = np.uint32(older.inode.vdi_id)
        gone = int(np.count_nonzero((newer.owners == own) & (older.owners != own)))
        if older.inode.is_snapshot and gone:
            raise SnapshotChanged(older.name, f"{gone} of its objects, which {newer.name} still has, were given up")


def plan_sides(to: SnapshotObjects, base: SnapshotObjects | None = None) -> Plan:
    """Compare the owner tables."""
    return plan_difference(to.owners, np.zeros(len(to.owners), np.uint32) if base is None else base.owners)


async def _owned(cluster: Cluster, inode: Inode) -> AsyncGenerator[Pair, None]:
    async with aclosing(cluster.read_btree(inode)) as leaves:
        async for indices, owners in leaves:
            for pair in plan_full(indices, owners):
                yield pair


async def _count_owned(cluster: Cluster, inode: Inode) -> int:
    async with aclosing(cluster.read_btree(inode)) as leaves:
        return sum([len(plan_full(indices, owners)) async for indices, owners in leaves])


@dataclass
class _Job:
    """One backup under way."""

    cluster: Cluster
    work: _Work
    to: Inode
    dialect: Dialect
    options: WindowOptions
    target: Target
    on_progress: OnProgress | None
    counts: BackupCounts
    proof: ManifestWriter | None = None
    _waiting: list[bytes | memoryview] = field(default_factory=list)
    _waiting_size: int = 0

    async def run(self) -> None:
        """Write the whole backup, and publish it."""
        dialect = self.dialect
        await self._write([dialect.opening])
        # What makes a backup complete, in a pipe its end marker, comes only when it is known to be that.
        async with staying(*self.work.sides), aclosing(self.work.pairs):
            await self._write_records()
        self.counts.objects_planned = self.counts.objects_done
        await self._write([dialect.ending])
        await self._flush()
        beginning = dialect.patch(self.counts.records)
        if self.proof is not None:
            await self.proof.finish(self.counts.bytes_written)
        await publish(self.target, self.proof.target if self.proof else None, beginning)

    async def _write_records(self) -> None:
        object_size = self.to.object_size
        piece_size = self.options.portion_size(object_size)
        slots = self.options.slots(piece_size)
        working = None if self.to.is_snapshot else self.to
        fetcher = Fetcher(self.cluster, object_size, piece_size, self.counts, working=working)
        if piece_size == object_size:
            await Window(slots, [piece_size] * 2, fetcher.fetch_record, self._append).run(self.work.pairs)
        else:
            await self._write_large_records(fetcher, max(1, slots // 2))

    async def _write_large_records(self, fetcher: Fetcher, slots: int) -> None:
        """Find extents in one window, and read what lies in them in another, behind it."""
        send, receive = anyio.create_memory_object_stream[tuple[Pair, Extent]](slots)

        async def pass_on(found: list[tuple[Pair, Extent]]) -> None:
            for pair, extent in found:
                if extent.length:
                    await send.send((pair, extent))
                else:
                    self.counts.objects_done += 1

        async def find_extents() -> None:
            async with send:
                await Window(slots, [fetcher.piece_size] * 2, fetcher.find_extent, pass_on).run(self.work.pairs)

        async with receive, aclosing(fetcher.pieces(receive)) as pieces, anyio.create_task_group() as group:
            group.start_soon(find_extents)
            await Window(slots, [fetcher.piece_size], fetcher.fetch_piece, self._append).run(pieces)

    async def _append(self, chunks: list[Chunk]) -> None:
        buffers: list[bytes | memoryview] = []
        for chunk in chunks:
            if chunk.header is not None:
                buffers.append(chunk.header.encode())
                self.counts.records += 1
            buffers += chunk.payload
            self.counts.objects_done += chunk.completes_object
        if self.proof is not None:
            await self.proof.add([Written(*chunk) for chunk in chunks if chunk.payload])
        await self._write(buffers)

    async def _write(self, buffers: list[bytes | memoryview]) -> None:
        size = sum(map(len, buffers))
        # Few bytes are copied: where they lie is used again when this returns.
        self._waiting += buffers if size >= _GATHERED_SIZE else [b"".join(buffers)]
        self._waiting_size += size
        if self._waiting_size >= _GATHERED_SIZE:
            await self._flush()
        if self.on_progress is not None:
            self.on_progress(self.counts.progress())

    async def _flush(self) -> None:
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        filled = [buffer for buffer in waiting if buffer]
        if filled:
            await self.target.append(filled)
            self.counts.bytes_written += sum(map(len, filled))


async def _each(pairs: Iterable[Pair]) -> AsyncGenerator[Pair, None]:
    for pair in pairs:
        yield pair
