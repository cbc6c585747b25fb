"""Measures a cluster that runs, without writing anything to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final, NamedTuple

from anyio import to_thread

from asyncbackup.bench.cases import Case, Situation
from asyncbackup.bench.contest import Contest
from asyncbackup.bench.job import Job
from asyncbackup.bench.measuring import Steps, require_room, run_told
from asyncbackup.bench.serving import PREFIX
from asyncbackup.bench.sweeps import count_in_flight, measure_in_flight
from asyncbackup.client import Cluster
from asyncbackup.client.cluster import Snapshot
from asyncbackup.errors import NothingToRead, TargetUnusable
from asyncbackup.verbs.backup import Estimate, estimate
from asyncbackup.wire.inode import Inode

_LIMIT_S: Final = 24 * 3600.0
"""Seconds for a run: whoever measures for longer than a day measures something else."""
_LOOKED_AT: Final = 8
"""Increments to look at, the newest ones: each costs a few requests."""
_MOST_READ: Final = 4 << 30
"""Bytes to read in a run, if nobody says what to read. Less than this tells as much, and more disturbs others."""


class Choice(NamedTuple):
    """What to back up."""

    vdi: str
    snapshot: Snapshot
    base: Snapshot | None

    def __str__(self) -> str:
        since = "" if self.base is None else f" since {self.base}"
        return f"{self.vdi}, snapshot {self.snapshot}{since}"


async def choose(cluster: Cluster) -> Choice:
    """Find something to read: the largest of the newest increments that is not too large, or a full backup.

    Raises NothingToRead.
    """
    listed = await cluster.list_vdis()
    by_name: dict[str, list[Inode]] = {}
    for inode in listed.sound:
        if inode.is_snapshot and not inode.is_hyper:
            by_name.setdefault(inode.name, []).append(inode)
    increments: list[tuple[Inode, Inode | None]] = []
    fulls: list[tuple[Inode, Inode | None]] = []
    for snapshots in by_name.values():
        snapshots.sort(key=lambda inode: inode.snap_id)
        increments += [(newer, older) for older, newer in pairwise(snapshots)]
        fulls.append((snapshots[-1], None))
    for candidates in (increments, fulls):
        candidates.sort(key=lambda pair: pair[0].create_time, reverse=True)
        found = [(await _estimate(cluster, *pair), pair) for pair in candidates[:_LOOKED_AT]]
        filled = [(size, pair) for size, pair in found if size]
        if filled:
            small = [each for each in filled if each[0] <= _MOST_READ]
            _, (to, base) = max(small, key=_first) if small else min(filled, key=_first)
            return Choice(to.name, to.snap_id, None if base is None else base.snap_id)
    raise NothingToRead


def _first(found: tuple[int, object]) -> int:
    return found[0]


async def _estimate(cluster: Cluster, to: Inode, base: Inode | None) -> int:
    base_id = None if base is None else base.snap_id
    return (await estimate(cluster, to.name, snapshot=to.snap_id, base=base_id)).bytes_to_read


@dataclass(frozen=True, slots=True)
class RunningOptions:
    """What is measured on a cluster that runs, and how often."""

    job: Job
    expected: Estimate
    """What a backup would do at most."""
    situation: Situation
    rounds: int = 1
    against: Sequence[str] = ()
    """Reference clients."""
    folder: Path | None = None
    """For backups. None: where temporary files are."""
    sweeps: bool = False
    """Whether it is measured with several amounts in flight as well."""

    def steps(self) -> int:
        """Count the steps: a preparation and the runs."""
        return 1 + self.runs()

    def runs(self) -> int:
        """Count the runs, each of which reads all that there is to read."""
        return self.rounds * (2 + len(self.against)) + (count_in_flight(self.rounds) if self.sweeps else 0)


async def measure_running(options: RunningOptions, steps: Steps) -> list[Case]:
    """Back the job up again and again, into a new folder, which goes. Raises what backups raise, and ProgramFailed."""
    job, folder, expected = options.job, options.folder, options.expected
    await to_thread.run_sync(require_room, folder, expected.bytes_to_write)
    name = str(Choice(job.vdi, job.snapshot, job.base))
    try:
        made = TemporaryDirectory(prefix=PREFIX, dir=folder)
    except OSError as error:
        raise TargetUnusable(str(folder or gettempdir()), error.strerror or str(error)) from error
    with made as home:
        contest = Contest(job, Path(home), _LIMIT_S)
        steps.begin("finding out what is read", is_preparation=True)
        await contest.prepare()
        runs = await run_told(contest.contestants(options.against), options.rounds, steps, name)
        title = "on a running cluster"
        cases = [Case(name, title, options.situation, expected.bytes_to_read, runs)]
        if options.sweeps:
            cases += await measure_in_flight(contest, options.situation, options.rounds, steps)
    return cases
