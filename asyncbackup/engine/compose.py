"""Lays the records of a chain over a base, and checks both against the manifests meanwhile."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Final, Protocol

import numpy as np
import xxhash
from anyio import to_thread

from asyncbackup.client import Cluster
from asyncbackup.engine.chain import Group, Part
from asyncbackup.engine.compact import MAX_LENGTH, ZEROS, is_zeros
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.errors import (
    BaseMismatch,
    BaseNeeded,
    ClusterError,
    DigestMismatch,
    InodeCorrupt,
    NotFound,
    ObjectReadFailed,
    RequestFailed,
    SnapshotChanged,
    SourceUnreadable,
    single_error,
)
from asyncbackup.storage import FileSource
from asyncbackup.wire.inode import Inode, Owners
from asyncbackup.wire.oid import data_oid

_LOOKED_AT: Final = 256 << 10
"""Bytes of an image to look at at a time: where they are zeros the next ones follow, else the object is known."""


class Base(Protocol):
    """What lies under a chain."""

    @property
    def name(self) -> str:
        """What messages call it."""

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        """Fill ``into`` with what the base has from ``offset`` of object ``idx``."""

    async def check_unchanged(self) -> None:
        """Raise if what was read so far need not be what the base had when it was opened."""


class ZeroBase:
    """Nothing: what a full backup is the difference to."""

    name = "an empty VDI"

    async def read(self, idx: int, offset: int, into: memoryview) -> None:  # noqa: ARG002 - it is the same everywhere
        into[:] = ZEROS[: len(into)]

    async def check_unchanged(self) -> None:
        """Do nothing: it does not change."""


class SnapshotBase:
    """A VDI or snapshot in a cluster; ``owners`` of its data objects, u32 each."""

    def __init__(self, cluster: Cluster, inode: Inode, owners: Owners) -> None:
        self.inode = inode
        self.owners = owners
        self.name = str(inode)
        self._cluster = cluster

    @classmethod
    async def open(cls, cluster: Cluster, inode: Inode, count: int | None = None) -> SnapshotBase:
        """Read the owners of the first ``count`` objects, by default of all that the VDI's size spans."""
        owners = await cluster.read_owners(inode.vdi_id, inode.object_count if count is None else count)
        return cls(cluster, inode, owners)

    def owner(self, idx: int) -> int:
        """Give the owner of a data object; 0: nobody."""
        return int(self.owners[idx]) if idx < len(self.owners) else 0

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        owner = self.owner(idx)
        if not owner:
            into[:] = bytes(len(into))
            return
        await self._cluster.read_object(data_oid(owner, idx), into, offset)

    async def check_unchanged(self) -> None:
        """Raise SnapshotChanged if the snapshot is gone, or its owners are not those that were used.

        Clients empty the table of a snapshot that they delete from its beginning on, and its name goes last
        (``docs/protocol.md``): a table that was read meanwhile has only a part of the objects. Of a working VDI only
        the name is looked at: its table changes as it is written to.
        """
        try:
            found = await self._find_again()
        except NotFound as error:
            raise SnapshotChanged(self.name, "it is not there any more") from error
        if _told_apart_by(found) != _told_apart_by(self.inode):
            raise SnapshotChanged(self.name, "its name is gone, or another's now")
        if not self.inode.is_snapshot:
            return
        owners = await self._cluster.read_owners(self.inode.vdi_id, len(self.owners))
        gone = int(np.count_nonzero(owners != self.owners))
        if gone:
            raise SnapshotChanged(self.name, f"{gone} of its objects were given up since its table was read first")

    async def _find_again(self) -> Inode:
        if self.inode.is_snapshot:
            return await self._cluster.find_vdi(self.inode.name, self.inode.snap_id)
        # By id: a snapshot that is taken of it meanwhile has its id, and harms nobody.
        return await self._cluster.read_inode(self.inode.vdi_id)


def _told_apart_by(inode: Inode) -> tuple[str, int, int]:
    return inode.name, inode.vdi_id, inode.create_time


@asynccontextmanager
async def staying(*bases: Base | None) -> AsyncIterator[None]:
    """Check ``bases``, after what the block reads of them and before anything of it becomes visible.

    Where the block fails as it would if one of them was being deleted, that is told in place of the failure.
    """
    read = [base for base in dict.fromkeys(bases) if base is not None]
    try:
        with single_error():
            yield
    except (ObjectReadFailed, BaseMismatch):
        for base in read:
            # That it cannot be found out is no news: the failure itself is.
            with suppress(ClusterError, RequestFailed, InodeCorrupt):
                await base.check_unchanged()
        raise
    for base in read:
        await base.check_unchanged()


