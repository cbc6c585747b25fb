"""A replica that follows: what is applied to a VDI, what is refused before a byte of it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncbackup import (
    BaseSnapshot,
    ChainOptions,
    ClientOptions,
    Cluster,
    Dialect,
    RestoreSummary,
    Volume,
    backup,
    compare,
    connect,
    follow,
    merge,
    restore,
)
from asyncbackup.engine.journal import Journal
from asyncbackup.engine.lineage import read_applying, read_origin, write_origin
from asyncbackup.errors import (
    AsyncBackupError,
    BackupsMissing,
    BaseUnproved,
    ChangedMeanwhile,
    DigestMismatch,
    FileNeeded,
    HalfApplied,
    HeldAlready,
    HyperVolume,
    IncrementNeeded,
    NoReplica,
    ObjectSizesDiffer,
    PartlyApplied,
    ReplicaWritten,
    RequestFailed,
    SnapshotChanged,
    SnapshotExists,
    SnapshotNotTaken,
    UnfinishedExists,
    VdiInUse,
    VdiNotFound,
    VdiUnmakeable,
    WrongSnapshot,
)
from asyncbackup.format.identity import time_text
from asyncbackup.format.replica import Applying, applying_key
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.storage.publication import manifest_path
from asyncbackup.wire import messages
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.inode import SIZE_OFFSET, TABLE_OFFSET, TAG_OFFSET
from asyncbackup.wire.messages import RequestHeader
from asyncbackup.wire.oid import INODE_BIT, inode_oid, is_data
from tests.disks import OBJECT, OBJECTS, content_of, delete_as_dog, make_disk, noise
from tests.property.test_restore import working_image
from tests.streams import standard_input

WRITES = {Opcode.WRITE_OBJ, Opcode.CREATE_AND_WRITE_OBJ, Opcode.NEW_VDI, Opcode.DEL_VDI, Opcode.REMOVE_OBJ}


@dataclass
class Pair:
    """An origin with snapshots a, b and c, and another cluster with VDI replica, restored as a."""

    origin: Cluster
    replica: Cluster
    store: MemoryStore
    folder: Path
    requests: list[RequestHeader] = field(default_factory=list)

    def file(self, name: str) -> Path:
        return self.folder / name

    @property
    def ab(self) -> Path:
        return self.file("ab")

    @property
    def bc(self) -> Path:
        return self.file("bc")

    async def night(self, base: str, tag: str) -> Path:
        """Back up snapshot ``tag`` of the origin as the difference to ``base``."""
        path = self.file(base + tag)
        await backup(self.origin, "disk", path, snapshot=tag, base=base)
        return path

    async def holds(self, tag: str) -> bool:
        """Tell whether snapshot ``tag``, and the working VDI, of the replica hold what the origin's does."""
        expected = await image_of(self.origin, "disk", tag)
        return (
            await image_of(self.replica, "replica", tag) == expected
            and await image_of(self.replica, "replica", None) == expected
        )

    def written(self) -> list[int]:
        return [request.opcode for request in self.requests if request.opcode in WRITES]


async def image_of(cluster: Cluster, vdi: str, tag: str | None) -> bytes:
    inode = await cluster.find_vdi(vdi, tag)
    content = await content_of(cluster, vdi, tag)
    zeros = bytes(inode.object_size)
    return b"".join(content.get(idx, zeros) for idx in range(inode.object_count))[: inode.vdi_size]


