"""What the server answers, told through a service without sockets."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncbackup.sheep import FolderStore, MemoryStore, Release, Store
from asyncbackup.sheep.cluster import ClusterState
from asyncbackup.sheep.service import Answer, Service
from asyncbackup.wire import btree
from asyncbackup.wire.constants import EPOCH_LOG_SIZES, FIRST_INTERNAL_OPCODE, Flag, Opcode, Result
from asyncbackup.wire.inode import INODE_SIZE, TABLE_OFFSET, Inode, entry_offset, unpack_owners
from asyncbackup.wire.messages import (
    Message,
    NodeReply,
    ObjectBody,
    ObjectReply,
    RequestHeader,
    VdiReply,
    create_object,
    delete_vdi,
    new_vdi,
    node_list,
    read_object,
    read_vdi_bitmap,
    stat_cluster,
    unpack_format_time,
    vdi_info,
    write_object,
)
from asyncbackup.wire.nodes import unpack_nodes
from asyncbackup.wire.oid import data_oid, inode_oid

OBJECT_SIZE = 1 << 22
MIB = 1 << 20


class Volume:
    """A VDI as a client handles it: writes copy on write, and keep the owner table."""

    def __init__(self, service: Served, name: str = "disk", **options: int) -> None:
        self.service = service
        self.name = name
        self.vdi_id = service.vdi(new_vdi(name, 64 * MIB, **options))  # type: ignore[arg-type]  # none of them is the bool

    def inode(self, vdi_id: int | None = None) -> Inode:
        return Inode.unpack(self.service.data(read_object(inode_oid(vdi_id or self.vdi_id), 0, 4664)))

    def owners(self, vdi_id: int | None = None) -> list[int]:
        table = self.service.data(read_object(inode_oid(vdi_id or self.vdi_id), TABLE_OFFSET, 16 * 4))
        return [int(owner) for owner in unpack_owners(table)]

    def write(self, idx: int, offset: int, data: bytes) -> None:
        owner = self.owners()[idx]
        oid = data_oid(self.vdi_id, idx)
        if owner == self.vdi_id:
            self.service.ok(write_object(oid, offset, data, copies=1))
            return
        cow_oid = data_oid(owner, idx) if owner else 0
        self.service.ok(create_object(oid, offset, data, copies=1, cow_oid=cow_oid))
        self.set_owner(idx, self.vdi_id)

    def set_owner(self, idx: int, owner: int) -> None:
        self.service.ok(write_object(inode_oid(self.vdi_id), entry_offset(idx), struct.pack("<I", owner), copies=1))

    def snapshot(self) -> int:
        """Make a snapshot, and give its vdi id."""
        snapshot = self.vdi_id
        request = new_vdi(self.name, 64 * MIB, base_vdi_id=snapshot, snapshot=True)
        self.vdi_id = self.service.vdi(request)
        return snapshot

    def clear(self, vdi_id: int) -> None:
        oid = inode_oid(vdi_id)
        self.service.ok(write_object(oid, TABLE_OFFSET, bytes(16 * 4), copies=1))


def alone(store: Store, **options: Any) -> Service:
    """Give the service of a cluster's only node."""
    cluster = ClusterState([store], **options)
    cluster.begin([("127.0.0.1", 7000)])
    return Service(cluster)


class Served:
    """A service that is asked with the protocol versions of its release."""

    def __init__(self, store: Store, release: Release = Release.V1_0) -> None:
        self.release = release
        self.service = alone(store, release=release, clock_ns=lambda: 1_700_000_000_123_456_789)

    def ask(self, request: Message, proto_ver: int | None = None) -> Answer:
        if proto_ver is None:
            traits = self.release.value
            internal = request.opcode >= FIRST_INTERNAL_OPCODE
            proto_ver = traits.internal_version if internal else traits.newest_public_version
        header = RequestHeader.unpack(request.header(1, proto_ver))
        payload = memoryview(bytes(request.payload)) if self.service.wants(header) else memoryview(b"")
        return self.service.answer(header, payload)

    def result(self, request: Message, proto_ver: int | None = None) -> Result:
        return self.ask(request, proto_ver).result

    def ok(self, request: Message) -> Answer:
        answer = self.ask(request)
        assert answer.result is Result.SUCCESS
        return answer

    def data(self, request: Message) -> bytes:
        return bytes(self.ok(request).payload)

    def vdi(self, request: Message) -> int:
        return VdiReply.unpack(self.ok(request).body).vdi_id


@pytest.fixture
def served(store: Store) -> Served:
    return Served(store)


