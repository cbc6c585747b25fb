"""What can go wrong under a backup, one fault at a time: the right error in time, no file, nothing left under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from asyncbackup import ClientOptions, Cluster, Dialect, Summary, WindowOptions, backup, connect
from asyncbackup.errors import (
    AsyncBackupError,
    ClusterError,
    ClusterNotReady,
    ConnectionLost,
    ObjectReadFailed,
    ObjectSizesDiffer,
    ProtocolViolation,
    RequestFailed,
    RequestTimeout,
    SnapshotNotFound,
    TargetExists,
    TargetUnusable,
    VdiNotFound,
)
from asyncbackup.sheep import Fault, MemoryStore, Sheep
from asyncbackup.sheep.release import Release
from asyncbackup.wire.constants import Opcode, Result
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import is_data
from tests.disks import OBJECT, content_of, make_disk, rewrite_inode
from tests.faults.proxy import Proxy, proxy
from tests.folders import left_in
from tests.holding import unanswered
from tests.property import reference
from tests.waiting import until

ONE = ClientOptions(connections=1, connect_timeout_s=5, request_timeout_s=10, give_up_after_s=0, retry_delay_s=0)


_READY: list[MemoryStore] = []


async def make_store() -> MemoryStore:
    made = MemoryStore()
    async with Sheep(made) as sheep, connect(sheep.host, sheep.port, ONE) as cluster:
        await make_disk(cluster)
    return made


@pytest.fixture
async def store() -> MemoryStore:
    """Holds the disk of tests.disks; the same one each time, so not to be written to."""
    if not _READY:
        _READY.append(await make_store())
    return _READY[0]


@pytest.fixture
async def own_store() -> MemoryStore:
    """Holds the disk of tests.disks, to be written to."""
    return await make_store()


@asynccontextmanager
async def served(
    store: MemoryStore,
    *faults: str,
    options: ClientOptions = ONE,
    release: Release = Release.V1_0,
    seen: list[RequestHeader] | None = None,
) -> AsyncIterator[Cluster]:
    on_request = None if seen is None else seen.append
    script = [Fault.parse(fault) for fault in faults]
    async with (
        Sheep(store, faults=script, release=release, on_request=on_request) as sheep,
        connect(sheep.host, sheep.port, options) as cluster,
    ):
        yield cluster


@asynccontextmanager
async def through_proxy(store: MemoryStore, options: ClientOptions) -> AsyncIterator[tuple[Proxy, Cluster]]:
    async with (
        Sheep(store) as sheep,
        proxy(sheep.port) as between,
        connect("127.0.0.1", between.port, options) as cluster,
    ):
        yield between, cluster


async def difference(cluster: Cluster, folder: Path, options: WindowOptions | None = None) -> Summary:
    return await backup(cluster, "disk", folder / "file", snapshot="b", base="a", dialect=Dialect.DOG, options=options)


async def good_file(store: MemoryStore, folder: Path) -> bytes:
    async with served(store) as cluster:
        await difference(cluster, folder)
    data = (folder / "file").read_bytes()
    remove_files(folder)
    return data


def remove_files(folder: Path) -> None:
    for name in left_in(folder):
        (folder / name).unlink()


async def reads_of_data(store: MemoryStore, folder: Path, options: WindowOptions | None = None) -> list[int]:
    """Give which of a backup's READ_OBJ requests, counted from 1, are for data; the others are for metadata."""
    seen: list[RequestHeader] = []
    async with served(store, seen=seen) as cluster:
        await difference(cluster, folder, options)
    remove_files(folder)
    reads = [request for request in seen if request.opcode == Opcode.READ_OBJ]
    return [nth for nth, read in enumerate(reads, 1) if is_data(ObjectBody.unpack(read.body).oid)]


CUT = "closed by the server after [0-9]+ of [0-9]+ bytes of a payload|(?i:connection reset|broken pipe)"
"""Requests on their way to a server that closes the connection make it a reset, which overtakes what was sent."""

FAULTS: Sequence[tuple[str, type[AsyncBackupError], str]] = [
    ("short=20", ProtocolViolation, "expected [0-9]+ bytes, got 20 bytes"),
    ("short=0", ProtocolViolation, "expected [0-9]+ bytes, got 0 bytes"),
    ("long=1", ProtocolViolation, "expected at most [0-9]+ bytes for READ_OBJ, got [0-9]+ bytes"),
    ("wrong-id", ProtocolViolation, "expected an answer to one of our requests, got one to request 10737"),
    ("garbage=64", ProtocolViolation, "expected an answer to one of our requests, got one to request"),
    ("reset", ConnectionLost, "(?i)connection reset"),
    ("cut=0", ConnectionLost, CUT),
    ("cut=20", ConnectionLost, CUT),
]


