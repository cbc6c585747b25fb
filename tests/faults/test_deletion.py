"""Snapshots that are deleted while they are read: an error of its own, and nothing that looks complete."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from asyncbackup import (
    Cluster,
    Dialect,
    FileTarget,
    NullTarget,
    Volume,
    WindowOptions,
    backup,
    connect,
    export,
    merge,
    restore,
)
from asyncbackup.engine.opening import BaseSnapshot
from asyncbackup.errors import ObjectReadFailed, SnapshotChanged, VdiNotFound
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.volumes import owners_of
from asyncbackup.verbs.compare import compare
from asyncbackup.wire import btree
from asyncbackup.wire.constants import SECTOR_SIZE, Opcode
from asyncbackup.wire.inode import TABLE_OFFSET, Inode, Owners
from asyncbackup.wire.messages import RequestHeader, VdiBody
from asyncbackup.wire.oid import data_oid, inode_oid
from tests.chains import make_snapshots
from tests.collecting import CollectingTarget
from tests.disks import OBJECT, OBJECTS, PARTS, delete_as_dog, make_disk, noise, rewrite_inode
from tests.faults.deletion import ONE, Deletable, deletable
from tests.property import reference


@dataclass
class Scene:
    """VDI ``disk`` with snapshots a, b and c, and backups of them in ``folder``."""

    server: Deletable
    cluster: Cluster
    folder: Path

    async def snapshot(self, tag: str) -> Inode:
        return await self.cluster.find_vdi("disk", tag)

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with deletable() as (server, cluster):
        await make_snapshots(cluster)
        for name, to, base in (("a", "a", None), ("ab", "b", "a"), ("bc", "c", "b")):
            await backup(cluster, "disk", tmp_path / name, snapshot=to, base=base)
        yield Scene(server, cluster, tmp_path)


Read = Callable[[Scene], Awaitable[object]]


async def full(scene: Scene) -> object:
    return await backup(scene.cluster, "disk", scene.folder / "new", snapshot="b")


async def increment(scene: Scene) -> object:
    return await backup(scene.cluster, "disk", scene.folder / "new", snapshot="c", base="b")


async def backward(scene: Scene) -> object:
    return await backup(scene.cluster, "disk", scene.folder / "new", snapshot="b", base="c")


async def live(scene: Scene) -> object:
    return await backup(scene.cluster, "disk", scene.folder / "new", base="b", live=True)


async def restored(scene: Scene) -> object:
    return await restore(scene.cluster, [scene.folder / "bc"], "copy", base=BaseSnapshot(scene.cluster, "b"))


async def compared(scene: Scene) -> object:
    return await compare(scene.cluster, [scene.folder / "ab"], "disk", "b")


async def sampled(scene: Scene) -> object:
    return await compare(scene.cluster, [scene.folder / "bc"], "disk", "c", sample=1)


async def merged(scene: Scene) -> object:
    base = BaseSnapshot(scene.cluster, "a")
    return await merge([scene.folder / "ab", scene.folder / "bc"], scene.folder / "new", base=base)


async def exported(scene: Scene) -> object:
    return await export([scene.folder / "bc"], scene.folder / "new", base=BaseSnapshot(scene.cluster, "b"))


async def piped(scene: Scene) -> object:
    target = FileTarget(scene.folder / "new")
    async with target:
        return await export([scene.folder / "bc"], target, base=BaseSnapshot(scene.cluster, "b"))


READERS = pytest.mark.parametrize(
    ("read", "tag"),
    [
        (full, "b"),
        (increment, "c"),
        (increment, "b"),
        (live, "b"),
        (restored, "b"),
        (compared, "b"),
        (sampled, "c"),
        (sampled, "b"),
        (merged, "a"),
        (exported, "b"),
        (piped, "b"),
    ],
    ids=[
        "full",
        "increment",
        "base",
        "base of live",
        "restore",
        "compare",
        "sample",
        "base of sample",
        "merge",
        "export",
        "pipe",
    ],
)


def table_of(server: Deletable, inode: Inode) -> Owners:
    view = server.store.get(inode_oid(inode.vdi_id))
    assert view is not None
    return owners_of(view)


def give_one_up(server: Deletable, inode: Inode) -> None:
    server.set_owner(inode, 0, 0)


def give_all_up(server: Deletable, inode: Inode) -> None:
    server.empty(inode, OBJECTS)


async def damage_working(cluster: Cluster, name: str) -> None:
    inode = await cluster.find_vdi(name)
    await cluster.write_object(inode_oid(inode.vdi_id), replace(inode, block_size_shift=99).pack(), copies=1)


def delete(server: Deletable, inode: Inode) -> None:
    rewrite_inode(server.store, replace(inode, name=""))


def replace_by_another(server: Deletable, inode: Inode) -> None:
    rewrite_inode(server.store, replace(inode, create_time=inode.create_time + 1))


@pytest.mark.slow
@READERS
@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (give_one_up, "1 of its objects were given up since its table was read first"),
        (give_all_up, r"\d+ of its objects were given up since its table was read first"),
        (delete, "it is not there any more"),
        (replace_by_another, "its name is gone, or another's now"),
    ],
)
async def test_nothing_is_made_of_a_snapshot_that_is_deleted_meanwhile(
    scene: Scene, read: Read, tag: str, happens: Callable[[Deletable, Inode], None], told: str
) -> None:
    inode, before = await scene.snapshot(tag), scene.names()
    scene.server.at_read(1, lambda: happens(scene.server, inode))

    with pytest.raises(
        SnapshotChanged, match=f"VDI 'disk' snapshot {inode.snap_id} was being deleted while .*: {told}"
    ):
        await read(scene)

    assert scene.server.reads
    assert scene.names() == before
    with pytest.raises(VdiNotFound):
        await scene.cluster.find_vdi("copy")


@pytest.mark.slow
@READERS
async def test_nothing_is_made_of_a_snapshot_whose_deletion_was_stopped(scene: Scene, read: Read, tag: str) -> None:
    inode, before = await scene.snapshot(tag), scene.names()
    scene.server.empty(inode, OBJECTS // 2)

    with pytest.raises(SnapshotChanged, match=r"\d+ of its objects, which VDI 'disk'.* still has, were given up"):
        await read(scene)

    assert scene.names() == before
    with pytest.raises(VdiNotFound):
        await scene.cluster.find_vdi("copy")


@pytest.mark.parametrize("base", [None, "b"], ids=["full", "increment"])
async def test_a_snapshot_that_gave_up_what_it_had_of_an_older_one_is_found_out(scene: Scene, base: str | None) -> None:
    """Object 0 is the oldest snapshot's, so that the working VDI has nothing there with the id of the emptied one."""
    inode = await scene.snapshot("c")
    scene.server.empty(inode, 1)

    with pytest.raises(SnapshotChanged, match="1 of its objects, which VDI 'disk' still has, were given up"):
        await backup(scene.cluster, "disk", NullTarget(), snapshot="c", base=base)


