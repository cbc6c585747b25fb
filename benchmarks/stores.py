"""Measures what a store that is far away costs: ``python -m benchmarks.stores``.

Backup, verify and restore of a full backup in an object store on this machine, over the shortest way and over one whose
round trip is longer. What was written over both is then compared.
"""

from __future__ import annotations

import argparse
from functools import partial

import anyio

from asyncbackup.bench.cases import Run
from asyncbackup.bench.fill import NEW
from asyncbackup.bench.measuring import VDI
from asyncbackup.bench.programs import LOCAL
from asyncbackup.bench.serving import FAR, Serving
from asyncbackup.bench.workloads import OBJECT_SIZE
from benchmarks import contest, s3
from benchmarks.contest import PROGRAM, Contestant

BACKUP, VERIFY, RESTORE = "backup", "verify", "restore"
_VERBS = (BACKUP, VERIFY, RESTORE)
_KEPT, _RESTORED = "kept", "restored"


def far(verb: str) -> str:
    """Name a verb that has the longer way."""
    return f"{verb}, far"


async def main(arguments: argparse.Namespace) -> None:
    """Run them all, and print a table."""
    contest.require(modules=["moto", "obstore"])
    contest.tell_load()
    async with contest.serving(arguments) as served, s3.serving(arguments.delay) as store:
        await contest.cost(store.leading([*_backup(served), store.url(_KEPT)]))
        contestants = _contestants(served, store, LOCAL) | {
            far(verb): each for verb, each in _contestants(served, store, FAR).items()
        }
        runs = await contest.contest(contestants, arguments.rounds)
        files = {host: served.folder / host for host in (LOCAL, FAR)}
        for host, file in files.items():
            await contest.cost(
                store.leading([*PROGRAM, "convert", "-q", "--format", "dog", store.url(host), "--to", str(file)])
            )
        contest.require_same(*files.values())
    print(f"a round trip takes {arguments.delay:g} ms longer where it is far")
    contest.tell(runs, arguments.objects * OBJECT_SIZE, costs={far(verb): verb for verb in _VERBS})
    contest.tell_load()


def _backup(served: Serving) -> list[str]:
    return [*PROGRAM, "backup", "-q", "--force", *contest.at(served), "-s", NEW, VDI]


def _contestants(served: Serving, store: s3.Store, host: str) -> dict[str, Contestant]:
    """Make what runs each verb once over the way through ``host``."""

    async def run(*command: str) -> Run:
        return await contest.cost(store.leading(command, host))

    async def restore() -> Run:
        cost = await run(*PROGRAM, "restore", "-q", *contest.at(served), "--to", _RESTORED, store.url(_KEPT))
        await contest.remove(served, _RESTORED)
        return cost

    return {
        BACKUP: partial(run, *_backup(served), store.url(host)),
        VERIFY: partial(run, *PROGRAM, "verify", "-q", store.url(_KEPT)),
        RESTORE: restore,
    }


def parser() -> argparse.ArgumentParser:
    """Make the parser of its arguments."""
    made = contest.parser_of(__doc__, "full", 256)
    made.add_argument("--delay", type=float, default=20, help="ms that a round trip takes longer (20)")
    return made


if __name__ == "__main__":
    anyio.run(main, parser().parse_args())
