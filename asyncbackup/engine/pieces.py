"""Splits a pass over several workers: each makes pieces of the backups, which are joined in order.

A piece holds the records of a range of the plan, and their manifest lines. It stands beside its backup, as
``engine/scratch`` says. It is made again by another worker if its own one dies. It need not survive a crash:
what counts then is the last checkpoint of the backup, if it is a file.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from dataclasses import replace as with_fields
from functools import partial
from typing import Final, Protocol

import anyio
from anyio import CapacityLimiter

from asyncbackup.engine.deltas import DeltaWriter, Pass
from asyncbackup.engine.piece_job import Job, Made, Output
from asyncbackup.engine.plan import Plan
from asyncbackup.engine.scratch import Scratch
from asyncbackup.engine.window import Slot, Window
from asyncbackup.errors import MemoryTooSmall, TargetError, TargetFull, single_error
from asyncbackup.storage import Target

_MOST_OBJECTS: Final = 256
"""Objects of a piece: with 4 MiB each it takes a second or so to make, and an eighth of that to connect."""
_LEAST_OBJECTS: Final = 16
_PIECES_EACH: Final = 4
"""What is left is enough for so many pieces for each worker. So pieces are small at the end, and all end together."""


class Workers(Protocol):
    """What makes pieces: other processes, here or on other machines."""

    @property
    def at_once(self) -> int:
        """Pieces that are made at a time, at most. They share the rate."""

    @property
    def on_one_machine(self) -> int:
        """How many of those are made on one machine, at most. They share the memory."""

    async def check(self, job: Job, scratches: Sequence[Scratch]) -> None:
        """Raise unless all can do such a ``job``, and reach the places of the pieces. The plan is lacking."""

    async def make(self, job: Job) -> Made:
        """Have a job done, elsewhere again if a worker dies. Raises what ``make_piece`` raises, and WorkerLost.

        Cancelled: the worker ends its reads within a second, and what it made so far may stay.
        """

    async def settle(self) -> None:
        """Wait some seconds at most until nobody does what was cancelled any more, and so nobody writes a piece."""


@dataclass(slots=True)
class SplitPass:
    """Does what ``whole`` would do, by ``workers``. ``plan`` is what there is to read.

    ``targets`` are what the backups go to, and ``scratches`` the places of their pieces, in the order of ``whole``.
    """

    whole: Pass
    plan: Plan
    targets: Sequence[Target]
    scratches: Sequence[Scratch]
    workers: Workers

    async def write_records(self) -> None:
        """Write what differs, as ``Pass.write_records`` does. Also raises WorkerLost, MemoryTooSmall."""
        self.whole.tell()
        job = self._share_out()
        limiter = CapacityLimiter(self.workers.at_once)
        async with self._scratching():
            await self.workers.check(job, self.scratches)
            # Some pieces more than workers: one that is slow does not stop those that are done.
            window = Window(self._most_pieces, [], partial(self._make, job, limiter), self._join)
            with single_error():
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

    def _share_out(self) -> Job:
        """Share out what is bounded for all workers together. The plan and the files of each piece are lacking."""
        whole, count = self.whole, self.workers.on_one_machine
        cluster, options = whole.cluster, whole.options
        # Each must cut objects as one process would: what a manifest says of the base depends on it.
        portion_size = options.portion_size(whole.to.object_size)
        self.scratches = [scratch.within(options.memory // count) for scratch in self.scratches]
        held, ahead = sum(each.held for each in self.scratches), max(each.ahead for each in self.scratches)
        share = (options.memory - ahead) // count - held
        memory = max(share, 4 * portion_size, (1 + len(whole.deltas)) * portion_size)
        if memory > share and (count > 1 or held):
            raise MemoryTooSmall((memory + held) * count + ahead, options.memory)
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
    async def _scratching(self) -> AsyncIterator[None]:
        """Make a place for pieces beside each backup, and remove them afterwards."""
        prepared: list[Scratch] = []
        try:
            for scratch in self.scratches:
                await scratch.prepare()
                prepared.append(scratch)
            yield
        except BaseException as error:
            await self._clear(prepared, error)
            raise
        else:
            await self._clear(prepared, None)

    async def _clear(self, prepared: Sequence[Scratch], cause: BaseException | None) -> None:
        """Remove the pieces. If a store does not let them go, say so, beside ``cause``."""
        with anyio.CancelScope(shield=True):
            if cause is not None:
                await self.workers.settle()
            for scratch in prepared:
                try:
                    await scratch.remove()
                except TargetError as error:
                    if cause is None:
                        raise
                    cause.add_note(f"pieces stay in {scratch.name}: {error}")

    async def _make(self, job: Job, limiter: CapacityLimiter, plan: Plan, _slot: Slot) -> Made:
        outputs = [
            Output(scratch, target.name, delta.writer.dialect, delta.subject)
            for scratch, target, delta in zip(self.scratches, self.targets, self.whole.deltas, strict=True)
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
            for delta, scratch, target, piece, missing in zip(
                self.whole.deltas, self.scratches, self.targets, each.pieces, each.missing, strict=True
            ):
                with self._saying_how_much_room_is_missing(delta):
                    await delta.writer.append_piece(piece, partial(scratch.append, each.name, piece.length, target))
                delta.losses.begin_with(missing)
                await scratch.discard(each.name)
            first = self.whole.deltas[0].writer
            first.digest_s += each.digest_s
            first.write_s += each.write_s
            self.whole.counts.add(each.counts)
            self.whole.cluster.counts.add(each.sent)
        self.whole.tell()
        for delta in self.whole.deltas:
            with self._saying_how_much_room_is_missing(delta):
                await delta.keeping.advance()
