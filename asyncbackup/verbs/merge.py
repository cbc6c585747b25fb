"""Merges a chain of backups into one backup that does the same."""

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
from asyncbackup.storage import Layers, Target, open_target


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What was written. Sizes in bytes, times in seconds."""

    files: int
    dialect: Dialect
    has_manifest: bool
    assumed: str | None
    """What was assumed because the caller vouched for it; None: all was proved, or no base was named."""
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
    layers: Layers | None = None,
) -> MergeSummary:
    """Write one backup that does the same as all ``backups`` one after the other. They come oldest first.

    ``target`` is the path of a file. It gets a manifest beside it, and must not exist unless ``replace`` is true. Or it
    is an entered target, without ``replace``; its manifest goes to the entered target ``manifest``, if that is given. A
    manifest is only written if all ``backups`` have one.

    With ``layers`` the new file is compressed or encrypted. The dialect is then dog.

    Bytes between two ranges of an object that no backup has come from ``base``: an image of the snapshot that the first
    backup is the difference to, or that snapshot in a cluster. A full backup needs no base. ``assume_base`` vouches for
    a base that nothing proves. The summary says so, and the manifest says it for each record that has bytes of the
    base.

    Raises BackupIncomplete if a backup lacks objects, BaseNeeded if a base is needed, WrongSnapshot or BaseMismatch if
    the base is another one, BaseUnproved, NotMergeable, and the errors of reading and writing. After an error or a
    cancellation there is no new file.
    """
    started = time.monotonic()
    options = options or WindowOptions()
    inputs = [*backups, *([base] if isinstance(base, str | os.PathLike) else [])]
    access = chain_options.access if chain_options else None
    async with open_target(
        target, replace=replace, manifest=manifest, inputs=inputs, access=access, layers=layers
    ) as opened:
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
                options = options.without(opened.reserve(chain.stored_size, None, options.memory, may_be_less=True))
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
    """Make the first line of the merged manifest: the snapshot of the newest file, and the base of the oldest.

    None if a file has no manifest.
    """
    subjects = [reader.subject for reader in chain.readers if reader.subject is not None]
    if len(subjects) < len(chain.readers):
        return None
    oldest, newest = subjects[0], subjects[-1]
    # Manifests of version 1 do not name the cluster. All files of a chain are of the same cluster.
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
    """Makes records from the content that a chain has over ``under``, and gives them to ``writer``.

    If a record is copied unchanged from a file, the manifest of the file has its digests. For other records the digests
    are computed.
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
                # The next base content is read into the same buffer.
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
        """Read the base's bytes in the range of ``content``; None if the manifest gets no digest of them."""
        # If the base is not proved, a digest of it would look like a proof.
        if self.under is None or self.under.assumed is not None or not self.writer.wants_base:
            return None
        if self._buffer is None:
            self._buffer = memoryview(mmap.mmap(-1, MAX_LENGTH))
        into = self._buffer[: content.portion.length]
        await self.under.base.read(content.group.idx, content.portion.offset, into)
        return into
