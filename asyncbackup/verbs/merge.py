"""Merges a chain of backups into one that equals it."""

from __future__ import annotations

import dataclasses
import mmap
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from asyncbackup.engine.base import all_assumed
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compact import MAX_LENGTH
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.index import read_index
from asyncbackup.engine.opening import BaseName, Judged, open_base
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.record_writer import Fragment, RecordWriter, refuse_unpatchable
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.source import ZeroObjects
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import BaseUnwanted, NotMergeable, single_error
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.manifest import Subject
from asyncbackup.storage import Target, open_target


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What was written. Sizes in bytes, times in seconds."""

    files: int
    dialect: Dialect
    has_manifest: bool
    assumed: str | None
    """What was taken for the base because the caller vouched for it; None: all was proved, or none was named."""
    records: int
    bytes_written: int
    elapsed_s: float

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self) | {"dialect": self.dialect.value}


async def merge(
    backups: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str] | Target,
    *,
    base: BaseName | None = None,
    replace: bool = False,
    assume_base: bool = False,
    manifest: Target | None = None,
    chain_options: ChainOptions | None = None,
    dialect: Dialect = Dialect.COLLIE,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
) -> MergeSummary:
    """Write one backup that does what ``backups`` do one after the other; oldest first.

    ``target`` is the path of a file, which gets a manifest beside it, and must not exist unless ``replace`` is true; or
    an entered target, without ``replace``, whose manifest goes to the entered target ``manifest`` or nowhere. There is
    one only if all ``backups`` have one. What lies between two ranges of an object, and what no file has, comes from
    ``base``: an image, or a snapshot in a cluster, of what the first of the backups is the difference to. A full backup
    needs none.
    ``assume_base`` vouches for a base of which nothing says what it is: the summary tells, and so does the manifest of
    each record that has bytes of it.

    Raises BackupIncomplete where one of them lacks objects, BaseNeeded where it needs a base, WrongSnapshot or
    BaseMismatch where it is another one, BaseUnproved, NotMergeable, and the errors of reading and writing. There is
    then, and after a cancellation, no new file.
    """
    started = time.monotonic()
    options = options or WindowOptions()
    inputs = [*backups, *([base] if isinstance(base, str | os.PathLike) else [])]
    async with open_target(target, replace=replace, manifest=manifest, inputs=inputs) as opened:
        refuse_unpatchable(opened.data, dialect)
        with single_error():
            async with (
                open_chain(backups, chain_options, assume_base=assume_base) as chain,
                _open_base(chain, base, assume_base=assume_base) as under,
            ):
                to_manifest, subject = opened.manifest, _subject(chain, dialect)
                if to_manifest is not None and subject is None:
                    await to_manifest.abandon()
                    to_manifest = None
                writer = RecordWriter(opened.data, dialect, manifest=to_manifest, subject=subject)
                await _write_records(_Records(chain, under, writer), options, Meter(ReplayCounts(), on_progress))
                return MergeSummary(
                    files=len(backups),
                    dialect=dialect,
                    has_manifest=to_manifest is not None,
                    assumed=all_assumed(chain.assumed, under.assumed if under else None),
                    records=writer.records,
                    bytes_written=writer.position,
                    elapsed_s=time.monotonic() - started,
                )


def _subject(chain: Chain, dialect: Dialect) -> Subject | None:
    """Say what the merged backup is of: the newest snapshot, and what the oldest file is the difference to.

    None if a file has no manifest that says it.
    """
    subjects = [reader.subject for reader in chain.readers if reader.subject is not None]
    if len(subjects) < len(chain.readers):
        return None
    oldest, newest = subjects[0], subjects[-1]
    # Files of version 1 do not say the cluster, but it is the same in all: that of their neighbours, which follow them.
    cluster = next((subject.cluster for subject in subjects if subject.cluster), None)
    return dataclasses.replace(
        newest,
        may_lack=False,
        dialect=dialect,
        identity=dataclasses.replace(newest.identity, cluster=cluster),
        base_identity=oldest.base_identity and dataclasses.replace(oldest.base_identity, cluster=cluster),
        base_size=oldest.base_size,
    )


@asynccontextmanager
async def _open_base(chain: Chain, base: BaseName | None, *, assume_base: bool) -> AsyncIterator[Judged | None]:
    if chain.loses_base:
        raise NotMergeable([reader.name for reader in chain.readers])
    if base is None:
        yield Judged(ZeroObjects(), None) if chain.is_full else None
        return
    if chain.is_full:
        raise BaseUnwanted(chain.readers[0].name)
    async with open_base(chain, base, assume_base=assume_base) as judged:
        yield judged


async def _write_records(records: _Records, options: WindowOptions, meter: Meter) -> None:
    chain, under, writer = records.chain, records.under, records.writer

    async def deliver(contents: list[Content]) -> None:
        await records.append(contents)
        meter.counts.bytes_written = writer.position
        await meter.count(contents)

    index = None if chain.is_piped else await read_index(chain, meter.on_progress)
    if index is not None:
        meter.counts.objects_planned = len(index.indices)
    await writer.start()
    await Replay(index or chain, Composer(under.base if under else None), options, nothing, deliver).run()
    await writer.finish()


@dataclass(slots=True)
class _Records:
    """Makes records of what a chain has of each object over ``under``, and gives them to ``writer``.

    A record may be one of a file as it stands. Then the manifest of the file has its digests. Digests of other records
    are taken.
    """

    chain: Chain
    under: Judged | None
    writer: RecordWriter
    _buffer: memoryview | None = None

    async def append(self, contents: list[Content]) -> None:
        """Write portions of objects, in order."""
        ready: list[Fragment] = []
        for content in contents:
            base = await self._read_base(content) if len(content.group.records) > 1 else None
            ready.append(self._fragment(content, base))
            if base is not None:
                # The next one is read into the same buffer.
                await self.writer.append(ready)
                ready = []
        await self.writer.append(ready)

    def _fragment(self, content: Content, base: memoryview | None) -> Fragment:
        group, portion, data = content
        header = RecordHeader(group.idx, group.start, group.end - group.start) if portion.is_first else None
        if len(group.records) == 1:
            return Fragment(header, [data], is_last=portion.is_last, known=group.records[0].record.digests)
        is_vouched_for = self.under is not None and self.under.assumed is not None
        assumed = (is_vouched_for and group.first_gap(group.start, group.end) is not None) or any(
            each.record.digests is not None and each.record.digests.assumed for each in group.records
        )
        return Fragment(header, [data], None if base is None else [base], portion.is_last, assumed=assumed)

    async def _read_base(self, content: Content) -> memoryview | None:
        """Read what the base holds in the place of ``content``, if the manifest is to have a digest of it."""
        # A digest of what nobody proved would say otherwise.
        if self.under is None or self.under.assumed is not None or not self.writer.wants_base:
            return None
        if self._buffer is None:
            self._buffer = memoryview(mmap.mmap(-1, MAX_LENGTH))
        into = self._buffer[: content.portion.length]
        await self.under.base.read(content.group.idx, content.portion.offset, into)
        return into
