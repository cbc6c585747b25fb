"""The backup pipeline: from two snapshots of a VDI to the bytes of a backup in a target."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass
from dataclasses import replace as with_fields

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.engine.cut import Shard
from asyncbackup.engine.deltas import DeltaWriter, Pass
from asyncbackup.engine.keeping import CHECKPOINT_BYTES, Keeping
from asyncbackup.engine.pieces import SplitPass, Workers
from asyncbackup.engine.plan import Plan
from asyncbackup.engine.processes import Processes
from asyncbackup.engine.progress import BackupCounts, DeltaSummary, OnProgress, Summary
from asyncbackup.engine.record_writer import RecordWriter, refuse_unpatchable
from asyncbackup.engine.scratch import find_scratch
from asyncbackup.engine.source import staying
from asyncbackup.engine.unreadable import Losses
from asyncbackup.engine.window import WindowOptions
from asyncbackup.engine.work import find_inodes, leave_out_done, plan_work, take_share_of
from asyncbackup.errors import HyperVolume, single_error
from asyncbackup.format import Dialect
from asyncbackup.format.manifest import Subject
from asyncbackup.format.piece import PieceRange
from asyncbackup.format.record import RECORD_HEADER_SIZE
from asyncbackup.storage import Access, Layers, Partial, Target, open_target
from asyncbackup.storage.backup_target import BackupTarget
from asyncbackup.wire.inode import Inode


@dataclass(frozen=True, slots=True)
class Delta:
    """A backup to make: what a snapshot has and ``base`` has not; None: all of it. The others are as for ``backup``."""

    target: str | os.PathLike[str] | Target
    base: Snapshot | None = None
    manifest: Target | None = None
    partial: Partial | None = None
    dialect: Dialect | None = None
    """None: the dialect of the first one."""


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
    also: Sequence[Delta] = (),
    processes: int = 1,
    shard: Shard | None = None,
    workers: Workers | None = None,
    access: Access | None = None,
    layers: Layers | None = None,
) -> Summary:
    """Back up what ``snapshot`` of ``vdi`` has and snapshot ``base`` has not. Without a base, back up all of it.

    ``target`` is the path of a file. The file gets a manifest beside it, and must not exist unless ``replace`` is true.
    Or ``target`` is an entered target, without ``replace``. Then its manifest goes to the entered target ``manifest``
    or nowhere, and ``partial`` is what can be kept of both. A snapshot is named by its id (int) or its tag (str). With
    ``live`` the working VDI is read. If somebody writes to it meanwhile, the backup mixes older and newer data.

    Whenever ``checkpoint_bytes`` more of a file were written, they are made durable, and stay whatever happens. With
    ``resume`` this goes on with what a run for the same snapshots left, if there is such. If the options are the same,
    the result is the same, byte for byte.

    With ``also`` other backups of the same snapshot are made in the same pass, which reads each object once. Each is,
    with its manifest, what a run of its own would make. ``replace`` and ``resume`` hold for all of them.

    With more than one of ``processes``, others read parts of the objects, and this one joins what they wrote. The
    result is the same. It takes no hyper volume, and files alone. Memory and rate are shared out. The others import the
    script that is run, so what a script does stands under ``if __name__ == "__main__"``. With ``workers`` these read,
    in place of processes of this machine, and objects in stores are taken as well. Secret options of a store do not go
    to them: they have their own in the environment. No backup that is encrypted is taken.

    With ``shard`` it makes only this piece of the backup, which needs a manifest. Runs on any machines make the others,
    and ``join`` makes the backup of all of them, the same as one run makes it. It takes no hyper volume.

    With ``layers`` what goes to paths is compressed or encrypted. The dialect is then dog. What is encrypted cannot be
    resumed.

    If objects cannot be read, the run fails with ObjectReadFailed, or with ObjectsUnreadable for several. With
    ``skip_unreadable`` the run does without them: they have no record, and the summary and the manifest name them. This
    needs a manifest. An object of which only the base cannot be read is written whole.

    Raises the errors of ``asyncbackup.errors``, among them SnapshotChanged if a snapshot was being deleted meanwhile,
    and HalfApplied for a working VDI to which backups are being applied. After an error or a cancellation there is no
    new file, and no request is in flight. Raises ValueError unless exactly one of ``snapshot`` and ``live`` is given,
    for ``replace`` or ``resume`` with an entered target, for ``resume`` or ``shard`` with ``live``, because what a
    guest writes does not fit what was read before, and for ``shard`` with ``also`` or several ``processes``.
    """
    if (snapshot is None) != live:
        raise ValueError("expected either a snapshot or live=True")
    if (resume or shard) and live:
        raise ValueError("expected a snapshot to resume, or to cut into pieces")
    if shard and (also or processes > 1 or workers):
        raise ValueError("expected one backup and one process for a piece")
    wanted = [Delta(target, base, manifest, partial, dialect), *also]
    started = time.monotonic()
    cluster = cluster.counted()
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_target(
                    delta.target, replace=replace, resume=resume, manifest=delta.manifest, access=access, layers=layers
                )
            )
            for delta in wanted
        ]
        for delta, goes_to in zip(wanted, opened, strict=True):
            if shard is None:
                refuse_unpatchable(goes_to.data, delta.dialect or dialect)
            if (skip_unreadable or shard) and goes_to.manifest is None:
                raise ValueError("expected a manifest, which can name what is left out, or which piece it is")
        with single_error():
            to_inode, base_inodes = await find_inodes(cluster, vdi, snapshot, [delta.base for delta in wanted])
            work = await plan_work(cluster, to_inode, base_inodes)
            piece = None
            if shard is not None:
                work, piece = await take_share_of(work, vdi, shard)
            plan_s = time.monotonic() - started
            options = _leave_memory(options or WindowOptions(), opened, wanted, work.planned, to_inode)
            making = [
                await _prepare(
                    cluster,
                    (to_inode, base_inode),
                    with_fields(delta, dialect=delta.dialect or dialect, partial=delta.partial or goes_to.partial),
                    goes_to,
                    checkpoint_bytes,
                    skip_unreadable=skip_unreadable,
                    piece=piece,
                )
                for delta, base_inode, goes_to in zip(wanted, base_inodes, opened, strict=True)
            ]
            found = [await each.find(on_progress) for each in making]
            work = await leave_out_done(work, found)
            counts = BackupCounts(work.planned, work.shared)
            async with AsyncExitStack() as leaving:
                for each, resumption in zip(making, found, strict=True):
                    await each.keeping.start(resumption, each.subject)
                    await leaving.enter_async_context(each.keeping.leaving())
                whole = Pass(
                    cluster,
                    work.pairs,
                    to_inode,
                    max(1, len(work.sides)),
                    options,
                    making,
                    counts,
                    on_progress,
                    is_planned=work.plan is not None,
                )
                # The end says that a backup is complete. It is written only when the snapshots are known to be there.
                async with staying(*work.sides), aclosing(work.pairs):
                    if processes == 1 and workers is None:
                        await whole.write_records()
                    else:
                        await _split(whole, work.plan, opened, workers, processes).write_records()
                read_at_s = time.monotonic()
                await whole.finish()
    sent = cluster.counts
    elapsed_s = time.monotonic() - started
    sync_s = elapsed_s - (read_at_s - started)
    results = [
        DeltaSummary(
            file=goes_to.data.name,
            base=None if delta.base is None else str(delta.base),
            dialect=delta.dialect or dialect,
            records=each.writer.records,
            bytes_written=each.writer.position,
            bytes_resumed=0 if resumption is None else resumption.checkpoint.position,
            missing=each.losses.missing,
        )
        for delta, each, resumption, goes_to in zip(wanted, making, found, opened, strict=True)
    ]
    first = results[0]
    return Summary(
        vdi=vdi,
        snapshot=None if snapshot is None else str(snapshot),
        base=first.base,
        dialect=first.dialect,
        **asdict(counts),
        records=first.records,
        bytes_written=first.bytes_written,
        bytes_resumed=first.bytes_resumed,
        missing=first.missing,
        also=results[1:],
        elapsed_s=elapsed_s,
        plan_s=plan_s,
        read_s=elapsed_s - plan_s - sync_s,
        digest_s=sum(each.writer.digest_s for each in making),
        write_s=sum(each.writer.write_s for each in making),
        sync_s=sync_s,
        requests=sent.requests,
        retries=sent.retries,
        retry_causes=dict(sent.causes),
        hedges=sent.hedges,
        most_in_flight=sent.most_in_flight,
        latencies_s=sent.latencies.percentiles_s(),
        piece=piece,
    )


def _leave_memory(
    options: WindowOptions, opened: Sequence[BackupTarget], wanted: Sequence[Delta], planned: int, to: Inode
) -> WindowOptions:
    """Leave memory for what targets hold. Raises MemoryTooSmall."""
    most = (planned + 2) * (to.object_size + RECORD_HEADER_SIZE)
    for delta, goes_to in zip(wanted, opened, strict=True):
        # Of an increment nobody knows how much of the objects that changed is in it.
        held = goes_to.reserve(most, planned, options.memory, may_be_less=delta.base is not None)
        options = options.without(held)
    return options


def _split(
    whole: Pass, plan: Plan | None, opened: Sequence[BackupTarget], workers: Workers | None, processes: int
) -> SplitPass:
    targets = [each.data for each in opened]
    scratches = [scratch for target in targets if (scratch := find_scratch(target)) is not None]
    # Processes of this machine would bring nothing where everything crosses its network twice.
    if len(scratches) < len(opened) or (workers is None and any(scratch.is_far for scratch in scratches)):
        raise ValueError("expected files, to which several processes can write")
    if plan is None:
        raise HyperVolume(f"VDI '{whole.to.name}'", "is backed up by one process")
    return SplitPass(whole, plan, targets, scratches, workers or Processes(processes))


async def _prepare(
    cluster: Cluster,
    inodes: tuple[Inode, Inode | None],
    delta: Delta,
    target: BackupTarget,
    checkpoint_bytes: int,
    *,
    skip_unreadable: bool,
    piece: PieceRange | None,
) -> DeltaWriter:
    """Make what writes a backup. Nothing is written yet. Raises InodeCorrupt."""
    (to, base), dialect = inodes, delta.dialect
    assert dialect is not None
    subject = None if target.manifest is None else await _subject(cluster, to, base, dialect)
    if subject is not None:
        subject = with_fields(subject, may_lack=skip_unreadable, piece=piece)
    writer = RecordWriter(target.data, dialect, manifest=target.manifest, subject=subject)
    # What a guest writes to does not fit what was read before.
    keeping = Keeping(writer, delta.partial if to.is_snapshot else None, checkpoint_bytes)
    return DeltaWriter(subject, writer, keeping, Losses(skip_unreadable))


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
    cluster: Cluster,
    vdi: str,
    *,
    snapshot: Snapshot | None = None,
    base: Snapshot | None = None,
    live: bool = False,
    also: Sequence[Snapshot | None] = (),
    shard: Shard | None = None,
) -> Estimate:
    """Say what ``backup`` with the same arguments would read and write at most. It reads no data object.

    ``also`` are the bases of the other backups. With ``shard`` it is about this piece.

    Raises what ``backup`` raises before it reads any.
    """
    if (snapshot is None) != live:
        raise ValueError("expected either a snapshot or live=True")
    with single_error():
        to_inode, base_inodes = await find_inodes(cluster, vdi, snapshot, [base, *also])
        work = await plan_work(cluster, to_inode, base_inodes)
        if shard is not None:
            work, _ = await take_share_of(work, vdi, shard)
        to_read = to_write = 0
        async with aclosing(work.pairs):
            async for pair in work.pairs:
                to_read += len({pair.to_owner, *pair.base_owners} - {0})
                to_write += sum(owner != pair.to_owner for owner in pair.base_owners)
    size = to_inode.object_size
    return Estimate(
        objects_planned=work.planned,
        objects_shared=work.shared,
        objects_to_read=to_read,
        bytes_to_read=to_read * size,
        bytes_to_write=to_write * size,
    )


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
