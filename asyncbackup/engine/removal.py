"""Removes a VDI that could not be completed, whatever disturbs that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from asyncbackup.cancellation import undisturbed
from asyncbackup.client import Cluster
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi
from asyncbackup.engine.lineage import UNKNOWN_REQUEST, read_line
from asyncbackup.errors import (
    AsyncBackupError,
    ChangedMeanwhile,
    InodeCorrupt,
    LeftUnfinished,
    PerhapsCreated,
    RequestFailed,
    VdiDiscarded,
    VdiNotFound,
    first_error,
    single_error,
)
from asyncbackup.format.identity import time_text
from asyncbackup.format.replica import Discarding, discarding_key
from asyncbackup.wire.inode import Inode

TAGGED: Final = f"tagged '{UNFINISHED_TAG}'"

_REMOVAL_S: Final = 60.0
"""Seconds to remove the VDI of a failed restore. It is left behind after that, because a Ctrl-C waits for it."""


async def say_discarding(cluster: Cluster, inode: Inode) -> bool:
    """Say in an attribute of an unfinished VDI that it is being removed. Tell whether nothing said so before.

    A cluster may know no attributes.
    """
    created = time_text(inode.create_time)
    if created is None:
        raise InodeCorrupt(inode.vdi_id, "it does not say when it was created")
    found = await read_line(cluster, inode, discarding_key(inode.vdi_id), Discarding.decode)
    await _write_discarding(cluster, inode, Discarding(created).encode())
    return found is None


async def unsay_discarding(cluster: Cluster, inode: Inode) -> None:
    """Say that the VDI is not being removed any more."""
    await _write_discarding(cluster, inode, b"")


async def _write_discarding(cluster: Cluster, inode: Inode, value: bytes) -> None:
    try:
        await cluster.write_attribute(inode.name, discarding_key(inode.vdi_id), value)
    except RequestFailed as error:
        if error.result not in UNKNOWN_REQUEST:
            raise


async def refuse_discarded(cluster: Cluster, inode: Inode) -> None:
    """Raise VdiDiscarded if the VDI is being removed, or was when the run that removed it was interrupted.

    A restore calls this after its last change. A discard looks for that change after it has said what it does.
    """
    try:
        found = await read_line(cluster, inode, discarding_key(inode.vdi_id), Discarding.decode)
    except VdiNotFound as error:
        raise ChangedMeanwhile(f"VDI '{inode.name}'", "it was removed") from error
    if found is not None:
        raise VdiDiscarded(inode.name)


async def remove_failed(
    new: NewVdi, cluster: Cluster, failure: BaseException, before: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Remove ``new`` because of ``failure``. Raises LeftUnfinished if that cannot be done, or if ``before`` does."""

    async def remove() -> None:
        if before is not None:
            await before()
        # The server may still hold requests that were given up. Then the old connections have no room for others.
        async with cluster.connected_anew() as fresh:
            await new.remove(fresh)

    try:
        with single_error():
            if await undisturbed(remove, _REMOVAL_S):
                return
        reason = f"it took longer than {_REMOVAL_S:g} s"
    except LeftUnfinished:
        raise
    except AsyncBackupError as error:
        reason = str(error)
    why = f"removing it failed ({reason})"
    if not new.is_marked:
        raise PerhapsCreated(new.name, cause_of(failure), why) from first_error(failure)
    raise LeftUnfinished(new.name, f"{TAGGED}, may be left behind", cause_of(failure), why) from first_error(failure)


def cause_of(failure: BaseException) -> str:
    """Say in words why a restore ends early."""
    first = first_error(failure)
    return "the restore was stopped" if isinstance(first, asyncio.CancelledError) else str(first)
