"""The B-tree that holds the owners of a hyper volume's data objects.

A node is an 8-byte header (magic u16 0x6274, depth u16, entry count u32) and its entries, sorted by idx:
depth 1: idx u32, owner u32; depth 2: highest idx u32, pad u32, oid u64 of a depth 1 node. The root stands in the
inode, in the place of the owner table of other volumes. If its magic is zero, the tree is empty.
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

LEAF_ENTRY_SIZE: Final = 8

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
    """Read the first 8 bytes of a node. Raises InodeCorrupt unless a node can have them."""
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


def unpack_leaf_header(vdi_id: int, header: Bytes) -> NodeHeader:
    """Read the first 8 bytes of a node under the root. Raises InodeCorrupt unless it is a leaf that names something."""
    node = unpack_node_header(vdi_id, header)
    if node.depth != LEAF:
        raise InodeCorrupt(vdi_id, f"expected a B-tree leaf under the root, got a node of depth {node.depth}")
    if not node.count:
        raise InodeCorrupt(vdi_id, "expected a B-tree leaf under the root, got an empty one")
    return node


def unpack_leaf(vdi_id: int, entries: Bytes, after: int = -1) -> Leaf:
    """Read entries of a leaf. Raises InodeCorrupt unless their indices ascend and are above ``after``."""
    leaf = np.frombuffer(entries, dtype=_LEAF_ENTRY)
    idx = leaf["idx"].astype(np.uint32)
    if len(idx) and (int(idx[0]) <= after or np.any(idx[1:] <= idx[:-1])):
        raise InodeCorrupt(vdi_id, "the indices in its B-tree do not ascend")
    return idx, leaf["owner"].astype(np.uint32)


def unpack_indirect(vdi_id: int, entries: Bytes) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Read an indirect node's entries: the highest index of each leaf, and the leaves' oids, in their order.

    Raises InodeCorrupt if one is no B-tree node's oid.
    """
    nodes = np.frombuffer(entries, dtype=_INDIRECT_ENTRY)
    highest, oids = nodes["idx"].astype(np.uint32), nodes["oid"].astype(np.uint64)
    strange = oids[(oids & np.uint64(BTREE_BIT)) == 0]
    if len(strange):
        raise InodeCorrupt(vdi_id, f"expected the oid of a B-tree node, got {int(strange[0]):016x}")
    return highest, oids
