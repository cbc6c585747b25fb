"""Reads pairs of objects from the cluster, and makes of them the fragments of records: for each base those of a backup.

What lies between the two ends at which an object differs is read last, from the one side that the record needs. What
was read of an object for one base is not read again for another one. Bases that share their object have one record.

An object that does not fit into a slot goes twice: first its extent is found, then what lies inside is read, in
portions. So a record's length is known before its first byte is written, whatever the object size.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
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
    """What differs in a large object: an extent for each base, of no bytes where nothing does."""

    pair: Pair
    extents: Sequence[Extent | Unreadable]

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs from any base."""
        return all(isinstance(extent, Extent) and not extent.length for extent in self.extents)


class Wanted(NamedTuple):
    """A portion of what differs in a large object from one base at least; None where nothing can be read of it."""

    found: Found
    portion: Portion | None


class Fetched(NamedTuple):
    """What there is for the backup against each base: a fragment, or that the object is lost, or nothing."""

    parts: Sequence[Fragment | Unreadable | None]
    is_last: bool = True
    """Whether this was the last of the object."""


class Gathered:
    """Says which bytes of an object were read already. They stand at their own place in ``buffer``."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self._ranges: list[tuple[int, int]] = []

    def lacking(self, start: int, end: int) -> list[tuple[int, int]]:
        """Give the ranges between two offsets that were not read yet."""
        lacking: list[tuple[int, int]] = []
        for first, last in sorted(self._ranges):
            if start < min(first, end):
                lacking.append((start, min(first, end)))
            start = max(start, last)
        return lacking + ([(start, end)] if start < end else [])

    def note(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Take note that these ranges were read."""
        self._ranges += ranges


class _Sides(NamedTuple):
    """An object and one of its bases, and the buffers to read them into."""

    idx: int
    to_owner: int
    base_owner: int
    to: memoryview
    base: memoryview
    gathered: Gathered | None = None
    """What other bases needed of the object; None if there is only this one."""


