"""Removes the VDI that an unfinished restore left in a cluster, and its journal, and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import anyio
import numpy as np
from anyio import to_thread

from asyncbackup.client import Cluster
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi, is_unfinished
from asyncbackup.client.fan_out import for_each
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.removal import say_discarding, unsay_discarding
from asyncbackup.engine.shards import (
    SHARDS_WATCH_S,
    forget_shards,
    read_beats,
    read_receipts,
    read_shards,
)
from asyncbackup.engine.vdi_keeping import read_last
from asyncbackup.errors import NotDiscarded, ObjectReadFailed, TargetUnusable
from asyncbackup.format.restoring import Restoring
from asyncbackup.format.shards import Beat, Receipt, Shards
from asyncbackup.storage.journal import JournalFile, journal_beside
from asyncbackup.storage.location import find_object
from asyncbackup.wire.constants import MAX_DENSE_OBJECTS, SECTOR_SIZE, Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.oid import data_oid

_WATCH_S: Final = 2.0
"""Seconds in which a restore that is at work creates an object."""

_LAST: Final = 1024
"""How many of the last objects in the table are looked for: more than a restore names ahead and has in flight."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """What was removed."""

    vdi: str
    vdi_id: str
    objects: int
    """Objects that the table named. Perhaps some of them were never created."""
    journal: str | None = None
    """The journal that was removed; None: none was named, or there was none of this VDI."""

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def discard(
    cluster: Cluster,
    vdi: str,
    *,
    backups: Sequence[str | os.PathLike[str]] = (),
    journal: str | os.PathLike[str] | None = None,
) -> Discarded:
    """Remove the working VDI ``vdi`` and all its objects, if its tag says that it is an unfinished restore.

    The restore's journal goes as well: the one that is named, or the one that stands beside one of ``backups``, the
    first of those that were restored. A journal of another VDI of this name stays.

    A snapshot, or a VDI with another tag, is never removed. The VDI is watched for two seconds, or for four if it is
    restored in shards, and is not removed if a restore writes to it in that time. A restore that does nothing so long,
    because it waits for a pipe, is noticed only by its journal.

    Raises VdiNotFound, NotDiscarded, RequestFailed, ClusterError, TargetBusy if a restore has the journal open, and
    TargetUnusable if the ``journal`` that was named cannot be opened. After an error or a cancellation it can be
    repeated.
    """
    try:
        async with AsyncExitStack() as stack:
            journals = await _open_journals(stack, vdi, backups, journal)
            inode = await _find(cluster, vdi)
            discarded = await _discard(cluster, inode)
            for opened, found in journals:
                if (found.vdi_id, found.created) == (inode.vdi_id, inode.create_time):
                    await opened.clear()
                    return replace(discarded, journal=str(opened.path))
            return discarded
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(f"VDI '{vdi}' is still there, if only in part")
        raise


async def _open_journals(
    stack: AsyncExitStack,
    vdi: str,
    backups: Sequence[str | os.PathLike[str]],
    journal: str | os.PathLike[str] | None,
) -> list[tuple[JournalFile, Restoring]]:
    """Open the journals of restores of this name, each with its last entry. An empty one goes when it is closed."""
    if journal:
        places = [Path(journal)]
    else:
        beside = [journal_beside(backup, vdi) for backup in backups if find_object(backup) is None]
        places = await to_thread.run_sync(lambda: [place for place in beside if os.path.exists(place)])  # noqa: PTH110 - Path raises where a folder is closed
    journals = []
    for place in places:
        opened = JournalFile(place)
        try:
            await stack.enter_async_context(opened)
        except TargetUnusable:
            if journal:
                raise
            continue  # The restore could not write a journal there either.
        found = await read_last(opened)
        if found is not None and found.vdi == vdi:
            journals.append((opened, found))
    return journals


async def _discard(cluster: Cluster, inode: Inode) -> Discarded:
    shards = await read_shards(cluster, inode)
    before = await _read_state(cluster, inode, shards)
    await anyio.sleep(_WATCH_S if shards is None else SHARDS_WATCH_S)
    if await read_shards(cluster, inode) != shards:
        raise _at_work(inode.name)
    now = await _refuse_changed(cluster, inode, shards, before)
    is_first = await say_discarding(cluster, now)
    try:
        # A run looks for that after the last change that this looks for. So one of both sees the other.
        now = await _refuse_changed(cluster, inode, shards, before)
    except NotDiscarded:
        if is_first:  # Otherwise it is what another discard says, which may be removing objects.
            await unsay_discarding(cluster, inode)
        raise
    if shards is not None:
        await forget_shards(cluster, inode, shards)
    await NewVdi.of(cluster, now).remove(cluster)
    return Discarded(inode.name, f"{inode.vdi_id:x}", before.named)


async def _refuse_changed(cluster: Cluster, inode: Inode, shards: Shards | None, before: _State) -> Inode:
    """Give the inode as it is now. Raises NotDiscarded if a restore did anything since the state ``before``."""
    is_same = await _read_state(cluster, inode, shards) == before
    now = await _find(cluster, inode.name)
    if not is_same or now.vdi_id != inode.vdi_id:
        raise _at_work(inode.name)
    return now


def _at_work(vdi: str) -> NotDiscarded:
    return NotDiscarded(vdi, "a restore is making it at this moment")


async def _find(cluster: Cluster, vdi: str) -> Inode:
    inode = await cluster.find_vdi(vdi)
    if not is_unfinished(inode):
        tag = f"its tag is '{inode.tag}'" if inode.tag else "it has no tag"
        raise NotDiscarded(vdi, f"{tag}, and not '{UNFINISHED_TAG}', so it is no unfinished restore")
    return inode


@dataclass(frozen=True, slots=True)
class _State:
    """The progress of a restore: how many objects its table names, which of the last exist, and how far shards are."""

    named: int
    there: frozenset[int]
    beats: Mapping[int, Beat]
    receipts: Sequence[Receipt | None]


async def _read_state(cluster: Cluster, inode: Inode, shards: Shards | None) -> _State:
    owners = await cluster.read_owners(inode.vdi_id, MAX_DENSE_OBJECTS)
    named = np.flatnonzero(owners == inode.vdi_id)
    there: set[int] = set()

    async def look_for(idx: int) -> None:
        read = ObjectRead(data_oid(inode.vdi_id, idx), memoryview(bytearray(SECTOR_SIZE)), 0)
        try:
            await cluster.read_objects([read])
        except ObjectReadFailed as error:
            if error.result != Result.NO_OBJ:
                raise
        else:
            there.add(idx)

    await for_each(named[-_LAST:].tolist(), look_for)
    beats = {} if shards is None else await read_beats(cluster, inode, shards)
    receipts = [] if shards is None else await read_receipts(cluster, inode, shards)
    return _State(len(named), frozenset(there), beats, receipts)
