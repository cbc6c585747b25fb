"""Shards of a restore: all of them make the VDI of one run, and what does not belong together is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncbackup import (
    BaseSnapshot,
    Cluster,
    Dialect,
    Progress,
    Shard,
    ShardSummary,
    Volume,
    WindowOptions,
    backup,
    compare,
    connect,
    discard,
    join_shards,
    restore,
    restore_shard,
)
from asyncbackup.client.construction import UNFINISHED_TAG, NewVdi, Shape
from asyncbackup.engine import shards as shards_engine
from asyncbackup.engine.chain import ChainOptions
from asyncbackup.engine.cut import Share
from asyncbackup.engine.design import check_copies
from asyncbackup.engine.progress import ReplayCounts
from asyncbackup.engine.removal import say_discarding
from asyncbackup.engine.shards import (
    PREPARATION,
    beating,
    read_receipts,
    read_shards,
    write_receipt,
    write_shards,
)
from asyncbackup.errors import (
    ChangedMeanwhile,
    ManifestMissing,
    MemoryTooSmall,
    NotDiscarded,
    RequestFailed,
    ShardMissing,
    SharedOtherwise,
    SnapshotExists,
    UnfinishedExists,
    VdiExists,
    VdiInUse,
)
from asyncbackup.format.shards import Receipt
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.faults import Error
from asyncbackup.verbs import discard as discard_verb
from asyncbackup.verbs import join_shards as join_verb
from asyncbackup.verbs import restore_shard as verb
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.inode import TABLE_OFFSET, Inode
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import data_oid, inode_oid, is_data
from tests.disks import OBJECT, OBJECTS, content_of, delete_as_dog, make_disk, noise

COUNT = 3


class Stop(Exception):
    """Ends a run."""


@dataclass
class Disk:
    """A served disk, and what is restored of it."""

    store: MemoryStore
    sheep: Sheep
    cluster: Cluster
    chain: list[Path]
    is_clone: bool

    @property
    def files(self) -> list[Path]:
        return self.chain[1:] if self.is_clone else self.chain

    @property
    def base(self) -> BaseSnapshot | None:
        return BaseSnapshot(self.cluster, "a", "disk") if self.is_clone else None

    async def write(self, number: int, count: int = COUNT, **arguments: Any) -> ShardSummary:
        given: dict[str, Any] = {"base": self.base} | arguments
        return await restore_shard(self.cluster, self.files, "new", Shard(number, count), **given)

    async def write_all(self) -> None:
        for number in range(1, COUNT + 1):
            await self.write(number)

    async def join(self, count: int = COUNT, **arguments: Any) -> Any:
        given: dict[str, Any] = {"base": self.base} | arguments
        return await join_shards(self.cluster, self.files, "new", count, "b", **given)

    async def find(self) -> Inode:
        return await self.cluster.find_vdi("new")

    async def check(self) -> None:
        """Check that the VDI and its snapshot are what one run makes, and that no attribute says that they are not."""
        assert (await self.find()).tag == ""
        wanted = await content_of(self.cluster, "disk", "b")
        for snapshot in (None, "b"):
            assert await content_of(self.cluster, "new", snapshot) == wanted
        assert (await compare(self.cluster, self.chain, "new", snapshot="b")).is_good
        assert await read_shards(self.cluster, await self.cluster.find_vdi("new", "b")) is None


@pytest.fixture
def requests() -> list[RequestHeader]:
    return []


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def sheep(store: MemoryStore, requests: list[RequestHeader]) -> AsyncIterator[Sheep]:
    async with Sheep(store, on_request=requests.append) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["chain", "clone"])
async def disk(
    request: pytest.FixtureRequest, store: MemoryStore, sheep: Sheep, cluster: Cluster, tmp_path: Path
) -> Disk:
    await make_disk(cluster)
    await backup(cluster, "disk", tmp_path / "a", snapshot="a")
    await backup(cluster, "disk", tmp_path / "b", snapshot="b", base="a")
    return Disk(store, sheep, cluster, [tmp_path / "a", tmp_path / "b"], request.param)


async def test_shards_in_any_order_make_the_vdi_of_one_run(disk: Disk) -> None:
    alone = await restore(disk.cluster, disk.files, "alone", base=disk.base, snapshot="b")

    written = [await disk.write(number) for number in (3, 1, 2)]
    joined = await disk.join()

    await disk.check()
    assert sum(each.objects_done for each in written) == alone.objects_done
    for name in ("size", "copies", "origin", "snapshot", "checked", "objects_done", "bytes_written", "base"):
        assert getattr(joined, name) == getattr(alone, name)
    one, other = [await disk.cluster.find_vdi(name, "b") for name in ("alone", "new")]
    table = await disk.cluster.read_owners(other.vdi_id, OBJECTS)
    table[table == other.vdi_id] = one.vdi_id
    assert table.tolist() == (await disk.cluster.read_owners(one.vdi_id, OBJECTS)).tolist()


async def test_shards_that_begin_at_the_same_time_make_one_vdi(disk: Disk) -> None:
    written = await asyncio.gather(*[disk.write(number) for number in range(1, COUNT + 1)])
    await disk.join()

    await disk.check()
    assert len({each.vdi_id for each in written}) == 1


async def test_the_same_shard_twice_at_the_same_time_does_no_harm(disk: Disk) -> None:
    await asyncio.gather(*[disk.write(number) for number in (1, 1, 2, 2, 3, 3)])
    await disk.join()

    await disk.check()


async def test_more_shards_than_objects_are_no_error(disk: Disk) -> None:
    written = await asyncio.gather(*[disk.write(number, 12) for number in range(1, 13)])
    await disk.join(12)

    await disk.check()
    assert min(each.objects_done for each in written) == 0


async def test_a_shard_that_is_written_already_is_not_written_again(disk: Disk) -> None:
    await disk.write_all()
    before = disk.sheep.requests[Opcode.CREATE_AND_WRITE_OBJ]

    again = await disk.write(1)

    assert again.already_written
    assert again.objects_done == 0
    assert disk.sheep.requests[Opcode.CREATE_AND_WRITE_OBJ] == before


async def test_only_the_run_that_makes_the_vdi_writes_its_table(disk: Disk, requests: list[RequestHeader]) -> None:
    await disk.write(1)
    new = await disk.find()
    requests.clear()

    for number in (2, 3):
        await disk.write(number)
    await disk.join()

    bodies = [ObjectBody.unpack(each.body) for each in requests if each.opcode == Opcode.WRITE_OBJ]
    written = [body.offset for body in bodies if body.oid == inode_oid(new.vdi_id)]
    assert written  # The tag is overwritten.
    assert all(offset < TABLE_OFFSET for offset in written)


@pytest.mark.parametrize("done", [(), (1,), (1, 3)], ids=str)
async def test_shards_that_are_missing_are_named(disk: Disk, done: tuple[int, ...]) -> None:
    for number in done:
        await disk.write(number)

    with pytest.raises(ShardMissing) as raised:
        await disk.join()

    assert raised.value.numbers == tuple(sorted({1, 2, 3} - set(done)))
    if done:
        assert (await disk.find()).tag == UNFINISHED_TAG


async def test_a_shard_that_ended_early_is_missing_until_it_is_written_again(disk: Disk) -> None:
    def stop(_: Progress) -> None:
        if disk.sheep.requests[Opcode.CREATE_AND_WRITE_OBJ] > before:
            raise Stop

    await disk.write(2)
    await disk.write(3)
    before = disk.sheep.requests[Opcode.CREATE_AND_WRITE_OBJ]
    with pytest.raises(Stop):
        await disk.write(1, on_progress=stop)
    with pytest.raises(ShardMissing, match="shard 1 of 3 is missing, or not complete"):
        await disk.join()

    await disk.write(1)
    await disk.join()

    await disk.check()


OTHERS: dict[str, dict[str, Any]] = {"number of shards": {"count": 4}, "number of copies": {"copies": 2}}


@pytest.mark.parametrize(("word", "others"), OTHERS.items(), ids=OTHERS)
async def test_what_is_shared_out_otherwise_is_refused(disk: Disk, word: str, others: dict[str, Any]) -> None:
    await disk.write(1)

    for work in (disk.write(2, **others), disk.join(**others)):
        with pytest.raises(SharedOtherwise, match=word):
            await work

    assert [receipt is not None for receipt in await receipts_of(disk)] == [True, False, False]


async def receipts_of(disk: Disk) -> list[Receipt | None]:
    new = await disk.find()
    shards = await read_shards(disk.cluster, new)
    assert shards is not None
    return await read_receipts(disk.cluster, new, shards)


async def test_other_backups_and_another_base_are_refused(disk: Disk, tmp_path: Path) -> None:
    await disk.write(1)
    if disk.is_clone:
        files, base = disk.chain, None
    else:
        await backup(disk.cluster, "disk", tmp_path / "whole", snapshot="b")
        files, base = [tmp_path / "whole"], None

    with pytest.raises(SharedOtherwise, match="chain of backups"):
        await restore_shard(disk.cluster, files, "new", Shard(2, COUNT), base=base)
    with pytest.raises(SharedOtherwise, match="chain of backups"):
        await join_shards(disk.cluster, files, "new", COUNT, "b", base=base)


async def test_a_shard_that_another_version_cut_elsewhere_is_refused(disk: Disk) -> None:
    await disk.write_all()
    new = await disk.find()
    await write_receipt(disk.cluster, new, 1, Share(slice(0, 1), 0, 1), ReplayCounts())

    with pytest.raises(SharedOtherwise, match="shard 2 begins elsewhere"):
        await disk.join()


async def test_a_vdi_that_is_not_made_in_shards_is_refused(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "_TAGGING_S", 0)
    await disk.cluster.create_vdi("new", OBJECTS * OBJECT)
    for work in (disk.write(1), disk.join()):
        with pytest.raises(VdiExists):
            await work
    await disk.cluster.delete_vdi("new")
    left = await NewVdi.create(disk.cluster, "new", Shape(OBJECTS * OBJECT, OBJECT))
    await left.mark()
    for work in (disk.write(1), disk.join()):
        with pytest.raises(UnfinishedExists):
            await work


async def test_a_run_that_ended_while_it_prepared_the_vdi_is_not_waited_for_without_end(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "_TAGGING_S", 0.3)
    await disk.write(1)
    new = await disk.find()
    shards = await read_shards(disk.cluster, new)
    assert shards is not None
    await write_shards(disk.cluster, new, replace(shards, is_named=False))

    with pytest.raises(VdiInUse, match="another run that should prepare it does not go on"):
        await disk.write(2)
    with pytest.raises(ShardMissing, match="shards 1, 2, 3 of 3"):
        await disk.join()


async def test_a_run_that_prepares_the_vdi_is_waited_for(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "_TAGGING_S", 0.3)
    monkeypatch.setattr(verb, "_LOOK_S", 0)
    monkeypatch.setattr(shards_engine, "_BEAT_S", 0)
    await disk.write(1)
    new = await disk.find()
    shards = await read_shards(disk.cluster, new)
    assert shards is not None
    await write_shards(disk.cluster, new, replace(shards, is_named=False))

    async with beating(disk.cluster, new, PREPARATION), anyio.create_task_group() as group:
        group.start_soon(disk.write, 2)
        with anyio.move_on_after(1):
            while (await receipts_of(disk))[1] is None:
                await anyio.lowlevel.checkpoint()
        assert [receipt is not None for receipt in await receipts_of(disk)] == [True, False, False]
        await write_shards(disk.cluster, new, shards)

    assert [receipt is not None for receipt in await receipts_of(disk)] == [True, True, False]


async def test_what_a_run_says_of_its_work_is_said_before_the_work_ends(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await disk.write(1)
    new, begun, ended = await disk.find(), anyio.Event(), anyio.Event()
    write = disk.cluster.write_attribute

    async def write_slowly(*arguments: Any) -> None:
        begun.set()
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        await write(*arguments)
        ended.set()

    monkeypatch.setattr(disk.cluster, "write_attribute", write_slowly)
    async with beating(disk.cluster, new, 2):
        await begun.wait()

    assert ended.is_set()


@asynccontextmanager
async def served(disk: Disk, fault: Fault) -> AsyncIterator[Disk]:
    """Serve the disk by a server that has a fault."""
    async with Sheep(disk.store, faults=[fault]) as sheep, connect(sheep.host, sheep.port) as cluster:
        yield replace(disk, sheep=sheep, cluster=cluster)


async def test_a_cluster_that_contradicts_itself_is_not_asked_without_end(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def has_none(_name: str) -> bool:
        return False

    monkeypatch.setattr(verb, "_LOOK_S", 0)
    monkeypatch.setattr(disk.cluster, "has_vdi", has_none)
    await disk.cluster.create_vdi("new", OBJECTS * OBJECT)

    with pytest.raises(VdiExists):
        await disk.write(1)


@pytest.mark.parametrize("read", ["read_shards", "read_beat"])
async def test_a_vdi_that_is_removed_while_another_run_reads_of_it_is_made_anew(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    monkeypatch.setattr(verb, "_LOOK_S", 0)
    await disk.write(1)
    new = await disk.find()
    shards = await read_shards(disk.cluster, new)
    assert shards is not None
    await write_shards(disk.cluster, new, replace(shards, is_named=False))
    original = getattr(verb, read)

    async def remove_first(*arguments: Any) -> Any:
        monkeypatch.setattr(verb, read, original)
        await delete_as_dog(disk.cluster, "new")
        return await original(*arguments)

    monkeypatch.setattr(verb, read, remove_first)

    await disk.write_all()
    await disk.join()

    await disk.check()


@pytest.mark.parametrize("nth", [1, 2], ids=["the mark", "the table"])
async def test_a_vdi_that_cannot_be_prepared_is_removed_and_another_run_makes_it(disk: Disk, nth: int) -> None:
    fault = Fault(Error(Result.EIO), Opcode.WRITE_OBJ, nth=nth)
    async with served(disk, fault) as behind:
        written = await asyncio.gather(*[behind.write(number) for number in (1, 2, 3)], return_exceptions=True)

        failed = [number for number, each in enumerate(written, 1) if isinstance(each, BaseException)]
        assert [type(each) for each in written if isinstance(each, BaseException)] == [RequestFailed]
        await behind.write(failed[0])
        await behind.join()
        await behind.check()


@pytest.mark.parametrize("nth", [1, 2, 3], ids=["of what it is made", "that a run works", "that others may begin"])
async def test_a_vdi_of_which_nothing_can_be_said_is_removed(disk: Disk, nth: int) -> None:
    kept: list[bool] = []
    async with served(disk, Fault(Error(Result.EIO), Opcode.GET_VDI_ATTR, nth=nth)) as behind:
        with pytest.raises(RequestFailed):
            await behind.write(1, on_kept=lambda: kept.append(True))

        assert not await behind.cluster.has_vdi("new")
        assert not kept


async def test_a_run_that_was_long_in_making_the_vdi_takes_that_of_another(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write_first(*_: Any) -> None:
        monkeypatch.setattr(verb, "check_copies", check_copies)
        await disk.write(1)

    monkeypatch.setattr(verb, "_TAGGING_S", 0)
    monkeypatch.setattr(verb, "_LOOK_S", 0)
    monkeypatch.setattr(verb, "check_copies", write_first)
    await disk.write(2)
    await disk.write(3)

    await disk.join()
    await disk.check()


async def test_shards_are_missing_if_the_vdi_goes_while_a_join_reads_of_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def remove_first(*arguments: Any) -> Any:
        await delete_as_dog(disk.cluster, "new")
        return await read_shards(*arguments)

    await disk.write_all()
    monkeypatch.setattr(join_verb, "read_shards", remove_first)

    with pytest.raises(ShardMissing, match="shards 1, 2, 3 of 3"):
        await disk.join()


async def test_a_late_write_of_the_table_is_waited_for_before_the_vdi_is_removed(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = anyio.Event(), anyio.Event()
    write, say = disk.cluster.write_object, disk.cluster.write_attribute

    async def write_slowly(object_id: int, data: Any, offset: int = 0, **redundancy: Any) -> None:
        if offset < TABLE_OFFSET:
            return await write(object_id, data, offset, **redundancy)
        begun.set()
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        await write(object_id, data, offset, **redundancy)
        ended.set()
        return None

    async def refuse(vdi: str, key: str, value: bytes) -> None:
        if ".beat." not in key:
            return await say(vdi, key, value)
        await begun.wait()
        raise RequestFailed("writing an attribute", Result.EIO, "I/O error")

    monkeypatch.setattr(disk.cluster, "write_object", write_slowly)
    monkeypatch.setattr(disk.cluster, "write_attribute", refuse)
    with pytest.raises(RequestFailed, match="writing an attribute"):
        await disk.write(1)

    assert ended.is_set()
    assert not await disk.cluster.has_vdi("new")


JOIN_FAULTS = {
    "the snapshot": Fault(Error(Result.EIO), Opcode.NEW_VDI),
    "its tag": Fault(Error(Result.EIO), Opcode.WRITE_OBJ),
    "the first attribute that is emptied": Fault(Error(Result.EIO), Opcode.GET_VDI_ATTR, nth=15),
    "the last one": Fault(Error(Result.EIO), Opcode.GET_VDI_ATTR, nth=22),
}


@pytest.mark.parametrize("fault", JOIN_FAULTS.values(), ids=JOIN_FAULTS)
async def test_a_join_that_failed_is_completed_by_the_next_one(disk: Disk, fault: Fault) -> None:
    await disk.write_all()
    async with served(disk, fault) as behind:
        with pytest.raises(RequestFailed):
            await behind.join()

        joined = await behind.join()

        assert not joined.already_applied
        assert joined.origin is not None
        await behind.check()


async def test_a_snapshot_that_somebody_took_before_all_shards_are_written_is_not_joined(disk: Disk) -> None:
    await disk.write(1)
    await disk.cluster.create_snapshot("new", "b")

    with pytest.raises(ChangedMeanwhile, match="it became a snapshot before all shards were written"):
        await disk.join()


async def test_a_join_of_what_is_joined_does_nothing(disk: Disk) -> None:
    await disk.write_all()
    first = await disk.join()
    volume = await Volume.open(disk.cluster, "new")
    await volume.write(0, noise(99, 512))

    again = await disk.join()

    assert again.already_applied
    assert again.origin == first.origin
    assert len([vdi for vdi in (await disk.cluster.list_vdis("new")).sound if vdi.is_snapshot]) == 1


async def test_a_tag_that_is_taken_is_refused_before_the_end(disk: Disk) -> None:
    await disk.cluster.create_vdi("new", OBJECT)
    await disk.cluster.create_snapshot("new", "b")
    await disk.cluster.delete_vdi("new")
    await disk.write_all()

    with pytest.raises(SnapshotExists):
        await disk.join()

    assert (await disk.find()).tag == UNFINISHED_TAG


async def test_a_run_that_slept_until_the_vdi_is_used_changes_nothing(disk: Disk) -> None:
    await disk.write_all()
    old = await disk.find()
    await disk.join()
    used = {idx: noise(100 + idx, OBJECT) for idx in range(OBJECTS)}
    volume = await Volume.open(disk.cluster, "new")
    for idx, content in used.items():
        await volume.write(idx * OBJECT, content)
    wanted = await content_of(disk.cluster, "disk", "b")

    with pytest.raises(VdiExists):
        await disk.write(1)
    for idx in wanted:
        with suppress(RequestFailed):
            await disk.cluster.create_object(data_oid(old.vdi_id, idx), wanted[idx], copies=1)

    assert await content_of(disk.cluster, "new", "b") == wanted
    assert await content_of(disk.cluster, "new", None) == used


async def test_a_shard_ends_when_the_vdi_is_complete(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep_meanwhile(*_: Any) -> None:
        monkeypatch.undo()
        await disk.write(3)
        await disk.join()

    await disk.write(1)
    await disk.write(2)
    monkeypatch.setattr(verb, "read_receipt", sleep_meanwhile)
    with pytest.raises(ChangedMeanwhile, match="it is not the unfinished restore that was begun"):
        await disk.write(3)

    await disk.check()


async def test_a_vdi_in_shards_is_discarded_and_begun_anew(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard.SHARDS_WATCH_S", 0)
    before = {oid for oid in disk.store.oids() if is_data(oid)}
    await disk.write(1)
    await disk.write(2)

    await discard(disk.cluster, "new")

    assert not await disk.cluster.has_vdi("new")
    assert {oid for oid in disk.store.oids() if is_data(oid)} == before
    await asyncio.gather(*[disk.write(number, 2) for number in (1, 2)])
    await disk.join(2)
    await disk.check()


async def test_a_vdi_in_shards_is_not_discarded_while_a_run_works(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard.SHARDS_WATCH_S", 0.2)
    monkeypatch.setattr(shards_engine, "_BEAT_S", 0.01)
    await disk.write(1)

    async with beating(disk.cluster, await disk.find(), 2):
        with pytest.raises(NotDiscarded, match="a restore is making it"):
            await discard(disk.cluster, "new")

    assert await disk.cluster.has_vdi("new")


async def test_a_vdi_that_a_join_completes_while_it_is_discarded_stays(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard.SHARDS_WATCH_S", 0)
    await disk.write_all()
    write = disk.cluster.write_attribute

    async def join_first(*arguments: Any) -> None:
        monkeypatch.setattr(disk.cluster, "write_attribute", write)
        await disk.join()
        await write(*arguments)

    # What a discard does first when it has watched the VDI.
    monkeypatch.setattr(disk.cluster, "write_attribute", join_first)
    with pytest.raises(NotDiscarded):
        await discard(disk.cluster, "new")

    await disk.check()


@pytest.mark.parametrize("work", ["write", "join"])
async def test_nothing_is_reported_of_a_vdi_that_a_discard_removes_at_this_moment(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard.SHARDS_WATCH_S", 0)
    module, last = (verb, "write_receipt") if work == "write" else (join_verb, "write_shards")
    original = getattr(module, last)

    async def stop(*_: Any) -> None:
        raise Stop

    async def discard_after(*arguments: Any) -> None:
        await original(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(NewVdi, "remove", stop)
            with pytest.raises(Stop):
                await discard(disk.cluster, "new")

    for number in (1, 2) if work == "write" else (1, 2, 3):
        await disk.write(number)
    monkeypatch.setattr(module, last, discard_after)

    with pytest.raises(ChangedMeanwhile, match="a discard removes it"):
        await (disk.write(3) if work == "write" else disk.join())


async def test_a_discard_that_meets_a_shard_at_its_end_leaves_the_vdi_to_the_others(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncbackup.verbs.discard.SHARDS_WATCH_S", 0)
    await disk.write(1)
    await disk.write(2)

    async def write_first(*arguments: Any) -> bool:
        await disk.write(3)
        return await say_discarding(*arguments)

    monkeypatch.setattr(discard_verb, "say_discarding", write_first)
    with pytest.raises(NotDiscarded, match="a restore is making it"):
        await discard(disk.cluster, "new")

    await disk.join()
    await disk.check()


async def test_a_join_that_comes_too_late_takes_nothing_from_the_one_before(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await disk.write_all()

    async def join_after(*arguments: Any) -> None:
        monkeypatch.setattr(join_verb, "write_shards", write_shards)
        await write_shards(*arguments)
        await disk.join()

    monkeypatch.setattr(join_verb, "write_shards", join_after)
    with pytest.raises(ChangedMeanwhile, match="it is not the unfinished restore that was found"):
        await disk.join()

    assert (await disk.join()).origin is not None
    await disk.check()


def remove_manifest(path: Path) -> None:
    Path(f"{path}.manifest").unlink()


async def test_what_several_runs_cannot_write_is_refused_before_a_vdi_is_made(disk: Disk) -> None:
    with pytest.raises(MemoryTooSmall):
        await disk.write(1, options=WindowOptions(memory=OBJECT))
    remove_manifest(disk.files[0])
    with pytest.raises(ManifestMissing):
        await disk.write(
            1, assume_base=disk.is_clone, chain_options=ChainOptions(Dialect.COLLIE, OBJECT, OBJECTS * OBJECT)
        )

    assert not await disk.cluster.has_vdi("new")
