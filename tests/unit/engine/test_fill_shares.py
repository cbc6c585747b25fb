"""Shares of a restore: what is written is that of one process, also if it is written twice, or too late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from asyncbackup import BaseSnapshot, ChainOptions, Cluster, backup, restore
from asyncbackup.engine.fill_job import FillJob, fill_share
from asyncbackup.engine.progress import ReplayCounts
from asyncbackup.errors import ChangedMeanwhile, LeftUnfinished
from tests.disks import OBJECTS, content_of, make_disk


class Stop(Exception):
    """Ends a run."""


@dataclass
class Here:
    """Writes each share in this process, so often."""

    times: int = 1
    at_once: int = 2
    on_one_machine: int = 2
    have_all_ended: bool = True
    is_stopped: bool = False
    jobs: list[FillJob] = field(default_factory=list)

    async def check(self, backups: Sequence[str], options: ChainOptions) -> None:
        """See the same files."""

    async def fill(self, job: FillJob) -> ReplayCounts:
        self.jobs.append(job)
        counts = [await fill_share(job) for _ in range(self.times)]
        if self.is_stopped:
            raise Stop
        return counts[0]

    async def have_ended(self) -> bool:
        return self.have_all_ended

    async def find_lost(self) -> Sequence[str]:
        return []


@pytest.fixture
async def chain(cluster: Cluster, tmp_path: Path) -> list[Path]:
    await make_disk(cluster)
    await backup(cluster, "disk", tmp_path / "a", snapshot="a")
    await backup(cluster, "disk", tmp_path / "b", snapshot="b", base="a")
    return [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("is_clone", [False, True], ids=["chain", "clone"])
async def test_shares_that_are_written_twice_make_the_vdi_of_one_process(
    cluster: Cluster, chain: list[Path], *, is_clone: bool
) -> None:
    files, base = (chain[1:], BaseSnapshot(cluster, "a")) if is_clone else (chain, None)
    alone = await restore(cluster, files, "alone", base=base, snapshot="b")

    shared = await restore(cluster, files, "shared", base=base, snapshot="b", fillers=(here := Here(times=2)))

    assert await content_of(cluster, "shared", "b") == await content_of(cluster, "disk", "b")
    one, other = await cluster.find_vdi("alone", "b"), await cluster.find_vdi("shared", "b")
    table = await cluster.read_owners(other.vdi_id, OBJECTS)
    table[table == other.vdi_id] = one.vdi_id
    assert table.tolist() == (await cluster.read_owners(one.vdi_id, OBJECTS)).tolist()
    assert len(here.jobs) > 1
    assert (shared.objects_done, shared.bytes_written) == (alone.objects_done, alone.bytes_written)


async def test_a_share_that_begins_when_the_vdi_is_complete_writes_nothing(cluster: Cluster, chain: list[Path]) -> None:
    await restore(cluster, chain, "new", snapshot="b", fillers=(here := Here()))

    with pytest.raises(ChangedMeanwhile, match="it is not the unfinished restore that was begun"):
        await fill_share(here.jobs[0])


async def test_a_share_of_another_backup_is_refused(cluster: Cluster, chain: list[Path]) -> None:
    await restore(cluster, chain, "new", snapshot="b", fillers=(here := Here()))

    with pytest.raises(ChangedMeanwhile, match="another machine sees another backup there"):
        await fill_share(replace(here.jobs[0], digests=["0", "0"]))


async def test_a_restore_that_fails_is_removed(cluster: Cluster, chain: list[Path]) -> None:
    with pytest.raises(Stop):
        await restore(cluster, chain, "new", snapshot="b", fillers=Here(is_stopped=True))

    assert not await cluster.has_vdi("new")


async def test_a_restore_that_fails_is_left_while_others_may_write_into_it(cluster: Cluster, chain: list[Path]) -> None:
    with pytest.raises(LeftUnfinished, match="workers may still write into it"):
        await restore(cluster, chain, "new", snapshot="b", fillers=Here(is_stopped=True, have_all_ended=False))

    assert await cluster.has_vdi("new")


async def test_without_a_snapshot_nothing_is_shared_out(cluster: Cluster, chain: list[Path]) -> None:
    with pytest.raises(ValueError, match="expected a snapshot to take"):
        await restore(cluster, chain, "new", fillers=Here())
