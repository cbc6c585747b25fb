"""Reads pairs of objects from the cluster and turns them into the bytes of records.

An object is compared part by part, from both ends inwards until something differs, each part as soon as it is there.
What is equal makes room for the next part: so a comparison works in few bytes, which stay in the processor's cache.
What lies between the two ends is read last, from the one side that the record needs.

An object that does not fit into a slot goes twice: first its extent is found, then what lies inside is read, in pieces.
So a record's length is known before its first byte is written, whatever the object size.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from asyncbackup.client import Cluster
from asyncbackup.client.objects import READ_SIZE, ObjectRead
from asyncbackup.engine.compact import ZEROS, Extent, trim
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.window import Slot
from asyncbackup.errors import ObjectReadFailed
from asyncbackup.format import RecordHeader
from asyncbackup.wire.constants import Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.oid import data_oid

_Read = TypeVar("_Read")

PART_SIZE: Final = 2 * READ_SIZE
"""Bytes of an object to compare at a time, a fifth of 4 MiB.

With both sides, and a few objects at a time, that is what a processor's cache holds. Fewer bytes mean more work.
"""


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
    payload: Sequence[memoryview]
    base: Sequence[memoryview] | None
    """What the base has there, if all of it was read to compare it; otherwise None."""
    completes_object: bool


class _Both(NamedTuple):
    """Bytes of an object from ``offset``: what it has there, and its base."""

    offset: int
    to: memoryview
    base: memoryview

    @property
    def end(self) -> int:
        return self.offset + len(self.to)

    def cut(self, start: int, end: int) -> _Both:
        """Give what lies between two offsets in the object."""
        inside = slice(start - self.offset, end - self.offset)
        return _Both(start, self.to[inside], self.base[inside])


class _Ends(NamedTuple):
    """The first and the last part of an object that differ, and the object's extent."""

    first: _Both
    last: _Both
    start: int
    end: int


@dataclass(slots=True)
class Fetcher:
    """Reads from ``cluster``, and counts what it read in ``counts``; sizes in bytes.

    It compares in parts of at most ``part_size``, and reads what a record holds in pieces of ``piece_size``. All reads
    raise ObjectReadFailed, and the cluster's errors. After a cancellation nothing more is received into the slot.
    """

    cluster: Cluster
    object_size: int
    piece_size: int
    counts: BackupCounts
    part_size: int = PART_SIZE
    working: Inode | None = None
    """The working VDI, if that is what is read: its guest may discard objects meanwhile, which then are zeros."""
    _discarded: set[int] = field(default_factory=set)

    async def fetch_record(self, pair: Pair, slot: Slot) -> Chunk:
        """Read what is needed of an object that fits into a slot."""
        self._count(pair)
        return await self._unless_discarded(pair, lambda pair: self._fetch_record(pair, slot))

    async def _fetch_record(self, pair: Pair, slot: Slot) -> Chunk:
        ends = await self._find_ends(pair, slot)
        if ends is None:
            return Chunk(None, (), (), completes_object=True)
        first, last, start, end = ends
        header = RecordHeader(pair.idx, start, end - start)
        compared = [first.cut(start, min(end, first.end))] + ([] if first is last else [last.cut(last.offset, end)])
        if first is last or first.end == last.offset:
            return Chunk(
                header, [both.to for both in compared], [both.base for both in compared], completes_object=True
            )
        between = await self._read_record(pair, first.end, slot.buffers[0][first.end : last.offset])
        return Chunk(header, [compared[0].to, between, compared[1].to], None, completes_object=True)

    async def find_extent(self, pair: Pair, slot: Slot) -> tuple[Pair, Extent]:
        """Find what differs in a large object."""
        self._count(pair)
        return await self._unless_discarded(pair, lambda pair: self._find_extent(pair, slot))

    async def _find_extent(self, pair: Pair, slot: Slot) -> tuple[Pair, Extent]:
        ends = await self._find_ends(pair, slot)
        return pair, Extent(ends.start, ends.end - ends.start) if ends else Extent(0, 0)

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
        data = await self._unless_discarded(
            piece.pair, lambda pair: self._read_record(pair, piece.offset, slot.buffers[0][: piece.length])
        )
        return Chunk(piece.header, [data], None, piece.is_last)

    def _count(self, pair: Pair) -> None:
        self.counts.objects_read += (pair.to_owner != 0) + (pair.base_owner != 0)

    async def _unless_discarded(self, pair: Pair, read: Callable[[Pair], Awaitable[_Read]]) -> _Read:
        """Read ``pair``, and where its object was discarded since the plan was made, the same with zeros in its place.

        A server takes a discarded object out of the owner table before it removes it: an object that is missing and
        named there is lost, which is an error.
        """
        try:
            return await read(pair)
        except ObjectReadFailed as error:
            if self.working is None or error.oid != data_oid(self.working.vdi_id, pair.idx):
                raise
            if error.result != Result.NO_OBJ or await self.cluster.read_owner(self.working, pair.idx):
                raise
        self._discarded.add(pair.idx)
        self.counts.objects_discarded = len(self._discarded)
        return await read(pair._replace(to_owner=0))

    async def _find_ends(self, pair: Pair, slot: Slot) -> _Ends | None:
        """Compare from both ends inwards. The parts that are found lie at the two ends of the slot."""
        size = min(self.part_size, self.piece_size)
        parts = [(start, min(size, self.object_size - start)) for start in range(0, self.object_size, size)]
        for offset, length in parts:
            first = await self._read_both(pair, offset, slot.buffers[0][:length], slot.buffers[1][:length])
            extent = trim(first.to, first.base)
            if extent.length:
                break
        else:
            return None
        start, end = offset + extent.offset, offset + extent.offset + extent.length
        behind = [part for part in reversed(parts) if part[0] >= first.end]
        for offset, length in behind:
            last = await self._read_both(pair, offset, slot.buffers[0][-length:], slot.buffers[1][-length:])
            extent = trim(last.to, last.base)
            if extent.length:
                return _Ends(first, last, start, offset + extent.offset + extent.length)
        return _Ends(first, first, start, end)

    async def _read_record(self, pair: Pair, offset: int, into: memoryview) -> memoryview:
        (data,) = await self._read(pair.idx, offset, [(pair.to_owner, into)])
        return data

    async def _read_both(self, pair: Pair, offset: int, to: memoryview, base: memoryview) -> _Both:
        to, base = await self._read(pair.idx, offset, [(pair.to_owner, to), (pair.base_owner, base)])
        return _Both(offset, to, base)

    async def _read(self, idx: int, offset: int, sides: list[tuple[int, memoryview]]) -> list[memoryview]:
        """Read each side, an owner and a buffer, into the buffer if anybody owns it; give where its bytes are."""
        reads = [ObjectRead(data_oid(owner, idx), buffer, offset) for owner, buffer in sides if owner]
        await self.cluster.read_objects(reads)
        self.counts.bytes_read += sum(len(read.into) for read in reads)
        return [buffer if owner else ZEROS[: len(buffer)] for owner, buffer in sides]
