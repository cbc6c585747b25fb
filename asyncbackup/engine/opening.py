"""Opens the base of a chain of backups, after it was judged."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.engine.base import Candidate, Wanted, judge_base, judge_image
from asyncbackup.engine.chain import Chain
from asyncbackup.engine.lineage import examine_vdi
from asyncbackup.engine.source import ImageObjects, ObjectSource, SnapshotObjects, open_snapshots
from asyncbackup.errors import (
    BaseUnnamed,
    BaseUnwanted,
    Fact,
    FactMissing,
    HyperVolume,
    ObjectSizesDiffer,
    PartlyApplied,
    ResizeUnproved,
)
from asyncbackup.storage import FileSource
from asyncbackup.storage.image import read_state, refuse_half_rolled


@dataclass(frozen=True, slots=True)
class BaseSnapshot:
    """Names a base in a cluster: ``snapshot`` (id or tag) of ``vdi``. By default that is the VDI that was backed up."""

    cluster: Cluster
    snapshot: Snapshot
    vdi: str | None = None


BaseName = str | os.PathLike[str] | BaseSnapshot
"""Names a base: the path of an image, or a snapshot in a cluster."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An open base that was judged. ``assumed`` says in words what the caller vouched for; None: the base is proved."""

    base: ObjectSource
    assumed: str | None
    image: FileSource | None = None
    """The base, if it is an image."""
    snapshot: SnapshotObjects | None = None
    """The base, if it is a snapshot in a cluster."""


def wanted_base(chain: Chain) -> Wanted:
    """Give the identity and the size that the base of the chain must have."""
    first = chain.readers[0]
    return Wanted(first.name, chain.base, first.subject.base_size if first.subject else None)


def judge_base_of(chain: Chain, candidate: Candidate, *, assume_base: bool) -> str | None:
    """Decide whether ``candidate`` is the base of ``chain``, as ``judge_base`` does.

    Also raises PartlyApplied if the candidate equals what one of the backups makes, except for the last one.
    """
    wanted = wanted_base(chain)
    if wanted.identity is not None and not candidate.equals(wanted.identity):
        for place, reader in enumerate(chain.readers[:-1], 1):
            if reader.subject is not None and candidate.equals(reader.subject.identity):
                applied = [reader.name for reader in chain.readers[:place]]
                raise PartlyApplied(candidate.name, reader.subject.identity, applied)
    return judge_base(wanted, candidate, assume_base=assume_base)


def require_base(chain: Chain, name: BaseName | Snapshot | None) -> None:
    """Raise BaseUnnamed if the chain needs a base and has no ``name``, and BaseUnwanted if it must not have one."""
    first = chain.readers[0]
    if name is None and chain.base is not None:
        raise BaseUnnamed(first.name, str(chain.base))
    if name is not None and chain.is_full:
        raise BaseUnwanted(first.name)


@asynccontextmanager
async def open_base(chain: Chain, name: BaseName, *, assume_base: bool) -> AsyncIterator[Judged]:
    """Open the base of ``chain``. Raises HalfRolled, what ``judge_base_of`` raises, and the errors of reading."""
    if isinstance(name, BaseSnapshot):
        judged = await open_snapshot_base(chain, name, assume_base=assume_base)
        assert judged.snapshot is not None
        yield replace(judged, base=judged.snapshot.first(chain.spans()))
        return
    refuse_half_rolled(name)
    async with FileSource(name) as image:
        candidate = await examine_image(image)
        assumed = judge_base_of(chain, candidate, assume_base=assume_base)
        yield Judged(ImageObjects(image, chain.object_size, chain.spans()), assumed, image)


async def examine_image(image: FileSource) -> Candidate:
    """Find out which snapshot an open image equals. Raises StateDamaged if its state cannot be read."""
    state = await read_state(image.name)
    return judge_image(image.name, image.size, image.modified_ns, state)


def judge_size(chain: Chain, image: FileSource) -> None:
    """Raise ResizeUnproved if the size of an image would change, and no manifest says that the VDI was resized."""
    if chain.base is None and chain.size != image.size:
        raise ResizeUnproved(image.name, image.size, chain.size, "no manifest says that the VDI did")


async def open_snapshot_base(chain: Chain, name: BaseSnapshot, *, assume_base: bool) -> Judged:
    """Open a base in a cluster, and judge it. It has all its objects, also those that the backups cut off."""
    vdi = name.vdi
    if vdi is None and chain.subject is not None:
        vdi = chain.subject.vdi
    if vdi is None:
        raise FactMissing(Fact.VDI_NAME)
    inode = await name.cluster.find_vdi(vdi, name.snapshot)
    if inode.is_hyper:
        raise HyperVolume(f"VDI '{vdi}'", "has no snapshots that could be a base")
    [base] = await open_snapshots(name.cluster, [inode])
    candidate = await examine_vdi(name.cluster, inode, chain.base)
    assumed = judge_base_of(chain, candidate, assume_base=assume_base)
    if inode.object_size != chain.object_size:
        raise ObjectSizesDiffer(chain.readers[0].name, chain.object_size, base.name, inode.object_size)
    return Judged(base, assumed, snapshot=base)