async def test_what_the_guest_discarded_since_is_no_sign_of_a_deletion(scene: Scene) -> None:
    working = await scene.cluster.find_vdi("disk")
    for idx in range(2):
        scene.server.set_owner(working, idx, 0)

    await backup(scene.cluster, "disk", NullTarget(), snapshot="c", base="b")


async def test_what_a_guest_entered_late_in_a_snapshot_is_no_sign_of_a_deletion(scene: Scene) -> None:
    """It made the object before the snapshot was taken, and says so in the table, which it takes for its own, after."""
    inode = await scene.snapshot("c")
    owners = table_of(scene.server, inode)
    assert owners[0] not in (0, inode.vdi_id)
    scene.server.store.put(data_oid(inode.vdi_id, 0), OBJECT, [(0, noise(41, OBJECT))])
    scene.server.set_owner(inode, 0, inode.vdi_id)

    await backup(scene.cluster, "disk", NullTarget(), snapshot="c")
    await backup(scene.cluster, "disk", NullTarget(), snapshot="c", base="b")


async def test_a_snapshot_is_backed_up_where_the_table_of_the_working_vdi_cannot_be_read() -> None:
    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, ONE) as cluster:
        await make_disk(cluster)
        working = inode_oid((await cluster.find_vdi("disk")).vdi_id)
    faults = [Fault.parse(f"read_obj/{working:016x}@2+:error=EIO")]
    async with Sheep(store, faults=faults) as sheep, connect(sheep.host, sheep.port, ONE) as cluster:
        summary = await backup(cluster, "disk", NullTarget(), snapshot="b")

    assert summary.records == 7


