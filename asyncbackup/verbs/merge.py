"""Merges a chain of backups into one that equals it."""

from __future__ import annotations

import dataclasses
import mmap
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

from anyio import to_thread

from asyncbackup.engine.base import all_assumed
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compact import MAX_LENGTH, ZEROS
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.index import read_index
from asyncbackup.engine.manifest import Digests
from asyncbackup.engine.opening import BaseName, Judged, open_base
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.proof import ManifestWriter
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.source import ObjectSource, ZeroObjects
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import BaseUnwanted, NotMergeable, PatchNeeded, single_error
from asyncbackup.format import Dialect, RecordHeader
from asyncbackup.format.manifest import RecordDigests, Subject
from asyncbackup.storage import Target, open_target, publish


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
    an entered target, whose manifest goes to the entered target ``manifest`` or nowhere. There is one only if all
    ``backups`` have one. What lies between two ranges of an object, and what no file has, comes from ``base``: an
    image, or a snapshot in a cluster, of what the first of the backups is the difference to. A full backup needs none.
    ``assume_base`` vouches for a base of which nothing says what it is: the summary tells, and so does the manifest of
    each record that has bytes of it.

    Raises BaseNeeded where it needs one, WrongSnapshot or BaseMismatch where it is another one, BaseUnproved,
    NotMergeable, and the errors of reading and writing. There is then, and after a cancellation, no new file.
    """
    started = time.monotonic()
    options = options or WindowOptions()
    inputs = [*backups, *([base] if isinstance(base, str | os.PathLike) else [])]
    async with open_target(target, replace=replace, manifest=manifest, inputs=inputs) as opened:
        if dialect.needs_patch and not opened.data.can_patch:
            raise PatchNeeded(dialect.value)
        with single_error():
            async with (
                open_chain(backups, chain_options, assume_base=assume_base) as chain,
                _open_base(chain, base, assume_base=assume_base) as under,
            ):
                writer = None
                if opened.manifest is not None:
                    if all(reader.subject is not None for reader in chain.readers):
                        writer = ManifestWriter(opened.manifest)
                    else:
                        await opened.manifest.abandon()
                output = _Output(opened.data, dialect, under, writer)
                meter = Meter(ReplayCounts(), on_progress)
                await _run(chain, output, options, meter)
                return MergeSummary(
                    files=len(backups),
                    dialect=dialect,
                    has_manifest=writer is not None,
                    assumed=all_assumed(chain.assumed, under.assumed if under else None),
                    records=output.records,
                    bytes_written=output.bytes_written,
                    elapsed_s=time.monotonic() - started,
                )


def _subject(chain: Chain, dialect: Dialect) -> Subject:
    """Say what the merged backup is of: the newest snapshot, and what the oldest file is the difference to."""
    oldest, newest = chain.readers[0].subject, chain.readers[-1].subject
    assert oldest is not None
    assert newest is not None
    # Files of version 1 do not say the cluster, but it is the same in all: that of their neighbours, which follow them.
    cluster = next(
        (reader.subject.cluster for reader in chain.readers if reader.subject and reader.subject.cluster), None
    )
    return dataclasses.replace(
        newest,
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


async def _run(chain: Chain, output: _Output, options: WindowOptions, meter: Meter) -> None:
    async def deliver(contents: list[Content]) -> None:
        await output.append(contents)
        meter.counts.bytes_written = output.bytes_written
        await meter.count(contents)

    index = None if chain.is_piped else await read_index(chain, meter.on_progress)
    if index is not None:
        meter.counts.objects_planned = len(index.indices)
    await output.start(chain)
    composer = Composer(output.under.base if output.under else None)
    await Replay(index or chain, composer, options, nothing, deliver).run()
    await output.finish()


@dataclass(slots=True)
class _Output:
    """The backup that is being written, and what proves it."""

    target: Target
    dialect: Dialect
    under: Judged | None
    proof: ManifestWriter | None
    records: int = 0
    bytes_written: int = 0
    _digests: Digests = field(default_factory=Digests)
    _buffer: memoryview | None = None

    async def start(self, chain: Chain) -> None:
        if self.proof is not None:
            self.proof.start(_subject(chain, self.dialect))
        await self._write([self.dialect.opening])

    async def append(self, contents: list[Content]) -> None:
        """Write portions of objects, in order: the first of each after the header of its record."""
        pieces: list[bytes | memoryview] = []
        for content in contents:
            group = content.group
            if content.portion.is_first:
                pieces.append(RecordHeader(group.idx, group.start, group.end - group.start).encode())
                self.records += 1
            pieces.append(content.data)
            if self.proof is not None:
                await self._prove(self.proof, content)
        await self._write(pieces)

    async def finish(self) -> None:
        await self._write([self.dialect.ending])
        beginning = self.dialect.patch(self.records)
        if self.proof is not None:
            await self.proof.finish(self.bytes_written)
        await publish(self.target, self.proof.target if self.proof else None, beginning)

    async def _write(self, pieces: list[bytes | memoryview]) -> None:
        filled = [piece for piece in pieces if piece]
        if filled:
            await self.target.append(filled)
            self.bytes_written += sum(map(len, filled))

    async def _prove(self, proof: ManifestWriter, content: Content) -> None:
        group = content.group
        if len(group.parts) == 1:
            known = group.parts[0].record.digests
            assert known is not None
            if content.portion.is_last:
                await proof.add_known(known)
            return
        if content.portion.is_first:
            self._digests = Digests()
        await to_thread.run_sync(self._digests.data.update, content.data)
        # A digest of what nobody proved would say otherwise.
        proved = self.under.base if self.under and self.under.assumed is None else None
        if proved is not None:
            await to_thread.run_sync(self._digests.base.update, await self._base_data(proved, content))
        if content.portion.is_last:
            header = RecordHeader(group.idx, group.start, group.end - group.start)
            base = None if proved is None else self._digests.base.hexdigest()
            fills_gaps = group.first_gap(group.start, group.end) is not None
            assumed = (fills_gaps and proved is None) or any(
                part.record.digests is not None and part.record.digests.assumed for part in group.parts
            )
            await proof.add_known(RecordDigests(header, self._digests.data.hexdigest(), base, assumed=assumed))

    async def _base_data(self, base: ObjectSource, content: Content) -> memoryview:
        length = content.portion.length
        if isinstance(base, ZeroObjects):
            return ZEROS[:length]
        if self._buffer is None:
            self._buffer = memoryview(mmap.mmap(-1, MAX_LENGTH))
        await base.read(content.group.idx, content.portion.offset, self._buffer[:length])
        return self._buffer[:length]
