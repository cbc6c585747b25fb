"""Measures how the cost of a backup grows, with one thing at a time: ``python -m benchmarks.growth``.

Each line is a backup on a cluster of its own: real ``sheep`` where it is on PATH. Behind each group stands the line
that fits best, so that larger sizes can be told on paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import anyio
import numpy as np

from asyncbackup.bench.cases import Situation
from asyncbackup.bench.measuring import LocalOptions, Step, Steps, measure_local
from asyncbackup.bench.programs import OURS
from asyncbackup.bench.workloads import OBJECT_SIZE, SECTOR, Workload
from benchmarks import contest

MIB = 1 << 20
AMOUNT = 256
EMPTY_AMOUNT = 8
ONE = Workload("increment", "a sector changed in each object", SECTOR)


class Point(NamedTuple):
    """A backup, and where it stands on its axis."""

    at: float
    workload: Workload
    amount: int
    situation: Situation


def axes(scale: int) -> Iterator[tuple[str, list[Point]]]:
    """Give what grows, and the backups to make for it."""
    here, amount = Situation(), AMOUNT * scale
    yield (
        "objects of a VDI, thousands; 8 of them exist, and have a sector changed",
        [
            Point(EMPTY_AMOUNT * every / 1000, replace(ONE, exists_every=every), EMPTY_AMOUNT, here)
            for every in (16, 1 << 10, 1 << 14, 1 << 17)
        ],
    )
    yield (
        f"objects changed, of {amount}; a sector in each",
        [Point(amount / every, replace(ONE, changed_every=every), amount, here) for every in (64, 8, 2, 1)],
    )
    yield (
        f"MiB changed in each of {amount // 2} objects",
        [
            Point(length / MIB, replace(ONE, changed_bytes=length), amount // 2, here)
            for length in (SECTOR, MIB // 4, MIB, OBJECT_SIZE)
        ],
    )
    yield (
        f"ms of round trip; a sector changed in each of {amount // 2} objects",
        [Point(delay, ONE, amount // 2, replace(here, delay_ms=delay)) for delay in (0, 2, 20)],
    )
    yield (
        f"nodes on this machine; a sector changed in each of {amount // 2} objects",
        [Point(nodes, ONE, amount // 2, replace(here, nodes=nodes)) for nodes in (1, 2, 4)],
    )


async def measure(point: Point, rounds: int, folder: Path | None) -> tuple[float, float, int]:
    """Give seconds, seconds of our processor, and bytes of memory at the most: medians."""
    options = LocalOptions(
        [point.workload], point.amount, rounds, point.situation, (point.situation.delay_ms,), folder=folder
    )
    (case,) = await measure_local(options, Steps(options.steps(), ignore))
    runs = case.runs[OURS]
    return (
        median(run.wall_s for run in runs),
        median(run.cpu_s for run in runs),
        max(run.peak_bytes for run in runs),
    )


def ignore(_: Step) -> None:
    """Tell nobody."""


def fit(places: Sequence[float], values: Sequence[float]) -> str:
    """Write the line that fits best."""
    slope, start = np.polyfit(places, values, 1)
    return f"{start:.2f} + {slope * 1000:.2f}/1000 x"


async def main(arguments: argparse.Namespace) -> None:
    for what, points in axes(arguments.scale):
        print(f"\n| {what} | seconds | CPU seconds | peak MiB |\n| --- | --- | --- | --- |", flush=True)
        measured = []
        for point in points:
            wall_s, cpu_s, peak = await measure(point, arguments.rounds, arguments.folder)
            measured.append((wall_s, cpu_s))
            print(f"| {point.at:g} | {wall_s:.2f} | {cpu_s:.2f} | {peak / MIB:.0f} |", flush=True)
        places = [point.at for point in points]
        walls, cpus = zip(*measured, strict=True)
        print(f"| fitted | {fit(places, walls)} | {fit(places, cpus)} | |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=int, default=1, help="times so many objects")
    contest.add_folder(parser)
    anyio.run(main, parser.parse_args())
