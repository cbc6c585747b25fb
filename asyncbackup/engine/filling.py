"""Fills a VDI under construction with what a chain of backups makes of its base."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from asyncbackup.client.construction import Construction
from asyncbackup.engine.chain import Chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.index import Index
from asyncbackup.engine.replay import Content, Meter, Replay
from asyncbackup.engine.source import Indices
from asyncbackup.engine.window import WindowOptions

_GRACE_S: Final = 3.0
"""Seconds for writes under way to be answered once it has failed: what is unanswered may be done later."""


async def fill(
    vdi: Construction,
    chain: Chain,
    index: Index | None,
    composer: Composer,
    options: WindowOptions,
    *,
    meter: Meter,
    whole: Indices,
    behind: int = -1,
    on_done: Callable[[int], Awaitable[None]] | None = None,
) -> None:
    """Write all that ``chain`` has, and the objects ``whole``, into ``vdi``, each checked before it is written.

    ``index`` is that of ``chain``; None where it has a pipe. Objects up to the one of index ``behind`` are left out.
    ``on_done`` is called with the index of an object when that, and all before it, are written.

    Raises DigestMismatch, BaseMismatch, OutsideVdi, and the errors of backups and cluster. Cancelled or failed, writes
    under way are waited for, but only a little.
    """

    async def write(content: Content) -> None:
        portion, idx = content.portion, content.group.idx
        chain.position(idx)
        async with _finished_soon():
            if portion.is_first:
                await vdi.create_object(idx, content.data, portion.offset)
            else:
                await vdi.write_object(idx, content.data, portion.offset)

    async def count(contents: list[Content]) -> None:
        meter.counts.bytes_written += sum(len(content.data) for content in contents)
        await meter.count(contents)
        done = [content.group.idx for content in contents if content.portion.is_last]
        if on_done is not None and done:
            await on_done(done[-1])

    source, limit = chain if index is None else index, vdi.in_flight_limit
    await Replay(source, composer, options, write, count, whole, behind, limit).run()


@asynccontextmanager
async def _finished_soon() -> AsyncIterator[None]:
    """Let a cancellation wait for the block, but only a little.

    A write that is given up may be done nevertheless, when what it wrote was removed already.
    """

    async def limit(block: anyio.CancelScope) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            block.deadline = anyio.current_time() + _GRACE_S

    async with anyio.create_task_group() as group:
        with anyio.CancelScope(shield=True) as block:
            group.start_soon(limit, block)
            yield
        group.cancel_scope.cancel()
