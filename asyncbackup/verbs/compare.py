"""Compares a chain of backups with a snapshot or a VDI in a cluster."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

import anyio
import numpy as np
from anyio import to_thread

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.engine.base import Wanted, all_assumed, judge_compared
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compact import trim
from asyncbackup.engine.cut import Shard, Share, find_share
from asyncbackup.engine.index import ChainObjects, Index, read_index
from asyncbackup.engine.lineage import examine_vdi
from asyncbackup.engine.portion import Portion, cut
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.engine.replicas import ReplicaComparison, ReplicaReport
from asyncbackup.engine.source import (
    NO_INDICES,
    Indices,
    ObjectSource,
    SnapshotObjects,
    ZeroObjects,
    open_snapshots,
    staying,
)
from asyncbackup.engine.window import Slot, Window, WindowOptions
from asyncbackup.errors import (
    Fact,
    FactMissing,
    HyperVolume,
    NotFound,
    ObjectSizesDiffer,
    SampleNeedsBase,
    SnapshotNotFound,
    single_error,
)
from asyncbackup.wire.constants import MAX_DENSE_OBJECTS
from asyncbackup.wire.inode import Inode, Owners

MAX_DIFFERENCES: Final = 1000
"""Objects that a comparison names. All others are only counted, so that memory is bounded."""


@dataclass(slots=True)
class Comparison:
    """What was compared, and what differs. Sizes in bytes."""

    vdi: str
    snapshot: str | None
    """The tag or the id of the snapshot that the backups were compared with. None: it was the working VDI."""
    assumed: str | None = None
    """What was assumed because the caller vouched for it. None: nothing was assumed."""
    objects_planned: int = 0
    """Objects that have records in the backups, and other objects that are audited."""
    objects_done: int = 0
    bytes_compared: int = 0
    differing: int = 0
    """Objects that differ."""
    differing_idx: list[int] = field(default_factory=list)
    """The indices of the first objects that differ."""
    unchanged: int = 0
    """With a sample: objects without a record that have another owner than in the base."""
    unchanged_audited: int = 0
    partly_changed: int = 0
    """With a sample: objects whose records do not cover all bytes."""
    partly_changed_audited: int = 0
    shared: int = 0
    """With a sample: objects that are those of the base. They are equal, so they are not read."""
    seed: int | None = None
    """The seed of the sample. With the same seed, the same objects are chosen again."""
    replicas: ReplicaReport | None = None
    """What was found when every replica of the objects was read; None: the replicas were not read."""

    @property
    def is_good(self) -> bool:
        return not self.differing and (self.replicas is None or not self.replicas.diverging)

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        values = asdict(replace(self, replicas=None)) | {"replicas": self.replicas and self.replicas.as_dict()}
        return {"good": self.is_good} | values


async def compare(
    cluster: Cluster,
    backups: Sequence[str | os.PathLike[str]],
    vdi: str,
    snapshot: Snapshot | None = None,
    *,
    assume_base: bool = False,
    sample: float | None = None,
    seed: int | None = None,
    all_replicas: bool = False,
    shard: Shard | None = None,
    chain_options: ChainOptions | None = None,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Compare the records of ``backups``, oldest first, with ``snapshot`` of ``vdi``.

    By default ``snapshot`` is the one that was backed up or, if ``vdi`` is another VDI, its working VDI. It must have
    the identity that the newest manifest names. ``assume_base`` vouches for another VDI, for example one that was
    restored. Objects that the backups lack, because they could not be read, are not compared.

    Only the ranges of the records are read. With a ``sample``, from 0 to 1, this also audits objects that should be as
    in the base, and objects whose records do not cover all bytes: that part of each kind, and at least one. It chooses
    them at random, by ``seed`` if that is given. An object with the same owner in both snapshots is not read. The base
    must be in the VDI that was backed up.

    With ``all_replicas``, every replica of these objects is read from the node that holds it, and compared with the
    other replicas. Raises PlacementUnknown if it is not known which nodes these are. A replica that is missing, or that
    its node cannot read, is not an error, but is reported.

    With ``shard``, only one share of these objects is compared. All shares together are all objects. They need the same
    ``seed`` for a sample.

    Raises WrongSnapshot, SampleNeedsBase, another Incompatible, NotFound, and the errors of backups and cluster.
    Differences are no errors. The digests of manifests are not compared: ``verify`` does that. Raises ValueError for a
    ``seed`` without a ``sample``, and for a share of a ``sample`` without a ``seed``.
    """
    if seed is not None and sample is None:
        raise ValueError("expected a sample where there is a seed")
    if shard is not None and sample is not None and seed is None:
        raise ValueError("expected a seed, which all shares of a sample have in common")
    with single_error():
        async with open_chain(backups, chain_options, assume_base=assume_base, allow_incomplete=True) as chain:
            chain.require_files("to be compared")
            inode = await _find(cluster, chain, vdi, snapshot, assume_base=assume_base)
            found = Comparison(vdi, None if not inode.is_snapshot else inode.tag or str(inode.snap_id))
            wanted = _wanted(chain)
            candidate = await examine_vdi(cluster, inode, wanted.identity)
            found.assumed = all_assumed(chain.assumed, judge_compared(wanted, candidate, assume_base=assume_base))
            here = await _open_snapshot(cluster, chain, inode)
            base, base_owners = (None, NO_INDICES) if sample is None else await _open_base(cluster, chain)
            index = await _read_index(chain)
            chosen = NO_INDICES
            if sample is not None:
                found.seed = secrets.randbits(32) if seed is None else seed
                chosen = _choose(index, here.owners, base_owners, sample, found)
            if shard is not None:
                share = find_share(index.indices, index.lengths(), shard, MAX_DENSE_OBJECTS)
                index, chosen = _cut(index, chosen, share, found)
            found.objects_planned = len(index.indices) + found.unchanged_audited
            ours, options = ChainObjects(index, base), options or WindowOptions()
            async with staying(here, base):
                await _SourceComparison(index, ours, here, chosen, options, found, on_progress).run()
                if all_replicas:
                    found.replicas = ReplicaReport()
                    indices = np.union1d(index.indices, chosen).tolist()
                    await ReplicaComparison(cluster, here, options, found.replicas).run(indices)
            return found


