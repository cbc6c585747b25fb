"""Has workers of Dask make the pieces of a backup, in a folder that all machines see."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from asyncbackup.client import Address, ClientOptions, connect_any
from asyncbackup.dispatch.pool import Pool
from asyncbackup.engine.piece_job import Job, Made, find_attempts, make_piece
from asyncbackup.errors import ClusterError, InodeCorrupt, RequestFailed, WorkersDiffer
from asyncbackup.storage.target import wrap_os_errors
from asyncbackup.wire.inode import Inode


@dataclass(slots=True)
class DaskWorkers:
    """The ``Workers`` of a pool."""

    pool: Pool
    _claims: list[Path] = field(default_factory=list)

    @property
    def at_once(self) -> int:
        return len(self.pool.workers)

    @property
    def on_one_machine(self) -> int:
        return self.pool.on_one_machine

    async def check(self, job: Job, folders: Sequence[Path]) -> None:
        """Raise WorkersDiffer unless each worker sees the folders, can write there, and sees this cluster."""
        self._claims = await to_thread.run_sync(_claim, folders)
        answers = await self.pool.ask(_look, self._claims, job.gateways, job.client_options, job.to)
        names = [answer.name for answer in answers.values() if isinstance(answer, _Seen)]
        written = await to_thread.run_sync(_take_answers, self._claims, names)
        problems = []
        for worker, answer in answers.items():
            if not isinstance(answer, _Seen):
                problems.append(f"{worker} failed: {answer}")
            elif answer.problem is not None:
                problems.append(f"{worker} {answer.problem}")
            elif answer.name not in written:
                problems.append(
                    f"{worker} has another folder {self._claims[0].parent}, or writes what nobody else reads"
                )
        if problems:
            raise WorkersDiffer(problems)

    async def make(self, job: Job) -> Made:
        what = f"objects {job.first} to {job.last}"
        made: Made = await self.pool.do(what, make_piece, job, claims=self._claims)
        attempts = await to_thread.run_sync(find_attempts, job.outputs[0].path)
        made.sent.causes["worker lost"] += max(0, len(attempts) - 1)
        return made


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a worker answers: the name of a file that it wrote, or what is wrong."""

    name: str
    problem: str | None = None


def _claim(folders: Sequence[Path]) -> list[Path]:
    """Write a file of a name that nobody knows into each folder."""
    claims = [folder / f"claim.{secrets.token_hex(8)}" for folder in folders]
    for claim in claims:
        with wrap_os_errors(str(claim)):
            claim.touch(0o600)
    return claims


def _take_answers(claims: Sequence[Path], names: Sequence[str]) -> set[str]:
    """Give those of the names of answers that can be read beside each claim. The answers are removed.

    Each is asked for by its name: a listing of a folder that machines share may be old.
    """
    found = set()
    for name in names:
        answers = [claim.with_name(name) for claim in claims]
        if all(os.access(answer, os.R_OK) for answer in answers):
            found.add(name)
        for answer in answers:
            answer.unlink(missing_ok=True)
    return found


async def _look(claims: Sequence[Path], gateways: Sequence[Address], options: ClientOptions, to: Inode) -> _Seen:
    """Look, in a worker, for the claims and the VDI, and write an answer beside each claim."""
    from asyncbackup.dispatch.worker import run_in_thread  # noqa: PLC0415 - needs the extra

    name = f"answer.{secrets.token_hex(8)}"
    try:
        for claim in claims:
            claim.stat()
            claim.with_name(name).touch(0o600)
        # The event loop of the worker is Dask's.
        found = await to_thread.run_sync(run_in_thread, _read_inode, gateways, options, to.vdi_id)
    except OSError as error:
        return _Seen(name, f"cannot use the folder {claims[0].parent}: {error.strerror}")
    except (ClusterError, RequestFailed, InodeCorrupt) as error:
        return _Seen(name, f"cannot read the VDI: {error}")
    if (found.name, found.create_time) != (to.name, to.create_time):
        return _Seen(name, f"reaches another cluster at {gateways[0][0]}:{gateways[0][1]}")
    return _Seen(name)


async def _read_inode(gateways: Sequence[Address], options: ClientOptions, vdi_id: int) -> Inode:
    async with connect_any(gateways, options) as cluster:
        return await cluster.read_inode(vdi_id)
