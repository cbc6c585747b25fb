"""The index of a chain: which records its files have of each object, and where their bytes are.

It is made in one pass over the headers. Then it finds any object by its number. It takes at most 28 bytes a record.
A pipe can be read only once, so a chain with a pipe has no index: ``Chain.groups`` reads it.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from asyncbackup.engine.chain import Chain, ChainRecord, Group
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.engine.reader import BackupReader, Record
from asyncbackup.engine.source import NO_INDICES, Indices, ObjectSource
from asyncbackup.errors import BackupDamaged, BaseNeeded
from asyncbackup.format import RecordHeader
from asyncbackup.format.manifest import RecordDigests
from asyncbackup.format.record import RECORD_HEADER_SIZE

_REPORT_INTERVAL: Final = 1024
"""Records between two progress reports. The pass over the headers reads some thousand records a second."""

_BLOCK: Final = 1024
"""Objects whose groups are made at a time: numpy needs as long for one object as for many."""


class Records:
    """The headers of some files, column by column: idx, file, offset, length, position."""

    def __init__(self) -> None:
        # An array grows in place, and numpy works on it without a copy.
        self._columns = [array("I"), array("I"), array("I"), array("I"), array("Q")]

    def __len__(self) -> int:
        return len(self._columns[0])

    def append(self, file: int, records: Sequence[Record]) -> None:
        """Add records of the file at place ``file`` of the chain, in their order. Older files must be added first."""
        headers = [record.header for record in records]
        idx, files, offset, length, position = self._columns
        idx.extend([header.idx for header in headers])
        files.extend([file] * len(records))
        offset.extend([header.offset for header in headers])
        length.extend([header.length for header in headers])
        position.extend([record.position for record in records])

    def take_sorted(self) -> list[NDArray[Any]]:
        """Give the columns by idx and then by the age of the file: u32, the last one u64. Then nothing is left here."""
        columns, self._columns = self._columns, []
        idx = _as_numpy(columns[0])
        if np.all(idx[:-1] <= idx[1:]):
            return [_as_numpy(column) for column in columns]
        # A stable sort keeps the order of the files. It is fast, because each file is in order already.
        order = np.argsort(idx, kind="stable")
        del idx
        # One column after the other, so that only one of them is in memory twice.
        return [_as_numpy(columns.pop(0))[order] for _ in range(len(columns))]


def _as_numpy(column: array[int]) -> NDArray[Any]:
    return np.frombuffer(column, np.uint32 if column.typecode == "I" else np.uint64)


class Index:
    """Finds the records of a chain by object. ``read_index`` makes it."""

    def __init__(self, chain: Chain, columns: Sequence[NDArray[Any]]) -> None:
        """``columns`` are what ``Records.take_sorted`` gives."""
        self.chain = chain
        self._idx, self._file, self._offset, self._length, self._position = columns
        is_first = np.ones(len(self._idx), np.bool_)
        np.not_equal(self._idx[1:], self._idx[:-1], out=is_first[1:])
        self.indices: Indices = self._idx if is_first.all() else self._idx[is_first]
        """The indices of all objects that have records."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index takes."""
        columns = {id(each): each for each in (*self.columns(), self.indices)}
        return sum(int(column.nbytes) for column in columns.values())

    def columns(self) -> tuple[NDArray[Any], ...]:
        """Give the columns that it was made of."""
        return self._idx, self._file, self._offset, self._length, self._position

    def lengths(self) -> NDArray[np.int64]:
        """Give for each of ``indices`` how many bytes its records have together."""
        if not len(self.indices):
            return np.zeros(0, np.int64)
        return np.add.reduceat(self._length, np.searchsorted(self._idx, self.indices), dtype=np.int64)

    def within(self, first: int, end: int) -> Index:
        """Give the index of the objects from ``first`` on, before ``end``. It shares the memory of this one."""
        start, stop = np.searchsorted(self._idx, np.array([first, end], np.uint64)).tolist()
        return Index(self.chain, [column[start:stop] for column in self.columns()])

    @property
    def known_object_size(self) -> int | None:
        """Bytes of an object; None if neither a manifest nor the caller says it."""
        return self.chain.known_object_size

    @property
    def is_far(self) -> bool:
        """Whether a file is far away."""
        return self.chain.is_far

    @property
    def last_idx(self) -> int:
        """The index of the last object; -1 if there is none."""
        return int(self.indices[-1]) if len(self.indices) else -1

    def with_whole(self, whole: Indices) -> Indices:
        """Give the indices of all objects for which ``groups`` gives a group if it gets ``whole``."""
        return np.union1d(self.indices, whole) if len(whole) else self.indices

    def group(self, idx: int) -> Group:
        """Find the records of one object, without digests. The object may have no records."""
        (found,) = self._groups_of(np.array([idx], np.uint32), NO_INDICES)
        return found

    def groups_undigested(self, whole: Indices = NO_INDICES) -> Iterator[Group]:
        """Go through the objects as ``groups`` does, but without the digests of the manifests."""
        indices = self.with_whole(whole)
        for start in range(0, len(indices), _BLOCK):
            yield from self._groups_of(indices[start : start + _BLOCK], whole)

    async def groups(self, whole: Indices = NO_INDICES) -> AsyncGenerator[Group, None]:
        """Go through the objects in ascending order of idx, as ``Chain.groups`` does.

        It reads the manifests, but not the headers. Raises BackupDamaged if a manifest was changed after the index was
        made.
        """
        async with AsyncExitStack() as stack:
            manifests = {reader: _ManifestInStep(reader) for reader in self.chain.readers if reader.subject is not None}
            for manifest in manifests.values():
                await stack.enter_async_context(aclosing(manifest.blocks))
            for group in self.groups_undigested(whole):
                records = [
                    ChainRecord(each.reader, await manifests[each.reader].complete(each.record))
                    if each.reader in manifests
                    else each
                    for each in group.records
                ]
                yield Group(group.idx, tuple(records), group.whole)

    def _groups_of(self, indices: Indices, whole: Indices) -> list[Group]:
        """Make the groups of objects. Between them the chain must not have other objects."""
        # If both sides are u32, numpy searches in place. Otherwise it copies the column.
        firsts = np.searchsorted(self._idx, indices, "left").tolist()
        ends = np.searchsorted(self._idx, indices, "right").tolist()
        sizes = np.where(np.isin(indices, whole), self.chain.object_size if len(whole) else 0, 0).tolist()
        start, readers = firsts[0], self.chain.readers
        records = [
            ChainRecord(readers[file], Record(RecordHeader(idx, offset, length), position, None))
            for idx, file, offset, length, position in zip(
                *(column[start : ends[-1]].tolist() for column in self.columns()), strict=True
            )
        ]
        return [
            Group(idx, tuple(records[first - start : end - start]), size)
            for idx, first, end, size in zip(indices.tolist(), firsts, ends, sizes, strict=True)
        ]

    def partly_covered(self) -> Indices:
        """Find the objects of which the chain has some bytes, but not all."""
        object_size = self.chain.object_size
        order = np.lexsort((self._offset, self._idx))
        idx, offset = self._idx[order], self._offset[order]
        # The low 32 bits hold the end of the covered range; the index of the object above them resets it for each
        # object.
        reach = (idx.astype(np.uint64) << np.uint64(32)) | (offset + self._length[order])
        np.maximum.accumulate(reach, out=reach)
        reach &= np.uint64(0xFFFFFFFF)
        is_first = np.ones(len(idx), np.bool_)
        np.not_equal(idx[1:], idx[:-1], out=is_first[1:])
        has_gap = np.where(is_first, offset > 0, False)
        has_gap[1:] |= ~is_first[1:] & (offset[1:] > reach[:-1])
        is_last = np.append(is_first[1:], np.ones(min(1, len(idx)), np.bool_))
        has_gap |= is_last & (reach < object_size)
        return np.unique(idx[has_gap])


