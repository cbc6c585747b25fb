"""Snapshots that ``dog vdi delete`` removes while they are read, and objects that a guest discards meanwhile."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from asyncbackup import Cluster, NullTarget, Volume, WindowOptions, backup
from asyncbackup.client.fan_out import for_each
from asyncbackup.errors import SnapshotChanged
from asyncbackup.storage.target import Bytes, Step
from asyncbackup.wire import btree
from asyncbackup.wire.constants import Opcode
from asyncbackup.wire.inode import TABLE_OFFSET, Inode
from asyncbackup.wire.messages import Message, ObjectBody
from asyncbackup.wire.oid import data_oid, inode_oid
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

OBJECTS = 400
OBJECT_SIZE = 1 << 20
BATCH = 100
_NAMES = count()


async def make_snapshots(cluster: Cluster, *tags: str) -> str:
    """Create a VDI of many small objects, which all its snapshots share; give its name."""
    name = f"going{next(_NAMES)}"
    vdi_id = await cluster.create_vdi(name, OBJECTS * OBJECT_SIZE, block_size_shift=20)

    async def create(idx: int) -> None:
        await cluster.create_object(data_oid(vdi_id, idx), b"data" * 1024, copies=2)

    await for_each(range(OBJECTS), create)
    table = np.full(OBJECTS, vdi_id, dtype="<u4").tobytes()
    await cluster.write_object(inode_oid(vdi_id), table, TABLE_OFFSET, copies=2)
    for tag in tags:
        await cluster.create_snapshot(name, tag)
    return name


@pytest.fixture(autouse=True)
def freed(real: RealCluster) -> Iterator[None]:
    """Delete what a test made: real nodes allocate objects whole, which adds up to gigabytes."""
    yield
    for line in real.dog("vdi", "list", "-r").decode().splitlines():
        kind, name, snapshot_id, *_ = line.split(" ")
        if name.startswith("going"):
            real.dog("vdi", "delete", *(("-s", snapshot_id) if kind == "s" else ()), name)


class MeanwhileSink(NullTarget):
    """Throws everything away; once the first bytes came, it waits for ``meanwhile``."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._meanwhile = [meanwhile]
        self.is_complete = False

    async def append(self, buffers: Sequence[Bytes], *, before: Step | None = None) -> None:
        while self._meanwhile:
            await self._meanwhile.pop()()
        await super().append(buffers, before=before)

    async def complete(self, beginning: bytes = b"") -> None:
        self.is_complete = True
        await super().complete(beginning)


async def owned(cluster: Cluster, inode: Inode) -> int:
    """Count the objects that a table names."""
    return int(np.count_nonzero(await cluster.read_owners(inode.vdi_id, OBJECTS)))


async def until_fewer(cluster: Cluster, inode: Inode, than: int) -> int:
    """Wait until a table names fewer objects than ``than``, and give how many."""
    with anyio.fail_after(60):
        while (left := await owned(cluster, inode)) >= than:  # noqa: ASYNC110 - dog has no other way to tell
            await anyio.sleep(0.02)
    return left


@asynccontextmanager
async def deleting(real: RealCluster, name: str, tag: str, interval_s: int) -> AsyncIterator[None]:
    """Let ``dog vdi delete`` run, with pauses of ``interval_s`` seconds between its writes to the table."""
    options = ["-p", str(real.port), "-s", tag, "-B", str(BATCH), "-I", str(interval_s)]
    process = await anyio.open_process(["dog", "vdi", "delete", *options, name])
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


@pytest.mark.parametrize("gone", ["a", "b"], ids=["base", "snapshot"])
async def test_a_deletion_that_began_before_the_backup_is_found_out(
    real: RealCluster, client: Cluster, gone: str
) -> None:
    name = await make_snapshots(client, "a", "b")
    inode = await client.find_vdi(name, gone)

    async with deleting(real, name, gone, interval_s=3):
        left = await until_fewer(client, inode, OBJECTS)

        async def meanwhile() -> None:
            await until_fewer(client, inode, left)

        target = MeanwhileSink(meanwhile)
        with pytest.raises(SnapshotChanged, match=r"were given up|is not there any more"):
            await backup(client, name, target, snapshot="b", base="a")

    assert not target.is_complete


@pytest.mark.parametrize("base", [None, "a"], ids=["full", "increment"])
async def test_a_deletion_that_was_killed_half_way_is_found_out(
    real: RealCluster, client: Cluster, base: str | None
) -> None:
    name = await make_snapshots(client, "a", "b")
    inode = await client.find_vdi(name, "b")
    async with deleting(real, name, "b", interval_s=3):
        left = await until_fewer(client, inode, OBJECTS)
    assert await client.find_vdi(name, "b") == inode

    target = MeanwhileSink(anyio.lowlevel.checkpoint)
    with pytest.raises(SnapshotChanged, match=f"{OBJECTS - left} of its objects, which VDI '{name}' still has, were"):
        await backup(client, name, target, snapshot="b", base=base)

    assert not target.is_complete


@pytest.mark.parametrize(("gone", "base"), [("b", None), ("b", "a"), ("a", "a")], ids=["full", "snapshot", "base"])
async def test_a_snapshot_that_is_deleted_while_it_is_read_is_found_out(
    real: RealCluster, client: Cluster, gone: str, base: str | None
) -> None:
    name = await make_snapshots(client, "a")
    volume = await Volume.open(client, name)
    for idx in range(40):
        await volume.write(idx * OBJECT_SIZE, b"new!" * 1024)
    await client.create_snapshot(name, "b")

    async def meanwhile() -> None:
        await anyio.run_process(["dog", "vdi", "delete", "-p", str(real.port), "-s", gone, name])

    target = MeanwhileSink(meanwhile)
    with pytest.raises(SnapshotChanged, match=r"is not there any more"):
        await backup(client, name, target, snapshot="b", base=base)

    assert not target.is_complete


@pytest.mark.parametrize("store_policy", [0, 1], ids=["table", "tree"])
async def test_objects_that_the_guest_discards_while_they_are_read_are_zeros(
    client: Cluster, store_policy: int
) -> None:
    name, object_count = f"trimmed{next(_NAMES)}", 40
    vdi_id = await client.create_vdi(name, object_count << 22, store_policy=store_policy)
    for idx in range(object_count):
        await client.create_object(data_oid(vdi_id, idx), b"data" * (16 << 10), copies=2)
    inode = inode_oid(vdi_id)
    if store_policy:
        entries = b"".join(struct.pack("<II", idx, vdi_id) for idx in range(object_count))
        root = btree.pack_node_header(btree.LEAF, object_count) + entries
        await client.write_object(inode, root, TABLE_OFFSET, copies=2)
    else:
        await client.write_object(inode, np.full(object_count, vdi_id, dtype="<u4").tobytes(), TABLE_OFFSET, copies=2)

    async def meanwhile() -> None:
        for idx in range(object_count - 5, object_count):
            body = ObjectBody(data_oid(vdi_id, idx)).pack()
            await client.expect_success(Message(Opcode.DISCARD_OBJ, body), "discarding an object")

    target = MeanwhileSink(meanwhile)
    summary = await backup(client, name, target, live=True, options=WindowOptions(workers=2))

    assert (summary.records, summary.objects_discarded) == (object_count - 5, 5)