class ImageBase:
    """A raw image; what lies behind its end, and behind its first ``objects`` objects, is zeros."""

    def __init__(self, source: FileSource, object_size: int, objects: int | None = None) -> None:
        self.name = source.name
        self._source = source
        self._object_size = object_size
        self._objects = objects

    async def read(self, idx: int, offset: int, into: memoryview) -> None:
        count = 0
        if self._objects is None or idx < self._objects:
            count = await self._source.read_into(idx * self._object_size + offset, into)
        into[count:] = bytes(len(into) - count)

    async def find_objects(self, on_progress: OnProgress | None = None) -> array[int]:
        """Find the objects that hold anything but zeros: their indices, ascending.

        Holes are skipped. What is no hole is read until something is found, so that most objects cost little.
        Raises SourceUnreadable.
        """
        found, through = array("I"), memoryview(bytearray(_LOOKED_AT))
        end, offset = self._source.size, 0
        if self._objects is not None:
            end = min(end, self._objects * self._object_size)
        while offset < end:
            if on_progress is not None:
                done, planned = offset // self._object_size, -(-end // self._object_size)
                on_progress(Progress(done, planned, offset, is_checking=True))
            idx, offset = await to_thread.run_sync(self._look, offset, end, through)
            if idx is not None:
                found.append(idx)
        return found

    def _look(self, start: int, end: int, through: memoryview) -> tuple[int | None, int]:
        """Look at what comes from ``start`` on; give the object that was found, if one was, and where to go on."""
        start, data_end = self._source.find_data(start)
        if start >= end:
            return None, end
        idx = start // self._object_size
        # A cancellation waits for this.
        end = min(end, data_end, (idx + 1) * self._object_size, start + MAX_LENGTH)
        while start < end:
            count = self._source.read_now(start, through[: end - start])
            if not count:
                raise SourceUnreadable(self.name, f"expected {end} bytes, got {start}: it was cut off meanwhile")
            if not is_zeros(through[:count]):
                return idx, (idx + 1) * self._object_size
            start += count
        return None, end

    async def check_unchanged(self) -> None:
        """Raise SourceUnreadable if somebody wrote to the image since it was opened."""
        if self._source.was_changed():
            raise SourceUnreadable(self.name, "somebody wrote to it while it was being read")


@dataclass(frozen=True, slots=True)
class Composer:
    """Makes contents of what a chain's files have and, where they have nothing, of ``base``.

    Without a base, a range that no file covers is a BaseNeeded. What records are laid over is compared with
    what their manifests say it was, unless the base is being changed meanwhile: then it is not ``base_is_whole``.
    """

    base: Base | None
    base_is_whole: bool = True

    async def compose(self, group: Group, start: int, into: memoryview, digests: Sequence[Digests | None] = ()) -> None:
        """Fill ``into`` with object ``group.idx`` from byte ``start``; take what is read into ``digests``, one a part.

        Raises BaseNeeded, and what reading the base and the backups raises.
        """
        end = start + len(into)
        gap = group.first_gap(start, end)
        if self.base is not None and (gap or any(taken and taken.with_base for taken in digests)):
            await self.base.read(group.idx, start, into)
        elif gap:
            raise BaseNeeded(group.parts[0].reader.name, group.idx, gap[0], gap[1] - gap[0])
        for part, taken in zip_longest(group.parts, digests):
            first, last = max(start, part.start), min(end, part.end)
            if first < last:
                view = into[first - start : last - start]
                await part.reader.read_data(part.record, first - part.start, view, taken)

    async def compose_checked(self, group: Group, into: memoryview) -> None:
        """Fill ``into`` with all that the chain has of an object, and check it. Raises DigestMismatch, BaseMismatch."""
        digests = self.digests(group)
        await self.compose(group, group.start, into, digests)
        self.judge(group, digests)

    async def check(self, group: Group, through: memoryview) -> None:
        """Check an object that is larger than the buffer ``through``; what remains there is of no use."""
        digests = self.digests(group)
        for start in range(group.start, group.end, len(through)):
            await self.compose(group, start, through[: group.end - start], digests)
        self.judge(group, digests)

    def digests(self, group: Group) -> list[Digests | None]:
        """Make what takes the digests that the manifests let us check; the base's only if it has to be read for it."""
        alone_on_zeros = len(group.parts) == 1 and isinstance(self.base, ZeroBase)
        return [
            None if part.record.digests is None else Digests(with_base=self._checks_base(part) and not alone_on_zeros)
            for part in group.parts
        ]

    def _checks_base(self, part: Part) -> bool:
        digests = part.record.digests
        return self.base_is_whole and self.base is not None and digests is not None and digests.base is not None

    def judge(self, group: Group, digests: Sequence[Digests | None]) -> None:
        """Raise DigestMismatch or BaseMismatch unless ``digests``, which took all of an object, are as they should."""
        for part, taken in zip(group.parts, digests, strict=True):
            expected = part.record.digests
            if taken is None or expected is None:
                continue
            if self._checks_base(part):
                base = taken.base.hexdigest() if taken.with_base else _digest_of_zeros(part.record.header.length)
                if base != expected.base:
                    raise BaseMismatch(part.reader.name, group.idx, self._under(group, part))
            if expected.data != taken.data.hexdigest():
                raise DigestMismatch(part.reader.name, group.idx, expected.data, taken.data.hexdigest())

    def _under(self, group: Group, part: Part) -> str:
        assert self.base is not None
        older = group.parts[: group.parts.index(part)]
        return " with ".join([self.base.name, *(below.reader.name for below in older)])


@lru_cache
def _digest_of_zeros(length: int) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, length, len(ZEROS)):
        digest.update(ZEROS[: length - start])
    return digest.hexdigest()
