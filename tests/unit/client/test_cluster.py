from __future__ import annotations

import asyncio
import random
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest

from asyncbackup import ClientOptions, Cluster, connect
from asyncbackup.client import connect_any
from asyncbackup.client.cluster import DamagedVdi
from asyncbackup.client.objects import READ_SIZE, ObjectRead
from asyncbackup.client.request import Request
from asyncbackup.errors import (
    ChangedMeanwhile,
    InodeCorrupt,
    ObjectReadFailed,
    PlacementUnknown,
    ProtocolViolation,
    RequestFailed,
    SnapshotNotFound,
    TooManyVdis,
    VdiNotFound,
)
from asyncbackup.format.identity import time_text
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.release import Release
from asyncbackup.sheep.store import ClusterConfig
from asyncbackup.wire import btree
from asyncbackup.wire.attributes import ATTRIBUTE_SIZE, Attribute, find_attribute
from asyncbackup.wire.constants import VDI_STATE_SIZE, Opcode, Result
from asyncbackup.wire.inode import TABLE_OFFSET, Inode
from asyncbackup.wire.messages import Message, ObjectBody, VdiReply
from asyncbackup.wire.oid import ATTR_BIT, data_oid, index_of, inode_oid
from asyncbackup.wire.vdi_ids import first_id
from tests.btree import btree_oid
from tests.disks import OBJECT, SHIFT, delete_as_dog, make_disk, rewrite_inode
from tests.faults.claims import ALL_IDS, Claims, bitmap_of
from tests.faults.proxy import answer, receive, serve

QUICK = ClientOptions(connections=1, request_timeout_s=10, give_up_after_s=0, retry_delay_s=0)


