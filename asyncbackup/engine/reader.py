"""Reads a backup, and its manifest if there is one, record by record in constant memory."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import xxhash
from anyio import to_thread

from asyncbackup.engine.manifest import Digests, ManifestReader
from asyncbackup.errors import (
    BackupCompressed,
    BackupDamaged,
    ContradictsManifest,
    Fact,
    FileNeeded,
    FormatUnclear,
    PieceGiven,
)
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.compression import find_compression
from asyncbackup.format.decoder import LOOK_AHEAD, Decoder, candidates
from asyncbackup.format.manifest import RecordDigests, Subject
from asyncbackup.format.record import RECORD_HEADER_SIZE
from asyncbackup.storage import Access, Source, open_source
from asyncbackup.storage.layers import find_onward, layers_of
from asyncbackup.storage.source import located

_log = logging.getLogger(__package__)

_BATCH: Final = 256
"""Records found in one go in a worker thread. One hop to the thread costs as much as dozens of records."""

_BUFFER_SIZE: Final = 1 << 20
"""Bytes to read at a time if they are only digested, or passed over."""

_AHEAD: Final = 64 << 10
"""Bytes to read at a time where the headers of short records stand in them."""

_SHORT: Final = 8 << 10
"""Bytes of a record at most that is read over, to have the next header: it costs less than another read."""

_SCRATCH_SIZE: Final = 64 << 10
"""Bytes to read at a time behind the end of a backup in a pipe."""

OTHER_RECORD: Final = "its manifest has another record here: it is of another backup"
"""The problem of a record that is another one than the manifest says."""


class Record(NamedTuple):
    """A record, the offset of its data in the backup, and its digests from the manifest."""

    header: RecordHeader
    position: int
    digests: RecordDigests | None


class BackupReader:
    """Reads one backup from ``source`` and, if it has one, ``manifest``. Both must be entered. Call ``begin`` first.

    Only with ``takes_pieces`` it may be a piece of a backup.

    All methods raise SourceMissing, SourceUnreadable and BackupDamaged.
    """

    def __init__(
        self,
        source: Source,
        manifest: Source | None = None,
        *,
        dialect: Dialect | None = None,
        object_size: int | None = None,
        takes_pieces: bool = False,
    ) -> None:
        self.name = source.name
        self.end: int | None = None
        """The size of the backup in bytes. It is known after ``records`` gave the last record."""
        self._source = source
        self._dialect = dialect
        self._object_size = object_size
        self._takes_pieces = takes_pieces
        self._manifest = None if manifest is None else ManifestReader(manifest)

    @property
    def subject(self) -> Subject | None:
        """What the backup holds, by its manifest; None if it has no manifest."""
        return self._manifest.subject if self._manifest else None

    @property
    def missing(self) -> Sequence[int]:
        """The idx of each object that was left out because it could not be read, as the manifest says."""
        return self._manifest.missing if self._manifest else ()

    @property
    def dialect(self) -> Dialect:
        assert self._dialect is not None
        return self._dialect

    @property
    def object_size(self) -> int | None:
        """Bytes of an object, from the manifest or from the caller."""
        return self.subject.object_size if self.subject else self._object_size

    @property
    def data_length(self) -> int | None:
        """Bytes from the first to the end, as the manifest says; None without a manifest."""
        trailer = self._manifest.trailer if self._manifest else None
        return trailer.data_length if trailer else None

    @property
    def _range_length(self) -> int | None:
        """Bytes of the records of a piece; None: it is a whole backup."""
        return self.data_length if self.subject and self.subject.piece else None

    @property
    def size(self) -> int | None:
        """Bytes of the backup, and of what follows it. None: it can be read only once, completely and in order."""
        return self._source.size

    @property
    def is_far(self) -> bool:
        """Whether each read of it takes a journey there and back."""
        return self._source.is_far

    @property
    def _takes_manifest(self) -> bool:
        """Whether ``records`` takes the headers from the manifest, because reading each would take a journey."""
        return self._source.is_far and self._manifest is not None

    @property
    def layers(self) -> tuple[str, ...]:
        """What the file is compressed and encrypted with, the outermost first."""
        return tuple(layers_of(self._source))

    def require_file(self, purpose: str) -> None:
        """Raise FileNeeded if it can be read only once. ``purpose`` tells why that is not enough."""
        if self.size is None:
            raise FileNeeded(self.name, purpose, find_onward(self._source))

    async def count_trailing(self) -> int:
        """Count the bytes behind the end of the backup, after ``records`` gave the last record. This reads a pipe."""
        assert self.end is not None
        if self.size is not None:
            return self.size - self.end
        scratch, trailing = memoryview(bytearray(_SCRATCH_SIZE)), 0
        while count := await self._source.read_into(self.end + trailing, scratch):
            trailing += count
        return trailing

    async def begin(self) -> None:
        """Check the whole manifest, and find out the dialect if the caller did not give it.

        Raises ContradictsManifest if the manifest contradicts what the caller gave, FormatUnclear, and PieceGiven.
        """
        if self._manifest is not None:
            await to_thread.run_sync(self._manifest.check)
        if self.subject is not None:
            if self.subject.piece is not None and not self._takes_pieces:
                raise PieceGiven(self.name, self.subject.piece.number, self.subject.piece.count)
            self._check_subject(self.subject)
        if self._dialect is None:
            self._dialect = await self._find_dialect()

    async def records(self) -> AsyncGenerator[Record, None]:
        """Find the records in order. ``read_data`` reads their data. At the end it is known that no data is missing.

        Of what is far, headers are those that the manifest has, if there is one. The digests prove the data all the
        same. ``read_whole`` reads the headers that stand there.
        """
        async with aclosing(self.blocks()) as blocks:
            async for block in blocks:
                for record in block:
                    yield record

    async def blocks(self) -> AsyncGenerator[list[Record], None]:
        """Find the records as ``records`` does, but give many at a time. A pipe gives one at a time."""
        lines = _Lines(self._manifest.records() if self._manifest else iter(()))
        walk = _Walk(Decoder(self.dialect, self.object_size, self._range_length), lines, [])
        while walk.decoder.next_size:
            if found := await self._find_some(walk):
                yield found
            if walk.damage:
                raise walk.damage[0]
        self._check_end(walk)

    async def digests(self) -> AsyncGenerator[list[RecordDigests], None]:
        """Read the digests of the records from the manifest, in order, many at a time. None without a manifest."""
        if self._manifest is not None:
            records = self._manifest.records()
            while block := await to_thread.run_sync(list, islice(records, _BATCH)):
                yield block

    async def read_data(self, record: Record, start: int, into: memoryview, digests: Digests | None = None) -> None:
        """Fill ``into`` with the record's data from its byte ``start`` on.

        ``digests`` get the content that ``into`` had before, as that of the base, and the new content.
        """
        offset = record.position + start
        if digests is None:
            count = await self._source.read_into(offset, into)
        else:
            take_base = partial(digests.take_base, into) if digests.with_base else None
            count = await self._source.read_into(
                offset, into, before=take_base, after=partial(digests.data.update, into)
            )
        if count < len(into):
            raise _cut_short(self.name, offset + count, len(into) - count)

    async def read_whole(self, first: Record, last: Record, into: memoryview) -> memoryview:
        """Read into ``into`` all from the header of one record to the end of another. Give what it fills of that."""
        start = first.position - RECORD_HEADER_SIZE
        view = into[: last.position + last.header.length - start]
        count = await self._source.read_into(start, view)
        if count < len(view):
            raise _cut_short(self.name, start + count, len(view) - count)
        return view

    async def read_header(self, record: Record) -> bytes:
        """Read the header that stands before the data of ``record``."""
        header = bytearray(RECORD_HEADER_SIZE)
        await self._source.read_into(record.position - RECORD_HEADER_SIZE, memoryview(header))
        return bytes(header)

    def digest_now(self, record: Record, start: int, length: int, through: memoryview, into: xxhash.xxh3_128) -> None:
        """Add part of a record's data to the digest ``into``, through a buffer. Blocks; does not work for pipes."""
        for offset in range(record.position + start, record.position + start + length, len(through)):
            view = through[: record.position + start + length - offset]
            count = self._source.read_now(offset, view)
            if count < len(view):
                raise _cut_short(self.name, offset + count, len(view) - count)
            into.update(view)

    async def skip_data(self, record: Record, digests: Digests | None = None) -> None:
        """Pass over the data of a record. In a pipe the data must be read for that, and goes into ``digests``."""
        if self.size is None:
            through = memoryview(bytearray(min(_BUFFER_SIZE, record.header.length)))
            for start in range(0, record.header.length, len(through)):
                await self.read_data(record, start, through[: record.header.length - start], digests)

    async def identify(self) -> str:
        """Give the xxh3_128 of the manifest, or of the file if it has no manifest. It differs between backups."""
        return await to_thread.run_sync(_digest_all, self._manifest.source if self._manifest else self._source)

    async def _find_dialect(self) -> Dialect:
        if self.subject is not None:
            return self.subject.dialect
        beginning = await self._source.peek(LOOK_AHEAD)
        self._refuse_compressed(beginning)
        with located(self.name):
            possible = candidates(beginning, self.object_size)
        if len(possible) == 1:
            return possible[0]
        # Both are possible. The right one can read all records. If both can, it is the one that reads more bytes.
        if self.size is not None:
            ends = {dialect: await to_thread.run_sync(self._find_end, dialect) for dialect in possible}
            likeliest = max(possible, key=lambda dialect: ends[dialect])
            if ends[likeliest]:
                return likeliest
        raise FormatUnclear(self.name, 8)

    def _find_end(self, dialect: Dialect) -> int:
        """Give the size of the backup if it is read in ``dialect``; 0 if that fails."""
        walk = _Walk(Decoder(dialect, self.object_size), _Lines(iter(())), [])
        while walk.decoder.next_size and not walk.damage:
            self._find_now(walk)
        return 0 if walk.damage else walk.decoder.offset

    async def _find_some(self, walk: _Walk) -> list[Record]:
        if self.size is not None:
            return await to_thread.run_sync(self._find_now, walk)
        header = bytearray(walk.decoder.next_size)
        count = await self._source.read_into(walk.decoder.offset, memoryview(header))
        if self._manifest is not None:
            await walk.lines.fill()
        with located(self.name):
            record = self._feed(walk, memoryview(header)[:count])
        return [] if record is None else [record]

    def _find_now(self, walk: _Walk) -> list[Record]:
        found: list[Record] = []
        try:
            with located(self.name):
                self._walk_on(walk, found)
        except BackupDamaged as damage:
            walk.damage.append(damage)
        return found

    def _walk_on(self, walk: _Walk, found: list[Record]) -> None:
        decoder, size = walk.decoder, self._source.size
        assert size is not None
        ahead, ahead_at, ahead_size, length = memoryview(bytearray(_AHEAD)), 0, 0, 0
        while decoder.next_size and len(found) < _BATCH:
            if self._takes_manifest and decoder.offset and (known := walk.lines.take()):
                decoder.feed(known.header.encode())
                found.append(Record(known.header, decoder.offset - known.header.length, known))
                if decoder.offset > size:
                    raise _cut_short(self.name, size, decoder.offset - size)
                continue
            place = decoder.offset - ahead_at
            if place + decoder.next_size > ahead_size:
                # Where records are short, many headers come in one read. Where they are long, what stands between the
                # headers is not read.
                ahead_at, place = decoder.offset, 0
                ahead_size = self._source.read_now(ahead_at, ahead if length <= _SHORT else ahead[: decoder.next_size])
            record = self._feed(walk, ahead[place : min(place + decoder.next_size, ahead_size)])
            if decoder.offset > size:
                raise _cut_short(self.name, size, decoder.offset - size)
            if record is not None:
                found.append(record)
                length = record.header.length

    def _feed(self, walk: _Walk, header: memoryview) -> Record | None:
        start = walk.decoder.offset
        if start == 0 and self._range_length is None:
            self._refuse_compressed(header)
        decoded = walk.decoder.feed(header)
        if decoded is None:
            return None
        digests = walk.lines.take()
        if self._manifest is not None and (digests is None or digests.header != decoded):
            raise BackupDamaged(self.name, start, OTHER_RECORD)
        return Record(decoded, walk.decoder.offset - decoded.length, digests)

    def _refuse_compressed(self, beginning: bytes | bytearray | memoryview) -> None:
        compression = find_compression(memoryview(beginning))
        if compression is not None:
            raise BackupCompressed(self.name, compression)

    def _check_end(self, walk: _Walk) -> None:
        self.end = walk.decoder.offset
        trailer = self._manifest.trailer if self._manifest else None
        if trailer is not None and trailer[:2] != (walk.decoder.records, self.end):
            raise BackupDamaged(
                self.name,
                self.end,
                f"expected {trailer.records} records in {trailer.data_length} bytes, as its manifest says, "
                f"got {walk.decoder.records} in {self.end}",
            )

    def _check_subject(self, subject: Subject) -> None:
        for fact, given, found in (
            (Fact.FORMAT, self._dialect and self._dialect.value, subject.dialect.value),
            (Fact.OBJECT_SIZE, self._object_size, subject.object_size),
        ):
            if given not in (None, found):
                raise ContradictsManifest(self.name, fact, found, given)