def test_a_fresh_vdi_has_an_empty_inode(served: Served) -> None:
    volume = Volume(served)

    assert volume.inode() == Inode(
        "disk", 0x8F8A84, 64 * MIB, create_time=1_700_000_000 << 32 | 123_456_000, nr_copies=1, block_size_shift=22
    )
    assert volume.owners() == [0] * 16
    assert len(served.data(read_object(inode_oid(volume.vdi_id), 0, INODE_SIZE))) == INODE_SIZE


def test_a_vdi_reply_tells_id_copies_and_object_size(served: Served) -> None:
    answer = served.ok(new_vdi("disk", MIB, copies=3, block_size_shift=24))

    assert VdiReply.unpack(answer.body) == VdiReply(0x8F8A84, 0, 3, 24)
    assert VdiReply.unpack(served.ok(vdi_info("disk")).body) == VdiReply(0x8F8A84, 0, 3, 24)


@pytest.mark.parametrize("shift", [19, 32])
def test_an_object_size_out_of_bounds_is_refused(served: Served, shift: int) -> None:
    assert served.result(new_vdi("disk", MIB, block_size_shift=shift)) is Result.INVALID_PARMS


def test_a_name_is_taken_once(served: Served) -> None:
    Volume(served)

    assert served.result(new_vdi("disk", MIB)) is Result.VDI_EXIST


def test_a_hyper_volume_starts_with_an_empty_tree(served: Served) -> None:
    volume = Volume(served, store_policy=1)

    header = served.data(read_object(inode_oid(volume.vdi_id), TABLE_OFFSET, btree.NODE_HEADER_SIZE))

    assert volume.inode().is_hyper
    assert btree.unpack_node_header(volume.vdi_id, header) == btree.NodeHeader(btree.LEAF, 0)


def test_a_snapshot_freezes_the_working_vdi_and_goes_on_in_a_new_one(served: Served) -> None:
    volume = Volume(served)
    volume.write(3, 0, b"data")

    snapshot = volume.snapshot()

    assert volume.inode(snapshot).is_snapshot
    assert volume.inode().snap_id == 2
    assert volume.inode().parent_vdi_id == snapshot
    assert volume.owners() == volume.owners(snapshot) == [0, 0, 0, snapshot, *[0] * 12]


def test_a_write_after_a_snapshot_copies(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 0, b"before")
    snapshot = volume.snapshot()

    volume.write(0, 3, b"after")

    assert served.data(read_object(data_oid(volume.vdi_id, 0), 0, 8)) == b"befafter"
    assert served.data(read_object(data_oid(snapshot, 0), 0, 8)) == b"before\0\0"


def test_a_snapshots_objects_are_read_only(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 0, b"before")
    snapshot = volume.snapshot()

    assert served.result(write_object(data_oid(snapshot, 0), 0, b"x", copies=1)) is Result.READONLY
    assert served.result(create_object(data_oid(snapshot, 1), 0, b"x", copies=1)) is Result.READONLY


def test_a_snapshot_of_nothing_is_no_vdi(served: Served) -> None:
    assert served.result(new_vdi("disk", MIB, base_vdi_id=5, snapshot=True)) is Result.NO_VDI


def test_a_clone_shares_its_bases_objects(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 0, b"data")
    snapshot = volume.snapshot()

    clone = Volume(served, "copy", base_vdi_id=snapshot)

    assert clone.owners()[0] == snapshot
    assert clone.inode().snap_id == 1


def test_a_clone_of_nothing_is_refused(served: Served) -> None:
    assert served.result(new_vdi("copy", MIB, base_vdi_id=5)) is Result.BASE_VDI_READ


def test_a_hyper_volume_cannot_be_cloned(served: Served) -> None:
    volume = Volume(served, store_policy=1)

    assert served.result(new_vdi("copy", MIB, base_vdi_id=volume.vdi_id)) is Result.NO_SUPPORT


def test_rebasing_makes_the_working_vdi_a_snapshot_and_starts_from_another(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 0, b"one")
    first = volume.snapshot()
    volume.write(0, 0, b"two")
    current = volume.vdi_id

    rebased = served.vdi(new_vdi("disk", 64 * MIB, base_vdi_id=first, snapshot=True))

    assert volume.inode(current).is_snapshot
    assert volume.inode(rebased).parent_vdi_id == first
    assert volume.owners(rebased)[0] == first
    assert served.vdi(vdi_info("disk")) == rebased


