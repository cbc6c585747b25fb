"""Restores a chain of backups as a new VDI in a cluster."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

import anyio

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import can_be_named
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi, Parent, Shape, is_unfinished
from asyncbackup.engine.base import all_assumed
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.fill_job import FillJob
from asyncbackup.engine.fill_shares import Fillers, SharedFill, share_memory
from asyncbackup.engine.filling import fill
from asyncbackup.engine.index import Index, read_index
from asyncbackup.engine.keeping import CHECKPOINT_BYTES
from asyncbackup.engine.lineage import check_tag_is_free, origin_of, take_snapshot, write_origin
from asyncbackup.engine.opening import (
    BaseName,
    BaseSnapshot,
    Judged,
    judge_size,
    open_base,
    open_snapshot_base,
    require_base,
)
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.replay import Meter
from asyncbackup.engine.source import NO_INDICES, Indices, ObjectSource, SnapshotObjects, ZeroObjects
from asyncbackup.engine.vdi_keeping import VdiKeeping
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import (
    AsyncBackupError,
    ChangedMeanwhile,
    LeftUnfinished,
    ManifestMissing,
    NotResumable,
    ObjectSizesDiffer,
    PerhapsCreated,
    RedundancyUnkeepable,
    RequestFailed,
    SnapshotNotTaken,
    TargetBusy,
    TargetUnusable,
    UnfinishedExists,
    VdiExists,
    VdiUnmakeable,
    first_error,
    single_error,
)
from asyncbackup.format.replica import Origin
from asyncbackup.format.restoring import Restoring
from asyncbackup.storage.journal import JournalFile, journal_beside
from asyncbackup.storage.location import find_object
from asyncbackup.wire.inode import Inode, Owners

_LEAVING_S: Final = 10.0
"""Seconds that a failed restore waits for its journal."""

_TAGGED: Final = f"tagged '{UNFINISHED_TAG}'"

_REMOVAL_S: Final = 60.0
"""Seconds to remove the VDI of a failed restore. It is left behind after that, because a Ctrl-C waits for it."""


@dataclass(frozen=True, slots=True)
class RestoreSummary:
    """What was restored. Sizes in bytes, times in seconds."""

    vdi: str
    vdi_id: str
    """The id that the VDI had while it was written. If a snapshot was taken of it, the snapshot has this id now."""
    size: int
    object_size: int
    copies: int
    copy_policy: int
    base: str | None
    """The snapshot that the new VDI is a clone of, or that an existing VDI stood on; None: there is none."""
    base_image: str | None
    """The image that was the base; None: the base was no image."""
    assumed: str | None
    """What was assumed because the caller vouched for it; None: all was proved."""
    files: int
    checked: bool
    """Whether manifests proved all data."""
    origin: str | None
    """The snapshot that the VDI's attribute says it equals, in words; None: the attribute was not written."""
    origin_missing: str | None
    """Why the attribute was not written; None: it was."""
    snapshot: str | None
    """The tag of the snapshot that was taken of the VDI; None: no snapshot was wanted."""
    already_applied: bool
    """Whether all backups had been applied to the VDI before, so that nothing was done."""
    objects_done: int
    objects_resumed: int
    """Objects that an interrupted run wrote, and that this run did not write again."""
    bytes_written: int
    elapsed_s: float
    missing: Sequence[int] = ()
    """The idx of each object that the backups lack."""
    workers_lost: Sequence[str] = ()
    """The workers on other machines that were lost meanwhile, and that may still send a write."""

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def restore(
    cluster: Cluster,
    backups: Sequence[str | os.PathLike[str]],
    to: str,
    *,
    base: BaseName | None = None,
    copies: int | None = None,
    snapshot: str | None = None,
    assume_base: bool = False,
    allow_incomplete: bool = False,
    resume: bool = False,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    journal: str | os.PathLike[str] | None = None,
    on_kept: Callable[[], object] | None = None,
    fillers: Fillers | None = None,
    chain_options: ChainOptions | None = None,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
) -> RestoreSummary:
    """Make VDI ``to`` of ``backups``, oldest first: a full one and increments, or increments on their ``base``.

    ``base`` is a snapshot in ``cluster`` or an image. The new VDI becomes a clone of the snapshot. Of an image, all
    that is not zeros is written as well. The base must have the identity that the manifest names; an image has it from
    the state beside it. ``assume_base`` vouches for a base that nothing proves. If manifests have digests of the base,
    each object is checked before it is written. With ``allow_incomplete``, backups may lack objects that could not be
    read. The content of such an object then comes from the other backups and the base, or is zeros, and the VDI does
    not say that it equals the snapshot. Size, object size and redundancy are those of the manifest, unless
    ``chain_options`` or ``copies`` say otherwise. No other VDI is changed. All headers are judged before anything is
    written, unless they come from a pipe.

    After each ``checkpoint_bytes`` that were written, a ``journal`` notes how many objects are complete. By default it
    stands beside the first of the backups, if it can be written there, so never in an object store. After the first
    note an interruption leaves the VDI, tagged as unfinished, and calls ``on_kept``. With ``resume``, the restore goes
    on with the unfinished VDI of a restore of the same backups, if there is one. No journal is written unless manifests
    prove all data.

    With ``fillers`` other machines write the objects. This needs a ``snapshot``, because nothing but that keeps off a
    worker that was lost and wakes later (``engine/fill_job``), and files whose manifests prove all data. No journal is
    written, and an image is no base. If workers may still write after an error, the VDI stays, and LeftUnfinished says
    so.

    Raises VdiExists, and the other errors of ``asyncbackup.errors``. After an error or a cancellation before the first
    note, the new VDI is removed, or LeftUnfinished says why it is not.
    """
    started = time.monotonic()
    _refuse_unshareable(fillers, snapshot, base, keeps=resume or journal is not None)
    with single_error():
        async with (
            open_chain(backups, chain_options, assume_base=assume_base, allow_incomplete=allow_incomplete) as chain,
            _open_base(cluster, chain, base, assume_base=assume_base) as judged,
            AsyncExitStack() as stack,
        ):
            under, clone_of = judged.base, judged.snapshot
            shape = _shape(chain, clone_of.inode if clone_of else None, copies)
            assumed = all_assumed(chain.assumed, judged.assumed)
            entry = None if assumed is not None else await _entry(chain, to, shape, clone_of)
            if resume and entry is None:
                raise NotResumable(f"VDI '{to}'", "this needs backups in files, and manifests that prove all data")
            sharing = await _share(fillers, chain, backups, chain_options)
            keeping, place = None, journal
            if sharing is None and place is None and find_object(backups[0]) is None:
                place = journal_beside(backups[0], to)
            if resume and place is None:
                raise NotResumable(
                    f"VDI '{to}'", "no journal stands beside backups in an object store: name another place"
                )
            if entry is not None and place is not None:
                is_needed = resume or journal is not None
                keeping = await _open_keeping(JournalFile(place), stack, entry, checkpoint_bytes, is_needed=is_needed)
            left = await keeping.find(cluster) if resume and keeping is not None else None
            if left is None:
                await _check_name_is_free(cluster, to)
            if snapshot is not None:
                await check_tag_is_free(cluster, to, snapshot)
            await _check_copies(cluster, shape)
            options = _share_memory(sharing, options or WindowOptions(), shape)
            whole = await ZeroObjects().find_objects() if clone_of else await under.find_objects(on_progress)
            index = await _judge(chain, whole, on_progress)
            expected = None if index is None else index.with_whole(whole)
            meter = Meter(ReplayCounts(None if expected is None else len(expected)), on_progress)
            restoration = _Restoration(
                cluster,
                chain,
                index,
                under,
                clone_of,
                shape,
                whole,
                expected,
                options,
                meter,
                assumed,
                keeping,
                sharing,
            )
            try:
                new = await restoration.run(to, left)
            finally:
                if keeping is not None and keeping.is_kept and on_kept is not None:
                    on_kept()
            if snapshot is not None:
                await _take_snapshot(cluster, new, snapshot, restoration.origin, is_tagged_last=sharing is not None)
            return RestoreSummary(
                vdi=to,
                vdi_id=f"{new.inode.vdi_id:x}",
                size=new.inode.vdi_size,
                object_size=new.inode.object_size,
                copies=new.inode.nr_copies,
                copy_policy=new.inode.copy_policy,
                base=clone_of.name if clone_of else None,
                base_image=judged.image.name if judged.image else None,
                assumed=assumed,
                files=len(backups),
                checked=all(reader.subject is not None for reader in chain.readers),
                origin=None if restoration.origin is None else str(restoration.origin.identity),
                origin_missing=restoration.origin_missing,
                snapshot=snapshot,
                already_applied=False,
                objects_done=meter.counts.objects_done,
                objects_resumed=restoration.resumed,
                bytes_written=meter.counts.bytes_written,
                elapsed_s=time.monotonic() - started,
                missing=chain.missing,
                workers_lost=[] if sharing is None else await sharing.fillers.find_lost(),
            )