async def resize(cluster: Cluster, vdi: str, size: int) -> None:
    inode = await cluster.find_vdi(vdi)
    await cluster.write_object(inode_oid(inode.vdi_id), size.to_bytes(8, "little"), SIZE_OFFSET, copies=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What watches another run watches as long as it takes to ask twice."""
    monkeypatch.setattr("asyncbackup.engine.journal._WATCH_S", 0)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    requests: list[RequestHeader] = []
    store = MemoryStore()
    async with (
        Sheep(MemoryStore()) as here,
        Sheep(store, on_request=requests.append) as there,
        connect(here.host, here.port) as origin,
        connect(there.host, there.port) as replica,
    ):
        await make_disk(origin)
        volume = await Volume.open(origin, "disk")
        await volume.write(3 * OBJECT + 512, noise(21, 1024))
        await volume.write(2 * OBJECT, bytes(OBJECT))
        await volume.write(7 * OBJECT, noise(22, OBJECT))
        await origin.create_snapshot("disk", "c")
        pair = Pair(origin, replica, store, tmp_path, requests)
        await backup(origin, "disk", pair.file("a"), snapshot="a")
        await pair.night("a", "b")
        await pair.night("b", "c")
        await restore(replica, [pair.file("a")], "replica", snapshot="a")
        requests.clear()
        yield pair


async def test_a_restore_takes_a_snapshot_that_says_what_it_equals(pair: Pair) -> None:
    snapshot = await pair.replica.find_vdi("replica", "a")
    origin = await read_origin(pair.replica, snapshot)

    assert origin is not None
    assert origin.snapshot == time_text(snapshot.snap_ctime)
    assert origin.identity == await pair.origin.identify(await pair.origin.find_vdi("disk", "a"))
    assert await pair.holds("a")


@pytest.mark.slow
async def test_a_replica_follows_night_by_night(pair: Pair) -> None:
    first = await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert await pair.holds("b")
    second = await follow(pair.replica, [pair.bc], "replica", snapshot="c")

    assert await pair.holds("c")
    assert (first.snapshot, second.snapshot, second.assumed) == ("b", "c", None)
    assert second.base == "VDI 'replica' snapshot 2"
    assert await image_of(pair.replica, "replica", "a") == await image_of(pair.origin, "disk", "a")


async def test_several_backups_are_one_chain(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab, pair.bc], "replica", snapshot="c")

    assert await pair.holds("c")


async def test_a_night_that_was_skipped_is_refused_and_caught_up_with_a_merged_increment(pair: Pair) -> None:
    with pytest.raises(BackupsMissing, match=r"VDI 'replica' holds snapshot 1 'a' .* a backup between") as refused:
        await follow(pair.replica, [pair.bc], "replica", snapshot="c")
    assert refused.value.is_behind
    assert not pair.written()

    await merge([pair.ab, pair.bc], pair.file("ac"))
    await follow(pair.replica, [pair.file("ac")], "replica", snapshot="c")

    assert await pair.holds("c")


async def test_the_working_vdi_shares_what_did_not_change(pair: Pair) -> None:
    before = await pair.replica.find_vdi("replica")
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    b = await pair.replica.find_vdi("replica", "b")
    owners = (await pair.replica.read_owners(b.vdi_id, OBJECTS)).tolist()
    assert b.vdi_id == before.vdi_id
    assert [idx for idx, owner in enumerate(owners) if owner == b.vdi_id] == [1, 2, 3, 5, 6]


async def test_while_it_is_applied_the_vdi_says_so_before_the_first_write(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    opcodes = [request.opcode for request in pair.requests]
    flags = [request.flags for request in pair.requests if request.opcode == Opcode.GET_VDI_ATTR]
    creating = next(at for at, request in enumerate(pair.requests) if request.flags & 0x200)
    assert any(flag & 0x200 for flag in flags)
    assert creating < min(opcodes.index(Opcode.WRITE_OBJ), opcodes.index(Opcode.CREATE_AND_WRITE_OBJ))
    b = await pair.replica.find_vdi("replica", "b")
    assert await pair.replica.read_attribute(b, applying_key(b.vdi_id)) == b""


async def test_what_is_applied_already_is_no_error_and_writes_nothing(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    pair.requests.clear()

    again = await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    assert (again.already_applied, again.objects_done, again.bytes_written) == (True, 0, 0)
    assert "snapshot 2 'b' of VDI 'disk'" in str(again.origin)
    assert not pair.written()
    assert (await follow(pair.replica, [pair.ab], "replica")).already_applied


async def test_what_is_applied_already_under_another_tag_is_told(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    with pytest.raises(HeldAlready, match="already, as snapshot 'b'"):
        await follow(pair.replica, [pair.ab], "replica", snapshot="other")


async def test_without_a_snapshot_nothing_proves_what_the_vdi_holds_later(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica")
    assert await image_of(pair.replica, "replica", None) == await image_of(pair.origin, "disk", "b")

    with pytest.raises(HeldAlready, match="unless somebody wrote to it since"):
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    with pytest.raises(ReplicaWritten):
        await follow(pair.replica, [pair.bc], "replica", snapshot="c")
    await pair.replica.create_snapshot("replica", "b")
    with pytest.raises(BaseUnproved, match="may have been written to between"):
        await follow(pair.replica, [pair.bc], "replica", snapshot="c")

    summary = await follow(pair.replica, [pair.bc], "replica", snapshot="c", assume_base=True)
    assert await pair.holds("c")
    assert "although it may have been written to" in str(summary.assumed)
    origin = await read_origin(pair.replica, await pair.replica.find_vdi("replica", "c"))
    assert origin is not None
    assert origin.assumed


Spoil = Callable[[Pair], Coroutine[Any, Any, None]]


async def write(pair: Pair) -> None:
    await (await Volume.open(pair.replica, "replica")).write(4 * OBJECT, noise(1, 512))


async def grow(pair: Pair) -> None:
    await resize(pair.replica, "replica", (OBJECTS + 1) * OBJECT)


async def delete_snapshot(pair: Pair) -> None:
    a = await pair.replica.find_vdi("replica", "a")
    await pair.replica.write_object(inode_oid(a.vdi_id), bytes(4 * OBJECTS), TABLE_OFFSET, copies=1)
    await pair.replica.expect_success(messages.delete_vdi("replica", tag="a"), "deleting it")


async def begin_deleting_snapshot(pair: Pair) -> None:
    a = await pair.replica.find_vdi("replica", "a")
    await pair.replica.write_object(inode_oid(a.vdi_id), bytes(8), TABLE_OFFSET, copies=1)


async def forget_origin(pair: Pair) -> None:
    a = await pair.replica.find_vdi("replica", "a")
    await pair.replica.delete_attribute("replica", f"asyncbackup.origin.{a.vdi_id:x}")


async def begin_another(pair: Pair) -> None:
    inode = await pair.replica.find_vdi("replica")
    applying = Applying(("0" * 32,), str(time_text(inode.create_time)), None, None, is_complete=False, run="1" * 32)
    await pair.replica.write_attribute("replica", applying_key(inode.vdi_id), applying.encode())


async def mark_unfinished(pair: Pair) -> None:
    inode = await pair.replica.find_vdi("replica")
    tag = messages.pack_name("unfinished restore")
    await pair.replica.write_object(inode_oid(inode.vdi_id), tag, TAG_OFFSET, copies=1)


async def take_tag(pair: Pair) -> None:
    await pair.replica.create_snapshot("replica", "b")
    inode = await pair.replica.find_vdi("replica", "b")
    a = await read_origin(pair.replica, await pair.replica.find_vdi("replica", "a"))
    assert a is not None
    created, taken = time_text(inode.create_time), time_text(inode.snap_ctime)
    await write_origin(pair.replica, inode, replace(a, created=str(created), snapshot=taken))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (write, ReplicaWritten, r"was written to \(1 objects differ\) since VDI 'replica' snapshot 1"),
        (grow, ReplicaWritten, "was resized since VDI 'replica' snapshot 1"),
        (delete_snapshot, NoReplica, "the snapshot that it stands on was deleted"),
        (begin_deleting_snapshot, SnapshotChanged, "2 of its objects, which VDI 'replica' still has, were given up"),
        (forget_origin, NoReplica, "nothing says what it was restored as"),
        (begin_another, HalfApplied, "VDI 'replica' is half written: applying backups to it was interrupted"),
        (mark_unfinished, UnfinishedExists, "unfinished restore"),
        (take_tag, SnapshotExists, "has a snapshot 'b' already"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_is_no_replica_is_refused_before_a_byte_is_written(
    pair: Pair, spoil: Spoil, error: type[AsyncBackupError], message: str
) -> None:
    await spoil(pair)
    before = await working_image(pair.replica, "replica")
    pair.requests.clear()

    with pytest.raises(error, match=message):
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    assert not pair.written()
    assert not any(request.flags & 0x700 for request in pair.requests if request.opcode == Opcode.GET_VDI_ATTR)
    assert await working_image(pair.replica, "replica") == before


async def test_a_vdi_that_a_guest_has_locked_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def locked(_vdi_id: int) -> bool:
        return True

    monkeypatch.setattr(pair.replica, "is_locked", locked)
    with pytest.raises(VdiInUse, match="a guest has locked it"):
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert not pair.written()


async def test_a_vdi_without_snapshots_is_no_replica(pair: Pair) -> None:
    await restore(pair.replica, [pair.file("a")], "other")

    with pytest.raises(NoReplica, match="it has no snapshot"):
        await follow(pair.replica, [pair.ab], "other")


async def test_a_vdi_that_is_not_there_is_not_found(pair: Pair) -> None:
    with pytest.raises(VdiNotFound):
        await follow(pair.replica, [pair.ab], "other")


async def test_a_hyper_volume_is_refused(pair: Pair) -> None:
    await pair.replica.create_vdi("hyper", OBJECT, store_policy=1)

    with pytest.raises(HyperVolume):
        await follow(pair.replica, [pair.ab], "hyper")


async def test_a_full_backup_is_not_applied(pair: Pair) -> None:
    await backup(pair.origin, "disk", pair.file("full"), snapshot="b")

    with pytest.raises(IncrementNeeded):
        await follow(pair.replica, [pair.file("full")], "replica")
    with pytest.raises(PartlyApplied, match="leads"):
        await follow(pair.replica, [pair.file("a"), pair.ab], "replica")


async def test_backups_of_which_some_are_applied_already_are_told(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    with pytest.raises(PartlyApplied):
        await follow(pair.replica, [pair.ab, pair.bc], "replica", snapshot="c")


async def test_a_pipe_is_refused(pair: Pair) -> None:
    with standard_input(pair.ab.read_bytes()[:4096]), pytest.raises(FileNeeded, match="to be applied to a VDI"):
        await follow(pair.replica, ["-"], "replica", chain_options=ChainOptions(Dialect.COLLIE, OBJECT))


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["", "x" * 256, "unfinished restore"])
async def test_a_tag_that_no_snapshot_can_have_is_refused(pair: Pair, tag: str) -> None:
    with pytest.raises(VdiUnmakeable):
        await follow(pair.replica, [pair.ab], "replica", snapshot=tag)
    with pytest.raises(VdiUnmakeable):
        await restore(pair.replica, [pair.file("a")], "other", snapshot=tag)
    assert not pair.written()


async def test_objects_of_another_size_are_refused(pair: Pair) -> None:
    await make_disk(pair.origin, "large", 22)
    await backup(pair.origin, "large", pair.file("large"), snapshot="b", base="a")
    identity = await pair.origin.identify(await pair.origin.find_vdi("large", "a"))
    a = await pair.replica.find_vdi("replica", "a")
    origin = await read_origin(pair.replica, a)
    assert origin is not None
    size = (await pair.origin.find_vdi("large", "a")).vdi_size
    await resize(pair.replica, "replica", size)
    await pair.replica.write_object(inode_oid(a.vdi_id), size.to_bytes(8, "little"), SIZE_OFFSET, copies=1)
    await write_origin(pair.replica, a, replace(origin, identity=identity, size=size))

    with pytest.raises(ObjectSizesDiffer):
        await follow(pair.replica, [pair.file("large")], "replica")


@pytest.mark.slow
@pytest.mark.parametrize("objects", [OBJECTS + 3, OBJECTS - 2])
async def test_a_vdi_that_became_larger_or_smaller_is_followed(pair: Pair, objects: int) -> None:
    await follow(pair.replica, [pair.ab, pair.bc], "replica", snapshot="c")
    await resize(pair.origin, "disk", objects * OBJECT - 512)
    await (await Volume.open(pair.origin, "disk")).write((objects - 1) * OBJECT, noise(31, 1024))
    await pair.origin.create_snapshot("disk", "d")

    summary = await follow(pair.replica, [await pair.night("c", "d")], "replica", snapshot="d")

    assert summary.size == objects * OBJECT - 512
    assert (await pair.replica.find_vdi("replica")).vdi_size == summary.size
    assert await pair.holds("d")
    owners = await pair.replica.read_owners((await pair.replica.find_vdi("replica")).vdi_id, 2 * OBJECTS)
    assert not owners[objects:].any()


async def test_a_snapshot_of_the_replica_is_a_base_without_anybody_who_vouches_for_it(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    await restore(pair.replica, [pair.bc], "other", base=BaseSnapshot(pair.replica, "b", "replica"))

    assert await image_of(pair.replica, "other", None) == await image_of(pair.origin, "disk", "c")


async def test_the_replica_is_verified_against_what_it_was_made_of(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    assert (await compare(pair.replica, [pair.ab], "replica")).is_good
    assert (await compare(pair.replica, [pair.ab], "replica", "b")).is_good


# Interruptions


async def interrupted(pair: Pair, *faults: str) -> AsyncBackupError:
    """Apply the first night through a server with faults, and give the error."""
    script = [Fault.parse(fault) for fault in faults]
    options = ClientOptions(give_up_after_s=0)
    async with Sheep(pair.store, faults=script) as sheep, connect(sheep.host, sheep.port, options) as cluster:
        with pytest.raises(AsyncBackupError) as failed:
            await follow(cluster, [pair.ab], "replica", snapshot="b")
    return failed.value


async def finish(pair: Pair) -> RestoreSummary:
    """Serve the store anew, as the server of the pair has a state of its own of it."""
    async with Sheep(pair.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        summary = await follow(cluster, [pair.ab], "replica", snapshot="b")
        assert await image_of(cluster, "replica", "b") == await image_of(pair.origin, "disk", "b")
        assert await image_of(cluster, "replica", None) == await image_of(pair.origin, "disk", "b")
        tags = [inode.tag for inode in (await cluster.list_vdis("replica")).sound]
        assert sorted(tags) == ["", "a", "b"]
        await follow(cluster, [pair.bc], "replica", snapshot="c")
        assert await image_of(cluster, "replica", "c") == await image_of(pair.origin, "disk", "c")
    return summary


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "create_and_write_obj@1:error=EIO",
        "create_and_write_obj@3:reset",
        "write_obj@1:error=EIO",
        "write_obj@2:reset",
        "new_vdi@1:error=EIO",
        "new_vdi@1:reset",
    ],
)
async def test_the_same_command_finishes_what_was_interrupted(pair: Pair, fault: str) -> None:
    failure = await interrupted(pair, fault)

    assert isinstance(failure, HalfApplied)
    assert failure.cause is not None
    await finish(pair)


async def test_a_snapshot_that_was_taken_and_does_not_say_what_it_equals_is_finished(pair: Pair) -> None:
    found = {}

    async def keep(vdi: str, key: str, value: bytes) -> None:
        found[key] = value
        if "origin" in key and b'"snapshot":null' not in value:
            raise RequestFailed("writing it", 3, "I/O error")
        await write_attribute(vdi, key, value)

    async with Sheep(pair.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        write_attribute = cluster.write_attribute
        cluster.write_attribute = keep  # type: ignore[method-assign]
        with pytest.raises(HalfApplied):
            await follow(cluster, [pair.ab], "replica", snapshot="b")

    assert (await finish(pair)).already_applied


@pytest.mark.slow
async def test_nothing_else_touches_a_vdi_that_is_half_written(pair: Pair) -> None:
    await interrupted(pair, "create_and_write_obj@2:error=EIO")

    async with Sheep(pair.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        with pytest.raises(HalfApplied):
            await follow(cluster, [pair.ab, pair.bc], "replica", snapshot="c")
        with pytest.raises(HalfApplied):
            await compare(cluster, [pair.ab], "replica")
        with pytest.raises(HalfApplied):
            await backup(cluster, "replica", pair.file("live"), live=True)
        await backup(cluster, "replica", pair.file("below"), snapshot="a")
        assert (await compare(cluster, [pair.file("a")], "replica", "a")).is_good
    await finish(pair)


async def test_what_is_half_written_is_not_compared_with_backups_that_say_nothing_either(pair: Pair) -> None:
    await interrupted(pair, "create_and_write_obj@2:error=EIO")
    manifest_path(pair.ab).unlink()
    chain_options = ChainOptions(Dialect.COLLIE, OBJECT, OBJECTS * OBJECT)

    with pytest.raises(HalfApplied):
        await compare(pair.replica, [pair.ab], "replica", assume_base=True, chain_options=chain_options)


async def test_a_vdi_that_was_written_to_while_it_was_half_written_is_refused(pair: Pair) -> None:
    await interrupted(pair, "create_and_write_obj@2:error=EIO")

    async with Sheep(pair.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        await (await Volume.open(cluster, "replica")).write(4 * OBJECT, noise(1, 512))
        with pytest.raises(ReplicaWritten):
            await follow(cluster, [pair.ab], "replica", snapshot="b")
        assert await read_applying(cluster, await cluster.find_vdi("replica")) is not None


async def test_a_snapshot_that_is_being_deleted_below_a_half_written_vdi_is_told(pair: Pair) -> None:
    await interrupted(pair, "create_and_write_obj@2:error=EIO")
    await begin_deleting_snapshot(pair)

    async with Sheep(pair.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        with pytest.raises((SnapshotChanged, HalfApplied), match="of its objects, which VDI 'replica' still has"):
            await follow(cluster, [pair.ab], "replica", snapshot="b")


async def test_a_snapshot_of_a_half_written_vdi_equals_nothing(pair: Pair) -> None:
    await interrupted(pair, "create_and_write_obj@2:error=EIO")

    async with Sheep(pair.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        await cluster.create_snapshot("replica", "b")
        with pytest.raises(
            NoReplica, match="the snapshot that it stands on was taken while backups were being applied"
        ):
            await follow(cluster, [pair.ab], "replica", snapshot="b")


async def test_damage_is_told_with_what_it_leaves(pair: Pair) -> None:
    data = bytearray(pair.ab.read_bytes())
    data[60] ^= 1
    pair.ab.write_bytes(data)

    with pytest.raises(HalfApplied) as failed:
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")

    assert isinstance(failed.value.cause, DigestMismatch)


async def test_a_run_that_goes_on_is_left_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await interrupted(pair, "create_and_write_obj@2:error=EIO")
    inode = await pair.replica.find_vdi("replica")
    found = await read_applying(pair.replica, inode)
    assert found is not None
    pair.requests.clear()

    async def beats_meanwhile(_seconds: float) -> None:
        line = replace(found, beat=found.beat + 1).encode()
        await pair.replica.write_attribute("replica", applying_key(inode.vdi_id), line)

    monkeypatch.setattr("asyncbackup.engine.journal.anyio.sleep", beats_meanwhile)
    with pytest.raises(VdiInUse, match="backups are being applied to it at this moment"):
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert not pair.written()


async def test_a_run_that_another_one_took_over_from_stops(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    # It notices at the end, if not before.
    monkeypatch.setattr("asyncbackup.engine.journal._BEAT_S", 60)
    inode = await pair.replica.find_vdi("replica")
    taken_over = False

    async def take_over(request: RequestHeader) -> None:
        nonlocal taken_over
        found = await read_applying(pair.replica, inode)
        if request.opcode == Opcode.CREATE_AND_WRITE_OBJ and not taken_over and found is not None:
            taken_over = True
            line = replace(found, run="f" * 32).encode()
            await pair.replica.write_attribute("replica", applying_key(inode.vdi_id), line)

    async with pair.replica.connected_anew() as cluster:
        create_objects = cluster.create_objects

        async def create(*arguments: Any, **options: Any) -> None:
            await take_over(RequestHeader(0, Opcode.CREATE_AND_WRITE_OBJ, 0, 0, 0, 0, b""))
            await create_objects(*arguments, **options)

        cluster.create_objects = create  # type: ignore[method-assign]
        with pytest.raises(VdiInUse, match="another run took over"):
            await follow(cluster, [pair.ab], "replica", snapshot="b")
    assert taken_over
    assert (await pair.replica.find_vdi("replica")).vdi_id == inode.vdi_id


async def test_a_cluster_that_takes_no_attributes_is_not_written_to(pair: Pair) -> None:
    a = await read_origin(pair.replica, await pair.replica.find_vdi("replica", "a"))
    assert a is not None

    failure = await interrupted(pair, "get_vdi_attr@1+:error=NO_SUPPORT")

    assert isinstance(failure, NoReplica)


async def test_a_snapshot_that_cannot_be_taken_is_told_although_the_vdi_is_complete(pair: Pair) -> None:
    # The first one makes the VDI.
    script = [Fault.parse("new_vdi@2:error=EIO")]
    async with Sheep(pair.store, faults=script) as sheep, connect(sheep.host, sheep.port) as cluster:
        with pytest.raises(SnapshotNotTaken, match="VDI 'other' is complete, but its snapshot 'x' was not taken"):
            await restore(cluster, [pair.file("a")], "other", snapshot="x")
        assert (await cluster.find_vdi("other")).vdi_size == OBJECTS * OBJECT


async def test_a_tag_that_is_taken_is_refused_before_a_vdi_is_made(pair: Pair) -> None:
    inode = await pair.replica.find_vdi("replica")
    await pair.replica.write_object(inode_oid(inode.vdi_id), bytes(4 * OBJECTS), TABLE_OFFSET, copies=1)
    await pair.replica.expect_success(messages.delete_vdi("replica"), "deleting it")

    with pytest.raises(SnapshotExists):
        await restore(pair.replica, [pair.file("a")], "replica", snapshot="a")
    assert not await pair.replica.has_vdi("replica")


async def test_a_backup_without_a_manifest_needs_somebody_who_vouches_for_it(pair: Pair) -> None:
    manifest_path(pair.ab).unlink()

    with pytest.raises(AsyncBackupError):
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert not pair.written()


# What happens between judging and writing


async def apply_the_same(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")


async def apply_it_without_a_snapshot(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab], "replica")


async def apply_others(pair: Pair) -> None:
    await follow(pair.replica, [pair.ab, pair.bc], "replica", snapshot="c")


async def snapshot_by_hand(pair: Pair) -> None:
    await pair.replica.create_snapshot("replica", "x")


async def delete(pair: Pair) -> None:
    await delete_as_dog(pair.replica, "replica")


@pytest.mark.parametrize(
    "meanwhile",
    [apply_the_same, apply_it_without_a_snapshot, apply_others, snapshot_by_hand, delete, write, grow],
    ids=lambda value: value.__name__,
)
async def test_what_happens_to_the_vdi_after_it_was_judged_is_noticed_before_a_byte_is_written(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, meanwhile: Spoil
) -> None:
    begin = Journal.begin

    async def late(*arguments: Any) -> Journal:
        monkeypatch.setattr(Journal, "begin", begin)
        await meanwhile(pair)
        before.update(snapshot_of(pair.store))
        return await begin(*arguments)

    before: dict[int, bytes] = {}
    monkeypatch.setattr(Journal, "begin", late)
    with pytest.raises((ChangedMeanwhile, ReplicaWritten, VdiNotFound, RequestFailed)):
        await follow(pair.replica, [pair.ab], "replica", snapshot="other")

    assert snapshot_of(pair.store) == before
    for inode in (await pair.replica.list_vdis()).sound:
        assert await read_applying(pair.replica, inode) is None


def snapshot_of(store: MemoryStore) -> dict[int, bytes]:
    """Give all inodes and data objects."""
    found = {oid: store.get(oid) for oid in store.oids() if is_data(oid) or oid & INODE_BIT}
    return {oid: bytes(view) for oid, view in found.items() if view is not None}


async def test_a_guest_that_locks_the_vdi_after_it_was_judged_is_noticed_before_a_byte_is_written(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])

    async def locked(_vdi_id: int) -> bool:
        return next(answers)

    monkeypatch.setattr(pair.replica, "is_locked", locked)
    with pytest.raises(VdiInUse, match="a guest has locked it"):
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert not pair.written()

    monkeypatch.undo()
    monkeypatch.setattr("asyncbackup.engine.journal._WATCH_S", 60)
    await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert await pair.holds("b")


async def test_of_a_vdi_that_a_guest_locked_while_it_was_written_no_snapshot_is_taken(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(_vdi_id: int) -> bool:
        return Opcode.CREATE_AND_WRITE_OBJ in pair.written()

    with monkeypatch.context() as patch:
        patch.setattr(pair.replica, "is_locked", locked)
        with pytest.raises(VdiInUse, match="a guest has locked it"):
            await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert Opcode.NEW_VDI not in pair.written()

    await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert await pair.holds("b")


async def test_of_a_vdi_that_a_guest_locked_when_it_was_complete_no_snapshot_is_taken(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = await pair.replica.find_vdi("replica")

    async def locked(_vdi_id: int) -> bool:
        found = await read_applying(pair.replica, inode)
        return found is not None and found.is_complete

    monkeypatch.setattr(pair.replica, "is_locked", locked)
    with pytest.raises(VdiInUse, match="a guest has locked it"):
        await follow(pair.replica, [pair.ab], "replica", snapshot="b")
    assert Opcode.NEW_VDI not in pair.written()


async def test_what_a_guest_wrote_before_the_snapshot_was_taken_is_written_over(pair: Pair) -> None:
    await interrupted(pair, "new_vdi@1:error=EIO")

    async with Sheep(pair.store) as sheep, connect(sheep.host, sheep.port) as cluster:
        found = await read_applying(cluster, await cluster.find_vdi("replica"))
        assert found is not None
        assert found.is_complete
        await (await Volume.open(cluster, "replica")).write(3 * OBJECT, noise(1, 512))
    await finish(pair)


@pytest.fixture
async def unchanged(pair: Pair) -> Path:
    """A night in which nothing changed, applied without a snapshot: the VDI equals both, and owns nothing."""
    await follow(pair.replica, [pair.ab, pair.bc], "replica", snapshot="c")
    await pair.origin.create_snapshot("disk", "d")
    night = await pair.night("c", "d")
    await follow(pair.replica, [night], "replica")
    return night


async def test_a_night_in_which_nothing_changed_can_be_applied_again_with_a_snapshot(
    pair: Pair, unchanged: Path
) -> None:
    await follow(pair.replica, [unchanged], "replica", snapshot="d")

    assert await pair.holds("d")


async def test_a_snapshot_of_a_half_written_vdi_equals_not_what_the_vdi_did_before(pair: Pair, unchanged: Path) -> None:
    await pair.replica.create_snapshot("replica", "d")
    await begin_another(pair)
    await pair.replica.create_snapshot("replica", "half")
    half = await pair.replica.find_vdi("replica", "half")
    d = await read_origin(pair.replica, await pair.replica.find_vdi("replica", "d"))
    assert d is not None
    await write_origin(pair.replica, half, replace(d, created=str(time_text(half.create_time))))
    await resize(pair.origin, "disk", OBJECT)
    await pair.origin.create_snapshot("disk", "e")

    with pytest.raises(NoReplica, match="the snapshot that it stands on was taken while backups were being applied"):
        await follow(pair.replica, [await pair.night("d", "e")], "replica", assume_base=True)
    with pytest.raises(WrongSnapshot):
        await compare(pair.replica, [unchanged], "replica", "half")


async def test_a_backup_without_a_manifest_leaves_no_hint_of_what_the_vdi_equalled_before(
    pair: Pair, unchanged: Path
) -> None:
    await (await Volume.open(pair.origin, "disk")).write(0, noise(41, 512))
    await pair.origin.create_snapshot("disk", "e")
    night = await pair.night("c", "e")
    manifest_path(night).unlink()
    chain_options = ChainOptions(Dialect.COLLIE, OBJECT, OBJECTS * OBJECT)

    summary = await follow(
        pair.replica, [night], "replica", snapshot="e", assume_base=True, chain_options=chain_options
    )

    assert await pair.holds("e")
    assert summary.origin is None
    assert await read_origin(pair.replica, await pair.replica.find_vdi("replica", "e")) is None


async def test_a_restore_that_is_cancelled_before_its_snapshot_says_so(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = anyio.Event()

    async def wait(*_: object, **__: object) -> None:
        begun.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(pair.replica, "create_snapshot", wait)
    task = asyncio.create_task(restore(pair.replica, [pair.file("a")], "other", snapshot="a"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task

    assert cancelled.value.__notes__ == ["VDI 'other' is complete, but its snapshot 'a' may be missing"]
    assert await image_of(pair.replica, "other", None) == await image_of(pair.origin, "disk", "a")