@pytest.mark.parametrize("nth", [1, 3, 5, 14], ids=["inode", "table", "first object", "last object"])
@pytest.mark.parametrize(("fault", "kind", "message"), FAULTS, ids=[fault for fault, *_ in FAULTS])
async def test_a_broken_answer_ends_the_backup(
    store: MemoryStore, tmp_path: Path, *, nth: int, fault: str, kind: type[ClusterError], message: str
) -> None:
    async with served(store, f"read_obj@{nth}:{fault}") as cluster:
        with pytest.raises(kind, match=message):
            await difference(cluster, tmp_path)

        await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 0)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("fault", ["wrong-id", "garbage=64", "reset"])
@pytest.mark.parametrize("opcode", ["get_vdi_info", "get_node_list"])
async def test_a_broken_answer_to_a_lookup_ends_the_backup(
    store: MemoryStore, tmp_path: Path, opcode: str, fault: str
) -> None:
    with pytest.raises((ProtocolViolation, ConnectionLost)):
        async with served(store, f"{opcode}@1:{fault}") as cluster:
            await difference(cluster, tmp_path)

    assert left_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 3, 5, 14])
async def test_a_stall_ends_at_the_deadline(store: MemoryStore, tmp_path: Path, nth: int) -> None:
    async with served(store, f"read_obj@{nth}:stall", options=replace(ONE, request_timeout_s=0.5)) as cluster:
        async with asyncio.timeout(5):
            with pytest.raises(RequestTimeout, match=r"did not answer READ_OBJ within 0\.5 s"):
                await difference(cluster, tmp_path)

    assert left_in(tmp_path) == []


async def test_an_object_that_cannot_be_read_is_named(store: MemoryStore, tmp_path: Path) -> None:
    for nth in await reads_of_data(store, tmp_path):
        async with served(store, f"read_obj@{nth}:error=EIO") as cluster:
            with pytest.raises(ObjectReadFailed) as caught:
                await difference(cluster, tmp_path)

        error = caught.value
        assert str(error) == f"reading object {error.idx} (oid {error.oid:016x}) failed: I/O error (result 0x03)"
        assert error.oid & 0xFFFFFFFF == error.idx
        assert left_in(tmp_path) == []


async def test_an_object_that_cannot_be_read_in_pieces_is_named(store: MemoryStore, tmp_path: Path) -> None:
    in_pieces = WindowOptions(memory=1 << 20)
    last = (await reads_of_data(store, tmp_path, in_pieces))[-1]
    async with served(store, f"read_obj@{last}:error=EIO") as cluster:
        with pytest.raises(ObjectReadFailed, match="reading object"):
            await difference(cluster, tmp_path, in_pieces)

    assert left_in(tmp_path) == []


async def test_metadata_that_cannot_be_read_is_named(store: MemoryStore, tmp_path: Path) -> None:
    async with served(store, "read_obj@1:error=NO_OBJ") as cluster:
        with pytest.raises(RequestFailed, match=r"reading object 80[0-9a-f]+ failed: no such object"):
            await difference(cluster, tmp_path)

    assert left_in(tmp_path) == []


async def test_an_unknown_result_is_told_by_its_number(store: MemoryStore, tmp_path: Path) -> None:
    first, *_ = await reads_of_data(store, tmp_path)
    async with served(store, f"read_obj@{first}:error=0x77") as cluster:
        with pytest.raises(ObjectReadFailed, match=r"unknown 0x77 \(result 0x77\)"):
            await difference(cluster, tmp_path)


@pytest.mark.parametrize(
    ("result", "word"),
    [
        ("WAIT_FOR_FORMAT", "waiting for format"),
        ("STARTUP", "starting up"),
        ("SHUTDOWN", "shutting down"),
        ("HALT", "halted"),
        ("WAIT_FOR_JOIN", "waiting for other nodes to join"),
    ],
)
@pytest.mark.parametrize("request_", ["get_vdi_info@1+", "any@1+", "read_obj@8"])
async def test_a_cluster_that_does_not_serve_says_why(
    store: MemoryStore, tmp_path: Path, *, request_: str, result: str, word: str
) -> None:
    async with served(store, f"{request_}:error={result}") as cluster:
        with pytest.raises(ClusterNotReady, match=f"is not serving: {word}"):
            await difference(cluster, tmp_path)

    assert left_in(tmp_path) == []


async def test_what_is_unknown_is_told_with_what_exists(store: MemoryStore, tmp_path: Path) -> None:
    async with served(store) as cluster:
        with pytest.raises(VdiNotFound, match="no VDI named 'disc'; VDIs are disk"):
            await backup(cluster, "disc", tmp_path / "file", snapshot="a")
        with pytest.raises(SnapshotNotFound, match=r"no snapshot 'z'; snapshots are 2 \(b\), 1 \(a\)"):
            await backup(cluster, "disk", tmp_path / "file", snapshot="z")
        with pytest.raises(SnapshotNotFound, match=r"no snapshot 9; snapshots are 2 \(b\), 1 \(a\)"):
            await backup(cluster, "disk", tmp_path / "file", snapshot="a", base=9)

    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["file", "missing/file"])