@asynccontextmanager
async def _open_base(
    cluster: Cluster, chain: Chain, base: BaseName | None, *, assume_base: bool
) -> AsyncIterator[Judged]:
    """Open the base. A snapshot keeps all its owners, also those that the backups cut off: its clone has them."""
    require_base(chain, base)
    if base is None:
        yield Judged(ZeroObjects(), None)
    elif isinstance(base, BaseSnapshot):
        if base.cluster is not cluster:
            raise ValueError("expected a base in the cluster that is restored to, got one in another")
        yield await open_snapshot_base(chain, base, assume_base=assume_base)
    else:
        async with open_base(chain, base, assume_base=assume_base) as judged:
            assert judged.image is not None
            judge_size(chain, judged.image)
            yield judged


async def _open_keeping(
    journal: JournalFile, stack: AsyncExitStack, entry: Restoring, interval: int, *, is_needed: bool
) -> VdiKeeping | None:
    """Open the journal. If it cannot be opened and is not needed, the restore does without it."""
    try:
        await stack.enter_async_context(journal)
    except (TargetBusy, TargetUnusable):
        if is_needed:
            raise
        return None
    return VdiKeeping(journal, entry, interval, is_needed)


async def _entry(chain: Chain, to: str, shape: Shape, clone_of: SnapshotObjects | None) -> Restoring | None:
    """Make the first entry of the journal; None: manifests do not determine every byte of the VDI."""
    if chain.is_piped or not all(reader.subject for reader in chain.readers):
        return None
    backups = tuple([await reader.identify() for reader in chain.readers])
    parent = clone_of.inode.vdi_id if clone_of else 0
    return Restoring(backups, to, 0, 0, parent, shape.size, shape.copies, shape.copy_policy, 0)


