"""The B-tree that holds the owners of a hyper volume's data objects.

A node is an 8-byte header (magic u16 0x6274, depth u16, entry count u32) and its entries, sorted by idx:
depth 1: idx u32, owner u32; depth 2: highest idx u32, pad u32, oid u64 of a depth 1 node. The root stands in the
inode where others have their owner table. A place that starts with a zero magic is an empty tree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asyncbackup.errors import InodeCorrupt
from asyncbackup.wire.inode import TABLE_SIZE, Owners
from asyncbackup.wire.messages import Bytes
from asyncbackup.wire.oid import BTREE_BIT

NODE_HEADER_SIZE: Final = 8
NODE_SIZE: Final = TABLE_SIZE
"""Bytes of a node object, and the room for the root node in the inode."""

Leaf = tuple[NDArray[np.uint32], Owners]
"""Ascending data object indices, and the owner of each."""

LEAF: Final = 1
INDIRECT: Final = 2

_MAGIC: Final = 0x6274
_HEADER: Final = struct.Struct("<HHI")
_LEAF_ENTRY: Final = np.dtype([("idx", "<u4"), ("owner", "<u4")])
_INDIRECT_ENTRY: Final = np.dtype([("idx", "<u4"), ("pad", "<u4"), ("oid", "<u8")])


@dataclass(frozen=True, slots=True)
class NodeHeader:
    """``depth`` is 1 (entries name owners) or 2 (entries name nodes); an empty tree is a leaf of 0 entries."""

    depth: int
    count: int

    @property
    def entries_size(self) -> int:
        """Bytes of entries after the node's header."""
        entry = _LEAF_ENTRY if self.depth == LEAF else _INDIRECT_ENTRY
        return entry.itemsize * self.count


def pack_node_header(depth: int, count: int) -> bytes:
    """Build the 8 bytes that start a node."""
    return _HEADER.pack(_MAGIC, depth, count)


def unpack_node_header(vdi_id: int, header: Bytes) -> NodeHeader:
    """Read the first 8 bytes of a node. Raises InodeCorrupt if they are no node's, or it cannot hold that many."""
    magic, depth, count = _HEADER.unpack_from(header)
    if magic == 0:
        return NodeHeader(LEAF, 0)
    if magic != _MAGIC:
        raise InodeCorrupt(vdi_id, f"expected B-tree magic {_MAGIC:04x}, got {magic:04x}")
    if depth not in (LEAF, INDIRECT):
        raise InodeCorrupt(vdi_id, f"expected B-tree depth 1 or 2, got {depth}")
    node = NodeHeader(depth, count)
    if NODE_HEADER_SIZE + node.entries_size > NODE_SIZE:
        raise InodeCorrupt(vdi_id, f"expected a B-tree node of {NODE_SIZE} bytes, got {count} entries")
    return node


def unpack_leaf(vdi_id: int, entries: Bytes) -> Leaf:
    """Read a leaf's entries. Raises InodeCorrupt if their indices do not ascend."""
    leaf = np.frombuffer(entries, dtype=_LEAF_ENTRY)
    return _ascending(vdi_id, np.ascontiguousarray(leaf["idx"]), np.ascontiguousarray(leaf["owner"]))


def unpack_leaf_node(vdi_id: int, node: Bytes) -> Leaf:
    """Read a whole leaf node object. Raises InodeCorrupt if it is none."""
    header = unpack_node_header(vdi_id, node)
    if header.depth != LEAF:
        raise InodeCorrupt(vdi_id, f"expected a B-tree leaf under the root, got a node of depth {header.depth}")
    return unpack_leaf(vdi_id, memoryview(node)[NODE_HEADER_SIZE : NODE_HEADER_SIZE + header.entries_size])


def join_leaves(vdi_id: int, leaves: list[Leaf]) -> Leaf:
    """Join the leaves of a tree, in order. Raises InodeCorrupt if indices do not ascend across them."""
    return _ascending(
        vdi_id, np.concatenate([idx for idx, _ in leaves]), np.concatenate([owner for _, owner in leaves])
    )


def _ascending(vdi_id: int, idx: NDArray[np.uint32], owners: Owners) -> Leaf:
    if np.any(idx[1:] <= idx[:-1]):
        raise InodeCorrupt(vdi_id, "the indices in its B-tree do not ascend")
    return idx, owners


def unpack_indirect(vdi_id: int, entries: Bytes) -> list[int]:
    """Read an indirect node's entries: the oids of its leaves, in order of their indices.

    Raises InodeCorrupt if one is no B-tree node's oid.
    """
    oids = [int(oid) for oid in np.frombuffer(entries, dtype=_INDIRECT_ENTRY)["oid"]]
    for oid in oids:
        if not oid & BTREE_BIT:
            raise InodeCorrupt(vdi_id, f"expected the oid of a B-tree node, got {oid:016x}")
    return oids