class _ManifestInStep:
    """Gives the digests of records from a manifest. The records must be asked for in their order."""

    def __init__(self, reader: BackupReader) -> None:
        self.blocks = reader.digests()
        self._reader = reader
        self._block: Iterator[RecordDigests] = iter(())

    async def complete(self, record: Record) -> Record:
        """Add its digests to ``record``, which must stand behind all records that were asked for before."""
        while (digests := await self._next()) is not None and digests.header.idx < record.header.idx:
            pass  # The index leaves out objects behind the end of a VDI that was made smaller later.
        if digests is None or digests.header != record.header:
            position = record.position - RECORD_HEADER_SIZE
            raise BackupDamaged(self._reader.name, position, "its manifest was changed since the headers were read")
        return Record(record.header, record.position, digests)

    async def _next(self) -> RecordDigests | None:
        while (digests := next(self._block, None)) is None:
            block = await anext(self.blocks, None)
            if block is None:
                return None
            self._block = iter(block)
        return digests


async def read_index(chain: Chain, on_progress: OnProgress | None = None) -> Index:
    """Read all headers of a chain of files, none of which is a pipe.

    Objects that lay behind the end of the VDI at some later time (``Chain.spans``) are left out. Raises BackupDamaged.
    """
    records, next_report = Records(), 0
    for place, reader in enumerate(chain.readers):
        span = chain.spans(place)
        async with aclosing(reader.blocks()) as blocks:
            async for block in blocks:
                if on_progress is not None and len(records) >= next_report:
                    on_progress(Progress(len(records), None, 0, is_checking=True))
                    next_report += _REPORT_INTERVAL
                left = block if span is None else [record for record in block if record.header.idx < span]
                records.append(place, left)
    return Index(chain, records.take_sorted())


class ChainObjects:
    """A chain of backups over ``base``, as an object source. Without a base, bytes without a record are BaseNeeded.

    The base must not have objects that ``Chain.spans`` leaves out. Digests are not checked: ``Replay`` checks them.
    """

    def __init__(self, index: Index, base: ObjectSource | None) -> None:
        names = [reader.name for reader in index.chain.readers]
        self.name = " with ".join([base.name, *names] if base else names)
        self._index = index
        self._base = base
        self._composer = Composer(base)

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        group = self._index.group(idx)
        if self._base is None and not group.records:
            raise BaseNeeded(self.name, idx, offset, len(into))
        await self._composer.compose(group, offset, into)

    async def find_objects(self, on_progress: OnProgress | None = None) -> Indices:
        found = NO_INDICES if self._base is None else await self._base.find_objects(on_progress)
        return self._index.with_whole(found)

    async def check_unchanged(self) -> None:
        """Raise the base's error if the base was changed. The files of a chain are complete, and do not change."""
        if self._base is not None:
            await self._base.check_unchanged()
