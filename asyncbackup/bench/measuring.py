"""Measures cases: on clusters for the occasion, and on one that runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Final, NamedTuple

from anyio import to_thread

from asyncbackup.bench.cases import Case, Run, Situation
from asyncbackup.bench.contest import Contest, Contestant
from asyncbackup.bench.fill import EMPTY, FILLING, NEW, OLD, fill
from asyncbackup.bench.job import Job
from asyncbackup.bench.rounds import run_rounds
from asyncbackup.bench.serving import Serving, room, serve
from asyncbackup.bench.workloads import Workload
from asyncbackup.client import connect_any
from asyncbackup.errors import TargetFull
from asyncbackup.verbs.backup import estimate

VDI: Final = "bench"

LIMIT_S: Final = 900.0
"""Seconds for a run on a cluster for the occasion. It takes one or two."""


class Step(NamedTuple):
    """What is done now."""

    doing: str
    done: int
    planned: int
    """Runs and preparations, so far and in all."""
    is_preparation: bool


class Steps:
    """Counts steps, and tells of each before it begins."""

    def __init__(self, planned: int, tell: Callable[[Step], None]) -> None:
        self._planned = planned
        self._tell = tell
        self._done = 0

    def begin(self, doing: str, *, is_preparation: bool = False) -> None:
        """Tell what is done now: one step more."""
        self._done += 1
        self._planned = max(self._planned, self._done)
        self._tell(Step(doing, self._done - 1, self._planned, is_preparation))


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What is measured on clusters for the occasion."""

    workloads: Sequence[Workload]
    amount: int
    """Of data in each VDI, in objects of 4 MiB."""
    rounds: int
    situation: Situation
    delays_ms: Sequence[float] = (0.0,)
    against: Sequence[str] = ()
    """Reference clients."""
    folder: Path | None = None
    """For stores and backups. None: where temporary files are."""

    def steps(self) -> int:
        """Count the steps: a preparation and the runs of each case."""
        return len(self.workloads) * len(self.delays_ms) * (1 + self.rounds * (2 + len(self.against)))


async def measure_local(options: LocalOptions, steps: Steps) -> list[Case]:
    """Measure each workload at each distance, each on a new cluster. Raises ProgramFailed, TargetFull, and more."""
    cases = []
    for workload in options.workloads:
        for delay_ms in options.delays_ms:
            situation = Situation(options.situation.nodes, options.situation.copies, delay_ms)
            where = f"{workload.name}, {delay_ms:g} ms" if len(options.delays_ms) > 1 else workload.name
            steps.begin(f"{where}: filling a cluster", is_preparation=True)
            async with filled(options, workload, situation) as serving:
                contest = Contest(job_of(serving, workload), serving.folder, LIMIT_S)
                contestants = contest.contestants(options.against)
                await contest.prepare()
                runs = await run_told(contestants, options.rounds, steps, where)
                needed = await count_needed(contest.job)
            cases.append(Case(workload.name, workload.title, situation, needed, runs))
    return cases


@asynccontextmanager
async def filled(options: LocalOptions, workload: Workload, situation: Situation) -> AsyncIterator[Serving]:
    """Serve a cluster that holds a workload. Raises TargetFull if there is no room for it."""
    # Besides the copies there is a backup, by each client in turn.
    await to_thread.run_sync(require_room, options.folder, workload.stored(options.amount) * (situation.copies + 1))
    async with serve(options.folder, situation) as serving:
        async with connect_any(serving.near, FILLING) as cluster:
            await fill(cluster, VDI, workload, options.amount)
        # What the file system still has to write would disturb the first rounds.
        await to_thread.run_sync(os.sync)
        yield serving


def require_room(folder: Path | None, wanted: int) -> None:
    """Raise TargetFull unless so many bytes are free in ``folder``, or for temporary files; TargetUnusable as well."""
    free = room(folder)
    if free < wanted:
        full = TargetFull(str(folder or gettempdir()), f"has {free} bytes free, and the benchmark needs {wanted}")
        full.needed = wanted - free
        raise full


def job_of(serving: Serving, workload: Workload) -> Job:
    """Say what is to be backed up of a workload."""
    return Job(serving.gateways, VDI, NEW, OLD if workload.is_increment else None, EMPTY)


async def count_needed(job: Job) -> int:
    """Count the bytes that a client has to look at which compares what can differ."""
    async with job.connect() as cluster:
        found = await estimate(cluster, job.vdi, snapshot=job.snapshot, base=job.base)
    return found.bytes_to_read


async def run_told(
    contestants: Mapping[str, Contestant], rounds: int, steps: Steps, where: str
) -> dict[str, list[Run]]:
    """Run rounds, and tell of each run before it begins."""

    def told(name: str, contestant: Contestant) -> Contestant:
        async def run() -> Run:
            steps.begin(f"{where}: {name}")
            return await contestant()

        return run

    return await run_rounds({name: told(name, each) for name, each in contestants.items()}, rounds)
