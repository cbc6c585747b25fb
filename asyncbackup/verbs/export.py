"""Exports a chain of backups as a raw image: what ``dog vdi read`` gives of the newest snapshot, byte for byte."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from asyncbackup.engine.base import all_assumed
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compact import MAX_LENGTH, ZEROS
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.image_keeping import ImageKeeping
from asyncbackup.engine.index import Index, read_index
from asyncbackup.engine.keeping import CHECKPOINT_BYTES
from asyncbackup.engine.opening import BaseName, Judged, judge_size, open_base, require_base
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.roll import roll, write_wanted
from asyncbackup.engine.source import NO_INDICES, Indices, ObjectSource, ZeroObjects
from asyncbackup.engine.window import WindowOptions
from asyncbackup.errors import NotResumable, single_error
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import Exporting
from asyncbackup.storage import NewImage, Target
from asyncbackup.storage.backup_target import refuse_own_inputs
from asyncbackup.storage.file import OnLeftover

_BATCH: Final = 16
"""Buffers of zeros that a pipe gets at a time."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export did. Sizes in bytes, times in seconds."""

    files: int
    size: int
    """The size of the image, holes included."""
    in_place: bool
    checked: bool
    """Whether manifests proved all data."""
    assumed: str | None
    """What was assumed because the caller vouched for it. None: all was proved."""
    objects_done: int
    """Objects that the backups have something of."""
    objects_resumed: int
    """Objects that an interrupted run wrote, and that this run did not write again."""
    bytes_written: int
    elapsed_s: float
    missing: Sequence[int] = ()
    """The idx of each object that the backups lack."""

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def export(
    backups: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str] | Target,
    *,
    base: BaseName | None = None,
    assume_base: bool = False,
    allow_incomplete: bool = False,
    replace: bool = False,
    resume: bool = False,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    chain_options: ChainOptions | None = None,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
    on_leftover: OnLeftover | None = None,
) -> ExportSummary:
    """Make an image of the snapshot that the newest of ``backups`` is of. They come oldest first.

    ``target`` is the path of an image. It must not exist, or with ``replace`` it is replaced once the new one is
    complete. Or it is an entered target, without ``replace``, which gets all bytes in order.

    Increments need a ``base``: an image of the snapshot that the first of them is the difference to, or that snapshot
    in a cluster. It must have the right identity. The state beside an image says which snapshot it equals; each image
    made here has one. ``assume_base`` vouches for a base that nothing proves. The summary says so.

    With ``allow_incomplete``, backups may lack objects that could not be read, unless an image is changed in place. The
    content of such an object then comes from the other backups and the base, or is zeros, and the image gets no state.

    If the base is the image ``target`` itself, that image is rolled forward in place. All is judged and checked before
    the image is changed. An interruption after that leaves the image marked, and the same call finishes it.

    After each ``checkpoint_bytes`` of a new image, the bytes that were written are made durable, and stay after an
    interruption. This is only done if manifests prove all data. With ``resume``, the export goes on with the unfinished
    image of an export of the same backups, if there is one.

    Raises WrongSnapshot, BaseUnproved, BaseMismatch and Incompatible if backups, base and target do not go together,
    AlreadyApplied, HalfRolled if an image was left half changed, and the errors of reading and writing.
    """
    started = time.monotonic()
    if replace:
        if not isinstance(target, str | os.PathLike):
            raise ValueError("expected a path to replace, got a target that is open already")
        images = [base] if isinstance(base, str | os.PathLike) and not _is_same(base, target) else []
        await refuse_own_inputs(target, [*backups, *images])
    with single_error():
        async with open_chain(
            backups, chain_options, assume_base=assume_base, allow_incomplete=allow_incomplete
        ) as chain:
            counts = ReplayCounts()
            meter = Meter(counts, on_progress)
            job = _ImageExport(
                chain, base, options or WindowOptions(), meter, assume_base, checkpoint_bytes, on_leftover
            )
            in_place = await job.run(target, replace=replace, resume=resume)
            return ExportSummary(
                files=len(backups),
                size=chain.size,
                in_place=in_place,
                checked=all(reader.subject is not None for reader in chain.readers),
                assumed=job.assumed,
                objects_done=job.objects,
                objects_resumed=job.resumed,
                bytes_written=counts.bytes_written,
                elapsed_s=time.monotonic() - started,
                missing=chain.missing,
            )


