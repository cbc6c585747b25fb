"""Exports a chain of backups as a raw image: what ``dog vdi read`` of the newest snapshot gives, byte for byte."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from asyncbackup.engine.chain import Chain, ChainOptions, open_chain
from asyncbackup.engine.compact import MAX_LENGTH, ZEROS
from asyncbackup.engine.compose import Base, Composer, ImageBase, ZeroBase
from asyncbackup.engine.info import survey
from asyncbackup.engine.options import BackupOptions
from asyncbackup.engine.progress import OnProgress, ReplayCounts
from asyncbackup.engine.proof import refuse_own_inputs
from asyncbackup.engine.replay import Content, Meter, Replay, nothing
from asyncbackup.engine.roll import roll, write_covered
from asyncbackup.errors import BaseUnnamed, BaseUnwanted, OutsideVdi, single_error
from asyncbackup.sinks import FileSource, NewImage, Sink
from asyncbackup.sinks.atomic import OnLeftover
from asyncbackup.sinks.image import refuse_half_rolled
from asyncbackup.sinks.publication import MANIFEST

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
    objects_done: int
    """Objects that the backups have something of."""
    bytes_written: int
    elapsed_s: float

    def as_dict(self) -> dict[str, object]:
        """Give the fields as plain values, for JSON."""
        return asdict(self)


async def export(
    backups: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str] | Sink,
    *,
    base: str | os.PathLike[str] | None = None,
    replace: bool = False,
    check_base: bool = True,
    chain_options: ChainOptions | None = None,
    options: BackupOptions | None = None,
    on_progress: OnProgress | None = None,
    on_leftover: OnLeftover | None = None,
) -> ExportSummary:
    """Make an image of the snapshot that the newest of ``backups`` is of; oldest first.

    ``target`` is the path of an image that must not exist, or with ``replace`` is replaced once the new one is
    complete; or an entered sink, which gets all bytes in order. Increments need the image ``base`` of the snapshot that
    the first of them is the difference to. If that is ``target`` itself, it is rolled forward in place: first all of
    it is checked against the manifests, unless ``check_base`` is false, and only then changed. An interruption from
    there on leaves it marked, for the same call to finish.

    Raises Incompatible where backups, base and target do not go together, HalfRolled where an image was left in
    pieces, BaseMismatch where the base is another one, and the errors of reading and writing.
    """
    started = time.monotonic()
    if isinstance(target, str | os.PathLike) and replace:
        is_rolled = base is not None and _is_same(base, target)
        await refuse_own_inputs(target, [*backups, *([base] if base is not None and not is_rolled else [])])
    with single_error():
        async with open_chain(backups, chain_options) as chain:
            counts = ReplayCounts()
            job = _Export(chain, base, options or BackupOptions(), Meter(counts, on_progress), check_base, on_leftover)
            in_place = await job.run(target, replace=replace)
            return ExportSummary(
                files=len(backups),
                size=chain.size,
                in_place=in_place,
                checked=all(reader.subject is not None for reader in chain.readers),
                objects_done=counts.objects_done if job.objects is None else job.objects,
                bytes_written=counts.bytes_written,
                elapsed_s=time.monotonic() - started,
            )


@dataclass(slots=True)
class _Export:
    """An export under way."""

    chain: Chain
    base: str | os.PathLike[str] | None
    options: BackupOptions
    meter: Meter
    check_base: bool
    on_leftover: OnLeftover | None
    objects: int | None = None
    """Objects that the backups have something of, where that can be told before."""

    async def run(self, target: str | os.PathLike[str] | Sink, *, replace: bool) -> bool:
        """Do it all. Tells whether it was done in place."""
        self._judge_base()
        if not isinstance(target, str | os.PathLike):
            await self._judge_records()
            await self._to_sink(target)
        elif self.base is not None and _is_same(self.base, target):
            await self._judge_records()
            await roll(self.chain, target, self.options, self.meter, check_base=self.check_base)
            return True
        else:
            await self._to_image(target, replace=replace)
        return False

    def _judge_base(self) -> None:
        first = self.chain.readers[0]
        if self.base is None and self.chain.base is not None:
            raise BaseUnnamed(first.name, str(self.chain.base))
        if self.base is not None and self.chain.is_full:
            raise BaseUnwanted(first.name)

    async def _judge_records(self) -> None:
        """Read all headers, if they can be read twice: what is damaged is not begun."""
        size, object_size = self.chain.size, self.chain.object_size
        if any(reader.size is None for reader in self.chain.readers):
            return
        found = await survey(self.chain, self.meter.on_progress)
        self.objects = self.meter.counts.objects_planned = found.objects
        if found.last_idx * object_size >= size:
            raise OutsideVdi(found.last_idx, size)

    @asynccontextmanager
    async def _open_base(self) -> AsyncIterator[tuple[Base, FileSource | None]]:
        if self.base is None:
            yield ZeroBase(), None
            return
        refuse_half_rolled(self.base)
        async with FileSource(self.base) as source:
            yield ImageBase(source, self.chain.object_size, self.chain.spans()), source

    async def _to_image(self, path: str | os.PathLike[str], *, replace: bool) -> None:
        """Make a new image, with holes where nothing was ever written."""
        size, object_size, spans = self.chain.size, self.chain.object_size, self.chain.spans()
        refuse_half_rolled(path)
        async with (
            NewImage(path, replace=replace, attached=[MANIFEST], on_leftover=self.on_leftover) as image,
            self._open_base() as (base, source),
        ):
            await self._judge_records()
            if source is not None:
                await image.copy_from(source)
                await image.resize(source.size if spans is None else min(source.size, spans * object_size))
            await image.resize(size)

            async def write(content: Content) -> None:
                written = await write_covered(image, content, object_size, size)
                self.meter.counts.bytes_written += written

            composer = Composer(base, self.check_base)
            await Replay(self.chain, composer, self.options, write, self.meter.count).run()
            await image.commit(b"")

    async def _to_sink(self, sink: Sink) -> None:
        """Write the image from its beginning to its end."""
        async with self._open_base() as (base, _):
            stream = _Stream(sink, base, self.chain.object_size, self.chain.size, self.meter.counts)

            async def deliver(contents: list[Content]) -> None:
                for content in contents:
                    await stream.write(content)
                await self.meter.count(contents)

            composer = Composer(base, self.check_base)
            await Replay(self.chain, composer, self.options, nothing, deliver).run()
            await stream.fill(self.chain.size)
        await sink.commit(b"")


@dataclass(slots=True)
class _Stream:
    """Writes an image of ``size`` bytes to ``sink`` in order: what comes, and before and between it ``base``."""

    sink: Sink
    base: Base
    object_size: int
    size: int
    counts: ReplayCounts
    position: int = 0

    async def write(self, content: Content) -> None:
        start = content.portion.group.idx * self.object_size + content.portion.offset
        if start < self.size:
            await self.fill(start)
            await self._append([content.data[: self.size - start]])

    async def fill(self, end: int) -> None:
        """Write what the base has up to ``end``."""
        async with aclosing(self._base_data(end)) as found:
            async for pieces in found:
                await self._append(pieces)

    async def _base_data(self, end: int) -> AsyncGenerator[list[memoryview], None]:
        """Give what the base has from the position on, which moves on meanwhile."""
        buffer = memoryview(bytearray(0 if isinstance(self.base, ZeroBase) else min(MAX_LENGTH, self.object_size)))
        while self.position < end:
            idx, within = divmod(self.position, self.object_size)
            if isinstance(self.base, ZeroBase):
                rest = end - self.position
                whole = min(rest // MAX_LENGTH, _BATCH)
                yield [ZEROS] * whole or [ZEROS[:rest]]
            else:
                piece = buffer[: min(end - self.position, self.object_size - within)]
                await self.base.read(idx, within, piece)
                yield [piece]

    async def _append(self, pieces: list[memoryview]) -> None:
        await self.sink.append(pieces)
        length = sum(map(len, pieces))
        self.position += length
        self.counts.bytes_written += length


def _is_same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
