"""Verifies backups: their structure and, if they have manifests, their data and their order."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Final, NamedTuple

import anyio
import xxhash
from anyio import to_thread

from asyncbackup.engine.chain import ChainOptions, check_given, check_link
from asyncbackup.engine.cut import Shard
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.progress import OnProgress, Progress
from asyncbackup.engine.reader import OTHER_RECORD, BackupReader, Record
from asyncbackup.engine.window import Slot, Window
from asyncbackup.errors import (
    AsyncBackupError,
    BackupDamaged,
    ChainBroken,
    DigestMismatch,
    HalfReplaced,
    ManifestMissing,
    SourceError,
    single_error,
)
from asyncbackup.format import Dialect
from asyncbackup.format.piece import PieceRange
from asyncbackup.format.record import RECORD_HEADER_SIZE
from asyncbackup.storage import Access, Source, open_source

_log = logging.getLogger(__package__)

MAX_PROBLEMS: Final = 1000
"""Problems that a report holds. All others are only counted, so that memory is bounded."""

_THROUGH: Final = 256 << 10
"""Bytes to read and digest at a time. They are still in the processor's cache when they are digested."""

_FAR_BYTES: Final = (4 << 20) + (4 << 10)
"""Bytes to read at a time of a backup that is far away, headers and data in one go: a whole object, or many short."""

_FAR_WORKERS: Final = 8
"""How many such reads are under way: 1.6 GB/s where an answer takes 20 ms."""

_BATCH_BYTES: Final = 16 << 20
_BATCH_RECORDS: Final = 256
"""Bytes and records to digest in one go in a thread. More would need fewer hops, but a cancellation waits for them."""


@dataclass(slots=True)
class Problems:
    """The first problems that were found, and the count of all."""

    errors: list[AsyncBackupError] = field(default_factory=list)
    count: int = 0

    def add(self, problem: AsyncBackupError) -> None:
        self.count += 1
        if len(self.errors) < MAX_PROBLEMS:
            # A traceback would keep the values of its frames in memory.
            self.errors.append(problem.with_traceback(None))

    @property
    def messages(self) -> list[str]:
        """Give the first problems in words."""
        return [str(error) for error in self.errors]

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        return {"messages": self.messages, "count": self.count}


@dataclass(slots=True)
class FileReport:
    """What was found in one file. Sizes in bytes."""

    file: str
    dialect: Dialect | None = None
    """None if it could not be found out."""
    records: int = 0
    data_bytes: int = 0
    records_digested: int = 0
    """Records whose data was compared with their digests: all of them if there is a manifest, or one share of them."""
    bytes_digested: int = 0
    trailing_bytes: int = 0
    """Bytes that follow the end of the backup."""
    has_manifest: bool = False
    """Whether there is a good manifest, so that the data could be verified."""
    assumed: int = 0
    """Records that hold bytes of a base that nobody proved."""
    missing: Sequence[int] = ()
    """The idx of each object that was left out because it could not be read."""
    piece: PieceRange | None = None
    """Which piece of a backup it is; None: it is a whole one, or nothing says it."""
    problems: Problems = field(default_factory=Problems)

    @property
    def is_good(self) -> bool:
        return not self.problems.count and not self.missing

    @property
    def is_proved(self) -> bool:
        """Whether a manifest proves all data."""
        is_complete = self.has_manifest and self.records_digested == self.records
        return self.is_good and is_complete and not self.assumed

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        values = {"proved": self.is_proved} | {each.name: getattr(self, each.name) for each in fields(self)}
        return (
            values
            | {"dialect": self.dialect and self.dialect.value, "missing": list(self.missing)}
            | {"piece": self.piece and self.piece.as_dict()}
            | {"problems": self.problems.as_dict()}
        )


