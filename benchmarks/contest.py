"""Runs commands by turns on a cluster for the occasion, and prints a table: over ``asyncbackup.bench``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from asyncbackup.bench.cases import Run, Situation
from asyncbackup.bench.measure import measure, run
from asyncbackup.bench.measuring import LocalOptions, filled
from asyncbackup.bench.rounds import run_rounds
from asyncbackup.bench.serving import Serving
from asyncbackup.bench.statistics import ratios, spread
from asyncbackup.bench.workloads import WORKLOADS
from asyncbackup.cli import bench_report

PROGRAM = (sys.executable, "-m", "asyncbackup")
LIMIT_S = 600.0
_HEADER = ("", "seconds", "GB/s", "CPU s", "peak MiB", "")

Contestant = Callable[[], Awaitable[Run]]


def parser_of(description: str | None, workload: str, amount: int) -> argparse.ArgumentParser:
    """Make a parser of the arguments that the scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("workload", nargs="?", choices=list(WORKLOADS), default=workload, help="of the increment")
    parser.add_argument("--objects", type=int, default=amount, help=f"objects of 4 MiB in the VDI ({amount})")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=os.environ.get("BENCH_FOLDER"), help="six times the VDI's size")
    return parser


@asynccontextmanager
async def serving(arguments: argparse.Namespace) -> AsyncIterator[Serving]:
    """Serve a cluster of one node that holds the workload."""
    workload, situation = WORKLOADS[arguments.workload], Situation()
    options = LocalOptions([workload], arguments.objects, arguments.rounds, situation, folder=arguments.folder)
    async with filled(options, workload, situation) as served:
        yield served


def at(served: Serving) -> list[str]:
    """Give the arguments that lead to the cluster, for ours and for dog."""
    host, port = served.gateways[0]
    return ["-a", host, "-p", str(port)]


async def prepare(*arguments: str) -> None:
    """Run ours once."""
    await run([*PROGRAM, *arguments], LIMIT_S)


async def cost(command: Sequence[str], output: Path | None = None) -> Run:
    """Run a command once."""
    took = await measure(command, output or Path(os.devnull), LIMIT_S)
    return Run(took.wall_s, took.cpu_s, took.peak_bytes)


async def contest(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[Run]]:
    """Run all of them by turns, once more than asked: the first round warms caches, and does not count."""
    runs = await run_rounds(contestants, rounds + 1)
    return {name: theirs[1:] for name, theirs in runs.items()}


def tell(runs: Mapping[str, Sequence[Run]], size: int, pairs: Mapping[str, str]) -> None:
    """Print a row for each contestant. ``pairs``: whose time is a multiple of whose."""
    rows = []
    for name, theirs in runs.items():
        walls = [run.wall_s for run in theirs]
        other = runs.get(pairs.get(name, ""), ())
        told = bench_report.spread(spread(ratios([run.wall_s for run in other], walls))) if other else ""
        rows.append(
            (
                name,
                bench_report.spread(spread(walls)),
                f"{size / 1e9 / median(walls):.2f}",
                f"{median(run.cpu_s for run in theirs):.2f}",
                f"{max(run.peak_bytes for run in theirs) / (1 << 20):.0f}",
                f"{pairs[name]} takes {told} times as long" if told else "",
            )
        )
    print("\n".join(bench_report.draw(_HEADER, rows)))
