"""The journal keeps other runs off, and tells who was overtaken."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from asyncbackup import Cluster
from asyncbackup.engine.journal import Journal, end_journal
from asyncbackup.engine.lineage import read_applying
from asyncbackup.errors import VdiInUse, single_error
from asyncbackup.format.identity import time_text
from asyncbackup.format.replica import Applying, applying_key
from asyncbackup.wire.inode import Inode
from tests.disks import OBJECT
from tests.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.engine.journal._WATCH_S", 0)
    monkeypatch.setattr("asyncbackup.engine.journal._BEAT_S", 0)


@pytest.fixture
async def inode(cluster: Cluster) -> Inode:
    await cluster.create_vdi("disk", OBJECT)
    return await cluster.find_vdi("disk")


def entry_of(inode: Inode, run: str) -> Applying:
    created = time_text(inode.create_time)
    assert created is not None
    return Applying((), created, None, None, is_complete=False, run=run * 32)


async def test_a_journal_is_there_from_its_beginning_to_its_end(cluster: Cluster, inode: Inode) -> None:
    journal = await Journal.begin(cluster, inode, entry_of(inode, "1"), None)
    assert await read_applying(cluster, inode) == entry_of(inode, "1")
    await journal.complete()
    assert await read_applying(cluster, inode) == replace(entry_of(inode, "1"), is_complete=True)

    await journal.end()

    assert await read_applying(cluster, inode) is None


async def test_a_journal_beats_while_it_is_kept(cluster: Cluster, inode: Inode) -> None:
    journal = await Journal.begin(cluster, inode, entry_of(inode, "1"), None)

    async with journal.kept():
        await until(lambda: journal.entry.beat >= 2)

    found = await read_applying(cluster, inode)
    assert found is not None
    assert found.beat >= 2


async def test_of_two_that_begin_one_is_refused(cluster: Cluster, inode: Inode) -> None:
    await Journal.begin(cluster, inode, entry_of(inode, "1"), None)

    with pytest.raises(VdiInUse, match="another run took over"):
        await Journal.begin(cluster, inode, entry_of(inode, "2"), None)


async def test_a_creation_that_was_repeated_is_ours(cluster: Cluster, inode: Inode) -> None:
    await cluster.write_attribute("disk", applying_key(inode.vdi_id), entry_of(inode, "1").encode())

    await Journal.begin(cluster, inode, entry_of(inode, "1"), None)


async def test_a_journal_begins_again_after_its_end(cluster: Cluster, inode: Inode) -> None:
    await end_journal(cluster, inode)

    await Journal.begin(cluster, inode, entry_of(inode, "2"), None)

    assert await read_applying(cluster, inode) == entry_of(inode, "2")


async def test_a_journal_that_was_left_is_taken_over(cluster: Cluster, inode: Inode) -> None:
    left = await Journal.begin(cluster, inode, entry_of(inode, "1"), None)

    await Journal.begin(cluster, inode, entry_of(inode, "2"), left.entry)

    assert await read_applying(cluster, inode) == entry_of(inode, "2")
    with pytest.raises(VdiInUse, match="another run took over"):
        await left.complete()


async def test_whoever_is_overtaken_stops(cluster: Cluster, inode: Inode) -> None:
    journal = await Journal.begin(cluster, inode, entry_of(inode, "1"), None)

    with pytest.raises(VdiInUse, match="another run took over"), single_error():  # noqa: PT012 - it ends in the middle
        async with journal.kept():
            while True:
                await cluster.write_attribute("disk", applying_key(inode.vdi_id), entry_of(inode, "2").encode())
                await anyio.lowlevel.checkpoint()