@dataclass(slots=True)
class VerifyReport:
    """What was found in all files, and between them."""

    files: list[FileReport]
    links: Problems = field(default_factory=Problems)
    """Problems of neighbours that do not follow one another."""
    unproven_links: int = 0
    """Pairs of neighbours that do not both have a manifest."""

    @property
    def is_good(self) -> bool:
        return not self.links.count and all(file.is_good for file in self.files)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged, although objects may be missing."""
        return not self.links.count and not any(file.problems.count for file in self.files)

    @property
    def is_proved(self) -> bool:
        """Whether manifests prove all data, and that each file follows the one before it."""
        return self.is_good and not self.unproven_links and all(file.is_proved for file in self.files)

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as plain values, for JSON."""
        return {
            "good": self.is_good,
            "proved": self.is_proved,
            "files": [file.as_dict() for file in self.files],
            "links": self.links.as_dict(),
            "unproven_links": self.unproven_links,
        }


async def verify(
    backups: Sequence[str | os.PathLike[str]],
    *,
    require_manifest: bool = False,
    shard: Shard | None = None,
    chain_options: ChainOptions | None = None,
    on_progress: OnProgress | None = None,
) -> VerifyReport:
    """Read all of ``backups``, oldest first, and report all problems. They may be pieces of backups as well.

    With ``shard`` the data of only one share of the records of each file is read. All shares together are all records.

    Without a manifest, only the structure of a file can be verified. With ``require_manifest``, a missing manifest is a
    problem. Raises only SourceMissing and SourceUnreadable: a damaged file is a problem in the report.
    """
    check_given(backups)
    options = chain_options or ChainOptions()
    options.check(len(backups))
    counts = _Counts(await to_thread.run_sync(_measure, backups))
    readers: list[BackupReader | None] = []
    report = VerifyReport([])
    with single_error():
        for place, path in enumerate(backups):
            found = FileReport(str(path))
            report.files.append(found)
            given = _Given(path, options.manifest(place), options.dialect, options.object_size, options.access)
            readers.append(await _verify_file(given, found, counts, on_progress, shard))
            counts.end_file(place)
            if on_progress is not None:
                on_progress(counts.progress())
            if require_manifest and found.is_good and not found.has_manifest:
                found.problems.add(ManifestMissing(found.file))
    for older, newer in pairwise(readers if not any(found.piece for found in report.files) else ()):
        if older is None or newer is None or older.subject is None or newer.subject is None:
            report.unproven_links += 1
            continue
        try:
            check_link(older, newer)
        except ChainBroken as broken:
            report.links.add(broken)
    return report


class _Given(NamedTuple):
    """A file, and the facts that the caller gave for it."""

    path: str | os.PathLike[str]
    manifest: str | os.PathLike[str] | Source | None
    dialect: Dialect | None
    object_size: int | None
    access: Access | None


async def _verify_file(
    given: _Given,
    report: FileReport,
    counts: _Counts,
    on_progress: OnProgress | None,
    shard: Shard | None,
) -> BackupReader | None:
    """Verify one file. Give its closed reader, which still has the manifest's facts; None if the file is no backup."""
    async with AsyncExitStack() as stack:
        reader = await _open(stack, given, report)
        if reader is not None:
            report.dialect, report.has_manifest = reader.dialect, reader.subject is not None
            report.missing, report.piece = reader.missing, reader.subject.piece if reader.subject else None
            await _FileVerification(reader, report, counts, on_progress, shard).run()
            _log.info("%s: verified %d records, found %d problems", report.file, report.records, report.problems.count)
        return reader


async def _open(stack: AsyncExitStack, given: _Given, report: FileReport) -> BackupReader | None:
    """Open a backup. If its manifest is damaged, or is not in its place, open the backup without it."""
    try:
        data, manifest = await stack.enter_async_context(
            open_source(given.path, manifest=given.manifest, access=given.access)
        )
    except HalfReplaced as half:
        report.problems.add(half)
        data, manifest = await stack.enter_async_context(
            open_source(given.path, with_manifest=False, access=given.access)
        )
    try:
        return await _begin(data, manifest, given)
    except BackupDamaged as damage:
        report.problems.add(damage)
        if manifest is None or damage.source != manifest.name:
            return None
    try:
        return await _begin(data, None, given)
    except BackupDamaged as damage:
        report.problems.add(damage)
        return None


async def _begin(data: Source, manifest: Source | None, given: _Given) -> BackupReader:
    reader = BackupReader(data, manifest, dialect=given.dialect, object_size=given.object_size, takes_pieces=True)
    await reader.begin()
    return reader


