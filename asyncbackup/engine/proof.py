"""Writes the manifest of a backup while the backup is being written."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from anyio import to_thread

from asyncbackup.client import Cluster
from asyncbackup.engine.manifest import Digests, manifest_path
from asyncbackup.errors import ManifestUnplaced, OwnInput
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.manifest import ManifestEncoder, RecordDigests, Subject
from asyncbackup.storage import FileTarget, PipeTarget, Target, is_fifo, open_fifo
from asyncbackup.storage.atomic import OnLeftover
from asyncbackup.storage.image import state_path
from asyncbackup.storage.opening import fault_of_name, open_in_thread
from asyncbackup.storage.publication import MANIFEST, Place
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
    """Appends a manifest to ``target``, which whoever owns it commits after ``finish``."""

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


class BackupTarget(NamedTuple):
    """Where a backup goes: what is entered, and not yet committed."""

    data: FileTarget | PipeTarget
    proof: FileTarget | None
    """Where its manifest goes; None: nowhere."""

    @property
    def is_piped(self) -> bool:
        return not self.data.can_patch

    @property
    def usual_dialect(self) -> Dialect:
        """What is written where nobody chose: what collie writes, unless the target is a pipe."""
        return Dialect.DOG if self.is_piped else Dialect.COLLIE


@asynccontextmanager
async def open_target(
    path: str | os.PathLike[str],
    *,
    replace: bool = False,
    manifest: bool | str | os.PathLike[str] = True,
    inputs: Sequence[str | os.PathLike[str]] = (),
    on_leftover: OnLeftover | None = None,
) -> AsyncIterator[BackupTarget]:
    """Open a backup file and, beside it, its manifest, for writing; or a FIFO, whose manifest goes to ``manifest``.

    Without ``manifest`` none is written, and with ``replace`` one that is there goes with the file it is of. Raises
    what entering a FileTarget raises, OwnInput if one of ``inputs`` would be replaced, and ManifestUnplaced for a
    manifest of a file that should go elsewhere than beside it.
    """
    async with AsyncExitStack() as stack:
        elsewhere = None if isinstance(manifest, bool) else manifest
        goes_to_fifo = await is_fifo(path)
        if replace or goes_to_fifo:
            await refuse_own_inputs(path, inputs)
        if goes_to_fifo:
            proof = await _open_proof(stack, elsewhere, replace=replace, on_leftover=on_leftover)
            yield BackupTarget(await stack.enter_async_context(open_fifo(path)), proof)
            return
        if elsewhere is not None:
            raise ManifestUnplaced(str(path))
        data = await stack.enter_async_context(
            FileTarget(path, replace=replace, attached=[MANIFEST], on_leftover=on_leftover)
        )
        yield BackupTarget(
            data, await stack.enter_async_context(FileTarget.beside(data, MANIFEST)) if manifest else None
        )


@asynccontextmanager
async def open_standard_output(
    manifest: str | os.PathLike[str] | None, *, replace: bool = False, on_leftover: OnLeftover | None = None
) -> AsyncIterator[BackupTarget]:
    """Open standard output for a backup, and ``manifest`` for its manifest if it is to have one."""
    async with AsyncExitStack() as stack:
        proof = (
            None if manifest is None else await _open_proof(stack, manifest, replace=replace, on_leftover=on_leftover)
        )
        yield BackupTarget(await stack.enter_async_context(PipeTarget(1)), proof)


async def _open_proof(
    stack: AsyncExitStack, path: str | os.PathLike[str] | None, *, replace: bool, on_leftover: OnLeftover | None
) -> FileTarget | None:
    if path is None:
        return None
    return await stack.enter_async_context(FileTarget(path, replace=replace, on_leftover=on_leftover))


async def refuse_own_inputs(path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Raise OwnInput if writing ``path`` would replace one of ``inputs``, or what is beside one, by whatever name."""
    await open_in_thread(lambda: _refuse_own_inputs(path, inputs), lambda _: None)


def _refuse_own_inputs(path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]]) -> None:
    if fault_of_name(path) is not None:
        return
    place = Place(Path(os.path.realpath(path)))
    replaced = [place.final, place.beside(MANIFEST).final]
    read = [Path(name) for name in inputs]
    beside = [name for given in read for name in (given, os.path.realpath(given)) if given.name]
    read += [path for name in beside for path in (manifest_path(name), state_path(name))]
    for target in replaced:
        for source in read:
            if _is_same(target, source):
                raise OwnInput(str(path), str(source))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