def test_snapshots_are_found_by_id_and_by_the_tag_in_their_inode(served: Served) -> None:
    volume = Volume(served)
    served.ok(write_object(inode_oid(volume.vdi_id), 256, b"monday".ljust(256, b"\0"), copies=1))
    snapshot = volume.snapshot()

    assert served.vdi(vdi_info("disk", tag="monday")) == snapshot
    assert served.vdi(vdi_info("disk", snapid=1)) == snapshot
    assert served.result(vdi_info("disk", tag="tuesday")) is Result.NO_TAG
    assert served.result(vdi_info("none")) is Result.NO_VDI


def test_a_deleted_vdi_keeps_its_id(served: Served) -> None:
    volume = Volume(served)

    served.ok(delete_vdi("disk"))

    in_use, deleted = (served.data(read_vdi_bitmap(deleted=flag)) for flag in (False, True))
    assert in_use == deleted
    assert in_use[volume.vdi_id >> 3] == 1 << (volume.vdi_id & 7)
    assert served.result(vdi_info("disk")) is Result.NO_VDI
    assert served.vdi(new_vdi("disk", MIB)) == volume.vdi_id + 1


def test_as_in_1_0_a_vdi_whose_table_is_not_clear_stays(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 0, b"data")

    served.ok(delete_vdi("disk"))

    assert served.vdi(vdi_info("disk")) == volume.vdi_id


def test_deleting_nothing_is_no_vdi(served: Served) -> None:
    assert served.result(delete_vdi("disk")) is Result.NO_VDI


def test_objects_go_with_the_last_reference(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 0, b"old")
    volume.write(1, 0, b"kept")
    first = volume.snapshot()
    volume.write(0, 0, b"new")

    volume.clear(first)

    assert served.result(read_object(data_oid(first, 0), 0, 512)) is Result.NO_OBJ
    assert served.data(read_object(data_oid(first, 1), 0, 4)) == b"kept"
    assert served.data(read_object(data_oid(volume.vdi_id, 0), 0, 3)) == b"new"


def test_a_deleted_hyper_volume_takes_its_objects_along(served: Served) -> None:
    volume = Volume(served, store_policy=1)
    served.ok(create_object(data_oid(volume.vdi_id, 1 << 21), 0, b"data", copies=1))

    served.ok(delete_vdi("disk"))

    assert served.result(read_object(data_oid(volume.vdi_id, 1 << 21), 0, 512)) is Result.NO_OBJ
    assert served.result(vdi_info("disk")) is Result.NO_VDI


def test_discarding_removes_object_and_entry(served: Served) -> None:
    volume = Volume(served)
    volume.write(2, 0, b"data")

    served.ok(Message(Opcode.DISCARD_OBJ, ObjectBody(data_oid(volume.vdi_id, 2)).pack()))

    assert volume.owners()[2] == 0
    assert served.result(read_object(data_oid(volume.vdi_id, 2), 0, 512)) is Result.NO_OBJ


def test_what_was_not_written_reads_as_zeros(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 1000, b"data")

    data = served.data(read_object(data_oid(volume.vdi_id, 0), 0, OBJECT_SIZE))

    assert data == bytes(1000) + b"data" + bytes(OBJECT_SIZE - 1004)


def test_beyond_the_end_of_an_object_there_are_zeros(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, OBJECT_SIZE - 4, b"tail")

    assert served.data(read_object(data_oid(volume.vdi_id, 0), OBJECT_SIZE - 4, 8)) == b"tail\0\0\0\0"


def test_a_missing_object_is_no_object(served: Served) -> None:
    oid = data_oid(1, 0)
    remove = Message(Opcode.REMOVE_OBJ, ObjectBody(oid).pack())

    assert served.result(read_object(oid, 0, 512)) is Result.NO_OBJ
    assert served.result(write_object(oid, 0, b"x", copies=1)) is Result.NO_OBJ
    assert served.result(remove) is Result.NO_OBJ


def test_a_write_past_the_end_is_refused(served: Served) -> None:
    volume = Volume(served)
    volume.write(0, 0, b"data")
    oid = data_oid(volume.vdi_id, 0)

    assert served.result(write_object(oid, OBJECT_SIZE - 1, b"xy", copies=1)) is Result.INVALID_PARMS


def test_missing_oids_come_back(served: Served) -> None:
    volume = Volume(served)
    oids = [inode_oid(volume.vdi_id), 5, 6]

    answer = served.ask(Message(Opcode.OIDS_EXIST, bytes(32), payload=struct.pack("<3Q", *oids), flags=Flag.WRITE))

    assert answer.result is Result.NO_OBJ
    assert bytes(answer.payload) == struct.pack("<2Q", 5, 6)