@dataclass(slots=True)
class _ImageExport:
    """An export under way."""

    chain: Chain
    base: BaseName | None
    options: WindowOptions
    meter: Meter
    assume_base: bool
    checkpoint_bytes: int
    on_leftover: OnLeftover | None
    assumed: str | None = None
    objects: int = 0
    """Objects that the backups have something of."""
    resumed: int = 0
    """Objects that an interrupted run wrote."""

    async def run(self, target: str | os.PathLike[str] | Target, *, replace: bool, resume: bool) -> bool:
        """Make or change the image. Tells whether it was changed in place."""
        require_base(self.chain, self.base)
        if not isinstance(target, str | os.PathLike):
            if resume:
                raise ValueError("expected a path to resume, got a target that is open already")
            await self._to_stream(target)
        elif isinstance(self.base, str | os.PathLike) and _is_same(self.base, target):
            self.chain.require_files("to be applied to an image")
            self.chain.require_complete()
            index = await self._read_index()
            self.assumed = await roll(index, target, self.options, self.meter, assume_base=self.assume_base)
            return True
        else:
            await self._to_image(target, replace=replace, resume=resume)
        return False

    async def _read_index(self) -> Index:
        """Read all headers, so that damage is found before anything is written."""
        index = await read_index(self.chain, self.meter.on_progress)
        self.objects = self.meter.counts.objects_planned = len(index.indices)
        self.chain.position(index.last_idx)
        return index

    async def _read_index_of_files(self) -> Index | None:
        return None if self.chain.is_piped else await self._read_index()

    @asynccontextmanager
    async def _open_base(self) -> AsyncIterator[Judged]:
        if self.base is None:
            self.assumed = self.chain.assumed
            yield Judged(ZeroObjects(), None)
            return
        async with open_base(self.chain, self.base, assume_base=self.assume_base) as judged:
            if judged.image is not None:
                judge_size(self.chain, judged.image)
            self.assumed = all_assumed(self.chain.assumed, judged.assumed)
            yield judged

    async def _to_image(self, path: str | os.PathLike[str], *, replace: bool, resume: bool) -> None:
        """Make a new image, with holes where nothing was ever written."""
        # These raise FactMissing if a fact is unknown, before anything is made.
        size, object_size = self.chain.size, self.chain.object_size
        async with (
            NewImage(path, replace=replace, resume=resume, on_leftover=self.on_leftover) as image,
            self._open_base() as judged,
        ):
            is_proved = self.assumed is None and all(reader.subject for reader in self.chain.readers)
            if self.chain.is_piped or not is_proved:
                # Nothing proves that another run reads the same content as this one.
                if resume:
                    raise NotResumable(image.name, "this needs backups in files, and manifests that prove all data")
                await self._fill(image, judged, None, object_size)
                return
            async with image.open_journal() as (journal, partial):
                backups = tuple([await reader.identify() for reader in self.chain.readers])
                entry = Exporting(backups, size, 0)
                keeping = ImageKeeping(image, journal, partial, entry, self.checkpoint_bytes)
                async with keeping.leaving():
                    await self._fill(image, judged, keeping, object_size)

    async def _fill(self, image: NewImage, judged: Judged, keeping: ImageKeeping | None, object_size: int) -> None:
        index = await self._read_index_of_files()
        behind = -1 if keeping is None else await keeping.find()
        if behind < 0:
            await self._prepare(image, judged, object_size)

        async def write(contents: list[Content]) -> None:
            written = await write_wanted(image, contents, self.chain)
            self.meter.counts.bytes_written += written

        async def count(contents: list[Content]) -> None:
            await self._count(contents)
            done = [content.group.idx for content in contents if content.portion.is_last]
            if keeping is not None and done:
                await keeping.advance(done[-1], self.meter.counts.bytes_written)

        whole = NO_INDICES if judged.image is not None else await self._find_whole(index, judged.base)
        if index is not None and behind >= 0:
            self.resumed = int((index.with_whole(whole) <= behind).sum())
            self.meter.counts.objects_planned = len(index.with_whole(whole)) - self.resumed
        composer = Composer(judged.base, unknown=frozenset(self.chain.missing))
        await Replay(index or self.chain, composer, self.options, write, count, whole, behind).run()
        await image.finish(self._identity(), assumed=self.assumed is not None)

    async def _prepare(self, image: NewImage, judged: Judged, object_size: int) -> None:
        """Copy the base if it is an image, and give the new image its final size."""
        spans = self.chain.spans()
        if judged.image is not None:
            await image.copy_from(judged.image)
            await image.resize(judged.image.size if spans is None else min(judged.image.size, spans * object_size))
        await image.resize(self.chain.size)

    async def _find_whole(self, index: Index | None, base: ObjectSource) -> Indices:
        """Find the objects of the base that the image must have, and add them to the planned ones."""
        found = await base.find_objects(self.meter.on_progress)
        whole = found[found < -(-self.chain.size // self.chain.object_size)]
        if index is not None:
            self.meter.counts.objects_planned = len(index.with_whole(whole))
        return whole

    async def _count(self, contents: list[Content]) -> None:
        if self.chain.is_piped:
            self.objects += sum(content.portion.is_last and bool(content.group.records) for content in contents)
        await self.meter.count(contents)

    def _identity(self) -> Identity | None:
        """Give the snapshot that the image equals.

        None: no manifest says it, the manifest says another size, or the backups lack objects.
        """
        if self.chain.missing:
            return None
        newest = self.chain.readers[-1].subject
        return newest.identity if newest is not None and newest.size == self.chain.size else None

    async def _to_stream(self, target: Target) -> None:
        """Write the image from its beginning to its end."""
        index = await self._read_index_of_files()
        async with self._open_base() as judged:
            stream = _ImageStream(target, self.chain, self.meter.counts)

            async def deliver(contents: list[Content]) -> None:
                for content in contents:
                    await stream.write(content)
                await self._count(contents)

            whole = await self._find_whole(index, judged.base)
            composer = Composer(judged.base, unknown=frozenset(self.chain.missing))
            await Replay(index or self.chain, composer, self.options, nothing, deliver, whole).run()
            await stream.fill(self.chain.size)
        await target.complete()


@dataclass(slots=True)
class _ImageStream:
    """Writes the image of ``chain`` to ``target`` in order: the objects that come, and zeros between them."""

    target: Target
    chain: Chain
    counts: ReplayCounts
    position: int = 0

    async def write(self, content: Content) -> None:
        """Write a portion that lies behind all portions before. Bytes behind the end of the VDI are left out."""
        start = self.chain.position(content.group.idx) + content.portion.offset
        # The last object may reach behind the end of the VDI.
        if start < self.chain.size:
            await self.fill(start)
            await self._append([content.data[: self.chain.size - start]])

    async def fill(self, end: int) -> None:
        """Write zeros up to ``end``."""
        while self.position < end:
            rest = end - self.position
            await self._append([ZEROS] * min(rest // MAX_LENGTH, _BATCH) or [ZEROS[:rest]])

    async def _append(self, pieces: list[memoryview]) -> None:
        await self.target.append(pieces)
        length = sum(map(len, pieces))
        self.position += length
        self.counts.bytes_written += length


def _is_same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
