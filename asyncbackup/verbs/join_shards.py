"""Completes a VDI of which all shards are restored."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from asyncbackup.client import Cluster
from asyncbackup.client.construction import UNFINISHED_TAG, is_unfinished, may_be_new
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.design import Claim, Design, check_name, open_design
from asyncbackup.engine.lineage import (
    check_tag_is_free,
    find_snapshot_below,
    origin_of,
    read_origin,
    write_origin,
)
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.engine.removal import refuse_discarded
from asyncbackup.engine.shards import (
    check_receipts,
    describe,
    forget_shards,
    read_receipts,
    read_shards,
    refuse_other,
    write_shards,
)
from asyncbackup.errors import (
    ChangedMeanwhile,
    NotFound,
    ShardMissing,
    UnfinishedExists,
    VdiExists,
    VdiNotFound,
    single_error,
)
from asyncbackup.format.shards import Receipt, Shards
from asyncbackup.verbs.restore import RestoreSummary
from asyncbackup.wire.inode import Inode


async def join_shards(
    cluster: Cluster,
    backups: Sequence[str | os.PathLike[str]],
    to: str,
    count: int,
    snapshot: str,
    *,
    base: BaseSnapshot | None = None,
    copies: int | None = None,
    assume_base: bool = False,
    allow_incomplete: bool = False,
    chain_options: ChainOptions | None = None,
) -> RestoreSummary:
    """Complete VDI ``to``, of which ``restore_shard`` wrote all ``count`` shards with the same arguments.

    It writes which snapshot the VDI equals, and takes a ``snapshot`` of it, which keeps off what a run sends late that
    was only thought dead. After an error or a cancellation it can be repeated, and then completes what is missing.

    Raises ShardMissing if not all shards are complete, SharedOtherwise if the VDI is made of something else, VdiExists
    if it is not made in shards, SnapshotExists, and the errors of ``restore`` about backups and base.
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
            joining = _Joining(cluster, design, to, count, snapshot)
            inode, shards = await joining.find()
            receipts: list[Receipt] = []
            if shards is None:
                claim = Claim(await read_origin(cluster, inode), None)
            elif inode.is_snapshot:
                claim = await joining.finish(inode, shards)
            else:
                receipts = check_receipts(inode, await read_receipts(cluster, inode, shards))
                claim = await joining.complete(inode, shards)
            return RestoreSummary(
                vdi=to,
                vdi_id=f"{inode.vdi_id:x}",
                size=inode.vdi_size,
                object_size=inode.object_size,
                copies=inode.nr_copies,
                copy_policy=inode.copy_policy,
                base=design.clone_of.name if design.clone_of else None,
                base_image=None,
                assumed=design.assumed,
                files=len(backups),
                checked=True,
                origin=None if claim.origin is None else str(claim.origin.identity),
                origin_missing=claim.missing,
                snapshot=snapshot,
                already_applied=shards is None,
                objects_done=sum(receipt.objects for receipt in receipts),
                objects_resumed=0,
                bytes_written=sum(receipt.bytes_written for receipt in receipts),
                elapsed_s=time.monotonic() - started,
                missing=design.chain.missing,
            )


@dataclass(frozen=True, slots=True)
class _Joining:
    """One VDI whose shards are joined."""

    cluster: Cluster
    design: Design
    name: str
    count: int
    tag: str

    async def find(self) -> tuple[Inode, Shards | None]:
        """Find the VDI, or the snapshot that became of it in a run that was interrupted; None: nothing is left to do.

        Raises ShardMissing, SharedOtherwise, VdiExists.
        """
        try:
            return await self._find()
        except VdiNotFound as error:
            raise self._nothing() from error

    async def _find(self) -> tuple[Inode, Shards | None]:
        working = await self.cluster.find_vdi(self.name)
        candidates = [working] if is_unfinished(working) else await self._find_snapshots(working)
        for inode in candidates:
            shards = await read_shards(self.cluster, inode)
            if shards is not None:
                refuse_other(self.name, shards, await describe(self.design, inode, self.count))
                if not shards.is_named:
                    raise self._nothing()
                return inode, shards
            if inode.is_snapshot and await self._is_joined(inode):
                return inode, None
        if may_be_new(working):
            raise self._nothing()
        raise UnfinishedExists(self.name) if is_unfinished(working) else VdiExists(self.name)

    def _nothing(self) -> ShardMissing:
        return ShardMissing(self.name, range(1, self.count + 1), self.count)

    async def _find_snapshots(self, working: Inode) -> list[Inode]:
        """Find the snapshots that a run may have taken, with its tag or just before it wrote that."""
        found = []
        below = await find_snapshot_below(self.cluster, working)
        if below is not None and (below.name, below.tag) == (self.name, UNFINISHED_TAG):
            found.append(below)
        with suppress(NotFound):
            found.append(await self.cluster.find_vdi(self.name, self.tag))
        return found

    async def _is_joined(self, inode: Inode) -> bool:
        """Tell whether a snapshot says that it is what these backups make."""
        wanted = origin_of(self.design.chain, inode, assumed=self.design.assumed is not None)
        return wanted is not None and await read_origin(self.cluster, inode) == wanted.of_snapshot(inode.snap_ctime)

    async def complete(self, inode: Inode, shards: Shards) -> Claim:
        """Take the snapshot, of a VDI whose shards are all written."""
        await check_tag_is_free(self.cluster, self.name, self.tag)
        await write_shards(self.cluster, inode, replace(shards, is_written=True))
        found = await self.cluster.read_inode(inode.vdi_id)
        if not is_unfinished(found) or found.name != self.name:
            raise ChangedMeanwhile(f"VDI '{self.name}'", "it is not the unfinished restore that was found")
        # The tag goes when the snapshot is taken: before that, a run that was thought dead could still write.
        taken = await self.cluster.create_snapshot(self.name, UNFINISHED_TAG, vdi_id=inode.vdi_id, is_tagged_last=True)
        await refuse_discarded(self.cluster, taken)
        return await self.finish(taken, replace(shards, is_written=True))

    async def finish(self, taken: Inode, shards: Shards) -> Claim:
        """Do what is missing after the snapshot was ``taken``. Raises ChangedMeanwhile if that was too early."""
        if not shards.is_written:
            raise ChangedMeanwhile(f"VDI '{self.name}'", "it became a snapshot before all shards were written")
        if taken.tag != self.tag:
            await check_tag_is_free(self.cluster, self.name, self.tag)
            await self.cluster.write_tag(taken, self.tag)
        claim = await self.design.claim_origin(self.cluster, taken)
        if claim.origin is not None:
            await write_origin(self.cluster, taken, claim.origin.of_snapshot(taken.snap_ctime))
        await forget_shards(self.cluster, taken, shards)
        return claim