def test_the_node_list_holds_the_address_of_the_node(served: Served) -> None:

    answer = served.ok(node_list(800))

    (node,) = unpack_nodes(answer.payload)
    assert NodeReply.unpack(answer.body).nr_nodes == 1
    assert (node.host, node.port, node.zone, node.vnodes) == ("127.0.0.1", 7000, 1, 128)


@pytest.mark.parametrize(("release", "size"), [(Release.V1_0, 80), (Release.V0_6, 56), (Release.V0_4, 32)])
def test_a_node_list_entry_is_as_long_as_the_releases(release: Release, size: int) -> None:
    assert len(Served(MemoryStore(), release).data(node_list(800))) == size


@pytest.mark.parametrize(("release", "size"), [(Release.V1_0, 1428), (Release.V0_4, 8)])
def test_vdi_states_start_with_id_and_copies(release: Release, size: int) -> None:
    served = Served(MemoryStore(), release)
    volume = Volume(served)

    states = served.data(Message(Opcode.GET_VDI_COPIES, bytes(32), capacity=4096))

    assert len(states) == size
    assert states[:5] == struct.pack("<IB", volume.vdi_id, 1)


def test_cluster_state_names_the_epochs_nodes() -> None:
    served = Served(MemoryStore())
    asked_for_one = bytes(24) + struct.pack("<II", 1, 0)

    state = served.data(Message(Opcode.STAT_CLUSTER, asked_for_one, capacity=48 + 80))

    assert struct.unpack_from("<QQIIBB", state) == (1_700_000_000 << 32 | 123_456_789, 1_700_000_000, 1, 1, 0, 1)
    assert unpack_nodes(state[48:])[0].port == 7000


def test_a_store_keeps_the_time_at_which_it_was_formatted(tmp_path: Path) -> None:
    Served(FolderStore(tmp_path))

    later = alone(FolderStore(tmp_path), clock_ns=lambda: 1_800_000_000_000_000_000)

    request = stat_cluster(0x0A)
    header = RequestHeader.unpack(request.header(1, 0x0A))
    assert unpack_format_time(later.answer(header, memoryview(b"")).payload) == 1_700_000_000 << 32 | 123_456_789


@pytest.mark.parametrize("release", list(Release))
def test_each_release_answers_with_one_epoch_where_there_is_room_for_one(release: Release) -> None:
    version = release.value.internal_version
    served = Served(MemoryStore(), release)

    state = served.data(stat_cluster(version))

    assert len(state) == EPOCH_LOG_SIZES[version]
    assert unpack_format_time(state) == 1_700_000_000 << 32 | 123_456_789
    too_little = stat_cluster(version)._replace(capacity=EPOCH_LOG_SIZES[version] - 1)
    assert not served.data(too_little)


def test_an_answer_that_the_client_cannot_take_is_not_sent(served: Served) -> None:
    answer = served.ask(node_list(79))

    assert answer.result is Result.BUFFER_SMALL
    assert not answer.payload


def test_the_bitmap_is_sent_whole_or_not_at_all(served: Served) -> None:
    assert served.result(Message(Opcode.READ_VDIS, bytes(32), capacity=100)) is Result.INVALID_PARMS


def test_flush_is_refused_as_obsolete(served: Served) -> None:
    assert served.result(Message(Opcode.FLUSH_VDI, bytes(32))) is Result.INVALID_PARMS


@pytest.mark.parametrize(
    ("release", "opcode", "proto_ver", "result"),
    [
        (Release.V1_0, Opcode.RELEASE_VDI, 0, Result.SUCCESS),
        (Release.V1_0, Opcode.RELEASE_VDI, 2, Result.SUCCESS),
        (Release.V1_0, Opcode.RELEASE_VDI, 3, Result.VER_MISMATCH),
        (Release.V1_0, Opcode.STAT_SHEEP, 0x0A, Result.SUCCESS),
        (Release.V1_0, Opcode.STAT_SHEEP, 0x09, Result.VER_MISMATCH),
        (Release.V1_0, Opcode.STAT_SHEEP, 0, Result.VER_MISMATCH),
        (Release.V0_6, Opcode.RELEASE_VDI, 2, Result.SUCCESS),
        (Release.V0_6, Opcode.STAT_SHEEP, 0x07, Result.SUCCESS),
        (Release.V0_6, Opcode.STAT_SHEEP, 0x0A, Result.VER_MISMATCH),
        (Release.V0_4, Opcode.RELEASE_VDI, 1, Result.SUCCESS),
        (Release.V0_4, Opcode.RELEASE_VDI, 2, Result.VER_MISMATCH),
        (Release.V0_4, Opcode.STAT_SHEEP, 0x06, Result.SUCCESS),
    ],
)
def test_a_release_takes_its_own_versions(release: Release, opcode: Opcode, proto_ver: int, result: Result) -> None:
    assert Served(MemoryStore(), release).result(Message(opcode, bytes(32)), proto_ver) is result


