"""Hyper volumes: trees that no client here can grow in reasonable time are made by hand, and read back."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from asyncbackup import Cluster, Dialect, backup, connect
from asyncbackup.errors import HyperVolume, InodeCorrupt
from asyncbackup.format import RecordHeader
from asyncbackup.sheep import MemoryStore, Sheep
from asyncbackup.wire import btree
from asyncbackup.wire.constants import SECTOR_SIZE, Opcode
from asyncbackup.wire.inode import TABLE_OFFSET
from asyncbackup.wire.messages import ObjectBody, RequestHeader
from asyncbackup.wire.oid import data_oid, inode_oid
from tests.btree import btree_oid

OBJECT_SIZE = 4 << 20
STORE_POLICY_OFFSET = 553
COUNT = 3 << 20
"""Data objects: three times what an owner table could name."""
LEAVES = (
    (1, {0: b"first", 9: b"second"}),
    (4, {1 << 20: b"third"}),
    (3, {(1 << 20) + 1: b"fourth", COUNT - 1: b"last"}),
)
"""Number of the node object, and what the objects under it start with."""
CONTENT = {idx: content for _, leaf in LEAVES for idx, content in leaf.items()}


def leaf_node(vdi_id: int, indices: Iterable[int]) -> bytes:
    entries = [struct.pack("<II", idx, vdi_id) for idx in indices]
    return btree.pack_node_header(btree.LEAF, len(entries)) + b"".join(entries)


def indirect_node(vdi_id: int, highest: Iterable[tuple[int, int]]) -> bytes:
    entries = [struct.pack("<IIQ", idx, 0, btree_oid(vdi_id, number)) for idx, number in highest]
    return btree.pack_node_header(btree.INDIRECT, len(entries)) + b"".join(entries)


async def create(cluster: Cluster, root_of: bytes | None = None) -> int:
    """Create hyper volume ``far`` with the tree and the objects above, or another root."""
    vdi_id = await cluster.create_vdi("far", COUNT * OBJECT_SIZE, store_policy=1)
    for idx, content in CONTENT.items():
        await cluster.create_object(data_oid(vdi_id, idx), content.ljust(SECTOR_SIZE, b"\0"), copies=1)
    for number, leaf in LEAVES:
        await cluster.create_object(btree_oid(vdi_id, number), leaf_node(vdi_id, leaf), copies=1)
    root = root_of or indirect_node(vdi_id, [(max(leaf), number) for number, leaf in LEAVES])
    await cluster.write_object(inode_oid(vdi_id), root, TABLE_OFFSET, copies=1)
    return vdi_id


def full(content: dict[int, bytes]) -> bytes:
    """Build a full backup in the collie dialect of objects with something in their first sector."""
    records = [
        RecordHeader(idx, 0, SECTOR_SIZE).encode() + data.ljust(SECTOR_SIZE, b"\0")
        for idx, data in sorted(content.items())
    ]
    return Dialect.COLLIE.patch(len(records)) + b"".join(records)


async def test_a_tree_of_two_levels_is_backed_up(cluster: Cluster, tmp_path: Path) -> None:
    await create(cluster)

    summary = await backup(cluster, "far", tmp_path / "file", live=True)

    assert (tmp_path / "file").read_bytes() == full(CONTENT)
    assert summary.objects_read == len(CONTENT)


async def test_each_node_is_read_twice_and_each_object_once(tmp_path: Path) -> None:
    reads: Counter[tuple[int, int]] = Counter()

    def count(header: RequestHeader) -> None:
        if header.opcode == Opcode.READ_OBJ:
            body = ObjectBody.unpack(header.body)
            reads[body.oid, body.offset] += 1

    async with Sheep(MemoryStore(), on_request=count) as sheep, connect(sheep.host, sheep.port) as cluster:
        vdi_id = await create(cluster)
        reads.clear()
        await backup(cluster, "far", tmp_path / "file", live=True)

    nodes = {btree_oid(vdi_id, number) for number, _ in LEAVES}
    objects = {data_oid(vdi_id, idx) for idx in CONTENT}
    assert {oid for oid, _ in reads} == nodes | objects | {inode_oid(vdi_id)}
    assert {count for (oid, _), count in reads.items() if oid in objects} == {1}
    assert {count for (oid, _), count in reads.items() if oid in nodes} == {2}


async def test_a_root_that_is_a_leaf_is_backed_up(cluster: Cluster, tmp_path: Path) -> None:
    vdi_id = await create(cluster)
    root = leaf_node(vdi_id, [9, COUNT - 1])
    await cluster.write_object(inode_oid(vdi_id), root, TABLE_OFFSET, copies=1)

    await backup(cluster, "far", tmp_path / "file", live=True)

    assert (tmp_path / "file").read_bytes() == full({idx: CONTENT[idx] for idx in (9, COUNT - 1)})


@pytest.mark.parametrize("start", [b"", bytes(8)], ids=["new", "zeroed"])
async def test_an_empty_tree_gives_an_empty_backup(cluster: Cluster, tmp_path: Path, start: bytes) -> None:
    vdi_id = await cluster.create_vdi("far", COUNT * OBJECT_SIZE, store_policy=1)
    if start:
        await cluster.write_object(inode_oid(vdi_id), start, TABLE_OFFSET, copies=1)

    await backup(cluster, "far", tmp_path / "file", live=True)

    assert (tmp_path / "file").read_bytes() == full({})


async def test_objects_past_the_end_of_the_vdi_are_left_out(cluster: Cluster, tmp_path: Path) -> None:
    vdi_id = await create(cluster)
    root = leaf_node(vdi_id, [9, COUNT])
    await cluster.write_object(inode_oid(vdi_id), root, TABLE_OFFSET, copies=1)

    await backup(cluster, "far", tmp_path / "file", live=True)

    assert (tmp_path / "file").read_bytes() == full({9: CONTENT[9]})


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        (struct.pack("<HHI", 0x6275, 1, 1), "expected B-tree magic 6274, got 6275"),
        (struct.pack("<HHI", 0x6274, 3, 1), "depth"),
        (struct.pack("<HHI", 0x6274, 1, 1 << 30), "entries"),
        (struct.pack("<HHIIIII", 0x6274, 1, 2, 5, 1, 5, 1), "do not ascend"),
        (struct.pack("<HHIIIQ", 0x6274, 2, 1, 5, 0, 7), "expected the oid of a B-tree node"),
    ],
    ids=["magic", "depth", "count", "order", "oid"],
)
async def test_a_damaged_tree_is_told(cluster: Cluster, tmp_path: Path, root: bytes, problem: str) -> None:
    await create(cluster, root)

    with pytest.raises(InodeCorrupt, match=problem):
        await backup(cluster, "far", tmp_path / "file", live=True)

    assert not (tmp_path / "file").exists()


async def test_a_node_under_the_root_that_is_no_leaf_is_told(cluster: Cluster, tmp_path: Path) -> None:
    vdi_id = await create(cluster)
    nested = indirect_node(vdi_id, [(9, 4)])
    await cluster.write_object(btree_oid(vdi_id, 1), nested, copies=1)

    with pytest.raises(InodeCorrupt, match="expected a B-tree leaf under the root"):
        await backup(cluster, "far", tmp_path / "file", live=True)


async def test_there_is_no_difference_of_hyper_volumes(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_vdi("far", OBJECT_SIZE)
    await cluster.create_snapshot("far", "base")
    working = await cluster.find_vdi("far")
    await cluster.write_object(inode_oid(working.vdi_id), b"\1", STORE_POLICY_OFFSET, copies=1)

    with pytest.raises(HyperVolume, match="takes only a full backup"):
        await backup(cluster, "far", tmp_path / "file", live=True, base="base")
