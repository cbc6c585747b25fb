from __future__ import annotations

import struct

import pytest

from asyncbackup.errors import InodeCorrupt
from asyncbackup.wire import btree
from asyncbackup.wire.btree import INDIRECT, LEAF, NODE_HEADER_SIZE, NODE_SIZE, Leaf
from asyncbackup.wire.oid import data_oid
from tests.btree import btree_oid

VDI = 0xABCDEF


def entries(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<II", idx, owner) for idx, owner in pairs)


def as_pairs(leaf: Leaf) -> list[tuple[int, int]]:
    idx, owners = leaf
    return list(zip(idx.tolist(), owners.tolist(), strict=True))


def test_golden_node_header() -> None:
    assert btree.pack_node_header(INDIRECT, 3).hex(" ", 2) == "7462 0200 0300 0000"


@pytest.mark.parametrize(("depth", "size"), [(LEAF, 8), (INDIRECT, 16)])
def test_a_header_tells_the_size_of_its_entries(depth: int, size: int) -> None:
    header = btree.unpack_node_header(VDI, btree.pack_node_header(depth, 5))

    assert (header.depth, header.count, header.entries_size) == (depth, 5, 5 * size)


def test_a_place_that_starts_with_zero_is_an_empty_tree() -> None:
    header = btree.unpack_node_header(VDI, bytes(8))

    assert (header.depth, header.count, header.entries_size) == (LEAF, 0, 0)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (struct.pack("<HHI", 0x1234, 1, 0), "expected B-tree magic 6274, got 1234"),
        (btree.pack_node_header(0, 0), "expected B-tree depth 1 or 2, got 0"),
        (btree.pack_node_header(3, 0), "expected B-tree depth 1 or 2, got 3"),
        (btree.pack_node_header(LEAF, NODE_SIZE // 8), "got 524288 entries"),
        (btree.pack_node_header(INDIRECT, NODE_SIZE // 16), "got 262144 entries"),
    ],
)
def test_a_header_that_is_no_nodes_is_refused(header: bytes, problem: str) -> None:
    with pytest.raises(InodeCorrupt, match=problem):
        btree.unpack_node_header(VDI, header)


def test_a_node_may_be_full() -> None:
    header = btree.unpack_node_header(VDI, btree.pack_node_header(LEAF, NODE_SIZE // 8 - 1))

    assert NODE_HEADER_SIZE + header.entries_size == NODE_SIZE


def test_a_leaf_holds_indices_and_their_owners() -> None:
    assert as_pairs(btree.unpack_leaf(VDI, entries((0, VDI), (7, 5)))) == [(0, VDI), (7, 5)]


@pytest.mark.parametrize("indices", [(5, 5), (7, 3)])
def test_a_leaf_whose_indices_do_not_ascend_is_refused(indices: tuple[int, int]) -> None:
    with pytest.raises(InodeCorrupt, match="do not ascend"):
        btree.unpack_leaf(VDI, entries(*((idx, VDI) for idx in indices)))


def test_the_indices_of_a_leaf_may_have_to_be_behind_those_before_it() -> None:
    assert as_pairs(btree.unpack_leaf(VDI, entries((5, VDI)), after=4)) == [(5, VDI)]
    with pytest.raises(InodeCorrupt, match="do not ascend"):
        btree.unpack_leaf(VDI, entries((5, VDI)), after=5)


def test_a_leaf_keeps_nothing_of_the_bytes_it_came_in() -> None:
    packed = bytearray(entries((5, VDI)))
    leaf = btree.unpack_leaf(VDI, packed)

    packed[:] = bytes(8)

    assert as_pairs(leaf) == [(5, VDI)]


def test_a_leaf_under_the_root_says_how_many_entries_it_has() -> None:
    assert btree.unpack_leaf_header(VDI, btree.pack_node_header(LEAF, 3)).count == 3


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (btree.pack_node_header(INDIRECT, 1), "got a node of depth 2"),
        (btree.pack_node_header(LEAF, 0), "got an empty one"),
        (bytes(8), "got an empty one"),
    ],
)
def test_what_is_no_leaf_with_entries_is_refused_under_the_root(header: bytes, problem: str) -> None:
    with pytest.raises(InodeCorrupt, match=f"expected a B-tree leaf under the root, {problem}"):
        btree.unpack_leaf_header(VDI, header)


def test_an_indirect_node_names_its_leaves() -> None:
    packed = b"".join(struct.pack("<IIQ", idx, 0, btree_oid(VDI, number)) for number, idx in enumerate((9, 20)))

    highest, oids = btree.unpack_indirect(VDI, packed)

    assert (highest.tolist(), oids.tolist()) == ([9, 20], [btree_oid(VDI, 0), btree_oid(VDI, 1)])


def test_an_indirect_node_that_names_something_else_is_refused() -> None:
    with pytest.raises(InodeCorrupt, match="expected the oid of a B-tree node, got 00abcdef00000001"):
        btree.unpack_indirect(VDI, struct.pack("<IIQ", 9, 0, data_oid(VDI, 1)))
