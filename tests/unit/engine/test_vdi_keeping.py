from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from asyncbackup import Cluster
from asyncbackup.client.construction import NewVdi, Shape
from asyncbackup.engine.vdi_keeping import VdiKeeping
from asyncbackup.errors import BegunOtherwise, TargetFull
from asyncbackup.format.restoring import Restoring
from asyncbackup.storage.journal import JournalFile
from tests.disks import OBJECT, OBJECTS

SIZE = OBJECTS * OBJECT
ENTRY = Restoring(("0" * 32,), "new", 0, 0, 0, SIZE, 1, 0, 0)


@pytest.fixture
async def left(cluster: Cluster, tmp_path: Path) -> Path:
    """Leave an unfinished VDI, and a journal that says that objects up to 3 are done."""
    vdi = await NewVdi.create(cluster, "new", Shape(SIZE, OBJECT, 1))
    await vdi.mark()
    async with JournalFile(tmp_path / "journal") as journal:
        keeping = VdiKeeping(journal, ENTRY, 10)
        await keeping.begin(vdi.inode)
        kept = []
        for done in (2, 3, 4):
            await keeping.advance(done, written=done + 7)
            kept.append(keeping.is_kept)
    assert kept == [False, True, True]
    return tmp_path / "journal"


async def test_what_the_journal_speaks_of_is_found(cluster: Cluster, left: Path) -> None:
    async with JournalFile(left) as journal:
        keeping = VdiKeeping(journal, ENTRY, 10)
        found = await keeping.find(cluster)

    assert found is not None
    assert (found.vdi_id, keeping.last_done, keeping.is_kept) == (keeping.entry.vdi_id, 3, True)


async def test_the_way_out_says_how_far_it_came(cluster: Cluster, left: Path) -> None:
    async with JournalFile(left) as journal:
        keeping = VdiKeeping(journal, ENTRY, 10)
        await keeping.find(cluster)
        await keeping.advance(5, written=1)
        await keeping.leave()
        again = VdiKeeping(journal, ENTRY, 10)
        await again.find(cluster)

    assert again.last_done == 5


async def test_what_was_taken_away_or_made_by_somebody_else_is_not_found(cluster: Cluster, left: Path) -> None:
    async with JournalFile(left) as journal:
        await cluster.delete_vdi("new")
        assert await VdiKeeping(journal, ENTRY, 10).find(cluster) is None

        vdi = await NewVdi.create(cluster, "new", Shape(SIZE, OBJECT, 1))
        await vdi.mark()
        assert await VdiKeeping(journal, ENTRY, 10).find(cluster) is None


async def test_a_vdi_that_is_complete_is_not_found(cluster: Cluster, left: Path) -> None:
    await NewVdi.of(cluster, await cluster.find_vdi("new")).publish()

    async with JournalFile(left) as journal:
        assert await VdiKeeping(journal, ENTRY, 10).find(cluster) is None


@pytest.mark.parametrize("change", [{"backups": ("1" * 32,)}, {"parent": 1}, {"size": 1}, {"copies": 2}], ids=str)
async def test_what_is_made_of_something_else_is_refused(
    cluster: Cluster, left: Path, change: dict[str, object]
) -> None:
    async with JournalFile(left) as journal:
        with pytest.raises(BegunOtherwise):
            await VdiKeeping(journal, replace(ENTRY, **change), 10).find(cluster)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_needed", [False, True])
async def test_only_a_journal_that_is_needed_has_to_be_written(
    cluster: Cluster, left: Path, monkeypatch: pytest.MonkeyPatch, *, is_needed: bool
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with JournalFile(left) as journal:
        keeping = VdiKeeping(journal, ENTRY, 1, is_needed)
        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(TargetFull) if is_needed else nullcontext():
            await keeping.advance(1, written=1)

    assert not keeping.is_kept


async def test_without_lines_there_is_nothing_to_find(cluster: Cluster, left: Path) -> None:
    async with JournalFile(left) as journal:
        await VdiKeeping(journal, ENTRY, 10).end()
        assert await VdiKeeping(journal, ENTRY, 10).find(cluster) is None