def owners(pairs: list[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack("<II", *pair) for pair in pairs)


def leaf_node(pairs: list[tuple[int, int]]) -> bytes:
    return btree.pack_node_header(btree.LEAF, len(pairs)) + owners(pairs)


# What tells the cluster


@pytest.mark.parametrize("release", list(Release))
async def test_the_time_of_formatting_tells_clusters_apart(release: Release) -> None:
    store = MemoryStore()
    store.save_config(ClusterConfig(1_700_000_000 << 32 | 123_456_789, 1, 22))
    async with Sheep(store, release=release) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        assert await cluster.format_time() == "2023-11-14T22:13:20.123456789Z"


async def test_the_time_of_formatting_is_asked_for_once(sheep: Sheep, cluster: Cluster) -> None:
    await make_disk(cluster)
    inode = await cluster.find_vdi("disk", "a")

    for _ in range(3):
        assert (await cluster.identify(inode)).cluster == await cluster.format_time()

    assert sheep.requests[Opcode.STAT_CLUSTER] == 1


@pytest.mark.parametrize(
    ("result", "payload"),
    [(Result.INVALID_PARMS, b""), (Result.SYSTEM_ERROR, b""), (Result.SUCCESS, b""), (Result.SUCCESS, bytes(48))],
)
async def test_a_server_that_does_not_say_when_it_was_formatted_is_taken_as_it_is(
    result: Result, payload: bytes
) -> None:
    async with stat_cluster_answers(result, payload) as cluster:
        assert await cluster.format_time() is None


@pytest.mark.parametrize(
    ("payload", "got"), [(bytes(7), "got 7"), (b"\xff" * 48, "nanoseconds, got 4294967295")], ids=["short", "absurd"]
)
async def test_a_time_of_formatting_that_is_none_is_refused(payload: bytes, got: str) -> None:
    async with stat_cluster_answers(Result.SUCCESS, payload) as cluster:
        with pytest.raises(ProtocolViolation, match=f"the time at which the cluster was formatted, got .*{got}"):
            await cluster.format_time()


@asynccontextmanager
async def stat_cluster_answers(result: Result, payload: bytes) -> AsyncIterator[Cluster]:
    """Connect to a server that knows nothing but its release, and answers STAT_CLUSTER so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await receive(reader)
            if header.opcode == Opcode.STAT_CLUSTER:
                writer.write(answer(header, payload, result=result))
            else:
                writer.write(answer(header))

    async with serve(handle) as port, connect("127.0.0.1", port, QUICK) as cluster:
        yield cluster


async def test_a_server_of_an_unknown_release_is_not_asked_when_it_was_formatted() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(answer(await receive(reader), result=Result.VER_MISMATCH))

    async with serve(handle) as port, connect("127.0.0.1", port, QUICK) as cluster:
        assert await cluster.format_time() is None
        assert cluster.counts.requests == 0


async def test_the_same_cluster_for_two_jobs_is_asked_once_when_it_was_formatted(
    sheep: Sheep, cluster: Cluster
) -> None:
    times = [await job.format_time() for job in (cluster.counted(), cluster.counted())]

    assert times[0] == times[1]
    assert sheep.requests[Opcode.STAT_CLUSTER] == 1


async def test_each_job_counts_its_own_requests(cluster: Cluster) -> None:
    jobs = [cluster.counted() for _ in range(3)]

    async with anyio.create_task_group() as group:
        for number, job in enumerate(jobs):
            for _ in range(number):
                group.start_soon(job.has_vdi, "disk")

    assert [job.counts.requests for job in jobs] == [0, 1, 2]
    assert cluster.counts.requests == 0


async def test_a_snapshot_is_identified(cluster: Cluster) -> None:
    await make_disk(cluster)
    inode = await cluster.find_vdi("disk", "a")

    found = await cluster.identify(inode)

    assert (found.vdi, found.vdi_id, found.id, found.tag) == ("disk", f"{inode.vdi_id:x}", 1, "a")
    assert found.created == time_text(inode.snap_ctime)
    assert (await cluster.identify(await cluster.find_vdi("disk"))).created is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"snap_ctime": 1 << 32 | 10**9}, "nanoseconds"),
        ({"tag": "t" * 256}, "tag: expected at most 255 bytes of text, got 256"),
        ({"name": ""}, "vdi: expected a name"),
        ({"vdi_id": 1 << 24}, "vdi_id: expected 1 to 6 hex digits"),
    ],
)
async def test_an_inode_that_no_snapshot_has_is_not_identified(
    cluster: Cluster, changes: dict[str, Any], message: str
) -> None:
    await make_disk(cluster)
    inode = replace(await cluster.find_vdi("disk", "a"), **changes)

    with pytest.raises(InodeCorrupt, match=message):
        await cluster.identify(inode)


async def test_an_object_that_is_not_there_needs_no_removal(cluster: Cluster) -> None:
    await cluster.remove_object(data_oid(5, 0))


async def test_an_object_that_cannot_be_removed_is_told() -> None:
    faults = [Fault.parse("remove_obj@1:error=EIO")]
    async with Sheep(MemoryStore(), faults=faults) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        with pytest.raises(RequestFailed, match="removing object 0000000500000000 failed: I/O error"):
            await cluster.remove_object(data_oid(5, 0))


async def test_the_same_cluster_is_reached_over_connections_of_their_own(sheep: Sheep, cluster: Cluster) -> None:
    open_before = sheep.connections

    async with cluster.connected_anew() as other:
        assert sheep.connections == 2 * open_before
        assert other.router.options == cluster.router.options
        await cluster.nodes.close()
        assert not await other.has_vdi("disk")


async def test_reading_fills_the_buffer_from_the_offset(cluster: Cluster) -> None:
    vdi_id = await cluster.create_vdi("disk", OBJECT, block_size_shift=SHIFT)
    await cluster.create_object(data_oid(vdi_id, 0), b"0123456789", 1000, copies=1)
    buffer = bytearray(12)

    await cluster.read_object(data_oid(vdi_id, 0), memoryview(buffer), 999)

    assert buffer == b"\x000123456789\x00"


async def test_a_large_read_arrives_in_parts(cluster: Cluster) -> None:
    vdi_id = await cluster.create_vdi("disk", 1 << 20, block_size_shift=20)
    content = random.Random(1).randbytes(1 << 20)
    await cluster.create_object(data_oid(vdi_id, 0), content, copies=1)
    buffer = bytearray((1 << 20) - 512)
    requests = cluster.counts.requests

    await cluster.read_object(data_oid(vdi_id, 0), memoryview(buffer), 512)

    assert buffer == content[512:]
    assert cluster.counts.requests - requests == -(-len(buffer) // READ_SIZE)


async def test_only_the_parts_that_failed_are_read_again() -> None:
    faults = [Fault.parse("read_obj@2:error=AGAIN"), Fault.parse("read_obj@4:error=AGAIN")]
    options = replace(QUICK, give_up_after_s=60)
    async with Sheep(MemoryStore(), faults=faults) as sheep, connect(sheep.host, sheep.port, options) as cluster:
        vdi_id = await cluster.create_vdi("disk", 1 << 20, block_size_shift=20)
        content = random.Random(2).randbytes(1 << 20)
        await cluster.create_object(data_oid(vdi_id, 0), content, copies=1)
        buffer = bytearray(len(content))
        requests = cluster.counts.requests

        await cluster.read_object(data_oid(vdi_id, 0), memoryview(buffer))

    assert buffer == content
    assert (cluster.counts.requests - requests, cluster.counts.retries) == (3 + 1 + 1, 2)


async def test_a_read_of_several_objects_names_the_one_that_failed(cluster: Cluster) -> None:
    vdi_id = await cluster.create_vdi("disk", 2 * OBJECT, block_size_shift=SHIFT)
    await cluster.create_object(data_oid(vdi_id, 0), b"here", copies=1)
    reads = [ObjectRead(data_oid(vdi_id, idx), memoryview(bytearray(512))) for idx in (0, 1)]

    with pytest.raises(ObjectReadFailed, match=r"reading object 1 .* no such object"):
        await cluster.read_objects(reads)


async def test_reading_nothing_asks_nothing(cluster: Cluster) -> None:
    requests = cluster.counts.requests

    await cluster.read_objects([])

    assert cluster.counts.requests == requests


async def test_a_missing_object_is_told_with_its_id(cluster: Cluster) -> None:
    with pytest.raises(RequestFailed, match=r"reading object 255 \(oid 00000005000000ff\) failed: no such object"):
        await cluster.read_object(data_oid(5, 255), memoryview(bytearray(512)))


@pytest.mark.parametrize("look_up", [Cluster.find_vdi, Cluster.has_vdi])
async def test_a_lookup_that_fails_is_told(look_up: Callable[[Cluster, str], Awaitable[object]]) -> None:
    faults = [Fault.parse("get_vdi_info@1:error=EIO")]
    async with Sheep(MemoryStore(), faults=faults) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        with pytest.raises(RequestFailed, match=r"looking up VDI 'disk' failed: I/O error \(result 0x03\)"):
            await look_up(cluster, "disk")


async def test_a_working_vdi_is_found(cluster: Cluster) -> None:
    vdi_id = await cluster.create_vdi("disk", 3 * OBJECT, block_size_shift=SHIFT)

    inode = await cluster.find_vdi("disk")

    assert (inode.vdi_id, inode.vdi_size, inode.block_size_shift) == (vdi_id, 3 * OBJECT, SHIFT)
    assert not inode.is_snapshot


async def test_a_snapshot_is_found_by_tag_and_by_id(cluster: Cluster) -> None:
    await make_disk(cluster)

    by_tag = await cluster.find_vdi("disk", "b")

    assert (by_tag.tag, by_tag.snap_id, by_tag.is_snapshot) == ("b", 2, True)
    assert await cluster.find_vdi("disk", 2) == by_tag


async def test_an_unknown_vdi_is_told_with_those_there_are(cluster: Cluster) -> None:
    await make_disk(cluster, "one")
    await make_disk(cluster, "two")

    with pytest.raises(VdiNotFound, match="no VDI named 'three'; VDIs are two, one") as caught:
        await cluster.find_vdi("three", "a")

    assert caught.value.existing == ("two", "one")


async def test_an_empty_cluster_says_so(cluster: Cluster) -> None:
    with pytest.raises(VdiNotFound, match="the cluster holds no VDI"):
        await cluster.find_vdi("disk")


@pytest.mark.parametrize(("snapshot", "told"), [("c", "'c'"), (7, "7")])
async def test_an_unknown_snapshot_is_told_with_those_there_are(
    cluster: Cluster, snapshot: str | int, told: str
) -> None:
    await make_disk(cluster)
    await cluster.create_snapshot("disk", "")

    with pytest.raises(SnapshotNotFound, match=rf"no snapshot {told}; snapshots are 3, 2 \(b\), 1 \(a\)$"):
        await cluster.find_vdi("disk", snapshot)


async def test_a_vdi_without_snapshots_says_so(cluster: Cluster) -> None:
    await cluster.create_vdi("disk", OBJECT)

    with pytest.raises(SnapshotNotFound, match="it has no snapshot"):
        await cluster.find_vdi("disk", "a")


@pytest.mark.parametrize("snapshot", ["", 0, -1, 1 << 32, "x" * 256, "a\0b"])
async def test_a_name_that_no_snapshot_can_have_is_not_found(cluster: Cluster, snapshot: str | int) -> None:
    await make_disk(cluster)

    with pytest.raises(SnapshotNotFound, match=r"snapshots are 2 \(b\), 1 \(a\)"):
        await cluster.find_vdi("disk", snapshot)


@pytest.mark.parametrize("name", ["x" * 256, "a\0b"])
async def test_a_name_that_no_vdi_can_have_is_not_found(cluster: Cluster, name: str) -> None:
    await make_disk(cluster)

    with pytest.raises(VdiNotFound, match="VDIs are disk"):
        await cluster.find_vdi(name)


async def test_a_working_vdi_is_never_taken_for_a_snapshot(sheep: Sheep) -> None:
    async with connect(sheep.host, sheep.port, QUICK) as behind:
        await behind.create_vdi("disk", OBJECT)
        inode = await behind.find_vdi("disk")

        async def answer_with_the_working_vdi(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = await receive(reader)
                if request.opcode == Opcode.READ_OBJ:
                    writer.write(answer(request, inode.pack()))
                elif request.opcode == Opcode.READ_VDIS:
                    bitmap = bytearray(request.data_length)
                    bitmap[inode.vdi_id // 8] = 1 << inode.vdi_id % 8
                    writer.write(answer(request, bytes(bitmap)))
                elif request.opcode == Opcode.READ_DEL_VDIS:
                    writer.write(answer(request, bytes(request.data_length)))
                else:
                    writer.write(answer(request, body=VdiReply(inode.vdi_id).pack()))

        async with serve(answer_with_the_working_vdi) as port, connect("127.0.0.1", port, QUICK) as cluster:
            with pytest.raises(SnapshotNotFound, match="no snapshot 1; it has no snapshot"):
                await cluster.find_vdi("disk", 1)


async def test_a_lookup_that_fails_otherwise_is_told() -> None:
    faults = [Fault.parse("get_vdi_info@1:error=EIO")]
    async with Sheep(MemoryStore(), faults=faults) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        with pytest.raises(RequestFailed, match="looking up VDI 'disk' failed: I/O error"):
            await cluster.find_vdi("disk")


async def test_an_inode_that_contradicts_itself_is_refused() -> None:
    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        await cluster.create_vdi("disk", OBJECT)
        rewrite_inode(store, replace(await cluster.find_vdi("disk"), block_size_shift=7))

        with pytest.raises(InodeCorrupt, match="expected a block_size_shift of 20 to 31, got 7"):
            await cluster.find_vdi("disk")


async def test_everything_is_listed_but_what_was_deleted(cluster: Cluster) -> None:
    await make_disk(cluster, "one")
    await cluster.create_vdi("two", OBJECT)
    async with anyio.create_task_group() as group:
        for tag in "cd":
            group.start_soon(cluster.create_vdi, tag, OBJECT)

    listed = sorted((inode.name, inode.tag) for inode in (await cluster.list_vdis()).sound)

    assert listed == [("c", ""), ("d", ""), ("one", ""), ("one", "a"), ("one", "b"), ("two", "")]


async def test_an_old_server_lists_its_vdis_without_a_bitmap_of_deleted_ones() -> None:
    async with Sheep(MemoryStore(), release=Release.V0_6) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        await cluster.create_vdi("disk", OBJECT)

        assert [inode.name for inode in (await cluster.list_vdis()).sound] == ["disk"]


async def test_a_list_that_cannot_be_read_is_an_error() -> None:
    faults = [Fault.parse("read_vdis@1:error=EIO")]
    async with Sheep(MemoryStore(), faults=faults) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        with pytest.raises(RequestFailed, match="listing the VDIs failed: I/O error"):
            await cluster.list_vdis()


async def test_a_short_bitmap_is_a_violation() -> None:
    faults = [Fault.parse("read_vdis@1:short=512")]
    async with Sheep(MemoryStore(), faults=faults) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        with pytest.raises(ProtocolViolation, match="expected 2097152 bytes of bitmap, got 512 bytes"):
            await cluster.list_vdis()


def large(count: int) -> dict[int, Inode]:
    """Make VDIs of three snapshots each; a later name is newer."""
    inodes = {}
    for number in range(count):
        for snap_id in range(1, 5):
            name = f"vm{number}"
            vdi_id = first_id(name) + snap_id
            ctime = 0 if snap_id == 4 else snap_id << 32
            inodes[vdi_id] = Inode(
                name, vdi_id, OBJECT, snap_id=snap_id, create_time=number << 32, snap_ctime=ctime, tag=f"t{snap_id}"
            )
    return inodes


async def test_a_name_that_is_not_there_costs_few_reads_in_a_large_cluster() -> None:
    claims = Claims.of(large(500).values())
    async with serve(claims) as port, connect("127.0.0.1", port, QUICK) as cluster:
        with pytest.raises(VdiNotFound, match=r"no VDI named 'disc'; among others, VDIs are vm\d+, vm\d+, ") as caught:
            await cluster.find_vdi("disc", "a")

    numbers = [int(name.removeprefix("vm")) for name in caught.value.existing]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) > 200, "of each run only the end is read, where the working VDI is"
    assert claims.requests[Opcode.READ_OBJ] <= 256


async def test_a_snapshot_that_is_not_there_costs_only_those_of_its_vdi() -> None:
    inodes = large(500)
    inodes[first_id("vm7")] = replace(inodes[first_id("vm8") + 1], vdi_id=first_id("vm7"))
    claims = Claims.of(inodes.values())
    async with serve(claims) as port, connect("127.0.0.1", port, QUICK) as cluster:
        with pytest.raises(SnapshotNotFound, match=r"snapshots are 3 \(t3\), 2 \(t2\), 1 \(t1\)$"):
            await cluster.find_vdi("vm7", "a")

    assert claims.requests[Opcode.READ_OBJ] == 5


async def test_a_list_of_a_name_that_is_not_there_costs_few_reads_in_a_large_cluster() -> None:
    claims = Claims.of(large(500).values())
    async with serve(claims) as port, connect("127.0.0.1", port, QUICK) as cluster:
        with pytest.raises(VdiNotFound, match="no VDI named 'disc'; among others, VDIs are "):
            await cluster.list_vdis("disc")

    assert claims.requests[Opcode.READ_OBJ] <= 2 * 256


async def test_a_list_of_a_name_has_all_that_have_it_wherever_their_ids_are() -> None:
    inodes = large(500)
    inodes[1] = replace(inodes[first_id("vm7") + 1], vdi_id=1, snap_id=77)
    inodes[first_id("vm7")] = inodes.pop(first_id("vm7") + 1)
    inodes[first_id("vm7")] = replace(inodes[first_id("vm7")], vdi_id=first_id("vm7"))
    async with serve(Claims.of(inodes.values())) as port, connect("127.0.0.1", port, QUICK) as cluster:
        vdis = await cluster.list_vdis("vm7")

    assert sorted(inode.snap_id for inode in vdis.sound) == [1, 2, 3, 4, 77]
    assert {inode.name for inode in vdis.sound} == {"vm7"}


async def test_a_list_of_a_name_finds_a_vdi_whose_id_is_elsewhere() -> None:
    inodes = large(100)
    inodes[1] = Inode("away", 1, OBJECT)
    packed = {vdi_id: inode.pack() for vdi_id, inode in inodes.items()}
    claims = Claims(bitmap_of(packed), packed.__getitem__, found=1)
    async with serve(claims) as port, connect("127.0.0.1", port, QUICK) as cluster:
        vdis = await cluster.list_vdis("away")

    assert [inode.vdi_id for inode in vdis.sound] == [1]


async def test_of_many_snapshots_the_newest_are_told() -> None:
    start = first_id("vm")
    inodes = [Inode("vm", start + n, OBJECT, snap_id=n, snap_ctime=1) for n in range(1000)]
    claims = Claims.of(inodes)
    async with serve(claims) as port, connect("127.0.0.1", port, QUICK) as cluster:
        with pytest.raises(SnapshotNotFound, match="no snapshot 'a'; among others, snapshots are 999, 998, 997, "):
            await cluster.find_vdi("vm", "a")

    assert claims.requests[Opcode.READ_OBJ] == 256


async def test_a_server_that_claims_all_ids_is_asked_for_few() -> None:
    claims = Claims(ALL_IDS, lambda _: b"\xff" * 600)
    async with serve(claims) as port, connect("127.0.0.1", port, QUICK) as cluster:
        with pytest.raises(
            VdiNotFound, match="no VDI named 'disk'; only a few were looked at, and all of those are damaged"
        ):
            await cluster.find_vdi("disk", "a")
        with pytest.raises(TooManyVdis, match="16777215 VDIs and snapshots"):
            await cluster.list_vdis()

    assert claims.requests[Opcode.READ_OBJ] <= 2 * 256


@pytest.mark.parametrize("vdi_id", [0, 1 << 24, 0xFFFFFFFF])
async def test_a_lookup_that_names_no_possible_vdi_is_a_violation(vdi_id: int) -> None:
    async with (
        serve(Claims(ALL_IDS, lambda _: b"", found=vdi_id)) as port,
        connect("127.0.0.1", port, QUICK) as cluster,
    ):
        with pytest.raises(ProtocolViolation, match=f"expected a VDI id of 24 bits, got {vdi_id:x}"):
            await cluster.find_vdi("disk")


@pytest.mark.parametrize(
    ("name", "snapshot", "problem"),
    [
        ("disc", 3, "looked up as VDI 'disc' snapshot 3, its inode says that it is VDI 'disk' snapshot 3 tagged 'a'"),
        ("disk", 4, "looked up as VDI 'disk' snapshot 4, "),
        ("disk", "b", "looked up as VDI 'disk' snapshot 'b', "),
        ("disc", None, "looked up as VDI 'disc', "),
    ],
)
async def test_an_inode_of_another_name_or_snapshot_is_refused(
    name: str, snapshot: int | str | None, problem: str
) -> None:
    inode = Inode("disk", 5, OBJECT, tag="a", snap_id=3, snap_ctime=1)
    async with (
        serve(Claims(bitmap_of([5]), lambda _: inode.pack(), found=5)) as port,
        connect("127.0.0.1", port, QUICK) as cluster,
    ):
        with pytest.raises(InodeCorrupt, match=problem):
            await cluster.find_vdi(name, snapshot)


async def test_a_vdi_that_was_deleted_since_it_was_looked_up_is_not_found() -> None:
    gone = Inode("", 5, OBJECT, snap_ctime=1)
    async with (
        serve(Claims(bitmap_of([5]), lambda _: gone.pack(), found=5)) as port,
        connect("127.0.0.1", port, QUICK) as cluster,
    ):
        with pytest.raises(VdiNotFound):
            await cluster.find_vdi("disk", "a")


@pytest.mark.parametrize("name", ["\ud800", "x" * 300, ""])
async def test_a_name_that_cannot_be_sent_is_not_found(name: str) -> None:
    claims = Claims.of(large(100).values())
    async with serve(claims) as port, connect("127.0.0.1", port, QUICK) as cluster:
        with pytest.raises(VdiNotFound, match="among others"):
            await cluster.find_vdi(name, "a")

    assert not claims.requests[Opcode.GET_VDI_INFO]


async def test_a_list_has_the_damaged_ones_apart() -> None:
    async with (
        serve(Claims(bitmap_of([5, 6]), lambda vdi_id: Inode("vm", 5, OBJECT).pack())) as port,
        connect("127.0.0.1", port, QUICK) as cluster,
    ):
        vdis = await cluster.list_vdis()

    assert [inode.vdi_id for inode in vdis.sound] == [5]
    assert vdis.damaged == [DamagedVdi(6, "vm", "its inode says that it is VDI 5")]


# Attributes


@pytest.mark.parametrize("release", list(Release))
async def test_an_attribute_is_written_read_and_deleted(release: Release) -> None:
    async with Sheep(MemoryStore(), release=release) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        await cluster.create_vdi("disk", OBJECT * 4)
        disk = await cluster.find_vdi("disk")
        assert await cluster.read_attribute(disk, "key") is None
        await cluster.write_attribute("disk", "key", b"value")
        await cluster.write_attribute("disk", "key", b"other")
        assert await cluster.read_attribute(disk, "key") == b"other"
        await cluster.delete_attribute("disk", "key")
        await cluster.delete_attribute("disk", "key")
        assert await cluster.read_attribute(disk, "key") is None


async def test_a_snapshot_and_its_vdi_have_the_same_attributes(cluster: Cluster) -> None:
    await make_disk(cluster)
    await cluster.write_attribute("disk", "key", b"value")

    for snapshot in (None, "a", "b"):
        assert await cluster.read_attribute(await cluster.find_vdi("disk", snapshot), "key") == b"value"


async def test_an_attribute_is_read_beside_a_snapshot_whose_vdi_is_deleted(cluster: Cluster) -> None:
    await make_disk(cluster)
    await cluster.write_attribute("disk", "key", b"value")
    await delete_as_dog(cluster, "disk")

    assert await cluster.read_attribute(await cluster.find_vdi("disk", "b"), "key") == b"value"


async def test_no_snapshot_is_taken_of_another_vdi_than_the_one_that_is_meant(cluster: Cluster) -> None:
    await cluster.create_vdi("disk", OBJECT)
    first = await cluster.create_snapshot("disk", "a")

    with pytest.raises(ChangedMeanwhile, match="a snapshot was taken of it"):
        await cluster.create_snapshot("disk", "b", vdi_id=first.vdi_id)

    assert [vdi.tag for vdi in (await cluster.list_vdis()).sound] == ["a", ""]


async def test_an_attribute_of_a_vdi_that_was_deleted_meanwhile_is_not_found(cluster: Cluster) -> None:
    await cluster.create_vdi("disk", OBJECT)
    disk = await cluster.find_vdi("disk")
    await delete_as_dog(cluster, "disk")

    with pytest.raises(VdiNotFound, match="no VDI named 'disk'"):
        await cluster.read_attribute(disk, "key")


async def test_an_attribute_of_what_is_not_there_is_refused(cluster: Cluster) -> None:
    with pytest.raises(RequestFailed, match="writing attribute 'key' of VDI 'disk' failed: no such VDI"):
        await cluster.write_attribute("disk", "key", b"value")
    with pytest.raises(RequestFailed, match="deleting attribute 'key' of VDI 'disk' failed: no such VDI"):
        await cluster.delete_attribute("disk", "key")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (Attribute("disk", "other", b"value"), "expected attribute 'key' of VDI 'disk', got attribute 'other'"),
        (Attribute("disc", "key", b"value"), "expected attribute 'key' of VDI 'disk', got attribute 'key' of VDI"),
        (None, "expected an attribute, got expected a value of at most 65536 bytes, got 4294967295"),
    ],
)
async def test_an_attribute_that_is_none_is_a_violation(
    stored: Attribute | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        await cluster.create_vdi("disk", OBJECT)
        await cluster.write_attribute("disk", "key", b"value")
        (oid,) = [oid for oid in store.oids() if oid & ATTR_BIT]
        spoiled = b"\xff" * ATTRIBUTE_SIZE if stored is None else stored.pack()

        found = await cluster.call(find_attribute("disk", "key"))
        assert store.write(oid, 0, spoiled)
        monkeypatch.setattr(cluster, "call", answers(found))

        with pytest.raises(ProtocolViolation, match=expected):
            await cluster.read_attribute(Inode("disk", 1, OBJECT), "key")


async def test_an_attribute_that_goes_while_it_is_looked_up_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        await cluster.create_vdi("disk", OBJECT)
        await cluster.write_attribute("disk", "key", b"value")
        found = await cluster.call(find_attribute("disk", "key"))
        await cluster.delete_attribute("disk", "key")
        monkeypatch.setattr(cluster, "call", answers(found))

        assert await cluster.read_attribute(Inode("disk", 1, OBJECT), "key") is None


def answers(request: Request) -> Callable[[Message], Awaitable[Request]]:
    """Answer every lookup as ``request`` was answered before."""

    async def call(message: Message) -> Request:
        assert message.opcode is Opcode.GET_VDI_ATTR
        return request

    return call


# Hyper volumes


async def hyper_volume(cluster: Cluster, root: bytes) -> int:
    vdi_id = await cluster.create_vdi("hyper", 100 << 22, store_policy=1)
    await cluster.write_object(inode_oid(vdi_id), root, TABLE_OFFSET, copies=1)
    return vdi_id


async def read_tree(cluster: Cluster, vdi_id: int, start: int = 0) -> list[tuple[int, int]]:
    inode = await cluster.read_inode(vdi_id)
    pairs: list[tuple[int, int]] = []
    async with aclosing(cluster.read_btree(inode, start)) as leaves:
        async for idx, owned_by in leaves:
            pairs += zip(idx.tolist(), owned_by.tolist(), strict=True)
    return pairs


async def test_an_empty_tree_has_no_owners(cluster: Cluster) -> None:
    vdi_id = await cluster.create_vdi("hyper", 100 << 22, store_policy=1)

    assert await read_tree(cluster, vdi_id) == []


async def test_a_tree_of_depth_1_stands_in_the_inode(cluster: Cluster) -> None:
    pairs = [(0, 5), (70, 6)]
    vdi_id = await hyper_volume(cluster, leaf_node(pairs))

    assert await read_tree(cluster, vdi_id) == pairs


LEAVES = [[(0, 5), (9, 5)], [(10, 6)], [(50, 7), (99, 8)]]


async def deep_volume(cluster: Cluster, leaves: list[list[tuple[int, int]]]) -> int:
    entries = b"".join(struct.pack("<IIQ", leaf[-1][0], 0, btree_oid(1, number)) for number, leaf in enumerate(leaves))
    vdi_id = await hyper_volume(cluster, btree.pack_node_header(btree.INDIRECT, len(leaves)) + entries)
    for number, leaf in enumerate(leaves):
        await cluster.create_object(btree_oid(1, number), leaf_node(leaf), copies=1)
    return vdi_id


async def test_a_tree_of_depth_2_is_read_through_its_nodes(cluster: Cluster) -> None:
    vdi_id = await deep_volume(cluster, LEAVES)

    assert await read_tree(cluster, vdi_id) == [pair for leaf in LEAVES for pair in leaf]


@pytest.mark.parametrize("start", [0, 5, 9, 10, 11, 50, 99])
async def test_a_tree_can_be_read_from_an_index_on(cluster: Cluster, start: int) -> None:
    vdi_id = await deep_volume(cluster, LEAVES)

    assert await read_tree(cluster, vdi_id, start) == [pair for leaf in LEAVES for pair in leaf if pair[0] >= start]


@pytest.mark.parametrize(("idx", "owner"), [(0, 5), (1, 0), (10, 6), (50, 7), (51, 0), (99, 8)])
async def test_the_owner_of_one_object_is_found_in_a_tree(cluster: Cluster, idx: int, owner: int) -> None:
    inode = await cluster.read_inode(await deep_volume(cluster, LEAVES))

    assert await cluster.read_owner(inode, idx) == owner


async def test_the_owner_of_one_object_is_found_in_a_table(cluster: Cluster) -> None:
    await make_disk(cluster)
    inode = await cluster.find_vdi("disk", "a")

    assert [await cluster.read_owner(inode, idx) for idx in (4, 5)] == [inode.vdi_id, 0]


async def test_a_tree_ends_where_the_size_of_the_vdi_does(cluster: Cluster) -> None:
    vdi_id = await deep_volume(cluster, [[(99, 5), (100, 5)], [(101, 6)]])
    await cluster.write_object(btree_oid(1, 1), b"no node at all", copies=1)

    assert await read_tree(cluster, vdi_id) == [(99, 5)]


async def test_a_leaf_that_overlaps_the_one_before_it_is_refused(cluster: Cluster) -> None:
    vdi_id = await deep_volume(cluster, [[(0, 5), (10, 5)], [(10, 6)]])

    with pytest.raises(InodeCorrupt, match="do not ascend"):
        await read_tree(cluster, vdi_id)


async def test_a_large_tree_takes_little_memory() -> None:
    full = btree.NODE_SIZE // btree.LEAF_ENTRY_SIZE - 1
    oids = [btree_oid(5, number) for number in range(24)]
    root = btree.pack_node_header(btree.INDIRECT, len(oids)) + b"".join(
        struct.pack("<IIQ", full * (number + 1) - 1, 0, node_oid) for number, node_oid in enumerate(oids)
    )
    inode = Inode("hyper", 5, len(oids) * full << 22, store_policy=1)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await receive(reader)
            body = ObjectBody.unpack(request.body)
            if request.opcode != Opcode.READ_OBJ:
                writer.write(answer(request))
            elif body.oid == inode_oid(5):
                writer.write(answer(request, root[body.offset - TABLE_OFFSET :][: request.data_length]))
            elif body.offset == 0:
                writer.write(answer(request, btree.pack_node_header(btree.LEAF, full)))
            else:
                first = index_of(body.oid) * full + (body.offset - btree.NODE_HEADER_SIZE) // btree.LEAF_ENTRY_SIZE
                entries = np.full((request.data_length // btree.LEAF_ENTRY_SIZE, 2), 5, dtype="<u4")
                entries[:, 0] = np.arange(first, first + len(entries))
                writer.write(answer(request, entries.tobytes()))

    count = 0
    async with serve(handle) as port, connect("127.0.0.1", port, QUICK) as cluster:
        tracemalloc.start()
        try:
            async with aclosing(cluster.read_btree(inode)) as leaves:
                async for indices, _ in leaves:
                    count += len(indices)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert count == inode.object_count
    assert peak < 8 << 20, "of 96 MiB"


async def test_a_tree_that_names_a_node_twice_is_refused(cluster: Cluster) -> None:
    entries = b"".join(struct.pack("<IIQ", idx, 0, btree_oid(1, 0)) for idx in (5, 9))
    vdi_id = await hyper_volume(cluster, btree.pack_node_header(btree.INDIRECT, 2) + entries)
    await cluster.create_object(btree_oid(1, 0), leaf_node([(5, 5)]), copies=1)

    with pytest.raises(InodeCorrupt, match="do not ascend"):
        await read_tree(cluster, vdi_id)


async def test_a_tree_that_names_a_missing_node_cannot_be_read(cluster: Cluster) -> None:
    root = btree.pack_node_header(btree.INDIRECT, 1) + struct.pack("<IIQ", 5, 0, btree_oid(1, 0))
    vdi_id = await hyper_volume(cluster, root)

    with pytest.raises(RequestFailed, match="reading object 1000000100000000 failed: no such object"):
        await read_tree(cluster, vdi_id)


# Locks


def state_of(vdi_id: int, lock: int) -> bytes:
    return struct.pack("<I12xI", vdi_id, lock).ljust(VDI_STATE_SIZE, b"\0")


@asynccontextmanager
async def knows_states(states: bytes, *, result: Result = Result.SUCCESS) -> AsyncIterator[tuple[Cluster, list[int]]]:
    """Connect to a server that tells the states of its VDIs to who has room for them; give what was offered."""
    rooms: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await receive(reader)
            if header.opcode != Opcode.GET_VDI_COPIES:
                writer.write(answer(header))
                continue
            rooms.append(header.data_length)
            if header.data_length < len(states):
                writer.write(answer(header, result=Result.BUFFER_SMALL))
            else:
                writer.write(answer(header, states, result=result))

    async with serve(handle) as port, connect("127.0.0.1", port, QUICK) as cluster:
        yield cluster, rooms


@pytest.mark.parametrize(("lock", "is_locked"), [(1, False), (2, True), (3, True)])
async def test_a_cluster_says_whether_a_vdi_is_locked(lock: int, *, is_locked: bool) -> None:
    async with knows_states(state_of(4, 2) + state_of(5, lock)) as (cluster, _):
        assert await cluster.is_locked(5) is is_locked
        assert await cluster.is_locked(6) is None


async def test_where_there_are_many_vdis_more_room_is_offered_for_their_states() -> None:
    states = b"".join(state_of(number, 1) for number in range(1, 3000)) + state_of(3000, 2)

    async with knows_states(states) as (cluster, rooms):
        assert await cluster.is_locked(3000)
    assert [room // VDI_STATE_SIZE for room in rooms] == [512, 2048, 8192]


async def test_where_there_are_too_many_vdis_no_lock_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncbackup.client.cluster._MAX_STATES", 2048 * VDI_STATE_SIZE)

    async with knows_states(state_of(5, 2) * 2049) as (cluster, rooms):
        assert await cluster.is_locked(5) is None
    assert len(rooms) == 2


async def test_a_cluster_that_refuses_to_tell_states_knows_no_lock() -> None:
    async with knows_states(b"", result=Result.INVALID_PARMS) as (cluster, rooms):
        assert await cluster.is_locked(5) is None
    assert len(rooms) == 1


@pytest.mark.parametrize("release", list(Release))
async def test_only_the_latest_release_is_asked_for_locks(release: Release) -> None:
    async with Sheep(MemoryStore(), release=release) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        vdi_id = await cluster.create_vdi("disk", OBJECT * 4)

        assert await cluster.is_locked(vdi_id) is (False if release is Release.V1_0 else None)
        assert sheep.requests[Opcode.GET_VDI_COPIES] == (release is Release.V1_0)


async def test_a_replica_is_read_from_the_node_that_holds_it(cluster: Cluster) -> None:
    await make_disk(cluster)
    inode = await cluster.find_vdi("disk", "a")
    oid = data_oid(inode.vdi_id, 3)
    into, replica = bytearray(OBJECT - 512), bytearray(OBJECT - 512)
    [node] = await cluster.locate(oid)

    await cluster.read_object(oid, memoryview(into), 512)
    await cluster.read_replica(node, oid, memoryview(replica), 512)

    assert replica == into


async def test_a_replica_that_is_not_there_is_an_object_that_cannot_be_read(cluster: Cluster) -> None:
    await make_disk(cluster)
    inode = await cluster.find_vdi("disk", "a")
    [node] = await cluster.locate(data_oid(inode.vdi_id, 0))

    with pytest.raises(ObjectReadFailed) as raised:
        await cluster.read_replica(node, data_oid(inode.vdi_id, 7), memoryview(bytearray(OBJECT)))
    assert raised.value.result is Result.NO_OBJ


async def test_how_many_copies_there_are_is_found_out_of_an_owner_that_was_not_looked_at(cluster: Cluster) -> None:
    vdi_id = await cluster.create_vdi("disk", OBJECT * 4)

    assert len(await cluster.locate(data_oid(vdi_id, 0))) == 1
    assert cluster.nodes.placement.knows_copies(vdi_id)


async def test_the_place_of_what_is_coded_is_not_known(cluster: Cluster) -> None:
    cluster.nodes.placement.note_copies(5, 3, 0x21)

    with pytest.raises(PlacementUnknown, match="coded, and not copied"):
        await cluster.locate(data_oid(5, 0))


@pytest.mark.slow
@pytest.mark.parametrize("snapshot", [None, "b", 1])
async def test_what_the_cluster_does_not_look_up_is_found_by_reading(
    monkeypatch: pytest.MonkeyPatch, snapshot: int | str | None
) -> None:
    monkeypatch.setattr("asyncbackup.client.cluster._LOOK_UP_PATIENCE_S", 0.05)
    store = MemoryStore()
    async with Sheep(store) as sheep, connect(sheep.host, sheep.port, QUICK) as cluster:
        await make_disk(cluster)
        expected = await cluster.find_vdi("disk", snapshot)
    faults = [Fault.parse("get_vdi_info@1+:stall")]
    async with (
        Sheep(store, faults=faults) as one,
        Sheep(store, faults=faults) as other,
        connect_any([(one.host, one.port), (other.host, other.port)], QUICK) as cluster,
    ):
        assert await cluster.find_vdi("disk", snapshot) == expected
        assert await cluster.has_vdi("disk")
        assert not await cluster.has_vdi("disc")
        with pytest.raises(SnapshotNotFound):
            await cluster.find_vdi("disk", "nonsense")