@asynccontextmanager
async def open_backup(
    backup: str | os.PathLike[str] | Source,
    *,
    manifest: str | os.PathLike[str] | Source | None = None,
    with_manifest: bool = True,
    dialect: Dialect | None = None,
    object_size: int | None = None,
    takes_pieces: bool = False,
    access: Access | None = None,
) -> AsyncIterator[BackupReader]:
    """Open a backup and its manifest as ``open_source`` does, and ``begin``. Raises what both of these raise."""
    async with open_source(backup, manifest=manifest, with_manifest=with_manifest, access=access) as opened:
        reader = BackupReader(*opened, dialect=dialect, object_size=object_size, takes_pieces=takes_pieces)
        await reader.begin()
        subject = reader.subject
        _log.info(
            "%s: is read as %s", reader.name, "a backup without a manifest" if subject is None else subject.identity
        )
        yield reader


def _digest_all(source: Source) -> str:
    digest, buffer, offset = xxhash.xxh3_128(), memoryview(bytearray(_BUFFER_SIZE)), 0
    while count := source.read_now(offset, buffer):
        digest.update(buffer[:count])
        offset += count
    return digest.hexdigest()


class _Walk(NamedTuple):
    """A pass over the records: the decoder, and the lines of the manifest that were not used yet."""

    decoder: Decoder
    lines: _Lines
    damage: list[BackupDamaged]
    """The damage that ends the pass. It lies behind the records that were found last."""


class _Lines:
    """The lines of a manifest that were not used yet. To read them blocks."""

    def __init__(self, records: Iterator[RecordDigests]) -> None:
        self._records = records
        self._ahead: deque[RecordDigests] = deque()

    async def fill(self) -> None:
        """Have the next one ready, so that to take it does not block."""
        if not self._ahead:
            self._ahead.extend(await to_thread.run_sync(list, islice(self._records, _BATCH)))

    def take(self) -> RecordDigests | None:
        return self._ahead.popleft() if self._ahead else next(self._records, None)


def _cut_short(name: str, offset: int, missing: int) -> BackupDamaged:
    return BackupDamaged(name, offset, f"the file ends here; expected {missing} more bytes")
