"""Splits a pass over several workers: each makes pieces of the backups, which are joined in order.

A piece holds the records of a range of the plan, and their manifest lines. It is a file beside its backup, so that to
join it is to copy within one file system, or there where it can to share the blocks. It is made again by another
worker if its own one dies. It need not survive a crash: what counts then is the last checkpoint of the backup.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import anyio
from anyio import CapacityLimiter, to_thread

from asyncbackup.engine.deltas import DeltaWriter, Pass
from asyncbackup.engine.piece_job import Job, Made, Output, remove_attempts
from asyncbackup.engine.plan import Plan
from asyncbackup.engine.window import Slot, Window
from asyncbackup.errors import MemoryTooSmall, TargetFull
from asyncbackup.storage import JoinableTarget
from asyncbackup.storage.target import wrap_os_errors

_MOST_OBJECTS: Final = 256
"""Objects of a piece: with 4 MiB each it takes a second or so to make, and an eighth of that to connect."""
_LEAST_OBJECTS: Final = 16
_PIECES_EACH: Final = 4
"""What is left is enough for so many pieces for each worker. So pieces are small at the end, and all end together."""
_TRIES: Final = 3


class Workers(Protocol):
    """What makes pieces: other processes, here or on other machines."""

    @property
    def at_once(self) -> int:
        """Pieces that are made at a time, at most. They share the rate."""

    @property
    def on_one_machine(self) -> int:
        """How many of those are made on one machine, at most. They share the memory."""

    async def check(self, job: Job, folders: Sequence[Path]) -> None:
        """Raise unless all can do such a ``job``, and see ``folders``, where the pieces go. The plan is lacking."""

    async def make(self, job: Job) -> Made:
        """Have a job done, elsewhere again if a worker dies. Raises what ``make_piece`` raises, and WorkerLost.

        Cancelled: the worker ends its reads within a second, and what it made so far may stay.
        """


@dataclass(slots=True)
class SplitPass:
    """Does what ``whole`` would do, by ``workers``. ``plan`` is what there is to read.

    ``targets`` are what the backups go to, each in the order of those of ``whole``.
    """

    whole: Pass
    plan: Plan
    targets: Sequence[JoinableTarget]
    workers: Workers
    _folders: list[Path] = field(default_factory=list)

    async def write_records(self) -> None:
        """Write what differs, as ``Pass.write_records`` does. Also raises WorkerLost, MemoryTooSmall."""
        self.whole.tell()
        job = self._job()
        limiter = CapacityLimiter(self.workers.at_once)
        async with self._scratch() as self._folders:
            await self.workers.check(job, self._folders)
            # Some pieces more than workers: one that is slow does not stop those that are done.
            window = Window(self._most_pieces, [], partial(self._make, job, limiter), self._join)
            await window.run(self._cut())

    @property
    def _most_pieces(self) -> int:
        return 2 * self.workers.at_once

    def _piece_size(self, remaining: int) -> int:
        """Give the objects of the next piece."""
        size = -(-remaining // (self.workers.at_once * _PIECES_EACH))
        return max(_LEAST_OBJECTS, min(size, _MOST_OBJECTS))

    async def _cut(self) -> AsyncGenerator[Plan, None]:
        start = 0
        while start < len(self.plan):
            size = self._piece_size(len(self.plan) - start)
            yield self.plan[start : start + size]
            start += size

    def _saying_how_much_room_is_missing(self, delta: DeltaWriter) -> AbstractContextManager[None]:
        return self.whole.saying_how_much_room_is_missing(delta, self._most_pieces * self._piece_size(len(self.plan)))

    def _job(self) -> Job:
        """Share out what is bounded for all workers together. The plan and the files of each piece are lacking."""
        whole, count = self.whole, self.workers.on_one_machine
        cluster, options = whole.cluster, whole.options
        # Each must cut objects as one process would: what a manifest says of the base depends on it.
        portion_size = options.portion_size(whole.to.object_size)
        memory = max(options.memory // count, 4 * portion_size, (1 + len(whole.deltas)) * portion_size)
        if memory * count > options.memory and count > 1:
            raise MemoryTooSmall(memory * count, options.memory)
        gateway = cluster.nodes.gateway
        return Job(
            gateways=list(dict.fromkeys([(gateway.host, gateway.port), *cluster.nodes.gateways])),
            client_options=cluster.nodes.options.shared_by(self.workers.at_once),
            options=with_fields(options, memory=memory),
            to=whole.to,
            plan=self.plan[:0],
            sides=whole.sides,
            outputs=(),
            skips_unreadable=whole.deltas[0].losses.are_skipped,
        )

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[list[Path]]:
        """Make a folder for pieces beside each backup, and remove them afterwards."""
        folders: list[Path] = []
        try:
            for target in self.targets:
                with wrap_os_errors(target.name):
                    await to_thread.run_sync(target.pieces.mkdir, 0o700)
                folders.append(target.pieces)
            yield folders
        finally:
            with anyio.CancelScope(shield=True):
                for folder in folders:
                    await to_thread.run_sync(_remove, folder)

    async def _make(self, job: Job, limiter: CapacityLimiter, plan: Plan, _slot: Slot) -> Made:
        outputs = [
            Output(folder / f"{plan.idx[0]}", target.name, delta.writer.dialect, delta.subject)
            for folder, target, delta in zip(self._folders, self.targets, self.whole.deltas, strict=True)
        ]
        try:
            async with limiter:
                return await self.workers.make(with_fields(job, plan=plan, outputs=outputs))
        except TargetFull as full:
            names = [target.name for target in self.targets]
            with self._saying_how_much_room_is_missing(self.whole.deltas[names.index(full.target)]):
                raise

    async def _join(self, made: Sequence[Made]) -> None:
        for each in made:
            for delta, piece, missing in zip(self.whole.deltas, each.pieces, each.missing, strict=True):
                with self._saying_how_much_room_is_missing(delta):
                    await delta.writer.append_piece(piece)
                delta.losses.begin_with(missing)
                await to_thread.run_sync(remove_attempts, piece.data)
            first = self.whole.deltas[0].writer
            first.digest_s += each.digest_s
            first.write_s += each.write_s
            self.whole.counts.add(each.counts)
            self.whole.cluster.counts.add(each.sent)
        self.whole.tell()
        for delta in self.whole.deltas:
            with self._saying_how_much_room_is_missing(delta):
                await delta.keeping.advance()


def _remove(folder: Path) -> None:
    """Remove a folder, again if a worker that was cancelled has begun a file there meanwhile."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
