"""Runs commands by turns on a cluster for the occasion, and prints a table: over ``asyncbackup.bench``."""

from __future__ import annotations

import argparse
import filecmp
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from asyncbackup.bench import programs
from asyncbackup.bench.cases import Run, Situation
from asyncbackup.bench.fill import FILLING
from asyncbackup.bench.measure import measure, run
from asyncbackup.bench.measuring import LocalOptions, filled
from asyncbackup.bench.rounds import run_rounds
from asyncbackup.bench.serving import Serving
from asyncbackup.bench.statistics import ratios, spread
from asyncbackup.bench.workloads import WORKLOADS
from asyncbackup.cli import bench_report
from asyncbackup.client import connect_any
from asyncbackup.wire import messages
from asyncbackup.wire.inode import TABLE_OFFSET
from asyncbackup.wire.oid import data_oid, inode_oid

PROGRAM = (sys.executable, "-m", "asyncbackup")
LIMIT_S = 600.0
_HEADER = ("", "seconds", "MB/s", "CPU s", "peak MiB", "")

_NO_PAIRS: Mapping[str, str] = {}

Contestant = Callable[[], Awaitable[Run]]


def parser_of(description: str | None, workload: str, amount: int) -> argparse.ArgumentParser:
    """Make a parser of the arguments that scripts share which choose a workload."""
    parser = plain_parser_of(description, amount)
    parser.add_argument("workload", nargs="?", choices=list(WORKLOADS), default=workload, help="what differs")
    return parser


def plain_parser_of(description: str | None, amount: int) -> argparse.ArgumentParser:
    """Make a parser of the arguments that all scripts share which use a cluster for the occasion."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--objects", type=int, default=amount, help=f"objects of 4 MiB in the VDI ({amount})")
    parser.add_argument("--rounds", type=int, default=5)
    add_folder(parser, "six times the VDI's size")
    return parser


def add_folder(parser: argparse.ArgumentParser, size: str | None = None) -> None:
    """Add the argument that says where stores and backups go; ``size`` says how large they get."""
    parser.add_argument("--folder", type=_to_folder, default=os.environ.get("BENCH_FOLDER"), help=size)


def _to_folder(text: str) -> Path:
    """Take a folder that is there. The variable is judged as well: argparse converts defaults that are text."""
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder '{text}'")
    return folder


def require(*, modules: Sequence[str] = (), commands: Sequence[str] = ()) -> None:
    """End the script unless all of these are installed."""
    missing = [f"the module {name}" for name in modules if find_spec(name) is None]
    missing += [f"the program {name}" for name in commands if not programs.is_on_path(name)]
    if missing:
        sys.exit(f"this benchmark needs {' and '.join(missing)}")


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


def total(runs: Sequence[Run]) -> Run:
    """Say what commands took that ran one after the other."""
    return Run(sum(run.wall_s for run in runs), sum(run.cpu_s for run in runs), max(run.peak_bytes for run in runs))


def clear(*files: Path) -> None:
    """Remove backups and their manifests: to replace a file takes longer than to write one."""
    for file in files:
        file.unlink(missing_ok=True)
        manifest_of(file).unlink(missing_ok=True)


def manifest_of(file: Path) -> Path:
    """Name the manifest of a backup."""
    return file.with_name(f"{file.name}.manifest")


def require_same(one: Path, *others: Path) -> None:
    """End the script unless all of these files are the same, byte for byte."""
    for other in others:
        if not filecmp.cmp(one, other, shallow=False):
            sys.exit(f"{other.name} is not the same as {one.name}")


async def remove(served: Serving, vdi: str) -> None:
    """Remove a VDI and its snapshots, with the objects that they do not share with others."""
    async with connect_any(served.near, FILLING) as cluster:
        for inode in (await cluster.list_vdis(vdi)).sound:
            for idx in range(inode.object_count):
                await cluster.remove_object(data_oid(inode.vdi_id, idx))
            # With a table that names objects, the name would stay in use.
            table, oid = bytes(4 * inode.object_count), inode_oid(inode.vdi_id)
            await cluster.write_object(oid, table, TABLE_OFFSET, copies=inode.nr_copies)
            message = messages.delete_vdi(vdi, snapid=inode.snap_id if inode.is_snapshot else 0)
            await cluster.expect_success(message, f"deleting {vdi}")


async def contest(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[Run]]:
    """Run all of them by turns, once more than asked: the first round warms caches, and does not count."""
    runs = await run_rounds(contestants, rounds + 1)
    return {name: theirs[1:] for name, theirs in runs.items()}


def tell(
    runs: Mapping[str, Sequence[Run]],
    size: int,
    pairs: Mapping[str, str] = _NO_PAIRS,
    costs: Mapping[str, str] = _NO_PAIRS,
) -> None:
    """Print a row for each contestant.

    ``pairs``: whose time is a multiple of whose, told in the row of the quicker one; ``costs``: the other way round.
    """
    rows = []
    for name, theirs in runs.items():
        walls = [run.wall_s for run in theirs]
        remarks = []
        if (other := pairs.get(name, "")) in runs:
            remarks.append(f"{other} takes {_multiple(runs[other], theirs)}")
        if (other := costs.get(name, "")) in runs:
            remarks.append(f"{_multiple(theirs, runs[other])} as {other}")
        rows.append(
            (
                name,
                bench_report.spread(spread(walls)),
                f"{size / 1e6 / median(walls):.0f}",
                f"{median(run.cpu_s for run in theirs):.2f}",
                f"{max(run.peak_bytes for run in theirs) / (1 << 20):.0f}",
                ", ".join(remarks),
            )
        )
    print("\n".join(bench_report.draw(_HEADER, rows)))


def _multiple(theirs: Sequence[Run], others: Sequence[Run]) -> str:
    multiples = ratios([run.wall_s for run in theirs], [run.wall_s for run in others])
    return f"{bench_report.spread(spread(multiples))} times as long"


def tell_load() -> None:
    """Print how busy the machine is, in processes that want to run: means of 1, 5 and 15 minutes."""
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{len(os.sched_getaffinity(0))} cores, load {loads}", flush=True)
