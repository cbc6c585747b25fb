"""Reads pairs of objects from the cluster, and makes of them the fragments of records.

What lies between the two ends at which an object differs is read last, from the one side that the record needs.

An object that does not fit into a slot goes twice: first its extent is found, then what lies inside is read, in
portions. So a record's length is known before its first byte is written, whatever the object size.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from asyncbackup.client import Cluster
from asyncbackup.client.objects import ObjectRead
from asyncbackup.engine.compact import ZEROS, Extent
from asyncbackup.engine.compare import COMPARED_SIZE, Ends, find_ends, is_always_compared
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.portion import Portion, cut
from asyncbackup.engine.progress import BackupCounts
from asyncbackup.engine.record_writer import Fragment
from asyncbackup.engine.window import Slot
from asyncbackup.errors import ObjectReadFailed
from asyncbackup.format import RecordHeader
from asyncbackup.wire.constants import Result
from asyncbackup.wire.inode import Inode
from asyncbackup.wire.oid import data_oid

_Read = TypeVar("_Read")


class Unreadable(NamedTuple):
    """An object that the cluster cannot give, and what it said."""

    idx: int
    error: ObjectReadFailed


class Found(NamedTuple):
    """What differs in a large object."""

    pair: Pair
    extent: Extent


class Wanted(NamedTuple):
    """A portion of a large object's extent. The first one carries the header of the record."""

    pair: Pair
    portion: Portion
    header: RecordHeader | None


