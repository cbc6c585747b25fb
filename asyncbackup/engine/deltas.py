"""Makes one backup or several of a snapshot, in one pass: each object is read once, and each delta is written from it.

A delta is what a snapshot has and one base has not; without a base it is a full backup.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from asyncbackup.client import Cluster
from asyncbackup.engine.compare import COMPARED_SIZE, share_of
from asyncbackup.engine.fetch import Fetched, Fetcher, Found, Unreadable
from asyncbackup.engine.keeping import Keeping
from asyncbackup.engine.plan import Pair
from asyncbackup.engine.progress import BackupCounts, OnProgress
from asyncbackup.engine.record_writer import Fragment, RecordWriter
from asyncbackup.engine.resumption import Resumption
from asyncbackup.engine.unreadable import Losses, raise_failures, until_failure
from asyncbackup.engine.window import Window, WindowOptions
from asyncbackup.errors import TargetFull
from asyncbackup.format.manifest import Subject
from asyncbackup.format.record import RECORD_HEADER_SIZE
from asyncbackup.wire.inode import Inode

_LINE_SIZE: Final = 256
"""Bytes of a line of a manifest, and of what ends a backup, at most."""


@dataclass(slots=True)
class DeltaWriter:
    """A backup in the making: what writes it, what keeps it if the run ends early, and what it has to do without."""

    subject: Subject | None
    """What its manifest says that it is of; None: it has no manifest."""
    writer: RecordWriter
    keeping: Keeping
    losses: Losses

    async def find(self, on_progress: OnProgress | None) -> Resumption | None:
        """Find out from where to go on, as ``Keeping.find`` does, and take over what was left out before that."""
        found = await self.keeping.find(self.subject, on_progress)
        if found is not None:
            self.losses.begin_with(found.missing)
        return found

    async def append(self, parts: Iterable[Fragment | Unreadable | None]) -> None:
        """Write fragments, and leave out what is lost, in the order of the objects."""
        fragments: list[Fragment] = []
        for part in parts:
            if isinstance(part, Unreadable):
                if self.losses.note(part):
                    await self.writer.append(fragments)
                    fragments = []
                    self.writer.leave_out(part.idx)
            elif part is not None:
                fragments.append(part)
        if not self.losses.failures:
            await self.writer.append(fragments)


@dataclass(slots=True)
class Pass:
    """The way from pairs, through a window of workers that fetch them, to the record writers of ``deltas``."""

    cluster: Cluster
    pairs: AsyncGenerator[Pair, None]
    """Each has a base for each of ``deltas``. One that shares the object stands for nothing to do."""
    to: Inode
    sides: int
    """Snapshots that are read."""
    options: WindowOptions
    deltas: Sequence[DeltaWriter]
    counts: BackupCounts
    on_progress: OnProgress | None
    is_planned: bool = True
    """Whether it is known how many pairs there are."""

    async def write_records(self) -> None:
        """Write what differs. Raises ObjectReadFailed or ObjectsUnreadable for what cannot be read."""
        self.tell()
        losses = [delta.losses for delta in self.deltas]
        object_size = self.to.object_size
        portion_size = self.options.portion_size(object_size)
        # A large object is compared with one base after the other.
        buffers = 1 + len(self.deltas) if portion_size == object_size else 2
        workers = self.options.slots(portion_size, buffers)
        limit = self.cluster.in_flight_limit
        active = self.options.active(limit, self.sides * COMPARED_SIZE)
        fetcher = Fetcher(
            self.cluster,
            object_size,
            portion_size,
            self.counts,
            compared_size=lambda: share_of(limit(), min(active(), workers) * self.sides),
            working=None if self.to.is_snapshot else self.to,
            skips_unreadable=losses[0].are_skipped,
        )
        pairs = until_failure(self.pairs, losses)
        if portion_size == object_size:
            window = Window(workers, [portion_size] * buffers, fetcher.fetch_records, self._append, active)
            await window.run(pairs)
        else:
            await self._write_large_records(pairs, fetcher, max(1, workers // 2))
        raise_failures(losses)

    async def _write_large_records(self, pairs: AsyncGenerator[Pair, None], fetcher: Fetcher, workers: int) -> None:
        """Find extents in one window, and read what lies in them in another, behind it."""
        send, receive = anyio.create_memory_object_stream[Found](workers)
        size = fetcher.portion_size

        async def pass_on(found: list[Found]) -> None:
            for each in found:
                if each.is_equal:
                    self.counts.objects_done += 1
                else:
                    await send.send(each)

        async def find_extents() -> None:
            async with send:
                await Window(workers, [size] * 2, fetcher.find_extents, pass_on).run(pairs)

        async with receive, aclosing(fetcher.cut_extents(receive)) as portions, anyio.create_task_group() as group:
            group.start_soon(find_extents)
            await Window(workers, [size], fetcher.fetch_portion, self._append).run(portions)

    async def _append(self, fetched: Sequence[Fetched]) -> None:
        for delta, parts in zip(self.deltas, zip(*(each.parts for each in fetched), strict=True), strict=True):
            with self.saying_how_much_room_is_missing(delta):
                await delta.append(parts)
        if any(delta.losses.failures for delta in self.deltas):
            return
        self.counts.objects_done += sum(each.is_last for each in fetched)
        self.tell()
        for delta in self.deltas:
            with self.saying_how_much_room_is_missing(delta):
                await delta.keeping.advance()

    async def finish(self) -> None:
        """Publish the backups, which are then whole, one after the other.

        What could fail is done for all of them before. A cancellation finds several all published, or none.
        """
        self.counts.objects_planned = self.counts.objects_done
        self.tell()
        are_several = len(self.deltas) > 1
        for delta in self.deltas if are_several else ():
            with self.saying_how_much_room_is_missing(delta):
                await delta.writer.end()
                await delta.writer.settle()
        with anyio.CancelScope(shield=are_several):
            for delta in self.deltas:
                with self.saying_how_much_room_is_missing(delta):
                    await delta.writer.finish()

    @contextmanager
    def saying_how_much_room_is_missing(self, delta: DeltaWriter, beside: int = 0) -> Iterator[None]:
        """Tell TargetFull: at least what is needed for what was read already, at most for all objects in full.

        ``beside`` is how many objects take room a second time, for a while, beside the backup.
        """
        try:
            yield
        except TargetFull as full:
            partial = delta.keeping.partial
            # Nobody knows how short the rest gets that is compressed.
            if partial is not None and not partial.is_compressed:
                full.needed = max(1, delta.writer.position - partial.size)
                if self.is_planned:
                    remaining = self.counts.objects_planned - self.counts.objects_done + beside
                    largest = RECORD_HEADER_SIZE + self.to.object_size + _LINE_SIZE
                    full.enough = full.needed + remaining * largest + _LINE_SIZE
            raise

    def tell(self) -> None:
        """Say how far the work is."""
        if self.on_progress is not None:
            self.on_progress(self.counts.progress())
