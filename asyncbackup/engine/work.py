"""What a backup has to compare: the inodes of two sides or more, and the plan that follows from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Final

import numpy as np

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.engine.cut import Shard, take_share
from asyncbackup.engine.lineage import refuse_half_applied
from asyncbackup.engine.plan import Pair, Plan, count_owned, plan_difference, plan_full
from asyncbackup.engine.resumption import Resumption
from asyncbackup.engine.source import SnapshotObjects, open_snapshots
from asyncbackup.errors import HyperVolume, ObjectSizesDiffer, SnapshotChanged
from asyncbackup.format.piece import PieceRange
from asyncbackup.format.record import END_IDX
from asyncbackup.wire.inode import Inode


async def find_inodes(
    cluster: Cluster, vdi: str, snapshot: Snapshot | None, bases: Sequence[Snapshot | None]
) -> tuple[Inode, list[Inode | None]]:
    """Find a snapshot, or the working VDI, and its bases; None stands for no base.

    Raises VdiNotFound, SnapshotNotFound, HalfApplied, HyperVolume, ObjectSizesDiffer, and the errors of the cluster.
    """
    to_inode = await cluster.find_vdi(vdi, snapshot)
    await refuse_half_applied(cluster, to_inode)
    found = [None if base is None else await cluster.find_vdi(vdi, base) for base in bases]
    for base in filter(None, found):
        if to_inode.is_hyper or base.is_hyper:
            raise HyperVolume(f"VDI '{vdi}'", "takes only a full backup")
        if to_inode.object_size != base.object_size:
            raise ObjectSizesDiffer(str(to_inode), to_inode.object_size, str(base), base.object_size)
    return to_inode, found


_NO_OWNERS: Final = np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to compare."""

    pairs: AsyncGenerator[Pair, None]
    planned: int
    """How many pairs."""
    shared: int = 0
    """Objects that all sides share, so that they are equal and are not read."""
    sides: Sequence[SnapshotObjects] = ()
    """The snapshots that are compared."""
    plan: Plan | None = None
    """The same as the pairs; None for a hyper volume, whose plan does not fit into memory."""


async def plan_work(cluster: Cluster, to_inode: Inode, base_inodes: Sequence[Inode | None]) -> Work:
    """Compare who owns the objects of a VDI or snapshot, and of each of its bases. Raises HyperVolume, InodeCorrupt."""
    if to_inode.object_count > END_IDX:
        raise HyperVolume(
            f"VDI '{to_inode.name}'", f"has {to_inode.object_count} objects, more than a backup can number"
        )
    if to_inode.is_hyper:
        # We go through the tree twice, to count and to read, because a large one does not fit into memory.
        count = await _count_owned(cluster, to_inode)
        pairs = _owned(cluster, to_inode, len(base_inodes))
        return Work(pairs, count, sides=[SnapshotObjects(cluster, to_inode, _NO_OWNERS)])
    inodes = [to_inode, *filter(None, base_inodes)]
    sides = await open_snapshots(cluster, inodes, to_inode.object_count)
    to, bases = sides[0], iter(sides[1:])
    plan = plan_sides(to, *(None if inode is None else next(bases) for inode in base_inodes))
    shared = count_owned(*(side.owners for side in sides)) - len(plan)
    return Work(_each(plan), len(plan), shared, list(dict.fromkeys(sides)), plan)


async def take_share_of(work: Work, vdi: str, shard: Shard) -> tuple[Work, PieceRange]:
    """Leave one share of the work, and say which range that is. Raises HyperVolume."""
    if work.plan is None:
        raise HyperVolume(f"VDI '{vdi}'", "is not backed up in pieces")
    plan, piece = take_share(work.plan, shard, len(work.sides[0].owners))
    await work.pairs.aclose()
    owned = count_owned(*(side.owners[piece.first : piece.end] for side in work.sides))
    share = with_fields(work, pairs=_each(plan), planned=len(plan), shared=owned - len(plan), plan=plan)
    return share, piece


async def leave_out_done(work: Work, found: Sequence[Resumption | None]) -> Work:
    """Leave out what interrupted runs went through. Raises SnapshotChanged."""
    done = [-1 if each is None else each.checkpoint.last_idx for each in found]
    if max(done) < 0:
        return work
    if work.plan is None:
        least = min(0 if each is None else len(each.indices) + len(each.missing) for each in found)
        return with_fields(work, pairs=_behind(work.pairs, done), planned=work.planned - least)
    await work.pairs.aclose()
    for base, each in enumerate(found):
        indices = np.array([] if each is None else each.indices, np.uint32)
        if gone := int(np.count_nonzero(~np.isin(indices, work.plan.differing_from(base)))):
            raise SnapshotChanged(work.sides[0].name, f"{gone} of its objects, which were backed up before, are gone")
    plan = work.plan.behind(done)
    return with_fields(work, pairs=_each(plan), planned=len(plan), plan=plan)


async def _behind(pairs: AsyncGenerator[Pair, None], done: Sequence[int]) -> AsyncGenerator[Pair, None]:
    """Leave out what is done for all bases: objects up to an index for each."""
    async with aclosing(pairs):
        async for pair in pairs:
            owners = [
                pair.to_owner if pair.idx <= last else owner for owner, last in zip(pair.base_owners, done, strict=True)
            ]
            if any(owner != pair.to_owner for owner in owners):
                yield pair._replace(base_owners=tuple(owners))


def plan_sides(to: SnapshotObjects, *bases: SnapshotObjects | None) -> Plan:
    """Compare the owner tables of a snapshot and its bases; None, or none at all, stands for zeros."""
    zeros = np.zeros(len(to.owners), np.uint32)
    return plan_difference(to.owners, *(zeros if base is None else base.owners for base in bases or [None]))


async def _owned(cluster: Cluster, inode: Inode, bases: int) -> AsyncGenerator[Pair, None]:
    async with aclosing(cluster.read_btree(inode)) as leaves:
        async for indices, owners in leaves:
            for pair in plan_full(indices, owners):
                yield pair._replace(base_owners=(0,) * bases)


async def _count_owned(cluster: Cluster, inode: Inode) -> int:
    async with aclosing(cluster.read_btree(inode)) as leaves:
        return sum([len(plan_full(indices, owners)) async for indices, owners in leaves])


async def _each(pairs: Iterable[Pair]) -> AsyncGenerator[Pair, None]:
    for pair in pairs:
        yield pair
