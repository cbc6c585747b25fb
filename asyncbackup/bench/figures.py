"""The figures that are told of a case, and what bounds it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import Final

from asyncbackup.bench.cases import Case, Inside, Run
from asyncbackup.bench.programs import DRAIN, OURS
from asyncbackup.bench.statistics import Spread, ratios, spread

GB: Final = 1e9

_IS_LIMIT: Final = 0.85
"""Share of what there is, from which on something counts as used up: above it there is little to gain."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a contestant of a case is told with."""

    name: str
    wall_s: Spread
    gb_per_s: float
    """Of the bytes that are needed, whatever it read."""
    cpu_s_per_gb: float
    peak_bytes: int
    times_faster: Spread | None
    """How many times as long as ours it took in the same rounds; None for ours."""


def figures(case: Case) -> list[Figures]:
    """Give the figures of all contestants of a case."""
    return [_figures(case, name, runs) for name, runs in case.runs.items()]


def _figures(case: Case, name: str, runs: Sequence[Run]) -> Figures:
    gigabytes = case.bytes_needed / GB
    wall_s = spread([run.wall_s for run in runs])
    return Figures(
        name,
        wall_s,
        gigabytes / wall_s.median,
        median(run.cpu_s for run in runs) / gigabytes if gigabytes else 0.0,
        max(run.peak_bytes for run in runs),
        None if name == OURS else times_faster(case, name),
    )


def times_faster(case: Case, name: str) -> Spread:
    """Say how many times as long as ours a contestant took."""
    return spread(ratios([run.wall_s for run in case.runs[name]], [run.wall_s for run in case.runs[OURS]]))


def share_of_drain(case: Case) -> Spread:
    """Say which share of the drain's speed ours has."""
    return times_faster(case, DRAIN)


def insides(case: Case) -> list[Inside]:
    """Give what the runs of ours tell of themselves."""
    return [run.inside for run in case.runs[OURS] if run.inside is not None]


STAGES: Final = ("start", "plan", "read", "sync")
"""Stages of a backup, one after the other. They are all of its time."""

BUSY: Final = ("compare", "digest", "write")
"""What is done while it reads. It overlaps with reading, so it is no stage of its own."""


def stages(case: Case) -> dict[str, float]:
    """Give the seconds of each stage, as medians. ``start`` has the process's end in it."""
    runs = [(run, run.inside) for run in case.runs[OURS] if run.inside is not None]
    return {
        "start": median(run.wall_s - inside.elapsed_s for run, inside in runs),
        "plan": median(inside.plan_s for _, inside in runs),
        "read": median(inside.read_s for _, inside in runs),
        "sync": median(inside.sync_s for _, inside in runs),
    }


def busy(case: Case) -> dict[str, float]:
    """Give the seconds of what is done while it reads, as medians."""
    told = insides(case)
    return {
        "compare": median(inside.compare_s for inside in told),
        "digest": median(inside.digest_s for inside in told),
        "write": median(inside.write_s for inside in told),
    }


def latencies(case: Case) -> dict[str, float]:
    """Give the seconds within which so many per cent of the requests were answered, as medians."""
    told = [inside.latencies_s for inside in insides(case) if inside.latencies_s]
    return {percent: median(each[percent] for each in told) for percent in told[0]} if told else {}


class Bound(Enum):
    """What keeps a backup from being faster."""

    RATE = "the rate that was asked for"
    START = "the start of the program: there was little to read"
    PROCESSOR = "the processor of this machine"
    TARGET = "the target of the backup"
    NETWORK = "the network of this machine"
    ONE_NODE = "the only node of the cluster"
    NODES = "the nodes of the cluster: their disks, their processors, or their network"
    NOTHING = "nothing that was measured by itself"


def find_bound(case: Case, *, rate: int | None = None, link: float | None = None) -> Bound:
    """Say what bounds ours. ``rate``: bytes a second that were allowed; ``link``: those that the network takes."""
    told = stages(case)
    wall_s = sum(told.values())
    read = median(inside.bytes_read for inside in insides(case))
    per_s = read / max(told["read"], 1e-9)
    if rate is not None and per_s >= _IS_LIMIT * rate:
        return Bound.RATE
    if link is not None and per_s >= _IS_LIMIT * link:
        return Bound.NETWORK
    if told["start"] + told["plan"] >= wall_s / 3:
        return Bound.START
    # Where any round came close to the drain, the distance of the others is noise.
    if share_of_drain(case).most < _IS_LIMIT:
        return _find_own_bound(case, told)
    return Bound.ONE_NODE if case.situation.nodes == 1 else Bound.NODES


def _find_own_bound(case: Case, told: dict[str, float]) -> Bound:
    """Say which part of ours takes the time that the drain does not."""
    wall_s = sum(told.values())
    doing = busy(case)
    if told["sync"] + doing["write"] >= wall_s / 3:
        return Bound.TARGET
    cpu_s = median(run.cpu_s for run in case.runs[OURS])
    if cpu_s >= _IS_LIMIT * wall_s or doing["compare"] + doing["digest"] >= wall_s / 3:
        return Bound.PROCESSOR
    return Bound.NOTHING