def _shape(chain: Chain, of_base: Inode | None, copies: int | None) -> Shape:
    """Decide what the new VDI is like. Raises ObjectSizesDiffer, VdiUnmakeable, HyperVolume."""
    object_size, subject = chain.object_size, chain.subject
    if of_base and of_base.object_size != object_size:
        raise ObjectSizesDiffer(chain.readers[0].name, object_size, str(of_base), of_base.object_size)
    if copies is not None:
        return Shape(chain.size, object_size, copies)
    if subject is not None:
        return Shape(chain.size, object_size, subject.copies, subject.copy_policy)
    if of_base is not None:
        return Shape(chain.size, object_size, of_base.nr_copies, of_base.copy_policy)
    return Shape(chain.size, object_size)


async def _check_name_is_free(cluster: Cluster, name: str) -> None:
    """Raise VdiExists, or UnfinishedExists; VdiUnmakeable if no VDI can have the name."""
    if not can_be_named(name):
        raise VdiUnmakeable("a name of 1 to 255 bytes without zeros", f"'{name}'")
    if await cluster.has_vdi(name):
        raise UnfinishedExists(name) if is_unfinished(await cluster.find_vdi(name)) else VdiExists(name)


async def _take_snapshot(
    cluster: Cluster, new: NewVdi, tag: str, origin: Origin | None, *, is_tagged_last: bool
) -> None:
    """Take a snapshot of the complete VDI. Raises SnapshotNotTaken. After a cancellation it may be taken or not."""
    try:
        await take_snapshot(cluster, new.inode, tag, origin, is_tagged_last=is_tagged_last)
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(f"VDI '{new.name}' is complete, but its snapshot '{tag}' may be missing")
        raise
    except AsyncBackupError as error:
        raise SnapshotNotTaken(new.name, tag, error) from error


def _refuse_unshareable(fillers: Fillers | None, snapshot: str | None, base: BaseName | None, *, keeps: bool) -> None:
    """Raise ValueError for what other machines cannot do."""
    if fillers is not None and (snapshot is None or keeps or isinstance(base, str | os.PathLike)):
        raise ValueError("expected a snapshot to take, no journal, and no image, because other machines do the work")


async def _share(
    fillers: Fillers | None, chain: Chain, backups: Sequence[str | os.PathLike[str]], options: ChainOptions | None
) -> _Sharing | None:
    """Check that the work can be shared out. Raises FileNeeded, ManifestMissing, and what ``Fillers.check`` raises."""
    if fillers is None:
        return None
    chain.require_files("for several machines")
    for reader in chain.readers:
        if reader.subject is None:
            raise ManifestMissing(reader.name)
    sharing = _Sharing(fillers, [os.fspath(path) for path in backups], options or ChainOptions())
    await fillers.check(sharing.backups, sharing.chain_options)
    return sharing


