"""Exports a chain of backups as a raw image: what ``dog vdi read`` of the newest snapshot gives, byte for byte."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from asyncbackup.engine.base import all_assumed
from asyncbackup.engine.chain import Chain, ChainOptions, open_chain, survey
from asyncbackup.engine.compact import MAX_LENGTH, ZEROS
from asyncbackup.engine.compose import Composer
from asyncbackup.engine.opening import BaseName, Judged, judge_size, open_base, require_base
from asyncbackup.engine.portion import Portion, cut
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.roll import roll, write_covered
from asyncbackup.engine.source import ObjectSource, SnapshotObjects, ZeroObjects, staying
from asyncbackup.engine.window import Slot, Window, WindowOptions
from asyncbackup.errors import single_error
from asyncbackup.format.identity import Identity
from asyncbackup.storage import NewImage, Target
from asyncbackup.storage.atomic import OnLeftover
from asyncbackup.storage.backup_target import refuse_own_inputs

_BATCH: Final = 16
"""Pieces of zeros that a pipe gets at a time."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export did. Sizes in bytes, times in seconds."""

    files: int
    size: int
    """Of the image, holes included."""
    in_place: bool
    checked: bool
    """Whether manifests proved all data."""
    assumed: str | None
    """What was taken for the base because the caller vouched for it; None: all was proved."""
    objects_done: int
    """Objects that the backups have something of."""
    bytes_written: int
    elapsed_s: float

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def export(
    backups: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str] | Target,
    *,
    base: BaseName | None = None,
    assume_base: bool = False,
    replace: bool = False,
    chain_options: ChainOptions | None = None,
    options: WindowOptions | None = None,
    on_progress: OnProgress | None = None,
    on_leftover: OnLeftover | None = None,
) -> ExportSummary:
    """Make an image of the snapshot that the newest of ``backups`` is of; oldest first.

    ``target`` is the path of an image that must not exist, or with ``replace`` is replaced once the new one is
    complete; or an entered target, which gets all bytes in order. Increments need a ``base``: an image, or a snapshot
    in a cluster, of what the first of them is the difference to. It is known by identity, that of an image by the state
    that stands beside it, as it does beside each image that is made here. ``assume_base`` vouches for a base of which
    nothing says what it is; the summary tells.

    If the base is the image ``target`` itself, that is rolled forward in place: first all of it is judged and checked,
    and only then changed. An interruption from there on leaves it marked, for the same call to finish.

    Raises WrongSnapshot, BaseUnproved, BaseMismatch and Incompatible where backups, base and target do not go together,
    AlreadyApplied, HalfRolled where an image was left in pieces, and the errors of reading and writing.
    """
    started = time.monotonic()
    if isinstance(target, str | os.PathLike) and replace:
        images = [base] if isinstance(base, str | os.PathLike) and not _is_same(base, target) else []
        await refuse_own_inputs(target, [*backups, *images])
    with single_error():
        async with open_chain(backups, chain_options, assume_base=assume_base) as chain:
            counts = ReplayCounts()
            job = _Export(chain, base, options or WindowOptions(), Meter(counts, on_progress), assume_base, on_leftover)
            in_place = await job.run(target, replace=replace)
            return ExportSummary(
                files=len(backups),
                size=chain.size,
                in_place=in_place,
                checked=all(reader.subject is not None for reader in chain.readers),
                assumed=job.assumed,
                objects_done=counts.objects_done if job.objects is None else job.objects,
                bytes_written=counts.bytes_written,
                elapsed_s=time.monotonic() - started,
            )


