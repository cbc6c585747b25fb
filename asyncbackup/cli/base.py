"""Opens what --base, --base-vdi and --base-image name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from asyncbackup.client import Cluster
from asyncbackup.engine.opening import BaseName, BaseSnapshot


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