def _share_memory(sharing: _Sharing | None, options: WindowOptions, shape: Shape) -> WindowOptions:
    return options if sharing is None else share_memory(sharing.fillers, options, shape.object_size)


async def _check_copies(cluster: Cluster, shape: Shape) -> None:
    nodes = await cluster.count_nodes()
    if nodes is not None and shape.copies > nodes:
        raise RedundancyUnkeepable(shape.copies, shape.copy_policy, nodes)


async def _judge(chain: Chain, whole: Indices, on_progress: OnProgress | None) -> Index | None:
    """Read all headers, unless the chain has a pipe. So damage is found before anything is written.

    Raises OutsideVdi, also for one of the objects ``whole`` of the base, and BackupDamaged.
    """
    if len(whole):
        chain.position(int(whole[-1]))
    if chain.is_piped:
        return None
    index = await read_index(chain, on_progress)
    chain.position(index.last_idx)
    return index


@dataclass(frozen=True, slots=True)
class _Sharing:
    """Who writes the objects in place of this process, and what of."""

    fillers: Fillers
    backups: Sequence[str]
    chain_options: ChainOptions


@dataclass
class _Restoration:
    """One restore under way."""

    cluster: Cluster
    chain: Chain
    index: Index | None
    """None where the chain has a pipe."""
    under: ObjectSource
    clone_of: SnapshotObjects | None
    shape: Shape
    whole: Indices
    """The indices of the objects of the base that must be written, because the new VDI is no clone."""
    expected: Owners | None
    """The indices of all objects that will be written; None if they are not known."""
    options: WindowOptions
    meter: Meter
    assumed: str | None
    keeping: VdiKeeping | None = None
    sharing: _Sharing | None = None
    resumed: int = 0
    """Objects that an interrupted run wrote."""
    origin: Origin | None = None
    """The origin that was written into the VDI's attribute; None before that, or if it was not written."""
    origin_missing: str | None = None

    async def run(self, name: str, left: Inode | None = None) -> NewVdi:
        """Make the VDI, or go on with the unfinished VDI ``left``. After an error it is removed, unless it is kept."""
        made: list[NewVdi] = []
        keeping, behind = self.keeping, -1

        async def make() -> None:
            made.append(await self._create(name))
            await made[0].mark()
            await made[0].check_inherited()

        async def note(done: int) -> None:
            if keeping is not None:
                await keeping.advance(done, self.meter.counts.bytes_written)

        try:
            if left is None:
                await _undisturbed(make)
                if keeping is not None:
                    await keeping.begin(made[0].inode)
            else:
                assert keeping is not None
                behind = keeping.last_done
                made.append(await self._adopt(left, behind))
            if self.sharing is None:
                await fill(
                    made[0],
                    self.chain,
                    self.index,
                    Composer(self._base(), unknown=frozenset(self.chain.missing)),
                    self.options,
                    meter=self.meter,
                    whole=self.whole,
                    behind=behind,
                    on_done=note,
                )
                await self._write_origin(made[0])
                await made[0].publish()
            else:
                await self._share_out(self.sharing, made[0])
                await self._write_origin(made[0])
                # The tag goes when the snapshot is taken: before that, a worker that was lost could still write.
                await made[0].complete()
        except BaseException as failure:
            await self._leave(made, failure)
            raise
        if keeping is not None:
            await keeping.end()
        return made[0]

    async def _share_out(self, sharing: _Sharing, new: NewVdi) -> None:
        """Have others write all objects."""
        assert self.index is not None, "pipes were refused"
        nodes, parent = self.cluster.nodes, self._parent()
        job = FillJob(
            gateways=list(dict.fromkeys([(nodes.gateway.host, nodes.gateway.port), *nodes.gateways])),
            client_options=nodes.options.shared_by(sharing.fillers.at_once),
            options=self.options,
            backups=sharing.backups,
            digests=[await reader.identify() for reader in self.chain.readers],
            chain_options=sharing.chain_options,
            inode=new.inode,
            base=None if parent is None else parent.inode,
            beneath=NO_INDICES if parent is None else parent.owners[: parent.keep],
            columns=(),
        )
        await SharedFill(sharing.fillers, new, self.index, job, self.meter).run()

    async def _leave(self, made: list[NewVdi], failure: BaseException) -> None:
        """Keep the VDI if another run can go on with it. Otherwise remove it, if it was ``made``."""
        keeping = self.keeping
        if keeping is not None and keeping.is_kept and not isinstance(first_error(failure), ChangedMeanwhile):
            await _undisturbed(keeping.leave, _LEAVING_S)
            return
        # Both steps are completed. If they are cancelled, they raise that only after their end.
        try:
            if made:
                await _remove(made[0], self.cluster, failure, None if self.sharing is None else self.sharing.fillers)
        except LeftUnfinished:
            raise
        except BaseException:
            await self._end_journal()
            raise
        await self._end_journal()

    async def _end_journal(self) -> None:
        if self.keeping is not None:
            await _undisturbed(self.keeping.end, _LEAVING_S)

    async def _adopt(self, left: Inode, done: int) -> NewVdi:
        """Take over the unfinished VDI that an interrupted run left."""
        assert self.expected is not None, "only what is read from files is kept"
        self.resumed = int((self.expected <= done).sum())
        self.meter.counts.objects_planned = len(self.expected) - self.resumed
        return await NewVdi.adopt(self.cluster, left, self.shape, self._parent(), expected=self.expected, done=done)

    async def _create(self, name: str) -> NewVdi:
        return await NewVdi.create(self.cluster, name, self.shape, self._parent(), self.expected)

    def _parent(self) -> Parent | None:
        if self.clone_of is None:
            return None
        return Parent(self.clone_of.inode, self.clone_of.owners, self.chain.spans())

    def _base(self) -> ObjectSource:
        if self.clone_of is None:
            return self.under
        return self.clone_of.first(self.chain.spans())

    async def _write_origin(self, new: NewVdi) -> None:
        """Write the origin, before the tag is removed. If the cluster refuses it, note why it is missing."""
        if self.chain.missing:
            self.origin_missing = "the backups lack some of its objects"
            return
        origin = origin_of(self.chain, new.inode, assumed=self.assumed is not None)
        if origin is None:
            self.origin_missing = f"no manifest says which snapshot of {new.inode.vdi_size} bytes it is"
            return
        try:
            await write_origin(self.cluster, new.inode, origin)
        except RequestFailed as error:
            self.origin_missing = str(error)
        else:
            self.origin = origin