@dataclass(slots=True)
class Fetcher:
    """Reads from ``cluster``, and counts what it read in ``counts``; sizes in bytes.

    It takes pairs that have one base, and raises ValueError for others.

    It compares as much at a time as ``compared_size`` says, and reads what a large record holds in portions of
    ``portion_size``. All reads raise the cluster's errors. After a cancellation nothing more is
    received into the slot.
    """

    cluster: Cluster
    object_size: int
    portion_size: int
    counts: BackupCounts
    compared_size: Callable[[], int] = lambda: COMPARED_SIZE
    working: Inode | None = None
    """The working VDI, if that is what is read: its guest may discard objects meanwhile, which then are zeros."""
    skips_unreadable: bool = False
    """Whether the backup does without what cannot be read. Then an object of which only the base cannot be read is
    taken whole, and what lies in a large one is read before its record begins, to know that it can be."""
    _discarded: set[int] = field(default_factory=set)

    async def fetch_record(self, pair: Pair, slot: Slot) -> Fragment | Unreadable | None:
        """Read what is needed of an object that fits into the two buffers of a slot; None if nothing differs."""
        self._count(pair)
        return await self._unless_unreadable(
            pair, lambda pair: self._fetch_record(pair, slot), lambda pair: self._fetch_whole(pair, slot)
        )

    async def _fetch_whole(self, pair: Pair, slot: Slot) -> Fragment:
        data = await self._read_to(pair, 0, slot.buffers[0])
        return Fragment(RecordHeader(pair.idx, 0, self.object_size), [data])

    async def _fetch_record(self, pair: Pair, slot: Slot) -> Fragment | None:
        ends = await self._find_ends(pair, slot)
        if ends is None:
            return None
        first, last, start, end = ends
        header = RecordHeader(pair.idx, start, end - start)
        compared = [first.cut(start, min(end, first.end))] + ([] if first is last else [last.cut(last.offset, end)])
        if first is last or first.end == last.offset:
            base = [both.base for both in compared] if is_always_compared(start, end) else None
            return Fragment(header, [both.to for both in compared], base)
        between = await self._read_to(pair, first.end, slot.buffers[0][first.end : last.offset])
        return Fragment(header, [compared[0].to, between, compared[1].to])

    async def find_extent(self, pair: Pair, slot: Slot) -> Found | Unreadable:
        """Find what differs in a large object, in the two buffers of a slot."""
        self._count(pair)
        return await self._unless_unreadable(
            pair,
            lambda pair: self._find_extent(pair, slot),
            lambda pair: self._try(pair, Extent(0, self.object_size), slot),
        )

    async def _find_extent(self, pair: Pair, slot: Slot) -> Found:
        ends = await self._find_ends(pair, slot)
        extent = Extent(ends.start, ends.end - ends.start) if ends else Extent(0, 0)
        return await self._try(pair, extent, slot) if self.skips_unreadable else Found(pair, extent)

    async def _try(self, pair: Pair, extent: Extent, slot: Slot) -> Found:
        """Read all that the record will hold: once the record was begun it cannot be left out."""
        for portion in cut(extent.offset, extent.offset + extent.length, self.portion_size):
            await self._read_to(pair, portion.offset, slot.buffers[0][: portion.length])
        return Found(pair, extent)

    async def cut_extents(self, found: AsyncIterable[Found | Unreadable]) -> AsyncGenerator[Wanted | Unreadable, None]:
        """Cut what differs in large objects into portions. What cannot be read comes as it is."""
        async for each in found:
            if isinstance(each, Unreadable):
                yield each
                continue
            pair, (offset, length) = each
            header = RecordHeader(pair.idx, offset, length)
            for portion in cut(offset, offset + length, self.portion_size):
                yield Wanted(pair, portion, header if portion.is_first else None)

    async def fetch_portion(self, wanted: Wanted | Unreadable, slot: Slot) -> Fragment | Unreadable:
        """Read a portion of what a record holds, into the one buffer of a slot. Raises ObjectReadFailed."""
        if isinstance(wanted, Unreadable):
            return wanted
        (into,) = slot.buffers
        pair, portion, header = wanted
        data = await self._unless_discarded(
            pair, lambda pair: self._read_to(pair, portion.offset, into[: portion.length])
        )
        return Fragment(header, [data], is_last=portion.is_last)

    def _count(self, pair: Pair) -> None:
        if len(pair.base_owners) != 1:
            raise ValueError(f"expected a pair with one base, got one with {len(pair.base_owners)}")
        self.counts.objects_read += sum(owner != 0 for owner in (pair.to_owner, *pair.base_owners))

    async def _unless_unreadable(
        self, pair: Pair, read: Callable[[Pair], Awaitable[_Read]], read_whole: Callable[[Pair], Awaitable[_Read]]
    ) -> _Read | Unreadable:
        """Read ``pair``; where only the base cannot be read, and objects may be left out, what it has by itself."""
        try:
            try:
                return await self._unless_discarded(pair, read)
            except ObjectReadFailed as error:
                if not self.skips_unreadable or error.oid not in _bases_of(pair):
                    raise
            whole = await self._unless_discarded(pair, read_whole)
            self.counts.bases_unreadable += 1
            return whole
        except ObjectReadFailed as error:
            # A traceback would keep the buffers.
            return Unreadable(pair.idx, error.with_traceback(None))

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

    async def _find_ends(self, pair: Pair, slot: Slot) -> Ends | None:
        (base_owner,) = pair.base_owners
        to, base = slot.buffers
        compares_since_s = time.monotonic()

        async def read_both(offset: int, to: memoryview, base: memoryview) -> tuple[memoryview, memoryview]:
            nonlocal compares_since_s
            self.counts.compare_s += time.monotonic() - compares_since_s
            to, base = await self._read(pair.idx, offset, [(pair.to_owner, to), (base_owner, base)])
            compares_since_s = time.monotonic()
            return to, base

        size = min(self.compared_size(), self.portion_size)
        ends = await find_ends(self.object_size, size, to, base, read_both)
        self.counts.compare_s += time.monotonic() - compares_since_s
        return ends

    async def _read_to(self, pair: Pair, offset: int, into: memoryview) -> memoryview:
        (data,) = await self._read(pair.idx, offset, [(pair.to_owner, into)])
        return data

    async def _read(self, idx: int, offset: int, sides: list[tuple[int, memoryview]]) -> list[memoryview]:
        """Read each side, an owner and a buffer, into the buffer if anybody owns it; give where its bytes are."""
        reads = [ObjectRead(data_oid(owner, idx), buffer, offset) for owner, buffer in sides if owner]
        await self.cluster.read_objects(reads)
        self.counts.bytes_read += sum(len(read.into) for read in reads)
        return [buffer if owner else ZEROS[: len(buffer)] for owner, buffer in sides]


def _bases_of(pair: Pair) -> set[int]:
    return {data_oid(owner, pair.idx) for owner in pair.base_owners if owner}