@dataclass(slots=True)
class Fetcher:
    """Reads from ``cluster``, and counts what it read in ``counts``; sizes in bytes.

    It compares as much at a time as ``compared_size`` says, and reads what a large record holds in portions of
    ``portion_size``. All reads raise the cluster's errors. After a cancellation nothing more is received into the slot.
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

    async def fetch_records(self, pair: Pair, slot: Slot) -> Fetched:
        """Read what is needed of an object that fits into a buffer. A slot has one for it, and one for each base."""
        to, *bases = slot.buffers
        owners = self._count(pair)
        gathered = Gathered(to) if len(owners) > 1 else None
        found: dict[int, Fragment | Unreadable | None] = {pair.to_owner: None}
        for owner, base in zip(owners, bases, strict=False):
            sides = _Sides(pair.idx, pair.to_owner, owner, to, base, gathered)
            found[owner] = await self._unless_unreadable(sides, self._fetch_record, self._fetch_whole)
        return Fetched([found[owner] for owner in pair.base_owners])

    async def _fetch_whole(self, sides: _Sides) -> Fragment:
        data = await self._read_to(sides, 0, sides.to)
        return Fragment(RecordHeader(sides.idx, 0, self.object_size), [data])

    async def _fetch_record(self, sides: _Sides) -> Fragment | None:
        ends = await self._find_ends(sides)
        if ends is None:
            return None
        first, last, start, end = ends
        header = RecordHeader(sides.idx, start, end - start)
        compared = [first.cut(start, min(end, first.end))] + ([] if first is last else [last.cut(last.offset, end)])
        if first is last or first.end == last.offset:
            base = [both.base for both in compared] if is_always_compared(start, end) else None
            return Fragment(header, [both.to for both in compared], base)
        between = await self._read_to(sides, first.end, sides.to[first.end : last.offset])
        return Fragment(header, [compared[0].to, between, compared[1].to])

    async def find_extents(self, pair: Pair, slot: Slot) -> Found:
        """Find what differs in a large object, in the two buffers of a slot."""
        to, base = slot.buffers
        found: dict[int, Extent | Unreadable] = {pair.to_owner: Extent(0, 0)}
        for owner in self._count(pair):
            sides = _Sides(pair.idx, pair.to_owner, owner, to, base)
            found[owner] = await self._unless_unreadable(sides, self._find_extent, self._try_whole)
        return Found(pair, [found[owner] for owner in pair.base_owners])

    async def _find_extent(self, sides: _Sides) -> Extent:
        ends = await self._find_ends(sides)
        extent = Extent(ends.start, ends.end - ends.start) if ends else Extent(0, 0)
        return await self._try(sides, extent) if self.skips_unreadable else extent

    async def _try_whole(self, sides: _Sides) -> Extent:
        return await self._try(sides, Extent(0, self.object_size))

    async def _try(self, sides: _Sides, extent: Extent) -> Extent:
        """Read all that the record will hold: once the record was begun it cannot be left out."""
        for portion in cut(extent.offset, extent.offset + extent.length, self.portion_size):
            await self._read_to(sides, portion.offset, sides.to[: portion.length])
        return extent

    async def cut_extents(self, found: AsyncIterable[Found]) -> AsyncGenerator[Wanted, None]:
        """Cut what differs in large objects from any base into portions."""
        async for each in found:
            extents = [extent for extent in each.extents if isinstance(extent, Extent) and extent.length]
            if not extents:
                yield Wanted(each, None)
                continue
            start = min(extent.offset for extent in extents)
            end = max(extent.offset + extent.length for extent in extents)
            for portion in cut(start, end, self.portion_size):
                yield Wanted(each, portion)

    async def fetch_portion(self, wanted: Wanted, slot: Slot) -> Fetched:
        """Read a portion of what records hold, into the one buffer of a slot. Raises ObjectReadFailed."""
        (pair, extents), portion = wanted
        if portion is None:
            return Fetched([extent if isinstance(extent, Unreadable) else None for extent in extents])
        (into,) = slot.buffers
        sides = _Sides(pair.idx, pair.to_owner, 0, into, into)
        data = await self._unless_discarded(
            sides, lambda sides: self._read_to(sides, portion.offset, into[: portion.length])
        )
        return Fetched([_part(pair.idx, extent, portion, data) for extent in extents], portion.is_last)

    def _count(self, pair: Pair) -> list[int]:
        """Count the objects to read of a pair, and give the owners of the bases that have another object."""
        owners = list(dict.fromkeys(owner for owner in pair.base_owners if owner != pair.to_owner))
        self.counts.objects_read += sum(owner != 0 for owner in (pair.to_owner, *owners))
        return owners

    async def _unless_unreadable(
        self,
        sides: _Sides,
        read: Callable[[_Sides], Awaitable[_Read]],
        read_whole: Callable[[_Sides], Awaitable[_Read]],
    ) -> _Read | Unreadable:
        """Read both sides; where only the base cannot be read, and objects may be left out, the object by itself."""
        try:
            try:
                return await self._unless_discarded(sides, read)
            except ObjectReadFailed as error:
                if not self.skips_unreadable or error.oid != data_oid(sides.base_owner, sides.idx):
                    raise
            whole = await self._unless_discarded(sides, read_whole)
            self.counts.bases_unreadable += 1
            return whole
        except ObjectReadFailed as error:
            # A traceback would keep the buffers.
            return Unreadable(sides.idx, error.with_traceback(None))

    async def _unless_discarded(self, sides: _Sides, read: Callable[[_Sides], Awaitable[_Read]]) -> _Read:
        """Read ``sides``, and where the object was discarded since the plan was made, the same with zeros in its place.

        A server takes a discarded object out of the owner table before it removes it: an object that is missing and
        named there is lost, which is an error.
        """
        try:
            return await read(sides)
        except ObjectReadFailed as error:
            if self.working is None or error.oid != data_oid(self.working.vdi_id, sides.idx):
                raise
            if error.result != Result.NO_OBJ or await self.cluster.read_owner(self.working, sides.idx):
                raise
        self._discarded.add(sides.idx)
        self.counts.objects_discarded = len(self._discarded)
        return await read(sides._replace(to_owner=0))

    async def _find_ends(self, sides: _Sides) -> Ends | None:
        compares_since_s = time.monotonic()

        async def read_both(offset: int, to: memoryview, base: memoryview) -> tuple[memoryview, memoryview]:
            nonlocal compares_since_s
            self.counts.compare_s += time.monotonic() - compares_since_s
            base_read = [ObjectRead(data_oid(sides.base_owner, sides.idx), base, offset)] if sides.base_owner else []
            found = await self._read_to(sides, offset, to, base_read)
            compares_since_s = time.monotonic()
            return found, base if sides.base_owner else ZEROS[: len(base)]

        size = min(self.compared_size(), self.portion_size)
        ends = await find_ends(self.object_size, size, sides.to, sides.base, read_both)
        self.counts.compare_s += time.monotonic() - compares_since_s
        return ends

    async def _read_to(
        self, sides: _Sides, offset: int, into: memoryview, others: Sequence[ObjectRead] = ()
    ) -> memoryview:
        """Read bytes of the object from ``offset``, and ``others`` with them. Give where those of the object are."""
        if not sides.to_owner:
            await self._read(others)
            return ZEROS[: len(into)]
        oid, gathered = data_oid(sides.to_owner, sides.idx), sides.gathered
        if gathered is None:
            await self._read([ObjectRead(oid, into, offset), *others])
            return into
        end = offset + len(into)
        lacking = gathered.lacking(offset, end)
        reads = [ObjectRead(oid, gathered.buffer[first:last], first) for first, last in lacking]
        await self._read([*reads, *others])
        gathered.note(lacking)
        return gathered.buffer[offset:end]

    async def _read(self, reads: Sequence[ObjectRead]) -> None:
        if reads:
            await self.cluster.read_objects(reads)
            self.counts.bytes_read += sum(len(read.into) for read in reads)


def _part(idx: int, extent: Extent | Unreadable, portion: Portion, data: memoryview) -> Fragment | Unreadable | None:
    """Give what a portion holds of an extent; or that the object is lost, with the first portion."""
    if isinstance(extent, Unreadable):
        return extent if portion.is_first else None
    extent_end = extent.offset + extent.length
    start, end = max(extent.offset, portion.offset), min(extent_end, portion.end)
    if start >= end:
        return None
    header = RecordHeader(idx, *extent) if start == extent.offset else None
    return Fragment(header, [data[start - portion.offset : end - portion.offset]], is_last=end == extent_end)
