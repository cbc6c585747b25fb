"""Reads a backup, and its manifest if there is one, record by record in constant memory."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import xxhash
from anyio import to_thread

from asyncbackup.engine.manifest import Digests, ManifestFile, find_manifest, located
from asyncbackup.errors import (
    BackupCompressed,
    BackupDamaged,
    ContradictsManifest,
    Fact,
    FormatUnclear,
    SourceUnreadable,
)
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.compression import find_compression
from asyncbackup.format.decoder import LOOK_AHEAD, Decoder, candidates
from asyncbackup.format.manifest import RecordDigests, Subject
from asyncbackup.storage import FileSource, PipeSource, open_source
from asyncbackup.storage.opening import open_in_thread, open_regular
from asyncbackup.storage.target import BRIEF

_BATCH: Final = 256
"""Records found in one go in a worker thread: to go there costs as much as dozens of them."""

_BUFFER_SIZE: Final = 1 << 20
"""Bytes to read at a time where nobody keeps them."""

_SCRATCH_SIZE: Final = 64 << 10
"""Bytes read at a time that nobody wants."""


class Record(NamedTuple):
    """A record, where its data stands in the backup, and what the manifest says of it."""

    header: RecordHeader
    position: int
    digests: RecordDigests | None


class BackupReader:
    """One backup: a file or a FIFO, or with path ``-`` standard input. Use it as a context.

    Entering checks the manifest as a whole, and finds out the dialect unless it is given. It uses ``manifest`` or, if
    there is one, the file beside the backup. Everything here raises SourceMissing, SourceUnreadable, BackupDamaged, and
    entering HalfReplaced, and ContradictsManifest where the manifest contradicts what is given.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dialect: Dialect | None = None,
        object_size: int | None = None,
        manifest: str | os.PathLike[str] | None = None,
        ignore_manifest: bool = False,
    ) -> None:
        self.name = str(path)
        self.end: int | None = None
        """The size of the backup in bytes, known when ``records`` came to its end."""
        self._source: FileSource | PipeSource = FileSource(self.name)
        self._dialect = dialect
        self._object_size = object_size
        self._manifest = None if manifest is None or ignore_manifest else ManifestFile(Path(manifest))
        self._looks_for_manifest = not ignore_manifest and manifest is None and self.name != "-"
        self._stack = AsyncExitStack()

    @property
    def subject(self) -> Subject | None:
        """What the manifest says the backup is of; None without one."""
        return self._manifest.subject if self._manifest else None

    @property
    def manifest_name(self) -> str | None:
        """What messages call the manifest; None without one."""
        return str(self._manifest.path) if self._manifest else None

    @property
    def dialect(self) -> Dialect:
        assert self._dialect is not None
        return self._dialect

    @property
    def object_size(self) -> int | None:
        """Bytes of an object, as the manifest or the caller says."""
        return self.subject.object_size if self.subject else self._object_size

    @property
    def size(self) -> int | None:
        """Bytes of the file; None for a pipe, whose records can be read only once, and whole, in order."""
        return self._source.size

    async def count_trailing(self) -> int:
        """Count the bytes behind the end of the backup, after ``records`` came to it; of a pipe by reading them."""
        assert self.end is not None
        if self.size is not None:
            return self.size - self.end
        scratch, trailing = memoryview(bytearray(_SCRATCH_SIZE)), 0
        while count := await self._source.read_into(self.end + trailing, scratch):
            trailing += count
        return trailing

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            opened = PipeSource(0) if self.name == "-" else open_source(self.name)
            self._source = await stack.enter_async_context(opened)
            if self._looks_for_manifest:
                self._manifest = await open_in_thread(self._find_manifest, lambda _: None)
            if self._manifest is not None:
                await to_thread.run_sync(self._manifest.check)
            if self.subject is not None:
                self._check_subject(self.subject)
            if self._dialect is None:
                self._dialect = await self._find_dialect()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def records(self) -> AsyncGenerator[Record, None]:
        """Find the records in order; their data is left to ``read_data``. At the end all is known to be there."""
        async with aclosing(self.blocks()) as blocks:
            async for block in blocks:
                for record in block:
                    yield record

    async def blocks(self) -> AsyncGenerator[list[Record], None]:
        """Find the records as ``records`` does, as many at a time as come cheap; of a pipe one at a time."""
        manifest_records = self._manifest.records() if self._manifest else iter(())
        walk = _Walk(Decoder(self.dialect, self.object_size), manifest_records, [])
        while walk.decoder.next_size:
            if found := await self._find_some(walk):
                yield found
            if walk.damage:
                raise walk.damage[0]
        self._check_end(walk)

    async def digests(self) -> AsyncGenerator[list[RecordDigests], None]:
        """Read what the manifest says of each record, in order, some at a time; nothing without a manifest."""
        if self._manifest is not None:
            records = self._manifest.records()
            while block := await to_thread.run_sync(list, islice(records, _BATCH)):
                yield block

    async def read_data(self, record: Record, start: int, into: memoryview, digests: Digests | None = None) -> None:
        """Fill ``into`` with the record's data from byte ``start`` of it, and take both contents into ``digests``."""
        offset = record.position + start
        if isinstance(self._source, FileSource) and len(into) > BRIEF:
            count = await to_thread.run_sync(_overlay, self._source, offset, into, digests)
        else:
            if digests is not None:
                digests.take_base(into)
            count = await self._source.read_into(offset, into)
            if digests is not None:
                digests.data.update(into)
        if count < len(into):
            raise _cut_short(self.name, offset + count, len(into) - count)

    def digest_now(self, record: Record, start: int, length: int, through: memoryview, into: xxhash.xxh3_128) -> None:
        """Take part of a record's data of a file into a digest, through a buffer. For threads."""
        assert isinstance(self._source, FileSource)
        for offset in range(record.position + start, record.position + start + length, len(through)):
            view = through[: record.position + start + length - offset]
            count = self._source.read_now(offset, view)
            if count < len(view):
                raise _cut_short(self.name, offset + count, len(view) - count)
            into.update(view)

    async def skip_data(self, record: Record, digests: Digests | None = None) -> None:
        """Pass over data that nobody wants: a pipe has to be read nevertheless, and is taken into ``digests``."""
        if self.size is None:
            through = memoryview(bytearray(min(_BUFFER_SIZE, record.header.length)))
            for start in range(0, record.header.length, len(through)):
                await self.read_data(record, start, through[: record.header.length - start], digests)

    async def identify(self) -> str:
        """Give the xxh3_128 of the manifest, or of a file that has none: another backup has another."""
        return await to_thread.run_sync(self._identify)

    def _identify(self) -> str:
        digest = xxhash.xxh3_128()
        path = self._manifest.path if self._manifest else Path(self.name)
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                while piece := file.read(_BUFFER_SIZE):
                    digest.update(piece)
        except OSError as error:
            raise SourceUnreadable(str(path), error.strerror or str(error)) from error
        return digest.hexdigest()

    def _find_manifest(self) -> ManifestFile | None:
        try:
            path = find_manifest(self.name)
        except OSError as error:
            raise SourceUnreadable(self.name, error.strerror or str(error)) from error
        return None if path is None else ManifestFile(path)

    async def _find_dialect(self) -> Dialect:
        if self.subject is not None:
            return self.subject.dialect
        beginning = await self._source.peek(LOOK_AHEAD)
        self._refuse_compressed(beginning)
        with located(self.name):
            possible = candidates(beginning, self.object_size)
        if len(possible) == 1:
            return possible[0]
        # Both are possible: what follows the whole way is right, and of two of those the one that explains more bytes.
        if isinstance(self._source, FileSource):
            ends = {dialect: await to_thread.run_sync(self._find_end, dialect) for dialect in possible}
            likeliest = max(possible, key=lambda dialect: ends[dialect])
            if ends[likeliest]:
                return likeliest
        raise FormatUnclear(self.name, 8)

    def _find_end(self, dialect: Dialect) -> int:
        """Give the size of the backup in a dialect that it may be of; 0 if it is not."""
        walk = _Walk(Decoder(dialect, self.object_size), iter(()), [])
        while walk.decoder.next_size and not walk.damage:
            self._find_now(walk)
        return 0 if walk.damage else walk.decoder.offset

    async def _find_some(self, walk: _Walk) -> list[Record]:
        if isinstance(self._source, FileSource):
            return await to_thread.run_sync(self._find_now, walk)
        header = bytearray(walk.decoder.next_size)
        count = await self._source.read_into(walk.decoder.offset, memoryview(header))
        return self._feed(walk, header[:count])

    def _find_now(self, walk: _Walk) -> list[Record]:
        assert isinstance(self._source, FileSource)
        found: list[Record] = []
        header = memoryview(bytearray(LOOK_AHEAD))
        try:
            while walk.decoder.next_size and len(found) < _BATCH:
                count = self._source.read_now(walk.decoder.offset, header[: walk.decoder.next_size])
                records = self._feed(walk, header[:count])
                if walk.decoder.offset > self._source.size:
                    raise _cut_short(self.name, self._source.size, walk.decoder.offset - self._source.size)
                found += records
        except BackupDamaged as damage:
            walk.damage.append(damage)
        return found

    def _feed(self, walk: _Walk, header: bytes | bytearray | memoryview) -> list[Record]:
        start = walk.decoder.offset
        if start == 0:
            self._refuse_compressed(header)
        with located(self.name):
            decoded = walk.decoder.feed(memoryview(header))
        if decoded is None:
            return []
        digests = next(walk.manifest_records, None)
        if self._manifest is not None and (digests is None or digests.header != decoded):
            raise BackupDamaged(self.name, start, "its manifest has another record here: it is of another backup")
        return [Record(decoded, walk.decoder.offset - decoded.length, digests)]

    def _refuse_compressed(self, beginning: bytes | bytearray | memoryview) -> None:
        compression = find_compression(memoryview(beginning))
        if compression is not None:
            raise BackupCompressed(self.name, compression)

    def _check_end(self, walk: _Walk) -> None:
        self.end = walk.decoder.offset
        trailer = self._manifest.trailer if self._manifest else None
        if trailer is not None and trailer != (walk.decoder.records, self.end):
            raise BackupDamaged(
                self.name,
                self.end,
                f"expected {trailer.records} records in {trailer.data_length} bytes, as its manifest says, "
                f"got {walk.decoder.records} in {self.end}",
            )

    def _check_subject(self, subject: Subject) -> None:
        for fact, told, found in (
            (Fact.FORMAT, self._dialect and self._dialect.value, subject.dialect.value),
            (Fact.OBJECT_SIZE, self._object_size, subject.object_size),
        ):
            if told not in (None, found):
                raise ContradictsManifest(self.name, fact, found, told)


def _overlay(source: FileSource, offset: int, into: memoryview, digests: Digests | None) -> int:
    if digests is None:
        return source.read_now(offset, into)
    digests.take_base(into)
    count = source.read_now(offset, into)
    digests.data.update(into)
    return count


class _Walk(NamedTuple):
    """A way through the records: how far it came, and the manifest's side of it."""

    decoder: Decoder
    manifest_records: Iterator[RecordDigests]
    damage: list[BackupDamaged]
    """What the way ends at, behind the records that were found last."""


def _cut_short(name: str, offset: int, missing: int) -> BackupDamaged:
    return BackupDamaged(name, offset, f"the file ends here; expected {missing} more bytes")