async def test_what_is_wrong_with_the_file_is_told_before_anything_is_read(
    store: MemoryStore, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    seen: list[RequestHeader] = []
    async with served(store, seen=seen) as cluster:
        greeting = len(seen)

        with pytest.raises((TargetExists, TargetUnusable)):
            await backup(cluster, "disk", tmp_path / name, snapshot="a")

        assert len(seen) == greeting
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_different_object_sizes_are_refused(own_store: MemoryStore, tmp_path: Path) -> None:
    async with served(own_store) as cluster:
        rewrite_inode(own_store, replace(await cluster.find_vdi("disk", "a"), block_size_shift=22))

        with pytest.raises(ObjectSizesDiffer, match=r"objects of 1048576 bytes, and .* of 4194304 bytes"):
            await difference(cluster, tmp_path)

    assert left_in(tmp_path) == []


async def test_a_vdi_that_grew_is_compared_as_far_as_the_snapshot_goes(own_store: MemoryStore, tmp_path: Path) -> None:
    async with served(own_store) as cluster:
        small = replace(await cluster.find_vdi("disk", "a"), vdi_size=5 * OBJECT)
        rewrite_inode(own_store, small)
        to, base = [await content_of(cluster, "disk", tag) for tag in "ab"]

        await backup(cluster, "disk", tmp_path / "back", snapshot="a", base="b", dialect=Dialect.DOG)
        await backup(cluster, "disk", tmp_path / "forth", snapshot="b", base="a", dialect=Dialect.DOG)

    back = reference.parse((tmp_path / "back").read_bytes(), "dog", OBJECT)
    assert back == [record for record in reference.difference(to, base, OBJECT) if record.idx < 5]
    forth = reference.parse((tmp_path / "forth").read_bytes(), "dog", OBJECT)
    assert forth == reference.difference(base, to, OBJECT)
    assert {5, 6} <= {record.idx for record in forth}


async def test_late_and_reordered_answers_give_the_same_file(store: MemoryStore, tmp_path: Path) -> None:
    expected = await good_file(store, tmp_path)
    first, second, *_ = await reads_of_data(store, tmp_path)
    faults = [f"read_obj@{first}:delay=0.05", f"read_obj@{second}:reorder=4"]

    async with served(store, *faults) as cluster:
        await difference(cluster, tmp_path)

    assert (tmp_path / "file").read_bytes() == expected


@pytest.mark.parametrize("result", ["AGAIN", "OLD_NODE_VER", "NEW_NODE_VER", "NETWORK_ERROR"])
async def test_transient_results_are_tried_again_and_counted(store: MemoryStore, tmp_path: Path, result: str) -> None:
    expected = await good_file(store, tmp_path)
    data = await reads_of_data(store, tmp_path)
    async with served(store) as cluster:
        undisturbed = await difference(cluster, tmp_path)
    remove_files(tmp_path)
    faults = [f"read_obj@{nth}:error={result}" for nth in (1, data[0], data[-1])]

    async with served(store, *faults, options=replace(ONE, give_up_after_s=60)) as cluster:
        summary = await difference(cluster, tmp_path)

    assert summary.retries == len(faults)
    assert summary.requests == undisturbed.requests + len(faults)
    assert (tmp_path / "file").read_bytes() == expected


async def test_patience_with_transient_results_ends(store: MemoryStore, tmp_path: Path) -> None:
    first, *_ = await reads_of_data(store, tmp_path)
    seen: list[RequestHeader] = []
    options = replace(ONE, give_up_after_s=0.05)
    async with served(store, f"read_obj@{first}+:error=AGAIN", seen=seen, options=options) as cluster:
        with pytest.raises(ObjectReadFailed, match=r"try again \(result 0x8f\)"):
            await difference(cluster, tmp_path)

    reads = [header.body for header in seen if header.opcode == Opcode.READ_OBJ]
    assert reads.count(reads[first - 1]) > 2
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("release", list(Release))
@pytest.mark.parametrize("memory", [1 << 20, 128 << 20])
async def test_every_release_gives_the_same_file(
    store: MemoryStore, tmp_path: Path, memory: int, release: Release
) -> None:
    expected = await good_file(store, tmp_path)
    seen: list[RequestHeader] = []

    async with served(store, release=release, seen=seen) as cluster:
        await difference(cluster, tmp_path, WindowOptions(memory=memory))

    assert (tmp_path / "file").read_bytes() == expected
    newest = release.value.newest_public_version
    assert {header.proto_ver for header in seen if header.opcode == Opcode.READ_OBJ} == {newest}


async def test_trimmed_answers_are_expanded(tmp_path: Path) -> None:
    async with served(MemoryStore(), release=Release.V0_6) as cluster:
        await cluster.create_vdi("disk", 4 * OBJECT)
        vdi_id = (await cluster.find_vdi("disk")).vdi_id
        await cluster.create_object(vdi_id << 32, b"data", 700, copies=1)
        buffer = bytearray(b"\xee" * 4096)

        await cluster.read_object(vdi_id << 32, memoryview(buffer))

        assert buffer == bytes(700) + b"data" + bytes(4096 - 704)


async def test_nothing_is_ever_locked_or_written(store: MemoryStore, tmp_path: Path) -> None:
    seen: list[RequestHeader] = []

    async with served(store, seen=seen) as cluster:
        await difference(cluster, tmp_path)

    assert {header.opcode for header in seen} == {
        Opcode.GET_NODE_LIST,
        Opcode.STAT_CLUSTER,
        Opcode.GET_VDI_INFO,
        Opcode.READ_DEL_VDIS,
        Opcode.READ_OBJ,
    }


async def test_a_connection_outlives_a_cancelled_request(store: MemoryStore) -> None:
    async with served(store, "read_obj@1:delay=0.1") as cluster:
        cancelled = asyncio.create_task(cluster.read_object(1, memoryview(bytearray(512))))
        await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 1)
        cancelled.cancel()
        await asyncio.wait([cancelled])

        assert (await cluster.find_vdi("disk", "a")).tag == "a"
        await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 0)