@pytest.mark.parametrize("happens", [delete_as_dog, damage_working])
async def test_a_snapshot_is_backed_up_where_no_working_vdi_can_tell_of_it(
    scene: Scene, happens: Callable[[Cluster, str], Awaitable[None]]
) -> None:
    await happens(scene.cluster, "disk")

    await full(scene)

    assert (scene.folder / "new").read_bytes()


async def test_what_goes_to_a_pipe_gets_no_end(scene: Scene) -> None:
    inode, target = await scene.snapshot("b"), CollectingTarget()
    scene.server.at_read(1, lambda: give_one_up(scene.server, inode))

    with pytest.raises(SnapshotChanged):
        await backup(scene.cluster, "disk", target, snapshot="b", dialect=Dialect.DOG)

    assert not target.data.endswith(Dialect.DOG.ending)
    assert not target.is_complete


async def test_an_object_that_is_lost_is_told_as_such(scene: Scene) -> None:
    inode = await scene.snapshot("b")
    scene.server.store.remove(data_oid(inode.vdi_id, 3))

    with pytest.raises(ObjectReadFailed, match=r"reading object 3 .* no such object"):
        await full(scene)


async def test_a_check_that_fails_itself_does_not_hide_what_failed() -> None:
    store = MemoryStore()
    faults = [Fault.parse("get_vdi_info@4:error=EIO")]
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, ONE) as cluster:
        await make_disk(cluster)
        store.remove(data_oid((await cluster.find_vdi("disk", "b")).vdi_id, 3))
    async with Sheep(store, faults=faults) as sheep, connect(sheep.host, sheep.port, ONE) as cluster:
        with pytest.raises(ObjectReadFailed, match=r"reading object 3 .* no such object"):
            await backup(cluster, "disk", NullTarget(), snapshot="b")


async def test_objects_behind_those_that_are_needed_may_go(scene: Scene) -> None:
    """The increment is of a VDI that grew, so the base's table is read as far as it spans."""
    inode = await scene.snapshot("b")
    scene.server.at_read(1, lambda: scene.server.set_owner(inode, OBJECTS, 0))

    await full(scene)


async def test_a_working_vdi_may_change_while_it_is_read(scene: Scene) -> None:
    inode = await scene.cluster.find_vdi("disk")
    scene.server.at_read(1, lambda: scene.server.set_owner(inode, 0, inode.vdi_id))

    await backup(scene.cluster, "disk", scene.folder / "new", live=True)
    await compare(scene.cluster, [scene.folder / "bc"], "disk")


async def test_a_working_vdi_that_is_deleted_while_it_is_read_is_no_good(scene: Scene) -> None:
    inode = await scene.cluster.find_vdi("disk")
    scene.server.at_read(1, lambda: delete(scene.server, inode))

    with pytest.raises(SnapshotChanged, match="was being deleted while it was read: it is not there any more"):
        await backup(scene.cluster, "disk", scene.folder / "new", live=True)


async def test_a_snapshot_that_is_taken_of_a_working_vdi_while_it_is_read_is_none_of_its_business(scene: Scene) -> None:
    inode = await scene.cluster.find_vdi("disk")
    scene.server.at_read(1, lambda: rewrite_inode(scene.server.store, replace(inode, snap_ctime=1)))

    await backup(scene.cluster, "disk", scene.folder / "new", live=True)


@pytest.mark.parametrize("memory", [1 << 20, 128 << 20], ids=["in pieces", "whole"])
@pytest.mark.parametrize("base", [None, "b"], ids=["full", "increment"])
async def test_an_object_that_the_guest_discards_meanwhile_is_zeros(
    scene: Scene, base: str | None, memory: int
) -> None:
    await (await Volume.open(scene.cluster, "disk")).write(3 * OBJECT, noise(31, OBJECT))
    inode = await scene.cluster.find_vdi("disk")
    scene.server.at_read(1, lambda: scene.server.discard(inode, 3))
    target = CollectingTarget()

    options = WindowOptions(memory=memory, workers=1)
    summary = await backup(scene.cluster, "disk", target, base=base, live=True, dialect=Dialect.DOG, options=options)

    records = {record.idx: record.data for record in reference.parse(bytes(target.data), "dog", OBJECT)}
    assert summary.objects_discarded == 1
    assert records.get(3) == (None if base is None else bytes(OBJECT))


