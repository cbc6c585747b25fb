"""Restores that were interrupted, and go on: the VDI is that of a run that was not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncbackup import BaseSnapshot, ChainOptions, Cluster, Progress, RestoreSummary, WindowOptions, connect, restore
from asyncbackup.client.construction import is_unfinished
from asyncbackup.errors import BegunOtherwise, NotResumable, UnfinishedExists, VdiExists
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.storage.publication import manifest_path
from asyncbackup.verbs.backup import backup
from asyncbackup.verbs.discard import discard
from asyncbackup.verbs.follow import follow
from tests.disks import OBJECT, OBJECTS, content_of, delete_as_dog, make_disk
from tests.folders import left_in

# Each of many runs is interrupted somewhere.
pytestmark = pytest.mark.slow

ONE = WindowOptions(workers=1)
PORTIONS = WindowOptions(workers=2, memory=1 << 20)


class Stop(Exception):
    """Ends a run."""


class Run:
    """Restores backups of the disk to VDI ``new``, and stops when ``stop_at`` objects are done."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.files = [folder / "full", folder / "increment"]

    async def __call__(self, stop_at: int | None = None, **arguments: Any) -> RestoreSummary:
        last = 0

        def tell(progress: Progress) -> None:
            nonlocal last
            if not progress.is_checking and progress.objects_done != last:
                last = progress.objects_done
                if last == stop_at:
                    raise Stop

        given: dict[str, Any] = {"options": ONE, "checkpoint_bytes": 1, "backups": self.files} | arguments
        return await restore(self.cluster, given.pop("backups"), "new", on_progress=tell, **given)

    async def stopped(self, stop_at: int = 3, **arguments: Any) -> None:
        with pytest.raises(Stop):
            await self(stop_at, **arguments)
        assert is_unfinished(await self.cluster.find_vdi("new"))
        assert len(self.journals()) == 1

    def journals(self) -> list[str]:
        return [name for name in left_in(self.folder) if name.startswith(".full.restore-")]

    async def check(self, snapshot: str = "b") -> None:
        """Raise AssertionError unless the VDI holds what the snapshot does, and nothing is left beside the files."""
        assert self.journals() == []
        assert not is_unfinished(await self.cluster.find_vdi("new"))
        empty = dict.fromkeys(range(OBJECTS), bytes(OBJECT))
        assert empty | await content_of(self.cluster, "new", None) == empty | await content_of(
            self.cluster, "disk", snapshot
        )


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    async with Sheep(MemoryStore()) as sheep, connect(sheep.host, sheep.port) as cluster:
        await make_disk(cluster)
        made = Run(cluster, tmp_path)
        await backup(cluster, "disk", made.files[0], snapshot="a")
        await backup(cluster, "disk", made.files[1], snapshot="b", base="a")
        yield made


@pytest.mark.parametrize("options", [ONE, WindowOptions(workers=4), PORTIONS], ids=["one", "some", "portions"])
@pytest.mark.parametrize("clone", [False, True], ids=["whole", "clone"])
async def test_what_was_interrupted_anywhere_and_resumed_is_what_was_not_interrupted(
    run: Run, options: WindowOptions, *, clone: bool
) -> None:
    given: dict[str, Any] = {"options": options}
    if clone:
        given |= {"backups": run.files[1:], "base": BaseSnapshot(run.cluster, "a", "disk")}
    resumed = []
    for stop_at in range(1, OBJECTS):
        try:
            await run(stop_at, **given)
        except Stop:
            resumed.append((await run(resume=True, **given)).objects_resumed)
        await run.check()
        await delete_as_dog(run.cluster, "new")

    # With several workers it depends on their order how many objects are delivered when the run ends.
    assert max(resumed) > (2 if options is ONE else 0)


async def test_what_is_interrupted_again_and_again_comes_to_its_end(run: Run) -> None:
    stops = 0
    while True:
        try:
            await run(2, resume=True)
        except Stop:
            stops += 1
        else:
            break

    assert stops > 2
    await run.check()


async def test_a_replica_goes_on_from_what_was_resumed(run: Run) -> None:
    await run.stopped(backups=run.files[:1], snapshot="a")
    await run(backups=run.files[:1], snapshot="a", resume=True)

    await follow(run.cluster, run.files[1:], "new")

    await run.check()


async def test_before_the_first_checkpoint_the_vdi_goes(run: Run) -> None:
    with pytest.raises(Stop):
        await run(3, checkpoint_bytes=1 << 30)

    assert not await run.cluster.has_vdi("new")
    assert run.journals() == []


async def test_resuming_nothing_begins(run: Run) -> None:
    summary = await run(resume=True)

    assert summary.objects_resumed == 0
    await run.check()


async def test_an_unfinished_vdi_is_in_the_way_of_a_run_that_does_not_go_on(run: Run) -> None:
    await run.stopped()

    with pytest.raises(UnfinishedExists):
        await run()

    await run(resume=True)
    await run.check()


async def test_after_what_is_unfinished_was_discarded_it_begins_anew(run: Run) -> None:
    await run.stopped()
    await discard(run.cluster, "new")

    summary = await run(resume=True)

    assert summary.objects_resumed == 0
    await run.check()


async def test_a_vdi_that_is_complete_is_not_gone_on_with(run: Run) -> None:
    await run()

    with pytest.raises(VdiExists):
        await run(resume=True)


async def test_an_unfinished_vdi_without_its_journal_is_not_gone_on_with(run: Run) -> None:
    await run.stopped()
    (run.folder / run.journals()[0]).write_bytes(b"torn")

    with pytest.raises(UnfinishedExists):
        await run(resume=True)


async def test_what_was_begun_otherwise_is_not_gone_on_with(run: Run) -> None:
    await run.stopped()

    with pytest.raises(BegunOtherwise, match="begun with another chain of backups"):
        await run(backups=run.files[:1], resume=True)
    with pytest.raises(BegunOtherwise, match="begun with another copies"):
        await run(copies=0, resume=True)

    await run(resume=True)
    await run.check()


async def test_the_journal_stands_where_it_is_named(run: Run, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with pytest.raises(Stop):
        await run(3, journal=journal)
    assert run.journals() == []
    assert b'{"restoring":1,' in journal.read_bytes()

    summary = await run(resume=True, journal=journal)

    assert summary.objects_resumed > 0
    assert not journal.exists()
    await run.check()


async def test_where_no_journal_can_be_nothing_is_kept(run: Run) -> None:
    with pytest.raises(Stop):
        await run(2)
    taken = run.folder / run.journals()[0]
    await discard(run.cluster, "new")
    taken.unlink()
    taken.mkdir()

    with pytest.raises(Stop):
        await run(3)

    assert not await run.cluster.has_vdi("new")


async def test_what_nothing_proves_is_not_resumed(run: Run) -> None:
    manifest_path(run.files[1]).unlink()

    with pytest.raises(NotResumable):
        await run(assume_base=True, chain_options=ChainOptions(size=OBJECTS * OBJECT), resume=True)