@dataclass(slots=True)
class _Counts:
    """How far the verification of all files has come."""

    sizes: list[int] | None
    """Bytes of each file; None if one of them is no file."""
    bytes_before: int = 0
    """Bytes of the files that are complete."""
    bytes_done: int = 0
    records_done: int = 0

    def end_file(self, place: int) -> None:
        """Count the whole file at ``place``, with the bytes behind its records."""
        if self.sizes is not None:
            self.bytes_done = sum(self.sizes[: place + 1])
        self.bytes_before = self.bytes_done

    def progress(self) -> Progress:
        planned = None if self.sizes is None else sum(self.sizes)
        return Progress(self.records_done, None, self.bytes_done, planned, is_checking=True)


def _measure(backups: Sequence[str | os.PathLike[str]]) -> list[int] | None:
    """Give the sizes of files, in bytes; None if one of them is no file."""
    sizes = []
    for path in backups:
        try:
            found = os.stat(path)  # noqa: PTH116 - an empty name is no path, and no file either
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        sizes.append(found.st_size)
    return sizes


class JudgedRecord(NamedTuple):
    """A record, whether its data was read and compared, and the problem of it; None: no problem was found."""

    record: Record
    is_digested: bool = False
    problem: SourceError | None = None


@dataclass(slots=True)
class _FileVerification:
    """Goes through one file, and reports its problems."""

    reader: BackupReader
    report: FileReport
    counts: _Counts
    on_progress: OnProgress | None
    shard: Shard | None
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(os.cpu_count() or 1))

    async def run(self) -> None:
        workers, size = 2 * int(self.threads.total_tokens), _THROUGH
        if self._is_read_from_afar:
            workers, size = _FAR_WORKERS, _FAR_BYTES
        window = Window(workers, [size], self._digest, self._deliver)
        async with aclosing(self._batches()) as batches:
            await window.run(batches)
        if self.reader.end is not None:
            await self._judge_end()

    @property
    def _is_read_from_afar(self) -> bool:
        return self.reader.is_far and self.report.has_manifest

    async def _batches(self) -> AsyncGenerator[list[JudgedRecord], None]:
        """Go through the records, some at a time. Damage is a problem, and ends this.

        Records of a pipe are judged here, because their data can be read only once.
        """
        batch: list[JudgedRecord] = []
        size = 0
        most = _FAR_BYTES if self._is_read_from_afar else _BATCH_BYTES
        try:
            async with aclosing(self.reader.records()) as records:
                async for record in records:
                    length = RECORD_HEADER_SIZE + record.header.length
                    if batch and (size + length > most or len(batch) >= _BATCH_RECORDS):
                        yield batch
                        batch, size = [], 0
                    batch.append(await self._pass(record))
                    size += length
        except BackupDamaged as damage:
            # The records before the damage are verified nevertheless.
            self.report.problems.add(damage)
        if batch:
            yield batch

    def _is_wanted(self, record: Record) -> bool:
        """Tell whether the data of a record is to be compared: if it begins in our share of the bytes."""
        length = self.reader.data_length
        if length is None or self.shard is None:
            return length is not None
        return record.position * self.shard.count // length == self.shard.number - 1

    async def _pass(self, record: Record) -> JudgedRecord:
        if self.reader.size is not None or not self._is_wanted(record):
            await self.reader.skip_data(record)
            return JudgedRecord(record)
        taken = Digests(with_base=False)
        await self.reader.skip_data(record, taken)
        return self._judge(record, taken.data)

    async def _digest(self, found: list[JudgedRecord], slot: Slot) -> list[JudgedRecord]:
        """Compare the data of a batch with its manifest."""
        if self.reader.size is None:
            return found
        batch = [judged.record for judged in found if self._is_wanted(judged.record)]
        others = [judged for judged in found if not self._is_wanted(judged.record)]
        digest = self._digest_far if self._is_read_from_afar else self._digest_wanted
        return others + (await digest(batch, slot) if batch else [])

    async def _digest_wanted(self, batch: list[Record], slot: Slot) -> list[JudgedRecord]:
        large = [record for record in batch if record.header.length > _BATCH_BYTES]
        if not large:
            return await to_thread.run_sync(self._digest_now, batch, slot.buffers[0], limiter=self.threads)
        judged: list[JudgedRecord] = []
        for record in batch:
            taken = xxhash.xxh3_128()
            for start in range(0, record.header.length, _BATCH_BYTES):
                length = min(_BATCH_BYTES, record.header.length - start)
                await to_thread.run_sync(
                    self.reader.digest_now, record, start, length, slot.buffers[0], taken, limiter=self.threads
                )
            judged.append(self._judge(record, taken))
        return judged

    async def _digest_far(self, batch: list[Record], slot: Slot) -> list[JudgedRecord]:
        """Compare the data of records that follow one another, and their headers, which nobody has read yet."""
        first, last, through = batch[0], batch[-1], slot.buffers[0]
        if last.position + last.header.length - first.position + RECORD_HEADER_SIZE <= len(through):
            view = await self.reader.read_whole(first, last, through)
            return await to_thread.run_sync(self._judge_whole, batch, view, limiter=self.threads)
        assert first is last, "what does not fit is one large record"
        taken = Digests(with_base=False)
        header = await self.reader.read_header(first)
        for start in range(0, first.header.length, len(through)):
            await self.reader.read_data(first, start, through[: first.header.length - start], taken)
        return [self._judge_header(first, header) or self._judge(first, taken.data)]

    def _judge_whole(self, batch: list[Record], view: memoryview) -> list[JudgedRecord]:
        """Judge records of which all lie in ``view``, with their headers. Blocks."""
        start, judged = batch[0].position, []
        for record in batch:
            data = view[record.position - start + RECORD_HEADER_SIZE :][: record.header.length]
            header = view[record.position - start :][:RECORD_HEADER_SIZE]
            judged.append(self._judge_header(record, header) or self._judge(record, xxhash.xxh3_128(data)))
        return judged

    def _judge_header(self, record: Record, header: bytes | memoryview) -> JudgedRecord | None:
        if header == record.header.encode():
            return None
        at = record.position - RECORD_HEADER_SIZE
        return JudgedRecord(record, problem=BackupDamaged(self.reader.name, at, OTHER_RECORD))

    def _digest_now(self, batch: list[Record], through: memoryview) -> list[JudgedRecord]:
        judged: list[JudgedRecord] = []
        for record in batch:
            taken = xxhash.xxh3_128()
            self.reader.digest_now(record, 0, record.header.length, through, taken)
            judged.append(self._judge(record, taken))
        return judged

    def _judge(self, record: Record, taken: xxhash.xxh3_128) -> JudgedRecord:
        assert record.digests is not None
        expected, got = record.digests.data, taken.hexdigest()
        problem = None if expected == got else DigestMismatch(self.reader.name, record.header.idx, expected, got)
        return JudgedRecord(record, is_digested=True, problem=problem)

    async def _deliver(self, batches: list[list[JudgedRecord]]) -> None:
        for record, is_digested, problem in (judged for batch in batches for judged in batch):
            self.report.records += 1
            self.report.data_bytes += record.header.length
            self.report.records_digested += is_digested
            self.report.bytes_digested += is_digested * record.header.length
            self.report.assumed += record.digests is not None and record.digests.assumed
            if problem is not None:
                self.report.problems.add(problem)
            self.counts.records_done += 1
            done = self.counts.bytes_before + record.position + record.header.length
            self.counts.bytes_done = max(self.counts.bytes_done, done)
        if self.on_progress is not None:
            self.on_progress(self.counts.progress())

    async def _judge_end(self) -> None:
        self.report.trailing_bytes = await self.reader.count_trailing()
        if self.report.trailing_bytes and self.reader.dialect is Dialect.COLLIE and not self.report.has_manifest:
            # A dog backup has an end marker, and a manifest has the count of records.
            self.report.problems.add(
                BackupDamaged(
                    self.reader.name,
                    self.reader.end or 0,
                    f"{self.report.trailing_bytes} bytes follow the last record: is the count in the header too low?",
                )
            )
