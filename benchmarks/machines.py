"""Measures what it costs to share work out among processes: ``python -m benchmarks.machines``.

Shards one after the other and their joining, and workers of Dask, against one process. All are on this machine, so this
shows what sharing costs, not what more machines gain. What each made is compared with what one process made.
"""

from __future__ import annotations

import argparse
from functools import partial

import anyio

from asyncbackup.bench.cases import Run
from asyncbackup.bench.fill import NEW, OLD
from asyncbackup.bench.measuring import VDI
from asyncbackup.bench.serving import Serving
from asyncbackup.bench.workloads import OBJECT_SIZE, WORKLOADS
from benchmarks import contest
from benchmarks.contest import PROGRAM, Contestant

BACKUP, VERIFY, RESTORE = "backup", "verify", "restore"
SHARDS, LOCAL = "backup --shard, join", "backup --dask local"
_RESTORED = "restored"


def dasked(verb: str) -> str:
    """Name a verb that workers carry out which run already."""
    return f"{verb} --dask"


async def main(arguments: argparse.Namespace) -> None:
    """Run them all, and print a table."""
    contest.require(modules=["distributed"])
    # It imports what may be missing.
    from tests.dask_workers import DaskCluster  # noqa: PLC0415

    contest.tell_load()
    async with contest.serving(arguments) as served:
        shared = served.folder / "dask"
        shared.mkdir()
        with DaskCluster(shared, arguments.parts) as cluster:
            contestants = _Contestants(served, arguments.workload, arguments.parts, cluster.address)
            runs = await contest.contest(await contestants.all(), arguments.rounds)
    print(f"{arguments.workload}, {arguments.parts} shards, and {arguments.parts} workers of Dask")
    costs = {SHARDS: BACKUP, LOCAL: BACKUP} | {dasked(verb): verb for verb in (BACKUP, VERIFY, RESTORE)}
    contest.tell(runs, arguments.objects * OBJECT_SIZE, costs=costs)
    contest.tell_load()


class _Contestants:
    """Run each of them once."""

    def __init__(self, served: Serving, workload: str, parts: int, address: str) -> None:
        self._served = served
        self._parts = parts
        self._address = address
        self._place = contest.at(served)
        self._has_base = WORKLOADS[workload].is_increment
        self._kept = served.folder / "kept"
        self._made = served.folder / "made"

    async def all(self) -> dict[str, Contestant]:
        """Make the backup that others are compared with, and give all contestants."""
        await contest.prepare(*self._backup(), str(self._kept))
        dask = ["--dask", self._address]
        return {
            BACKUP: self._back_up,
            SHARDS: self._shards,
            dasked(BACKUP): partial(self._back_up, *dask),
            LOCAL: partial(self._back_up, "--dask", "local", "--workers", str(self._parts)),
            VERIFY: self._verify,
            dasked(VERIFY): partial(self._verify, *dask),
            RESTORE: self._restore,
            dasked(RESTORE): partial(self._restore, *dask),
        }

    def _backup(self) -> list[str]:
        base = ["-F", OLD] if self._has_base else []
        return ["backup", "-q", *self._place, "-s", NEW, *base, VDI]

    async def _back_up(self, *options: str) -> Run:
        contest.clear(self._made)
        cost = await contest.cost([*PROGRAM, *self._backup(), *options, str(self._made)])
        self._compare()
        return cost

    async def _shards(self) -> Run:
        pieces = [self._served.folder / f"piece{number}" for number in range(1, self._parts + 1)]
        contest.clear(self._made, *pieces)
        costs = [
            await contest.cost([*PROGRAM, *self._backup(), "--shard", f"{number}/{self._parts}", str(piece)])
            for number, piece in enumerate(pieces, 1)
        ]
        costs.append(await contest.cost([*PROGRAM, "join", "-q", *map(str, pieces), "--to", str(self._made)]))
        self._compare()
        return contest.total(costs)

    async def _verify(self, *options: str) -> Run:
        return await contest.cost([*PROGRAM, "verify", "-q", *options, str(self._kept)])

    async def _restore(self, *options: str) -> Run:
        # With a snapshot, as workers need it.
        target = ["--to", _RESTORED, "--take-snapshot", NEW, *(["--base", OLD] if self._has_base else [])]
        cost = await contest.cost([*PROGRAM, "restore", "-q", *self._place, *target, *options, str(self._kept)])
        await contest.remove(self._served, _RESTORED)
        return cost

    def _compare(self) -> None:
        contest.require_same(self._kept, self._made)
        contest.require_same(contest.manifest_of(self._kept), contest.manifest_of(self._made))


def parser() -> argparse.ArgumentParser:
    """Make the parser of its arguments."""
    made = contest.parser_of(__doc__, "full", 256)
    made.add_argument("--parts", type=int, default=3, help="shards, and workers of Dask (3)")
    return made


if __name__ == "__main__":
    anyio.run(main, parser().parse_args())