async def test_a_connection_outlives_a_request_out_of_time(store: MemoryStore) -> None:
    async with served(store, "read_obj@1:delay=0.1") as cluster:
        cluster.router.options = replace(ONE, request_timeout_s=0.01)
        with pytest.raises(RequestTimeout):
            await cluster.read_object(1, memoryview(bytearray(512)))
        cluster.router.options = ONE

        assert (await cluster.find_vdi("disk", "a")).tag == "a"
        await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 0)


async def test_each_waiter_gets_an_exception_of_its_own(store: MemoryStore) -> None:
    async with served(store, "read_obj@2:reset", "read_obj@1:stall") as cluster:
        reads = [cluster.read_object(1, memoryview(bytearray(512))) for _ in range(2)]

        errors = await asyncio.gather(*reads, return_exceptions=True)

    assert [type(error) for error in errors] == [ConnectionLost] * 2
    assert len({id(error) for error in errors}) == 2


async def test_a_lost_connection_leaves_the_others_to_later_backups(store: MemoryStore, tmp_path: Path) -> None:
    async with served(store, "read_obj@7:reset", options=replace(ONE, connections=3)) as cluster:
        with pytest.raises(ConnectionLost):
            await difference(cluster, tmp_path)

        await difference(cluster, tmp_path)

    assert left_in(tmp_path) == ["file", "file.manifest"]


@pytest.mark.parametrize("piece", [1000, 4097, 1 << 16])
async def test_answers_in_pieces_of_any_size_give_the_same_file(store: MemoryStore, tmp_path: Path, piece: int) -> None:
    expected = await good_file(store, tmp_path)

    async with through_proxy(store, ONE) as (between, cluster):
        between.piece = piece
        await difference(cluster, tmp_path)

    assert (tmp_path / "file").read_bytes() == expected


@pytest.mark.parametrize("after", [0, 700, 10_000, OBJECT, 4 * OBJECT + 100])
async def test_a_connection_that_drops_anywhere_ends_the_backup(store: MemoryStore, tmp_path: Path, after: int) -> None:
    async with through_proxy(store, ONE) as (between, cluster):
        between.drop_after = between.forwarded + after

        with pytest.raises(ConnectionLost):
            await difference(cluster, tmp_path)

        await until(lambda: unanswered(*cluster.nodes._nodes.values()) == 0)
    assert left_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 700, OBJECT, 4 * OBJECT + 100])
async def test_a_node_that_freezes_anywhere_ends_the_backup_in_time(
    store: MemoryStore, tmp_path: Path, after: int
) -> None:
    options = replace(ONE, connections=2, request_timeout_s=0.5)
    async with through_proxy(store, options) as (between, cluster):
        between.freeze_after = between.forwarded + after

        async with asyncio.timeout(5):
            with pytest.raises(RequestTimeout):
                await difference(cluster, tmp_path)

    assert left_in(tmp_path) == []


async def test_results_of_lookups_that_mean_nothing_to_us_are_told(store: MemoryStore, tmp_path: Path) -> None:
    async with served(store, "get_vdi_info@2:error=SYSTEM_ERROR") as cluster:
        with pytest.raises(RequestFailed, match="looking up VDI 'disk' failed") as caught:
            await difference(cluster, tmp_path)

        assert caught.value.result is Result.SYSTEM_ERROR
