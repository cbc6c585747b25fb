"""Has workers of Dask make the pieces of a backup, in places that all machines reach: folders, or object stores."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from anyio import to_thread

from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.dispatch.pool import Pool
from asyncbackup.engine.piece_job import Job, Made, make_piece
from asyncbackup.engine.scratch import Scratch
from asyncbackup.errors import (
    AsyncBackupError,
    ClusterError,
    InodeCorrupt,
    RequestFailed,
    WorkersDiffer,
)
from asyncbackup.wire.inode import Inode


@dataclass(slots=True)
class DaskWorkers:
    """The ``Workers`` of a pool."""

    pool: Pool
    _claim: str = ""

    @property
    def at_once(self) -> int:
        return len(self.pool.workers)

    @property
    def on_one_machine(self) -> int:
        return self.pool.on_one_machine

    async def check(self, job: Job, scratches: Sequence[Scratch]) -> None:
        """Raise WorkersDiffer unless each worker reads and writes in the same places, and sees this cluster."""
        self._claim = f"claim.{secrets.token_hex(8)}"
        for scratch in scratches:
            await scratch.mark(self._claim)
        answers = await self.pool.ask(_look, self._claim, scratches, job.gateways, job.client_options, job.to)
        names = [answer.name for answer in answers.values() if isinstance(answer, _Seen)]
        written = await _take_answers(scratches, names)
        problems = []
        for worker, answer in answers.items():
            if not isinstance(answer, _Seen):
                problems.append(f"{worker} failed: {answer}")
            elif answer.problem is not None:
                problems.append(f"{worker} {answer.problem}")
            elif answer.name not in written:
                problems.append(f"{worker} has another place for {scratches[0].name}, or writes what nobody else reads")
        if problems:
            raise WorkersDiffer(problems)

    async def make(self, job: Job) -> Made:
        what = f"objects {job.first} to {job.last}"
        scratches = [output.scratch for output in job.outputs]
        claims = [path for scratch in scratches if (path := scratch.mark_path(self._claim)) is not None]
        made: Made = await self.pool.do(what, make_piece, job, claims=claims)
        made.sent.causes["worker lost"] += max(0, await scratches[0].count(job.first) - 1)
        return made

    async def settle(self) -> None:
        await self.pool.has_ended_all()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a worker answers: the name of a mark that it left, or what is wrong."""

    name: str
    problem: str | None = None


async def _take_answers(scratches: Sequence[Scratch], names: Sequence[str]) -> set[str]:
    """Give those of the names of answers that are in all places. The answers are removed."""
    found = set()
    for name in names:
        if all([await scratch.sees(name) for scratch in scratches]):
            found.add(name)
        for scratch in scratches:
            await scratch.unmark(name)
    return found


async def _look(
    claim: str, scratches: Sequence[Scratch], gateways: Sequence[Address], options: ClientOptions, to: Inode
) -> _Seen:
    """Look, in a worker, for the claims and the VDI, and leave an answer beside each claim."""
    from asyncbackup.dispatch.worker import run_in_thread  # noqa: PLC0415 - needs the extra

    # The event loop of the worker is Dask's.
    return await to_thread.run_sync(run_in_thread, _look_around, claim, scratches, gateways, options, to)


async def _look_around(
    claim: str, scratches: Sequence[Scratch], gateways: Sequence[Address], options: ClientOptions, to: Inode
) -> _Seen:
    name = f"answer.{secrets.token_hex(8)}"
    for scratch in scratches:
        try:
            if not await scratch.sees(claim):
                return _Seen(name, f"cannot use {scratch.name}: what this machine wrote is not there")
            await scratch.mark(name)
        except AsyncBackupError as error:
            return _Seen(name, f"cannot use {scratch.name}: {error}")
    try:
        async with connect_any(gateways, options) as cluster:
            found = await cluster.read_inode(to.vdi_id)
    except (ClusterError, RequestFailed, InodeCorrupt) as error:
        return _Seen(name, f"cannot read the VDI: {error}")
    if (found.name, found.create_time) != (to.name, to.create_time):
        return _Seen(name, f"reaches another cluster at {gateways[0][0]}:{gateways[0][1]}")
    return _Seen(name)
