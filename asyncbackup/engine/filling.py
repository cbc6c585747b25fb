"""Fills a VDI under construction with the content that a chain of backups has over its base."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from asyncbackup.cancellation import finished_within
from asyncbackup.client.construction import Construction
from asyncbackup.engine.chain import Chain
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.index import Index
from asyncbackup.engine.replay import Content, Meter, Replay
from asyncbackup.engine.source import Indices
from asyncbackup.engine.window import WindowOptions

GRACE_S: Final = 3.0
"""Seconds that a cancellation waits for writes: the cluster may carry one out later that was given up."""


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
    """Write the objects of ``chain`` and the objects ``whole`` into ``vdi``. Each is checked before it is written.

    ``index`` is the index of ``chain``; None if the chain has a pipe. Objects up to index ``behind`` are left out.
    ``on_done`` gets the index of an object when this object and all before it are written.

    Raises DigestMismatch, BaseMismatch, OutsideVdi, and the errors of backups and cluster. After a cancellation or an
    error it waits a short time for the writes that are under way.
    """

    async def write(contents: list[Content]) -> None:
        for content in contents:
            chain.position(content.group.idx)
        objects = [(content.group.idx, content.data, content.portion.offset) for content in contents]
        async with finished_within(GRACE_S):
            if contents[0].portion.is_first:
                await vdi.create_objects(objects)
            else:
                await vdi.write_object(*objects[0])

    async def count(contents: list[Content]) -> None:
        meter.counts.bytes_written += sum(len(content.data) for content in contents)
        await meter.count(contents)
        done = [content.group.idx for content in contents if content.portion.is_last]
        if on_done is not None and done:
            await on_done(done[-1])

    source, limit = chain if index is None else index, vdi.in_flight_limit
    await Replay(source, composer, options, write, count, whole, behind, limit).run()
