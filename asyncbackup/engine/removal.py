"""Removes a VDI that could not be completed, whatever disturbs that."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from asyncbackup.client import Cluster
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi
from asyncbackup.errors import AsyncBackupError, LeftUnfinished, PerhapsCreated, first_error, single_error

TAGGED: Final = f"tagged '{UNFINISHED_TAG}'"

_REMOVAL_S: Final = 60.0
"""Seconds to remove the VDI of a failed restore. It is left behind after that, because a Ctrl-C waits for it."""


async def undisturbed(function: Callable[[], Awaitable[None]], timeout_s: float = math.inf) -> bool:
    """Run ``function`` even if this task is cancelled meanwhile. Give False if it did not end within ``timeout_s``."""
    scope = anyio.CancelScope(shield=True, deadline=anyio.current_time() + timeout_s)

    async def run() -> None:
        with scope:
            await function()

    # It needs a task of its own: a shield does not stop a cancellation by plain asyncio.
    async with anyio.create_task_group() as group:
        group.start_soon(run)
    return not scope.cancelled_caught


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
