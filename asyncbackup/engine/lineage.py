"""Finds out which snapshot a VDI in a cluster equals. A restore writes that into the attributes of the VDI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from asyncbackup.client import Cluster
from asyncbackup.client.cluster import can_be_named
from asyncbackup.client.construction import UNFINISHED_TAG
from asyncbackup.engine.base import Candidate, Lineage
from asyncbackup.engine.chain import Chain
from asyncbackup.errors import (
    HalfApplied,
    InodeCorrupt,
    NotFound,
    RequestFailed,
    SnapshotExists,
    VdiUnmakeable,
)
from asyncbackup.format.identity import Identity, time_text
from asyncbackup.format.replica import Applying, Discarding, Origin, applying_key, origin_key
from asyncbackup.format.shards import Beat, Receipt, Shards
from asyncbackup.wire.constants import Result
from asyncbackup.wire.inode import Inode

UNKNOWN_REQUEST: Final = frozenset({Result.INVALID_PARMS, Result.NO_SUPPORT, Result.VER_MISMATCH})
"""Answers of a server that does not know attributes."""

_Line = TypeVar("_Line", Origin, Applying, Shards, Receipt, Beat, Discarding)


async def examine_vdi(cluster: Cluster, inode: Inode, wanted: Identity | None) -> Candidate:
    """Give a VDI or snapshot as a candidate. Its lineage is read only if it is not itself the snapshot ``wanted``.

    Raises HalfApplied if it is a working VDI to which backups are being applied, InodeCorrupt, RequestFailed,
    ClusterError.
    """
    await refuse_half_applied(cluster, inode)
    candidate = Candidate(str(inode), inode.vdi_size, await cluster.identify(inode))
    if wanted is None or candidate.identity is None or candidate.identity.matches(wanted):
        return candidate
    return replace(candidate, lineage=await find_lineage(cluster, inode))


async def find_lineage(cluster: Cluster, inode: Inode) -> Lineage | None:
    """Find out which snapshot a VDI or snapshot was restored from; None if nothing says it.

    A snapshot that was taken while backups were being applied has no lineage. The caller must not pass a working VDI to
    which backups are being applied.
    """
    if not inode.is_snapshot:
        below = await find_equal_snapshot(cluster, inode)
        if below is not None and (lineage := await find_lineage(cluster, below)):
            return lineage
    elif (applying := await read_applying(cluster, inode)) and not applying.is_complete:
        return None
    origin = await read_origin(cluster, inode)
    return None if origin is None else Lineage(origin.identity, _doubt(origin, inode), assumed=origin.assumed)


async def find_held(cluster: Cluster, vdi: str) -> Identity | None:
    """Find out which snapshot backups are to be applied to in a VDI that follows them; None if nothing says it."""
    below = await find_snapshot_below(cluster, await cluster.find_vdi(vdi))
    if below is None:
        return None
    lineage = await find_lineage(cluster, below)
    return await cluster.identify(below) if lineage is None else lineage.identity


async def refuse_half_applied(cluster: Cluster, inode: Inode) -> None:
    """Raise HalfApplied for a working VDI to which backups are being applied."""
    if not inode.is_snapshot and await read_applying(cluster, inode) is not None:
        raise HalfApplied(inode.name)


def _doubt(origin: Origin, inode: Inode) -> str:
    """Say why a VDI may differ from its origin. The text is empty if it equals the origin."""
    if origin.size != inode.vdi_size:
        return f"it was resized since it was restored as {origin.identity}"
    if not inode.is_snapshot or origin.snapshot != time_text(inode.snap_ctime):
        return f"it may have been written to between its restore as {origin.identity} and the snapshot"
    return ""


async def find_snapshot_below(cluster: Cluster, inode: Inode) -> Inode | None:
    """Find the snapshot that a working VDI stands on; None if there is none, or if it was deleted."""
    if not inode.parent_vdi_id:
        return None
    parent = await cluster.read_inode(inode.parent_vdi_id)
    if not parent.name or not parent.is_snapshot:
        return None
    try:
        found = await cluster.find_vdi(parent.name, parent.snap_id)
    except NotFound:
        return None
    return found if found.vdi_id == parent.vdi_id else None


async def find_equal_snapshot(cluster: Cluster, inode: Inode) -> Inode | None:
    """Find the snapshot that a working VDI stands on; None if somebody wrote to the VDI since."""
    below = await find_snapshot_below(cluster, inode)
    if below is None or below.is_hyper or below.vdi_size != inode.vdi_size:
        return None
    return below if await count_written(cluster, inode, below) == 0 else None


async def count_written(cluster: Cluster, inode: Inode, below: Inode) -> int:
    """Count the objects that a working VDI does not share with ``below``, the snapshot that it stands on."""
    count = max(inode.object_count, below.object_count)
    owners = await cluster.read_owners(inode.vdi_id, count)
    return int(np.count_nonzero(owners != await cluster.read_owners(below.vdi_id, count)))


def origin_of(chain: Chain, inode: Inode, *, assumed: bool) -> Origin | None:
    """Give the origin of a VDI to which ``chain`` was restored; None if no manifest says it, or if the size differs."""
    newest, created = chain.readers[-1].subject, time_text(inode.create_time)
    if newest is None or newest.size != chain.size or created is None:
        return None
    return Origin(newest.identity, chain.size, created, None, assumed)


async def write_origin(cluster: Cluster, inode: Inode, origin: Origin) -> None:
    """Write ``origin`` into the attribute of a VDI, or of a snapshot whose VDI still exists. Raises RequestFailed."""
    await cluster.write_attribute(inode.name, origin_key(inode.vdi_id), origin.encode())


async def forget_origin(cluster: Cluster, inode: Inode) -> None:
    """Empty the attribute that says which snapshot a VDI equalled before."""
    if await read_origin(cluster, inode) is not None:
        await cluster.write_attribute(inode.name, origin_key(inode.vdi_id), b"")


async def check_tag_is_free(cluster: Cluster, vdi: str, tag: str) -> None:
    """Raise SnapshotExists if ``vdi`` has a snapshot with this tag, and VdiUnmakeable if no snapshot can have it."""
    if not can_be_named(tag) or tag == UNFINISHED_TAG:
        raise VdiUnmakeable("a tag of 1 to 255 bytes that no unfinished restore has", f"'{tag}'")
    try:
        await cluster.find_vdi(vdi, tag)
    except NotFound:
        return
    raise SnapshotExists(vdi, tag)


async def take_snapshot(
    cluster: Cluster, inode: Inode, tag: str, origin: Origin | None, *, is_tagged_last: bool = False
) -> None:
    """Take a snapshot of the working VDI ``inode``, and write its ``origin`` into its attribute.

    With ``is_tagged_last`` it keeps the tag that it has until it is a snapshot.

    Raises ChangedMeanwhile if another VDI has the name now. After a cancellation the snapshot may exist without an
    origin.
    """
    taken = await cluster.create_snapshot(inode.name, tag, vdi_id=inode.vdi_id, is_tagged_last=is_tagged_last)
    if origin is not None:
        await write_origin(cluster, taken, origin.of_snapshot(taken.snap_ctime))


async def read_origin(cluster: Cluster, inode: Inode) -> Origin | None:
    """Read the origin that a restore wrote for a VDI or snapshot. Raises InodeCorrupt if the attribute is damaged."""
    return await read_line(cluster, inode, origin_key(inode.vdi_id), Origin.decode)


async def read_applying(cluster: Cluster, inode: Inode) -> Applying | None:
    """Read which backups are being applied to a VDI, or were when it became a snapshot. Raises InodeCorrupt."""
    return await read_line(cluster, inode, applying_key(inode.vdi_id), Applying.decode)


async def read_line(cluster: Cluster, inode: Inode, key: str, decode: Callable[[bytes], _Line]) -> _Line | None:
    """Read the attribute ``key`` of a VDI or snapshot; None: there is none that is about it. Raises InodeCorrupt."""
    try:
        value = await cluster.read_attribute(inode, key)
    except RequestFailed as error:
        if error.result in UNKNOWN_REQUEST:
            return None
        raise
    if not value:
        return None
    try:
        found = decode(value)
    except ValueError as error:
        raise InodeCorrupt(inode.vdi_id, f"its attribute '{key}' was not written by a restore: {error}") from error
    # In a cluster that uses ids again, it may be about a VDI that had the id before.
    return found if found.created == time_text(inode.create_time) else None