@pytest.mark.parametrize("release", [Release.V0_6, Release.V0_4])
def test_an_older_release_does_not_know_newer_requests(release: Release) -> None:
    served = Served(MemoryStore(), release)

    assert served.result(Message(Opcode.GET_CLUSTER_DEFAULT, bytes(32))) is Result.INVALID_PARMS
    assert served.result(read_vdi_bitmap(deleted=True)) is Result.INVALID_PARMS


@pytest.mark.parametrize("release", [Release.V0_6, Release.V0_4])
def test_an_older_release_takes_copies_as_32_bits(release: Release) -> None:
    served = Served(MemoryStore(), release)

    assert served.result(new_vdi("disk", MIB, block_size_shift=22)) is Result.INVALID_PARMS
    assert served.result(new_vdi("disk", MIB)) is Result.SUCCESS


@pytest.mark.parametrize(("release", "old"), [(Release.V0_6, False), (Release.V0_4, True)])
def test_an_older_release_deletes_with_the_objects(release: Release, *, old: bool) -> None:
    served = Served(MemoryStore(), release)
    volume = Volume(served)
    volume.write(0, 0, b"data")

    served.ok(delete_vdi("disk", old=old))

    assert served.result(vdi_info("disk")) is Result.NO_VDI
    assert served.result(read_object(data_oid(volume.vdi_id, 0), 0, 512)) is Result.NO_OBJ


@pytest.mark.parametrize(
    ("written", "offset", "length"),
    [
        ((1000, b"data"), 512, 512),
        ((0, b"data"), 0, 512),
        ((4096 - 3, b"end"), 3584, 512),
        ((500, b"x" * 20), 0, 1024),
        ((0, b""), 4096, 0),
        ((5000, b"outside"), 4096, 0),
    ],
)
def test_release_0_6_trims_zero_sectors(written: tuple[int, bytes], offset: int, length: int) -> None:
    served = Served(MemoryStore(), Release.V0_6)
    volume = Volume(served)
    volume.write(0, *written)

    answer = served.ok(read_object(data_oid(volume.vdi_id, 0), 0, 4096))

    assert (ObjectReply.unpack(answer.body).offset, len(answer.payload)) == (offset, length)


def test_a_trimmed_offset_counts_from_the_range_asked_for() -> None:
    served = Served(MemoryStore(), Release.V0_6)
    volume = Volume(served)
    volume.write(0, 2048, b"data")

    answer = served.ok(read_object(data_oid(volume.vdi_id, 0), 1024, 4096))

    assert ObjectReply.unpack(answer.body).offset == 1024


def test_release_0_6_does_not_trim_for_version_1() -> None:
    served = Served(MemoryStore(), Release.V0_6)
    volume = Volume(served)
    volume.write(0, 1000, b"data")

    assert len(served.ask(read_object(data_oid(volume.vdi_id, 0), 0, 4096), 1).payload) == 4096


def test_everything_is_there_after_a_restart(store: Store) -> None:
    volume = Volume(Served(store))
    volume.write(0, 0, b"data")
    snapshot = volume.snapshot()
    gone = Volume(volume.service, "gone")
    volume.service.ok(delete_vdi("gone"))

    volume.service = Served(store)

    assert volume.service.vdi(vdi_info("disk")) == volume.vdi_id
    assert volume.service.result(write_object(data_oid(snapshot, 0), 0, b"x", copies=1)) is Result.READONLY
    deleted = np.frombuffer(volume.service.data(read_vdi_bitmap(deleted=True)), dtype=np.uint8)
    assert np.flatnonzero(np.unpackbits(deleted, bitorder="little")).tolist() == [gone.vdi_id]


def test_a_formatted_store_keeps_its_copies(store: Store) -> None:
    alone(store, copies=3)

    again = alone(store, copies=1)

    header = RequestHeader.unpack(Message(Opcode.GET_CLUSTER_DEFAULT, bytes(32)).header(1, 2))
    assert again.answer(header, memoryview(b"")).body[0] == 3


def test_a_full_disk_is_no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    served = Served(store)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "put", full)

    assert served.result(new_vdi("disk", MIB)) is Result.NO_SPACE


def test_a_bug_is_a_system_error_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    served = Served(store)

    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(store, "get", broken)

    assert served.result(read_object(1, 0, 512)) is Result.SYSTEM_ERROR
    assert served.result(node_list(80)) is Result.SUCCESS
