"""What is discarded, and what never is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from asyncbackup import Cluster, Progress, connect, discard, restore
from asyncbackup import backup as back_up
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi, Parent, Shape
from asyncbackup.engine.removal import refuse_discarded, say_discarding
from asyncbackup.errors import ChangedMeanwhile, NotDiscarded, RequestFailed, TargetBusy, TargetUnusable, VdiNotFound
from asyncbackup.format.restoring import Restoring
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.storage.journal import JournalFile, journal_beside
from asyncbackup.verbs import discard as verb
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.inode import TAG_OFFSET, Inode
from asyncbackup.wire.oid import inode_oid, is_data
from tests.disks import OBJECT, OBJECTS, SHIFT, content_of, make_disk, noise, rewrite_inode
from tests.folders import left_in

SHAPE = Shape(OBJECTS * OBJECT, OBJECT)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard._WATCH_S", 0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def sheep(store: MemoryStore) -> AsyncIterator[Sheep]:
    async with Sheep(store) as running:
        yield running


def data_objects(store: MemoryStore) -> set[int]:
    return {oid for oid in store.oids() if is_data(oid)}


async def leave_unfinished(cluster: Cluster, objects: int = 3) -> NewVdi:
    """Do what a restore does that is killed when it has created some of its objects."""
    new = await NewVdi.create(cluster, "new", SHAPE, expected=np.arange(OBJECTS, dtype=np.uint32))
    await new.mark()
    for idx in range(objects):
        await new.create_object(idx, noise(idx, OBJECT), 0)
    return new


async def tag(cluster: Cluster, vdi_id: int, text: str) -> None:
    await cluster.write_object(inode_oid(vdi_id), messages.pack_name(text), TAG_OFFSET, copies=1)


class Stop(Exception):
    """Ends a run."""


async def stop(*_: Any) -> None:
    raise Stop


@pytest.mark.parametrize("snapshot", [None, "b"])
async def test_a_restore_does_not_report_what_a_discard_removes_at_this_moment(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: str | None
) -> None:
    await make_disk(cluster)
    await back_up(cluster, "disk", tmp_path / "b", snapshot="b")
    publish = NewVdi.publish

    async def publish_late(new: NewVdi) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(NewVdi, "remove", stop)
            with pytest.raises(Stop):
                await discard(cluster, "new")
        await publish(new)

    monkeypatch.setattr(NewVdi, "publish", publish_late)
    with pytest.raises(ChangedMeanwhile, match="a discard removes it"):
        await restore(cluster, [tmp_path / "b"], "new", snapshot=snapshot)

    assert [vdi.name for vdi in (await cluster.list_vdis()).sound] == ["disk"] * 3


async def test_a_restore_that_ends_while_it_is_discarded_keeps_its_vdi(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = await leave_unfinished(cluster, OBJECTS)

    async def publish_first(*arguments: Any) -> bool:
        await left.publish()
        return await say_discarding(*arguments)

    monkeypatch.setattr(verb, "say_discarding", publish_first)
    with pytest.raises(NotDiscarded, match="it has no tag"):
        await discard(cluster, "new")

    assert len(await content_of(cluster, "new", None)) == OBJECTS
    await refuse_discarded(cluster, left.inode)


async def test_a_discard_does_not_take_back_what_another_one_says(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = await leave_unfinished(cluster, OBJECTS)
    await say_discarding(cluster, left.inode)

    async def publish_first(*arguments: Any) -> bool:
        await left.publish()
        return await say_discarding(*arguments)

    monkeypatch.setattr(verb, "say_discarding", publish_first)
    with pytest.raises(NotDiscarded):
        await discard(cluster, "new")

    with pytest.raises(ChangedMeanwhile):
        await refuse_discarded(cluster, left.inode)


async def test_a_restore_does_not_go_on_with_what_a_discard_began_to_remove(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_later(progress: Progress) -> None:
        if progress.objects_done >= 3:
            raise Stop

    await make_disk(cluster)
    await back_up(cluster, "disk", tmp_path / "b", snapshot="b")
    with pytest.raises(Stop):
        await restore(cluster, [tmp_path / "b"], "new", checkpoint_bytes=1, on_progress=stop_later)
    with monkeypatch.context() as patch:
        patch.setattr(NewVdi, "_clear_entries", stop)
        with pytest.raises(Stop):
            await discard(cluster, "new")

    with pytest.raises(ChangedMeanwhile, match="a discard removes it, or began to"):
        await restore(cluster, [tmp_path / "b"], "new", resume=True)

    await discard(cluster, "new")
    await restore(cluster, [tmp_path / "b"], "new", resume=True)
    assert await content_of(cluster, "new", None) == await content_of(cluster, "disk", "b")


@pytest.mark.parametrize("objects", [0, 3])
async def test_an_unfinished_restore_is_removed_whole(cluster: Cluster, store: MemoryStore, objects: int) -> None:
    await make_disk(cluster)
    before = data_objects(store)
    new = await leave_unfinished(cluster, objects)

    discarded = await discard(cluster, "new")

    assert data_objects(store) == before
    assert not await cluster.has_vdi("new")
    assert json.loads(json.dumps(discarded.as_dict())) == {
        "vdi": "new",
        "vdi_id": f"{new.vdi_id:x}",
        "objects": OBJECTS if objects else 0,
        "journal": None,
    }


async def test_an_unfinished_clone_is_removed_and_its_base_stays(cluster: Cluster, store: MemoryStore) -> None:
    await make_disk(cluster)
    before, content = data_objects(store), await content_of(cluster, "disk", "a")
    base = await cluster.find_vdi("disk", "a")
    owners = await cluster.read_owners(base.vdi_id, OBJECTS)
    expected = np.array([1, 4, 6], np.uint32)
    new = await NewVdi.create(cluster, "new", SHAPE, Parent(base, owners), expected)
    await new.mark()
    await new.create_object(1, noise(7, 512), 0)

    await discard(cluster, "new")

    assert data_objects(store) == before
    assert await content_of(cluster, "disk", "a") == content
    assert not await cluster.has_vdi("new")


@pytest.mark.slow
async def test_many_objects_are_removed(cluster: Cluster, store: MemoryStore) -> None:
    count = 1500
    new = await NewVdi.create(cluster, "new", Shape(count * OBJECT, OBJECT), expected=np.arange(count, dtype=np.uint32))
    await new.mark()
    for idx in range(count):
        await new.create_object(idx, bytes(512), 0)

    await discard(cluster, "new")

    assert not data_objects(store)
    assert not await cluster.has_vdi("new")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has no tag"),
        *((text, f"its tag is '{text}'") for text in ("unfinished restores", "Unfinished restore")),
    ],
)
async def test_a_vdi_of_another_tag_is_left_as_it_is(
    cluster: Cluster, sheep: Sheep, store: MemoryStore, text: str, told: str
) -> None:
    new = await leave_unfinished(cluster)
    await tag(cluster, new.vdi_id, text)
    before = data_objects(store)
    written = sheep.requests[Opcode.WRITE_OBJ]

    with pytest.raises(NotDiscarded, match=f"VDI 'new' was not removed: {told}"):
        await discard(cluster, "new")

    assert data_objects(store) == before
    assert sheep.requests[Opcode.WRITE_OBJ] == written
    assert not sheep.requests[Opcode.DEL_VDI]


async def test_a_snapshot_of_the_tag_is_left_as_it_is(cluster: Cluster, store: MemoryStore) -> None:
    await leave_unfinished(cluster)
    await cluster.create_snapshot("new", UNFINISHED_TAG)
    before = data_objects(store)

    with pytest.raises(NotDiscarded, match="it has no tag, and not 'unfinished restore'"):
        await discard(cluster, "new")

    assert data_objects(store) == before
    assert (await cluster.find_vdi("new", UNFINISHED_TAG)).is_snapshot


def as_snapshot(inode: Inode) -> Inode:
    return replace(inode, snap_ctime=1)


def as_hyper_volume(inode: Inode) -> Inode:
    return replace(inode, store_policy=1)


@pytest.mark.parametrize("change", [as_snapshot, as_hyper_volume])
async def test_what_no_restore_makes_is_left_as_it_is(
    cluster: Cluster, sheep: Sheep, store: MemoryStore, change: Callable[[Inode], Inode]
) -> None:
    new = await leave_unfinished(cluster)
    rewrite_inode(store, change(await cluster.find_vdi("new")))
    before = data_objects(store)

    with pytest.raises((NotDiscarded, VdiNotFound)):
        await discard(cluster, "new")

    assert data_objects(store) == before
    assert not sheep.requests[Opcode.DEL_VDI]
    assert new.is_marked


async def test_a_missing_vdi_is_told(cluster: Cluster) -> None:
    await cluster.create_vdi("disk", OBJECT, block_size_shift=SHIFT)

    with pytest.raises(VdiNotFound, match="VDIs are disk"):
        await discard(cluster, "new")


async def test_a_restore_that_goes_on_is_left_to_it(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = await leave_unfinished(cluster)

    async def go_on(_: float) -> None:
        await new.create_object(3, noise(3, OBJECT), 0)

    monkeypatch.setattr(anyio, "sleep", go_on)

    with pytest.raises(NotDiscarded, match="a restore is making it at this moment"):
        await discard(cluster, "new")

    assert len(data_objects(store)) == 4


async def test_a_restore_that_comes_to_its_end_is_left_to_it(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = await leave_unfinished(cluster, OBJECTS)

    async def end(_: float) -> None:
        await new.publish()

    monkeypatch.setattr(anyio, "sleep", end)

    with pytest.raises(NotDiscarded):
        await discard(cluster, "new")

    assert len(data_objects(store)) == OBJECTS
    assert (await cluster.find_vdi("new")).tag == ""


async def test_what_failed_in_the_middle_can_be_repeated(store: MemoryStore) -> None:
    faults = [Fault.parse("remove_obj@2:error=EIO"), Fault.parse("del_vdi@1:error=EIO")]
    async with Sheep(store, faults=faults) as sheep, connect(sheep.host, sheep.port) as cluster:
        await leave_unfinished(cluster)

        for _ in faults:
            with pytest.raises(RequestFailed) as raised:
                await discard(cluster, "new")
            assert raised.value.result is Result.EIO
            assert (await cluster.find_vdi("new")).tag == UNFINISHED_TAG
        await discard(cluster, "new")

        assert not await cluster.has_vdi("new")
    assert not data_objects(store)


async def test_a_cancelled_discard_says_that_the_vdi_is_still_there(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_unfinished(cluster)
    watched = asyncio.Event()

    async def wait(_: float) -> None:
        watched.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(anyio, "sleep", wait)
    work = asyncio.create_task(discard(cluster, "new"))
    await watched.wait()
    work.cancel()

    with pytest.raises(asyncio.CancelledError) as raised:
        await work

    assert raised.value.__notes__ == ["VDI 'new' is still there, if only in part"]
    assert len(data_objects(store)) == 3


def entry(vdi: str) -> bytes:
    return Restoring(("0" * 32,), vdi, 5, 1, 0, SHAPE.size, 1, 0, 3).encode()


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "full"


@pytest.mark.parametrize("content", [entry("other"), entry("new"), b"somebody's letters\n", entry("new")[:-9]])
async def test_a_file_that_is_no_journal_of_the_vdi_stays(cluster: Cluster, tmp_path: Path, content: bytes) -> None:
    await leave_unfinished(cluster)
    (tmp_path / "journal").write_bytes(content)

    discarded = await discard(cluster, "new", journal=tmp_path / "journal")

    assert discarded.journal is None
    assert (tmp_path / "journal").read_bytes() == content
    assert not await cluster.has_vdi("new")


async def test_that_there_is_no_journal_is_no_trouble(cluster: Cluster, backup: Path, tmp_path: Path) -> None:
    await leave_unfinished(cluster)

    discarded = await discard(cluster, "new", backups=[backup])

    assert (discarded.journal, left_in(tmp_path)) == (None, [])


async def test_a_vdi_whose_journal_a_restore_has_open_is_left_to_it(cluster: Cluster, backup: Path) -> None:
    await leave_unfinished(cluster)
    async with JournalFile(journal_beside(backup, "new")):
        with pytest.raises(TargetBusy, match="is writing it"):
            await discard(cluster, "new", backups=[backup])

    assert await cluster.has_vdi("new")


async def test_a_place_where_no_journal_can_be_is_only_refused_if_it_was_named(
    cluster: Cluster, tmp_path: Path
) -> None:
    await leave_unfinished(cluster)

    with pytest.raises(TargetUnusable):
        await discard(cluster, "new", journal=tmp_path / "missing" / "journal")
    await discard(cluster, "new", backups=[tmp_path / "missing" / "full"])

    assert not await cluster.has_vdi("new")


async def test_the_journal_of_a_vdi_that_could_not_be_removed_stays(store: MemoryStore, backup: Path) -> None:
    journal = journal_beside(backup, "new")
    async with (
        Sheep(store, faults=[Fault.parse("remove_obj@1:error=EIO")]) as sheep,
        connect(sheep.host, sheep.port) as cluster,
    ):
        await leave_unfinished(cluster)
        journal.write_bytes(entry("new"))

        with pytest.raises(RequestFailed):
            await discard(cluster, "new", backups=[backup])

    assert journal.read_bytes() == entry("new")