@pytest.mark.parametrize("at", range(1, PARTS + 1))
async def test_an_object_that_is_discarded_between_two_reads_of_it_is_zeros_all_over(scene: Scene, at: int) -> None:
    await (await Volume.open(scene.cluster, "disk")).write(3 * OBJECT, noise(31, OBJECT))
    inode = await scene.cluster.find_vdi("disk")
    scene.server.at_read(at, lambda: scene.server.discard(inode, 3), idx=3)
    target = CollectingTarget()

    summary = await backup(
        scene.cluster, "disk", target, live=True, dialect=Dialect.DOG, options=WindowOptions(workers=1)
    )

    assert summary.objects_discarded == 1
    assert 3 not in {record.idx for record in reference.parse(bytes(target.data), "dog", OBJECT)}


async def test_an_object_of_a_working_vdi_that_is_lost_is_told_as_such(scene: Scene) -> None:
    await (await Volume.open(scene.cluster, "disk")).write(3 * OBJECT, noise(31, OBJECT))
    inode = await scene.cluster.find_vdi("disk")
    scene.server.store.remove(data_oid(inode.vdi_id, 3))

    with pytest.raises(ObjectReadFailed, match=r"reading object 3 .* no such object"):
        await backup(scene.cluster, "disk", NullTarget(), live=True)


async def test_an_object_that_a_working_vdi_shares_is_not_its_guests_to_discard(scene: Scene) -> None:
    snapshot, inode = await scene.snapshot("b"), await scene.cluster.find_vdi("disk")

    def lose() -> None:
        scene.server.store.remove(data_oid(snapshot.vdi_id, 3))
        scene.server.set_owner(inode, 3, 0)

    scene.server.at_read(1, lose)
    with pytest.raises(ObjectReadFailed, match=r"reading object 3 .* no such object"):
        await backup(scene.cluster, "disk", NullTarget(), live=True)


async def test_an_object_of_a_hyper_volume_that_is_discarded_meanwhile_is_zeros(scene: Scene) -> None:
    vdi_id = await scene.cluster.create_vdi("hyper", OBJECTS * OBJECT, block_size_shift=20, store_policy=1)
    for idx in (3, 4):
        await scene.cluster.create_object(data_oid(vdi_id, idx), noise(idx, SECTOR_SIZE), copies=1)

    def root(owner_of_4: int) -> bytes:
        return btree.pack_node_header(btree.LEAF, 2) + struct.pack("<4I", 3, vdi_id, 4, owner_of_4)

    await scene.cluster.write_object(inode_oid(vdi_id), root(vdi_id), TABLE_OFFSET, copies=1)

    def discard() -> None:
        scene.server.store.write(inode_oid(vdi_id), TABLE_OFFSET, root(0))
        scene.server.store.remove(data_oid(vdi_id, 4))

    scene.server.at_read(1, discard)
    target = CollectingTarget()

    summary = await backup(scene.cluster, "hyper", target, live=True, dialect=Dialect.DOG)

    assert summary.objects_discarded == 1
    assert [record.idx for record in reference.parse(bytes(target.data), "dog", OBJECT)] == [3]


async def test_a_clone_of_a_snapshot_that_is_being_deleted_is_removed(tmp_path: Path) -> None:
    def give_up(request: RequestHeader) -> None:
        if request.opcode == Opcode.NEW_VDI and VdiBody.unpack(request.body).base_vdi_id and armed:
            store.write(inode_oid(armed[0].vdi_id), TABLE_OFFSET, bytes(4))

    armed: list[Inode] = []
    store = MemoryStore()
    async with Sheep(store, on_request=give_up) as sheep, connect(sheep.host, sheep.port, ONE) as cluster:
        await make_disk(cluster)
        await backup(cluster, "disk", tmp_path / "ab", snapshot="b", base="a")
        armed.append(await cluster.find_vdi("disk", "a"))

        with pytest.raises(SnapshotChanged, match="snapshot 1 was being deleted while it was read: its clone has 1 "):
            await restore(cluster, [tmp_path / "ab"], "copy", base=BaseSnapshot(cluster, "a"))

        with pytest.raises(VdiNotFound):
            await cluster.find_vdi("copy")
