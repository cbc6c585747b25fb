"""Reads pairs of objects from the cluster and turns them into the bytes of records.

An object that fits into a slot is read whole, both sides at once. A larger one goes twice: first its extent is found
from both ends inwards, one piece after the other, then only what lies inside is read, from the one side that the
record needs. So a record's length is known before its first byte is written, whatever the object size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

from asyncbackup.client import Cluster
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.compact import ZEROS, Extent, trim
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.progress import Progress
from asyncbackup.engine.window import Slot
from asyncbackup.format import RecordHeader
from asyncbackup.wire.oid import data_oid


class Piece(NamedTuple):
    """Part of an object's extent, in bytes. The first piece carries the record's header."""

    pair: Pair
    offset: int
    length: int
    header: RecordHeader | None
    is_last: bool


class Chunk(NamedTuple):
    """Bytes to append: a record, a part of one, or nothing. ``payload`` lies in a slot, or is zeros."""

    header: RecordHeader | None
    payload: memoryview
    base: memoryview
    """What the base has there; of a large object only if the fetcher ``reads_base``, and else empty."""
    completes_object: bool


@dataclass(slots=True)
class Fetcher:
    """Reads from ``cluster`` in pieces of at most ``piece_size`` bytes, and counts what it read in ``progress``.

    All reads raise ObjectReadFailed, and the cluster's errors. After a cancellation nothing more is received into the
    slot.
    """

    cluster: Cluster
    object_size: int
    piece_size: int
    compactors: Executor
    progress: Progress
    reads_base: bool = False

    async def fetch_record(self, pair: Pair, slot: Slot) -> Chunk:
        """Read both sides of an object that fits into a slot, and compact them."""
        to, base, (offset, length) = await self._compare(pair, slot, 0, self.object_size)
        self._count(pair)
        header = RecordHeader(pair.idx, offset, length) if length else None
        inside = slice(offset, offset + length)
        return Chunk(header, to[inside], base[inside], completes_object=True)

    async def find_extent(self, pair: Pair, slot: Slot) -> tuple[Pair, Extent]:
        """Find what differs in a large object."""
        self._count(pair)
        starts = list(range(0, self.object_size, self.piece_size))
        head = await self._first_extent(pair, slot, starts)
        if not head.length:
            return pair, head
        behind = [start for start in reversed(starts) if start >= head.offset + head.length]
        tail = await self._first_extent(pair, slot, behind)
        end = max(head.offset + head.length, tail.offset + tail.length)
        return pair, Extent(head.offset, end - head.offset)

    async def _first_extent(self, pair: Pair, slot: Slot, starts: list[int]) -> Extent:
        """Look into the pieces at ``starts`` until one differs; offset from the object's start."""
        for start in starts:
            _, _, (offset, length) = await self._compare(pair, slot, start, self.piece_size)
            if length:
                return Extent(start + offset, length)
        return Extent(0, 0)

    async def pieces(self, extents: AsyncIterable[tuple[Pair, Extent]]) -> AsyncGenerator[Piece, None]:
        """Cut what differs into pieces."""
        async for pair, extent in extents:
            header: RecordHeader | None = RecordHeader(pair.idx, *extent)
            end = extent.offset + extent.length
            for offset in range(extent.offset, end, self.piece_size):
                length = min(self.piece_size, end - offset)
                yield Piece(pair, offset, length, header, is_last=offset + length == end)
                header = None

    async def fetch_piece(self, piece: Piece, slot: Slot) -> Chunk:
        """Read a part of what a record holds."""
        pair, length = piece.pair, piece.length
        if self.reads_base:
            to, base = await self._both(pair, slot, piece.offset, length)
        else:
            (to,) = await self._read(pair.idx, piece.offset, [(pair.to_owner, slot.to[:length])])
            base = slot.base[:0]
        return Chunk(piece.header, to, base, piece.is_last)

    async def _compare(self, pair: Pair, slot: Slot, offset: int, length: int) -> tuple[memoryview, memoryview, Extent]:
        to, base = await self._both(pair, slot, offset, length)
        loop = asyncio.get_running_loop()
        return to, base, await loop.run_in_executor(self.compactors, trim, to, base)

    async def _both(self, pair: Pair, slot: Slot, offset: int, length: int) -> tuple[memoryview, memoryview]:
        sides = [(pair.to_owner, slot.to[:length]), (pair.base_owner, slot.base[:length])]
        to, base = await self._read(pair.idx, offset, sides)
        return to, base

    async def _read(self, idx: int, offset: int, sides: list[tuple[int, memoryview]]) -> list[memoryview]:
        """Read each side, an owner and a buffer, into the buffer if anybody owns it; give where its bytes are."""
        reads = [ObjectRead(data_oid(owner, idx), buffer, offset) for owner, buffer in sides if owner]
        await self.cluster.read_objects(reads)
        self.progress.bytes_read += sum(len(read.into) for read in reads)
        return [buffer if owner else ZEROS[: len(buffer)] for owner, buffer in sides]

    def _count(self, pair: Pair) -> None:
        self.progress.objects_read += (pair.to_owner != 0) + (pair.base_owner != 0)
