"""Measures what a plot shows: one thing that varies, on small clusters of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from asyncbackup.bench.cases import Case, Place, Run, Situation
from asyncbackup.bench.contest import Contest, Contestant
from asyncbackup.bench.fill import EMPTY, FILLING, NEW, OLD, write_objects
from asyncbackup.bench.job import Job
from asyncbackup.bench.measuring import LIMIT_S, VDI, LocalOptions, Steps, count_needed, filled, job_of, run_told
from asyncbackup.bench.programs import OURS
from asyncbackup.bench.serving import Serving, serve
from asyncbackup.bench.workloads import OBJECT_SIZE, SECTOR, WORKLOADS
from asyncbackup.client import Cluster, connect_any

IN_FLIGHT: Final = "in flight"
SHARE: Final = "share changed"
DELAY: Final = "delay"
NODES: Final = "nodes"
SIZE: Final = "VDI size"

DEFAULT: Final = 0
"""The place of ours with its own choice among those that were told how much to have in flight."""

_WORKLOAD: Final = WORKLOADS["sector"]
"""For all that does not vary what changed: it reads the most for what it writes."""
_MOST_AMOUNT: Final = 64
"""Objects of 4 MiB, at most. A plot is of many runs, and shows a course, not a last figure."""
_MOST_ROUNDS: Final = 3
_COUNTS: Final = (1, 2, 4, 8, 16, 32)
"""Objects to work on at a time."""
_SHARES: Final = (0.0, 1 / 16, 1 / 4, 1 / 2, 1.0)
_DELAYS_MS: Final = (0.0, 2.0, 20.0)
_LEAST_NODES: Final = 3
_SIZES: Final = tuple(gibibytes << 30 for gibibytes in (1, 16, 256, 4096))
"""Bytes. The last is the largest VDI that has an owner table."""
_CHANGED: Final = 64
"""Objects of each of these."""


def count_local(options: LocalOptions) -> int:
    """Count the steps of ``measure_local``."""
    rounds, all_of_them, files = _rounds(options.rounds), 2 + len(options.against), 1 + len(options.against)
    delays, nodes = _delays(options), _node_counts(options)
    flights = len(_flight_delays(options)) * (1 + count_in_flight(rounds))
    ways = (len(delays) + len(nodes)) * (1 + rounds * all_of_them)
    return flights + ways + 2 + (len(_SHARES) + len(_SIZES)) * rounds * files


def count_in_flight(rounds: int) -> int:
    """Count the steps of ``measure_in_flight``."""
    return _rounds(rounds) * (1 + len(_COUNTS))


async def measure_local(options: LocalOptions, steps: Steps) -> list[Case]:
    """Measure all of them on clusters for the occasion. Raises as ``measuring.measure_local`` does."""
    small = replace(options, amount=min(options.amount, _MOST_AMOUNT), rounds=_rounds(options.rounds))
    cases: list[Case] = []
    for delay_ms in _flight_delays(options):
        situation = replace(options.situation, delay_ms=delay_ms)
        async with _filled(small, situation, steps, f"in flight, {delay_ms:g} ms") as (serving, job):
            contest = Contest(job, serving.folder, LIMIT_S)
            cases += await measure_in_flight(contest, situation, options.rounds, steps)
    for delay_ms in _delays(options):
        situation = replace(options.situation, delay_ms=delay_ms)
        cases.append(await _measure_place(small, situation, Place(DELAY, delay_ms), steps))
    for nodes in _node_counts(options):
        situation = Situation(nodes, min(2, nodes))
        cases.append(await _measure_place(small, situation, Place(NODES, nodes), steps))
    async with serve(options.folder, options.situation) as serving:
        cases += await _measure_shares(serving, small, steps)
        cases += await _measure_sizes(serving, small, steps)
    return cases


def _rounds(rounds: int) -> int:
    return min(rounds, _MOST_ROUNDS)


def _delays(options: LocalOptions) -> list[float]:
    return sorted({*_DELAYS_MS, *options.delays_ms})


def _flight_delays(options: LocalOptions) -> list[float]:
    """Give the shortest and the longest way: what is right on one is wrong on the other."""
    return sorted({min(_delays(options)), max(_delays(options))})


def _node_counts(options: LocalOptions) -> range:
    return range(1, max(_LEAST_NODES, options.situation.nodes) + 1)


@asynccontextmanager
async def _filled(
    options: LocalOptions, situation: Situation, steps: Steps, where: str
) -> AsyncIterator[tuple[Serving, Job]]:
    steps.begin(f"{where}: filling a cluster", is_preparation=True)
    async with filled(options, _WORKLOAD, situation) as serving:
        yield serving, job_of(serving, _WORKLOAD)


async def measure_in_flight(contest: Contest, situation: Situation, rounds: int, steps: Steps) -> list[Case]:
    """Measure ours with several amounts in flight, and with its own choice."""
    contestants: dict[int, Contestant] = {DEFAULT: contest.ours}
    contestants |= {count: partial(contest.ours, count) for count in _COUNTS}
    named: dict[str, Contestant] = {str(count): each for count, each in contestants.items()}
    runs = await run_told(named, _rounds(rounds), steps, "in flight")
    needed = await count_needed(contest.job)
    return [
        Case(OURS, _WORKLOAD.title, situation, needed, {OURS: runs[str(count)]}, Place(IN_FLIGHT, count))
        for count in contestants
    ]


async def _measure_place(options: LocalOptions, situation: Situation, place: Place, steps: Steps) -> Case:
    """Measure all contestants in a situation of a new cluster."""
    where = f"{place.axis} {place.at:g}"
    async with _filled(options, situation, steps, where) as (serving, job):
        contest = Contest(job, serving.folder, LIMIT_S)
        await contest.prepare()
        runs = await run_told(contest.contestants(options.against), options.rounds, steps, where)
        return Case(_WORKLOAD.name, _WORKLOAD.title, situation, await count_needed(job), runs, place)


async def _measure_shares(serving: Serving, options: LocalOptions, steps: Steps) -> list[Case]:
    """Measure increments in which more and more objects have a sector changed."""
    steps.begin(f"{SHARE}: filling a cluster", is_preparation=True)
    objects = list(_WORKLOAD.existing(options.amount))
    snapshots: dict[float, str] = {}
    async with connect_any(serving.near, FILLING) as cluster:
        await cluster.create_vdi(VDI, len(objects) * OBJECT_SIZE)
        await write_objects(cluster, VDI, objects, OBJECT_SIZE)
        await cluster.create_snapshot(VDI, OLD)
        done = 0
        for number, share in enumerate(_SHARES):
            count = round(share * len(objects))
            await write_objects(cluster, VDI, objects[done:count], SECTOR, generation=1)
            snapshots[share], done = f"share{number}", count
            await cluster.create_snapshot(VDI, snapshots[share])
    cases = []
    for share, snapshot in snapshots.items():
        job = Job(serving.gateways, VDI, snapshot, OLD)
        runs = await _measure_files(job, serving, options, steps, f"{SHARE} {share:.0%}")
        title = f"{share:.0%} of the objects have a sector changed"
        cases.append(Case(SHARE, title, options.situation, await count_needed(job), runs, Place(SHARE, share)))
    return cases


async def _measure_sizes(serving: Serving, options: LocalOptions, steps: Steps) -> list[Case]:
    """Measure increments of VDIs that are larger and larger, and in which as much changed."""
    steps.begin(f"{SIZE}: filling a cluster", is_preparation=True)
    async with connect_any(serving.near, FILLING) as cluster:
        for size in _SIZES:
            await _create_thin(cluster, _name(size), size)
    cases = []
    for size in _SIZES:
        job = Job(serving.gateways, _name(size), NEW, OLD, EMPTY)
        where = f"{SIZE} {size >> 30} GiB"
        runs = await _measure_files(job, serving, options, steps, where)
        title = f"{_CHANGED} objects of a VDI of {size >> 30} GiB have a sector changed"
        cases.append(Case(SIZE, title, options.situation, await count_needed(job), runs, Place(SIZE, size)))
    return cases


def _name(size: int) -> str:
    return f"{VDI}-{size >> 30}"


async def _create_thin(cluster: Cluster, vdi: str, size: int) -> None:
    count = size // OBJECT_SIZE
    spread = range(0, count, count // _CHANGED)
    await cluster.create_vdi(vdi, size)
    await cluster.create_snapshot(vdi, EMPTY)
    await write_objects(cluster, vdi, spread, SECTOR)
    await cluster.create_snapshot(vdi, OLD)
    await write_objects(cluster, vdi, spread, SECTOR, generation=1)
    await cluster.create_snapshot(vdi, NEW)


async def _measure_files(
    job: Job, serving: Serving, options: LocalOptions, steps: Steps, where: str
) -> Mapping[str, Sequence[Run]]:
    """Measure those that write a file."""
    contest = Contest(job, serving.folder, LIMIT_S)
    contestants: dict[str, Contestant] = {OURS: contest.ours}
    contestants |= {name: partial(contest.reference, name) for name in options.against}
    return await run_told(contestants, options.rounds, steps, where)
