"""Writes the manifest of a backup while the backup is being written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from anyio import to_thread

from asyncbackup.client import Cluster
from asyncbackup.engine.manifest import Digests
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.storage import Target
from asyncbackup.wire.inode import Inode

_BUFFER_SIZE: Final = 64 << 10
"""Bytes of lines to gather before they are written."""


_BRIEF: Final = 64 << 10
"""Bytes up to which digesting takes less time than a hop to a thread."""


class Written(NamedTuple):
    """Part of a record as it was written: ``header`` if it is the first, its data, and what the base has there.

    ``base`` is None where nobody read it: then the manifest has no digest of it.
    """

    header: RecordHeader | None
    data: Sequence[memoryview]
    base: Sequence[memoryview] | None
    is_last: bool

    @property
    def size(self) -> int:
        """Bytes to digest."""
        return sum(map(len, (*self.data, *(self.base or ()))))


class ManifestWriter:
    """Appends a manifest to ``target``, which its owner completes after ``finish``."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._encoder = ManifestEncoder()
        self._lines: list[bytes] = []
        self._waiting_size = 0
        self._header: RecordHeader | None = None
        self._digests = Digests()
        self._is_full = False

    def start(self, subject: Subject) -> None:
        """Say what the backup is of. A full backup has no base, and so no digests of one."""
        self._is_full = subject.is_full
        self._keep(self._encoder.opening(subject))

    async def add(self, parts: Sequence[Written]) -> None:
        """Take what was or will be written next, in order. The buffers are not used any more when this returns."""
        if sum(part.size for part in parts) <= _BRIEF:
            self._digest(parts)
        else:
            await to_thread.run_sync(self._digest, parts)
        await self._write_if_enough()

    async def add_known(self, record: RecordDigests) -> None:
        """Take a record whose digests are known already."""
        self._keep(self._encoder.record(record._replace(base=None) if self._is_full else record))
        await self._write_if_enough()

    async def finish(self, data_length: int) -> None:
        """Write the rest; ``data_length`` is the size of the backup in bytes."""
        self._keep(self._encoder.ending(data_length))
        await self._write()

    def _digest(self, parts: Iterable[Written]) -> None:
        for header, data, base, is_last in parts:
            if header is not None:
                self._header, self._digests = header, Digests(with_base=not self._is_full)
            for buffer in data:
                self._digests.data.update(buffer)
            self._digests.with_base &= base is not None
            for buffer in base or ():
                self._digests.take_base(buffer)
            if is_last:
                assert self._header is not None
                self._keep(self._encoder.record(self._digests.of(self._header)))

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting_size += len(line)

    async def _write_if_enough(self) -> None:
        if self._waiting_size >= _BUFFER_SIZE:
            await self._write()

    async def _write(self) -> None:
        lines, self._lines, self._waiting_size = self._lines, [], 0
        await self.target.append([b"".join(lines)])


async def describe_backup(cluster: Cluster, to_inode: Inode, base_inode: Inode | None, dialect: Dialect) -> Subject:
    """Make a manifest's first line from the inodes that a backup compares. Raises InodeCorrupt."""
    return Subject(
        size=to_inode.vdi_size,
        object_size=to_inode.object_size,
        copies=to_inode.nr_copies,
        copy_policy=to_inode.copy_policy,
        dialect=dialect,
        identity=await cluster.identify(to_inode),
        base_identity=None if base_inode is None else await cluster.identify(base_inode),
        base_size=None if base_inode is None else base_inode.vdi_size,
    )
