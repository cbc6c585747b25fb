"""Opens what --base, --base-vdi and --base-image name, and finds out what backups call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import click

from asyncbackup.client import Cluster
from asyncbackup.engine.opening import BaseName, BaseSnapshot
from asyncbackup.format.identity import Identity
from asyncbackup.storage.image import read_state

FindBase = Callable[[], Awaitable[Identity | str | None]]
"""Finds out which snapshot a chain is to begin on, or how it is called; None: it begins with a full backup."""


async def no_base() -> None:
    """Let a chain begin with a full backup."""


async def find_base(snapshot: int | str | None, vdi: str | None, image: str | None) -> Identity | str | None:
    """Find out which snapshot the base is. Whether it really is, is judged when it is opened."""
    if image is not None:
        state = await read_state(image)
        if state is None:
            raise click.UsageError(f"nothing says which snapshot {image} equals: name FILEs, not FOLDER@SNAPSHOT")
        return state.identity
    if snapshot is None:
        return None
    return str(snapshot) if vdi is None else f"{vdi}:{snapshot}"


@asynccontextmanager
async def named_base(
    snapshot: int | str | None, vdi: str | None, image: str | None, connection: AbstractAsyncContextManager[Cluster]
) -> AsyncIterator[BaseName | None]:
    """Give the name of the base. If it is in the cluster, keep the ``connection`` open meanwhile."""
    if snapshot is None:
        yield image
        return
    async with connection as cluster:
        yield BaseSnapshot(cluster, snapshot, vdi)
