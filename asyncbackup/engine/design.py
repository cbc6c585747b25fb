"""Decides what a new VDI is made of, and what it will be like, before anything is written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import can_be_named
from asyncbackup.client.construction import Parent, Shape, is_unfinished
from asyncbackup.engine.base import all_assumed
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.index import Index, read_index
from asyncbackup.engine.lineage import origin_of, take_snapshot, write_origin
from asyncbackup.engine.opening import (
    BaseName,
    BaseSnapshot,
    Judged,
    judge_size,
    open_base,
    open_snapshot_base,
    require_base,
)
from asyncbackup.engine.progress import OnProgress
from asyncbackup.engine.removal import refuse_discarded
from asyncbackup.engine.source import NO_INDICES, Indices, ObjectSource, SnapshotObjects, ZeroObjects
from asyncbackup.errors import (
    AsyncBackupError,
    ManifestMissing,
    ObjectSizesDiffer,
    RedundancyUnkeepable,
    RequestFailed,
    SnapshotNotTaken,
    UnfinishedExists,
    VdiExists,
    VdiUnmakeable,
)
from asyncbackup.format.replica import Origin
from asyncbackup.wire.inode import Inode, Owners


class Claim(NamedTuple):
    """What a VDI says that it equals. ``missing`` says in words why that was not written; None: it was."""

    origin: Origin | None
    missing: str | None


@dataclass(frozen=True, slots=True)
class Design:
    """What a new VDI is made of: open backups and their base, both judged."""

    chain: Chain
    judged: Judged
    shape: Shape
    assumed: str | None
    """What was assumed, in words; None: all is proved."""

    @property
    def clone_of(self) -> SnapshotObjects | None:
        """The snapshot that the VDI becomes a clone of."""
        return self.judged.snapshot

    @property
    def parent(self) -> Parent | None:
        """The same, and which of its objects the clone keeps."""
        if self.clone_of is None:
            return None
        return Parent(self.clone_of.inode, self.clone_of.owners, self.chain.spans())

    @property
    def beneath(self) -> Owners:
        """The owners of those objects of the base that stay in the clone."""
        parent = self.parent
        return NO_INDICES if parent is None else parent.owners[: parent.keep]

    @property
    def under(self) -> ObjectSource:
        """What the backups are applied to."""
        return self.judged.base if self.clone_of is None else self.clone_of.first(self.chain.spans())

    @property
    def is_proved(self) -> bool:
        """Whether manifests prove all data of the backups."""
        return all(reader.subject is not None for reader in self.chain.readers)

    def require_proof(self) -> None:
        """Raise FileNeeded for a pipe, and ManifestMissing for a backup that no manifest proves."""
        self.chain.require_files("for several machines")
        for reader in self.chain.readers:
            if reader.subject is None:
                raise ManifestMissing(reader.name)

    async def identify(self) -> tuple[str, ...]:
        """Give the digest of each backup's manifest, oldest first."""
        return tuple([await reader.identify() for reader in self.chain.readers])

    async def find_whole(self, on_progress: OnProgress | None = None) -> Indices:
        """Find the objects of the base that must be written, because the VDI is no clone."""
        return await (ZeroObjects() if self.clone_of else self.judged.base).find_objects(on_progress)

    async def read_index(self, whole: Indices, on_progress: OnProgress | None) -> Index | None:
        """Read all headers, so that damage is found before anything is written; None: the chain has a pipe.

        Raises OutsideVdi, also for one of the objects ``whole`` of the base, and BackupDamaged.
        """
        if len(whole):
            self.chain.position(int(whole[-1]))
        if self.chain.is_piped:
            return None
        index = await read_index(self.chain, on_progress)
        self.chain.position(index.last_idx)
        return index

    async def claim_origin(self, cluster: Cluster, inode: Inode) -> Claim:
        """Write the origin into the VDI's attribute. If the cluster refuses it, say why it is missing."""
        if self.chain.missing:
            return Claim(None, "the backups lack some of its objects")
        origin = origin_of(self.chain, inode, assumed=self.assumed is not None)
        if origin is None:
            return Claim(None, f"no manifest says which snapshot of {inode.vdi_size} bytes it is")
        try:
            await write_origin(cluster, inode, origin)
        except RequestFailed as error:
            return Claim(None, str(error))
        return Claim(origin, None)


@asynccontextmanager
async def open_design(
    cluster: Cluster,
    backups: Sequence[str | os.PathLike[str]],
    base: BaseName | None,
    *,
    copies: int | None = None,
    assume_base: bool = False,
    allow_incomplete: bool = False,
    chain_options: ChainOptions | None = None,
) -> AsyncIterator[Design]:
    """Open what a new VDI in ``cluster`` is made of, and judge it, as ``restore`` describes.

    Raises ObjectSizesDiffer, VdiUnmakeable, HyperVolume, and what ``open_chain`` and ``open_base`` raise.
    """
    async with (
        open_chain(backups, chain_options, assume_base=assume_base, allow_incomplete=allow_incomplete) as chain,
        _open_base(cluster, chain, base, assume_base=assume_base) as judged,
    ):
        shape = _shape(chain, judged.snapshot.inode if judged.snapshot else None, copies)
        yield Design(chain, judged, shape, all_assumed(chain.assumed, judged.assumed))


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


def _shape(chain: Chain, of_base: Inode | None, copies: int | None) -> Shape:
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


async def check_name_is_free(cluster: Cluster, name: str) -> None:
    """Raise VdiExists, or UnfinishedExists; VdiUnmakeable if no VDI can have the name."""
    check_name(name)
    if await cluster.has_vdi(name):
        raise UnfinishedExists(name) if is_unfinished(await cluster.find_vdi(name)) else VdiExists(name)


def check_name(name: str) -> None:
    """Raise VdiUnmakeable if no VDI can have the name."""
    if not can_be_named(name):
        raise VdiUnmakeable("a name of 1 to 255 bytes without zeros", f"'{name}'")


async def check_copies(cluster: Cluster, shape: Shape) -> None:
    """Raise RedundancyUnkeepable if the cluster has too few nodes."""
    nodes = await cluster.count_nodes()
    if nodes is not None and shape.copies > nodes:
        raise RedundancyUnkeepable(shape.copies, shape.copy_policy, nodes)


async def take_final_snapshot(
    cluster: Cluster, inode: Inode, tag: str, origin: Origin | None, *, is_tagged_last: bool
) -> None:
    """Take a snapshot of the complete VDI. After a cancellation it may be taken or not.

    Raises SnapshotNotTaken, and ChangedMeanwhile if the VDI is discarded at this moment.
    """
    try:
        await take_snapshot(cluster, inode, tag, origin, is_tagged_last=is_tagged_last)
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(f"VDI '{inode.name}' is complete, but its snapshot '{tag}' may be missing")
        raise
    except AsyncBackupError as error:
        raise SnapshotNotTaken(inode.name, tag, error) from error
    if is_tagged_last:
        await refuse_discarded(cluster, inode)
