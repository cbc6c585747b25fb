"""Restores a chain of backups as a new VDI in a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final

from asyncbackup.cancellation import undisturbed
from asyncbackup.client import Cluster
from asyncbackup.client.construction import NewVdi
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.design import (
    Claim,
    Design,
    check_copies,
    check_name_is_free,
    open_design,
    take_final_snapshot,
)
from asyncbackup.engine.fill_shares import Fillers, Sharing, refuse_unshareable
from asyncbackup.engine.filling import fill
from asyncbackup.engine.index import Index
from asyncbackup.engine.keeping import CHECKPOINT_BYTES
from asyncbackup.engine.lineage import check_tag_is_free
from asyncbackup.engine.opening import (
    BaseName,
)
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.removal import refuse_discarded, remove_failed
from asyncbackup.engine.replay import Meter
from asyncbackup.engine.source import Indices
from asyncbackup.engine.vdi_keeping import VdiKeeping
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import (
    ChangedMeanwhile,
    LeftUnfinished,
    NotResumable,
    TargetBusy,
    TargetUnusable,
    first_error,
    single_error,
)
from asyncbackup.format.restoring import Restoring
from asyncbackup.storage.journal import JournalFile, journal_beside
from asyncbackup.storage.location import find_object
from asyncbackup.wire.inode import Inode, Owners

_LEAVING_S: Final = 10.0
"""Seconds that a failed restore waits for its journal."""


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
    refuse_unshareable(fillers, snapshot, base, keeps=resume or journal is not None)
    with single_error():
        async with (
            open_design(
                cluster,
                backups,
                base,
                copies=copies,
                assume_base=assume_base,
                allow_incomplete=allow_incomplete,
                chain_options=chain_options,
            ) as design,
            AsyncExitStack() as stack,
        ):
            entry = await _entry(design, to)
            if resume and entry is None:
                raise NotResumable(f"VDI '{to}'", "this needs backups in files, and manifests that prove all data")
            sharing = None if fillers is None else await Sharing.begin(fillers, design, backups, chain_options)
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
                await check_name_is_free(cluster, to)
            if snapshot is not None:
                await check_tag_is_free(cluster, to, snapshot)
            await check_copies(cluster, design.shape)
            options = options or WindowOptions()
            if sharing is not None:
                options = sharing.share_memory(options, design.shape)
            whole = await design.find_whole(on_progress)
            index = await design.read_index(whole, on_progress)
            expected = None if index is None else index.with_whole(whole)
            meter = Meter(ReplayCounts(None if expected is None else len(expected)), on_progress)
            restoration = _Restoration(cluster, design, index, whole, expected, options, meter, keeping, sharing)
            try:
                new = await restoration.run(to, left)
            finally:
                if keeping is not None and keeping.is_kept and on_kept is not None:
                    on_kept()
            if snapshot is not None:
                origin = restoration.claim.origin
                is_shared = sharing is not None
                await take_final_snapshot(cluster, new.inode, snapshot, origin, is_tagged_last=is_shared)
            return RestoreSummary(
                vdi=to,
                vdi_id=f"{new.inode.vdi_id:x}",
                size=new.inode.vdi_size,
                object_size=new.inode.object_size,
                copies=new.inode.nr_copies,
                copy_policy=new.inode.copy_policy,
                base=design.clone_of.name if design.clone_of else None,
                base_image=design.judged.image.name if design.judged.image else None,
                assumed=design.assumed,
                files=len(backups),
                checked=design.is_proved,
                origin=None if restoration.claim.origin is None else str(restoration.claim.origin.identity),
                origin_missing=restoration.claim.missing,
                snapshot=snapshot,
                already_applied=False,
                objects_done=meter.counts.objects_done,
                objects_resumed=restoration.resumed,
                bytes_written=meter.counts.bytes_written,
                elapsed_s=time.monotonic() - started,
                missing=design.chain.missing,
                workers_lost=[] if sharing is None else await sharing.fillers.find_lost(),
            )


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


async def _entry(design: Design, to: str) -> Restoring | None:
    """Make the first entry of the journal; None: manifests do not determine every byte of the VDI."""
    if design.assumed is not None or design.chain.is_piped or not design.is_proved:
        return None
    shape, parent = design.shape, design.clone_of.inode.vdi_id if design.clone_of else 0
    return Restoring(await design.identify(), to, 0, 0, parent, shape.size, shape.copies, shape.copy_policy, 0)


@dataclass
class _Restoration:
    """One restore under way."""

    cluster: Cluster
    design: Design
    index: Index | None
    """None where the chain has a pipe."""
    whole: Indices
    """The indices of the objects of the base that must be written, because the new VDI is no clone."""
    expected: Owners | None
    """The indices of all objects that will be written; None if they are not known."""
    options: WindowOptions
    meter: Meter
    keeping: VdiKeeping | None = None
    sharing: Sharing | None = None
    resumed: int = 0
    """Objects that an interrupted run wrote."""
    claim: Claim = field(default=Claim(None, None), init=False)
    """What the VDI says that it equals, at the end."""

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
                await undisturbed(make)
                if keeping is not None:
                    await keeping.begin(made[0].inode)
            else:
                assert keeping is not None
                behind = keeping.last_done
                made.append(await self._adopt(left, behind))
            if self.sharing is None:
                await fill(
                    made[0],
                    self.design.chain,
                    self.index,
                    Composer(self.design.under, unknown=frozenset(self.design.chain.missing)),
                    self.options,
                    meter=self.meter,
                    whole=self.whole,
                    behind=behind,
                    on_done=note,
                )
                self.claim = await self.design.claim_origin(self.cluster, made[0].inode)
                await made[0].publish()
                await refuse_discarded(self.cluster, made[0].inode)
            else:
                assert self.index is not None, "pipes were refused"
                await self.sharing.fill(
                    self.cluster, made[0], self.design, self.index, options=self.options, meter=self.meter
                )
                self.claim = await self.design.claim_origin(self.cluster, made[0].inode)
                # The tag goes when the snapshot is taken: before that, a worker that was lost could still write.
                await made[0].complete()
        except BaseException as failure:
            await self._leave(made, failure)
            raise
        if keeping is not None:
            await keeping.end()
        return made[0]

    async def _leave(self, made: list[NewVdi], failure: BaseException) -> None:
        """Keep the VDI if another run can go on with it. Otherwise remove it, if it was ``made``."""
        keeping = self.keeping
        if keeping is not None and keeping.is_kept and not isinstance(first_error(failure), ChangedMeanwhile):
            await undisturbed(keeping.leave, _LEAVING_S)
            return
        # Both steps are completed. If they are cancelled, they raise that only after their end.
        try:
            if made:
                await remove_failed(made[0], self.cluster, failure, self._before_removal(made[0].name, failure))
        except LeftUnfinished:
            raise
        except BaseException:
            await self._end_journal()
            raise
        await self._end_journal()

    def _before_removal(self, vdi: str, failure: BaseException) -> Callable[[], Awaitable[None]] | None:
        return None if self.sharing is None else partial(self.sharing.refuse_while_written, vdi, failure)

    async def _end_journal(self) -> None:
        if self.keeping is not None:
            await undisturbed(self.keeping.end, _LEAVING_S)

    async def _adopt(self, left: Inode, done: int) -> NewVdi:
        """Take over the unfinished VDI that an interrupted run left."""
        assert self.expected is not None, "only what is read from files is kept"
        self.resumed = int((self.expected <= done).sum())
        self.meter.counts.objects_planned = len(self.expected) - self.resumed
        design = self.design
        return await NewVdi.adopt(self.cluster, left, design.shape, design.parent, expected=self.expected, done=done)

    async def _create(self, name: str) -> NewVdi:
        return await NewVdi.create(self.cluster, name, self.design.shape, self.design.parent, self.expected)
