"""The index of a chain: which records its files have of each object, and where their bytes are.

It is made in one pass over the headers, and then any object is found by its number. It takes 28 bytes a record at most.
A file that is a pipe has no place to go back to, so a chain with one has no index: ``Chain.groups`` reads that.
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

_TOLD: Final = 1024
"""Records after which the pass over the headers tells of itself again: it takes some thousand a second."""

_BLOCK: Final = 1024
"""Objects that are made groups of at a time: numpy works on many as fast as on one."""


class Records:
    """What the headers of some files say, column by column: idx, file, offset, length, position."""

    def __init__(self) -> None:
        # An array grows in place, and numpy works on it without a copy.
        self._columns = [array("I"), array("I"), array("I"), array("I"), array("Q")]

    def __len__(self) -> int:
        return len(self._columns[0])

    def append(self, file: int, records: Sequence[Record]) -> None:
        """Add records of the file that has this place in the chain, in their order. Older files go first."""
        headers = [record.header for record in records]
        idx, files, offset, length, position = self._columns
        idx.extend([header.idx for header in headers])
        files.extend([file] * len(records))
        offset.extend([header.offset for header in headers])
        length.extend([header.length for header in headers])
        position.extend([record.position for record in records])

    def take_sorted(self) -> list[NDArray[Any]]:
        """Give the columns, u32 each and the last u64, by idx and then by the age of the file. None are left here."""
        columns, self._columns = self._columns, []
        idx = _as_numpy(columns[0])
        if np.all(idx[:-1] <= idx[1:]):
            return [_as_numpy(column) for column in columns]
        # Stable: files were added by age. And quick: each of them is in order already.
        order = np.argsort(idx, kind="stable")
        del idx
        # One by one, so that memory holds only one of them twice.
        return [_as_numpy(columns.pop(0))[order] for _ in range(len(columns))]


def _as_numpy(column: array[int]) -> NDArray[Any]:
    return np.frombuffer(column, np.uint32 if column.typecode == "I" else np.uint64)


class Index:
    """Finds the records of a chain by object. Made by ``read_index``."""

    def __init__(self, chain: Chain, records: Records) -> None:
        self.chain = chain
        self._idx, self._file, self._offset, self._length, self._position = records.take_sorted()
        is_first = np.ones(len(self._idx), np.bool_)
        np.not_equal(self._idx[1:], self._idx[:-1], out=is_first[1:])
        self.indices: Indices = self._idx if is_first.all() else self._idx[is_first]
        """Of the objects that the chain has something of."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index takes."""
        columns = {id(each): each for each in (*self._columns(), self.indices)}
        return sum(int(column.nbytes) for column in columns.values())

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self._idx, self._file, self._offset, self._length, self._position

    @property
    def known_object_size(self) -> int | None:
        """Bytes of an object; None where neither a manifest nor the caller says it."""
        return self.chain.known_object_size

    @property
    def last_idx(self) -> int:
        """The index of the last object; -1 if there is none."""
        return int(self.indices[-1]) if len(self.indices) else -1

    def with_whole(self, whole: Indices) -> Indices:
        """Give the indices of the objects that ``groups`` gives with these."""
        return np.union1d(self.indices, whole) if len(whole) else self.indices

    def group(self, idx: int) -> Group:
        """Find the records of one object, without digests. There need not be any."""
        (found,) = self._groups_of(np.array([idx], np.uint32), NO_INDICES)
        return found

    def groups_undigested(self, whole: Indices = NO_INDICES) -> Iterator[Group]:
        """Go through the objects as ``groups`` does, but without what manifests say of the records."""
        indices = self.with_whole(whole)
        for start in range(0, len(indices), _BLOCK):
            yield from self._groups_of(indices[start : start + _BLOCK], whole)

    async def groups(self, whole: Indices = NO_INDICES) -> AsyncGenerator[Group, None]:
        """Go through the objects in ascending order of idx, as ``Chain.groups`` does.

        It reads manifests and no headers. Raises BackupDamaged if a manifest was changed since the index was made.
        """
        async with AsyncExitStack() as stack:
            manifests = {reader: _ManifestInStep(reader) for reader in self.chain.readers if reader.subject is not None}
            for manifest in manifests.values():
                await stack.enter_async_context(aclosing(manifest.blocks))
            for group in self.groups_undigested(whole):
                records = [
                    each._replace(record=await manifests[each.reader].complete(each.record))
                    if each.reader in manifests
                    else each
                    for each in group.records
                ]
                yield group._replace(records=tuple(records))

    def _groups_of(self, indices: Indices, whole: Indices) -> list[Group]:
        """Make the groups of objects between which the chain has no others."""
        # With u32 on both sides numpy searches in place; else it copies the column.
        firsts = np.searchsorted(self._idx, indices, "left").tolist()
        ends = np.searchsorted(self._idx, indices, "right").tolist()
        sizes = np.where(np.isin(indices, whole), self.chain.object_size if len(whole) else 0, 0).tolist()
        start, readers = firsts[0], self.chain.readers
        records = [
            ChainRecord(readers[file], Record(RecordHeader(idx, offset, length), position, None))
            for idx, file, offset, length, position in zip(
                *(column[start : ends[-1]].tolist() for column in self._columns()), strict=True
            )
        ]
        return [
            Group(idx, tuple(records[first - start : end - start]), size)
            for idx, first, end, size in zip(indices.tolist(), firsts, ends, sizes, strict=True)
        ]

    def partly_covered(self) -> Indices:
        """Find the objects of which the chain has something, but not every byte."""
        object_size = self.chain.object_size
        order = np.lexsort((self._offset, self._idx))
        idx, offset = self._idx[order], self._offset[order]
        # The end of what is covered without a gap, below the index of the object: so it begins anew with each.
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
    """Gives what a manifest says of records that are asked for in their order."""

    def __init__(self, reader: BackupReader) -> None:
        self.blocks = reader.digests()
        self._reader = reader
        self._block: Iterator[RecordDigests] = iter(())

    async def complete(self, record: Record) -> Record:
        """Add its digests to ``record``, which stands behind all that were asked for before."""
        while (digests := await self._next()) is not None and digests.header.idx < record.header.idx:
            pass  # The index leaves out what lay behind the end of a VDI that was smaller later.
        if digests is None or digests.header != record.header:
            position = record.position - RECORD_HEADER_SIZE
            raise BackupDamaged(self._reader.name, position, "its manifest was changed since the headers were read")
        return record._replace(digests=digests)

    async def _next(self) -> RecordDigests | None:
        while (digests := next(self._block, None)) is None:
            block = await anext(self.blocks, None)
            if block is None:
                return None
            self._block = iter(block)
        return digests


async def read_index(chain: Chain, on_progress: OnProgress | None = None) -> Index:
    """Read all headers of a chain of files, none of which is a pipe.

    What lay behind the end of the VDI at some later time (``Chain.spans``) is left out. Raises BackupDamaged.
    """
    records, told = Records(), 0
    for place, reader in enumerate(chain.readers):
        span = chain.spans(place)
        async with aclosing(reader.blocks()) as blocks:
            async for block in blocks:
                if on_progress is not None and len(records) >= told:
                    on_progress(Progress(len(records), None, 0, is_checking=True))
                    told += _TOLD
                left = block if span is None else [record for record in block if record.header.idx < span]
                records.append(place, left)
    return Index(chain, records)


class ChainObjects:
    """A chain of backups over ``base``, as an object source. Without a base, what no record covers is a BaseNeeded.

    The base must not have what ``Chain.spans`` leaves out. Digests are not checked: ``Replay`` does that.
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
        """Raise what the base raises if it was changed. Files of a chain are complete, and nobody writes to them."""
        if self._base is not None:
            await self._base.check_unchanged()