@dataclass(slots=True)
class _Export:
    """An export under way."""

    chain: Chain
    base: BaseName | None
    options: WindowOptions
    meter: Meter
    assume_base: bool
    on_leftover: OnLeftover | None
    assumed: str | None = None
    objects: int | None = None
    """Objects that the backups have something of, where that can be told before."""

    async def run(self, target: str | os.PathLike[str] | Target, *, replace: bool) -> bool:
        """Do it all. Tells whether it was done in place."""
        require_base(self.chain, self.base)
        if not isinstance(target, str | os.PathLike):
            await self._judge_records()
            await self._to_stream(target)
        elif isinstance(self.base, str | os.PathLike) and _is_same(self.base, target):
            await self._judge_records()
            self.assumed = await roll(self.chain, target, self.options, self.meter, assume_base=self.assume_base)
            return True
        else:
            await self._to_image(target, replace=replace)
        return False

    async def _judge_records(self) -> None:
        """Read all headers, if they can be read twice: what is damaged is not begun."""
        if any(reader.size is None for reader in self.chain.readers):
            return
        found = await survey(self.chain, self.meter.on_progress)
        self.objects = self.meter.counts.objects_planned = found.objects
        self.chain.position(found.last_idx)

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

    async def _to_image(self, path: str | os.PathLike[str], *, replace: bool) -> None:
        """Make a new image, with holes where nothing was ever written."""
        size, object_size, spans = self.chain.size, self.chain.object_size, self.chain.spans()
        async with (
            NewImage(path, replace=replace, on_leftover=self.on_leftover) as image,
            self._open_base() as judged,
        ):
            await self._judge_records()
            if judged.image is not None:
                await image.copy_from(judged.image)
                await image.resize(judged.image.size if spans is None else min(judged.image.size, spans * object_size))
            await image.resize(size)
            if isinstance(judged.base, SnapshotObjects):
                await self._copy_snapshot(judged.base, image)

            async def write(content: Content) -> None:
                written = await write_covered(image, content, self.chain)
                self.meter.counts.bytes_written += written

            await Replay(self.chain, Composer(judged.base), self.options, write, self.meter.count).run()
            await image.publish(self._identity(), assumed=self.assumed is not None)

    def _identity(self) -> Identity | None:
        """Say what the image is of; None where no manifest says it, or not of that size."""
        newest = self.chain.readers[-1].subject
        return newest.identity if newest is not None and newest.size == self.chain.size else None

    async def _copy_snapshot(self, base: SnapshotObjects, image: NewImage) -> None:
        """Write all that a snapshot in a cluster has, a window of it at a time, into ``image``."""
        object_size, size = self.chain.object_size, self.chain.size
        portion_size = self.options.portion_size(object_size)

        async def portions() -> AsyncGenerator[tuple[int, Portion], None]:
            for idx in np.flatnonzero(base.owners).tolist():
                for portion in cut(0, min(object_size, size - idx * object_size), portion_size):
                    yield idx, portion

        async def copy(found: tuple[int, Portion], slot: Slot) -> int:
            idx, portion = found
            data = slot.buffers[0][: portion.length]
            await base.read(idx, portion.offset, data)
            await image.write_at(idx * object_size + portion.offset, data)
            return portion.length

        async def count(lengths: list[int]) -> None:
            self.meter.counts.bytes_written += sum(lengths)

        async with staying(base), aclosing(portions()) as found:
            await Window(self.options.slots(portion_size), [portion_size], copy, count).run(found)

    async def _to_stream(self, target: Target) -> None:
        """Write the image from its beginning to its end."""
        async with self._open_base() as judged:
            stream = _Stream(target, judged.base, self.chain, self.meter.counts)

            async def deliver(contents: list[Content]) -> None:
                for content in contents:
                    await stream.write(content)
                await self.meter.count(contents)

            await Replay(self.chain, Composer(judged.base), self.options, nothing, deliver).run()
            await stream.fill(self.chain.size)
            await judged.base.check_unchanged()
        await target.complete()


@dataclass(slots=True)
class _Stream:
    """Writes the image of ``chain`` to ``target`` in order: what comes, and before and between it ``base``."""

    target: Target
    base: ObjectSource
    chain: Chain
    counts: ReplayCounts
    position: int = 0

    async def write(self, content: Content) -> None:
        start = self.chain.position(content.group.idx) + content.portion.offset
        # The last object may have more than the VDI.
        if start < self.chain.size:
            await self.fill(start)
            await self._append([content.data[: self.chain.size - start]])

    async def fill(self, end: int) -> None:
        """Write what the base has up to ``end``."""
        async with aclosing(self._base_data(end)) as found:
            async for pieces in found:
                await self._append(pieces)

    async def _base_data(self, end: int) -> AsyncGenerator[list[memoryview], None]:
        """Give what the base has from the position on, which moves on meanwhile."""
        object_size = self.chain.object_size
        buffer = memoryview(bytearray(0 if isinstance(self.base, ZeroObjects) else min(MAX_LENGTH, object_size)))
        while self.position < end:
            idx, within = divmod(self.position, object_size)
            if isinstance(self.base, ZeroObjects):
                rest = end - self.position
                whole = min(rest // MAX_LENGTH, _BATCH)
                yield [ZEROS] * whole or [ZEROS[:rest]]
            else:
                piece = buffer[: min(end - self.position, object_size - within)]
                await self.base.read(idx, within, piece)
                yield [piece]

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