async def _undisturbed(function: Callable[[], Awaitable[None]], timeout_s: float = math.inf) -> bool:
    """Run ``function`` even if this task is cancelled meanwhile. Give False if it did not end within ``timeout_s``."""
    scope = anyio.CancelScope(shield=True, deadline=anyio.current_time() + timeout_s)

    async def run() -> None:
        with scope:
            await function()

    # It needs a task of its own: a shield does not stop a cancellation by plain asyncio.
    async with anyio.create_task_group() as group:
        group.start_soon(run)
    return not scope.cancelled_caught


async def _refuse_while_written(fillers: Fillers, vdi: str, failure: BaseException) -> None:
    """Raise LeftUnfinished if others may still write into the VDI: another one may get its id after its removal."""
    have_ended, lost = await fillers.have_ended(), await fillers.find_lost()
    if lost or not have_ended:
        who = f"lost were {', '.join(lost)}" if lost else "not all of them answer"
        why = f"workers may still write into it ({who}): end them before you remove it"
        raise LeftUnfinished(vdi, f"{_TAGGED}, is left behind", _cause(failure), why) from first_error(failure)


async def _remove(new: NewVdi, cluster: Cluster, failure: BaseException, fillers: Fillers | None) -> None:
    """Remove ``new`` because of ``failure``. Raises LeftUnfinished if that cannot be done."""

    async def remove() -> None:
        if fillers is not None:
            await _refuse_while_written(fillers, new.name, failure)
        # The server may still hold requests that were given up. Then the old connections have no room for others.
        async with cluster.connected_anew() as fresh:
            await new.remove(fresh)

    try:
        with single_error():
            if await _undisturbed(remove, _REMOVAL_S):
                return
        reason = f"it took longer than {_REMOVAL_S:g} s"
    except LeftUnfinished:
        raise
    except AsyncBackupError as error:
        reason = str(error)
    why = f"removing it failed ({reason})"
    if not new.is_marked:
        raise PerhapsCreated(new.name, _cause(failure), why) from first_error(failure)
    raise LeftUnfinished(new.name, f"{_TAGGED}, may be left behind", _cause(failure), why) from first_error(failure)


def _cause(failure: BaseException) -> str:
    first = first_error(failure)
    return "the restore was stopped" if isinstance(first, asyncio.CancelledError) else str(first)
