"""Keeps in attributes of a VDI of what several runs restore it together, and how far each of them is.

- The run that creates the VDI writes its owner table, and nobody else does, ever. Only then does the attribute say that
  the others may begin. They write data objects alone (``engine/fill_job``).
- Each shard gets an attribute when it is written, its receipt. Nobody takes that back. Two runs of the same shard write
  the same bytes. As long as a run works, it writes another attribute each second, so that nobody discards the VDI.
- At the end the attributes get an empty value, the one that says of what the VDI is made last. They are never deleted:
  servers from 0.9 on may give a deleted attribute again (``docs/protocol.md``).
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from asyncbackup.client import Cluster
from asyncbackup.client.fan_out import for_each
from asyncbackup.engine.cut import Share
from asyncbackup.engine.design import Design
from asyncbackup.engine.lineage import read_line
from asyncbackup.engine.progress import ReplayCounts
from asyncbackup.errors import InodeCorrupt, ShardMissing, SharedOtherwise
from asyncbackup.format.identity import time_text
from asyncbackup.format.shards import Beat, Receipt, Shards, beat_key, receipt_key, shards_key
from asyncbackup.wire.inode import Inode

_BEAT_S: Final = 1.0
"""Seconds after which a run says again that it works."""

SHARDS_WATCH_S: Final = 4.0
"""Seconds in which the state of a shard changes if a run works on it."""

PREPARATION: Final = 0
"""The number under which the run that makes the VDI says that it works. Shards have numbers from 1 on."""

_WORDS: Final = {
    "backups": "chain of backups",
    "parent": "base (vdi id)",
    "size": "size",
    "object_size": "object size",
    "copies": "number of copies",
    "copy_policy": "copy policy",
    "count": "number of shards",
}


async def describe(design: Design, inode: Inode, count: int) -> Shards:
    """Say of what a VDI is made, before its table is written."""
    shape, parent = design.shape, design.clone_of.inode.vdi_id if design.clone_of else 0
    return Shards(
        await design.identify(),
        _created(inode),
        parent,
        shape.size,
        shape.object_size,
        shape.copies,
        shape.copy_policy,
        count,
    )


def _created(inode: Inode) -> str:
    created = time_text(inode.create_time)
    if created is None:
        raise InodeCorrupt(inode.vdi_id, "it does not say when it was created")
    return created


async def read_shards(cluster: Cluster, inode: Inode) -> Shards | None:
    """Read of what several runs make a VDI; None: nothing says that they do. Raises InodeCorrupt."""
    return await read_line(cluster, inode, shards_key(inode.vdi_id), Shards.decode)


async def write_shards(cluster: Cluster, inode: Inode, shards: Shards) -> None:
    """Say of what several runs make a VDI."""
    await cluster.write_attribute(inode.name, shards_key(inode.vdi_id), shards.encode())


async def read_receipts(cluster: Cluster, inode: Inode, shards: Shards) -> list[Receipt | None]:
    """Read which shards are written, the first one first; None: it is not."""
    receipts: list[Receipt | None] = [None] * shards.count

    async def read(number: int) -> None:
        receipts[number - 1] = await read_receipt(cluster, inode, number)

    await for_each(range(1, shards.count + 1), read)
    return receipts


async def read_receipt(cluster: Cluster, inode: Inode, number: int) -> Receipt | None:
    """Read whether one shard is written; None: it is not."""
    return await read_line(cluster, inode, receipt_key(inode.vdi_id, number), Receipt.decode)


async def write_receipt(cluster: Cluster, inode: Inode, number: int, share: Share, counts: ReplayCounts) -> None:
    """Say that one shard is written."""
    receipt = Receipt(_created(inode), share.first, share.end, counts.objects_done, counts.bytes_written)
    await cluster.write_attribute(inode.name, receipt_key(inode.vdi_id, number), receipt.encode())


@asynccontextmanager
async def beating(cluster: Cluster, inode: Inode, number: int) -> AsyncIterator[None]:
    """Say each second while the block runs that this run works on a shard, or on the PREPARATION."""
    key, run = beat_key(inode.vdi_id, number), secrets.token_hex(16)
    writing = anyio.Lock()

    async def beat() -> None:
        for count in itertools.count(1):
            async with writing:
                await cluster.write_attribute(inode.name, key, Beat(_created(inode), run, count).encode())
            await anyio.sleep(_BEAT_S)

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        yield
        # Do not cancel it during a write: the cluster could carry out that write after all later ones.
        async with writing:
            group.cancel_scope.cancel()


async def read_beats(cluster: Cluster, inode: Inode, shards: Shards) -> dict[int, Beat]:
    """Read what each run says, by the number of its shard, or PREPARATION. It changes while the run works."""
    beats: dict[int, Beat] = {}

    async def read(number: int) -> None:
        found = await read_beat(cluster, inode, number)
        if found is not None:
            beats[number] = found

    await for_each(range(shards.count + 1), read)
    return beats


async def read_beat(cluster: Cluster, inode: Inode, number: int) -> Beat | None:
    """Read what the run says that works on a shard, or did; None: none began."""
    return await read_line(cluster, inode, beat_key(inode.vdi_id, number), Beat.decode)


def refuse_other(vdi: str, found: Shards, asked: Shards) -> None:
    """Raise SharedOtherwise if what was ``found`` at VDI ``vdi`` is made of something else than is ``asked`` for."""
    for name, word in _WORDS.items():
        one, other = getattr(found, name), getattr(asked, name)
        if one != other:
            raise SharedOtherwise(vdi, word, one, other)


def check_receipts(inode: Inode, receipts: list[Receipt | None]) -> list[Receipt]:
    """Give the receipts of all shards. Raises ShardMissing, and SharedOtherwise if they do not follow one another."""
    complete = [receipt for receipt in receipts if receipt is not None]
    if len(complete) < len(receipts):
        missing = [number for number, receipt in enumerate(receipts, 1) if receipt is None]
        raise ShardMissing(inode.name, missing, len(receipts))
    ends = [0, *(receipt.end for receipt in complete)]
    for number, (receipt, end) in enumerate(zip(complete, ends, strict=False), 1):
        if receipt.first != end:
            raise SharedOtherwise(inode.name, f"cut: shard {number} begins elsewhere", receipt.first, end)
    if ends[-1] != inode.object_count:
        raise SharedOtherwise(inode.name, "cut: the last shard ends elsewhere", ends[-1], inode.object_count)
    return complete


async def forget_shards(cluster: Cluster, inode: Inode, shards: Shards) -> None:
    """Empty the attributes: the VDI is complete, or will be removed. It can be repeated after an interruption."""
    receipts, beats = await read_receipts(cluster, inode, shards), await read_beats(cluster, inode, shards)
    written = [receipt_key(inode.vdi_id, number) for number, found in enumerate(receipts, 1) if found is not None]
    written += [beat_key(inode.vdi_id, number) for number in beats]

    async def empty(key: str) -> None:
        await cluster.write_attribute(inode.name, key, b"")

    await for_each(written, empty)
    await empty(shards_key(inode.vdi_id))