async def _open_snapshot(cluster: Cluster, chain: Chain, inode: Inode) -> SnapshotObjects:
    if inode.is_hyper:
        raise HyperVolume(f"VDI '{inode.name}'", "cannot be compared")
    if inode.object_size != chain.object_size:
        raise ObjectSizesDiffer(chain.readers[-1].name, chain.object_size, str(inode), inode.object_size)
    [opened] = await open_snapshots(cluster, [inode])
    return opened


def _wanted(chain: Chain) -> Wanted:
    """Give the identity and the size of the newest snapshot of the chain, by its manifest."""
    newest = chain.readers[-1]
    return Wanted(
        newest.name, newest.subject.identity if newest.subject else None, chain.size if newest.subject else None
    )


async def _find(cluster: Cluster, chain: Chain, vdi: str, snapshot: Snapshot | None, *, assume_base: bool) -> Inode:
    """Find what to compare with: the snapshot that is named, or the one that was backed up if it is of ``vdi``."""
    identity = _wanted(chain).identity
    if snapshot is None and identity is not None and identity.vdi == vdi and identity.created is not None:
        try:
            return await cluster.find_vdi(vdi, identity.id)
        except SnapshotNotFound:
            # A VDI that was restored under its old name does not have the snapshot.
            if not assume_base:
                raise
    return await cluster.find_vdi(vdi, snapshot)


async def _open_base(cluster: Cluster, chain: Chain) -> tuple[ObjectSource, Owners]:
    """Open the snapshot that the first file is the difference to, and give its owners, too.

    Raises SampleNeedsBase, FactMissing.
    """
    if chain.is_full is None:
        raise FactMissing(Fact.BASE)
    if chain.base is None:
        return ZeroObjects(), NO_INDICES
    try:
        inode = await cluster.find_vdi(chain.base.vdi, chain.base.id)
    except NotFound as error:
        raise SampleNeedsBase(chain.readers[0].name, chain.base) from error
    if not (await cluster.identify(inode)).matches(chain.base):
        raise SampleNeedsBase(chain.readers[0].name, chain.base)
    base = (await _open_snapshot(cluster, chain, inode)).first(chain.spans())
    return base, base.owners


