"""A chain of backups, oldest first, read as one: object by object, each with the records that all files have of it.

``engine/index`` finds the records of files by object. What is here also reads pipes, from the first record to the last.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from asyncbackup.engine.reader import BackupReader, Record, open_backup
from asyncbackup.engine.source import NO_INDICES, Indices
from asyncbackup.errors import BackupIncomplete, ChainBroken, Fact, FactMissing, ManifestMissing, OutsideVdi
from asyncbackup.format import Dialect
from asyncbackup.format.identity import Identity
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import Access, Source


class ChainRecord(NamedTuple):
    """A record of an object, and the file of the chain that it is in. Offsets in bytes of the object."""

    reader: BackupReader
    record: Record

    @property
    def start(self) -> int:
        return self.record.header.offset

    @property
    def end(self) -> int:
        return self.record.header.offset + self.record.header.length


class Group(NamedTuple):
    """All records that a chain has of object ``idx``, the oldest first. Offsets in bytes of the object."""

    idx: int
    records: tuple[ChainRecord, ...]
    whole: int = 0
    """Bytes of the object if all of it is wanted, also where no record covers it; else 0."""

    @property
    def start(self) -> int:
        if self.whole:
            return 0
        return self.records[0].start if len(self.records) == 1 else min(each.start for each in self.records)

    @property
    def end(self) -> int:
        if self.whole:
            return self.whole
        return self.records[0].end if len(self.records) == 1 else max(each.end for each in self.records)

    def covered(self, start: int, end: int) -> list[tuple[int, int]]:
        """Find the ranges in ``start`` to ``end`` that records cover. They are in order and do not touch."""
        found: list[tuple[int, int]] = []
        for each in sorted(self.records, key=lambda each: each.start):
            first, last = max(start, each.start), min(end, each.end)
            if found and first <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], last)
            elif first < last:
                found.append((first, last))
        return found

    def wanted(self, start: int, end: int) -> list[tuple[int, int]]:
        """Find the ranges in ``start`` to ``end`` that are wanted: all of it, or what records cover."""
        return [(start, end)] if self.whole else self.covered(start, end)

    def first_gap(self, start: int, end: int) -> tuple[int, int] | None:
        """Find the first range in ``start`` to ``end`` that no record covers."""
        for each in sorted(self.records, key=lambda each: each.start):
            if each.start > start:
                return start, min(each.start, end)
            start = max(start, each.end)
            if start >= end:
                return None
        return start, end


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """What the caller says of backups that have no manifest.

    A manifest must say the same. Only ``size`` may differ: then it goes before the manifest.
    """

    dialect: Dialect | None = None
    object_size: int | None = None
    """Bytes of an object."""
    size: int | None = None
    """Bytes of the VDI."""
    manifests: Sequence[str | os.PathLike[str] | Source] = ()
    """The manifest of each backup, in their order. Empty: a manifest is looked for beside each backup."""
    access: Access | None = None
    """How to get at them."""

    def manifest(self, place: int) -> str | os.PathLike[str] | Source | None:
        """Give the manifest of the backup at ``place``, from 0 on; None: the one beside it, if there is one."""
        return self.manifests[place] if self.manifests else None

    def open(self, backup: str | os.PathLike[str] | Source, place: int) -> AbstractAsyncContextManager[BackupReader]:
        """Open the backup that stands at ``place``."""
        return open_backup(
            backup,
            manifest=self.manifest(place),
            dialect=self.dialect,
            object_size=self.object_size,
            access=self.access,
        )

    def check(self, backups: int) -> None:
        """Raise ValueError unless there is a manifest for each of so many ``backups``, or none."""
        if self.manifests and len(self.manifests) != backups:
            raise ValueError(f"expected a manifest for each of {backups} backups, or none, got {len(self.manifests)}")


class Chain:
    """Open backups that follow one another. Made by ``open_chain``."""

    def __init__(self, readers: Sequence[BackupReader], options: ChainOptions, *, assume_base: bool = False) -> None:
        self.readers = tuple(readers)
        self._options = options
        if len(readers) > 1 and not assume_base:
            for reader in readers:
                if reader.subject is None:
                    raise ManifestMissing(reader.name)
        sizes = {reader.object_size for reader in readers} - {None}
        if len(sizes) > 1:
            raise ChainBroken(f"expected backups of one object size, got {', '.join(map(str, sizes))} bytes")
        self.known_object_size = sizes.pop() if sizes else None
        """Bytes of an object. None: neither a manifest nor the caller says it."""
        for older, newer in pairwise(readers):
            check_link(older, newer)

    @property
    def subject(self) -> Subject | None:
        """What the newest manifest says."""
        return next((reader.subject for reader in reversed(self.readers) if reader.subject), None)

    @property
    def base(self) -> Identity | None:
        """What the first file is the difference to. None: it is a full backup, or nothing says it."""
        subject = self.readers[0].subject
        return subject.base_identity if subject else None

    @property
    def is_full(self) -> bool | None:
        """Whether the first file is a full backup. None: nothing says it."""
        subject = self.readers[0].subject
        return None if subject is None else subject.is_full

    @property
    def assumed(self) -> str | None:
        """What was assumed of how the files follow one another, in words. None: manifests prove it."""
        bare = [reader.name for reader in self.readers if reader.subject is None]
        if len(self.readers) == 1 or not bare:
            return None
        return f"the backups follow one another, although nothing proves that of {', '.join(bare)}"

    @property
    def missing(self) -> list[int]:
        """The idx of each object that a file lacks, in order: nobody knows what it holds."""
        return sorted({idx for reader in self.readers for idx in reader.missing})

    def require_complete(self) -> None:
        """Raise BackupIncomplete for the first file that lacks objects."""
        for reader in self.readers:
            if reader.missing:
                raise BackupIncomplete(reader.name, reader.missing)

    @property
    def is_piped(self) -> bool:
        """Whether a file is a pipe, which can be read only once."""
        return any(reader.size is None for reader in self.readers)

    @property
    def is_far(self) -> bool:
        """Whether a file is far away, as ``Source.is_far`` says."""
        return any(reader.is_far for reader in self.readers)

    @property
    def stored_size(self) -> int | None:
        """Bytes of all files together. None: one is a pipe."""
        sizes = [reader.size for reader in self.readers if reader.size is not None]
        return sum(sizes) if len(sizes) == len(self.readers) else None

    def require_files(self, purpose: str) -> None:
        """Raise FileNeeded if a file can be read only once; ``purpose`` tells for what, such as "to be compared"."""
        for reader in self.readers:
            reader.require_file(purpose)

    @property
    def object_size(self) -> int:
        """Bytes of an object. Raises FactMissing if neither a manifest nor the caller says it."""
        if self.known_object_size is None:
            raise FactMissing(Fact.OBJECT_SIZE)
        return self.known_object_size

    @property
    def size(self) -> int:
        """Bytes of the VDI after the newest backup. Raises FactMissing if neither a manifest nor the caller says."""
        if self._options.size is not None:
            return self._options.size
        if self.readers[-1].subject is None:
            raise FactMissing(Fact.VDI_SIZE)
        return self.readers[-1].subject.size

    def position(self, idx: int) -> int:
        """Give the offset of object ``idx`` in the VDI, in bytes. Raises OutsideVdi if it lies behind the end."""
        if idx * self.object_size >= self.size:
            raise OutsideVdi(idx, self.size)
        return idx * self.object_size

    def spans(self, first: int = 0) -> int | None:
        """Count the objects that the VDI had at all times from the ``first`` file on. None: no manifest says it.

        A chain may go back to an older snapshot, and on from there. So it may pass a time when the VDI was smaller.
        Then the objects that lay behind that end are gone, although no record says so.
        """
        subjects = [reader.subject for reader in self.readers[first:] if reader.subject]
        return min((-(-subject.size // subject.object_size) for subject in subjects), default=None)

    @property
    def loses_base(self) -> bool:
        """Whether objects of the base are gone although no record says so: the VDI was smaller in between."""
        first, last = self.readers[0].subject, self.subject
        spans = self.spans()
        if first is None or first.base_size is None or last is None or spans is None:
            return False
        return min(first.base_size, last.size) > spans * last.object_size

    async def groups(self, whole: Indices = NO_INDICES) -> AsyncGenerator[Group, None]:
        """Go through the objects in ascending order of idx. It reads all files side by side, in constant memory.

        The objects ``whole`` are wanted as a whole. They come also if no file has a record of them.
        """
        spans = [self.spans(place) for place in range(len(self.readers))]
        wanted = iter(whole.tolist())
        next_whole = next(wanted, None)
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(aclosing(reader.records())) for reader in self.readers]
            heads: list[Record | None] = [await anext(stream, None) for stream in streams]
            while found := [at for at in (next_whole, *map(_idx_of, heads)) if at is not None]:
                idx = min(found)
                here = [place for place, record in enumerate(heads) if _idx_of(record) == idx]
                left = [place for place in here if (span := spans[place]) is None or idx < span]
                records = tuple(ChainRecord(self.readers[place], record) for place in left if (record := heads[place]))
                if idx == next_whole:
                    yield Group(idx, records, self.object_size)
                    next_whole = next(wanted, None)
                elif records:
                    yield Group(idx, records)
                # Not before the group was used: in a pipe the next header comes after the data of this one.
                for place in here:
                    if place not in left and (record := heads[place]):
                        await self.readers[place].skip_data(record)
                    heads[place] = await anext(streams[place], None)


def _idx_of(record: Record | None) -> int | None:
    return None if record is None else record.header.idx


@asynccontextmanager
async def open_chain(
    paths: Sequence[str | os.PathLike[str]],
    options: ChainOptions | None = None,
    *,
    assume_base: bool = False,
    allow_incomplete: bool = False,
) -> AsyncIterator[Chain]:
    """Open backups, oldest first.

    Raises what ``open_backup`` raises, and ChainBroken if they do not follow one another. Raises ManifestMissing if one
    of several backups has no manifest, unless ``assume_base`` is true: then the caller vouches for it. Raises
    BackupIncomplete if one lacks objects that could not be read, unless ``allow_incomplete`` is true.
    """
    check_given(paths)
    options = options or ChainOptions()
    options.check(len(paths))
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(options.open(path, place)) for place, path in enumerate(paths)]
        chain = Chain(readers, options, assume_base=assume_base)
        if not allow_incomplete:
            chain.require_complete()
        yield chain


def check_given(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Raise ValueError if there is no backup, and TypeError for one path in place of a sequence."""
    if isinstance(paths, str | os.PathLike):
        raise TypeError(f"expected a sequence of backups, got one: '{os.fspath(paths)}'")
    if not paths:
        raise ValueError("expected at least one backup, got none")


def check_link(older: BackupReader, newer: BackupReader) -> None:
    """Raise ChainBroken if the manifests say that ``newer`` does not follow ``older``."""
    if older.subject is None or newer.subject is None:
        return
    if newer.subject.vdi != older.subject.vdi:
        raise ChainBroken(f"{newer.name} is of VDI '{newer.subject.vdi}', but {older.name} of '{older.subject.vdi}'")
    if newer.subject.base_identity is None:
        raise ChainBroken(f"{newer.name} is a full backup, so it follows nothing, but it stands behind {older.name}")
    if not newer.subject.base_identity.matches(older.subject.identity):
        raise ChainBroken(
            f"{newer.name} is the difference to {newer.subject.base_identity}, "
            f"but {older.name} before it is of {older.subject.identity}"
        )
    if newer.subject.base_size != older.subject.size:
        raise ChainBroken(
            f"{newer.name} says that {newer.subject.base_identity} has {newer.subject.base_size} bytes, "
            f"but {older.name} before it says {older.subject.size}"
        )