async def _read_index(chain: Chain) -> Index:
    """Read all headers. Raises HyperVolume for an object that no other VDI can have."""
    index = await read_index(chain)
    beyond = index.indices[index.indices >= MAX_DENSE_OBJECTS]
    if len(beyond):
        raise HyperVolume(f"the VDI of {chain.readers[-1].name}", f"has object {beyond[0]} and cannot be compared")
    return index


def _choose(index: Index, owners: Owners, base_owners: Owners, sample: float, found: Comparison) -> Indices:
    """Choose the objects to audit, and note in ``found`` how many there are."""
    count = len(owners)
    under = np.zeros(count, np.uint32)
    under[: len(base_owners)] = base_owners[:count]
    recorded = np.zeros(count, np.bool_)
    recorded[index.indices[index.indices < count]] = True
    # An object that could not be read has no record, but need not be as in the base.
    recorded[[idx for idx in index.chain.missing if idx < count]] = True
    unchanged = np.flatnonzero((owners != under) & ~recorded)
    partly = index.partly_covered()
    partly = partly[partly < count]
    generator = np.random.default_rng(found.seed)
    chosen = [
        generator.choice(population, math.ceil(sample * len(population)), replace=False)
        for population in (unchanged, partly)
    ]
    found.unchanged, found.partly_changed = len(unchanged), len(partly)
    found.unchanged_audited, found.partly_changed_audited = map(len, chosen)
    found.shared = int(np.count_nonzero((owners == under) & (owners != 0) & ~recorded))
    return np.sort(np.concatenate(chosen)).astype(np.uint32)


def _cut(index: Index, chosen: Indices, share: Share, found: Comparison) -> tuple[Index, Indices]:
    """Leave one share of what is to be compared, and note in ``found`` how many objects of it are audited."""
    index = index.within(share.first, share.end)
    chosen = chosen[(chosen >= share.first) & (chosen < share.end)]
    found.partly_changed_audited = int(np.count_nonzero(np.isin(chosen, index.indices)))
    found.unchanged_audited = len(chosen) - found.partly_changed_audited
    return index, chosen


class _Item(NamedTuple):
    """A portion of an object to compare."""

    idx: int
    portion: Portion
    is_last: bool
    """Whether no other portion of the object follows."""


class _Compared(NamedTuple):
    """A portion that was compared, and whether it is the same on both sides."""

    item: _Item
    same: bool


@dataclass(slots=True)
class _SourceComparison:
    """Compares two object sources: where the chain of ``index`` has records, and all of the ``chosen`` objects."""

    index: Index
    ours: ObjectSource
    theirs: ObjectSource
    chosen: Indices
    options: WindowOptions
    found: Comparison
    on_progress: OnProgress | None
    last_differing: int = -1
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(os.cpu_count() or 1))

    async def run(self) -> None:
        """Compare all objects, and note in ``found`` which ones differ."""
        size = self.options.portion_size(self.index.chain.object_size)
        window = Window(self.options.slots(size), [size] * 2, self._compare, self._deliver)
        async with aclosing(self._items(size)) as items:
            await window.run(items)

    async def _items(self, size: int) -> AsyncGenerator[_Item, None]:
        for group in self.index.groups_undigested(self.chosen):
            ranges = group.wanted(0, self.index.chain.object_size)
            for start, end in ranges:
                for portion in cut(start, end, size):
                    yield _Item(group.idx, portion, portion.end == ranges[-1][1])

    async def _compare(self, item: _Item, slot: Slot) -> _Compared:
        idx, portion, _ = item
        ours, theirs = (buffer[: portion.length] for buffer in slot.buffers)
        await self.ours.read(idx, portion.offset, ours)
        await self.theirs.read(idx, portion.offset, theirs)
        difference = await to_thread.run_sync(trim, ours, theirs, limiter=self.threads)
        return _Compared(item, not difference.length)

    async def _deliver(self, compared: list[_Compared]) -> None:
        found = self.found
        for (idx, portion, is_last), same in compared:
            found.bytes_compared += portion.length
            if not same and idx != self.last_differing:
                self.last_differing = idx
                found.differing += 1
                if len(found.differing_idx) < MAX_DIFFERENCES:
                    found.differing_idx.append(idx)
            found.objects_done += is_last
        if self.on_progress is not None:
            self.on_progress(
                Progress(found.objects_done, found.objects_planned, found.bytes_compared, is_checking=True)
            )
